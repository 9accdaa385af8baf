"""The environment that a plugin gives the programs it starts."""

import os
import sys
from pathlib import Path

import pytest

from kepm_plugin import program_environment

BUNDLE = str(Path("/opt/agent root/Plugins/bin/My/_internal"))


def joined(*folders: str) -> str:
    return os.pathsep.join(folders)


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyInstaller's loader has started this process."""
    monkeypatch.setattr(sys, "_MEIPASS", BUNDLE, raising=False)


def test_outside_of_a_bundle_it_is_a_copy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    found = program_environment()
    assert found == dict(os.environ)
    found["LD_LIBRARY_PATH"] = "/else"
    assert os.environ["LD_LIBRARY_PATH"] == "/opt/lib"


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("name", ["LD_LIBRARY_PATH", "LIBPATH", "DYLD_LIBRARY_PATH", "DYLD_FRAMEWORK_PATH", "PATH"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (BUNDLE, None),
        (joined(BUNDLE, "/opt/lib"), "/opt/lib"),
        (joined("/opt/lib", str(Path(BUNDLE, "numpy.libs")), "/usr/lib"), joined("/opt/lib", "/usr/lib")),
        (joined(BUNDLE, ""), None),
        ("/opt/lib", "/opt/lib"),
        (BUNDLE + "-2", BUNDLE + "-2"),
        ("", ""),
    ],
)
def test_no_folder_of_the_bundle_stays_in_a_search_path(name: str, value: str, expected: str | None) -> None:
    assert program_environment({"LANG": "C", name: value}) == {"LANG": "C"} | (
        {} if expected is None else {name: expected}
    )


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("original", ["/opt/lib", joined("/opt/lib", BUNDLE), ""])
def test_what_the_loader_has_kept_is_restored(original: str) -> None:
    given = {"LD_LIBRARY_PATH": joined(BUNDLE, original), "LD_LIBRARY_PATH_ORIG": original}
    assert program_environment(given) == {"LD_LIBRARY_PATH": original}


@pytest.mark.usefixtures("frozen")
def test_a_variable_that_only_looks_kept_is_left_alone() -> None:
    given = {"PATH": "/usr/bin", "PATH_ORIG": "/home/me/bin"}
    assert program_environment(given) == given


@pytest.mark.usefixtures("frozen")
def test_the_variables_of_the_loader_itself_are_gone() -> None:
    given = {"_PYI_ARCHIVE_FILE": "/x", "_PYI_PARENT_PROCESS_LEVEL": "1", "HOME": "/root"}
    assert program_environment(given) == {"HOME": "/root"}
