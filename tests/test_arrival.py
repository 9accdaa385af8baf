"""What is done when a library is imported for the first time."""

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kepm_plugin.logs._arrival import on_arrival

LATE = """
import logging, sys
from kepm_plugin.logs import LogPipe, logging_to

pipe = LogPipe()
with logging_to(pipe, source="P"):
    assert "structlog" not in sys.modules
    logging.getLogger("before").info("one")
    import structlog  # as a handler may do, the first time that it is called
    structlog.contextvars.bind_contextvars(part="bound")
    structlog.get_logger("late").info("two", files=3)
    logging.getLogger("after").info("three")
    structlog.get_logger("late").info("four", stack_info=True)
    assert structlog.__spec__.loader is structlog.__loader__ and "Source" in type(structlog.__loader__).__name__
assert structlog.get_config()["wrapper_class"].__module__.startswith("structlog")
print(b"[" .decode() + ",".join(one.decode() for one in pipe.take(10)) + "]")
"""


def test_structlog_is_configured_before_whoever_imports_it_goes_on() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    one, two, three, four = json.loads(done.stdout)
    assert "part" not in one
    assert (two["files"], two["part"], three["part"]) == (3, "bound", "bound")
    assert "structlog.get_logger" in four["stack"] or "<string>" in four["stack"]
    assert done.stderr.count("\n") == 4, "and nothing is printed by structlog itself"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module that was not imported yet."""
    (tmp_path / "arriving.py").write_text("loaded = True\n")
    (tmp_path / "arriving_wrong.py").write_text("raise RuntimeError('no')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in ("arriving", "arriving_wrong"):
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    return "arriving"


def test_it_is_called_once_at_the_end_of_the_import(module: str) -> None:
    seen: list[bool] = []
    before = list(sys.meta_path)
    with on_arrival(module, lambda: seen.append(sys.modules[module].loaded)):
        assert seen == []
        assert importlib.util.find_spec(module) is not None, "who only looks finds it"
        importlib.import_module("json.tool")
        importlib.import_module(module)
        importlib.import_module(module)
        assert seen == [True]
    assert sys.meta_path == before


def test_it_is_called_at_once_where_the_module_is_there(module: str) -> None:
    importlib.import_module(module)
    seen: list[str] = []
    with on_arrival(module, lambda: seen.append(module)):
        assert seen == [module]


def test_it_is_not_called_where_there_is_no_such_module_or_it_fails_or_after_the_end(module: str) -> None:
    seen: list[str] = []
    with on_arrival("arriving_nowhere", lambda: seen.append("nowhere")), pytest.raises(ModuleNotFoundError):
        importlib.import_module("arriving_nowhere")
    with on_arrival("arriving_wrong", lambda: seen.append("wrong")), pytest.raises(RuntimeError):
        importlib.import_module("arriving_wrong")
    with on_arrival(module, lambda: seen.append(module)):
        pass
    importlib.import_module(module)
    assert seen == []
