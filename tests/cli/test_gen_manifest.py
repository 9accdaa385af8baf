"""`gen-manifest`, `validate` and `schema` as commands."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kepm_plugin.contractfile import contract_schema
from kepm_plugin.manifest import current_platform, schema

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def written(kepm_plugin: Command, project: Path) -> Path:
    """The generated `Scanner.json`."""
    made = kepm_plugin("gen-manifest", "scanner/worker.py", "-o", "made/here")
    assert made.stdout == f"{Path('made/here/Scanner.json')}\n", made.stderr
    return project / "made" / "here" / "Scanner.json"


def test_a_plugin_is_the_same_however_it_is_started(
    kepm_plugin: Command, python: Command, project: Path, written: Path, tmp_path: Path
) -> None:
    ways = {
        "module": kepm_plugin("gen-manifest", "scanner.worker:Scanner"),
        "path": kepm_plugin("gen-manifest", "scanner/worker.py"),
        "path from elsewhere": kepm_plugin("gen-manifest", f"{project}/scanner/worker.py:Scanner", cwd=tmp_path),
        "-m": python("-m", "scanner.worker", "gen-manifest"),
        "script": python("scanner/worker.py", "gen-manifest"),
        "script from elsewhere": python(project / "scanner" / "worker.py", "gen-manifest", cwd=tmp_path),
    }
    assert {way: made.stderr for way, made in ways.items()} == dict.fromkeys(ways, "")
    assert {way: made.stdout for way, made in ways.items()} == dict.fromkeys(ways, written.read_text("utf-8"))
    assert "Scanner/Commands/scan" in written.read_text("utf-8")


def test_the_options_are_in_the_file(kepm_plugin: Command) -> None:
    made = kepm_plugin(
        *("gen-manifest", "scanner.worker", "--platform", "windows", "--platform", "Linux"),
        *("--executable", "bin/x.exe", "--arguments", "--verbose"),
    )
    content: dict[str, Any] = json.loads(made.stdout)
    assert content["supportedPlatforms"] == ["Windows", "Linux"]
    assert (content["executablePath"], content["arguments"]) == ("bin/x.exe", "--verbose")
    assert content["scan.root"] == "/etc"
    assert "s3cret" not in made.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--platform", "BSD"], "Scanner is not for platform 'BSD'; choose of Windows, Linux, macOS"),
        (["--platform", "Windows", "--platform", "Linux"], "or give --executable"),
        (["--executable", ""], "--executable is empty"),
        (["-o", "x", "--check", "y"], "--check compares and -o writes; give one of them"),
        (["-o", "Scanner.json"], "-o Scanner.json: name the folder, the file in it is called Scanner.json"),
        (["-o", "single.py"], "single.py/Scanner.json cannot be written: "),
    ],
)
def test_options_that_make_no_file_are_refused(kepm_plugin: Command, arguments: list[str], said: str) -> None:
    made = kepm_plugin("gen-manifest", "scanner.worker", *arguments)
    assert said in made.stderr
    assert (made.returncode, made.stdout, made.stderr.count("\n")) == (2, "", 1)


def test_nothing_else_is_left_in_the_folder(written: Path) -> None:
    assert [path.name for path in written.parent.iterdir()] == ["Scanner.json"]


# --- check ------------------------------------------------------------------------------------------------------------


def test_a_file_in_step_passes_the_check(kepm_plugin: Command, python: Command, written: Path) -> None:
    made = kepm_plugin("gen-manifest", "scanner.worker", "--check", written)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    assert python("scanner/worker.py", "gen-manifest", "--check", written).returncode == 0


def test_drift_is_told_as_permissions_lost_and_gained(kepm_plugin: Command, project: Path, written: Path) -> None:
    handlers = project / "scanner" / "handlers.py"
    handlers.write_text(handlers.read_text("utf-8").replace('command("scan")', 'command("look")'), "utf-8")
    made = kepm_plugin("gen-manifest", "scanner/worker.py", "--check", written)
    assert made.returncode == 1
    assert made.stdout.splitlines() == [
        "publish: lost Scanner/Responses/scan",
        "publish: gained Scanner/Responses/look",
        "subscribe: lost Scanner/Commands/scan",
        "subscribe: gained Scanner/Commands/look",
    ]
    assert "has drifted from Scanner" in made.stderr
    assert f"gen-manifest -o {written.parent}" in made.stderr


def test_a_check_takes_the_platform_from_the_file_and_the_rest_from_the_options(
    kepm_plugin: Command, project: Path
) -> None:
    other = "Windows" if current_platform() != "Windows" else "Linux"
    kepm_plugin("gen-manifest", "scanner.worker", "--platform", other, "--executable", "x", "-o", project)
    assert kepm_plugin("gen-manifest", "scanner.worker", "--check", "Scanner.json", "--executable", "x").returncode == 0
    made = kepm_plugin("gen-manifest", "scanner.worker", "--check", "Scanner.json")
    assert made.returncode == 1
    assert made.stdout.startswith('field executablePath: expected "Plugins/bin/Scanner/Scanner')
    made = kepm_plugin(
        "gen-manifest", "scanner.worker", "--check", "Scanner.json", "--platform", "macOS", "--executable", "x"
    )
    assert made.stdout == f'field supportedPlatforms: expected ["macOS"], found ["{other}"]\n'


def test_a_file_that_cannot_be_compared_is_an_error(kepm_plugin: Command, project: Path) -> None:
    (project / "broken.json").write_text('{"id": 1}', "utf-8")
    made = kepm_plugin("gen-manifest", "scanner.worker", "--check", "broken.json")
    assert (made.returncode, made.stdout) == (65, "")
    assert made.stderr == "kepm-plugin: broken.json: id: must be a string, not 1\n"


# --- validate, schema -------------------------------------------------------------------------------------------------


def test_validate_tells_warnings_and_passes(kepm_plugin: Command, python: Command, written: Path) -> None:
    for made in (kepm_plugin("validate", written), python("single.py", "validate", written)):
        assert made.returncode == 0, made.stderr
        warning, counts = made.stdout.splitlines()
        said = f"warning: {written}: Subscription.Qos: is 1, and 2 in every example; no page says that it may differ."
        assert warning.startswith(said)
        assert warning.endswith("; write qos = 2 in the plugin to follow the examples")
        assert counts == "1 file, 0 errors, 1 warning"


def test_validate_of_a_folder_says_how_to_name_its_files(kepm_plugin: Command, project: Path) -> None:
    made = kepm_plugin("validate", "scanner")
    assert made.returncode == 65
    assert made.stdout.startswith("error: scanner: is a folder; name the files in it, as in scanner/*.json\n")


@pytest.mark.parametrize(
    "task",
    [
        {"id": "t", "command": "Tool"},
        {"id": "t", "command": "x", "executablePath": "Jobs/bin/Tool/Tool.exe"},
        {"id": "t", "ExecutablePath": "{root}/Jobs/bin/Tool/Tool"},
    ],
)
def test_a_program_that_is_a_task_of_a_job_is_no_plugin(
    kepm_plugin: Command, python: Command, tmp_path: Path, task: dict[str, str]
) -> None:
    root = tmp_path / "agent root"
    (root / "Jobs").mkdir(parents=True)
    made = kepm_plugin("validate", "--root", root)
    assert (made.returncode, made.stderr.count("\n")) == (2, 1)
    assert "there is no file Plugins/*.json in it" in made.stderr
    kepm_plugin("gen-manifest", "scanner.worker", "-o", root / "Plugins", "--executable", "Jobs/bin/Tool/Tool")
    kepm_plugin("gen-manifest", "single.py", "-o", root / "Plugins")
    (root / "Plugins" / "Broken.json").write_text("{", "utf-8")
    (root / "Jobs" / "broken.json").write_text("{", "utf-8")
    assert "is also run by" not in kepm_plugin("validate", "--root", root).stdout
    task = {key: value.replace("{root}", str(root)) for key, value in task.items()}
    (root / "Jobs" / "job.json").write_text(json.dumps({"id": "job", "tasks": [1, task]}), "utf-8")
    for made in (kepm_plugin("validate", "--root", root), python("single.py", "validate", "--root", root)):
        assert made.returncode == 65
        assert made.stdout.count("is also run by") == 1
        scanner = root / "Plugins" / "Scanner.json"
        job = root / "Jobs" / "job.json"
        assert f"error: {scanner}: executablePath: is also run by task 't' of {job}; one program is" in made.stdout


def test_validate_tells_errors_and_fails(kepm_plugin: Command, project: Path, written: Path) -> None:
    copy = project / "Copy.json"
    copy.write_bytes(written.read_bytes())
    made = kepm_plugin("validate", written, copy, "Nothing.json")
    assert made.returncode == 65
    assert f"error: {copy}: id: is 'Scanner', so the file must be called Scanner.json" in made.stdout
    assert f"error: {copy}: Subscription.Topic: 'Scanner' is taken by {written}" in made.stdout
    assert "error: Nothing.json: cannot be read: No such file" in made.stdout
    assert made.stdout.endswith("3 files, 4 errors, 2 warnings\n")


def test_the_schema_is_printed(kepm_plugin: Command) -> None:
    assert json.loads(kepm_plugin("schema").stdout) == json.loads(kepm_plugin("schema", "manifest").stdout) == schema()
    assert json.loads(kepm_plugin("schema", "contract").stdout) == contract_schema()
