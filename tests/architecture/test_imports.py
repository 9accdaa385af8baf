"""Imports follow the tables of docs/architecture.md.

The checkers take the folder of a package and the text of the page, so that they can be shown a source that is wrong.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "src" / "kepm_plugin"
PAGE: Final = (ROOT / "docs" / "architecture.md").read_text("utf-8")
NAME: Final = "kepm_plugin"

BY_NAME_UP: Final = {("plugin", "cli")}
"""Imports by name, at run time, that may point up."""

DEVAGENT_MAY: Final = {"errors", "topics", "contract"}

SOLE_OWNERS: Final = {
    "PyInstaller": "bundle",
    "aiomqtt": "broker",
    "cryptography": "devagent",
    "httpcore": "agent",
    "httpx": "agent",
    "paho": "broker",
    "sqlite3": "database",
    "starlette": "devagent",
    "structlog": "logs",
    "typer": "cli",
    "uvicorn": "devagent",
    "watchfiles": "devagent",
}
"""Libraries that must not get a second owner, whatever the page says."""

OWNED_STDLIB: Final = {"sqlite3"}

VALUES: Final = {("msgspec", name) for name in ("Struct", "asdict", "field", "replace")}
"""What any module may make its values of, as the page says: class, and functions on its objects."""


@dataclass(frozen=True)
class Import:
    """One name that a file imports: `unit` is our module at the top level, or None for a foreign library."""

    where: str
    by: str
    unit: str | None
    library: str
    name: str
    by_name: bool = False


def layers(page: str) -> dict[str, int]:
    """Return each module's row, the bottom one being 0."""
    block = re.search(r"```text\n(.*?)```", page, re.DOTALL)
    assert block, "the page has no layer table"
    rows = [row.split() for row in reversed(block[1].splitlines())]
    return {module: number for number, row in enumerate(rows) for module in row}


def libraries(page: str) -> dict[str, set[str]]:
    """Return each module's third-party libraries."""
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", page, re.MULTILINE)
    return {module: set(re.findall(r"\w+", listed)) for module, listed in rows}


def units(package: Path) -> dict[str, list[Path]]:
    """Return the files of each top-level module or subpackage."""
    found: dict[str, list[Path]] = {}
    for file in sorted(package.rglob("*.py")):
        found.setdefault(file.relative_to(package).parts[0].removesuffix(".py"), []).append(file)
    return found


def imports(package: Path) -> Iterator[Import]:
    """Yield every import of the package: in functions, under TYPE_CHECKING and by literal name too."""
    known = units(package)
    for by, files in known.items():
        for file in files:
            parent = [NAME, *file.relative_to(package).parts[:-1]]
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                for module, name, by_name in _imported(node, parent):
                    where = f"{file.relative_to(package)}:{getattr(node, 'lineno', 0)}"
                    first, *rest = module.split(".")
                    if first != NAME:
                        yield Import(where, by, None, first, name, by_name)
                    elif rest:
                        yield Import(where, by, rest[0], NAME, name, by_name)
                    else:  # `from kepm_plugin import x`: a module of ours, or a name of the facade
                        yield Import(where, by, name if name in known else "__init__", NAME, "", by_name)


def _imported(node: ast.AST, parent: list[str]) -> Iterator[tuple[str, str, bool]]:
    """Yield module, name ("" for the module as a whole) and whether the module is given as a string."""
    match node:
        case ast.Import(names=names):
            for alias in names:
                yield alias.name, "", False
        case ast.ImportFrom(module=module, names=names, level=level):
            start = parent[: len(parent) - level + 1] if level else []
            for alias in names:
                yield ".".join([*start, *([module] if module else [])]), alias.name, False
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(module)), *_],
        ):
            level = len(module) - len(module.lstrip("."))
            start = parent[: len(parent) - level + 1] if level else []
            yield ".".join([*start, *module.lstrip(".").split(".")]).rstrip("."), "", True
        case _:
            pass


def documented(package: Path) -> set[str]:
    """Return the names of `contract` in its file of documented constants."""
    text = (package / "contract" / "_documented.py").read_text("utf-8")
    return set(re.findall(r"^([A-Z][A-Z0-9_]*)\b", text, re.MULTILINE))


def layer_offences(package: Path, page: str) -> list[str]:
    """Return the imports among our own modules that the page forbids."""
    rows = layers(page)
    offences = [f"{unit} is in no row" for unit in units(package) if unit not in rows]
    for one in imports(package):
        if one.unit in (None, one.by) or one.by not in rows:
            continue
        if one.unit not in rows:
            offences.append(f"{one.where}: {one.unit} is in no row")
        elif one.by == "devagent" and one.unit not in DEVAGENT_MAY:
            offences.append(f"{one.where}: devagent may not import {one.unit}")
        elif one.by == "devagent" and one.unit == "contract" and one.name not in documented(package):
            offences.append(f"{one.where}: devagent may not import {one.name or 'the whole'} of contract")
        elif rows[one.unit] >= rows[one.by] and not (one.by_name and (one.by, one.unit) in BY_NAME_UP):
            way = "up" if rows[one.unit] > rows[one.by] else "sideways"
            offences.append(f"{one.where}: {one.by} imports {one.unit}, which points {way}")
    return offences


def library_offences(package: Path, page: str) -> list[str]:
    """Return the imports of foreign libraries by modules that the page does not name as their owners."""
    allowed = libraries(page)
    offences = [
        f"the page names {module} as an owner of {library}; {owner} is to be the only one"
        for library, owner in SOLE_OWNERS.items()
        for module, listed in allowed.items()
        if library in listed and module != owner
    ]
    return offences + [
        f"{one.where}: {one.by} may not import {one.library}"
        for one in imports(package)
        if one.unit is None
        and (one.library, one.name) not in VALUES
        and (one.library not in sys.stdlib_module_names or one.library in OWNED_STDLIB)
        and one.library not in allowed.get(one.by, set())
    ]


def test_imports_only_point_down() -> None:
    assert layer_offences(PACKAGE, PAGE) == []


def test_each_library_is_imported_by_its_owners_only() -> None:
    assert library_offences(PACKAGE, PAGE) == []


def test_the_page_describes_every_module_of_its_layers() -> None:
    assert set(layers(PAGE)) == set(libraries(PAGE))
    assert {library for listed in libraries(PAGE).values() for library in listed} >= set(SOLE_OWNERS)


# --- the checkers, shown sources that they must refuse ----------------------------------------------------------------

DOCUMENTED: Final = 'STATUS = "Status"'
CONTRACT: Final = """
LINK = "Link"
class Contract: ...
ASSUMED = Contract()
def status_topic(): ...
"""


def tree(folder: Path, **files: str) -> Path:
    """Write a package; `a__b` is the file `a/b.py`."""
    package = folder / NAME
    for name, text in {
        "__init__": "",
        "contract____init__": CONTRACT,
        "contract___documented": DOCUMENTED,
        **files,
    }.items():
        file = package / (f"{name.replace('__', '/')}.py" if name != "__init__" else "__init__.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    return package


CLEAN: Final = {
    "__init__": "from . import errors\nfrom .plugin import Plugin\nfrom ._version import __version__",
    "_version": "__version__ = '1'",
    "errors": "import os",
    "topics": "from .errors import KepmError\nfrom . import errors",
    "plugin__a": "from importlib import import_module\nfrom ..topics import x\nfrom .b import y\n"
    "def main():\n    import_module('kepm_plugin.cli').main()",
    "plugin__b": "from . import a\nfrom kepm_plugin.plugin import a",
    "peer": "import importlib\nimportlib.import_module('psutil')",
    "devagent__gate": "from kepm_plugin.contract import STATUS\nfrom kepm_plugin.devagent import x\nimport anyio.abc",
    "broker": "import aiomqtt",
    "cli": "import typer\nfrom kepm_plugin import errors, Plugin\nfrom .plugin.a import main",
}


def test_a_clean_source_is_accepted(tmp_path: Path) -> None:
    package = tree(tmp_path, **CLEAN)
    assert layer_offences(package, PAGE) == []
    assert library_offences(package, PAGE) == []


@pytest.mark.parametrize(
    ("module", "text", "said"),
    [
        ("topics", "from .plugin import Plugin", "topics imports plugin, which points up"),
        ("topics", "from . import plugin", "topics imports plugin, which points up"),
        ("topics", "import kepm_plugin.plugin.a", "topics imports plugin, which points up"),
        ("topics", "from kepm_plugin import Plugin", "topics imports __init__, which points up"),
        ("errors", "from . import Plugin", "errors imports __init__, which points up"),
        ("topics", "from .contract import STATUS", "topics imports contract, which points sideways"),
        ("dispatch__lane", "from ..outbox import Outbox", "dispatch imports outbox, which points sideways"),
        ("dispatch__lane", "from .. import broker", "dispatch imports broker, which points sideways"),
        (
            "dispatch__lane",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from kepm_plugin.runtime import Runtime",
            "dispatch imports runtime, which points up",
        ),
        ("store", "def f():\n    from .dispatch import Call", "store imports dispatch, which points up"),
        ("plugin__a", "from ..cli import main", "plugin imports cli, which points up"),
        ("plugin__a", "__import__('kepm_plugin.runtime')", "plugin imports runtime, which points up"),
        ("plugin__a", "import importlib\nimportlib.import_module('..runtime', 'x')", "plugin imports runtime"),
        ("helpers", "", "helpers is in no row"),
        ("topics", "from .helpers import x", "helpers is in no row"),
        ("devagent__gate", "from ..message import Received", "devagent may not import message"),
        ("devagent__gate", "from kepm_plugin.contract import ASSUMED", "devagent may not import ASSUMED of contract"),
        ("devagent__gate", "from ..contract import Contract", "devagent may not import Contract of contract"),
        ("devagent__gate", "from ..contract import status_topic", "devagent may not import status_topic of contract"),
        ("devagent__gate", "from ..contract import LINK", "devagent may not import LINK of contract"),
        ("devagent__gate", "from .. import contract", "devagent may not import the whole of contract"),
        ("devagent__gate", "import kepm_plugin.contract", "devagent may not import the whole of contract"),
    ],
)
def test_an_import_against_the_layers_is_refused(tmp_path: Path, module: str, text: str, said: str) -> None:
    offences = layer_offences(tree(tmp_path, **{**CLEAN, module: text}), PAGE)
    assert any(said in offence for offence in offences), offences


@pytest.mark.parametrize(
    ("module", "text", "said"),
    [
        ("link", "import aiomqtt", "link may not import aiomqtt"),
        ("link", "from paho.mqtt import client", "link may not import paho"),
        ("runtime", "def f():\n    import httpx", "runtime may not import httpx"),
        ("store", "import sqlite3", "store may not import sqlite3"),
        (
            "topics",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import anyio",
            "topics may not import anyio",
        ),
        ("logs", "import requests", "logs may not import requests"),
        ("outbox", "import importlib\nimportlib.import_module('structlog')", "outbox may not import structlog"),
        ("helpers", "import msgspec", "helpers may not import msgspec"),
        ("topics", "from msgspec import json", "topics may not import msgspec"),
    ],
)
def test_a_library_in_the_wrong_module_is_refused(tmp_path: Path, module: str, text: str, said: str) -> None:
    offences = library_offences(tree(tmp_path, **{**CLEAN, module: text}), PAGE)
    assert any(said in offence for offence in offences), offences


def test_a_second_owner_on_the_page_is_refused(tmp_path: Path) -> None:
    page = PAGE.replace("| outbox: order", "").replace(
        "pipelining, deadlines | anyio |", "deadlines | anyio, aiomqtt |"
    )
    assert library_offences(tree(tmp_path), page) == [
        "the page names outbox as an owner of aiomqtt; broker is to be the only one"
    ]
