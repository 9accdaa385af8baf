"""Which plugin a target means, and what is said where it means none."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kepm_plugin import Plugin
from kepm_plugin.errors import KepmError, PluginDefinitionError, TopicClash, UsageError
from kepm_plugin.target import address, dotted_name, load, real_class

Write = Callable[..., Path]

WORKER = """
from kepm_plugin import Plugin

class Base(Plugin, abstract=True): ...

class Worker(Base):
    id = "Worker"

class Outer:
    class Inner(Plugin):
        id = "Inner"
"""
TWO = WORKER + '\nclass Other(Base):\n    id = "Other"\n'
HANDLER = """
from kepm_plugin import Handler, Message
from {module} import Worker

@Worker.command("scan")
class Scan(Handler[Worker]):
    async def handle(self, message: Message[bytes]) -> str:
        return ""
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write files below a folder that is the current one; what was imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)

    def run(name: str, text: str = WORKER) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    yield run
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_path_and_a_module_mean_the_same_class(write: Write, tmp_path: Path) -> None:
    write("shop/__init__.py", "")
    write("shop/parts/__init__.py", "")
    path = write("shop/parts/worker.py")
    by_path = load(f"{path}:Worker")
    assert by_path.__module__ == "shop.parts.worker"
    assert sys.path[0] == str(tmp_path)
    assert load("shop.parts.worker:Worker") is by_path
    assert load("shop/parts/worker.py") is by_path
    assert address(by_path) == f"{path}:Worker"


def test_a_package_can_be_the_module(write: Write) -> None:
    path = write("shop/__init__.py")
    kind = load(str(path))
    assert kind.__module__ == "shop"
    assert load("shop:Worker") is kind


def test_a_class_inside_a_class_can_be_named(write: Write) -> None:
    assert load(f"{write('nested.py')}:Outer.Inner").id == "Inner"


def test_handlers_of_other_modules_are_there(write: Write) -> None:
    write("shop/__init__.py", "")
    write("shop/worker.py", WORKER.replace('id = "Worker"', 'id = "Worker"\n    modules = (".handlers",)'))
    write("shop/handlers.py", HANDLER.format(module="shop.worker"))
    assert [spec.name for spec in load("shop/worker.py").handler_specs()] == ["Scan"]


def test_a_module_that_a_path_cannot_name_is_addressed_by_name(write: Write) -> None:
    write("space/worker.py")
    assert address(load("space.worker")) == "space.worker:Worker"


@pytest.mark.parametrize(
    ("files", "target", "said"),
    [
        ({}, "nowhere/x.py", "there is no file nowhere/x.py; correct the target"),
        ({}, "nowhere/x.py:", "there is no file nowhere/x.py:; correct the target"),
        ({"shop/__init__.py": ""}, "./shop", "shop is a folder; name the file"),
        ({"shop/worker.txt": ""}, "shop/worker.txt", "worker.txt is no Python file"),
        ({}, "nowhere_at_all", "there is no module 'nowhere_at_all' here; correct the target, or name the file"),
        ({"shop/__init__.py": ""}, "shop.nowhere:X", "there is no module 'shop.nowhere' here"),
        ({}, "my-worker", "'my-worker' is no target; write package.module:Class or path/file.py:Class"),
        ({}, "", "'' is no target"),
        (
            {"none.py": "x = 1"},
            "none.py",
            "none.py defines no plugin, no class that inherits from Plugin and has an id",
        ),
        ({"none.py": WORKER, "uses.py": "from none import *"}, "uses.py", "it imports Worker: write uses.py:Worker"),
        ({"two.py": TWO}, "two.py", "two.py defines several plugins, Worker, Other; say which: two.py:Worker"),
        ({"two.py": TWO}, "two.py:Third", "two.py:Third: there is no 'Third'; plugins defined there: Worker, Other"),
        ({"two.py": TWO}, "two.py:Outer", "two.py:Outer is no plugin; name a class that inherits from Plugin"),
        ({"two.py": TWO}, "two.py:Base", "two.py:Base is abstract; name a class that inherits from it"),
    ],
)
def test_a_target_that_means_no_plugin_is_a_usage_error(
    write: Write, files: dict[str, str], target: str, said: str
) -> None:
    for name, text in files.items():
        write(name, text)
    with pytest.raises(UsageError) as caught:
        load(target)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_like_it", "bad.py:1: No module named 'nothing_like_it'; install it, or correct the name"),
        ("\n\ndef f(:\n", "bad.py:3: invalid syntax; correct it there"),
        ("x = 1\n1 / 0", "bad.py:2: ZeroDivisionError: division by zero; the plugin's module cannot be"),
        ("import json\n\njson.loads('{')", "bad.py:3: JSONDecodeError: Expecting property name"),
        ("from kepm_plugin import Nothing", "bad.py:1: ImportError: cannot import name 'Nothing'"),
        ("raise ValueError('two\\nlines')", "bad.py:1: ValueError: two lines;"),
    ],
)
def test_what_the_module_raises_is_one_line_with_its_place(write: Write, text: str, said: str) -> None:
    write("bad.py", text)
    with pytest.raises(PluginDefinitionError) as caught:
        load("bad.py")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_main_without_its_guard_ends_the_import_with_one_line(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write("bare.py", WORKER + "\nWorker.main()\n")
    with pytest.raises(SystemExit) as caught:
        load("bare.py")
    assert caught.value.code == 64
    told = capsys.readouterr().err
    assert "Worker.main() is called while bare is imported" in told
    assert "put the call under 'if __name__ == \"__main__\":'" in told


def test_what_a_further_module_raises_has_its_place_too(write: Write) -> None:
    write("worker.py", WORKER.replace('id = "Worker"', 'id = "Worker"\n    modules = (".more",)'))
    more = write("more.py", "def f(:")
    with pytest.raises(PluginDefinitionError, match=f"{more}:1: invalid syntax"):
        load("worker.py")


def test_wrong_declarations_are_told_as_they_are(write: Write) -> None:
    text = WORKER + HANDLER.format(module="clash") + HANDLER.format(module="clash").replace("Scan(", "Again(")
    write("clash.py", text.replace("from clash import Worker", ""))
    with pytest.raises(TopicClash, match="Again and Scan both take"):
        load("clash.py")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("json.py", "would hide Python's own module 'json'; rename it"),
        ("my-worker.py", "cannot be imported, as 'my-worker' is no Python name; rename it, with '_'"),
        ("msgspec.py", "is the module 'msgspec', but that name means"),
        ("hypothesis/worker.py", "is the module 'hypothesis.worker', but that name means"),
    ],
)
def test_a_name_that_is_taken_is_refused_before_the_import(write: Write, name: str, said: str) -> None:
    path = write(name, "raise AssertionError")
    if path.parent.name == "hypothesis":
        write("hypothesis/__init__.py", "raise AssertionError")
    with pytest.raises(PluginDefinitionError) as caught:
        load(str(path))
    assert said in str(caught.value)


def test_a_name_that_a_folder_has_taken_is_refused(write: Write) -> None:
    write("taken/other.py")
    load("taken.other")
    with pytest.raises(PluginDefinitionError, match="that name means a folder here"):
        load(str(write("deeper/taken.py")))


def test_an_installed_module_that_is_not_imported_yet_is_a_conflict_too(write: Write) -> None:
    sys.path.insert(0, str(write("installed/thing.py").parent))
    with pytest.raises(PluginDefinitionError, match=r"that name means .*installed/thing\.py here"):
        load(str(write("source/thing.py")))


def test_the_dotted_name_ends_where_the_package_ends(write: Write, tmp_path: Path) -> None:
    write("a/b/__init__.py", "")
    assert dotted_name(write("a/b/c.py")) == (tmp_path / "a", "b.c")
    assert dotted_name(tmp_path / "a/b/__init__.py") == (tmp_path / "a", "b")


# --- `__main__` -------------------------------------------------------------------------------------------------------


def in_main(text: str, monkeypatch: pytest.MonkeyPatch, **attributes: Any) -> type[Plugin]:
    """Run a text as `__main__`, as Python does, and return its Worker."""
    main = ModuleType("__main__")
    vars(main).update({"__spec__": None, **attributes})
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec(compile(text, str(attributes.get("__file__", "<stdin>")), "exec"), vars(main))  # noqa: S102
    found: type[Plugin] = vars(main)["Worker"]
    return found


def test_a_class_of_an_imported_module_is_the_real_one(write: Write) -> None:
    kind = load(str(write("worker.py")))
    assert real_class(kind) is kind


def test_a_script_leads_to_the_class_of_its_module(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("shop/__init__.py", "")
    path = write("shop/script.py")
    kind = in_main(WORKER, monkeypatch, __file__=str(path))
    assert real_class(kind).__module__ == "shop.script"
    assert real_class(kind) is load("shop.script")


def test_a_class_that_only_the_script_has_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("script.py", "x = 1")
    with pytest.raises(
        PluginDefinitionError, match="Worker is not there when script is imported; define it at the mod"
    ):
        real_class(in_main(WORKER, monkeypatch, __file__=str(path)))


@pytest.mark.parametrize("attributes", [{}, {"__file__": "/x/__main__.py"}])
def test_what_has_no_module_is_the_real_class_itself(
    monkeypatch: pytest.MonkeyPatch, attributes: dict[str, str]
) -> None:
    kind = in_main(WORKER, monkeypatch, **attributes)
    assert real_class(kind) is kind


def test_a_frozen_script_is_its_module_where_that_is_there(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("frozen_script.py")
    sys.path.insert(0, str(path.parent))
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    kind = in_main(WORKER, monkeypatch, __file__="frozen_script.py")
    assert real_class(kind).__module__ == "frozen_script"


def test_a_frozen_script_without_a_module_is_itself_unless_it_has_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    kind = in_main(WORKER, monkeypatch, __file__="not_there_at_all.py")
    assert real_class(kind) is kind
    text = WORKER.replace('id = "Worker"', 'id = "Worker"\n    modules = (".handlers",)')
    with pytest.raises(KepmError, match="Worker is the frozen program's own script, which its modules cannot import"):
        real_class(in_main(text, monkeypatch, __file__="not_there_at_all.py"))
