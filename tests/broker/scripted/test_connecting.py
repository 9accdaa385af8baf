"""Connecting to what does not behave: bounded, said in plain words, and without ghosts."""

import asyncio
import contextlib
import struct
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import kepm_plugin.broker as broker_module
import kepm_plugin.peer as peer_module
from kepm_plugin.broker import BrokerAddress, ProtocolChoice, SessionOptions, Version, open_session
from kepm_plugin.errors import AgentError, AgentUnreachable, BrokerRefused, PeerNotTrusted
from kepm_plugin.message import Publication
from kepm_plugin.peer import Trust

LONG = 60.0  # seconds that no test waits for
VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])


async def attempt(
    address: BrokerAddress, *, version: Version = "5", timeout: float = LONG, choice: Any = None, **options: Any
) -> str:
    """Connect and leave; return the version that was spoken."""
    if choice is None:
        choice = ProtocolChoice()
        choice.version = version
    with anyio.fail_after(5):
        wanted = SessionOptions(client_id="MyWorker", connect_timeout=timeout, **options)
        async with open_session(address, wanted, choice, lambda batch: None) as session:
            return session.version


@VERSIONS
async def test_a_connection_closed_before_connack_is_noticed_at_once(scripted: Any, version: Version) -> None:
    choice = ProtocolChoice()
    choice.version = version
    async with scripted.listening(b"") as listener:
        with pytest.raises(AgentUnreachable, match=r"did not answer CONNECT \(the broker closed.*'MyWorker'"):
            await attempt(listener.address, choice=choice)
    assert choice.version == version  # silence says nothing about the version


async def test_a_listener_that_is_mute_before_tls_is_given_up(scripted: Any) -> None:
    async with scripted.listening(None, tls=False) as listener:
        with pytest.raises(AgentUnreachable, match=r"does not finish the TLS handshake: gave up after 1 s"):
            await attempt(listener.address, timeout=1.0)
        assert (await (await listener.peer()).rest())[:1] == b"\x16"  # a TLS hello, and then it hung up


async def test_a_listener_that_is_mute_after_connect_is_given_up(scripted: Any) -> None:
    async with scripted.listening(None) as listener:
        with pytest.raises(AgentUnreachable, match=r"does not answer CONNECT: gave up after 2 s"):
            await attempt(listener.address, timeout=2.0)
        assert (await (await listener.peer()).rest())[:1] == b"\x10"


async def test_a_listener_that_does_not_speak_tls_is_unreachable(scripted: Any) -> None:
    async with scripted.listening(b"220 mail.example.org\r\n", tls=False) as listener:
        with pytest.raises(AgentUnreachable, match="does not speak TLS"):
            await attempt(listener.address)


async def test_nobody_listens(free_tcp_port: int) -> None:
    with pytest.raises(AgentUnreachable, match=rf"127\.0\.0\.1:{free_tcp_port} cannot be reached.*broker\.port"):
        await attempt(BrokerAddress(host="127.0.0.1", port=free_tcp_port))


async def test_localhost_is_tried_at_each_of_its_addresses(scripted: Any) -> None:
    async with scripted.listening(scripted.packet(0x20, b"\0\0\0")) as listener:
        assert await attempt(BrokerAddress(host="localhost", port=listener.address.port)) == "5"


# --- CONNACK says no ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "connack", "code", "words"),
    [
        ("5", b"\0\x87\0", 0x87, "Not authorized"),
        ("5", b"\0\x85\0", 0x85, "Client identifier not valid"),
        ("3.1.1", b"\0\x05", 0x87, "Not authorized"),
        ("3.1.1", b"\0\x02", 0x85, "Client identifier not valid"),
    ],
)
async def test_a_refusal_is_named(scripted: Any, version: Version, connack: bytes, code: int, words: str) -> None:
    async with scripted.listening(scripted.packet(0x20, connack)) as listener:
        with pytest.raises(BrokerRefused, match=f"refused client id 'MyWorker': {words}.*0x{code:02X}") as caught:
            await attempt(listener.address, version=version)
        assert listener.accepted == 1
    assert caught.value.code == code


@pytest.mark.parametrize("refusal", [b"\0\x01", b"\0\x84\0"], ids=["in 3.1.1's words", "in 5's words"])
async def test_a_broker_without_mqtt_5_is_spoken_to_in_3_1_1_from_then_on(scripted: Any, refusal: bytes) -> None:
    choice = ProtocolChoice()
    async with scripted.listening(scripted.packet(0x20, refusal)) as listener:
        with pytest.raises(AgentError):  # it refuses 3.1.1 too
            await attempt(listener.address, choice=choice)
        first, second = await listener.peer(), await listener.peer()
        assert (first.connect[6], second.connect[6], choice.version) == (5, 4, "3.1.1")
        listener.connack = scripted.packet(0x20, b"\0\0")
        assert await attempt(listener.address, choice=choice) == "3.1.1"
        assert listener.accepted == 3


async def test_what_answers_connect_with_something_else_is_no_broker(scripted: Any) -> None:
    async with scripted.listening(scripted.packet(0xF0, b"")) as listener:
        with pytest.raises(AgentUnreachable, match="sent what is not MQTT"):
            await attempt(listener.address)


# --- CONNECT --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clean", "flags"), [(True, 0x02), (False, 0x00)])
async def test_connect_3_1_1_says_who_and_how(scripted: Any, inbox: Any, clean: bool, flags: int) -> None:
    async with scripted.session("3.1.1", inbox, clean=clean, keep_alive=45) as (_, peer):
        assert peer.connect == b"\0\x04MQTT\x04" + bytes([flags]) + b"\0\x2d" + b"\0\x01P"


@pytest.mark.parametrize(("clean", "flags"), [(True, 0x02), (False, 0x00)])
async def test_connect_5_says_who_and_how_and_for_how_long(scripted: Any, inbox: Any, clean: bool, flags: int) -> None:
    async with scripted.session("5", inbox, clean=clean, session_expiry=600) as (link, peer):
        expiry = b"" if clean else b"\x11" + struct.pack("!I", 600)
        properties = expiry + b"\x21" + struct.pack("!H", 512)
        assert peer.connect == b"\0\x04MQTT\x05" + bytes([flags]) + b"\0\x4b" + bytes([len(properties)]) + (
            properties + b"\0\x01P"
        )
        assert link.version == "5"


async def test_connect_carries_the_will(scripted: Any, inbox: Any) -> None:
    will = Publication("P/Status", b"gone", qos=1, retain=True)
    async with scripted.session("3.1.1", inbox, will=will) as (_, peer):
        assert peer.connect[7] == 0x02 | 0x04 | 0x08 | 0x20
        assert peer.connect.endswith(b"\0\x01P\0\x08P/Status\0\x04gone")


async def test_connack_5_limits_what_is_sent(scripted: Any, inbox: Any) -> None:
    """Receive maximum 3, maximum QoS 0, no retained messages."""
    connack = scripted.packet(0x20, b"\x01\0\x07\x21\0\x03\x24\0\x25\0")
    async with scripted.session("5", inbox, connack=connack) as (link, peer):
        assert (link.in_flight_maximum, link.session_present) == (3, True)
        link.publish(Publication("a", b"x", qos=1, retain=True))
        await peer.expect(b"\x30\x05\0\x01a\0x")


# --- whom -----------------------------------------------------------------------------------------------------------


async def test_a_stranger_is_refused_before_a_byte_is_sent(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(local: object, remote: object, policy: object, *, answered: bool) -> None:
        raise PeerNotTrusted(f"{remote} under {policy}")

    def unknown(*_: object, answered: bool) -> bool:
        return False

    monkeypatch.setattr(peer_module, "check_peer", refuse)
    monkeypatch.setattr(peer_module, "known_peer", unknown)
    async with scripted.listening(None, tls=False) as listener:
        with pytest.raises(PeerNotTrusted, match=f"{listener.address.port}.*require"):
            await attempt(listener.address, peer="require")
        assert await (await listener.peer()).rest() == b""


async def test_a_bundle_is_the_proof_where_there_is_one(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_module, "check_peer", pytest.fail)
    monkeypatch.setattr(peer_module, "known_peer", pytest.fail)
    async with scripted.listening(scripted.packet(0x20, b"\0\0\0")) as listener:
        await attempt(listener.address, ca_bundle=scripted.certificate.file)


async def test_a_certificate_that_the_bundle_does_not_hold_is_refused(scripted: Any, other_certificate: Any) -> None:
    async with scripted.listening(scripted.packet(0x20, b"\0\0\0")) as listener:
        with pytest.raises(PeerNotTrusted, match=r"CA bundle.*export it again"):
            await attempt(listener.address, ca_bundle=other_certificate.file)


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example", ".example", "\0"])
async def test_a_host_that_is_none_is_unreachable_and_no_crash(certificate: Any, host: str) -> None:
    """`broker.host` is whatever the agent's settings say."""
    with pytest.raises(AgentUnreachable, match="cannot be reached"):
        await attempt(BrokerAddress(host=host, port=8675), ca_bundle=certificate.file)


async def test_another_host_needs_a_bundle() -> None:
    with pytest.raises(PeerNotTrusted, match="CA bundle"):
        await attempt(BrokerAddress(host="10.0.0.1", port=8675))


async def test_a_bundle_that_is_just_being_replaced_fails_one_attempt_and_not_the_next(
    scripted: Any, tmp_path: Path
) -> None:
    bundle = tmp_path / "agent.pem"
    for text in (None, "", "-----BEGIN CERTIFICATE-----"):
        if text is not None:
            bundle.write_text(text)
        with pytest.raises(AgentError, match=r"agent\.pem cannot be used"):
            await attempt(BrokerAddress(), ca_bundle=bundle)
    bundle.write_bytes(scripted.certificate.file.read_bytes())
    async with scripted.listening(scripted.packet(0x20, b"\0\0\0")) as listener:
        await attempt(listener.address, ca_bundle=bundle)


# --- giving up ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connack", [b"\x20\x03\0\0\0", b""], ids=["answered", "mute"])
async def test_an_attempt_given_up_at_any_moment_leaves_no_ghost(scripted: Any, connack: bytes) -> None:
    """A CONNECT that is sent, or stays, after its attempt would take the client id from the next one."""
    alive = attempts = connects = connected = 0
    last = False
    ended = anyio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal alive, connects, last
        alive += 1
        with contextlib.suppress(ConnectionError):
            first = await reader.read(1000)
            connects += first[:1] == b"\x10"
            last = last or first == b"last"
            writer.write(connack)
            await reader.read()
        writer.close()
        alive -= 1
        if last and not alive:
            ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=scripted.certificate.server_context())
    address = BrokerAddress(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    options = SessionOptions(client_id="MyWorker", connect_timeout=LONG)
    async with server:
        while attempts < 80 or not (connected if connack else connects):  # on a busy machine, more are needed
            attempts += 1
            with anyio.move_on_after(0.00025 * 1.08**attempts):  # from before TCP to after CONNACK
                async with open_session(address, options, ProtocolChoice(), lambda batch: None):
                    connected += 1
        _, writer = await asyncio.open_connection(address.host, address.port, ssl=Trust().context(address.host))
        writer.write(b"last")
        writer.close()
        with anyio.fail_after(5):
            await ended.wait()
    assert 0 < connects < attempts
    assert bool(connected) == bool(connack)


async def test_cancelled_in_the_middle_of_tls_it_hangs_up(scripted: Any) -> None:
    async with scripted.listening(None, tls=False) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(attempt, listener.address)
        peer = await listener.peer()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            assert b"MQTT" not in await peer.rest()


async def test_leaving_a_broker_that_does_not_read_is_bounded(
    scripted: Any, inbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "_CLOSE_GRACE", 0.1)
    with anyio.fail_after(5):
        async with scripted.session("5", inbox) as (link, peer):
            peer.writer.transport.pause_reading()
            for _ in range(100):
                link.publish(Publication("a", bytes(100_000), qos=0))


async def test_leaving_while_cancelled_still_says_disconnect(scripted: Any) -> None:
    async with scripted.listening(scripted.packet(0x20, b"\0\0\0")) as listener:
        with anyio.CancelScope() as scope:
            async with open_session(
                listener.address, SessionOptions(client_id="P"), ProtocolChoice(), lambda batch: None
            ):
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert await (await listener.peer()).rest() == b"\xe0\x00"


def test_the_defaults_are_the_documented_ones() -> None:
    assert BrokerAddress() == BrokerAddress(host="127.0.0.1", port=8675)
