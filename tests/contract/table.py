"""The combinations as docs/contract.md has them: a table, and below it what was said, each text once."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kepm_plugin.contract import ASSUMED
from kepm_plugin.contractfile import read_contract
from tests.contract.combinations import COMBINATIONS, WRITES, Combination
from tests.contract.probe import agent_for_probes, tried
from tests.devagent.conftest import Stage

HEADS: Final = ("agent", "`--like`", "contract file", "without the file", "with the file")

VARYING: Final = (
    (r"https://127\.0\.0\.1:\d+/api/PluginSettings", "…"),
    (r"…/P/\w+", "…/P/KEY"),
    (r": (?:text|a number|true or false)\}", ": …}"),
    (r"^P +(log record dropped)", r"\1"),
    (r"it has no [\w, ]+;", "it has no NAME;"),
    (r"its \w+ is '\w+', none of [\w, ]+;", "its NAME is 'LEVEL', none of LEVELS;"),
    (r"\|", r"\|"),
)
"""What differs from agent to agent, or from run to run, and what the page has in its place."""


@dataclass(frozen=True)
class Row:
    """What came of one combination: the steps that failed, by what was said."""

    agent: str
    like: str
    file: str
    without: Mapping[str, str]
    with_it: Mapping[str, str]


async def row(stage: Stage, one: Combination, folder: Path) -> tuple[Row, Mapping[str, str], Mapping[str, str]]:
    """Try a combination without its file and with it; return the row, and what came of each step."""
    file = folder / "kepm-contract.toml"
    file.write_text(one.contract, "utf-8")
    without, with_it = await tried(stage, one, ASSUMED), await tried(stage, one, read_contract(file))
    like = ", ".join(f"`{text}`" for text in one.like) or "\N{EN DASH}"
    lines = "<br>".join(f"`{line}`" for line in one.contract.splitlines()) or "\N{EN DASH}"
    return Row(one.name, like, lines, _failures(without), _failures(with_it)), without, with_it


def _failures(outcomes: Mapping[str, str]) -> dict[str, str]:
    """Return steps, as one text where the same was said of several, by what was said."""
    steps: dict[str, list[str]] = {}
    for step, said in outcomes.items():
        for pattern, common in VARYING:
            said = re.sub(pattern, common, said)
        if said:
            steps.setdefault(said, []).append(step)
    return {said: _named(names) for said, names in steps.items()}


def _named(steps: Sequence[str]) -> str:
    if tuple(steps) == WRITES:
        return "write anything"
    return "write anything but text" if tuple(steps) == WRITES[1:] else ", ".join(steps)


async def rows(folder: Path) -> list[Row]:
    """Try every combination."""
    made: dict[str, Row] = {}
    for broker in ("mosquitto", "nats"):
        (folder / broker).mkdir()
        async with agent_for_probes(folder / broker, broker) as stage:
            for one in COMBINATIONS:
                if one.broker == broker:
                    made[one.name] = (await row(stage, one, folder))[0]
    return [made[one.name] for one in COMBINATIONS]


def page(made: Sequence[Row]) -> str:
    """Return the table, and the texts that it refers to."""
    texts = list(dict.fromkeys(said for one in made for outcomes in (one.without, one.with_it) for said in outcomes))
    lines = [f"| {' | '.join(HEADS)} |", f"|{'---|' * len(HEADS)}"]
    for one in made:
        told = (
            "; ".join(f"{steps}: [{texts.index(said) + 1}]" for said, steps in outcomes.items()) or "works"
            for outcomes in (one.without, one.with_it)
        )
        lines.append(f"| {' | '.join([one.agent, one.like, one.file, *told])} |")
    return "\n".join([*lines, "", *(f"{number}. {text}" for number, text in enumerate(texts, 1))]) + "\n"


def read_page(text: str) -> dict[str, Row]:
    """Return the rows of the page, by agent: the inverse of `page`."""
    texts = dict(re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE))
    found: dict[str, Row] = {}
    for line in re.findall(r"^\| (.*) \|$", text, re.MULTILINE):
        cells = line.split(" | ")
        if len(cells) == len(HEADS) and tuple(cells) != HEADS:
            agent, like, file, *told = cells
            without, with_it = (
                {texts[number]: steps for steps, number in re.findall(r"([^;]+?): \[(\d+)\](?:; )?", cell)}
                for cell in told
            )
            found[agent] = Row(agent, like, file, without, with_it)
    return found
