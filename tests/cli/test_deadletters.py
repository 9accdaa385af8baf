"""`deadletters` of a plugin and of the framework: what is printed, what is changed, what is refused."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from kepm_plugin import Handler, Message, Plugin
from kepm_plugin.cli import main, plugin_main
from kepm_plugin.message import Received
from kepm_plugin.store import FILE, Store, open_store

Command = Callable[..., subprocess.CompletedProcess[str]]

PING = "Single/Commands/ping"
NOW = 2_000_000_000.0
DAY = 86_400.0


class Single(Plugin):
    """One command."""

    id = "Single"


@Single.command("ping")
class Ping(Handler[Single]):
    """Answers."""

    async def handle(self, message: Message[bytes]) -> str:
        return "pong"


class Lazy(Plugin):
    """Keeps nothing on disk."""

    id = "Lazy"
    journal = False


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str
    raw: bytes


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the plugins' folders lie, named by the environment."""
    monkeypatch.setenv("KEPM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr("time.time", lambda: NOW)
    return tmp_path / "data"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Call the command line in this process: of a plugin, or of the framework where none is given."""

    def call(*arguments: str, kind: type[Plugin] | None = Single, encoding: str = "utf-8") -> Done:
        raw = BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out := TextIOWrapper(raw, encoding, write_through=True))
            start = main if kind is None else partial(plugin_main, kind)
            with pytest.raises(SystemExit) as ended:
                start(["deadletters", *arguments])
            out.flush()
            code = ended.value.code
        assert isinstance(code, int)
        printed = raw.getvalue()
        return Done(code, printed.decode(errors="replace"), capsys.readouterr().err, printed)

    return call


Run = Callable[..., Done]


def bury(store: Store, payload: bytes, reason: str = "failed", topic: str = PING, details: str = "") -> None:
    received = Received(topic, payload, 1, received_at=NOW - 60)
    (row,) = store.journal([received])
    store.bury(received, reason=reason, details=details, id=row.id)


@pytest.fixture
def letters(data: Path) -> Path:
    """Three dead letters; the file."""
    with open_store(data / "Single", now=lambda: NOW - 10 * DAY) as store:
        bury(store, b'{"n":1.00000000000000000001}', details="Traceback\n  File x\nValueError: no")
        bury(store, b"plain", "payload mismatch", topic="Other/Events")
    with open_store(data / "Single", now=lambda: NOW) as store:
        store.bury(Received("Single/Commands/ping", b"\xff" * 20, received_at=NOW), reason="timeout", details="")
    return data / "Single" / FILE


def numbers(run: Run, *arguments: str) -> list[int]:
    return [one["id"] for one in json.loads(run("list", "--json", *arguments).out)]


# --- list -------------------------------------------------------------------------------------------------------------


def test_the_list_has_one_line_for_each_and_the_newest_last(run: Run, letters: Path) -> None:
    done = run("list")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "ID  WHEN                  SIZE  DELIVERIES  REASON            TOPIC",
        " 1  2033-05-08T03:33:20Z    28           1  failed            Single/Commands/ping",
        " 2  2033-05-08T03:33:20Z     5           1  payload mismatch  Other/Events",
        " 3  2033-05-18T03:33:20Z    20           -  timeout           Single/Commands/ping",
        f"3 dead letters in {letters}",
    ]


def test_the_list_is_json_for_programs(run: Run, letters: Path) -> None:
    found = json.loads(run("list", "--json", "--reason", "FAIL").out)
    assert found == [
        {
            "id": 1,
            "buriedAt": "2033-05-08T03:33:20Z",
            "receivedAt": "2033-05-18T03:32:20Z",
            "topic": "Single/Commands/ping",
            "qos": 1,
            "reason": "failed",
            "size": 28,
            "deliveries": 1,
        }
    ]


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["--topic", "Single/#"], [1, 3]),
        (["--topic", "Single/+/ping", "--reason", "time"], [3]),
        (["--reason", "mismatch"], [2]),
        (["--topic", "Nothing"], []),
    ],
)
def test_the_list_can_be_narrowed(run: Run, letters: Path, arguments: list[str], left: list[int]) -> None:
    assert numbers(run, *arguments) == left


def test_how_many_had_to_go_is_said(run: Run, data: Path) -> None:
    with open_store(data / "Single", now=lambda: NOW - 50 * DAY) as store:
        bury(store, b"1")
    with open_store(data / "Single", now=lambda: NOW):
        pass
    assert run("list").out == (
        f"0 dead letters in {data / 'Single' / FILE}; 1 had to go, for newer ones or for their age\n"
    )


@pytest.mark.parametrize("arguments", [["list"], ["replay", "--all"], ["purge", "--all"]])
def test_where_there_is_no_file_it_says_where_it_looked(run: Run, data: Path, arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (0, f"no dead letters: there is no file {data / 'Single' / FILE}\n")
    assert not data.exists()


def test_for_programs_no_file_is_an_empty_list(run: Run, data: Path) -> None:
    done = run("list", "--json")
    assert (json.loads(done.out), done.code) == ([], 0)
    assert "there is no file" in done.err


def test_where_else_the_file_of_a_service_is_gets_said(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KEPM_DATA_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("kepm_plugin.folder._is_root", lambda: False)
    done = run("list")
    assert f"there is no file {tmp_path}/kepm-plugin/Single/{FILE}; that of a plugin which runs as a service is " in (
        done.out
    )
    assert "look as root" in done.out
    assert "look as root" not in run("list", "--data-dir", str(tmp_path)).out


def test_a_plugin_without_a_journal_has_none_on_disk(run: Run, data: Path) -> None:
    assert run("list", kind=Lazy).out == "no dead letters: Lazy keeps no dead letters on disk (journal = False)\n"


def test_what_an_earlier_version_with_a_journal_has_left_is_listed_but_not_put_back(run: Run, data: Path) -> None:
    with open_store(data / "Lazy") as store:
        bury(store, b"1")
    done = run("replay", "--all", kind=Lazy)
    assert (done.code, done.out) == (2, "")
    assert "Lazy has no journal (journal = False): it would not find what is put back" in done.err
    assert "1 dead letter in" in run("list", kind=Lazy).out


# --- show -------------------------------------------------------------------------------------------------------------


def test_a_letter_is_shown_with_its_traceback_and_its_json_as_it_came_but_indented(run: Run, letters: Path) -> None:
    assert run("show", "1").out.splitlines() == [
        "id:             1",
        "reason:         failed",
        "buried:         2033-05-08T03:33:20Z",
        "received:       2033-05-18T03:32:20Z",
        "topic:          Single/Commands/ping",
        "qos:            1",
        "deliveries:     1",
        "",
        "details:",
        "  Traceback",
        "    File x",
        "  ValueError: no",
        "",
        "payload, 28 bytes, JSON:",
        "  {",
        '    "n": 1.00000000000000000001',
        "  }",
    ]


def test_what_came_with_mqtt_5_is_shown_too(run: Run, data: Path) -> None:
    full = Received(
        "Single/Commands/ping",
        b"",
        2,
        retained=True,
        response_topic="back/to",
        correlation_data=b"\xff\x00",
        properties={"host": "a\x1b"},
    )
    with open_store(data / "Single", now=lambda: NOW) as store:
        store.bury(full, reason="failed", details="")
    lines = run("show", "1").out.splitlines()
    assert lines[5:] == [
        "qos:            2, retained",
        "deliveries:     not known",
        "response topic: back/to",
        "correlation:    0xff00",
        r"property:       host=a\x1b",
        "",
        "details:",
        "",
        "payload, 0 bytes, text:",
    ]


def test_a_time_that_is_none_hides_no_letter(run: Run, data: Path) -> None:
    with open_store(data / "Single", now=lambda: NOW) as store:
        store.bury(Received(PING, b"", received_at=1e300), reason="failed", details="")
    assert "received:       ?" in run("show", "1").out.splitlines()


def test_what_is_no_text_is_a_hex_dump(run: Run, letters: Path) -> None:
    assert run("show", "3").out.splitlines()[-3:] == [
        "payload, 20 bytes, no text:",
        f"  00000000  {'ff ' * 16} {'.' * 16}",
        f"  00000010  {'ff ff ff ff':<47}  ....",
    ]


EVIL = "\x1b]0;owned\x07\x9b31m\u202e\u2028\u200b\r\x08"


def test_no_letter_steers_the_terminal(run: Run, data: Path) -> None:
    with open_store(data / "Single", now=lambda: NOW) as store:
        bury(store, f"a\tb\n{EVIL}".encode(), EVIL, f"Single/{EVIL}\udcff", details=f"x\n{EVIL}")
        bury(store, json.dumps([EVIL], ensure_ascii=False).encode())
    for arguments in (["list"], ["list", "--json"], ["show", "1"], ["show", "2"]):
        shown = run(*arguments).out
        assert {char for char in shown if not char.isprintable()} <= {"\n", "\t"}, arguments
    shown = run("show", "1").out
    assert r"  \x1b]0;owned\x07\x9b31m\u202e\u2028\u200b\r\x08" in shown.splitlines()
    assert "  a\tb" in shown.splitlines()
    assert r"topic:          Single/\x1b]0;" in shown
    assert json.loads(run("list", "--json").out)[0]["topic"] == f"Single/{EVIL}\udcff"


def test_what_the_terminals_encoding_lacks_is_escaped(run: Run, data: Path) -> None:
    with open_store(data / "Single", now=lambda: NOW) as store:
        bury(store, "é€".encode())
    assert r"  é\u20ac".encode("latin-1") in run("show", "1", encoding="latin-1").raw


def test_the_payload_alone_comes_byte_for_byte(run: Run, letters: Path) -> None:
    assert run("show", "3", "--raw").raw == b"\xff" * 20


# --- replay and purge -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "left", "said"),
    [
        (["3", "1"], [2], "2 dead letters put back into the journal; the plugin handles"),
        (["--all"], [], "3 dead letters put back into the journal; "),
        (["--all", "--topic", "Other/#"], [1, 3], "1 dead letter put back into the journal; "),
        (["--all", "--reason", "nothing like it"], [1, 2, 3], "0 dead letters put back into the journal\n"),
    ],
)
def test_letters_are_put_back_in_the_order_of_their_burial(
    run: Run, letters: Path, arguments: list[str], left: list[int], said: str
) -> None:
    done = run("replay", *arguments)
    assert (done.code, done.err) == (0, "")
    assert said in done.out
    assert numbers(run) == left
    payloads = {1: b'{"n":1.00000000000000000001}', 2: b"plain", 3: b"\xff" * 20}
    with open_store(letters.parent) as store:
        back = [row.received.payload for row in store.unfinished()]
        assert back == [payload for number, payload in payloads.items() if number not in left]
        assert not {row.received.received_at for row in store.unfinished()} & {NOW, NOW - 60}, "its age begins anew"


@pytest.mark.parametrize(
    ("arguments", "left", "said"),
    [
        (["1", "3"], [2], "2 dead letters deleted\n"),
        (["--all"], [], "3 dead letters deleted\n"),
        (["--all", "--older-than", "7d"], [3], "2 dead letters deleted\n"),
        (["--all", "--older-than", "1.5h", "--topic", "Single/#"], [2, 3], "1 dead letter deleted\n"),
        (["--all", "--older-than", "900000s"], [1, 2, 3], "0 dead letters deleted\n"),
    ],
)
def test_letters_are_deleted_for_good(
    run: Run, letters: Path, arguments: list[str], left: list[int], said: str
) -> None:
    done = run("purge", *arguments)
    assert (done.code, done.out, done.err) == (0, said, "")
    assert numbers(run) == left
    with open_store(letters.parent) as store:
        assert store.unfinished() == []
        assert store.dead_letters_dropped() == 0, "nothing had to go"


def test_a_replay_that_cannot_go_on_says_how_far_it_came_and_loses_nothing(
    run: Run, letters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(letters)) as other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON journal WHEN NEW.qos = 0 BEGIN SELECT RAISE(FAIL, 'disk full'); END"
        )
    done = run("replay", "--all")
    assert (done.code, done.out) == (76, "")
    assert "2 of 3 dead letters put back into the journal, then: cannot replay a dead letter in" in done.err
    assert numbers(run) == [3]
    with open_store(letters.parent) as store:
        assert len(store.unfinished()) == 2


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "9"], "there is no dead letter 9 in "),
        (["show", "x"], "'x' is no number of a dead letter"),
        (["show", "-1"], "'-1' is no number of a dead letter"),
        (["replay", "1", "9", "8"], "there is no dead letter 8, 9 in "),
        (["replay"], "give the numbers of dead letters"),
        (["purge"], "give the numbers of dead letters"),
        (["purge", "--older-than", "7d"], "give the numbers of dead letters"),
        (["replay", "--all", "1"], "not both"),
        (["purge", "1", "--reason", "x"], "go with --all"),
        (["purge", "1", "--older-than", "1d"], "go with --all"),
        (["purge", "--all", "--older-than", "7"], "write a number with s, m, h or d, as in 7d"),
        (["replay", "--all", "--topic", "a/#/b"], "'#' is allowed in the last level only"),
        (["list", "--topic", ""], "a filter cannot be empty"),
        (["nonsense"], "invalid choice"),
        ([], "COMMAND"),
    ],
)
def test_what_is_no_clear_choice_changes_nothing(run: Run, letters: Path, arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert numbers(run) == [1, 2, 3]


@pytest.mark.parametrize("arguments", [["show", "1"], ["replay", "1"], ["purge", "1"]])
def test_a_number_where_there_is_no_file_is_refused(run: Run, data: Path, arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "there is no dead letter 1: there is no file" in done.err


@pytest.mark.parametrize("arguments", [["list"], ["show", "1"], ["replay", "--all"], ["purge", "--all"]])
def test_a_damaged_file_is_said_with_its_exit_code_and_stays(run: Run, letters: Path, arguments: list[str]) -> None:
    letters.write_bytes(b"no database" * 100)
    done = run(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (76, "", 1)
    assert "is damaged, and left as it is" in done.err
    assert letters.read_bytes() == b"no database" * 100


# --- the framework's command line -------------------------------------------------------------------------------------


def test_a_plugin_is_named_by_its_id_where_its_code_is_not(run: Run, letters: Path, data: Path) -> None:
    for where in ([], ["--data-dir", str(data)]):
        assert run("list", "--id", "Single", *where, kind=None).out == run("list").out
    assert run("show", "3", "--id", "Single", "--raw", kind=None).raw == b"\xff" * 20
    assert "1 dead letter deleted" in run("purge", "--id", "Single", "2", kind=None).out
    assert "2 dead letters put back" in run("replay", "--id=Single", "--all", kind=None).out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list"], "give a TARGET, or its id with --id"),
        (["list", "single.py", "--id", "Single"], "give a TARGET or --id, not both"),
        (["list", "--id", "../Single"], "that is no plugin's id"),
        (["show", "--id", "Single"], "give the number of one dead letter"),
        (["show", "--id", "Single", "1", "2"], "give the number of one dead letter"),
        (["replay", "--id", "Single"], "give the numbers of dead letters"),
    ],
)
def test_the_frameworks_wrong_command_lines_are_usage_errors(
    run: Run, letters: Path, arguments: list[str], said: str
) -> None:
    done = run(*arguments, kind=None)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_as_processes_both_command_lines_do_the_same(
    kepm_plugin: Command, python: Command, project: Path, tmp_path: Path
) -> None:
    with open_store(tmp_path / "data" / "Single") as store:
        bury(store, b"1")
        bury(store, b"2")
    where = ("--data-dir", tmp_path / "data")
    first = kepm_plugin("deadletters", "list", "single.py", *where)
    second = python("single.py", "deadletters", "list", *where)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout == second.stdout
    assert "2 dead letters in" in first.stdout
    assert kepm_plugin("deadletters", "replay", "single.py", "1", *where).returncode == 0
    assert "1 dead letter deleted" in python("single.py", "deadletters", "purge", "2", *where).stdout
    assert "0 dead letters in" in python("single.py", "deadletters", "list", *where).stdout
    with open_store(tmp_path / "data" / "Single") as store:
        assert [row.received.payload for row in store.unfinished()] == [b"1"]


def test_a_plugins_own_command_loads_no_network_and_no_command_line_library(
    python: Command, project: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; sys.argv = ['single.py', 'deadletters', 'list', '--data-dir', 'nowhere']\n"
        "from single import Single\n"
        "try:\n    Single.main()\n"
        "except SystemExit as done:\n"
        "    print(done.code, {'anyio', 'aiomqtt', 'httpx', 'rich', 'structlog', 'typer'} & set(sys.modules))"
    )
    assert python("-c", code).stdout.splitlines()[-1] == "0 set()"
