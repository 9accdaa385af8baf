"""The pages: snippets and commands are run, tables are those of the code, and links lead somewhere."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

import pytest

from kepm_plugin import Handler, Message, Plugin, Retry
from kepm_plugin.broker import SessionOptions
from kepm_plugin.contract import ASSUMED, Contract
from kepm_plugin.devagent import Likeness
from kepm_plugin.errors import EXIT_CODES, PluginDefinitionError
from kepm_plugin.knobs import COUNTERS, Knobs, defaults
from kepm_plugin.link import History
from kepm_plugin.settings import Settings, fields_of, flat
from kepm_plugin.store import Limits
from kepm_plugin.testing import hosted

REPOSITORY: Final = Path(__file__).parent.parent
PAGES: Final = {path.name: path.read_text("utf-8") for path in sorted((REPOSITORY / "docs").glob("*.md"))}
LINKED: Final = ["README.md", "CHANGELOG.md", "packaging/README.md", *(f"docs/{name}" for name in PAGES)]

RUN_ELSEWHERE: Final = {
    "pip install '/path/to/clone[dev]'": ("tests/test_readme.py", "/path/to/clone[dev]"),
    "pip install '/path/to/clone[package]'": ("Makefile", "install --editable '.[package]'"),
    "kepm-plugin package plugins/my_worker/my_worker.py": ("README.md", "\nkepm-plugin package plugins/my_worker/"),
    'kepm-plugin package worker.py -- --hidden-import plugin_rules --add-data "$PWD/rules:worker/rules"': (
        "tests/bundle/test_building.py",
        "def test_the_real_pyinstaller_reads_the_options_that_follow_two_dashes",
    ),
}
"""Commands that are not run here: what runs such a one, and a text in that file which shows it."""


@dataclass(frozen=True)
class Block:
    """One fenced block. `file` is the name of the file that it is, "" for a part of the page's module."""

    language: str
    text: str

    @property
    def file(self) -> str:
        named = re.match(r"# (\S+\.\w+)\n", self.text)
        return named[1] if named and self.language == "python" else ""


def blocks(page: str, language: str = "") -> list[Block]:
    """Return a page's blocks in a language, or all of them."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)
    return [Block(kind, text) for kind, text in found if language in ("", kind)]


def code(page: str) -> str:
    """Return what the snippets of a page are as one module."""
    return "\n".join(block.text for block in blocks(page, "python") if not block.file)


def table(page: str, heading: str) -> dict[str, list[str]]:
    """Return the rows of the table in a section by their first cell."""
    section = re.search(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", PAGES[page], re.MULTILINE | re.DOTALL)
    assert section, f"{page} has no section {heading!r}"
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in re.findall(r"^\|.*\|$", section[1], re.M)
    ]
    return {row[0]: row[1:] for row in rows[2:]}


# --- snippets and commands --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, ModuleType]]:
    """The module of each page that has snippets."""
    made: dict[str, ModuleType] = {}
    for page in PAGES:
        name = f"docs_{page.removesuffix('.md')}"
        file = tmp_path_factory.mktemp("docs") / f"{name}.py"
        file.write_text(code(page), "utf-8")
        spec = spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        made[page] = sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(made[page])
    yield made
    for module in made.values():
        del sys.modules[module.__name__]


CALLED: Final = [(page, name) for page in PAGES for name in re.findall(r"^async def (\w+)\(\)", code(page), re.M)]


@pytest.mark.parametrize(("page", "function"), CALLED, ids=[f"{page}:{name}" for page, name in CALLED])
async def test_what_a_snippet_defines_runs(modules: dict[str, ModuleType], page: str, function: str) -> None:
    await getattr(modules[page], function)()


def test_every_page_with_snippets_has_one_that_runs() -> None:
    assert {page for page in PAGES if code(page)} == {page for page, _ in CALLED} == {"guide.md", "packaging.md"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project that the guide lays out."""
    layout = blocks("guide.md", "text")[0].text
    for name in ("pytest.ini", "greeter/__init__.py", "greeter/plugin.py", "greeter/handlers.py"):
        assert name in layout
    files = {block.file: block.text for block in blocks("guide.md", "python") if block.file}
    ini = re.search(r"pytest\.ini +(\[pytest\]), and below it: (.*)", layout)
    assert ini
    for name, text in (files | {"greeter/__init__.py": "", "pytest.ini": f"{ini[1]}\n{ini[2]}\n"}).items():
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / name).write_text(text, "utf-8")
    return tmp_path / "own"


@contextmanager
def started(command: str, **where: Any) -> Generator[None]:
    """Run a local agent, and end it as Ctrl-C does."""
    with subprocess.Popen(["sh", "-c", f"exec {command}"], stdout=subprocess.PIPE, text=True, **where) as agent:
        assert agent.stdout is not None
        assert any("ready:" in line for line in agent.stdout), command
        yield
        agent.send_signal(signal.SIGINT)
        agent.communicate(timeout=30)
    assert agent.returncode == 0


def test_every_command_of_the_pages_runs_here_or_elsewhere(project: Path, tmp_path: Path) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.prefix, 'bin')}:{os.environ['PATH']}",
        "XDG_RUNTIME_DIR": str(tmp_path),  # where `send` looks for the agent
    }

    def run(command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", command], cwd=project, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    elsewhere: set[str] = set()
    for command in (line for page in PAGES for block in blocks(page, "sh") for line in block.text.splitlines()):
        if command in RUN_ELSEWHERE:
            elsewhere.add(command)
        elif command.startswith("kepm-plugin dev"):
            with started(command, cwd=project, env=environment):
                answer = json.loads(run("""kepm-plugin send Greeter greet '{"name": "Ada"}'"""))
                assert answer["result"] == "Hello, Ada!"
        else:
            run(command)
    assert elsewhere == set(RUN_ELSEWHERE)
    assert (project / "Plugins" / "Greeter.json").is_file()


@pytest.mark.parametrize("command", RUN_ELSEWHERE)
def test_what_runs_elsewhere_does(command: str) -> None:
    file, text = RUN_ELSEWHERE[command]
    assert text in (REPOSITORY / file).read_text("utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page: str) -> None:
    assert {block.language for block in blocks(page)} <= {"python", "sh", "json", "text"}
    assert PAGES[page].count("```") == 2 * len(blocks(page))


# --- tables -----------------------------------------------------------------------------------------------------------


def test_the_exit_codes_are_those_of_the_code() -> None:
    assert table("running.md", "Exit codes") == {str(number): [meaning] for number, meaning in EXIT_CODES.items()}


def test_the_assumptions_are_those_of_the_contract() -> None:
    rows = {name: cells[0] for name, cells in table("running.md", "What is assumed about the agent").items()}
    assumed = {name: getattr(ASSUMED, name) for name in Contract.__struct_fields__}
    assert rows == {f"`{name}`": _shown(value) for name, value in assumed.items()}


def _shown(value: object) -> str:
    texts = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
    return ", ".join(f"`{str(one).lower() if isinstance(one, bool) else one}`" for one in texts)


def test_the_switches_of_the_local_agent_are_all_there() -> None:
    rows = {name.strip("`"): cells[0] for name, cells in table("contract.md", "The local agent as another one").items()}
    switches = {one.name: getattr(Likeness(), one.name) for one in fields(Likeness)}
    assert list(rows) == list(switches)
    for name, value in switches.items():
        assert (f"`{value}`" if value else "empty") in rows[name]


def test_the_fields_of_a_message_are_all_there() -> None:
    assert list(table("guide.md", "Messages")) == [f"`{name}`" for name in Message.__struct_fields__ if name[0] != "_"]


def test_the_texts_of_each_type_of_setting_mean_the_same(modules: dict[str, ModuleType]) -> None:
    rows = table("guide.md", "Types of settings")
    scalars = {kind.__name__: kind for kind in constant("fields._scalars.SCALARS")}
    for kind, (texts, written, *_) in rows.items():
        annotation = eval(kind.strip("`"), scalars | vars(modules["guide.md"]))  # noqa: S307  our own page
        sample: type[Settings] = type("Sample", (Settings,), {"__annotations__": {"x": annotation}})
        given = re.findall(r"`([^`]+)`", texts)
        found = {as_text(flat(sample.parse({"x": text}))["x"]) for text in given}
        assert (found, len(given) > 0) == ({written.strip("`")}, True), kind
    assert scalars.keys() - {kind.strip("`") for kind in rows} == {"Secret"}


def as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_the_options_of_a_handler_are_all_there() -> None:
    rows = {name.strip("`"): cells[0] for name, cells in table("guide.md", "Handlers").items()}
    options = [name for name in vars(Handler)["__annotations__"] if name != "plugin"]
    assert rows == {name: str(getattr(Handler, name)) for name in options}


def constant(place: str) -> Any:
    """Return a constant, given as module and name."""
    module, _, name = place.rpartition(".")
    return getattr(import_module(f"kepm_plugin.{module}"), name)


def test_the_limits_are_those_of_the_code() -> None:
    limits = Limits()
    keep_alive = SessionOptions(client_id="P").keep_alive
    mib = 2**20
    assert {name: cells[0] for name, cells in table("running.md", "Limits").items()} == {
        "messages that wait for one handler, in memory": (
            f"{constant('dispatch._lane.LIMIT'):,} and {constant('dispatch._lane.LIMIT_BYTES') // mib} MiB"
        ),
        "journal": f"{limits.journal_bytes // mib} MiB",
        "age of a message, or of a ticket that nobody answered": f"{limits.journal_age / 86_400:g} days",
        "delay of a `Retry`": f"{constant('dispatch._later.OFF'):,.0f} s",
        "identities that are remembered": (
            f"{constant('dispatch._window.ENTRIES'):,}, for {constant('dispatch._window.WINDOW'):g} s, "
            f"with {constant('dispatch._window.ANSWER_BYTES') // mib} MiB of answers"
        ),
        "messages held while the journal cannot be written": f"{constant('dispatch._intake.HELD'):,}",
        "one step of a plugin's code on the event loop": f"{constant('stall.LIMIT'):g} s",
        # Brokers wait for one and a half keep-alives; a ping is sent after one and the time between two looks.
        "a loop that is blocked": f"{(keep_alive / 2 - constant('broker._connection._TICK')) // 10 * 10:g} s",
        "messages without an answer that are finished in one commit": str(constant("dispatch._ends.TOGETHER")),
        "deliveries that end with the process": str(constant("dispatch._delivery.DELIVERIES")),
        "dead letters": f"{limits.dead_letters:,} and {limits.dead_letter_bytes // mib} MiB",
        "age of a dead letter": f"{limits.dead_letter_age / 86_400:g} days",
        "messages that wait in one `subscribe()`": f"{constant('runtime._subscriptions.BACKLOG'):,}",
        "publications that wait in memory": f"{constant('outbox.LIMIT'):,} and {constant('outbox.SIZE') // mib} MiB",
        'publications that wait on disk (`outbox = "disk"`)': f"{limits.kept:,} and {limits.kept_bytes // mib} MiB",
        "of those, in memory too": f"{constant('outbox.WINDOW'):,} and {constant('outbox.WINDOW_BYTES') // mib} MiB",
        "wait of `publish`": f"{constant('outbox.PUT_TIMEOUT'):g} s",
        "age of a publication in memory, at a connect": f"{constant('outbox.MAX_AGE'):g} s",
        "age of a publication on disk, at a connect": f"{limits.kept_age / 86_400:g} days",
        "log records that wait": f"{constant('logpipe.RECORDS'):,} and {constant('logpipe.SIZE') // mib} MiB",
        'log records of an outage on disk (`outbox = "disk"`)': (
            f"{limits.records:,} and {limits.record_bytes // mib} MiB"
        ),
        "one log record": f"{constant('records.MAX_RECORD') // 1024} KiB",
        "`concurrency` with `order_by`": str(constant("plugin._handler.ORDERED_CONCURRENCY")),
        "`drain`": f"{Plugin.drain:g} s",
        "`link_budget`": f"{Plugin.link_budget:g} s",
        "one reading of the socket": (
            f"{constant('broker._connection.DRAIN')} packets and "
            f"{constant('broker._connection.DRAIN_BYTES') // mib} MiB"
        ),
        "an orphan that holds the lock and does nothing": f"{constant('instance.SILENCE'):g} s",
        "agent unreachable, or refusing, at the start": f"{constant('runtime.RunOptions')().start_budget:g} s",
        "answer of the agent's HTTPS API": f"{constant('agent.ANSWER_LIMIT') // mib} MiB",
        "looks at the settings for two that agree": str(constant("live._looking.SETTLING")),
        "a write of settings that may arrive late": f"{constant('live._record.LATE'):g} s",
        "such writes that are remembered": f"{constant('live._record.MOST'):,}",
        "secrets of earlier settings that are still masked": f"{constant('live._taking.SECRETS'):,}",
        "unknown keys on `Status/settings`": str(constant("live._report.MOST_UNKNOWN")),
    }
    assert constant("dispatch._dispatcher.RETRY") == 1.0, "tried again every second"
    with pytest.raises(PluginDefinitionError):
        Retry(after=constant("dispatch._later.OFF") + 1)
    assert constant("runtime._serve.LOOK_AGAIN") == 5.0, "takes up within 5 seconds"


def knobs_in_the_tables() -> dict[str, tuple[str, str, str, str]]:
    """Return default, least, most and counters of each knob that a table names, by key."""
    rows = [[*cells[:2], ""] for cells in table("running.md", "Knobs").values()]
    rows += [cells[:3] for cells in table("running.md", "Limits").values()]
    return {
        key: (default, least, most, counters)
        for default, named, counters in rows
        for key, least, most in re.findall(r"`([\w.]+)` ([\d.,]+) to ([\d.,]+)(?:;|$)", named)
    }


def test_the_knobs_are_those_of_the_code() -> None:
    told = knobs_in_the_tables()
    fields_by_key = {field.key: field for field in fields_of(Knobs)}
    assert "`kepm.log.level` is Trace, Debug, Information, Warning, Error or Critical;" in PAGES["running.md"]
    assert set(told) == set(fields_by_key) - {"kepm.log.level"}
    assert [cells[1] for cells in table("running.md", "Limits").values() if "kepm." in cells[1]] == [
        "; ".join(f"`{key}` {told[key][1]} to {told[key][2]}" for key in re.findall(r"`([\w.]+)`", cells[1]))
        for cells in table("running.md", "Limits").values()
        if "kepm." in cells[1]
    ], "no cell has anything else"
    for key, (default, least, most, counters) in told.items():
        name, limits = fields_by_key[key].name, fields_by_key[key].constraints
        assert f"{defaults(Plugin)[name]:,g}" in re.findall(r"[\d.,]*\d", default), key
        assert (least, most) == (f"{limits['ge']:,}", f"{limits['le']:,}"), key
        assert tuple(re.findall(r"`(\w+)`", counters)) == COUNTERS.get(name, ()), key


async def test_the_counters_of_the_bounds_are_on_status() -> None:
    class P(Plugin):
        id = "P"

    async with hosted(P) as host:
        told = (await host.until_published("Status"))[-1]
    there = set(told["counters"]) | set(told["transitions"])
    named = {name for cells in table("running.md", "Limits").values() for name in re.findall(r"`(\w+)`", cells[2])}
    assert named <= there
    assert {name for names in COUNTERS.values() for name in names} <= named


def test_the_transitions_are_those_of_the_code() -> None:
    rows = {name: cells[0] for name, cells in table("running.md", "The link").items()}
    told = {
        name: log for names, logs in rows.items() for name, log in zip(names.split(", "), logs.split(", "), strict=True)
    }
    events = {f"`{name}`": f"`{event.name}`" for name, event in constant("link._history._EVENTS").items()}
    assert told == events
    assert {name.strip("`") for name in told} == set(History().report())


def test_the_architecture_names_no_module_that_is_not_there() -> None:
    page = PAGES["architecture.md"]
    modules = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    planned = set(re.findall(r"^- `(\w+)` is planned; there is no such module yet\.$", page, re.MULTILINE))
    package = REPOSITORY / "src" / "kepm_plugin"
    there = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert modules - there == planned


# --- links ------------------------------------------------------------------------------------------------------------


def prose(file: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", file.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(file: Path) -> set[str]:
    """Return what a link may name after `#`, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.*)$", prose(file), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED)
def test_every_link_leads_somewhere(page: str) -> None:
    here = REPOSITORY / page
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", prose(here)):
        name, _, anchor = link.partition("#")
        target = here.parent / name if name else here
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link
