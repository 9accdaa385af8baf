"""Which plugin a command line means, and its one identity however it is started.

A class is always that of the module under its dotted name: `package.module:Class`, `path/file.py:Class`, `python -m`
and a script all lead to the same object, so that handlers in other modules register on the class that runs.
"""

import importlib
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Final

from .errors import KepmError, PluginDefinitionError, UsageError
from .plugin import Plugin

_MAIN: Final = "__main__"
_OURS: Final = str(Path(__file__).parent) + os.sep
_STDLIB: Final = str(Path(os.__file__).parent) + os.sep

_loading: list[str] = []  # what is being imported here, so that a `main()` in it can be told from the real one


def load(target: str) -> type[Plugin]:
    """Import and return the plugin class of a target, its declarations checked.

    Args:
        target: `package.module:Class` or `path/file.py:Class`; `:Class` may be left out where the module defines one
            plugin. A path is imported under its dotted name.

    Raises:
        UsageError: There is no such file, module or class, or the target fits several.
        PluginDefinitionError: The author's module cannot be imported, or its declarations are wrong.
    """
    place, name = _split(target)
    if place.endswith(".py") or "/" in place or os.sep in place:
        module = _import_file(Path(place))
    else:
        module = _import_module(place)
    kind = _named(module, name, target) if name else _only(module, place)
    with _told():
        kind.declarations()
    return kind


def real_class(kind: type[Plugin]) -> type[Plugin]:
    """Return the class of the importable module for one that a script, or `python -m`, has defined in `__main__`.

    Raises:
        PluginDefinitionError: There is no such module, or `main()` is called while it is imported.
    """
    if _loading:
        raise PluginDefinitionError(
            f"{kind.__name__}.main() is called while {_loading[-1]} is imported; put the call under "
            "'if __name__ == \"__main__\":'"
        )
    real = kind if kind.__module__ != _MAIN else _from_main(kind)
    with _told():
        real.declarations()
    return real


def address(kind: type[Plugin]) -> str:
    """Return a target that means the class in any working directory: by absolute path where that is the same."""
    file = getattr(sys.modules[kind.__module__], "__file__", None)
    if file is not None and dotted_name(Path(file))[1] == kind.__module__:
        return f"{Path(file).resolve()}:{kind.__qualname__}"
    return f"{kind.__module__}:{kind.__qualname__}"


def dotted_name(path: Path) -> tuple[Path, str]:
    """Return the folder that must be on `sys.path`, and a file's module name below it.

    Raises:
        PluginDefinitionError: A part of the name is no Python name, so that it cannot be imported.
    """
    path = path.resolve()
    parts = [] if path.stem == "__init__" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    for part in parts:
        if not part.isidentifier():
            raise PluginDefinitionError(
                f"{path} cannot be imported, as {part!r} is no Python name; rename it, with '_' for what is no letter "
                "or digit"
            )
    return folder, ".".join(parts)


def _split(target: str) -> tuple[str, str]:
    place, colon, name = target.rpartition(":")
    # A drive letter has a colon, too, but no name after it.
    if colon and place and all(part.isidentifier() for part in name.split(".")):
        return place, name
    return target, ""


def _import_file(path: Path) -> ModuleType:
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the file in it that defines the plugin")
    if not path.is_file():
        raise UsageError(f"there is no file {path}; correct the target, path/file.py:Class or package.module:Class")
    if path.suffix != ".py":
        raise UsageError(f"{path} is no Python file; name the '.py' file that defines the plugin")
    root, name = dotted_name(path)
    importlib.invalidate_caches()
    _check_free(name, root, path.resolve())
    _first_on_path(str(root))
    return _import(name)


def _import_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{name!r} is no target; write package.module:Class or path/file.py:Class")
    if not sys.flags.safe_path:
        # As `python -m` does, so that the console script is the same.
        _first_on_path(str(Path.cwd()), if_missing=True)
    importlib.invalidate_caches()
    return _import(name)


def _first_on_path(folder: str, *, if_missing: bool = False) -> None:
    there = folder in sys.path or (if_missing and "" in sys.path)
    if sys.path[:1] != [folder] and not (if_missing and there):
        sys.path.insert(0, folder)


def _check_free(name: str, root: Path, path: Path) -> None:
    """Refuse a file whose module name already means something else, before anything is imported."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        raise PluginDefinitionError(f"{path} would hide Python's own module {top!r}; rename it")
    own = path if top == name else root / top / "__init__.py"
    loaded = sys.modules.get(top)
    if loaded is not None:
        other = getattr(loaded, "__file__", None) or "a folder"
    else:
        spec = find_spec(top)
        # A folder without `__init__.py` has no origin, and what is first on the path goes before it.
        other = None if spec is None or not spec.has_location else spec.origin
    if other is not None and (other == "a folder" or Path(other).resolve() != own):
        raise PluginDefinitionError(
            f"{path} is the module {name!r}, but that name means {other} here; name the plugin by its module, or "
            "rename or uninstall one of them"
        )


def _import(name: str) -> ModuleType:
    _loading.append(name)
    try:
        with _told(name):
            return importlib.import_module(name)
    finally:
        _loading.pop()


@contextmanager
def _told(wanted: str = "") -> Generator[None]:
    """Turn what goes wrong in the author's modules, while they are imported, into one line with file and line."""
    try:
        yield
    except KepmError:
        raise
    except ModuleNotFoundError as exc:
        if exc.name and f"{wanted}.".startswith(f"{exc.name}."):
            raise UsageError(
                f"there is no module {exc.name!r} here; correct the target, or name the file: path/file.py:Class"
            ) from exc
        raise PluginDefinitionError(f"{_place(exc)}: {exc}; install it, or correct the name") from exc
    except SyntaxError as exc:
        raise PluginDefinitionError(f"{exc.filename}:{exc.lineno}: {exc.msg}; correct it there") from exc
    except Exception as exc:  # whatever the author's module raises while it is imported
        said = " ".join(f"{type(exc).__name__}: {exc}".split())
        raise PluginDefinitionError(f"{_place(exc)}: {said}; the plugin's module cannot be imported so") from exc


def _place(error: BaseException) -> str:
    """Return file and line of the author's code that an error comes from, rather than those of a library."""
    places: list[tuple[str, int]] = []
    frame = error.__traceback__
    while frame is not None:
        places.append((frame.tb_frame.f_code.co_filename, frame.tb_lineno))
        frame = frame.tb_next
    foreign = (_OURS, _STDLIB, "<frozen ")
    theirs = [one for one in places if not one[0].startswith(foreign) and "site-packages" not in Path(one[0]).parts]
    file, line = (theirs or places)[-1]
    return f"{file}:{line}"


def _named(module: ModuleType, name: str, target: str) -> type[Plugin]:
    found: object = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        own = ", ".join(kind.__name__ for kind in _plugins(module)) or "none"
        raise UsageError(f"{target}: there is no {name!r}; plugins defined there: {own}")
    if not (isinstance(found, type) and issubclass(found, Plugin)):
        raise UsageError(f"{target} is no plugin; name a class that inherits from Plugin")
    if found.is_abstract():
        raise UsageError(f"{target} is abstract; name a class that inherits from it and has an id")
    return found


def _only(module: ModuleType, place: str) -> type[Plugin]:
    own = [kind for kind in _plugins(module) if kind.__module__ == module.__name__]
    if len(own) == 1:
        return own[0]
    if own:
        names = ", ".join(kind.__name__ for kind in own)
        raise UsageError(f"{place} defines several plugins, {names}; say which: {place}:{own[0].__name__}")
    imported = [kind.__name__ for kind in _plugins(module)]
    hint = f"it imports {', '.join(imported)}: write {place}:{imported[0]}" if imported else "name the file that does"
    raise UsageError(f"{place} defines no plugin, no class that inherits from Plugin and has an id; {hint}")


def _plugins(module: ModuleType) -> list[type[Plugin]]:
    kinds = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Plugin)]
    return [kind for kind in dict.fromkeys(kinds) if not kind.is_abstract()]


def _from_main(kind: type[Plugin]) -> type[Plugin]:
    main = sys.modules[_MAIN]
    spec: ModuleSpec | None = getattr(main, "__spec__", None)
    file: str | None = getattr(main, "__file__", None)
    if getattr(sys, "frozen", False):
        stem = Path(file or "").stem
        if stem not in ("", _MAIN) and find_spec(stem) is not None:
            return _same(kind, _import(stem))
        if any(vars(base).get("modules") for base in kind.__mro__):
            raise PluginDefinitionError(
                f"{kind.__name__} is the frozen program's own script, which its modules cannot import; build from a "
                f"script that imports it: 'from {kind.id.lower()} import {kind.__name__}' and {kind.__name__}.main()"
            )
        return kind
    if spec is not None:  # python -m
        return kind if spec.name == _MAIN else _same(kind, _import(spec.name))
    if file is None or dotted_name(Path(file))[1] == _MAIN:
        # Typed in, or a folder's or an archive's own `__main__`: there is no other module.
        return kind
    return _same(kind, _import_file(Path(file)))


def _same(kind: type[Plugin], module: ModuleType) -> type[Plugin]:
    found: object = module
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and issubclass(found, Plugin) and not found.is_abstract():
        return found
    raise PluginDefinitionError(
        f"{kind.__qualname__} is not there when {module.__name__} is imported; define it at the module's top level, "
        "outside 'if __name__ == \"__main__\":'"
    )
