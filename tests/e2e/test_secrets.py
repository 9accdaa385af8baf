"""A secret setting's value is nowhere in what the processes wrote, however careless the author."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

import pytest

from tests.e2e.agent_process import AgentProcess, agent_process
from tests.e2e.conftest import make_site
from tests.e2e.secret_plugin import Careless

FIRST: Final = "Tok3n-0ne \"with\" 'quotes' & ünï/50%+\\end"
SECOND: Final = "Tok3n-Tw0 after the change?"
REFUSED: Final = "refused-Tok3n-Thr33"
KEYS: Final = ["k3y-numb3r-0ne", "k3y/numb3r two"]
LINES: Final = ["b3gin-private", "m1ddle-of-the-key", "th3-end-of-it"]
SECRETS: Final = [FIRST, SECOND, REFUSED, *KEYS, *LINES]


def spellings(secret: str) -> set[bytes]:
    """Return how a secret may read; a second opinion on what `records` masks."""
    data = secret.encode()
    ways = {secret, repr(secret)[1:-1], repr(data)[2:-1], json.dumps(secret)[1:-1], quote(secret), quote_plus(secret)}
    ways |= {json.dumps(secret, ensure_ascii=False)[1:-1], quote(secret, safe=""), repr(repr(secret))[2:-2]}
    for before in (b"ada:", b"a:", b"", b"12345"):
        text = base64.b64encode(before + data).decode()
        core = text[-(-len(before) * 8 // 6) :].rstrip("=")[:-1]
        ways |= {core, core.replace("+", "-").replace("/", "_")}
    return {way.encode() for way in ways}


@dataclass(frozen=True)
class Written:
    """Everything that the processes wrote, by where."""

    places: dict[str, bytes]

    def holding(self, secret: str) -> list[str]:
        """Return where a secret can be read."""
        ways = spellings(secret)
        return sorted(name for name, content in self.places.items() if any(way in content for way in ways))


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()


def letters(work: Path, *arguments: str) -> bytes:
    """Return what `deadletters` prints."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "kepm_plugin",
            "deadletters",
            *arguments,
            "--id",
            "Careless",
            "--data-dir",
            work / "data",
        ],
        capture_output=True,
        timeout=60,
        check=True,
    )
    return done.stdout + done.stderr


def play(agent: AgentProcess) -> None:
    """Have every secret known, slip everywhere, change, be refused, and be there in a crash."""
    control = agent.control

    def change(key: str, value: object, shown: str = r"RuntimeError: cannot use") -> None:
        mark = agent.mark()
        control.set_setting("Careless", key, value if isinstance(value, str) else json.dumps(value))
        agent.until(shown, after=mark)

    control.send("Careless", "log")  # it is there
    change("keys", KEYS)
    change("private", "\n".join(LINES))
    change("token", FIRST)
    for token in (FIRST, SECOND):
        if token != FIRST:
            change("token", token)
        assert control.send("Careless", "raise")["error"] == "internal error"
        assert "denied to ***" in control.send("Careless", "reject")["error"]
        assert control.send("Careless", "log")["result"] > len(KEYS)
        assert control.send("Careless", "thread")["ok"]
    assert control.send("Careless", "publish")["ok"]
    change("token", REFUSED, r"settings\.refused.*of no use")
    change("token", SECOND, r"state\.changed.*running")
    mark = agent.mark()
    control.set_setting("Careless", "crash", "true")
    agent.until(r"settings\.changed.*crash", after=mark)
    control.restart("Careless")
    agent.until(r"RuntimeError: no start with", after=mark)
    control.stop("Careless")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """What was written in one run, by the agent and the plugin."""
    folder = tmp_path_factory.mktemp("secrets")
    site = make_site(folder, kind=Careless, file="secret_plugin.py")
    record = folder / "record"
    with agent_process(
        site.root, "--broker", "nats", "--record", str(record), module="tests.e2e.recording_agent"
    ) as agent:
        play(agent)
        stored = (site.root / ".dev" / "storage.json").read_bytes()
    places = {"output": "\n".join(agent.lines("")).encode(), "storage": stored}
    for line in record.read_text("utf-8").splitlines():
        crossing = json.loads(line)
        topic = str(crossing["topic"])
        content = bytes.fromhex(crossing["payload"]) + f"\n{topic} {crossing['note']}\n".encode()
        places[f"mqtt {topic}"] = places.get(f"mqtt {topic}", b"") + content
    for base, where in ((site.root, "root"), (site.work, "work")):
        places |= {f"{where}/{name}": content for name, content in files(base) if name != ".dev/storage.json"}
    listed = letters(site.work, "list", "--json")
    places["deadletters list"] = listed
    number = str(json.loads(listed)[0]["id"])
    places["deadletters show"] = letters(site.work, "show", number) + letters(site.work, "show", number, "--raw")
    return Written(places)


@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
def test_no_secret_is_anywhere_but_where_it_is_stored_or_was_published(written: Written, secret: str) -> None:
    allowed = {"storage"} if secret != KEYS[0] else {"storage", "mqtt Careless/Deliberate"}
    deliberate = {name for name in written.places if secret == KEYS[0] and name.startswith("work/data/")}
    assert set(written.holding(secret)) - deliberate <= allowed


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("output", b"RuntimeError: thread with ['***', '***', '***'"),
        ("output", b"RuntimeError: no start with ['***', '***', '***'"),
        ("output", b"the token *** is of no use"),
        ("root/Log/KeeperLogger.log", b"cannot log in: ***"),
        ("root/Log/KeeperLogger.log", b"cannot use ['***', '***'"),
        ("root/Log/KeeperLogger.log", b"Basic YWRhO"),
        ("root/Log/KeeperLogger.log", b"spelt *** "),
        ("mqtt Careless/Status", b"the token *** is of no use"),
        ("mqtt Careless/Responses/reject", b"denied to ***"),
        ("deadletters show", b"cannot log in: ***"),
        ("mqtt Careless/Deliberate", KEYS[0].encode()),
    ],
)
def test_it_did_slip_there_and_was_masked(written: Written, place: str, text: bytes) -> None:
    """So that the search above looks at something."""
    assert text in written.places[place]


def test_the_search_finds_what_is_there(written: Written) -> None:
    assert "storage" in written.holding(SECOND)
    for way in spellings(FIRST):
        assert Written({"here": b"before" + way + b"after"}).holding(FIRST) == ["here"]
