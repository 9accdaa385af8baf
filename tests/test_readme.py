"""The README: what it shows is run, in its order, and what it names exists."""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement

REPOSITORY: Final = Path(__file__).parent.parent
README: Final = (REPOSITORY / "README.md").read_text(encoding="utf-8")

RUN_ELSEWHERE: Final = {
    "make demo": "tests/test_demo.py",
    "make test": ".ci/run",
}
"""Commands that are not run here, and what runs them."""

INSTALL: Final = "pip install '/path/to/clone[dev]'"
"""Not run, since it needs the network: the same distributions are put where it would put them."""

IN_THE_CLONE: Final = ("The example", "Deploy")
"""Sections whose commands are for the clone; all others are for a project of the reader's own."""

FILES: Final = ("greeter.py", "test_greeter.py")
"""What the README says that its Python blocks are to be saved as, in their order."""


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    section: str
    language: str
    text: str


def blocks(language: str = "") -> list[Block]:
    """Return the blocks in a language, or all of them."""
    found: list[Block] = []
    for section in README.split("\n## "):
        title = section.partition("\n")[0]
        fenced = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        found += [Block(title, kind, text) for kind, text in fenced]
    return [block for block in found if language in ("", block.language)]


def answer(text: str) -> dict[str, object]:
    """Return a response without what differs from one to the next."""
    value: dict[str, object] = json.loads(text)
    assert value.pop("correlationId")
    return value


class Terminals:
    """Two terminals in one folder: a local agent runs in the first, everything else in the second."""

    def __init__(self, folder: Path, home: Path) -> None:
        self._folder = folder
        # As in a shell with that environment active: nothing of the one that these tests run in.
        python = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
        (home / "python3").symlink_to(python)
        paths = [str(folder / ".venv" / "bin"), str(home), *os.environ["PATH"].split(os.pathsep)]
        self._environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
            "PATH": os.pathsep.join(path for path in paths if path != str(Path(sys.prefix, "bin"))),
            "XDG_RUNTIME_DIR": str(home),  # where `send` looks for the agent
        }
        self._agent: subprocess.Popen[str] | None = None

    def run(self, command: str) -> str:
        """Run a line as it stands, and return what it printed."""
        if command.startswith("kepm-plugin dev"):
            return self._start(command)
        done = subprocess.run(
            ["sh", "-c", command], cwd=self._folder, env=self._environment, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _start(self, command: str) -> str:
        self.end()
        agent = subprocess.Popen(
            ["sh", "-c", f"exec {command}"], cwd=self._folder, env=self._environment, stdout=subprocess.PIPE, text=True
        )
        self._agent = agent
        assert agent.stdout is not None
        assert any("ready:" in line for line in agent.stdout), command
        return ""

    def end(self) -> None:
        """End the agent as Ctrl-C does."""
        if self._agent is not None:
            self._agent.send_signal(signal.SIGINT)
            self._agent.communicate(timeout=30)
            assert self._agent.returncode == 0
            self._agent = None


@contextmanager
def terminals(folder: Path, home: Path) -> Generator[Terminals]:
    """Open both, and end the agent at the end."""
    both = Terminals(folder, home)
    try:
        yield both
    finally:
        both.end()


# --- what `pip install` would do --------------------------------------------------------------------------------------


def needed(requirements: Iterable[str]) -> dict[str, Distribution]:
    """Return the installed distributions that a list of requirements leads to."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        extras = ["", *wanted.extras]
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        if wanted.name.lower() not in found or wanted.extras:
            one = found[wanted.name.lower()] = distribution(wanted.name)
            for text in one.requires or ():
                inner = Requirement(text)
                if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                    inner.marker = None
                    waiting.append(inner)
    return found


def install(venv: Path) -> None:
    """Put this package with its extra `dev`, and nothing else, into an environment."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    (site,) = venv.glob("lib/python*/site-packages")
    extra = needed([*project["dependencies"], *project["optional-dependencies"]["dev"]])
    for one in (distribution("kepm-plugin"), *extra.values()):
        for file in one.files or ():
            source = Path(str(one.locate_file(file)))
            if file.parts[-2:-1] == ("bin",) and file.parts[0] == "..":
                script = venv / "bin" / file.name
                if source.read_bytes().startswith(b"#!"):
                    script.write_text(source.read_text("utf-8").replace(sys.prefix, str(venv)), "utf-8")
                    script.chmod(0o755)
                else:
                    script.symlink_to(source)
            elif file.parts[0] not in ("..", "__pycache__") and not (site / file.parts[0]).exists():
                (site / file.parts[0]).symlink_to(Path(str(one.locate_file(file.parts[0]))))


# --- running the page -------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder of the reader's own, with the files saved."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name, block in zip(FILES, blocks("python"), strict=True):
        (folder / name).write_text(block.text, encoding="utf-8")
    return folder


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone as the README's reader has it, after `make test`."""
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "plugins").symlink_to(REPOSITORY / "plugins")
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.mark.timeout(180)  # an environment is made, and a bundle
def test_every_command_does_what_is_said_in_the_order_of_the_page(
    project: Path, clone: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shown = ""
    with (
        terminals(project, tmp_path_factory.mktemp("home")) as own,
        terminals(clone, tmp_path_factory.mktemp("home")) as cloned,
    ):
        for block in blocks():
            both = cloned if block.section in IN_THE_CLONE else own
            if block.language == "sh":
                for command in block.text.splitlines():
                    if command == INSTALL:
                        install(project / ".venv")
                    elif command not in RUN_ELSEWHERE:
                        shown = both.run(command)
            elif block.language == "json":
                assert answer(shown) == answer(block.text)
    assert (project / "Plugins" / "Greeter.json").is_file()
    assert (clone / "dist" / "agent-root" / "Plugins" / "bin" / "MyWorker" / "MyWorker").is_file()


def test_what_runs_elsewhere_does() -> None:
    commands = [command for block in blocks("sh") for command in block.text.splitlines()]
    assert INSTALL in commands
    assert {block.section for block in blocks()} > set(IN_THE_CLONE)
    for command, place in RUN_ELSEWHERE.items():
        assert command in commands
        assert command.split()[-1] in (REPOSITORY / place).read_text(encoding="utf-8")


def test_every_block_says_what_it_is_and_is_known_here() -> None:
    assert {block.language for block in blocks()} == {"python", "sh", "json"}
    assert README.count("```") == 2 * len(blocks())
    for name in FILES:
        assert f"`{name}`" in README


def test_the_first_plugin_has_ten_lines() -> None:
    lines = [line for line in blocks("python")[0].text.splitlines() if line.strip()]
    assert len(lines) == 10


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)]+)\)", README))))
def test_every_link_leads_to_a_file(link: str) -> None:
    assert (REPOSITORY / link.partition("#")[0]).is_file()


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 160


def test_it_is_plain_ascii() -> None:
    """It is read in terminals, too."""
    assert README.isascii()
