"""`settings`: what the code declares, and how it stands beside what a local agent has."""

import json
import sys
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kepm_plugin import Plugin, Secret, Settings, setting
from kepm_plugin.cli import _settings_commands
from kepm_plugin.cli._declared import declared, print_declared
from kepm_plugin.cli._diff import Row, ask, asking, knobs_of, rows_of, table
from kepm_plugin.devagent import ControlClient
from kepm_plugin.errors import UsageError
from kepm_plugin.knobs import KEYS
from tests.cli.conftest import Command
from tests.cli.test_dev import Start, start, told

__all__ = ["start"]


class Own(Settings):
    root: str = setting(default="/etc", key="scan.root", description="Where it starts")
    depth: int = setting(default=3, ge=1, le=10)
    fast: bool = False
    token: str = setting(secret=True)
    pin: str = setting(default="s3cret-pin", secret=True)


class P(Plugin):
    id = "P"
    settings: Own
    heartbeat = None
    drain = 20


def rows(stored: dict[str, str], file: dict[str, str], *, known: bool = True) -> dict[str, Row]:
    found = declared(P) if known else None
    made = rows_of({"stored": stored, "file": file}, found, knobs_of(found, ""))
    assert len({row.key for row in made}) == len(made)
    return {row.key: row for row in made}


# --- what the code declares -------------------------------------------------------------------------------------------


class Inner(Settings, nested=True):
    pause: timedelta = timedelta(seconds=5)
    pin: Secret = Secret("s3cret-pin")


class Outer(Settings):
    files: Inner


class Nesting(Plugin):
    id = "Nesting"
    settings: Outer


def test_settings_of_a_nested_class_are_listed_by_the_keys_that_the_agent_has() -> None:
    found = declared(Nesting)["settings"]
    assert [(one["key"], one["default"], one["secret"]) for one in found] == [
        ("files.pause", "5s", False),
        ("files.pin", "***", True),
    ]


def test_the_declared_settings_are_listed_with_type_rule_and_default() -> None:
    found = declared(P)
    assert found["id"] == "P"
    assert found["settings"][:2] == [
        {
            "key": "scan.root",
            "type": "str",
            "rule": "text",
            "description": "Where it starts",
            "default": "/etc",
            "required": False,
            "secret": False,
        },
        {
            "key": "depth",
            "type": "int",
            "rule": "a whole number, at least 1, at most 10",
            "description": "",
            "default": 3,
            "required": False,
            "secret": False,
        },
    ]
    settings = {one["key"]: one for one in found["settings"]}
    assert settings["token"] == settings["token"] | {"default": None, "required": True, "secret": True}
    assert settings["pin"] == settings["pin"] | {"default": "***", "required": False, "secret": True}
    knobs = {one["key"]: one for one in found["knobs"]}
    assert list(knobs) == list(KEYS.values())
    assert (knobs["kepm.drain"]["default"], knobs["kepm.heartbeat"]["default"]) == (20, None)
    assert knobs["kepm.journal.max_mb"]["counters"] == ["refused"]
    assert "s3cret-pin" not in json.dumps(found)


def test_a_plugins_own_command_line_lists_them(python: Command, kepm_plugin: Command) -> None:
    as_json = [python("-m", "scanner.worker", "settings", "--json")]
    as_json.append(kepm_plugin("settings", "declared", "scanner/worker.py", "--json"))
    for made in as_json:
        assert [one["key"] for one in told(made)["settings"]] == ["scan.root", "token"]
        assert "s3cret" not in made.stdout
    made = python("-m", "scanner.worker", "settings")
    head, first, second, *knobs = made.stdout.splitlines()
    assert head.split() == ["KEY", "DEFAULT", "RULE", "DESCRIPTION"]
    assert first.split(maxsplit=2) == ["scan.root", "/etc", "text, of a length of at most 1000"]
    assert second.split() == ["token", "***", "text"]
    assert [line.split()[0] for line in knobs] == list(KEYS.values())


# --- side by side -----------------------------------------------------------------------------------------------------


def test_layers_stand_side_by_side_and_what_is_not_the_same_is_marked() -> None:
    found = rows({"depth": "5", "KEPM.Drain": "5"}, {"scan.root": "/etc", "depth": "3", "FAST": "False"})
    assert found["scan.root"] == Row("scan.root", "setting", None, "/etc", "/etc", "/etc", False)
    assert found["depth"] == Row("depth", "setting", "5", "3", "3", "5", True)
    assert found["fast"] == Row("fast", "setting", None, "False", "false", "False", False), "spelt in two ways"
    assert found["token"] == Row("token", "setting", None, None, None, None, False, required=True)
    assert found["kepm.drain"] == Row("kepm.drain", "knob", "5", None, "20", "5", True)
    assert found["kepm.heartbeat"] == Row("kepm.heartbeat", "knob", None, None, None, None, False)
    assert rows({"kepm.drain": "0"}, {})["kepm.drain"] == Row(
        "kepm.drain", "knob", "0", None, "20", "20", True, refused=True
    )
    assert rows({"kepm.drain": ""}, {})["kepm.drain"].effective == "20", "the empty text is the default"


def test_keys_that_nobody_declares_are_shown_too() -> None:
    found = rows({"old": "1", "kepm.hartbeat": "5"}, {"old": "2"})
    assert found["old"] == Row("old", "unknown", "1", "2", None, "1", True)
    assert found["kepm.hartbeat"] == Row("kepm.hartbeat", "unknown", "5", None, None, "5", False)


def test_the_agents_log_level_is_the_default_of_the_knob() -> None:
    [level] = [one for one in knobs_of(None, "Warning") if one["key"] == "kepm.log.level"]
    assert level["default"] == "Warning"


@pytest.mark.parametrize("known", [True, False])
def test_no_secret_is_shown_nor_one_whose_key_is_misspelt(known: bool) -> None:
    secrets = {"token": "hunter2", "TOKEN": "hunter3", "tokn": "hunter4", "pin": "hunter5"}
    found = rows(secrets, {"scan.root": "/etc"}, known=known)
    lines = "\n".join([*table(found.values()), str(found)])
    assert "hunter" not in lines
    assert "s3cret-pin" not in lines
    assert found["tokn"].storage == "***"
    assert found["scan.root"].file == "/etc"


@hypothesis.settings(max_examples=40)
@given(
    st.dictionaries(st.text(), st.text()),
    st.dictionaries(st.text() | st.sampled_from(["depth", "DEPTH", "kepm.drain"]), st.text()),
    st.booleans(),
)
def test_any_layers_have_a_table_of_one_line_for_each_key(
    stored: dict[str, str], file: dict[str, str], known: bool
) -> None:
    found = declared(P) if known else None
    made = rows_of({"stored": stored, "file": file}, found, knobs_of(found, ""))
    lines = table(made)
    assert len(lines) == len(made) + 1
    assert [line.splitlines() for line in lines] == [[line] for line in lines]
    assert "\x1b" not in "".join(lines)
    assert {key.casefold() for key in (*stored, *file)} <= {row.key.casefold() for row in made}


ASKED = [
    (
        "python -u -m kepm_plugin run w.py:W --data-dir x",
        "python -u -m kepm_plugin settings declared w.py:W --json --values",
    ),
    ("/bin/kepm-plugin run w", "/bin/kepm-plugin settings declared w --json --values"),
    ("python /bin/kepm-plugin run w", "python /bin/kepm-plugin settings declared w --json --values"),
    ("python -m kepm_plugin dev w", None),
    ("python -m kepm_plugin run", None),
    ("python w.py", None),
    ("/opt/W", None),
    ("/opt/W kepm_plugin run w", None),
]


@pytest.mark.parametrize(("launch", "asked"), ASKED)
def test_the_code_is_asked_where_the_launch_names_a_target(launch: str, asked: str | None) -> None:
    assert asking(launch.split(), run=False) == (None if asked is None else asked.split())


def test_another_program_is_run_only_where_that_is_wanted() -> None:
    assert asking(["/opt/W", "--x"], run=True) == ["/opt/W", "settings", "--json", "--values"]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["/no/such/program"], "No such file"),
        ([sys.executable, "-c", "print('{}')"], "it said something else"),
        ([sys.executable, "-c", """print('{"id": "Q", "settings": [], "knobs": []}')"""], "it said something else"),
        ([sys.executable, "-c", "raise SystemExit('no settings here')"], "no settings here"),
    ],
)
def test_a_program_that_does_not_say_is_named_with_the_reason(command: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"did not say which settings P declares: .*{told}"):
        ask(command, "P", tmp_path, {})


# --- with a local agent -----------------------------------------------------------------------------------------------


def test_diff_shows_what_a_local_agent_has_beside_the_code(
    start: Start, kepm_plugin: Command, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "agent"
    frozen = root / "Plugins" / "Frozen"
    frozen.parent.mkdir(parents=True)
    source = (project / "scanner" / "worker.py").read_text("utf-8").replace('"Scanner"', '"Frozen"')
    (project / "frozen.py").write_text(source.replace('modules = (".handlers",)', ""), "utf-8")
    frozen.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(project)!r})\nfrom frozen import Scanner\n"
        "Scanner.main()\n",
        "utf-8",
    )
    frozen.chmod(0o700)
    made = kepm_plugin("gen-manifest", "frozen.py", "--executable", "Plugins/Frozen", "-o", root / "Plugins")
    assert made.returncode == 0, made.stderr
    start("scanner/worker.py", "--root", root)

    control = ControlClient.find(root)
    for key, value in (("scan.root", "/opt"), ("token", "hunter2"), ("kepm.drian", "5"), ("kepm.drain", "0")):
        control.set_setting("Scanner", key, value)
    control.set_setting("Frozen", "token", "hunter2")

    shown = kepm_plugin("settings", "diff", "Scanner", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert lines[0] == ["KEY", "STORAGE", "FILE", "DEFAULT", "EFFECTIVE"]
    assert lines[1] == ["*", "scan.root", "/opt", "/etc", "/etc", "/opt"]
    assert lines[2][:2] == ["token", "***"]
    assert ["*", "kepm.drain", "0", "-", "10", "10", "refused"] in lines
    assert ["kepm.log.level", "-", "-", "Information", "Information"] in lines
    assert lines[-1] == ["kepm.drian", "5", "-", "-", "5", "unknown"]

    def diff(plugin: str, *, run: bool = False) -> tuple[dict[str, Any], str]:
        _settings_commands.diff(plugin, root, as_json=True, run=run)
        printed = capsys.readouterr()
        everything.append(printed.out + printed.err)
        return json.loads(printed.out), printed.err

    everything = [shown.stdout]
    control.set_setting("Scanner", "scan.root", "/" * 1_001)
    shown = kepm_plugin("settings", "diff", "Scanner", cwd=tmp_path)
    assert "Scanner refuses these settings: ScannerSettings: 'scan.root'" in shown.stderr
    assert shown.stdout.splitlines()[1].split()[-2:] == ["(last", "good)"]
    found, _ = diff("Scanner")
    assert "'scan.root'" in found["refused"]
    assert found["settings"][0]["effective"] is None
    control.set_setting("Scanner", "scan.root", "/opt")
    found, said = diff("Scanner")
    assert (found["defaultsKnown"], found["fileChanged"], said) == (True, False, "")
    assert found["settings"][0] == {
        "key": "scan.root",
        "kind": "setting",
        "storage": "/opt",
        "file": "/etc",
        "default": "/etc",
        "effective": "/opt",
        "differs": True,
        "required": False,
        "refused": False,
    }
    # A program of its own: run only where that is asked for.
    found, said = diff("Frozen")
    assert not found["defaultsKnown"]
    assert "its manifest names no target; --ask runs its program" in said
    found, said = diff("Frozen", run=True)
    assert found["settings"][0] == found["settings"][0] | {"file": "/etc", "default": "/etc", "differs": False}

    (project / "scanner" / "handlers.py").write_text("raise LookupError('gone')\n", "utf-8")
    manifest = root / "Plugins" / "Scanner.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    found, said = diff("Scanner")
    assert "did not say which settings Scanner declares" in said
    assert "LookupError: gone" in said
    assert found["fileChanged"]
    assert "file has changed since the agent read it" in said
    found, said = diff("KeeperPrivilegeManager")
    assert [row["key"] for row in found["settings"]] == ["broker.host", "broker.port", "system.logging.level"]
    assert "hunter2" not in "".join(everything)

    _settings_commands.set_setting("Scanner", "kepm.drian", "5", root)
    assert (
        capsys.readouterr().err
        == "kepm-plugin: stored; the framework has no setting kepm.drian; kepm.drain is meant?\n"
    )
    _settings_commands.set_setting("Scanner", "kepm.drain", "0", root)
    assert "stored; the plugin will refuse it: 'kepm.drain' must be a number" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "told"), [("", "is no JSON"), ("[]", "give a JSON object on standard input")])
def test_values_that_are_no_object_are_refused(given: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO(given))
    with pytest.raises(UsageError, match=told):
        print_declared(P, as_json=True, values=True)
