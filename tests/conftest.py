"""Fixtures for several test folders, and how the tests are spread over processes.

`make test` runs them in a few processes at a time (pytest-xdist), since much of what they do is waiting. A file is not
divided: its tests run in their order in one process, and what it makes once for all of them is made once. Files run in
any order and beside any others, of this run or of somebody else's. So what a test uses is its own: folders below
`tmp_path`, the lock of a plugin too (`lock_dir`), ports that the system gives, nothing in the repository. And a bound
on a wait is for what never comes: no test is right only on a quiet machine.

A file that must not run beside some others is named in `ONE_BY_ONE`. `pytest` alone runs everything in one process, in
the order of the files.
"""

import datetime
import ipaddress
import os
import ssl
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import settings

# How long an example may take says something about the machine.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for localhost as the agent makes one: PEM files, the first without the key."""

    file: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key)
        return context


def make_certificate(folder: Path) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    made.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


@pytest.fixture(scope="session", autouse=True)
def own_list_of_agents(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Keep the local agents of the tests off the developer's list of running ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KEPM_DEV_AGENTS", str(tmp_path_factory.mktemp("agents")))
        yield


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def other_certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """The certificate that the agent will have after a restart."""
    return make_certificate(tmp_path_factory.mktemp("other_certificate"))


# --- several processes ------------------------------------------------------------------------------------------------

ONE_BY_ONE: Final = (
    "tests/bundle/test_frozen.py",
    "tests/chaos/test_scenes.py",
    "tests/chaos/test_short.py",
    "tests/e2e/test_stall.py",
    "tests/test_demo.py",
    "tests/test_readme.py",
    "tests/typing/test_typing.py",
)
"""Files that keep all processors busy: one process runs them one after the other, others run what is not here.

A mark would be closer to them, but that of xdist (`xdist_group`) does nothing under pytest 9.2.
"""

MOST_WORKERS: Final = 6
"""More would wait for the longest files."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Give whole files to the processes, in the order in which they were collected."""
    config.option.loadscopereorder = False
    scheduler = import_module("xdist.scheduler").LoadScopeScheduling(config, log)  # by name: it has no types
    scheduler._split_scope = _unit
    return scheduler


def _unit(node: str) -> str:
    file = node.partition("::")[0]
    return "one by one" if file in ONE_BY_ONE else file


def pytest_xdist_auto_num_workers() -> int:
    """Take one more than there are processors: there is always one that waits."""
    return min((os.cpu_count() or 1) + 1, MOST_WORKERS)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have a file with few tests come before one with many: those are the long tests, and what is left is even."""
    if hasattr(config, "workerinput"):
        sizes = Counter(item.path for item in items)
        items.sort(key=lambda item: (sizes[item.path], item.path))


# --- nothing is skipped: a test that does not run proves nothing, and CI would not notice ----------------------------


class NotRun:
    """Has the session fail where something was skipped. Reports reach it from other processes too."""

    def __init__(self) -> None:
        self._nodes: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:  # xfail included
            self._nodes.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._nodes.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK and self._nodes:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for node in self._nodes:
            terminalreporter.write_line(f"FAILED {node}: skipped; a test runs, or it goes", red=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(NotRun())
