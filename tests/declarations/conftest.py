"""Plugins and handlers made of a few attributes, and modules made of a text."""

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import new_class
from typing import Any

import pytest

from kepm_plugin import Handler, Message, Plugin

Define = Callable[..., type[Any]]
Write = Callable[[str, str], None]


@pytest.fixture
def plugin() -> Define:
    """Define a plugin class `Worker` with the id `MyWorker` and further attributes."""

    def define(*bases: type, **attributes: Any) -> type[Any]:
        body = {"id": "MyWorker", "__module__": __name__, **attributes}
        return new_class("Worker", bases or (Plugin,), {}, lambda namespace: namespace.update(body))

    return define


@pytest.fixture
def handler() -> Define:
    """Define a handler class `Scan` that takes any JSON object, with further attributes."""

    def define(*bases: type, **attributes: Any) -> type[Any]:
        async def handle(self: Any, message: Message[dict[str, object]]) -> None: ...

        body = {"__module__": __name__, **({} if bases else {"handle": handle}), **attributes}
        return new_class("Scan", bases or (Handler[Any],), {}, lambda namespace: namespace.update(body))

    return define


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module that can be imported, by name and text; a name with dots stands in packages."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        file = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        for folder in (one for one in file.parents if tmp_path in one.parents):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "__init__.py").touch()
        file.write_text(textwrap.dedent(text), "utf-8")
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
