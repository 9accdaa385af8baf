"""Plugins whose program is also a job's task in one agent root: the agent trusts a process as one or the other."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, cast

from kepm_plugin.contract import PLUGINS_FOLDER
from kepm_plugin.errors import ManifestError

from ._document import parse

JOBS_FOLDER: Final = "Jobs"


def also_tasks(files: Sequence[Path], root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the plugin files whose program is a task of a job below `root`, each with the task in words."""
    tasks = dict(_task_programs(root))
    for file in files:
        try:
            written = parse(file).get("executablePath")
        except ManifestError:
            continue  # said already
        if isinstance(written, str) and written:
            for folder in (root, root / PLUGINS_FOLDER):  # the vendor's pages disagree from where a path counts
                if said := tasks.get(_place(folder, written)):
                    yield file, said
                    break


def _task_programs(root: Path) -> Iterator[tuple[str, str]]:
    for file in sorted((root / JOBS_FOLDER).glob("*.json")):
        try:
            content: object = json.loads(file.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError):
            continue
        tasks = _object(content).get("tasks")
        for one in cast("list[object]", tasks) if isinstance(tasks, list) else []:
            task = {key.casefold(): value for key, value in _object(one).items()}
            path, command = task.get("executablepath"), task.get("command")
            said = f"task {task.get('id', '?')!r} of {file}"
            if isinstance(path, str) and path:
                yield _place(root, path), said
            elif isinstance(command, str) and command:
                yield _place(root, f"{JOBS_FOLDER}/bin/{command}/{command}"), said


def _object(value: object) -> dict[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _place(folder: Path, written: str) -> str:
    """Return a program's path in one spelling, without `.exe`, so that the files of all platforms compare."""
    whole = (folder.absolute() / written.replace("\\", "/")).as_posix()
    return str(PurePosixPath(whole)).casefold().removesuffix(".exe")
