"""A new public name is a decision: it shows here, in `__all__` and, for an error, in the tree.

The checkers read source, so that they can be shown one that is wrong.
"""

import ast
import re
from pathlib import Path
from typing import Final

import pytest

PACKAGE: Final = Path(__file__).parents[2] / "src" / "kepm_plugin"

FACADE: Final = {
    "Change",
    "Gap",
    "Handler",
    "Message",
    "Plugin",
    "Publisher",
    "Rejected",
    "Request",
    "Retry",
    "Secret",
    "Settings",
    "Size",
    "__version__",
    "background",
    "errors",
    "every",
    "program_environment",
    "setting",
}
ERRORS: Final = {
    "EXIT_CODES",
    "AgentError",
    "AgentRefused",
    "AgentUnreachable",
    "BadAgentAnswer",
    "BadPayload",
    "BadTopic",
    "BrokerRefused",
    "InstanceError",
    "KepmError",
    "LinkLost",
    "ManifestError",
    "NoAnswer",
    "Overloaded",
    "PayloadMismatch",
    "PeerNotTrusted",
    "PluginDefinitionError",
    "Refused",
    "Rejected",
    "Retry",
    "SettingsConflict",
    "SettingsError",
    "SettingsNotStored",
    "SettingsReadOnly",
    "StartedAsJob",
    "StoreError",
    "TopicClash",
    "UndeclaredTopic",
    "UnknownPlugin",
    "UnknownTicket",
    "UsageError",
}

TESTING: Final = {"Failed", "Hosted", "MemoryAgent", "MemoryBroker", "hosted"}


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def exported(module: ast.Module) -> list[str]:
    """Return `__all__`."""
    for node in module.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="__all__")], value=value)
                | ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value)
            ):
                return [str(name) for name in ast.literal_eval(value)]
            case _:
                pass
    return []


def bound(module: ast.Module, *, imported: bool) -> set[str]:
    """Return the public names that a module defines, and those that it imports."""
    names: set[str] = set()
    for node in module.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases) if imported:
                names |= {(alias.asname or alias.name).partition(".")[0] for alias in aliases}
            case _:
                pass
    return {name for name in names if not name.startswith("_")}


def name_offences(file: Path, pinned: set[str], *, imported: bool = False) -> list[str]:
    """Return where `__all__`, the pinned names and the names that the file binds differ.

    Args:
        file: The module.
        pinned: What `__all__` must be.
        imported: Whether imported names count as public too, as in a facade.
    """
    names = exported(module := parsed(file))
    return [
        *(f"{name} is in __all__ of {file.name}, and not pinned" for name in names if name not in pinned),
        *(f"{name} is pinned, and not in __all__ of {file.name}" for name in sorted(pinned - set(names))),
        *(
            f"{name} looks public in {file.name}, and is not in its __all__"
            for name in sorted(bound(module, imported=imported) - set(names))
        ),
        *(f"{name} is twice in __all__ of {file.name}" for name in sorted(set(names)) if names.count(name) > 1),
    ]


def drawn(docstring: str) -> dict[str, str | None]:
    """Return each class of a drawn tree with the one that it hangs on."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in docstring.splitlines():
        if found := re.match(r"    ((?:[│ ]   )*(?:[├└]── )?)([A-Z]\w+)(?:\s{2,}\S|$)", line):
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            parents[found[2]] = path[depth - 1] if depth else None
    return parents


def tree_offences(file: Path) -> list[str]:
    """Return where the tree in the docstring of `errors` differs from its classes, and unlisted exit codes."""
    module = parsed(file)
    tree = drawn(ast.get_docstring(module, clean=False) or "")
    offences: list[str] = []
    for node in module.body:
        if not isinstance(node, ast.ClassDef):
            continue
        base = next((base.id for base in node.bases if isinstance(base, ast.Name)), None)
        if node.name not in tree:
            offences.append(f"{node.name} is not in the tree")
        elif tree[node.name] != (base if base != "Exception" else None):
            offences.append(f"{node.name} hangs on {tree[node.name]} in the tree, and is a {base}")
    classes = {node.name for node in module.body if isinstance(node, ast.ClassDef)}
    return offences + [f"{name} is in the tree only" for name in tree if name not in classes]


def exit_code_offences(file: Path) -> list[str]:
    """Return the exit codes of classes that `EXIT_CODES` does not explain."""
    source = file.read_text("utf-8")
    used = {int(code) for code in re.findall(r"^    exit_code(?:: ClassVar\[int\])? = (\d+)$", source, re.MULTILINE)}
    explained = {int(code) for code in re.findall(r"^    (\d+): ", source, re.MULTILINE)}
    return [f"exit code {code} is not in EXIT_CODES" for code in sorted(used - explained)]


def test_the_names_for_authors_are_deliberate() -> None:
    assert name_offences(PACKAGE / "__init__.py", FACADE, imported=True) == []


def test_the_names_for_authors_tests_are_deliberate() -> None:
    assert name_offences(PACKAGE / "testing" / "__init__.py", TESTING, imported=True) == []


def test_the_errors_are_deliberate_and_drawn_as_they_are() -> None:
    errors = PACKAGE / "errors.py"
    assert name_offences(errors, ERRORS) == []
    assert tree_offences(errors) == []
    assert exit_code_offences(errors) == []


# --- the checkers, shown sources that they must refuse ----------------------------------------------------------------

CLEAN: Final = '''"""Errors.

    Root
    ├── One        who
    │   └── Deep   who
    └── Two        who

Root is no drawing here.
"""

import os
from typing import ClassVar

__all__ = ["CODES", "Deep", "One", "Root", "Two"]

CODES: dict[int, str] = {
    1: "one",
}
_private = 1


class Root(Exception):
    exit_code: ClassVar[int] = 1

class One(Root): ...
class Deep(One): ...
class Two(Root): ...
'''
PINNED: Final = {"CODES", "Deep", "One", "Root", "Two"}


def checked(folder: Path, text: str, *, imported: bool = False) -> list[str]:
    file = folder / "errors.py"
    file.write_text(text, "utf-8")
    return [*name_offences(file, PINNED, imported=imported), *tree_offences(file), *exit_code_offences(file)]


def test_a_clean_source_is_accepted(tmp_path: Path) -> None:
    assert checked(tmp_path, CLEAN) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"Two"]', '"Two", "New"]', "New is in __all__ of errors.py, and not pinned"),
        (', "Two"]', "]", "Two is pinned, and not in __all__ of errors.py"),
        ('"One", ', '"One", "One", ', "One is twice in __all__ of errors.py"),
        ("_private", "public", "public looks public in errors.py, and is not in its __all__"),
        ("_private", "def run(): ...\nx", "run looks public in errors.py, and is not in its __all__"),
        ("class Two(Root)", "class Two(One)", "Two hangs on Root in the tree, and is a One"),
        ("class Two(Root): ...", "", "Two is in the tree only"),
        ("    └── Two        who\n", "", "Two is not in the tree"),
        ("_private = 1", "class New(Two): ...", "New is not in the tree"),
        ("[int] = 1", "[int] = 2", "exit code 2 is not in EXIT_CODES"),
        ("__all__ = ", "names = ", "Root is pinned, and not in __all__ of errors.py"),
    ],
)
def test_a_name_that_nobody_decided_on_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in CLEAN
    assert said in checked(tmp_path, CLEAN.replace(old, new))


def test_a_facade_that_imports_more_than_it_names_is_refused(tmp_path: Path) -> None:
    offences = checked(tmp_path, CLEAN, imported=True)
    assert "os looks public in errors.py, and is not in its __all__" in offences
