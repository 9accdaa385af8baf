"""What may cross on one connection, and as what."""

from dataclasses import replace

import pytest

from kepm_plugin.devagent.bodies import Connect, Publish, Suback, Subscribe, Will, connack, disconnect, unsubscribe
from kepm_plugin.devagent.border import Border
from kepm_plugin.devagent.packets import PINGREQ, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Splitter, acknowledgement
from kepm_plugin.devagent.rights import Rights
from kepm_plugin.devagent.traffic import Crossing

RIGHTS = Rights(("ok/+",), ("in/+",))


class Case:
    """A border, and what it reported."""

    def __init__(self, version: int = 4, rights: Rights = RIGHTS) -> None:
        self.version = version
        self.crossings: list[Crossing] = []
        self.rights = rights
        self.border = Border("P", version, lambda: self.rights, self.crossings.append)

    def out(self, data: bytes) -> tuple[bytes, bytes]:
        """Let the client send one packet."""
        (packet,) = Splitter().feed(data)
        return self.border.from_client(packet)

    def back(self, data: bytes) -> bytes:
        """Let the engine send one packet."""
        (packet,) = Splitter().feed(data)
        return self.border.from_engine(packet)

    def denied(self) -> list[str]:
        """Return what was denied."""
        return [crossing.topic for crossing in self.crossings if not crossing.allowed]


@pytest.fixture(params=[4, 5])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_declared_publication_passes_unchanged(case: Case, qos: int) -> None:
    data = Publish("ok/1", b"payload", qos, True, mid=9 if qos else 0).encode(case.version)
    assert case.out(data) == (data, b"")
    assert [(entry.topic, entry.payload, entry.qos, entry.retain) for entry in case.crossings] == [
        ("ok/1", b"payload", qos, True)
    ]


def test_an_undeclared_publication_is_acknowledged_and_dropped(case: Case) -> None:
    assert case.out(Publish("no", b"x").encode(case.version)) == (b"", b"")
    assert case.out(Publish("no", b"x", 1, mid=5).encode(case.version)) == (b"", acknowledgement(PUBACK, 5))
    assert case.out(Publish("no", b"x", 2, mid=6).encode(case.version)) == (b"", acknowledgement(PUBREC, 6))
    assert case.out(acknowledgement(PUBREL, 6)) == (b"", acknowledgement(PUBCOMP, 6))
    assert case.denied() == ["no", "no", "no"]


def test_a_repeated_qos_2_publication_is_recorded_once(case: Case) -> None:
    first = Publish("ok/1", b"x", 2, mid=6)
    for publish in (first, replace(first, dup=True)):
        case.out(publish.encode(case.version))
    assert len(case.crossings) == 1
    case.out(acknowledgement(PUBREL, 6))
    case.out(first.encode(case.version))
    assert len(case.crossings) == 2


def test_of_several_subscriptions_only_the_declared_ones_reach_the_engine(case: Case) -> None:
    asked = Subscribe(7, (("no/1", 1), ("in/1", 2), ("#", 0), ("in/2", 1)))
    forward, back = case.out(asked.encode(case.version))
    assert (forward, back) == (Subscribe(7, (("in/1", 2), ("in/2", 1))).encode(case.version), b"")
    merged = case.back(Suback(7, bytes([2, 0x80])).encode(case.version))
    assert merged == Suback(7, bytes([1, 2, 0, 0x80])).encode(case.version)
    assert case.border.subscriptions == {"in/1"}
    assert case.denied() == ["no/1", "#"]


def test_a_subscription_of_nothing_declared_is_granted_without_the_engine(case: Case) -> None:
    asked = Subscribe(8, (("no/1", 1), ("no/2", 0)))
    assert case.out(asked.encode(case.version)) == (b"", Suback(8, bytes([1, 0])).encode(case.version))


def test_an_unasked_suback_passes(case: Case) -> None:
    data = Suback(9, b"\1").encode(case.version)
    assert case.back(data) == data


def test_unsubscribing_passes_and_is_remembered(case: Case) -> None:
    case.out(Subscribe(1, (("in/1", 1),)).encode(case.version))
    case.back(Suback(1, b"\1").encode(case.version))
    data = unsubscribe(2, ("in/1",), case.version)
    assert case.out(data) == (data, b"")
    assert case.border.subscriptions == set()


def test_a_publication_that_the_engine_repeats_on_the_same_connection_is_dropped(case: Case) -> None:
    first = Publish("in/1", b"x", 1, mid=3)
    again = replace(first, dup=True).encode(case.version)
    assert case.back(first.encode(case.version)) == first.encode(case.version)
    assert case.back(again) == b""
    case.out(acknowledgement(PUBACK, 3))
    assert case.back(again) == again  # after the acknowledgement the id is free


def test_a_publication_that_was_begun_on_an_earlier_connection_is_delivered(case: Case) -> None:
    again = Publish("in/1", b"x", 2, dup=True, mid=3).encode(case.version)
    assert case.back(again) == again
    assert case.back(again) == b""
    case.out(acknowledgement(PUBREC, 3))
    case.out(acknowledgement(PUBCOMP, 3))
    assert case.back(again) == again


def test_an_undeclared_will_is_dropped_and_a_declared_one_kept(case: Case) -> None:
    connect = Connect(level=case.version, client_id="P", will=Will("ok/will", b"gone"))
    assert case.border.connect(connect) == connect
    assert case.border.connect(replace(connect, will=Will("no", b"gone"))) == replace(connect, will=None)
    assert case.border.connect(replace(connect, will=None)) == replace(connect, will=None)
    assert case.denied() == ["no"]


def test_rights_are_asked_anew_for_each_packet(case: Case) -> None:
    data = Publish("new", b"x", 1, mid=1).encode(case.version)
    assert case.out(data)[0] == b""
    case.rights = Rights(("new",), ())
    assert case.out(data)[0] == data


def test_a_topic_alias_is_followed() -> None:
    case = Case(5)
    named = Publish("no", b"x", 1, mid=1, properties=b"\x23\x00\x01").encode(5)
    aliased = Publish("", b"x", 1, mid=2, properties=b"\x23\x00\x01").encode(5)
    case.out(named)
    assert case.out(aliased) == (b"", acknowledgement(PUBACK, 2))
    assert case.denied() == ["no", "no"]
    with pytest.raises(ValueError, match="unknown topic alias"):
        case.out(Publish("", b"x", 1, mid=2, properties=b"\x23\x00\x02").encode(5))


def test_the_end_of_a_connection_is_told_apart_from_its_loss() -> None:
    for data, left in ((disconnect(), True), (disconnect(0), True), (disconnect(4), False)):
        case = Case(5)
        assert case.out(data) == (data, b"")
        assert case.border.left is left


@pytest.mark.parametrize("data", [connack(4), Connect(level=4, client_id="P").encode(), Suback(1, b"\0").encode(4)])
def test_a_client_must_not_send_what_a_broker_sends(data: bytes) -> None:
    with pytest.raises(ValueError, match="in the wrong place"):
        Case().out(data)


def test_other_packets_pass(case: Case) -> None:
    ping = Packet(PINGREQ, 0, b"").encode()
    assert case.out(ping) == (ping, b"")
    pong = b"\xd0\x00"
    assert case.back(pong) == pong
