"""Parts of the agent that are best seen by themselves: terminal, log, ledger, engines, certificate, files."""

import asyncio
import io
import json
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Awaitable
from pathlib import Path

import anyio
import psutil
import pytest

from kepm_plugin.devagent import Crossing, DevOptions, dev_agent
from kepm_plugin.devagent import guard as guard_process
from kepm_plugin.devagent.accepting import accepting
from kepm_plugin.devagent.bodies import Connect
from kepm_plugin.devagent.certificate import self_signed, server_context
from kepm_plugin.devagent.child import environment
from kepm_plugin.devagent.comeback import LONG_ENOUGH, Comeback
from kepm_plugin.devagent.engine import pauses, running_engine
from kepm_plugin.devagent.engines import Recipe, Start, choose, start_mosquitto, start_nats
from kepm_plugin.devagent.guarding import guarded
from kepm_plugin.devagent.layout import configured_port, keep_ports, listener
from kepm_plugin.devagent.likeness import Likeness, Role
from kepm_plugin.devagent.logger import KeeperLogger
from kepm_plugin.devagent.reload import is_source
from kepm_plugin.devagent.sender import engine_client
from kepm_plugin.devagent.terminal import Terminal
from kepm_plugin.devagent.tracebacks import readable
from kepm_plugin.devagent.traffic import Ledger, Traffic
from kepm_plugin.errors import AgentError, KepmError, UsageError
from tests.devagent.conftest import Lines, install, manifest, python, staged, trusting


def crossing(payload: bytes, topic: str = "KeeperLogger") -> Crossing:
    return Crossing(plugin_id="P", direction="from plugin", kind="PUBLISH", topic=topic, payload=payload)


# --- the terminal ----------------------------------------------------------------------------------------------------


def test_lines_are_coloured_where_that_is_asked_for() -> None:
    shown: dict[bool, str] = {}
    for color in (True, False):
        stream = io.StringIO()
        terminal = Terminal(stream=stream, color=color)
        terminal.line("P", "text [bold]", "red")
        terminal.error("bad")
        shown[color] = stream.getvalue()
    assert "\x1b[31mtext [bold]" in shown[True]
    assert shown[False] == "P            text [bold]\nagent        bad\n"


def test_a_stream_that_is_gone_mutes_the_terminal() -> None:
    class Gone(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            Gone.writes += 1
            raise BrokenPipeError

    terminal = Terminal(stream=Gone())
    terminal.agent("one")
    before = Gone.writes
    terminal.agent("two")
    assert Gone.writes == before


# --- the log ---------------------------------------------------------------------------------------------------------


TRACEBACK = """\
Traceback (most recent call last):
  File "/work/src/kepm_plugin/dispatch/_call.py", line 57, in guarded
    return await function(*args)
           ^^^^^^^^^^^^^^^^^^^^^
  File "/home/me/crash.py", line 15, in watch
    await self.inner()
  File "/usr/lib/python3.11/json/__init__.py", line 346, in loads
    return _default_decoder.decode(s)
  File "/usr/lib/python3.11/json/decoder.py", line 337, in decode
    obj, end = self.raw_decode(s, idx=_w(s, 0).end())
ValueError: no
"""
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "/venv/lib/python3.11/site-packages/anyio/_backends/_asyncio.py", line 2621, in run
  |     return runner.run(wrapper())
  | ExceptionGroup: two (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/home/me/crash.py", line 15, in watch
    |     await self.inner()
    |   File "/venv/lib/python3.11/site-packages/anyio/to_thread.py", line 1, in run_sync
    |     return 1
    | ValueError: no
    +------------------------------------
"""


def test_a_traceback_is_shown_line_by_line_with_the_frames_of_the_author(tmp_path: Path) -> None:
    lines = Lines()
    logger = KeeperLogger(tmp_path / "KeeperLogger.log", Terminal(echo=lines), Role(Likeness()))
    record = {"level": "Error", "message": "handler.failed", "topic": "P/Commands/x", "exception": TRACEBACK}
    logger.take(crossing(json.dumps(record).encode()))
    assert [line.removeprefix(f"{'P':<12} ") for line in lines.seen] == [
        "Error       handler.failed topic=P/Commands/x",
        "    Traceback (most recent call last):",
        "      … 1 frame of other code left out",
        '      File "/home/me/crash.py", line 15, in watch',
        "        await self.inner()",
        "      … 2 frames of other code left out",
        "    ValueError: no",
    ]
    assert json.loads((tmp_path / "KeeperLogger.log").read_text("utf-8"))["record"] == record


def test_a_traceback_without_the_author_is_shown_whole_and_groups_keep_their_margin() -> None:
    shown = readable(GROUP)
    assert shown[:8] == GROUP.splitlines()[:8]
    assert shown[8] == "    |   … 1 frame of other code left out"
    assert shown[9:] == GROUP.splitlines()[10:]
    assert readable("ValueError: no") == ["ValueError: no"]


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b'{"level": "Error", "message": "it broke", "source": "P", "path": "/etc"}', "Error       it broke path=/etc"),
        (b'{"Level": "Debug", "Msg": "two words", "why": "a b"}', 'Debug       two words why="a b"'),
        (b'{"n": 1}', "?            n=1"),
        (b"plain", "log, no JSON object: plain"),
        (b"[1]", "log, no JSON object: [1]"),
        (b"\xff\x1b[2J", "log, no JSON object: \ufffd\\x1b[2J"),
        (b"[" * 5000, "log, no JSON object: [[["),
    ],
)
def test_a_record_is_shown_and_written_whatever_it_is(tmp_path: Path, payload: bytes, shown: str) -> None:
    lines = Lines()
    logger = KeeperLogger(tmp_path / "KeeperLogger.log", Terminal(echo=lines), Role(Likeness()))
    logger.take(crossing(payload))
    assert shown in lines.seen[0]
    written = json.loads((tmp_path / "KeeperLogger.log").read_text("utf-8"))
    assert written["plugin"] == "P"
    assert ("record" in written) != ("raw" in written)


def test_a_log_that_cannot_be_written_is_reported_once(tmp_path: Path) -> None:
    lines = Lines()
    logger = KeeperLogger(tmp_path / "missing" / "KeeperLogger.log", Terminal(echo=lines), Role(Likeness()))
    logger.take(crossing(b"{}"))
    logger.take(crossing(b"{}"))
    assert sum("cannot be written" in line for line in lines.seen) == 1
    assert len(logger.records) == 2


def test_a_full_log_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.devagent.logger.ROTATE_AT", 10)
    logger = KeeperLogger(tmp_path / "KeeperLogger.log", Terminal(echo=Lines()), Role(Likeness()))
    logger.take(crossing(b"first"))
    logger.take(crossing(b"second"))
    assert len(list(tmp_path.glob("KeeperLogger_*.log"))) == 1
    assert "second" in (tmp_path / "KeeperLogger.log").read_text("utf-8")


async def test_records_reach_the_file_only_through_the_gate(root: Path, broker: str) -> None:
    async with staged(root, broker) as stage:
        peer = await stage.peer()
        await peer.publish("KeeperLogger", b'{"level": "Information", "message": "hello"}', qos=2)
        record = await stage.agent.logger.records.wait_for(lambda each: "hello" in each.raw)
        assert (record.plugin_id, record.record) == ("P", {"level": "Information", "message": "hello"})
        await stage.lines.wait_for("Information hello")
    assert '"hello"' in (root / "Log" / "KeeperLogger.log").read_text("utf-8")


# --- the ledger ------------------------------------------------------------------------------------------------------


async def test_a_ledger_keeps_the_last_entries_and_finds_what_was_and_what_comes() -> None:
    ledger: Ledger[int] = Ledger(3)
    for number in range(5):
        ledger.add(number)
    assert (list(ledger), len(ledger), ledger.total) == ([2, 3, 4], 3, 5)
    assert await ledger.wait_for(lambda number: number > 2) == 3
    assert await ledger.wait_for(lambda number: number > 2, since=4) == 4
    waiting = asyncio.create_task(ledger.wait_for(lambda number: number > 2, since=5))
    await asyncio.sleep(0)
    ledger.add(1)
    ledger.add(7)
    assert await waiting == 7
    with pytest.raises(TimeoutError):
        await ledger.wait_for(lambda number: number == 99, timeout=0.01)


def test_the_record_of_traffic_is_bounded_in_number_and_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    few, light = Traffic(3), Traffic()
    for number in range(10):
        few.add(crossing(b"", str(number)))
    assert [entry.topic for entry in few] == ["7", "8", "9"]
    monkeypatch.setattr("kepm_plugin.devagent.traffic.KEPT_BYTES", 10)
    for payload in (b"12345", b"1234", b"123", b"123456789"):
        light.add(crossing(payload))
    assert [entry.payload for entry in light] == [b"123456789"]
    assert (few.total, light.total) == (10, 4)


# --- engines ---------------------------------------------------------------------------------------------------------


def test_an_engine_that_is_not_installed_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(_name: str, path: str | None = None) -> None:
        del path

    monkeypatch.setattr("shutil.which", nowhere)
    with pytest.raises(UsageError, match="apt install mosquitto"):
        choose("mosquitto")
    with pytest.raises(UsageError, match="pip install"):
        choose("auto")


def test_nats_is_chosen_where_mosquitto_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("auto").name == "mosquitto"
    monkeypatch.setattr("kepm_plugin.devagent.engines._mosquitto", lambda: None)
    assert choose("auto").name == "nats"


async def test_mosquitto_without_a_socket_file_wants_a_credential(tmp_path: Path) -> None:
    program = choose("mosquitto").prepare(tmp_path).command[0]
    recipe = Recipe("mosquitto", lambda folder: start_mosquitto(program, folder, version=(1, 6)))
    with guarded(leave_plugins=False) as guard:
        async with running_engine(recipe, guard, Terminal(echo=Lines())) as engine:
            assert engine.credential is not None
            async with engine_client(engine) as client:
                await client.subscribe("x")
                client.publish("x", b"y")
                assert (await client.received()).payload == b"y"


@pytest.mark.parametrize("start", [start_mosquitto, start_nats])
def test_no_file_of_an_engine_is_readable_for_others(tmp_path: Path, start: object) -> None:
    assert callable(start)
    prepared = start("program", tmp_path)
    assert isinstance(prepared, Start)
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())
    assert not prepared.credential or prepared.credential[1] not in " ".join(prepared.command)


async def test_an_engine_refuses_everybody_without_its_credential() -> None:
    with guarded(leave_plugins=False) as guard:
        async with running_engine(choose("nats"), guard, Terminal(echo=Lines())) as engine:
            reader, writer = await engine.connect()
            writer.write(Connect(level=4, client_id="P", username="gate", password=b"guessed").encode())
            with anyio.fail_after(5):
                answer = await reader.read(4)
            assert answer[3:] not in (b"", b"\0")
            writer.close()


async def test_an_engine_that_does_not_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    recipe = Recipe("nats", lambda _: Start((sys.executable, "-c", "print('my last words')"), None, 1))
    with guarded(leave_plugins=False) as guard:

        async def start() -> None:
            async with running_engine(recipe, guard, Terminal(echo=Lines())):
                raise AssertionError

        with pytest.raises(ExceptionGroup) as caught:
            await start()
        assert caught.group_contains(AgentError, match="nats did not start: my last words")


async def test_an_engine_that_does_not_come_back_is_tried_again_and_again() -> None:
    lines, real, broken = Lines(), choose("mosquitto"), False

    def prepare(folder: Path) -> Start:
        return Start((sys.executable, "-c", ""), None, 1) if broken else real.prepare(folder)

    with guarded(leave_plugins=False) as guard:
        async with running_engine(Recipe("mosquitto", prepare), guard, Terminal(echo=lines)) as engine:
            broken = True
            await engine.kill()
            await lines.wait_for("mosquitto ended", count=3)
            assert engine.pid is None
            broken = False
            with anyio.fail_after(10):
                await engine.wait_up()
            assert engine.pid is not None


def test_pauses_grow_and_stay_below_two_seconds() -> None:
    waits = pauses()
    assert [next(waits) for _ in range(8)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


# --- certificate and files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_the_key_is_not_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    certificate, key = self_signed()
    assert self_signed()[0] != certificate
    monkeypatch.setattr(sys, "platform", platform)
    server_context(certificate, key)
    assert list(tmp_path.iterdir()) == []


async def test_the_certificate_is_for_localhost_and_can_be_verified(root: Path) -> None:
    async with dev_agent(DevOptions(root=root, broker="mosquitto", echo=Lines())) as agent:
        port = int(agent.api_base.rpartition(":")[2])
        pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
        for host in ("localhost", "127.0.0.1"):
            context = ssl.create_default_context(cadata=pem)
            _, writer = await asyncio.open_connection("127.0.0.1", agent.broker[1], ssl=context, server_hostname=host)
            writer.close()
            await writer.wait_closed()


def test_ports_are_kept_beside_everything_else_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "appsettings.json"
    path.write_text('\ufeff{"settings": {"kestrelHttpsPort": 7000, "PluginPath": "Plugins"}, "Watchdog": {}}', "utf-8")
    assert configured_port(path, "Settings", "KestrelHttpsPort") == 7000
    keep_ports(path, 7001, 7002)
    assert json.loads(path.read_text("utf-8")) == {
        "settings": {"kestrelHttpsPort": 7001, "PluginPath": "Plugins"},
        "Watchdog": {},
        "MqttBrokerSettings": {"Port": 7002},
    }
    before = path.stat().st_ino
    keep_ports(path, 7001, 7002)
    assert path.stat().st_ino == before


def test_the_environment_of_a_plugin_is_ours_without_kepm() -> None:
    ours = {"PATH": "/bin", "KEPM_X": "1", "keeper_y": "2", "KEEPER_JOB_ID": "3", "HOME": "/"}
    assert environment(ours) == {"PATH": "/bin", "HOME": "/"}


# --- reload, accepting -----------------------------------------------------------------------------------------------


async def test_a_plugin_is_restarted_when_its_source_changes(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    install(root, manifest("P", arguments=python("print('version 1', flush=True); import time; time.sleep(600)")))
    lines, written = Lines(), 1

    async def regenerate(plugin_id: str) -> None:
        nonlocal written
        written += 1
        if written == 2:
            raise KepmError("the code is wrong")
        code = f"print('version {written}', flush=True); import time; time.sleep(600)"
        install(root, manifest(plugin_id, arguments=python(code)))

    options = DevOptions(
        root=root, broker="mosquitto", echo=lines, watch={"P": [source]}, before_reload=regenerate, stop_grace=5
    )
    async with dev_agent(options) as agent:
        await lines.wait_for("version 1")
        await changed(source / "handlers.py", lines.wait_for("P was not restarted: the code is wrong"))
        assert agent.plugins["P"].launches == 1
        await changed(source / "handlers.py", lines.wait_for("version 3"))
        await lines.wait_for("handlers.py changed: P is restarted")


async def changed(path: Path, seen: Awaitable[object]) -> None:
    """Change a file until it is seen: the watch may not stand yet at the first time."""
    async with anyio.create_task_group() as tasks:

        async def change() -> None:
            while True:
                await anyio.Path(path).write_text(str(anyio.current_time()), encoding="utf-8")
                await anyio.sleep(0.5)

        tasks.start_soon(change)
        await seen
        tasks.cancel_scope.cancel()


async def test_connections_beyond_the_limit_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.devagent.accepting.WAITING", 1)
    served = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.set()
        writer.close()

    with listener(None, "a test") as sock:
        port = sock.getsockname()[1]
        async with accepting(serve, sock, name="test"):
            opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(20)))
            with anyio.fail_after(5):
                await served.wait()
                for reader, writer in opened:
                    await reader.read()
                    writer.close()


@pytest.mark.parametrize("arguments", [[], ["--leave-plugins"]])
def test_the_guard_ends_what_is_listed_when_its_input_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    started: dict[str, psutil.Popen] = {}
    for name in ("engine", "plugin", "taken back"):
        started[name] = psutil.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
        started[name].stdout.readline()
    folders = [tmp_path / "engine folder", tmp_path / "taken back"]
    for folder in folders:
        folder.mkdir()
    told = [f"+{kind} {started[kind].pid}" for kind in ("engine", "plugin")]
    told += [f"+plugin {started['taken back'].pid}", f"-{started['taken back'].pid}", "+plugin 4194309"]
    told += [*(f"rmtree {folder}" for folder in folders), f"-rmtree {folders[1]}"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(told)))
    monkeypatch.setattr(signal, "signal", dict[int, object]().setdefault)
    monkeypatch.setattr(guard_process, "GRACE", 0.1)
    guard_process.main(arguments)
    left = {"taken back", *(["plugin"] if arguments else [])}
    lived = {name for name in left if guard_process.lives(started[name])}
    for name in left:
        started[name].kill()
    codes = {process.wait(5) for process in started.values()}
    for process in started.values():
        process.stdout.close()
    assert (lived, codes) == (left, {-9})
    assert [folder.exists() for folder in folders] == [False, True]


def test_the_guard_survives_nonsense_about_processes() -> None:
    with guarded(leave_plugins=False) as guard:
        process = psutil.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        guard.started("plugin", process.pid)
        guard.started("plugin", 2**22 + 5)
        guard.ended(2**22 + 5)
    assert process.wait(5) == -15


# --- what ended by itself --------------------------------------------------------------------------------------------


def test_a_plugin_that_keeps_ending_comes_back_ever_more_rarely_and_anew_after_a_long_run() -> None:
    comeback = Comeback(0.5)
    assert [comeback.ended(1.0) for _ in range(9)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert comeback.ended(LONG_ENOUGH) == 0.5
    assert comeback.ended(1.0) == 1.0
    assert [comeback.due() for _ in range(2)] == [False, True]
    comeback.ended(1.0)
    comeback.reset()
    assert comeback.due()
    assert comeback.ended(1.0) == 0.5


def test_at_the_interval_of_the_agent_nothing_is_added() -> None:
    comeback = Comeback(30.0)
    assert [(comeback.ended(1.0), comeback.due()) for _ in range(3)] == [(30.0, True)] * 3


# --- what a restart follows from -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "matters"),
    [
        ("/home/.me/plugin/worker.py", True),
        ("/home/.me/plugin/deep/types.pyi", True),
        ("/home/.me/plugin/Plugins/P.json", False),
        ("/home/.me/plugin/report.txt", False),
        ("/home/.me/plugin/pyproject.toml", False),
        ("/home/.me/plugin/__pycache__/worker.cpython-311.pyc", False),
        ("/home/.me/plugin/.#worker.py", False),
        ("/home/.me/plugin/.git/hook.py", False),
        ("/home/.me/plugin/venv/lib/python3.11/site-packages/other.py", False),
    ],
)
def test_python_sources_alone_restart_a_plugin(path: str, matters: bool) -> None:
    assert is_source(Path(path), [Path("/home/.me/plugin")]) is matters


# --- sockets ---------------------------------------------------------------------------------------------------------


async def test_what_comes_through_a_listener_is_not_held_back_for_more(root: Path) -> None:
    without: list[bool] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        without.append(not writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    context = server_context(*self_signed())
    for tls in (None, context):
        with listener(None, "test") as sock:
            port = sock.getsockname()[1]
            async with accepting(serve, sock, name="test", context=tls):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting() if tls else None)
                with anyio.fail_after(5):
                    assert await reader.read() == b""
                writer.close()
    assert without == [False, False]
