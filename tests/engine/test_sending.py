"""What a plugin sends and asks for by itself: publications, requests, subscriptions of the moment."""

import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import anyio.to_thread
import pytest

from kepm_plugin import Handler, Message, Plugin, Publisher, Request, background
from kepm_plugin.errors import (
    BadPayload,
    BadTopic,
    BrokerRefused,
    LinkLost,
    NoAnswer,
    Overloaded,
    Refused,
    UndeclaredTopic,
)
from kepm_plugin.message import Publication, Received, encode_json
from kepm_plugin.outbox import SIZE
from kepm_plugin.testing import hosted
from kepm_plugin.testing._memory import MemorySession
from tests.engine.world import JSON, World

on_mock_clock = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


# --- publishing -------------------------------------------------------------------------------------------------------


class Sender(Plugin, abstract=True):
    findings = Publisher[JSON]("Findings/{severity}", qos=1)


class P(Sender):
    id = "P"
    allow_publish = ("Allowed/{name}", "/Elsewhere/Events")


async def test_publishers_publish_below_the_plugins_id_with_their_levels() -> None:
    async with hosted(P) as host:
        await host.plugin.findings.publish({"a": 1}, severity="high")
        await host.plugin.findings.publish({"a": 2}, severity="low", retain=True, wait="acknowledged")
        assert await host.until_published("Findings/+", 2) == [{"a": 1}, {"a": 2}]


async def test_a_plugin_that_only_publishes_has_nothing_to_subscribe() -> None:
    class P(Sender):
        id = "P"
        echo = False

    async with hosted(P) as host:
        assert host.plugin.declarations().filters == ()
        await host.plugin.findings.publish({"a": 1}, severity="high", wait="acknowledged")
        await host.lose_link()
        await host.plugin.findings.publish({"a": 2}, severity="high", wait="acknowledged")
        assert host.published("Findings/high") == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("severity", ["", "a/b", "+", "#", "a\0"])
async def test_a_level_that_is_none_is_refused(severity: str) -> None:
    async with hosted(P) as host:
        with pytest.raises(BadTopic):
            await host.plugin.findings.publish({}, severity=severity)


async def test_publish_works_inside_what_is_declared_and_nowhere_else() -> None:
    async with hosted(P) as host:
        await host.plugin.publish("Allowed/a", "text")
        await host.plugin.publish("Findings/high", {"a": 1})
        await host.plugin.publish("/Elsewhere/Events", b"raw", qos=0, retain=True)
        for topic in ("Other", "Allowed/a/b", "/Elsewhere", "/KeeperPolicy/Commands/evaluate", ""):
            with pytest.raises(UndeclaredTopic, match="the manifest does not declare it"):
                await host.plugin.publish(topic, {})
        with pytest.raises(BadTopic):
            await host.plugin.publish("Allowed/+", {})
        await host.until_published("/Elsewhere/Events")
        assert host.published("Allowed/a") == [b"text"]
        assert host.published("/Elsewhere/Events") == [b"raw"]


async def test_publications_made_while_the_link_is_down_go_out_in_order() -> None:
    world = World(P)
    async with world.running():
        await world.served()

        def lose() -> None:
            world.broker.cut("P")
            for number in range(3):
                world.plugin.findings.publish_soon({"n": number}, severity="high")

        await world.reconnected(lose)
        await world.until(lambda: len(world.on("P/Findings/high")) == 3)
    assert world.on("P/Findings/high") == [{"n": number} for number in range(3)]


async def test_what_was_not_acknowledged_when_the_link_went_is_sent_again() -> None:
    world = World(P)
    async with world.running():
        await world.served()
        await anyio.wait_all_tasks_blocked()
        for number in range(2):
            await world.plugin.findings.publish({"n": number}, severity="high")
        assert len(world.on("P/Findings/high")) == 2
        await world.reconnected(lambda: world.broker.cut("P"))
        await anyio.wait_all_tasks_blocked()
    assert world.on("P/Findings/high") == [{"n": 0}, {"n": 1}] * 2


@on_asyncio
async def test_publish_soon_may_be_called_from_a_thread_and_in_a_threaded_handler() -> None:
    class P(Sender):
        id = "P"

    @P.command("scan")
    class Scan(Handler[P]):
        def handle(self, message: Message[JSON]) -> bool:
            self.plugin.findings.publish_soon({"from": "handler"}, severity="high")
            return threading.current_thread() is threading.main_thread()

    async with hosted(P) as host:
        assert (await host.command("scan"))["result"] is False
        await anyio.to_thread.run_sync(lambda: host.plugin.findings.publish_soon({"from": "thread"}, severity="high"))
        assert await host.until_published("Findings/high", 2) == [{"from": "handler"}, {"from": "thread"}]


@on_mock_clock
async def test_a_full_outbox_is_told_to_who_waits_and_counted_for_who_does_not() -> None:
    world = World(P)
    async with world.running():
        await world.served()
        await anyio.wait_all_tasks_blocked()
        world.broker.kill()
        await anyio.sleep(1)
        for _ in range(10_000):
            world.serving.outbox.put_soon(Publication("P/Findings/low", b"{}"))
        world.plugin.findings.publish_soon({}, severity="high")
        with pytest.raises(Overloaded):
            await world.plugin.findings.publish({}, severity="high", timeout=5)
        with pytest.raises(Overloaded):
            await world.plugin.findings.publish({}, severity="high")
        assert world.serving.outbox.dropped == 1


async def test_a_payload_that_is_larger_than_the_outbox_is_told_to_whoever_publishes_it() -> None:
    world = World(P)
    async with world.running():
        await world.served()
        with pytest.raises(BadPayload, match="are never sent"):
            await world.plugin.publish("Allowed/a", bytes(SIZE + 1))
        with pytest.raises(BadPayload, match="are never sent"):
            world.plugin.host.publish_soon(Publication("P/Allowed/a", bytes(SIZE + 1)))
        await world.plugin.publish("Allowed/a", bytes(SIZE), wait="acknowledged")


class Early(Sender, abstract=True):
    ask = Request[JSON, JSON]("/Other/Commands/ask", response="/Other/Responses/ask", timeout=5)


async def test_what_cannot_be_answered_before_the_link_is_there_is_refused_at_once() -> None:
    errors: list[LinkLost] = []

    class P(Early):
        id = "P"

        @asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None]:
            await self.findings.publish({"n": 1}, severity="low")
            for attempt in (
                lambda: self.findings.publish({"n": 2}, severity="low", wait="acknowledged"),
                lambda: self.publish("Findings/low", {"n": 3}, wait="acknowledged", timeout=3600),
                lambda: self.ask({}),
            ):
                with pytest.raises(LinkLost, match=r"`lifespan` has reached its `yield`.*background") as caught:
                    await attempt()
                errors.append(caught.value)
            yield
            await self.findings.publish({"n": 4}, severity="low", wait="acknowledged")

    world = World(P)
    async with world.running():
        await world.served()
        world.stop()
        await world.ended()
    assert len(errors) == 3
    assert world.on("P/Findings/low") == [{"n": 1}, {"n": 4}]


async def test_a_task_that_the_lifespan_starts_may_wait_for_the_link() -> None:
    class P(Early):
        id = "P"

        @asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.greet)
                await anyio.wait_all_tasks_blocked()
                yield

        async def greet(self) -> None:
            await self.findings.publish({"n": 1}, severity="low", wait="acknowledged")
            await self.findings.publish({"n": 2}, severity="low", wait="acknowledged")

    world = World(P)
    async with world.running():
        await world.served()
        await world.until(lambda: len(world.on("P/Findings/low")) == 2)


# --- requests ---------------------------------------------------------------------------------------------------------


class Asker(Plugin):
    id = "P"
    ask = Request[JSON, dict[str, int]]("/Other/Commands/ask", response="/Other/Responses/ask", timeout=5)
    ask_one = Request[JSON, Any]("/{agent}/Commands/ask", response="/{agent}/Responses/asked", timeout=5)


class Asking:
    """Answers questions as another plugin does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.outcome: Any = None

    async def ask(self, question: JSON | None = None, request: Any = None) -> None:
        try:
            self.outcome = await (request or self.world.plugin.ask)(question or {})
        except Exception as exc:  # noqa: BLE001  looked at by the test
            self.outcome = exc

    async def question(self) -> JSON:
        await self.world.until(lambda: self.world.on("Other/Commands/ask"))
        return dict(self.world.on("Other/Commands/ask")[-1])

    def answer(self, topic: str = "Other/Responses/ask", /, **fields: Any) -> None:
        self.world.send(topic, fields)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ({"ok": True, "result": {"a": 1}}, {"a": 1}),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}),  # without our envelope
        ({"ok": False, "error": "not allowed"}, Refused("Other/Commands/ask", "not allowed")),
        ({"ok": False}, Refused("Other/Commands/ask", "no reason given")),
        ({"ok": True, "result": {"a": "x"}}, Refused("Other/Commands/ask", "the answer does not fit")),
    ],
)
async def test_a_request_ends_with_its_answer(answer: JSON, outcome: Any) -> None:
    world = World(Asker)
    asking = Asking(world)
    async with world.running():
        await world.served()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asking.ask, {"path": "/etc"})
            question = await asking.question()
            assert question.pop("path") == "/etc"
            asking.answer(**question, **answer)
    if isinstance(outcome, Refused):
        assert isinstance(asking.outcome, Refused)
        assert outcome.reason in asking.outcome.reason
    else:
        assert asking.outcome == outcome


async def test_what_is_no_answer_to_a_question_is_ignored() -> None:
    world = World(Asker)
    asking = Asking(world)
    async with world.running():
        await world.served()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asking.ask)
            correlation = (await asking.question())["correlationId"]
            asking.answer(correlationId="another's", ok=True, result={"a": 2})
            asking.answer(correlationId=7, ok=True, result={"a": 3})
            asking.answer(ok=True, result={"a": 4})
            asking.answer(correlationId=correlation, progress={"percent": 50})
            for payload in (b"", b"{", b"[1]", b"\xff"):
                world.broker.route(Publication("Other/Responses/ask", payload))
            await anyio.wait_all_tasks_blocked()
            assert asking.outcome is None
            asking.answer(correlationId=correlation, ok=True, result={"a": 1})
            await anyio.wait_all_tasks_blocked()
            asking.answer(correlationId=correlation, ok=True, result={"a": 5})  # too late
    assert asking.outcome == {"a": 1}


async def test_questions_at_the_same_time_get_each_its_own_answer() -> None:
    world = World(Asker)
    first, second = Asking(world), Asking(world)
    async with world.running():
        await world.served()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.ask, {"n": 1})
            tasks.start_soon(second.ask, {"n": 2})
            await world.until(lambda: len(world.on("Other/Commands/ask")) == 2)
            for question in reversed(world.on("Other/Commands/ask")):
                first.answer(correlationId=question["correlationId"], n=question["n"])
    assert (first.outcome, second.outcome) == ({"n": 1}, {"n": 2})


@on_mock_clock
async def test_a_question_without_an_answer_ends_at_its_timeout() -> None:
    world = World(Asker)
    async with world.running():
        await world.served()
        with anyio.fail_after(6), pytest.raises(NoAnswer, match=r"'Other/Responses/ask' answered .* within 5 s"):
            await world.plugin.ask({})


@on_mock_clock
async def test_an_answer_without_an_identity_is_no_answer_and_the_contract_is_named() -> None:
    world = World(Asker)
    asking = Asking(world)
    async with world.running():
        await world.served()
        asking.answer(ok=True)  # before the question: it cannot be about that
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asking.ask)
            question = await asking.question()
            asking.answer(requestId=question["correlationId"], ok=True, result={"a": 1})
    assert isinstance(asking.outcome, NoAnswer)
    assert "; 1 message(s) came there without the property 'correlationId'" in str(asking.outcome)
    assert str(asking.outcome).endswith("look at the contract's correlation_field")


async def test_a_link_lost_while_an_answer_is_awaited_is_told_at_once() -> None:
    world = World(Asker)
    asking = Asking(world)
    async with world.running():
        await world.served()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asking.ask)
            await asking.question()
            await world.reconnected(lambda: world.broker.cut("P"))
    assert isinstance(asking.outcome, LinkLost)
    assert "the connection was cut" in str(asking.outcome)


async def test_an_answer_that_came_before_the_loss_counts() -> None:
    world = World(Asker)
    asking = Asking(world)
    async with world.running():
        await world.served()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asking.ask)
            correlation = (await asking.question())["correlationId"]
            world.serving.host.answered(
                Received(
                    "Other/Responses/ask",
                    encode_json({"correlationId": correlation, "ok": True, "result": {"a": 1}}),
                )
            )
            world.serving.host.link_lost("cut")
    assert asking.outcome == {"a": 1}


@on_mock_clock
async def test_without_a_link_a_question_is_not_sent() -> None:
    world = World(Asker)
    async with world.running():
        await world.served()
        world.broker.kill()
        await anyio.sleep(1)
        with pytest.raises(LinkLost, match="was not sent"):
            await world.plugin.ask({})
    assert world.on("Other/Commands/ask") == []


async def test_a_question_must_be_an_object_and_its_levels_must_fit() -> None:
    async with hosted(Asker) as host:
        with pytest.raises(BadPayload, match="must be a JSON object"):
            await host.plugin.ask([1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(BadTopic):
            await host.plugin.ask_one({}, agent="a/b")


async def test_the_levels_of_a_question_are_those_of_its_answer() -> None:
    world = World(Asker)
    asking = Asking(world)
    async with world.running():
        await world.served()

        async def ask(question: JSON) -> Any:
            return await world.plugin.ask_one(question, agent="Web1")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asking.ask, None, ask)
            await world.until(lambda: world.on("Web1/Commands/ask"))
            [question] = world.on("Web1/Commands/ask")
            asking.answer("Web1/Responses/asked", **question, ok=True, result="any JSON")
    assert asking.outcome == "any JSON"


# --- subscriptions of the moment --------------------------------------------------------------------------------------


class Reader(Plugin, abstract=True):
    """Has a handler besides."""


@Reader.topic("Events/{name}")
class Event(Handler[Reader]):
    async def handle(self, message: Message[bytes]) -> None: ...


class R(Reader):
    id = "P"
    allow_subscribe = ("/Other/{rest:path}", "Events/{name}")


async def next_of(subscription: Any) -> Message[bytes]:
    with anyio.fail_after(5):
        message: Message[bytes] = await anext(subscription)
        return message


async def test_a_subscription_brings_what_its_filter_covers_while_it_is_open() -> None:
    async with hosted(R) as host:
        await host.publish("/Other/a", b"before")
        async with host.plugin.subscribe("/Other/+") as messages:
            await host.publish("/Other/a", b"1")
            await host.publish("/Other/a/b", b"not covered")
            await host.publish("/Other/b", {"n": 2}, qos=0)
            first, second = await next_of(messages), await next_of(messages)
        await host.publish("/Other/a", b"after")
        assert (first.topic, first.payload, first.qos, first.params) == ("Other/a", b"1", 1, {})
        assert (second.topic, second.payload, second.qos) == ("Other/b", b'{"n":2}', 0)


async def test_a_closed_subscription_is_ended_at_the_broker() -> None:
    world = World(R)
    async with world.running():
        await world.served()
        async with world.plugin.subscribe("/Other/+"):
            world.send("Other/a", 1)
            await anyio.wait_all_tasks_blocked()
        world.send("Other/a", 2)
        await anyio.wait_all_tasks_blocked()
        assert world.serving.host.dispatcher is not None
        assert world.serving.host.dispatcher.counters.unrouted == 0


async def test_outside_of_what_is_declared_nothing_can_be_subscribed() -> None:
    async with hosted(R) as host:
        for topic_filter in ("/Elsewhere", "/#", "Commands/+"):
            with pytest.raises(UndeclaredTopic, match="cannot subscribe to"):
                host.plugin.subscribe(topic_filter)
        with pytest.raises(BadTopic):
            host.plugin.subscribe("/Other/a#")


async def test_a_message_reaches_handler_and_subscription_once_each_and_also_after_a_reconnect() -> None:
    class P(Reader):
        id = "P"
        allow_subscribe = ("Events/{name}",)

    handled: list[bytes] = []

    @P.topic("Events/special")
    class Special(Handler[P]):
        async def handle(self, message: Message[bytes]) -> None:
            handled.append(message.payload)

    async with hosted(P) as host, host.plugin.subscribe("Events/special") as messages:
        for payload in (b"1", b"2"):
            await host.publish("Events/special", payload)
            assert (await next_of(messages)).payload == payload
            await anyio.wait_all_tasks_blocked()
            assert handled[-1] == payload
            await host.lose_link()
    assert handled == [b"1", b"2"]


async def test_subscriptions_that_cover_each_other_share_and_the_narrow_one_outlives_the_wide_one() -> None:
    async with hosted(R) as host, host.plugin.subscribe("/Other/#") as wide:
        async with host.plugin.subscribe("/Other/a") as narrow:
            await host.lose_link()
            await host.publish("/Other/a", b"1")
            assert (await next_of(wide)).payload == (await next_of(narrow)).payload == b"1"
            with anyio.move_on_after(0):
                await anext(wide)
                pytest.fail("it came twice")
        await host.publish("/Other/a", b"2")
        assert (await next_of(wide)).payload == b"2"
    world = World(R)
    async with world.running():
        await world.served()
        wide_context = world.plugin.subscribe("/Other/#")
        await wide_context.__aenter__()
        async with world.plugin.subscribe("/Other/a") as narrow:
            await wide_context.__aexit__(None, None, None)
            world.send("Other/a", 3)
            assert (await next_of(narrow)).payload == b"3"


async def test_overlapping_without_covering_is_refused() -> None:
    async with hosted(R) as host, host.plugin.subscribe("/Other/+/b"):
        for other in ("/Other/a/+", "/Other/#"):
            with pytest.raises(BadTopic, match="is subscribed already, without being covered by it"):
                async with host.plugin.subscribe(other):
                    pass
        async with host.plugin.subscribe("/Other/+/b"):
            pass
        async with host.plugin.subscribe("/Other/c"):
            pass


@on_mock_clock
async def test_a_subscription_made_while_the_link_is_down_begins_with_the_next_session() -> None:
    world = World(R)
    async with world.running():
        await world.served()
        world.broker.kill()
        await anyio.sleep(1)
        async with world.plugin.subscribe("/Other/a") as messages:
            await world.reconnected(lambda: setattr(world.broker, "up", True))
            world.send("Other/a", 1)
            assert (await next_of(messages)).payload == b"1"


async def test_a_subscription_made_while_a_session_comes_up_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go_on, calls = anyio.Event(), anyio.Event(), list[list[str]]()
    real = MemorySession.subscribe

    async def subscribe(self: MemorySession, filters: list[str], qos: int) -> None:
        calls.append(list(filters))
        if len(calls) == 2:  # that of the reconnect
            asked.set()
            await go_on.wait()
        await real(self, filters, qos)

    monkeypatch.setattr(MemorySession, "subscribe", subscribe)
    world = World(R)
    async with world.running():
        await world.served()
        up = world.serving.uplink.next_up()
        world.broker.cut("P")
        with anyio.fail_after(5):
            await asked.wait()
            async with world.plugin.subscribe("/Other/a") as messages:
                go_on.set()
                await up.wait()
                world.send("Other/a", 1)
                assert (await next_of(messages)).payload == b"1"
    assert calls[2] == ["Other/a"]


class Refusing:
    """Has the broker refuse whatever holds a word."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.word: str | None = None
        real = MemorySession.subscribe

        async def subscribe(session: MemorySession, filters: list[str], qos: int) -> None:
            if self.word and any(self.word in one for one in filters):
                raise BrokerRefused(f"the broker refused {filters}", code=0x87)
            await real(session, filters, qos)

        monkeypatch.setattr(MemorySession, "subscribe", subscribe)


async def test_a_filter_that_is_refused_at_a_reconnect_ends_its_own_subscription_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refusing = Refusing(monkeypatch)
    async with (
        hosted(R) as host,
        host.plugin.subscribe("/Other/good") as good,
        host.plugin.subscribe("/Other/bad") as bad,
        host.plugin.subscribe("/Other/bad") as bad_too,
    ):
        await host.publish("/Other/bad", b"1")
        await anyio.wait_all_tasks_blocked()
        refusing.word = "bad"
        await host.lose_link()
        for reader in (bad, bad_too):
            assert (await next_of(reader)).payload == b"1", "what had come is not lost"
            for _ in range(2):
                with pytest.raises(BrokerRefused, match="Other/bad"):
                    await next_of(reader)
        await host.publish("/Other/good", b"2")
        assert (await next_of(good)).payload == b"2"
        await host.lose_link()
        assert host.outcome is None
    assert [vars(one)["filter"] for one in caplog.records if one.message == "subscription.refused"] == ["Other/bad"]


async def test_a_wide_filter_that_is_refused_gives_way_to_the_narrow_ones_below_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusing = Refusing(monkeypatch)
    async with (
        hosted(R) as host,
        host.plugin.subscribe("/Other/#") as wide,
        host.plugin.subscribe("/Other/a") as narrow,
    ):
        refusing.word = "#"
        await host.lose_link()
        await host.publish("/Other/a", b"1")
        assert (await next_of(narrow)).payload == b"1"
        with pytest.raises(BrokerRefused):
            await next_of(wide)


@pytest.mark.parametrize("error", [LinkLost("cut"), BrokerRefused("SUBACK says no", code=0x87)])
async def test_a_loss_while_subscribing_is_made_up_for_and_a_refusal_is_told(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    world = World(R)
    async with world.running():
        await world.served()
        with monkeypatch.context() as patch:

            async def fail(self: MemorySession, filters: list[str], qos: int) -> None:
                raise error

            patch.setattr(MemorySession, "subscribe", fail)
            context = world.plugin.subscribe("/Other/a")
            if isinstance(error, BrokerRefused):
                with pytest.raises(BrokerRefused):
                    await context.__aenter__()
                return
            messages = await context.__aenter__()
        await world.reconnected(lambda: world.broker.cut("P"))
        world.send("Other/a", 1)
        assert (await next_of(messages)).payload == b"1"
        await context.__aexit__(None, None, None)


async def test_a_subscription_may_be_opened_in_the_lifespan_and_in_a_background_method_but_not_earlier() -> None:
    seen: list[bytes] = []

    class P(Reader):
        id = "P"
        allow_subscribe = ("/Other/{rest:path}",)

        @background()
        async def watch(self) -> None:
            async with self.subscribe("/Other/a") as messages:
                async for message in messages:
                    seen.append(message.payload)

    world = World(P)
    async with world.running():
        with pytest.raises(LinkLost, match="does not serve yet"):
            async with world.serving.host.subscribe("Other/a"):
                pass
        await world.served()
        await anyio.wait_all_tasks_blocked()
        world.send("Other/a", 1)
        await anyio.wait_all_tasks_blocked()
        assert seen == [b"1"]


async def test_a_reader_that_is_behind_drops_the_newest_counts_them_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kepm_plugin.runtime._subscriptions.BACKLOG", 2)
    async with hosted(R) as host, host.plugin.subscribe("/Other/a") as messages:
        for round_number in (1, 2):
            for number in range(5):
                await host.publish("/Other/a", number)
            await anyio.wait_all_tasks_blocked()
            assert [(await next_of(messages)).payload for _ in range(2)] == [b"0", b"1"]
            said = [record for record in caplog.records if record.message == "subscription.dropped"]
            assert len(said) == round_number
        await host.lose_link()
        assert (await host.until_published("Status", 3))[-1]["counters"]["dropped"] == 6


async def test_a_reader_that_has_closed_its_stream_does_no_harm() -> None:
    async with hosted(R) as host, host.plugin.subscribe("/Other/a") as messages:
        await cast("Any", messages).aclose()
        await host.publish("/Other/a", 1)
        await host.lose_link()
