"""What comes twice is handled once, where it says itself that it is the same; content never says so."""

import json
from typing import Any

import anyio
import pytest
import trio.testing

from kepm_plugin import Handler, Message, Plugin, Rejected, Retry
from kepm_plugin.dispatch._window import ANSWER_BYTES, ENTRIES, WINDOW, Seen, Window, key
from kepm_plugin.message import Received
from kepm_plugin.store import Store
from tests.engine.bench import JSON, Bench, Gates, commanding, failing, fresh

COMMAND = "P/Commands/scan"


def counting(**options: Any) -> tuple[type[Plugin], list[object]]:
    seen = list[object]()

    def handle(message: Message[JSON]) -> object:
        seen.append(message.payload)
        return len(seen)

    return commanding(handle, **options), seen


@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize(
    ("payload", "fields"),
    [({"correlationId": "7"}, {}), ({"correlationId": 7}, {}), ({}, {"correlation_data": b"\xff7"})],
)
async def test_a_command_with_the_same_identity_is_handled_once_and_answered_each_time(
    store: Store, payload: JSON, fields: dict[str, Any], *, journal: bool
) -> None:
    kind, seen = counting()
    kind.journal = journal
    bench = Bench(kind, store)
    async with bench.serving():
        mids = [bench.send(COMMAND, payload, **fields), bench.send(COMMAND, payload, **fields)]
        first, second = await bench.answer(), await bench.answer(1)
        await anyio.wait_all_tasks_blocked()
    assert first == second
    assert len(seen) == 1
    assert bench.acknowledged == mids
    counters = bench.dispatcher.counters
    assert (counters.handled, counters.duplicates, store.unfinished_count()) == (1, 1, 0)


async def test_binary_identities_that_are_no_text_are_told_apart(store: Store) -> None:
    kind, seen = counting()
    bench = Bench(kind, store)
    async with bench.serving():
        for number in range(128, 256):
            bench.send(COMMAND, {}, correlation_data=bytes((0, 0, 0, number)))
        await bench.answer(127)
    assert len(seen) == 128


@pytest.mark.parametrize("when", ["while it is handled", "afterwards"])
@pytest.mark.parametrize("fails", [False, True])
async def test_another_caller_of_the_same_is_answered_too_by_its_own_identity(
    store: Store, when: str, *, fails: bool
) -> None:
    kind, gates = fresh(), Gates()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        dedupe = "scan"
        concurrency = 2

        async def handle(self, message: Message[JSON]) -> str:
            await gates.pass_through("scan")
            if fails:
                raise Rejected("no")
            return "done"

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send(COMMAND, {"scan": 1, "correlationId": "a"})
        await anyio.wait_all_tasks_blocked()
        if when == "while it is handled":
            bench.send(COMMAND, {"scan": 1, "correlationId": "b"})
            await anyio.wait_all_tasks_blocked()
            assert bench.answers == []
        await gates.open("scan")
        if when == "afterwards":
            bench.send(COMMAND, {"scan": 1, "correlationId": "b"})
        answers = [await bench.answer(number) for number in range(2)]
        await anyio.wait_all_tasks_blocked()
    assert [each["correlationId"] for each in answers] == ["a", "b"]
    assert [each["ok"] for each in answers] == [not fails] * 2
    assert (gates.ended, store.unfinished_count()) == (["scan"], 0)


async def test_one_that_waits_for_the_same_hears_of_its_failure(store: Store) -> None:
    kind, gates = fresh(), Gates()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        concurrency = 2

        async def handle(self, message: Message[JSON]) -> str:
            await gates.pass_through("scan")
            raise ValueError("a bug")

    bench = Bench(kind, store)
    async with bench.serving():
        for data in (b"a", b"b"):
            bench.send(COMMAND, {"correlationId": "7"}, correlation_data=data)
        await anyio.wait_all_tasks_blocked()
        await gates.open("scan")
        assert [(await bench.answer(number))["error"] for number in range(2)] == ["internal error"] * 2
    assert sorted(each.correlation_data or b"" for each in bench.answers) == [b"a", b"b"]


async def test_equal_commands_without_identity_are_two_commands(store: Store) -> None:
    kind, seen = counting()
    bench = Bench(kind, store)
    async with bench.serving():
        bench.receive(*(bench.message(COMMAND, {"depth": 3}) for _ in range(1000)))
        await bench.answer(999)
    assert len(seen) == bench.dispatcher.counters.handled == 1000
    assert bench.dispatcher.counters.duplicates == 0


@pytest.mark.parametrize(
    ("topic", "payload"), [(COMMAND, {"correlationId": "7", "depth": 2}), ("P/Commands/stop", {"correlationId": "7"})]
)
async def test_an_identity_that_is_used_again_for_something_else_is_no_duplicate(
    store: Store, topic: str, payload: JSON
) -> None:
    kind, seen = counting()

    @kind.command("stop")
    class Stop(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> None:
            seen.append("stop")

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send(COMMAND, {"correlationId": "7"})
        bench.send(topic, payload)
        await bench.answer(1)
    assert len(seen) == 2


async def test_what_is_still_being_handled_is_answered_once_by_its_handler(store: Store) -> None:
    kind, gates = fresh(), Gates()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        concurrency = 2

        async def handle(self, message: Message[JSON]) -> None:
            await gates.pass_through("scan")

    bench = Bench(kind, store)
    async with bench.serving():
        for _ in range(2):
            bench.send(COMMAND, {"correlationId": "7"})
        await anyio.wait_all_tasks_blocked()
        assert gates.running == ["scan"]
        await gates.open("scan")
        await anyio.wait_all_tasks_blocked()
    assert len(bench.answers) == 1
    assert bench.dispatcher.counters.duplicates == 1


@pytest.mark.parametrize(("journal", "qos"), [(False, 1), (True, 0)], ids=["no-journal", "qos-0"])
async def test_what_repeats_one_that_is_in_memory_alone_is_kept_until_that_one_has_ended(
    store: Store, *, journal: bool, qos: int
) -> None:
    """Were the process killed in between, both would be lost, and one of them was acknowledged."""
    kind, gates = fresh(journal=journal), Gates()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        concurrency = 2

        async def handle(self, message: Message[JSON]) -> None:
            await gates.pass_through("scan")

    bench = Bench(kind, store)
    async with bench.serving():
        mids = [bench.send(COMMAND, {"correlationId": "7"}, qos=each) for each in (qos, 1)]
        await anyio.wait_all_tasks_blocked()
        assert bench.dispatcher.counters.duplicates == 0
        assert (bench.acknowledged, store.unfinished_count()) == ((mids[1:], 1) if journal else ([], 0))
        await gates.open("scan")
        await bench.until(lambda: bench.dispatcher.counters.duplicates)
        await anyio.wait_all_tasks_blocked()
    assert (bench.acknowledged, store.unfinished_count()) == (mids[1:] if journal else mids, 0)


async def test_what_is_put_off_and_sent_again_over_a_new_session_repeats_nothing(store: Store) -> None:
    outcomes: list[Exception | str] = [Retry(after=60), "done"]

    def handle(message: Message[JSON]) -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    kind = commanding(handle)
    kind.journal = False
    bench = Bench(kind, store)
    async with bench.serving():
        bench.send(COMMAND, {"correlationId": "7"})
        await anyio.wait_all_tasks_blocked()
        bench.dispatcher.new_session(True)
        mid = bench.send(COMMAND, {"correlationId": "7"})
        assert (await bench.answer())["result"] == "done"
        await bench.until(lambda: bench.acknowledged == [mid])


async def test_what_failed_is_handled_when_it_is_sent_again(store: Store) -> None:
    outcomes: list[Exception | str] = [ValueError("a bug"), Rejected("no")]

    def handle(message: Message[JSON]) -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    bench = Bench(commanding(handle), store)
    async with bench.serving():
        for _ in range(3):
            bench.send(COMMAND, {"correlationId": "7"})
        errors = [(await bench.answer(n))["error"] for n in range(3)]
    assert errors == ["internal error", "no", "no"], "a no is an answer, a failure is none"


async def test_a_field_of_the_payload_may_say_it(store: Store) -> None:
    kind, seen = fresh(), list[bytes]()

    @kind.topic("Events/{host}")
    class Event(Handler[Plugin]):
        dedupe = "eventId"

        async def handle(self, message: Message[bytes]) -> None:
            seen.append(message.payload)

    bench = Bench(kind, store)
    async with bench.serving():
        for payload in (
            b'{"eventId": 1}',
            b'{"eventId": 1}',
            b'{"eventId": "1"}',
            b'{"a": 1}',
            b'{"a": 1}',
            b"x",
        ):
            bench.send("P/Events/a", payload)
        bench.send("P/Events/b", b'{"eventId": 1, "sent again": true}')
        await bench.until(lambda: len(bench.acknowledged) == 7)
        await anyio.wait_all_tasks_blocked()
    assert seen == [b'{"eventId": 1}', b'{"eventId": "1"}', b'{"a": 1}', b'{"a": 1}', b"x"]
    assert bench.dispatcher.counters.duplicates == 2


async def test_the_field_goes_before_the_correlation_id(store: Store) -> None:
    kind, seen = counting(dedupe="scan")
    bench = Bench(kind, store)
    async with bench.serving():
        for payload in ({"scan": 1, "correlationId": "a"}, {"correlationId": "a"}, {"correlationId": "a"}):
            bench.send(COMMAND, payload)
        await bench.answer(2)
    assert len(seen) == 3


async def test_a_deferred_command_that_repeats_is_answered_when_there_is_an_answer(store: Store) -> None:
    tickets = list[str]()
    bench = Bench(commanding(lambda message: tickets.append(message.defer())), store)
    async with bench.serving():
        for _ in range(2):
            bench.send(COMMAND, {"correlationId": "7"})
        await anyio.wait_all_tasks_blocked()
        assert (len(tickets), bench.answers) == (1, [])
        bench.dispatcher.answer(tickets[0], "done")
        bench.send(COMMAND, {"correlationId": "7"})
        assert await bench.answer(1) == await bench.answer(0)
    assert bench.dispatcher.counters.duplicates == 2


async def test_what_repeats_a_ticket_that_is_answered_before_it_could_be_written_ends_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._dispatcher.RETRY", 0.001)
    tickets = list[str]()
    kind = commanding(lambda message: tickets.append(message.defer()))
    kind.journal = False
    bench = Bench(kind, store)
    async with bench.serving():
        with monkeypatch.context() as patch:
            failing(store, patch, "defer")
            mids = [bench.send(COMMAND, {"correlationId": "7"})]
            await bench.until(lambda: bench.troubles)
            bench.dispatcher.answer(tickets[0], "later")
            mids.append(bench.send(COMMAND, {"correlationId": "7"}))
            await anyio.wait_all_tasks_blocked()
        await bench.until(lambda: len(bench.acknowledged) == 2)
    assert (bench.acknowledged, store.unfinished_count()) == (mids, 0)
    assert [json.loads(each.payload)["result"] for each in bench.answers] == ["later"]


async def test_what_repeats_a_deferred_command_waits_for_the_disk_and_not_for_the_answer(store: Store) -> None:
    kind, gates = fresh(journal=False), Gates()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        concurrency = 2

        async def handle(self, message: Message[JSON]) -> None:
            message.defer()
            await gates.pass_through("scan")

    bench = Bench(kind, store)
    async with bench.serving():
        mids = [bench.send(COMMAND, {"correlationId": "7"}) for _ in range(2)]
        await anyio.wait_all_tasks_blocked()
        assert bench.acknowledged == []
        await gates.open("scan")
        await bench.until(lambda: len(bench.acknowledged) == 2)
    assert (bench.acknowledged, store.unfinished_count()) == (mids, 1)


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_an_identity_is_forgotten_after_a_while(store: Store, clock: trio.testing.MockClock) -> None:
    kind, seen = counting()
    bench = Bench(kind, store)
    async with bench.serving():
        for jump in (0, WINDOW - 1, 2):
            clock.jump(jump)
            bench.send(COMMAND, {"correlationId": "7"})
            await anyio.wait_all_tasks_blocked()
    assert len(seen) == 2


# --- the window -------------------------------------------------------------------------------------------------------


def entered(window: Window, identity: str) -> tuple[Seen, bool]:
    return window.enter(key("f", identity.encode()), Received("t", identity.encode()), 0, equal=True)


def test_the_window_is_bounded_and_the_oldest_goes_first() -> None:
    window = Window(lambda: 0.0)
    for number in range(ENTRIES + 1):
        assert not entered(window, str(number))[1]
    assert window.find(key("f", b"0")) is None
    assert entered(window, str(ENTRIES))[1]


def test_the_answers_that_it_remembers_are_bounded_too() -> None:
    window = Window(lambda: 0.0)
    for number in range(3):
        seen, _ = entered(window, str(number))
        window.answered(seen, bytes(ANSWER_BYTES // 2 + 1))
        window.answered(seen, b"the first answer stays")
    entered(window, "more")
    assert [window.find(key("f", str(number).encode())) is None for number in range(3)] == [True, True, False]


def test_one_whose_end_others_wait_for_is_not_forgotten() -> None:
    now = 0.0
    window = Window(lambda: now)
    seen, _ = entered(window, "1")
    seen.behind.append((True, lambda: None))
    now = 2 * WINDOW
    assert entered(window, "1") == (seen, True)
    seen.end()
    assert not entered(window, "1")[1]


def test_an_identity_takes_little_room_however_long_it_is() -> None:
    assert key("f", b"x" * 10_000) == key("f", b"x" * 10_000) != key("f", b"x" * 9_999)
    assert len(key("f", b"x" * 10_000)[1]) == 32


def test_what_is_forgotten_stays_forgotten() -> None:
    window = Window(lambda: 0.0)
    seen, _ = entered(window, "1")
    window.forget(seen)
    window.forget(seen)
    window.forget(None)
    window.answered(seen, b"late")
    window.answered(None, b"nobody")
    assert window.find(key("f", b"1")) is None
    assert not entered(window, "1")[1]
