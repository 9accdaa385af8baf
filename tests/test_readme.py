"""The README: what it shows is run, in its order, and what it names exists."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).parent.parent
README: Final = (REPOSITORY / "README.md").read_text(encoding="utf-8")

RUN_ELSEWHERE: Final = {
    "make demo": "tests/test_demo.py",
    "make test": ".ci/run",
}
"""Commands that are not run here, and what runs them."""

FILES: Final = ("greeter.py", "test_greeter.py")
"""What the README says that its Python blocks are to be saved as, in their order."""


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    text: str


def blocks(language: str = "") -> list[Block]:
    """Return the blocks in a language, or all of them."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [Block(kind, text) for kind, text in found if language in ("", kind)]


def answer(text: str) -> dict[str, object]:
    """Return a response without what differs from one to the next."""
    value: dict[str, object] = json.loads(text)
    assert value.pop("correlationId")
    return value


class Terminals:
    """Two terminals in one folder: a local agent runs in the first, everything else in the second."""

    def __init__(self, folder: Path, home: Path) -> None:
        self._folder = folder
        self._environment = os.environ | {
            "PATH": f"{Path(sys.prefix, 'bin')}:{os.environ['PATH']}",
            "XDG_RUNTIME_DIR": str(home),  # where `send` looks for the agent
        }
        self._agent: subprocess.Popen[str] | None = None

    def run(self, command: str) -> str:
        """Run a line as it stands, and return what it printed."""
        if command.startswith("kepm-plugin dev"):
            return self._start(command)
        done = subprocess.run(
            ["sh", "-c", command], cwd=self._folder, env=self._environment, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _start(self, command: str) -> str:
        self.end()
        agent = subprocess.Popen(
            ["sh", "-c", f"exec {command}"], cwd=self._folder, env=self._environment, stdout=subprocess.PIPE, text=True
        )
        self._agent = agent
        assert agent.stdout is not None
        assert any("ready:" in line for line in agent.stdout), command
        return ""

    def end(self) -> None:
        """End the agent as Ctrl-C does."""
        if self._agent is not None:
            self._agent.send_signal(signal.SIGINT)
            self._agent.communicate(timeout=30)
            assert self._agent.returncode == 0
            self._agent = None


@contextmanager
def terminals(folder: Path, home: Path) -> Generator[Terminals]:
    """Open both, and end the agent at the end."""
    both = Terminals(folder, home)
    try:
        yield both
    finally:
        both.end()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clone as the README's reader has it, with the files saved."""
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "plugins").symlink_to(REPOSITORY / "plugins")
    (folder / ".venv").symlink_to(sys.prefix)
    for name, block in zip(FILES, blocks("python"), strict=True):
        (folder / name).write_text(block.text, encoding="utf-8")
    return folder


@pytest.mark.timeout(180)  # a bundle is built
def test_every_command_does_what_is_said_in_the_order_of_the_page(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shown = ""
    with terminals(folder, tmp_path_factory.mktemp("home")) as both:
        for block in blocks():
            if block.language == "sh":
                for command in block.text.splitlines():
                    shown = both.run(command) if command not in RUN_ELSEWHERE else ""
            elif block.language == "json":
                assert answer(shown) == answer(block.text)
    assert (folder / "Plugins" / "Greeter.json").is_file()
    assert (folder / "dist" / "agent-root" / "Plugins" / "bin" / "MyWorker" / "MyWorker").is_file()


def test_what_runs_elsewhere_does() -> None:
    commands = [command for block in blocks("sh") for command in block.text.splitlines()]
    for command, place in RUN_ELSEWHERE.items():
        assert command in commands
        assert command.split()[-1] in (REPOSITORY / place).read_text(encoding="utf-8")


def test_every_block_says_what_it_is_and_is_known_here() -> None:
    assert {block.language for block in blocks()} == {"python", "sh", "json"}
    assert README.count("```") == 2 * len(blocks())
    for name in FILES:
        assert f"`{name}`" in README


def test_the_first_plugin_has_ten_lines() -> None:
    lines = [line for line in blocks("python")[0].text.splitlines() if line.strip()]
    assert len(lines) == 10


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:)([^)]+)\)", README))
def test_every_link_leads_to_a_file(link: str) -> None:
    assert (REPOSITORY / link).exists()


def test_it_is_plain_ascii() -> None:
    """It is read in terminals, too."""
    assert README.isascii()
