"""Commands, exit codes, and how errors are told."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kepm_plugin import __version__

Command = Callable[..., subprocess.CompletedProcess[str]]

COMMANDS = ("gen-manifest", "validate", "schema", "run", "package", "dev", "send", "settings", "deadletters")


def one_line(told: str) -> str:
    """Return what stands on standard error, which must be one line of ours."""
    assert told.count("\n") == 1, told
    assert told.startswith("kepm-plugin: "), told
    return told.removeprefix("kepm-plugin: ").strip()


def test_help_lists_the_commands(kepm_plugin: Command) -> None:
    made = kepm_plugin("--help")
    assert made.returncode == 0
    assert [name for name in COMMANDS if name not in made.stdout] == []


def test_the_console_script_is_the_same(kepm_plugin: Command, python: Command) -> None:
    script = Path(sys.executable).parent / "kepm-plugin"
    call = f"import subprocess, sys; sys.exit(subprocess.call([{str(script)!r}, 'gen-manifest', 'scanner.worker']))"
    made = python("-c", call)
    assert made.returncode == 0, made.stderr
    assert made.stdout == kepm_plugin("gen-manifest", "scanner.worker").stdout


def test_the_version_is_printed(kepm_plugin: Command) -> None:
    assert kepm_plugin("--version").stdout == f"kepm-plugin {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["run"], ["validate"], ["gen-manifest", "x", "--nonsense"], ["run", "x", "--peer", "no"]],
)
def test_a_wrong_command_line_exits_with_2(kepm_plugin: Command, arguments: list[str]) -> None:
    made = kepm_plugin(*arguments)
    assert made.returncode == 2
    assert "Traceback" not in made.stderr


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("x = 1", 2, "bad.py defines no plugin"),
        ("import nothing_like_it", 64, "bad.py:1: No module named 'nothing_like_it'; install it"),
        ("def f(:", 64, "bad.py:1: invalid syntax; correct it there"),
        ("1 / 0", 64, "bad.py:1: ZeroDivisionError: division by zero"),
        ("from kepm_plugin import Plugin\nclass P(Plugin): ...", 64, "P.id is missing: set id = 'P'"),
        (
            "from kepm_plugin import Plugin\nclass P(Plugin):\n    id = 'P'\nP.main()",
            64,
            "P.main() is called while bad",
        ),
    ],
)
def test_what_is_wrong_with_a_plugin_is_one_line_and_an_exit_code(
    kepm_plugin: Command, project: Path, text: str, code: int, said: str
) -> None:
    (project / "bad.py").write_text(text, "utf-8")
    for command in ("gen-manifest", "run"):
        made = kepm_plugin(command, "bad.py")
        assert said in one_line(made.stderr)
        assert (made.returncode, made.stdout) == (code, "")


def test_an_interrupt_ends_without_a_traceback(kepm_plugin: Command, python: Command, project: Path) -> None:
    (project / "stopped.py").write_text("raise KeyboardInterrupt", "utf-8")
    (project / "script.py").write_text(
        "from kepm_plugin import Plugin\n"
        "class P(Plugin):\n    id = 'P'\n"
        "if __name__ != '__main__':\n    raise KeyboardInterrupt\n"
        "P.main()",
        "utf-8",
    )
    for made in (kepm_plugin("gen-manifest", "stopped.py"), python("script.py")):
        assert made.returncode == 130
        assert "Traceback" not in made.stderr


# --- run --------------------------------------------------------------------------------------------------------------

REFUSED = ("--keeper-api-base", "http://127.0.0.1:1")  # plain HTTP: the runtime says no before it asks anybody


def test_run_hands_its_options_to_the_runtime(kepm_plugin: Command) -> None:
    made = kepm_plugin("run", "single.py", *REFUSED)
    assert made.returncode == 2
    assert "http://127.0.0.1:1" in made.stderr
    assert "Traceback" not in made.stderr


@pytest.mark.parametrize("start", [("-m", "kepm_plugin", "run", "single.py"), ("single.py",), ("-m", "single")])
def test_a_contract_file_beside_the_plugin_is_read_however_it_is_started(
    python: Command, project: Path, start: tuple[str, ...]
) -> None:
    file = project / "kepm-contract.toml"
    file.write_text("put_tier = 'root'", "utf-8")
    file.chmod(0o600)
    made = python(*start, *REFUSED)
    assert made.returncode == 2
    assert one_line(made.stderr) == f"{file}: put_tier must be one of 'plugin', 'admin', not 'root'"


def test_a_contract_file_that_is_named_counts_before_the_one_beside_the_plugin(python: Command, project: Path) -> None:
    (project / "kepm-contract.toml").touch(0o600)
    (project / "other").mkdir()
    made = python("../single.py", *REFUSED, cwd=project / "other", KEPM_CONTRACT="none.toml")
    assert one_line(made.stderr).startswith(f"{project / 'other' / 'none.toml'} cannot be read")
    made = python("single.py", *REFUSED, "--contract", "given.toml", KEPM_CONTRACT="none.toml")
    assert one_line(made.stderr).startswith(f"{project / 'given.toml'} cannot be read")


@pytest.mark.parametrize("arguments", [REFUSED, ("run", *REFUSED), ("--peer=require", *REFUSED)])
def test_a_plugin_takes_the_options_of_run_with_and_without_the_word(
    python: Command, arguments: tuple[str, ...]
) -> None:
    made = python("single.py", *arguments)
    assert made.returncode == 2
    assert "http://127.0.0.1:1" in made.stderr
    assert "Traceback" not in made.stderr


def test_a_plugin_without_arguments_runs(python: Command) -> None:
    made = python("single.py", KEEPER_JOB_ID="nightly")
    assert made.returncode == 75
    assert "task of the job 'nightly'" in one_line(made.stderr)


@pytest.mark.parametrize("arguments", [("--nonsense",), ("run", "--nonsense"), ("--keeper-api", "x"), ("nonsense",)])
def test_a_plugins_own_wrong_command_line_exits_with_2(python: Command, arguments: tuple[str, ...]) -> None:
    made = python("single.py", *arguments)
    assert made.returncode == 2
    assert "Traceback" not in made.stderr


def test_a_plugins_own_help_lists_its_commands(python: Command) -> None:
    made = python("single.py", "--help")
    assert made.returncode == 0
    assert [name for name in ("run", "gen-manifest", "validate", "deadletters") if name not in made.stdout] == []
    assert "dev" not in made.stdout.replace("device", "")
    assert "--data-dir" in python("single.py", "run", "--help").stdout


def test_a_plugin_that_runs_loads_no_command_line_library(python: Command) -> None:
    code = (
        "import sys; sys.argv = ['single.py', '--keeper-api-base', 'http://127.0.0.1:1']\n"
        "from single import Single\n"
        "try:\n    Single.main()\n"
        "except SystemExit as done:\n    print(done.code, 'typer' in sys.modules)"
    )
    assert python("-c", code).stdout == "2 False\n"
