"""Plays one scene as the command line says: prints its table, and writes the figures down."""

import argparse
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

from tests.chaos.scenes import burst, engine, faults, flood, settings, stuck

SCENES: Final[dict[str, ModuleType]] = {
    "faults": faults,
    "engine": engine,
    "burst": burst,
    "flood": flood,
    "stuck": stuck,
    "settings": settings,
}
"""Each is a module with `arguments` and `scene`."""


def played(arguments: Sequence[str]) -> int:
    """Play a scene; return 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    scenes = parser.add_subparsers(dest="scene", required=True)
    for name, module in SCENES.items():
        words = (module.__doc__ or "").split(": ", 1)[-1]
        of_scene = scenes.add_parser(name, description=words, help=words)
        of_scene.add_argument("--seed", default="", help="of what is random; a random one by default")
        of_scene.add_argument("--json", type=Path, help="where the figures are written")
        module.arguments(of_scene)
    given = parser.parse_args(arguments)
    given.seed = given.seed or secrets.token_hex(4)
    print(f"seed {given.seed}; again: make chaos SCENE={given.scene} SEED={given.seed}", flush=True)
    report = SCENES[given.scene].scene(given)
    print(report)
    if given.json:
        given.json.write_text(json.dumps({"seed": given.seed, **report.as_json()}, indent=2))
    return 1 if report.broken else 0
