"""Commands that are answered later than their handler ends, and what is reported before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from kepm_plugin import Handler, Message, Plugin, Rejected, Retry
from kepm_plugin.errors import BadPayload, PluginDefinitionError, UnknownTicket
from kepm_plugin.message import Received
from kepm_plugin.store import Limits, Store, memory_store, open_store
from kepm_plugin.testing import hosted
from tests.engine.bench import AT, JSON, Bench, Gates, commanding, failing, fresh, on_asyncio, raising


def deferring(tickets: list[str], then: Callable[[], object] = lambda: None) -> type[Plugin]:
    def handle(message: Message[JSON]) -> object:
        tickets.append(message.defer())
        return then()

    return commanding(handle)


@pytest.fixture(params=[(True, 1), (True, 0), (False, 1)], ids=["journalled", "at QoS 0", "no journal"])
def way(request: pytest.FixtureRequest) -> tuple[bool, int]:
    """Whether there is a journal, and the QoS of what comes."""
    journal, qos = request.param
    return bool(journal), int(qos)


async def test_a_deferred_command_is_answered_once_by_its_ticket(store: Store, way: tuple[bool, int]) -> None:
    kind, tickets = deferring(found := list[str]()), found
    kind.journal, qos = way
    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan", {"correlationId": 7}, qos=qos)
        await anyio.wait_all_tasks_blocked()
        assert (bench.answers, store.unfinished_count()) == ([], 1)
        assert len(bench.acknowledged) == (1 if qos else 0)
        bench.dispatcher.answer(tickets[0], {"files": 3})
        assert await bench.answer() == {"correlationId": 7, "ok": True, "result": {"files": 3}}
        for ticket in (tickets[0], "7-00000000", ""):
            with pytest.raises(UnknownTicket, match="nobody waits for the ticket"):
                bench.dispatcher.answer(ticket, "again")
    assert (len(bench.answers), store.unfinished_count()) == (1, 0)
    assert bench.dispatcher.counters.handled == 1


async def test_a_ticket_outlives_the_run_and_the_message_is_not_handled_again(tmp_path: Path) -> None:
    tickets = list[str]()
    with open_store(tmp_path) as store:
        bench = Bench(deferring(tickets), store)
        async with bench.serving():
            bench.send("P/Commands/scan", {"correlationId": "7"}, response_topic="P/Responses/scan/mine")
            await anyio.wait_all_tasks_blocked()
    with open_store(tmp_path) as store:
        bench = Bench(deferring(tickets), store)
        assert bench.dispatcher.replay() == 0
        async with bench.serving():
            await anyio.wait_all_tasks_blocked()
            bench.dispatcher.answer(tickets[0], Rejected("too late"))
            assert await bench.answer() == {"correlationId": "7", "ok": False, "error": "too late"}
        assert len(store.kept()) == 1, "until the broker has it"
    assert len(tickets) == 1


async def test_a_message_that_is_delivered_again_has_the_same_ticket(tmp_path: Path) -> None:
    tickets = list[str]()
    for _ in range(2):  # The first run is cut off in the handler.
        with open_store(tmp_path) as store:
            kind = fresh()

            @kind.command("scan")
            class Scan(Handler[Plugin]):
                async def handle(self, message: Message[JSON]) -> None:
                    tickets.append(message.defer())
                    tickets.append(message.defer())
                    await anyio.sleep_forever()

            bench = Bench(kind, store)
            if bench.dispatcher.replay() == 0:
                bench.send("P/Commands/scan")
            async with anyio.create_task_group() as tasks:
                await tasks.start(bench.dispatcher.serve)
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
    assert len(tickets) == 4
    assert len(set(tickets)) == 1


async def test_a_ticket_may_be_answered_before_the_handler_has_ended(store: Store, way: tuple[bool, int]) -> None:
    kind, gates, tickets = fresh(), Gates(), list[str]()
    kind.journal, qos = way

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> None:
            tickets.append(message.defer())
            await gates.pass_through("scan")

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan", {"correlationId": "7"}, qos=qos)
        await anyio.wait_all_tasks_blocked()
        bench.dispatcher.answer(tickets[0], "early")
        assert (await bench.answer())["result"] == "early"
        with pytest.raises(UnknownTicket):
            bench.dispatcher.answer(tickets[0], "again")
        await gates.open("scan")
        with pytest.raises(UnknownTicket):
            bench.dispatcher.answer(tickets[0], "again")
    assert (len(bench.answers), store.unfinished_count()) == (1, 0)


async def test_an_answer_that_comes_before_the_handler_has_ended_is_kept(store: Store) -> None:
    """The end of the message holds none any more, and the process may be killed before the broker has it."""
    kind, gates, tickets = fresh(), Gates(), list[str]()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> None:
            tickets.append(message.defer())
            await gates.pass_through("scan")

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan", {"correlationId": "7"})
        await anyio.wait_all_tasks_blocked()
        bench.dispatcher.answer(tickets[0], "early")
        assert [kept for _, kept in store.kept()] == bench.answers
        await gates.open("scan")


@pytest.mark.parametrize(
    ("outcome", "answer"),
    [
        (raising(ValueError("a bug")), {"correlationId": "7", "ok": False, "error": "internal error"}),
        (raising(Rejected("no")), {"correlationId": "7", "ok": False, "error": "no"}),
    ],
)
async def test_a_handler_that_fails_after_it_deferred_answers_and_the_ticket_is_void(
    store: Store, outcome: Callable[[Any], object], answer: JSON
) -> None:
    tickets = list[str]()
    bench = Bench(deferring(tickets, lambda: outcome(None)), store)
    async with bench.serving():
        bench.send("P/Commands/scan", {"correlationId": "7"})
        assert await bench.answer() == answer
        with pytest.raises(UnknownTicket):
            bench.dispatcher.answer(tickets[0], "late")
    assert (len(bench.answers), store.unfinished_count()) == (1, 0)


@pytest.mark.parametrize("error", [ValueError("a bug"), Rejected("no")])
async def test_one_that_fails_after_its_ticket_was_answered_does_not_answer_again(
    store: Store, error: Exception
) -> None:
    kind = fresh()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> None:
            bench.dispatcher.answer(message.defer(), "early")
            raise error

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        await bench.answer()
        await anyio.wait_all_tasks_blocked()
    assert (len(bench.answers), store.unfinished_count()) == (1, 0)


async def test_one_that_times_out_after_its_ticket_was_answered_does_not_answer_again(store: Store) -> None:
    kind = fresh()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        timeout = 0.01

        async def handle(self, message: Message[JSON]) -> None:
            bench.dispatcher.answer(message.defer(), "early")
            await anyio.sleep_forever()

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        bench.send("P/Commands/scan", {"second": True})
        await bench.answer(1)
    assert [each["result"] for each in [await bench.answer(n) for n in range(2)]] == ["early", "early"]


async def test_what_is_returned_beside_a_ticket_is_not_sent_and_that_is_said(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    tickets = list[str]()
    bench = Bench(deferring(tickets, lambda: "a result"), store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        await anyio.wait_all_tasks_blocked()
    assert bench.answers == []
    assert "handler.result_ignored" in caplog.text


async def test_a_result_that_json_cannot_carry_leaves_the_ticket_open(store: Store) -> None:
    tickets = list[str]()
    bench = Bench(deferring(tickets), store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(BadPayload):
            bench.dispatcher.answer(tickets[0], object())
        bench.dispatcher.answer(tickets[0], "good")
        assert (await bench.answer())["result"] == "good"


async def test_a_ticket_that_cannot_be_written_is_written_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._dispatcher.RETRY", 0.001)
    tickets = list[str]()
    bench = Bench(deferring(tickets), store)
    async with bench.serving():
        with monkeypatch.context() as patch:
            failing(store, patch, "defer")
            bench.send("P/Commands/scan")
            await bench.until(lambda: ("store", "disk full") in bench.troubles)
        await bench.until(lambda: ("store", None) in bench.troubles)
        bench.dispatcher.answer(tickets[0], "done")
        assert (await bench.answer())["result"] == "done"


async def test_a_ticket_that_is_answered_when_the_disk_has_just_recovered_is_not_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tickets = list[str]()
    bench = Bench(deferring(tickets), store)
    async with bench.serving():
        with monkeypatch.context() as patch:
            failing(store, patch, "defer")
            bench.send("P/Commands/scan")
            await bench.until(lambda: ("store", "disk full") in bench.troubles)
        bench.dispatcher.answer(tickets[0], "done")
        assert (await bench.answer())["result"] == "done"
        assert store.unfinished_count() == 0


@pytest.mark.parametrize("journal", [True, False])
async def test_a_ticket_that_cannot_be_written_is_answered_all_the_same_and_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, *, journal: bool
) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._dispatcher.RETRY", 0.001)
    tickets = list[str]()
    kind = deferring(tickets)
    kind.journal = journal
    bench = Bench(kind, store)
    async with bench.serving():
        with monkeypatch.context() as patch:
            failing(store, patch, "defer")
            bench.send("P/Commands/scan")
            await bench.until(lambda: ("store", "disk full") in bench.troubles)
            bench.dispatcher.answer(tickets[0], "done")
            assert (await bench.answer())["result"] == "done"
            with pytest.raises(UnknownTicket):
                bench.dispatcher.answer(tickets[0], "again")
        await bench.until(lambda: bench.troubles[-1] == ("store", None) and not store.unfinished_count())
    assert len(bench.answers) == 1


async def test_a_ticket_is_good_while_its_command_waits_for_another_try(store: Store, way: tuple[bool, int]) -> None:
    kind, tickets = fresh(), list[str]()
    kind.journal, qos = way

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> None:
            tickets.append(message.defer())
            bench.changed()
            if message.delivery == 1:
                raise Retry(after=0.05)

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan", qos=qos)
        await bench.until(lambda: tickets)
        bench.dispatcher.answer(tickets[0], "meanwhile")
        await bench.until(lambda: len(tickets) == 2)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(UnknownTicket):
            bench.dispatcher.answer(tickets[0], "again")
    assert len(set(tickets)) == 1
    assert [(await bench.answer())["result"], len(bench.answers)] == ["meanwhile", 1]


async def test_after_the_handlers_end_there_is_nothing_left_to_defer(store: Store) -> None:
    messages = list[Message[JSON]]()
    bench = Bench(commanding(messages.append), store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        await bench.answer()
        with pytest.raises(PluginDefinitionError, match="its handler has ended"):
            messages[0].defer()


async def test_tickets_are_given_up_one_part_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("store._journal", "dispatch._dispatcher", "store"):
        monkeypatch.setattr(f"kepm_plugin.{module}.PART", 2)
    monkeypatch.setattr("kepm_plugin.dispatch._dispatcher.RETRY", 0.001)
    with open_store(tmp_path) as store:
        bench = Bench(deferring([]), store)
        async with bench.serving():
            for number in range(5):
                bench.send("P/Commands/scan", {"number": number})
            await bench.until_idle()
    with open_store(tmp_path, limits=Limits(journal_age=3600), now=lambda: AT + 3601) as store:
        bench = Bench(deferring([]), store)
        async with bench.serving():
            await bench.answer(4)


async def test_what_is_deferred_at_qos_0_takes_room_in_the_journal_as_everything_does(store: Store) -> None:
    with memory_store(limits=Limits(journal_bytes=1)) as full:
        bench = Bench(deferring([]), full)
        async with bench.serving():
            for number in range(2):
                bench.send("P/Commands/scan", {"number": number}, qos=0)
            await bench.until(lambda: bench.troubles)
        assert full.unfinished_count() == 1


async def test_a_ticket_that_nobody_answers_ends_as_a_dead_letter_and_its_caller_is_told(tmp_path: Path) -> None:
    now, tickets = AT, list[str]()
    limits = Limits(journal_age=3600)
    with open_store(tmp_path, limits=limits, now=lambda: now) as store:
        bench = Bench(deferring(tickets), store)
        async with bench.serving():
            bench.send("P/Commands/scan", {"correlationId": "7"})
            await anyio.wait_all_tasks_blocked()
    now += 3601
    with open_store(tmp_path, limits=limits, now=lambda: now) as store:
        bench = Bench(deferring(tickets), store)
        async with bench.serving():
            assert await bench.answer() == {"correlationId": "7", "ok": False, "error": "it was not handled in time"}
        assert (bench.reasons(), bench.dispatcher.counters.too_old) == (["too old"], 1)
        with pytest.raises(UnknownTicket):
            bench.dispatcher.answer(tickets[0], "late")


async def test_a_ticket_from_before_the_clock_was_set_has_no_age(tmp_path: Path) -> None:
    tickets = list[str]()
    with open_store(tmp_path) as store:
        bench = Bench(deferring(tickets), store)
        async with bench.serving():
            bench.receive(Received("P/Commands/scan", b"{}", 1, mid=1, received_at=60.0))
            await anyio.wait_all_tasks_blocked()
        assert store.expired() == []
        bench.dispatcher.answer(tickets[0], "done")
        assert (await bench.answer())["result"] == "done"


async def test_tickets_that_cannot_be_looked_through_are_looked_through_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(store, monkeypatch, "expired")
    bench = Bench(commanding(lambda _: "done"), store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        assert (await bench.answer())["result"] == "done"


async def test_a_ticket_of_a_command_that_is_gone_is_unknown_and_ends_one_day(tmp_path: Path) -> None:
    now, tickets = AT, list[str]()
    with open_store(tmp_path) as store:
        bench = Bench(deferring(tickets), store)
        async with bench.serving():
            bench.send("P/Commands/scan")
            await anyio.wait_all_tasks_blocked()
    with open_store(tmp_path, limits=Limits(journal_age=3600), now=lambda: now) as store:
        bench = Bench(fresh(), store)
        with pytest.raises(UnknownTicket):
            bench.dispatcher.answer(tickets[0], "done")
        now += 3601
        async with bench.serving():
            await anyio.wait_all_tasks_blocked()
        assert (bench.reasons(), bench.answers) == (["too old"], [])


async def test_a_topic_has_nobody_to_answer(store: Store) -> None:
    kind, said = fresh(), list[str]()

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[bytes]) -> None:
            for ask in (message.defer, lambda: message.progress_soon(1)):
                with pytest.raises(PluginDefinitionError) as caught:
                    ask()
                said.append(str(caught.value))
            with pytest.raises(PluginDefinitionError):
                await message.progress(1)

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Events")
        await anyio.wait_all_tasks_blocked()
    assert said[0] == (
        "message.defer() on 'P/Events': only a command has somebody who waits for an answer; register the handler "
        "with command(...)"
    )
    assert bench.reasons() == []


# --- interim reports --------------------------------------------------------------------------------------------------


async def test_progress_comes_before_the_answer_with_the_same_identity(store: Store) -> None:
    kind = fresh()

    @kind.command("scan/{host}")
    class Scan(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> str:
            await message.progress({"done": 0.5})
            with pytest.raises(BadPayload):
                await message.progress(object())
            return "done"

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan/web1", {"correlationId": 7}, correlation_data=b"x")
        assert await bench.answer(1) == {"correlationId": 7, "ok": True, "result": "done"}
    assert await bench.answer(0) == {"correlationId": 7, "progress": {"done": 0.5}}
    assert [(each.topic, each.correlation_data) for each in bench.answers] == [("P/Responses/scan/web1", b"x")] * 2


@on_asyncio
async def test_progress_from_a_thread(store: Store) -> None:
    kind = fresh()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        def handle(self, message: Message[JSON]) -> str:
            message.progress_soon(1)
            message.progress_soon(2)
            return "done"

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        await bench.answer(2)
    assert [(await bench.answer(n)).get("progress") for n in range(3)] == [1, 2, None]


async def test_progress_whose_topic_is_impossible_is_left_out(store: Store) -> None:
    kind = fresh()

    @kind.command("scan/{host}")
    class Scan(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> str:
            await message.progress(1)
            message.progress_soon(2)
            return message.defer()

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan/")
        await anyio.wait_all_tasks_blocked()
    assert bench.answers == []


# --- through the plugin -----------------------------------------------------------------------------------------------


async def test_a_plugin_answers_from_wherever_it_is() -> None:
    class P(Plugin):
        id = "P"
        ticket = ""

    @P.command("scan")
    class Scan(Handler[P]):
        async def handle(self, message: Message[JSON]) -> None:
            await message.progress("begun")
            self.plugin.ticket = message.defer()

    @P.topic("Finished")
    class Finished(Handler[P]):
        async def handle(self, message: Message[str]) -> None:
            await self.plugin.answer(self.plugin.ticket, message.payload)

    async with hosted(P) as host, anyio.create_task_group() as tasks:
        tasks.start_soon(answered, host)
        await host.until_published("Responses/scan")
        await host.publish("Finished", "all is well")


async def answered(host: Any) -> None:
    assert (await host.command("scan"))["result"] == "all is well"
