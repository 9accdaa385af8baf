"""Which programs the root's jobs run (Job Format): none of them may be a plugin's, too.

A local agent runs no jobs; it reads their files for this alone. A second opinion: `validate` has a reading of its own.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

JOBS = "Jobs"


def task_that_runs(program: Path, root: Path) -> str | None:
    """Return the job and task that run a program, by the paths as they are written; None where there is none."""
    wanted = _plain(program)
    for file in sorted((root / JOBS).glob("*.json")):
        for task in _tasks(file):
            if wanted in {_plain(path) for path in _programs(task, root)}:
                return f"{JOBS}/{file.name}, task {task.get('id', '?')!r}"
    return None


def _tasks(file: Path) -> Iterator[dict[str, Any]]:
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return  # jobs are not run here; what is wrong with one is not our business
    tasks = content.get("tasks") if isinstance(content, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    for task in tasks if isinstance(tasks, list) else []:  # pyright: ignore[reportUnknownVariableType]
        if isinstance(task, dict):
            yield {str(key).lower(): value for key, value in task.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _programs(task: dict[str, Any], root: Path) -> Iterator[Path]:
    """Yield where a task's program may be: `executablePath` overrides `Jobs/bin`, then `PATH` (Job Guide)."""
    path, command = task.get("executablepath"), task.get("command")
    if isinstance(path, str) and path:
        yield root / path
    elif isinstance(command, str) and command:
        folder = root / JOBS / "bin" / command
        yield folder / command
        yield folder / f"{command}.exe"
        if not folder.is_dir() and (found := shutil.which(command)):
            yield Path(found)


def _plain(path: Path) -> str:
    # Links are not followed: every virtual environment's Python leads to the system's.
    return os.path.normcase(os.path.abspath(path))  # noqa: PTH100
