"""In place of PyInstaller, in a moment: the program is a script that needs this Python.

`--fake` says what is to go wrong.
"""

import argparse
import sys
from pathlib import Path

PROGRAM = """\
#!{python}
import runpy, sys
sys.path[:0] = {paths}
runpy.run_path(__file__.rpartition("/")[0] + "/_internal/entry.py", run_name="__main__")
"""


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--distpath", type=Path, required=True)
    parser.add_argument("--paths", action="append", default=[])
    parser.add_argument("--fake")
    given, _ = parser.parse_known_args()
    if given.fake == "failure":
        print("1 INFO: at work\nsomething: the reason\n", file=sys.stderr)
    if given.fake in ("failure", "silence"):
        sys.exit(3)
    if given.fake == "one-file":
        given.distpath.mkdir()
        (given.distpath / given.name).touch()
        return
    bundle: Path = given.distpath / given.name
    (bundle / "_internal" / "lib").mkdir(parents=True)
    program = bundle / given.name
    entry = Path(sys.argv[-1]).read_text("utf-8")
    (bundle / "_internal" / "entry.py").write_text(entry, "utf-8")
    paths = "[]" if given.fake == "missing-module" else repr(given.paths)
    program.write_text(PROGRAM.format(python=sys.executable, paths=paths), "utf-8")
    program.chmod(0o700)
    if given.fake == "no-program":
        program.unlink()
    (bundle / "_internal" / "lib" / "one.so").touch()
    if given.fake == "wide-modes":
        for path in bundle.rglob("*"):
            path.chmod(0o6777 if path.suffix == ".so" or path == program else 0o777 if path.is_dir() else 0o666)
        (bundle / "_internal" / "two.so").symlink_to("lib/one.so")


main()
