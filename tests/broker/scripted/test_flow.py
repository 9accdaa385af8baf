"""Which packets answer which, whatever comes in which order: against a model, and the mistakes that it notices."""
# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kepm_plugin.broker import Link, Version
from kepm_plugin.broker._publish import DUP
from kepm_plugin.eventloop import bare_task_group
from kepm_plugin.message import Publication, Received
from tests.broker.conftest import Inbox
from tests.broker.scripted.test_packets import VERSIONS, publish

END = b"the end"
PUBACK, PUBREC, PUBREL, PUBCOMP = b"\x40\x02", b"\x50\x02", b"\x62\x02", b"\x70\x02"


class Broken(AssertionError):
    """The model says something else."""


@dataclass
class Flow:
    """One connection as it must be; `do` takes the next step of a program.

    A message has a number, which is its packet id; `state` says what its sender may expect: `open` is not acknowledged,
    `received` is a QoS 2 one whose PUBREC was sent, and one without a state is over.
    """

    version: Version
    link: Link
    peer: Any
    inbox: Inbox
    qos: dict[int, int] = field(default_factory=dict[int, int])
    state: dict[int, str] = field(default_factory=dict[int, str])
    delivered: list[bytes] = field(default_factory=list[bytes])
    answers: list[bytes] = field(default_factory=list[bytes])

    async def do(self, verb: str, which: int) -> None:
        """Send a message at QoS `which`, or do something with one of those that were sent; look what comes of it."""
        self.delivered, self.answers = [], []
        number = which % len(self.qos) + 1 if self.qos else 0
        if verb == "send":
            number = len(self.qos) + 1
            self.qos[number] = which
            self._send(number, dup=False)
        elif number and verb == "send again":
            self._send(number, dup=True)
        elif number and verb == "acknowledge":
            self._acknowledge(number)
        elif self.state.get(number) == "received":
            self.peer.send(PUBREL + number.to_bytes(2, "big"))
            self.answers.append(PUBCOMP + number.to_bytes(2, "big"))
            del self.state[number]
        await self._settle()

    def _send(self, number: int, *, dup: bool) -> None:
        qos, payload = self.qos[number], b"%d" % number
        self.peer.send(publish(self.version, b"a", payload, mid=number if qos else 0, qos=qos, dup=dup and qos > 0))
        if qos == 0 or number not in self.state:
            self.delivered.append(payload)
            if qos:
                self.state[number] = "open"
        elif self.state[number] == "received":
            self.answers.append(PUBREC + number.to_bytes(2, "big"))

    def _acknowledge(self, number: int) -> None:
        self.link.acknowledge([number, number, 999])
        if self.state.get(number) == "open":
            self.answers.append((PUBACK if self.qos[number] == 1 else PUBREC) + number.to_bytes(2, "big"))
            if self.qos[number] == 1:
                del self.state[number]
            else:
                self.state[number] = "received"

    async def _settle(self) -> None:
        """Look whether that, and nothing else, came in either direction."""
        self.inbox.batches.clear()
        self.peer.send(publish(self.version, b"end", END))
        while END not in self.inbox.payloads:
            await self.inbox.until(len(self.inbox.messages) + 1)
        self.link.publish(Publication("end", END, qos=0))
        answers: list[bytes] = []
        while not answers or not answers[-1].endswith(END):
            header, body = await self.peer.packet()
            answers.append(bytes([header, len(body)]) + body)
        if answers[:-1] != self.answers:
            raise Broken(f"{answers[:-1]} came, and {self.answers} was due")
        if self.inbox.payloads[:-1] != self.delivered:
            raise Broken(f"{self.inbox.payloads[:-1]} was delivered, and {self.delivered} was due")


Program = Sequence[tuple[str, int]]


async def play(scripted: Any, version: Version, program: Program) -> None:
    """Run a program on a connection of its own.

    Raises:
        Broken: The wrong packets came, or the wrong messages, or the connection was lost.
    """
    inbox = Inbox()
    async with scripted.session(version, inbox) as (link, peer), unless_lost(link):
        flow = Flow(version, link, peer, inbox)
        for verb, which in program:
            await flow.do(verb, which)


@asynccontextmanager
async def unless_lost(link: Link) -> AsyncGenerator[None]:
    """Raise `Broken` where the connection is lost inside."""

    async def watch() -> None:
        raise Broken(f"the connection was lost: {await link.lost()}")

    async with bare_task_group() as tasks:
        tasks.start_soon(watch, name="lost")
        yield
        tasks.cancel_scope.cancel()


VERBS = st.sampled_from(["send again", "acknowledge", "release"])
STEPS = st.tuples(st.just("send"), st.sampled_from([1, 2, 0])) | st.tuples(VERBS, st.integers(0, 4))


@VERSIONS
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=st.lists(STEPS, max_size=15))
async def test_each_packet_has_its_answer_and_each_message_comes_as_often_as_it_must(
    scripted: Any, version: Version, program: Program
) -> None:
    await play(scripted, version, program)


# --- mistakes ---------------------------------------------------------------------------------------------------------


def acknowledges_what_it_does_not_know(patch: pytest.MonkeyPatch) -> None:
    acknowledge = Link.acknowledge

    def whatever(self: Link, mids: Sequence[int]) -> None:
        for mid in mids:
            self._unacknowledged.setdefault(mid, 1)
        acknowledge(self, mids)

    patch.setattr(Link, "acknowledge", whatever)


def receives_before_it_is_safe(patch: pytest.MonkeyPatch) -> None:
    on_publish_2 = Link._on_publish_2

    def at_once(self: Link, mid: int) -> None:
        on_publish_2(self, mid)
        self.acknowledge([mid])

    patch.setattr(Link, "_on_publish_2", at_once)


def forgets_what_it_received(patch: pytest.MonkeyPatch) -> None:
    acknowledge = Link.acknowledge

    def and_forget(self: Link, mids: Sequence[int]) -> None:
        acknowledge(self, mids)
        self._released.clear()

    patch.setattr(Link, "acknowledge", and_forget)


def takes_each_copy(patch: pytest.MonkeyPatch) -> None:
    on_packet = Link._on_packet

    def anew(self: Link, header: int, *packet: Any) -> bool:
        return on_packet(self, header & ~DUP, *packet)

    patch.setattr(Link, "_on_packet", anew)


def drops_each_copy(patch: pytest.MonkeyPatch) -> None:
    on_packet = Link._on_packet

    def only_the_first(self: Link, header: int, *packet: Any) -> bool:
        return bool(header & DUP) or on_packet(self, header, *packet)

    patch.setattr(Link, "_on_packet", only_the_first)


def raises_on_a_message(patch: pytest.MonkeyPatch) -> None:
    def on_packet(self: Link, header: int, *packet: Any) -> bool:
        if header & 0xF0 == 0x30:
            raise ZeroDivisionError
        return False

    patch.setattr(Link, "_on_packet", on_packet)


MISTAKES: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Program]] = {
    "it acknowledges what it does not know": (acknowledges_what_it_does_not_know, [("send", 1), ("acknowledge", 0)]),
    "PUBREC before the message is safe": (receives_before_it_is_safe, [("send", 2)]),
    "PUBREC is not sent again": (forgets_what_it_received, [("send", 2), ("acknowledge", 0), ("send again", 0)]),
    "what is worked on comes twice": (takes_each_copy, [("send", 1), ("send again", 0)]),
    "what comes again never comes": (drops_each_copy, [("send", 1), ("acknowledge", 0), ("send again", 0)]),
    "taking a message raises": (raises_on_a_message, [("send", 1)]),
}


def _unheard(_: object, context: dict[str, Any]) -> None:
    """The loop tells what a mistake raises."""


@pytest.mark.parametrize("name", MISTAKES)
async def test_a_mistake_is_noticed(scripted: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    mutate, program = MISTAKES[name]
    await play(scripted, "3.1.1", program)
    mutate(monkeypatch)
    asyncio.get_running_loop().set_exception_handler(_unheard)
    with pytest.raises(Broken):
        await play(scripted, "3.1.1", program)


# --- between connections ----------------------------------------------------------------------------------------------


@VERSIONS
async def test_an_acknowledgement_reaches_no_other_connection(scripted: Any, version: Version) -> None:
    before, after = Inbox(), Inbox()
    async with scripted.session(version, before) as (old, old_peer), scripted.session(version, after) as (new, peer):
        old_peer.send(publish(version, b"a", b"old", mid=1))
        peer.send(publish(version, b"a", b"new", mid=2))
        await before.until(1)
        await after.until(1)
        new.acknowledge([1])
        old.close("the link was cut")
        old.acknowledge([1, 2])
        new.acknowledge([2])
        await peer.expect(PUBACK + b"\0\2")


@VERSIONS
async def test_what_could_not_be_handed_over_is_a_loss_and_not_acknowledged(scripted: Any, version: Version) -> None:
    """So a kept session brings it again, and nobody waits for what never comes."""
    caught: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: caught.append(context.get("exception")))

    class Refusing(Inbox):
        def deliver(self, batch: Sequence[Received]) -> None:
            raise ZeroDivisionError

    async with scripted.session(version, Refusing()) as (link, peer):
        peer.send(publish(version, b"a", b"1", mid=1))
        with anyio.fail_after(5):
            assert await link.lost() == "what the broker sent could not be handed over"
        assert PUBACK not in await peer.rest()
    assert [type(each) for each in caught] == [ZeroDivisionError]
