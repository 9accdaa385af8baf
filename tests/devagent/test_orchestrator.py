"""Plugins as processes of the agent."""

import json
import sys
from pathlib import Path

import anyio
import psutil
import pytest

from kepm_plugin.devagent import DevAgent, DevOptions, dev_agent
from kepm_plugin.errors import AgentError, ManifestError, UnknownPlugin
from tests.devagent.conftest import Lines, install, manifest, python, until

ANNOUNCE = "import os, sys, time; print('here', os.getpid(), *sys.argv[1:], flush=True); time.sleep(600)"
CRASH = "import sys; sys.exit(65)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
)
PARENT = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print('child is', child.pid, flush=True)\n"
    "time.sleep(600)"
)


def options(root: Path, lines: Lines, **more: object) -> DevOptions:
    """Return options of an agent on a root, with short times."""
    chosen: dict[str, object] = {"first_check": 0.1, "monitor_interval": 0.1, "stop_grace": 5.0}
    return DevOptions(root=root, broker="mosquitto", echo=lines, **(chosen | more))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def alive(pid: int) -> bool:
    """Tell whether a process runs, a zombie not counted."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def gone(*pids: int) -> None:
    """Return when processes have ended."""
    await until(lambda: not any(alive(pid) for pid in pids))


async def launched(agent: DevAgent, plugin_id: str, times: int) -> int:
    """Return the process id when a plugin was launched so often."""
    await until(lambda: agent.plugins[plugin_id].launches >= times and agent.pid(plugin_id) is not None)
    return agent.pid(plugin_id) or 0


async def test_plugins_are_launched_by_ascending_priority(root: Path) -> None:
    for plugin_id, priority in (("Late", 80), ("First", 20), ("B", 60), ("A", 60)):
        install(root, manifest(plugin_id, startupPriority=priority))
    lines = Lines()
    async with dev_agent(options(root, lines)):
        order = [line.split("launched ")[1].split(":")[0] for line in lines.seen if "launched " in line]
    assert order == ["First", "A", "B", "Late"]


async def test_what_does_not_start_with_the_agent_is_started_on_demand_and_stopped(root: Path) -> None:
    install(root, manifest("OnDemand", autoStart=False, requiresMonitoring=False, autoRestart=False))
    lines = Lines()
    async with dev_agent(options(root, lines)) as agent:
        await lines.wait_for("OnDemand is registered and not launched: autoStart is false")
        assert (agent.pid("OnDemand"), agent.plugins["OnDemand"].status) == (None, "Stopped")
        await agent.start("OnDemand")
        pid = agent.pid("OnDemand")
        await agent.start("OnDemand")
        assert agent.pid("OnDemand") == pid
        assert agent.plugins["OnDemand"].status == "Healthy"
        await agent.stop("OnDemand")
        state = agent.plugins["OnDemand"]
        assert (state.status, state.pid, state.exit_code, state.launches) == ("Stopped", None, -15, 1)
        await agent.stop("OnDemand")
        with pytest.raises(UnknownPlugin, match="no plugin 'Nobody'"):
            await agent.start("Nobody")


async def test_a_plugin_for_another_platform_is_skipped(root: Path) -> None:
    other = "Windows" if sys.platform != "win32" else "Linux"
    install(root, manifest("Elsewhere", supportedPlatforms=[other]))
    lines = Lines()
    async with dev_agent(options(root, lines)) as agent:
        await lines.wait_for(f"Elsewhere is skipped: it is for {other} only")
        assert agent.pid("Elsewhere") is None


async def test_a_wrong_file_is_skipped_loudly_and_the_others_run(root: Path) -> None:
    install(root, manifest("Good"))
    (root / "Plugins" / "Bad.json").write_text("{", encoding="utf-8")
    lines = Lines()
    async with dev_agent(options(root, lines)) as agent:
        await lines.wait_for("skipped: Bad.json: file: is no JSON")
        assert agent.pid("Good") is not None


async def test_what_cannot_be_launched_is_said_and_the_others_run(root: Path) -> None:
    plain = root / "plain"
    plain.write_text("no program", encoding="utf-8")
    broken = root / "broken"
    broken.write_text("no program", encoding="utf-8")
    broken.chmod(0o755)
    install(root, manifest("Missing", executablePath="bin/Missing/Missing"))
    install(root, manifest("Plain", executablePath="plain"))
    install(root, manifest("Broken", executablePath="broken"))
    install(root, manifest("Good"))
    lines = Lines()
    async with dev_agent(options(root, lines)) as agent:
        await lines.wait_for("Missing cannot be launched: executablePath 'bin/Missing/Missing' is no file")
        await lines.wait_for("is not executable; chmod +x it")
        await lines.wait_for("Broken cannot be launched")
        assert agent.pid("Good") is not None
        assert agent.plugins["Missing"].status == "Failed"
        with pytest.raises(AgentError, match="cannot be launched"):
            await agent.start("Missing")
        with pytest.raises(AgentError, match="Missing is not running"):
            await agent.send("Missing", "scan")


async def test_a_plugin_gets_its_arguments_its_folder_and_no_variables_about_kepm(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEPM_API_BASE", "https://elsewhere")
    monkeypatch.setenv("KEEPER_JOB_ID", "job")
    monkeypatch.setenv("ORDINARY", "kept")
    code = (
        "import os, sys; print('got', sys.argv[1:], os.getcwd(), os.environ.get('ORDINARY'), "
        "[name for name in os.environ if name.startswith(('KEPM', 'KEEPER'))], len(sys.stdin.read()), flush=True)"
    )
    arguments = python(code, "--keeper-api-base={KeeperApiBaseUrl}", "two words", "$HOME")
    install(root, manifest("P", arguments=arguments, autoRestart=False))
    lines = Lines()
    async with dev_agent(options(root, lines)) as agent:
        line = await lines.wait_for("got ")
        expected = [f"--keeper-api-base={agent.api_base}", "two words", "$HOME"]
        assert line.split(None, 1)[1] == f"got {expected} {root} kept [] 0"


async def test_a_plugin_that_ends_by_itself_is_launched_again(root: Path) -> None:
    install(root, manifest("P", arguments=python(CRASH)))
    lines = Lines()
    async with dev_agent(options(root, lines)) as agent:
        await lines.wait_for("ended with code 65, a manifest is wrong", count=3)
        await lines.wait_for("it is started again at the next check")
        await lines.wait_for("it is started again in about 0.2 s")
        assert agent.plugins["P"].launches >= 3


async def test_a_plugin_that_waits_is_launched_at_once_when_somebody_does_something_about_it(root: Path) -> None:
    install(root, manifest("P", arguments=python(CRASH), color="red"))
    lines = Lines()
    async with dev_agent(options(root, lines, monitor_interval=20.0)) as agent:
        await lines.wait_for("it is started again at the next check")
        await agent.restart("P")
        await lines.wait_for("it is started again at the next check", count=2)
        await agent.start("P")
        await lines.wait_for("it is started again at the next check", count=3)
    lines = Lines()
    async with dev_agent(options(root, lines)) as agent:
        await lines.wait_for("it is started again in about 0.4 s")
        agent.put("P", "color", "blue")
        await lines.wait_for("it is started again at the next check", count=2)


async def test_what_a_missing_setting_needs_is_said(root: Path) -> None:
    install(root, manifest("P", arguments=python("import sys; sys.exit(66)")))
    lines = Lines()
    async with dev_agent(options(root, lines)):
        await lines.wait_for(
            f"set what P lacks, or what breaks a rule: kepm-plugin settings set P KEY VALUE --root '{root}'"
        )


async def test_a_plugin_that_is_stopped_while_it_starts_is_said_to_be_so(root: Path) -> None:
    install(root, manifest("P"))
    lines = Lines()
    async with dev_agent(options(root, lines)):
        pass
    assert "was stopped (SIGTERM) before it served" in lines.seen[-2]
    assert lines.seen[-1].endswith("stopped, and all that it launched")


@pytest.mark.parametrize(
    "task",
    [
        {"id": "t", "command": "Tool"},
        {"id": "t", "command": "other", "executablePath": "Jobs/bin/Tool/Tool"},
        {"id": "t", "ExecutablePath": "{root}/Jobs/bin/Tool/Tool"},
    ],
)
async def test_a_program_that_is_a_task_of_a_job_is_not_launched_as_a_plugin(root: Path, task: dict[str, str]) -> None:
    program = root / "Jobs" / "bin" / "Tool" / "Tool"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nexec sleep 600\n", encoding="utf-8")
    program.chmod(0o755)
    task = {key: value.replace("{root}", str(root)) for key, value in task.items()}
    (root / "Jobs" / "broken.json").write_text("{", encoding="utf-8")
    (root / "Jobs" / "job.json").write_text(json.dumps({"id": "job", "tasks": [1, task]}), encoding="utf-8")
    install(root, manifest("P", executablePath="Jobs/bin/Tool/Tool", arguments=""))
    install(root, manifest("Good"))
    lines = Lines()
    async with dev_agent(options(root, lines)) as agent:
        await lines.wait_for("Tool is also run by Jobs/job.json, task 't'; one program is a plugin's or a job's")
        assert (agent.pid("P"), agent.pid("Good") is not None) == (None, True)


async def test_a_killed_plugin_is_launched_again_as_a_new_process(root: Path) -> None:
    install(root, manifest("P"))
    async with dev_agent(options(root, Lines())) as agent:
        before = agent.pid("P")
        assert before is not None
        psutil.Process(before).kill()
        assert await launched(agent, "P", 2) != before


@pytest.mark.parametrize("field", ["autoRestart", "requiresMonitoring"])
async def test_a_plugin_that_is_not_to_be_revived_stays_down(root: Path, field: str) -> None:
    install(root, manifest("P", arguments=python(CRASH), **{field: False}))
    install(root, manifest("Revived", arguments=python(CRASH)))
    lines = Lines()
    async with dev_agent(options(root, lines)) as agent:
        await lines.wait_for(f"it is not started again: {field} is false")
        await lines.wait_for("launched Revived", count=3)  # so checks took place
        state = agent.plugins["P"]
        assert (state.launches, state.status, state.exit_code) == (1, "Failed", 65)


async def test_a_program_that_is_gone_is_not_tried_for_ever(root: Path) -> None:
    program = root / "program"
    program.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    install(root, manifest("P", executablePath="program", arguments=""))
    lines = Lines()
    async with dev_agent(options(root, lines, first_check=0.5)):
        program.unlink()
        await lines.wait_for("is no file: looked for")
        await lines.wait_for("it is not tried again")


async def test_a_stopped_plugin_is_not_revived_and_a_restarted_one_is_new(root: Path) -> None:
    install(root, manifest("P"))
    install(root, manifest("Revived", arguments=python(CRASH)))
    lines = Lines()
    async with dev_agent(options(root, lines)) as agent:
        first = agent.pid("P")
        await agent.restart("P")
        second = agent.pid("P")
        assert second not in (None, first)
        await agent.stop("P")
        launches = agent.plugins["Revived"].launches
        await launched(agent, "Revived", launches + 3)
        assert (agent.pid("P"), agent.plugins["P"].launches) == (None, 2)


async def test_a_plugin_that_ignores_sigterm_is_killed_after_the_grace(root: Path) -> None:
    install(root, manifest("P", arguments=python(STUBBORN)))
    lines = Lines()
    async with dev_agent(options(root, lines, stop_grace=0.3)) as agent:
        await lines.wait_for("deaf")
        await agent.stop("P")
        assert agent.plugins["P"].exit_code == -9
        await lines.wait_for("P did not end within 0.3 s of SIGTERM and was killed")


async def test_what_a_plugin_started_ends_with_it(root: Path) -> None:
    install(root, manifest("P", arguments=python(PARENT)))
    lines = Lines()
    async with dev_agent(options(root, lines)) as agent:
        child = int((await lines.wait_for("child is")).split()[-1])
        assert alive(child)
        await agent.stop("P")
        await gone(child)


async def test_nothing_is_left_when_the_agent_ends(root: Path) -> None:
    for plugin_id in ("A", "B"):
        install(root, manifest(plugin_id))
    async with dev_agent(options(root, Lines())) as agent:
        pids = [agent.pid("A") or 0, agent.pid("B") or 0, agent.engine_pid or 0]
        assert all(alive(pid) for pid in pids)
    assert not any(alive(pid) for pid in pids)
    assert psutil.Process().children() == []


async def test_nothing_is_left_when_the_block_fails_and_its_error_comes_out(root: Path) -> None:
    install(root, manifest("P"))
    pids: list[int] = []

    async def fail() -> None:
        async with dev_agent(options(root, Lines())) as agent:
            pids.extend([agent.pid("P") or 0, agent.engine_pid or 0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert not any(alive(pid) for pid in pids)


async def test_nothing_is_left_when_the_agent_is_cancelled(root: Path) -> None:
    install(root, manifest("P"))
    pids: list[int] = []
    with anyio.CancelScope() as scope:
        async with dev_agent(options(root, Lines())) as agent:
            pids += [agent.pid("P") or 0, agent.engine_pid or 0]
            scope.cancel()
            await anyio.sleep(10)
    assert not any(alive(pid) for pid in pids)


async def test_a_manifest_is_read_again_on_a_restart(root: Path) -> None:
    install(root, manifest("P", arguments=python(ANNOUNCE, "old")))
    lines = Lines()
    async with dev_agent(options(root, lines)) as agent:
        await lines.wait_for("old")
        install(root, manifest("P", arguments=python(ANNOUNCE, "new"), color="red"))
        await agent.restart("P")
        await lines.wait_for("new")
        assert agent.effective("P")["color"] == "red"
        install(root, manifest("P", pluginType="Nonsense"))
        pid = agent.pid("P")
        with pytest.raises(ManifestError, match="pluginType"):
            await agent.restart("P")
        assert agent.pid("P") == pid


async def test_a_new_file_can_be_taken_in_while_the_agent_runs(root: Path) -> None:
    async with dev_agent(options(root, Lines())) as agent:
        install(root, manifest("P"))
        agent.reload_manifest("P")
        await agent.start("P")
        assert agent.pid("P") is not None


async def test_output_of_a_plugin_is_shown_line_by_line_and_cannot_move_the_cursor(root: Path) -> None:
    code = (
        "import sys, os, time; print('plain'); print('\\x1b[2Jred\\x07'); sys.stderr.write('error\\n');"
        "sys.stdout.buffer.write(b'\\xff\\r\\n'); print('x' * 200000); print('unfinished', end='')"
    )
    install(root, manifest("P", arguments=python(code), autoRestart=False))
    lines = Lines()
    async with dev_agent(options(root, lines)):
        await lines.wait_for("unfinished")
        own = [line.partition(" ")[2].strip() for line in lines.seen if line.startswith("P ")]
        assert {"plain", "\\x1b[2Jred\\x07", "error", "\ufffd"} <= set(own)
        assert any(line.startswith("xxx") and "characters)" in line for line in own)


async def test_a_plugin_that_leaves_its_output_open_is_seen_to_end(root: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('child is', child.pid, flush=True)\n"
    )
    install(root, manifest("P", arguments=python(code), autoRestart=False))
    lines = Lines()
    async with dev_agent(options(root, lines)) as agent:
        await lines.wait_for("ended with code 0")
        child = int((await lines.wait_for("child is")).split()[-1])
        await agent.stop("P")
        await gone(child)


async def test_a_temporary_root_is_made_and_removed() -> None:
    async with dev_agent(DevOptions(broker="mosquitto", echo=Lines())) as agent:
        root = agent.root
        assert (root / "Plugins").is_dir()
        assert (root / ".dev").stat().st_mode & 0o777 == 0o700
    assert not root.exists()
