"""What arrives is handed over packet by packet or read byte by byte: all of it, once, in order."""

import ssl
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kepm_plugin.broker._wire import Wire


class Socket:
    """A TLS socket that has received some records."""

    def __init__(self, *records: bytes) -> None:
        self.records = list(records)

    def getpeercert(self, binary_form: bool) -> bytes:
        return b"certificate"

    def recv(self, size: int) -> bytes:
        if not self.records:
            raise ssl.SSLWantReadError
        return self.records.pop(0)


def wire_of(*records: bytes, share: int = 2**20) -> Wire:
    socket: Any = Socket(*records)
    wire = Wire(socket)
    wire.start_reading(share)
    return wire


def packet(first: int, body: bytes) -> bytes:
    length = [len(body) & 0x7F | 0x80, len(body) >> 7] if len(body) > 127 else [len(body)]
    return bytes([first, *length]) + body


PACKETS = st.tuples(st.sampled_from([0x30, 0x32, 0x3D, 0x40, 0xD0]), st.binary(max_size=300))


@given(packets=st.lists(PACKETS, max_size=8), cuts=st.lists(st.integers(0, 2_000)), refused=st.integers(0, 9))
def test_all_comes_once_in_order(packets: list[tuple[int, bytes]], cuts: list[int], refused: int) -> None:
    stream = b"".join(packet(*one) for one in packets)
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    wire = wire_of(*(stream[a:b] for a, b in pairwise(places)))
    offered = 0
    seen = b""

    def take(first: int, data: bytes, begin: int, end: int) -> bool:
        nonlocal offered, seen
        offered += 1
        if offered == refused:
            return False
        seen += packet(first, data[begin:end])
        return True

    def read(size: int) -> bytes:
        nonlocal seen
        found = b""
        while len(found) < size:
            found += wire.recv(size - len(found))
        seen += found
        return found

    while not wire.dry:
        if wire.hand_over(take) or wire.dry:
            continue
        # As paho does: the first byte, the length, the rest.
        read(1)
        length = shift = 0
        while (byte := read(1)[0]) >= 0x80:
            length, shift = length | (byte & 0x7F) << shift, shift + 7
        read(length | byte << shift)
    assert seen == stream


def test_a_publish_that_is_here_in_full_is_never_left_to_be_read() -> None:
    packets = [packet(0x30, b"a" * size) for size in (5, 0, 127, 128, 300)]
    sizes = list[int]()
    wire = wire_of(*packets, b"".join(packets))

    def take(first: int, data: bytes, begin: int, end: int) -> bool:
        sizes.append(end - begin)
        return True

    assert wire.hand_over(take)
    assert sizes == [5, 0, 127, 128, 300] * 2
    assert wire.dry


@pytest.mark.parametrize("length", [b"\x80\x80\x80\x80\x01", b"\xff\xff\xff\xff", b"\x80", b""])
def test_a_length_that_is_none_is_left_to_be_read(length: bytes) -> None:
    wire = wire_of(b"\x30" + length)

    def take(first: int, data: bytes, begin: int, end: int) -> bool:
        raise AssertionError(data)

    assert not wire.hand_over(take)
    assert wire.recv(9) == b"\x30" + length


def test_no_more_than_its_share_is_taken_in_one_reading() -> None:
    taken = list[int]()
    wire = wire_of(*[packet(0x30, b"x" * 98)] * 10, share=250)

    def take(first: int, data: bytes, begin: int, end: int) -> bool:
        taken.append(end)
        return True

    wire.hand_over(take)
    assert len(taken) == 3
    with pytest.raises(BlockingIOError):
        wire.recv(1)
    assert wire.spent
    wire.start_reading(250)
    wire.end_reading()
    assert not wire.hand_over(take)
    assert (len(taken), wire.dry) == (3, False)
