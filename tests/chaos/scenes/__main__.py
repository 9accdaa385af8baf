"""`python -m tests.chaos.scenes`: one scene after the other, each with a table of its own."""

import argparse
import json
import secrets
import sys
import tempfile
from collections.abc import Sequence
from os import environ
from pathlib import Path

from tests.chaos.scenes import burst, engine, faults, flood, stuck

SCENES = {"faults": faults, "engine": engine, "burst": burst, "flood": flood, "stuck": stuck}


def main(arguments: Sequence[str] | None = None) -> int:
    """Play a scene; return 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    scenes = parser.add_subparsers(dest="scene", required=True)
    for name, module in SCENES.items():
        doc = module.__doc__ or ""
        of_scene = scenes.add_parser(name, description=doc, help=doc.split(": ", 1)[-1])
        of_scene.add_argument("--seed", default="", help="of what is random; a random one by default")
        of_scene.add_argument("--json", type=Path, help="where the figures are written")
        module.arguments(of_scene)
    given = parser.parse_args(arguments)
    given.seed = given.seed or secrets.token_hex(4)
    print(f"seed {given.seed}", flush=True)
    report = SCENES[given.scene].scene(given)
    print(report)
    if given.json:
        given.json.write_text(json.dumps({"seed": given.seed, **report.as_json()}, indent=2))
    return 1 if report.broken else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="kepm-agents-") as name:
        environ["KEPM_DEV_AGENTS"] = name  # The agents of the harness are not on the developer's list.
        sys.exit(main())
