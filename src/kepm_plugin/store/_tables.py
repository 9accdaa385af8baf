"""How messages and publications lie in the tables of the plugin's file."""

import json
from collections.abc import Sequence
from typing import Any, Final

from ..database import Schema
from ..message import EMPTY, Publication, Received

# The size comes first: SQLite reads a row from its start, and a payload may fill many pages.
_MESSAGE_COLUMNS: Final = """size INTEGER NOT NULL, topic BLOB NOT NULL, payload BLOB NOT NULL, qos INTEGER NOT NULL,
    retained INTEGER NOT NULL, received_at REAL NOT NULL, response_topic BLOB, correlation_data BLOB, properties TEXT"""
_MESSAGE: Final = "topic, payload, qos, retained, received_at, response_topic, correlation_data, properties"
FROM: Final = f"""SELECT id, begun, attempts, due, size, {_MESSAGE} FROM journal
    WHERE id >= ? AND ticket IS NULL AND (begun > 0 OR id <= ?) ORDER BY id LIMIT ?"""  # noqa: S608  constants
# Put back by a command, and not taken up by the plugin that runs; what an earlier run left is taken up anyway.
PUT_BACK_SINCE: Final = f"""SELECT id, size, {_MESSAGE} FROM journal
    WHERE begun = 0 AND id > ? ORDER BY id LIMIT ?"""  # noqa: S608  constants
TICKET: Final = f"SELECT id, {_MESSAGE} FROM journal WHERE ticket = ?"  # noqa: S608  constants
EXPIRED: Final = f"""SELECT id, {_MESSAGE} FROM journal
    WHERE ticket IS NOT NULL AND received_at > ? AND received_at < ? ORDER BY id LIMIT ?"""  # noqa: S608  constants
TOTALS: Final = "SELECT count(*), coalesce(sum(size), 0), coalesce(max(id), 0) FROM journal"
TOTALS_BETWEEN: Final = "SELECT count(*), coalesce(sum(size), 0) FROM journal WHERE id BETWEEN ? AND ?"
KEPT: Final = """SELECT id, size, topic, payload, qos, retain, correlation_data FROM kept
    WHERE id >= ? ORDER BY id LIMIT ?"""
KEPT_TOTALS: Final = "SELECT kind, count(*), sum(size) FROM kept GROUP BY kind"
KEPT_LAST: Final = "SELECT coalesce(max(id), 0) FROM kept"
KEPT_EXPIRED: Final = "SELECT id FROM kept WHERE kind != ? AND kept_at > ? AND kept_at < ? ORDER BY id"
_LETTER: Final = f"SELECT id, reason, details, buried_at, deliveries, {_MESSAGE} FROM dead"  # noqa: S608  constants
DEAD: Final = f"{_LETTER} ORDER BY id"
LETTER: Final = f"{_LETTER} WHERE id = ?"
LIST: Final = """SELECT id, topic, reason, length(payload), qos, buried_at, received_at, deliveries FROM dead
    ORDER BY id"""
DEAD_SIZES: Final = "SELECT id, size, buried_at FROM dead ORDER BY id"
DELIVERIES: Final = "SELECT begun + attempts FROM journal WHERE id = ?"
IDENTITY: Final = "SELECT printf('%08x', value) FROM counters WHERE name = 'identity'"
DROPPED: Final = "SELECT value FROM counters WHERE name = 'dead_letters_dropped'"
JOURNAL: Final = "INSERT INTO journal VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
KEEP: Final = "INSERT INTO kept VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)"
BURY: Final = "INSERT INTO dead VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
COUNT: Final = """INSERT INTO counters VALUES ('dead_letters_dropped', ?)
    ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"""

CLOCK_IS_SET: Final = 1_577_836_800.0
"""The year 2020: a machine whose clock says less has not asked for the time yet, and the age of what it got is unknown.
"""

ROW: Final = 100
"""Bytes that a row costs besides its payload and topic, roughly."""

PUT_BACK: Final = f"""INSERT INTO journal (begun, attempts, size, received_at, topic, payload, qos, retained,
        response_topic, correlation_data, properties)
    SELECT 0, 0, {ROW} + length(topic) + length(payload), ?, topic, payload, qos, retained,
        response_topic, correlation_data, properties FROM dead WHERE id = ?"""  # noqa: S608  constants

# AUTOINCREMENT: an id is never given twice, so that one kept elsewhere cannot come to mean another message.
SCHEMA: Final = Schema(
    version=1,
    script=f"""
        CREATE TABLE journal (id INTEGER PRIMARY KEY AUTOINCREMENT, begun INTEGER NOT NULL,
            attempts INTEGER NOT NULL, due REAL, ticket TEXT, {_MESSAGE_COLUMNS});
        CREATE UNIQUE INDEX tickets ON journal (ticket) WHERE ticket IS NOT NULL;
        CREATE INDEX put_back ON journal (id) WHERE begun = 0;
        CREATE TABLE kept (id INTEGER PRIMARY KEY AUTOINCREMENT, kind INTEGER NOT NULL, size INTEGER NOT NULL,
            kept_at REAL NOT NULL, topic BLOB NOT NULL, payload BLOB NOT NULL, qos INTEGER NOT NULL,
            retain INTEGER NOT NULL, correlation_data BLOB);
        CREATE TABLE dead (id INTEGER PRIMARY KEY AUTOINCREMENT, reason TEXT NOT NULL, details TEXT NOT NULL,
            buried_at REAL NOT NULL, deliveries INTEGER, {_MESSAGE_COLUMNS});
        CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
        INSERT INTO counters VALUES ('identity', random() & 0xffffffff)""",  # noqa: S608  constants
    queries=(
        FROM,
        PUT_BACK_SINCE,
        TICKET,
        EXPIRED,
        TOTALS,
        KEPT,
        KEPT_TOTALS,
        KEPT_EXPIRED,
        DEAD,
        LIST,
        DEAD_SIZES,
        DROPPED,
        IDENTITY,
    ),
)


def size_of(received: Received) -> int:
    return ROW + len(received.payload) + len(received.topic)


def to_row(received: Received) -> tuple[object, ...]:
    return (
        topic_bytes(received.topic),
        received.payload,
        received.qos,
        received.retained,
        received.received_at,
        None if received.response_topic is None else topic_bytes(received.response_topic),
        received.correlation_data,
        json.dumps(dict(received.properties)) if received.properties else None,
    )


def from_row(row: Sequence[Any]) -> Received:
    topic, payload, qos, retained, received_at, response_topic, correlation_data, properties = row
    return Received(
        topic=topic_text(topic),
        payload=payload,
        qos=qos,
        retained=bool(retained),
        received_at=received_at,
        response_topic=None if response_topic is None else topic_text(response_topic),
        correlation_data=correlation_data,
        properties=json.loads(properties) if properties else EMPTY,
    )


def publication_row(publication: Publication) -> tuple[object, ...]:
    return (
        topic_bytes(publication.topic),
        publication.payload,
        publication.qos,
        publication.retain,
        publication.correlation_data,
    )


def to_publication(row: Sequence[Any]) -> Publication:
    topic, payload, qos, retain, correlation_data = row
    return Publication(topic_text(topic), payload, qos, bool(retain), correlation_data)


def topic_bytes(topic: str) -> bytes:
    """Encode a topic; a broker may let one pass that is no UTF-8, and what came is kept as it came."""
    return topic.encode("utf-8", "surrogatepass")


def topic_text(topic: bytes) -> str:
    return topic.decode("utf-8", "surrogatepass")


def plain(text: str) -> str:
    """Make a text printable: an error's message may quote a topic that is no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
