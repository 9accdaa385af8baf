"""Doing something when a library is imported for the first time: who does without it need not load it.

structlog takes a twentieth of a plugin's start, and many plugins log by the standard library alone. It has to be
configured before whoever imports it goes on, and that may be at any time, in any thread.
"""

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


@contextmanager
def on_arrival(name: str, then: Callable[[], object]) -> Generator[None]:
    """Call a function as soon as a top-level module is there: now, or at the end of its import.

    It is called in the thread that imports, at most once, and not after the end.
    """
    if name in sys.modules:
        then()
        yield
        return
    finder = _Finder(name, then)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder:
    """Finds one module by whatever finds it otherwise (importlib.abc.MetaPathFinder)."""

    def __init__(self, name: str, then: Callable[[], object]) -> None:
        self._name, self._then = name, then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """Return where the module is, with a loader that tells when it has been loaded."""
        if fullname != self._name:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec: Any = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._then)
        found: ModuleSpec | None = spec
        return found


class _Loader:
    """Loads a module as another loader does, and then tells."""

    def __init__(self, inner: Any, then: Callable[[], object]) -> None:
        self._inner, self._then = inner, then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return the module, or None for the usual way to make one."""
        module: ModuleType | None = self._inner.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module; it has its own loader again."""
        module.__loader__ = self._inner
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        self._inner.exec_module(module)
        self._then()
