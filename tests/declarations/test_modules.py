"""Handlers in other modules of the plugin."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

import pytest

from kepm_plugin.errors import PluginDefinitionError

Define = Callable[..., type[Any]]
Write = Callable[[str, str], None]

PLUGIN = """
    from kepm_plugin import Plugin

    class Worker(Plugin):
        id = "MyWorker"
        modules = ({modules!r},)
"""
HANDLERS = """
    from kepm_plugin import Handler, Message
    from {plugin} import Worker

    @Worker.command("scan")
    class Scan(Handler[Worker]):
        async def handle(self, message: Message[str]) -> None: ...
"""


@pytest.mark.parametrize(
    ("plugin", "handlers", "modules"),
    [
        ("pack.worker", "pack.handlers", ".handlers"),
        ("pack.worker", "pack.inner.handlers", ".inner.handlers"),
        ("pack.inner.worker", "pack.handlers", "..handlers"),
        ("pack.worker", "alone_handlers", "alone_handlers"),
        ("alone_worker", "beside_worker", ".beside_worker"),
    ],
)
def test_modules_are_imported_before_the_plugin_is_checked(
    write: Write, plugin: str, handlers: str, modules: str
) -> None:
    write(plugin, PLUGIN.format(modules=modules))
    write(handlers, HANDLERS.format(plugin=plugin))
    worker = importlib.import_module(plugin).Worker
    assert handlers not in sys.modules
    for _ in range(2):
        assert [route.filter for route in worker.declarations().handlers] == ["MyWorker/Commands/scan"]


def test_a_base_s_modules_are_relative_to_the_base(write: Write) -> None:
    base = """
        from kepm_plugin import Plugin

        class Base(Plugin, abstract=True):
            modules = (".handlers",)
    """
    write("shared.base", base)
    write("shared.handlers", HANDLERS.format(plugin="shared.base").replace("Worker", "Base"))
    write("own.more", HANDLERS.format(plugin="own.worker").replace("scan", "more"))
    text = "from shared.base import Base\n\nclass Worker(Base):\n    id = 'MyWorker'\n    modules = ('.more',)\n"
    write("own.worker", text)
    worker = importlib.import_module("own.worker").Worker
    assert [route.filter for route in worker.declarations().handlers] == [
        "MyWorker/Commands/scan",
        "MyWorker/Commands/more",
    ]


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        (".missing", "there is no module '.missing', seen from pack.worker; correct it or create it"),
        (
            "handlers",
            "there is no module 'handlers', seen from pack.worker; correct it, as in '.handlers' for one beside it,",
        ),
        (".handlers.deeper", "there is no module '.handlers.deeper', seen from pack.worker; correct it or create it"),
        ("...above", "'...above' names no module of pack; correct it"),
    ],
)  # fmt: skip
def test_a_module_that_is_missing_is_named(write: Write, modules: str, said: str) -> None:
    write("pack.handlers", "")
    write("pack.worker", PLUGIN.format(modules=modules))
    with pytest.raises(PluginDefinitionError) as caught:
        importlib.import_module("pack.worker").Worker.declarations()
    assert str(caught.value).startswith(f"Worker.modules: {said}")


def test_what_a_module_itself_lacks_is_not_hidden(write: Write) -> None:
    """That is no wrong name in `modules`: the author needs the real error."""
    write("pack.worker", PLUGIN.format(modules=".handlers"))
    for missing in ("lers", "pack.other", "handlers"):
        write("pack.handlers", f"import {missing}")
        sys.modules.pop("pack.handlers", None)
        with pytest.raises(ModuleNotFoundError) as caught:
            importlib.import_module("pack.worker").Worker.declarations()
        assert caught.value.name == missing


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (".handlers", "Worker.modules is one text, '.handlers'; write modules = ('.handlers',)"),
        (3, "Worker.modules is 3; give a tuple of texts"),
        ((importlib,), "give a tuple of texts"),
    ],
)
def test_modules_are_a_tuple_of_texts(plugin: Define, value: object, said: str) -> None:
    with pytest.raises(PluginDefinitionError) as caught:
        plugin(modules=value).declarations()
    assert said in str(caught.value)
