"""The examples under `plugins/`: their manifests are those of their code, and a change of the code shows."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
EXAMPLES = sorted(path.parent for path in (REPOSITORY / "plugins").glob("*/__init__.py"))


def check(plugin: Path, manifest: Path) -> "subprocess.CompletedProcess[str]":
    """Run `gen-manifest --check` as a user does."""
    command = [sys.executable, "-m", "kepm_plugin", "gen-manifest", str(plugin), "--check", str(manifest)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def manifest_in(example: Path) -> Path:
    """Return the one manifest of an example."""
    (manifest,) = example.glob("*.json")
    return manifest


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_manifest_on_disk_is_that_of_the_code(example: Path) -> None:
    checked = check(example / f"{example.name}.py", manifest_in(example))
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_manifest_on_disk_is_valid(example: Path) -> None:
    command = [sys.executable, "-m", "kepm_plugin", "validate", str(manifest_in(example))]
    validated = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert validated.returncode == 0, validated.stdout


def test_a_changed_topic_is_drift_that_names_what_is_lost_and_what_is_gained(tmp_path: Path) -> None:
    example = REPOSITORY / "plugins" / "my_worker"
    copy = tmp_path / "my_worker.py"
    source = (example / "my_worker.py").read_text(encoding="utf-8")
    assert source.count('command("reset")') == 1
    copy.write_text(source.replace('command("reset")', 'command("forget")'), encoding="utf-8")
    checked = check(copy, example / "MyWorker.json")
    assert checked.returncode == 1
    assert checked.stdout.splitlines() == [
        "publish: lost MyWorker/Responses/reset",
        "publish: gained MyWorker/Responses/forget",
        "subscribe: lost MyWorker/Commands/reset",
        "subscribe: gained MyWorker/Commands/forget",
    ]


def test_there_is_an_example() -> None:
    assert REPOSITORY / "plugins" / "my_worker" in EXAMPLES
