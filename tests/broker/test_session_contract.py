"""What every session must do, whatever broker is at the other end; the in-memory one included."""

import math
import time
from typing import Any

import anyio
import pytest

from kepm_plugin.errors import LinkLost
from kepm_plugin.link import Session
from kepm_plugin.message import Publication, Received
from tests.broker.conftest import Inbox


async def published(session: Session, *publications: Publication) -> None:
    """Publish, and return when the broker has acknowledged all."""
    done = anyio.Event()
    waiting = len(publications)

    def acknowledged() -> None:
        nonlocal waiting
        waiting -= 1
        if not waiting:
            done.set()

    for each in publications:
        session.publish(each, acknowledged)
    with anyio.fail_after(10):
        await done.wait()


async def marker(caller: Session, inbox: Any, topic: str) -> list[Received]:
    """Publish one last message and return what came before it."""
    await published(caller, Publication(topic, b"last", qos=1))
    with anyio.fail_after(10):
        while b"last" not in inbox.payloads:
            await inbox.until(len(inbox.messages) + 1)
    return [each for each in inbox.messages if each.payload != b"last"]


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_message_arrives_as_it_was_published(broker: Any, inbox: Any, qos: int) -> None:
    topic, before = broker.topic("Commands/scan"), time.time()
    async with broker.open("Plugin", inbox.deliver) as plugin, broker.open("Caller") as caller:
        await plugin.subscribe([broker.topic("Commands/+")], 2)
        await published(caller, Publication(topic, b"\x00payload", qos=qos))
        [message] = await inbox.until(1)
    assert (message.topic, message.payload, message.qos, message.retained) == (topic, b"\x00payload", qos, False)
    assert before <= message.received_at <= time.time()
    assert (message.mid > 0) == (qos > 0)


async def test_an_empty_payload_is_a_message(broker: Any, inbox: Any) -> None:
    async with broker.open("Plugin", inbox.deliver) as plugin:
        await plugin.subscribe([broker.topic("a")], 1)
        plugin.publish(Publication(broker.topic("a"), b""))
        [message] = await inbox.until(1)
    assert message.payload == b""


async def test_several_filters_in_one_call(broker: Any, inbox: Any) -> None:
    async with broker.open("Plugin", inbox.deliver) as plugin:
        await plugin.subscribe([broker.topic("a"), broker.topic("b/#")], 1)
        await published(plugin, *(Publication(broker.topic(name), b"") for name in ("a", "b", "b/c/d", "c")))
        plugin.publish(Publication(broker.topic("a"), b"last"))
        await inbox.until(4)
    assert sorted(each.topic for each in inbox.messages) == sorted(broker.topic(x) for x in ("a", "a", "b", "b/c/d"))


async def test_subscribing_to_nothing_is_a_mistake_and_does_no_harm(broker: Any, inbox: Any) -> None:
    async with broker.open("Plugin", inbox.deliver) as plugin:
        with pytest.raises(ValueError, match="at least one filter"):
            await plugin.subscribe([], 1)
        await plugin.subscribe([broker.topic("a")], 1)
        assert await marker(plugin, inbox, broker.topic("a")) == []


@pytest.mark.parametrize("qos", [0, 1])
async def test_messages_keep_their_order(broker: Any, inbox: Any, qos: int) -> None:
    expected = [b"%d" % number for number in range(300)]
    async with broker.open("Plugin", inbox.deliver) as plugin, broker.open("Caller") as caller:
        await plugin.subscribe([broker.topic("a")], 1)
        for payload in expected:
            caller.publish(Publication(broker.topic("a"), payload, qos=qos))
        with anyio.fail_after(10):
            while len(inbox.messages) < len(expected):
                await inbox.until(len(inbox.messages) + 1)
                plugin.acknowledge([each.mid for each in inbox.batches[-1]])
    assert inbox.payloads == expected


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_the_broker_acknowledges_each_publication(broker: Any, qos: int) -> None:
    async with broker.open("Plugin") as plugin:
        await published(
            plugin, *(Publication(broker.topic("a"), b"", qos=qos) for _ in range(plugin.in_flight_maximum))
        )
        assert plugin.in_flight_maximum > 0


async def test_an_acknowledgement_may_publish_the_next_one(broker: Any) -> None:
    """As an outbox does."""
    left, done = 50, anyio.Event()
    async with broker.open("Plugin") as plugin:

        def send() -> None:
            nonlocal left
            left -= 1
            if left:
                plugin.publish(Publication(broker.topic("a"), b""), send)
            else:
                done.set()

        send()
        with anyio.fail_after(10):
            await done.wait()


async def test_what_was_acknowledged_does_not_come_again(broker: Any, inbox: Any) -> None:
    async with broker.open("Caller") as caller:
        async with broker.open("Plugin", inbox.deliver, clean=False) as plugin:
            assert plugin.session_present is False
            await plugin.subscribe([broker.topic("a")], 1)
            await published(caller, *(Publication(broker.topic("a"), b"%d" % number) for number in range(10)))
            plugin.acknowledge([each.mid for each in await inbox.until(10)])
        inbox.batches.clear()
        async with broker.open("Plugin", inbox.deliver, clean=False) as plugin:
            assert plugin.session_present is True
            assert await marker(caller, inbox, broker.topic("a")) == []


async def test_what_was_not_acknowledged_comes_again(broker: Any, inbox: Any) -> None:
    async with broker.open("Caller") as caller:
        async with broker.open("Plugin", inbox.deliver, clean=False) as plugin:
            await plugin.subscribe([broker.topic("a")], 1)
            await published(caller, *(Publication(broker.topic("a"), b"%d" % number) for number in range(4)))
            first = await inbox.until(4)
            plugin.acknowledge([first[0].mid, first[2].mid])
        inbox.batches.clear()
        async with broker.open("Plugin", inbox.deliver, clean=False):
            await inbox.until(2)
    assert inbox.payloads == [b"1", b"3"]


async def test_a_qos_2_message_comes_once_and_stays_until_it_is_acknowledged(broker: Any, inbox: Any) -> None:
    async with broker.open("Caller") as caller:
        async with broker.open("Plugin", inbox.deliver, clean=False) as plugin:
            await plugin.subscribe([broker.topic("a")], 2)
            await published(caller, Publication(broker.topic("a"), b"safe", qos=2))
            plugin.acknowledge([each.mid for each in await inbox.until(1)])
            await published(caller, Publication(broker.topic("a"), b"lost by us", qos=2))
            await inbox.until(2)
        inbox.batches.clear()
        async with broker.open("Plugin", inbox.deliver, clean=False) as plugin:
            [again] = await inbox.until(1)
            plugin.acknowledge([again.mid])
            await published(caller, Publication(broker.topic("a"), b"last", qos=2))
            await inbox.until(2)
    assert inbox.payloads == [b"lost by us", b"last"]


async def test_a_qos_0_message_arrives_however_many_others_are_unacknowledged(broker: Any, inbox: Any) -> None:
    """Why the echo travels at QoS 0."""
    async with broker.open("Plugin", inbox.deliver) as plugin, broker.open("Caller") as caller:
        await plugin.subscribe([broker.topic("+")], 1)
        # Beyond the window of every one of these brokers.
        await published(caller, *(Publication(broker.topic("Commands"), b"") for _ in range(1200)))
        await published(caller, Publication(broker.topic("Link"), b"echo", qos=0))
        with anyio.fail_after(10):
            while b"echo" not in inbox.payloads:
                await inbox.until(len(inbox.messages) + 1)


async def test_what_comes_while_a_kept_session_is_away_is_not_lost(broker: Any, inbox: Any) -> None:
    async with broker.open("Caller") as caller:
        async with broker.open("Plugin", inbox.deliver, clean=False) as plugin:
            await plugin.subscribe([broker.topic("a")], 1)
        await published(caller, Publication(broker.topic("a"), b"meanwhile"))
        async with broker.open("Plugin", inbox.deliver, clean=False):
            await inbox.until(1)
    assert inbox.payloads == [b"meanwhile"]


async def test_a_clean_session_forgets(broker: Any, inbox: Any) -> None:
    async with broker.open("Caller") as caller:
        async with broker.open("Plugin", inbox.deliver, clean=False) as plugin:
            await plugin.subscribe([broker.topic("a")], 1)
        async with broker.open("Plugin", inbox.deliver, clean=True) as plugin:
            assert plugin.session_present is False
            await published(caller, Publication(broker.topic("a"), b"unheard"))
            await plugin.subscribe([broker.topic("b")], 1)
            assert await marker(caller, inbox, broker.topic("b")) == []


async def test_a_retained_message_greets_who_comes_later(broker: Any, inbox: Any) -> None:
    async with broker.open("Caller") as caller, broker.open("Plugin", inbox.deliver) as plugin:
        await published(caller, Publication(broker.topic("Status"), b"running", retain=True))
        with anyio.fail_after(10):
            while not inbox.messages:  # NATS has it some time after it took it, and tells nobody when
                await plugin.subscribe([broker.topic("Status")], 1)
                with anyio.move_on_after(0.1):
                    await inbox.until(1)
    message = inbox.messages[0]
    assert (message.payload, message.retained) == (b"running", True)


async def test_an_empty_retained_message_ends_what_was_retained(broker: Any, inbox: Any) -> None:
    async with broker.open("Caller") as caller, broker.open("Plugin", inbox.deliver) as plugin:
        await published(caller, Publication(broker.topic("Status"), b"running", retain=True))
        await published(caller, Publication(broker.topic("Status"), b"", retain=True))
        with anyio.fail_after(10):
            await plugin.subscribe([broker.topic("Status")], 1)
            while await marker(caller, inbox, broker.topic("Status")):  # NATS forgets it a little after it took it
                inbox.batches.clear()
                await plugin.subscribe([broker.topic("Status")], 1)


async def test_an_unsubscribed_topic_is_silent(broker: Any, inbox: Any) -> None:
    async with broker.open("Caller") as caller, broker.open("Plugin", inbox.deliver) as plugin:
        await plugin.subscribe([broker.topic("a"), broker.topic("b")], 1)
        await plugin.unsubscribe([broker.topic("a")])
        await published(caller, Publication(broker.topic("a"), b"unheard"))
        assert await marker(caller, inbox, broker.topic("b")) == []


# --- not reading ------------------------------------------------------------------------------------------------------


async def test_in_a_pause_nothing_is_delivered_while_publishing_and_acknowledging_go_on(
    broker: Any, inbox: Any
) -> None:
    answers, confirmed = Inbox(), anyio.Event()
    async with broker.open("Caller", answers.deliver) as caller:
        await caller.subscribe([broker.topic("b")], 1)
        async with broker.open("Plugin", inbox.deliver, clean=False) as plugin:
            await plugin.subscribe([broker.topic("a")], 1)
            assert plugin.reading_since < math.inf
            await published(caller, Publication(broker.topic("a"), b"before"))
            [before] = await inbox.until(1)
            plugin.pause_reading()
            assert plugin.reading_since == math.inf
            await published(caller, *(Publication(broker.topic("a"), b"%d" % number) for number in range(5)))
            plugin.acknowledge([before.mid])
            plugin.publish(Publication(broker.topic("b"), b"still here"), confirmed.set)
            await answers.until(1)  # by now the broker has sent the plugin all it has
            assert inbox.payloads == [b"before"]
            assert not confirmed.is_set()
        inbox.batches.clear()
        async with broker.open("Plugin", inbox.deliver, clean=False):
            await inbox.until(5)
            assert await marker(caller, inbox, broker.topic("a")) == inbox.messages[:5]
    assert inbox.payloads[:5] == [b"%d" % number for number in range(5)]


async def test_after_a_pause_everything_comes_in_its_order(broker: Any, inbox: Any) -> None:
    async with broker.open("Caller") as caller, broker.open("Plugin", inbox.deliver) as plugin:
        await plugin.subscribe([broker.topic("a")], 1)
        for number in range(3):
            plugin.pause_reading()
            plugin.pause_reading()
            caller.publish(Publication(broker.topic("a"), b"%d qos 0" % number, qos=0))
            await published(caller, Publication(broker.topic("a"), b"%d qos 1" % number))
            assert len(inbox.messages) == 2 * number
            plugin.resume_reading()
            plugin.resume_reading()
            await published(plugin, Publication(broker.topic("b"), b""))
            await inbox.until(2 * number + 2)
    assert inbox.payloads == [b"%d qos %d" % (number, qos) for number in range(3) for qos in (0, 1)]
    plugin.pause_reading()  # harmless
    plugin.resume_reading()


async def test_a_pause_that_begins_at_a_delivery_lets_nothing_further_through(broker: Any, inbox: Any) -> None:
    answers = Inbox()

    def deliver(batch: Any) -> None:
        inbox.deliver(batch)
        plugin.pause_reading()

    async with broker.open("Caller", answers.deliver) as caller, broker.open("Plugin", deliver) as plugin:
        await caller.subscribe([broker.topic("b")], 1)
        await plugin.subscribe([broker.topic("a")], 1)
        for number in range(3_000):  # more than one reading takes
            caller.publish(Publication(broker.topic("a"), b"%d" % number, qos=0))
        await inbox.until(1)
        plugin.publish(Publication(broker.topic("b"), b"still here"))
        await answers.until(1)
        assert len(inbox.batches) == 1
        with anyio.fail_after(10):
            while len(inbox.messages) < 3_000:
                plugin.resume_reading()
                await inbox.until(len(inbox.messages) + 1)
    assert inbox.payloads == [b"%d" % number for number in range(3_000)]


async def test_who_asks_the_broker_in_a_pause_is_answered_after_it(broker: Any, inbox: Any) -> None:
    async with broker.open("Plugin", inbox.deliver) as plugin:
        plugin.pause_reading()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(plugin.subscribe, [broker.topic("a")], 1, name="subscribe")
            await anyio.wait_all_tasks_blocked()
            plugin.resume_reading()
        await published(plugin, Publication(broker.topic("a"), b""))
        await inbox.until(1)


@pytest.mark.parametrize("shared_broker", ["mosquitto-3.1.1"], indirect=True)
async def test_a_pause_that_is_longer_than_the_keep_alive_keeps_the_connection(broker: Any, inbox: Any) -> None:
    async with broker.open("Plugin", inbox.deliver, keep_alive=1) as plugin:
        await plugin.subscribe([broker.topic("a")], 1)
        plugin.pause_reading()
        with anyio.move_on_after(2.2):  # brokers allow for one and a half keep-alives, paho for two
            raise AssertionError(await plugin.lost())
        plugin.resume_reading()
        with anyio.move_on_after(0.6):
            raise AssertionError(await plugin.lost())
        assert await marker(plugin, inbox, broker.topic("a")) == []


async def test_the_will_is_published_when_the_connection_breaks(broker: Any, inbox: Any) -> None:
    will = Publication(broker.topic("Status"), b"gone", qos=1)
    async with broker.open("Watcher", inbox.deliver) as watcher:
        await watcher.subscribe([broker.topic("Status")], 1)
        async with broker.open("Plugin", will=will) as plugin:
            broker.cut(plugin)
            with anyio.fail_after(10):
                assert "cut" in await plugin.lost()
            assert plugin.ending == "broken"
            [message] = await inbox.until(1)
    assert message.payload == b"gone"


async def test_the_will_is_dropped_at_a_clean_exit(broker: Any, inbox: Any) -> None:
    will = Publication(broker.topic("Status"), b"gone", qos=1)
    async with broker.open("Watcher", inbox.deliver) as watcher:
        await watcher.subscribe([broker.topic("Status")], 1)
        async with broker.open("Plugin", will=will):
            pass
        assert await marker(watcher, inbox, broker.topic("Status")) == []


async def test_what_was_queued_before_a_clean_exit_is_sent(broker: Any, inbox: Any) -> None:
    async with broker.open("Watcher", inbox.deliver) as watcher:
        await watcher.subscribe([broker.topic("a")], 1)
        async with broker.open("Plugin") as plugin:
            plugin.publish(Publication(broker.topic("a"), b"goodbye", qos=0))
        await inbox.until(1)
    assert inbox.payloads == [b"goodbye"]


async def test_a_second_connection_takes_the_client_id_over(broker: Any, inbox: Any) -> None:
    async with broker.open("Plugin") as first, broker.open("Plugin", inbox.deliver) as second:
        with anyio.fail_after(10):
            assert await first.lost()
        # MQTT 5 has a reason code for it, which this mosquitto does not send.
        assert first.ending == ("taken over" if first.version == "memory" else "closed")
        assert first.certificate == second.certificate
        with pytest.raises(LinkLost):
            first.publish(Publication(broker.topic("a"), b""))
        first.acknowledge([1, 2, 3])  # harmless
        await second.subscribe([broker.topic("a")], 1)
        await marker(second, inbox, broker.topic("a"))


async def test_acknowledging_what_is_unknown_is_harmless(broker: Any, inbox: Any) -> None:
    async with broker.open("Plugin", inbox.deliver) as plugin:
        await plugin.subscribe([broker.topic("a")], 1)
        plugin.acknowledge([])
        plugin.acknowledge([0, 17, 65_535])
        await marker(plugin, inbox, broker.topic("a"))


async def test_a_killed_broker_is_a_loss_for_everyone_who_waits(mortal_broker: Any) -> None:
    async with mortal_broker.open("Plugin") as plugin:
        mortal_broker.kill()
        with anyio.fail_after(10):
            assert await plugin.lost()
            assert await plugin.lost()  # as often as one asks
        with pytest.raises(LinkLost):
            await plugin.subscribe([mortal_broker.topic("a")], 1)
        with pytest.raises(LinkLost):
            await plugin.unsubscribe([mortal_broker.topic("a")])
        with pytest.raises(LinkLost):
            plugin.publish(Publication(mortal_broker.topic("a"), b""))


async def test_a_burst_in_both_directions_loses_nothing(broker: Any) -> None:
    """5,000 messages come while others go out, their acknowledgements mixed, as a journal acknowledges: per reading."""
    total = 5_000
    got: list[int] = []
    answered = sent = next_number = free = 0
    finished = anyio.Event()

    def check() -> None:
        if len(got) == answered == total:
            finished.set()

    def acknowledged() -> None:
        nonlocal answered, free
        answered, free = answered + 1, free + 1
        pump()
        check()

    def pump() -> None:
        nonlocal sent, free
        while free and sent < len(got):
            sent, free = sent + 1, free - 1
            plugin.publish(Publication(broker.topic("Responses"), b"", qos=1), acknowledged)

    def deliver(batch: Any) -> None:
        got.extend(int(each.payload) for each in batch)
        plugin.acknowledge([each.mid for each in batch])
        pump()
        check()

    def feed() -> None:
        nonlocal next_number
        if next_number < total:
            payload, next_number = b"%d" % next_number, next_number + 1
            caller.publish(Publication(broker.topic("Commands"), payload, qos=1), feed)

    async with broker.open("Plugin", deliver) as plugin, broker.open("Caller") as caller:
        free = plugin.in_flight_maximum
        await plugin.subscribe([broker.topic("Commands")], 1)
        for _ in range(caller.in_flight_maximum):
            feed()
        with anyio.fail_after(30):
            await finished.wait()
    assert got == list(range(total))
