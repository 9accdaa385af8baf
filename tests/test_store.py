import logging
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import mkdtemp

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from kepm_plugin.errors import StoreError
from kepm_plugin.message import Publication, Received
from kepm_plugin.store import FILE, Journalled, Keep, Letters, Limits, Store, memory_store, open_letters, open_store

SCAN = Received("MyWorker/Commands/scan", b"{}", qos=1, mid=7, received_at=1.5)
ANSWER = Publication("MyWorker/Responses/scan", b'{"ok":true}')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "MyWorker"


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, folder: Path) -> Generator[Store]:
    with open_store(folder) if request.param == "file" else memory_store() as opened:
        yield opened


def test_what_is_journalled_comes_back_as_it_came_but_for_the_packet_identifier(folder: Path) -> None:
    full = Received(
        "a/\udcff/b",  # a topic that is no UTF-8
        b"\x00\xff",
        qos=1,
        retained=True,
        mid=9,
        received_at=12.25,
        response_topic="back/to",
        correlation_data=b"\x01",
        properties={"host": "a", "é": "\udcff"},
    )
    with open_store(folder) as store:
        assert [one.received for one in store.journal([full, SCAN])] == [full, SCAN]
    with open_store(folder) as store:
        left = store.unfinished()
    assert [one.received for one in left] == [_without_mid(full), _without_mid(SCAN)]


def test_ids_ascend_and_are_never_given_twice(folder: Path) -> None:
    with open_store(folder) as store:
        first, second = store.journal([SCAN, SCAN])
        store.finish(first.id)
        store.finish(second.id)
    with open_store(folder) as store:
        (third,) = store.journal([SCAN])
    assert first.id < second.id < third.id


def test_a_delivery_is_counted_when_it_begins_and_the_first_one_always(folder: Path) -> None:
    with open_store(folder) as store:
        (left,) = store.journal([SCAN])
    for begun, delivery in ((None, 2), (None, 2), (2, 2), (3, 3), (2, 4), (None, 3)):
        with open_store(folder) as store:
            (own,) = store.journal([SCAN])
            assert store.unfinished() == [Journalled(left.id, _without_mid(SCAN), delivery)]
            assert [one.delivery for one in store.read_from(0, 9)] == [delivery, 1]
            store.finish(own.id)
            if begun:
                store.begin(left.id, begun)


def test_what_is_left_is_read_in_parts_of_a_bounded_size(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.store._journal.PART", 3)
    monkeypatch.setattr("kepm_plugin.store._journal.PART_BYTES", 500)
    large = Received("t", bytes(500), qos=1)
    with open_store(folder) as store:
        ids = [one.id for one in store.journal([SCAN] * 4 + [large] * 2)]
    with open_store(folder) as store:
        store.journal([SCAN])
        parts, last = list[list[int]](), 0
        while part := [one.id for one in store.unfinished(after=last)]:
            parts.append(part)
            last = part[-1]
    assert parts == [ids[:3], ids[3:5], ids[5:]]


def test_a_message_is_done_in_the_commit_that_holds_its_answers(store: Store) -> None:
    (one,) = store.journal([SCAN])
    kept = store.finish(one.id, [ANSWER, ANSWER])
    assert store.unfinished_count() == 0
    assert store.kept() == [(id, ANSWER) for id in kept]  # noqa: A001
    store.keep((), kept[:1])
    assert store.kept() == [(kept[1], ANSWER)]


@pytest.mark.parametrize("ended", [[], [1], [2, 3], [3, 1, 2, 6], [1, 3, 5], [6, 7, 8], [2, 2]])
def test_many_messages_are_finished_at_once_in_any_order_and_the_totals_are_right(
    store: Store, ended: list[int]
) -> None:
    large = Received("t", bytes(500), qos=1)
    rows = store.journal([SCAN, large, SCAN, large, SCAN, large])
    assert [row.id for row in rows] == [1, 2, 3, 4, 5, 6]
    store.finish_all(ended)
    left = [row for row in rows if row.id not in ended]
    assert [row.id for row in store.read_from(0, 99)] == [row.id for row in left]
    assert store.unfinished_count() == len(left)
    assert store.unfinished_bytes() == sum(_size(row.received) for row in left)


def test_many_messages_are_finished_in_one_commit(folder: Path) -> None:
    with open_store(folder) as store, closing(sqlite3.connect(folder / FILE)) as beside:
        rows = store.journal([SCAN] * 5)
        beside.execute("BEGIN IMMEDIATE")  # no commit comes through, and no part of one
        with pytest.raises(StoreError, match="cannot finish messages"):
            store.finish_all([rows[0].id, rows[2].id])
        assert (store.unfinished_count(), len(store.read_from(0, 99))) == (5, 5)
        beside.execute("ROLLBACK")
        store.finish_all([rows[0].id, rows[2].id])
        assert (store.unfinished_count(), len(store.read_from(0, 99))) == (3, 3)


def test_finishing_an_unknown_message_keeps_its_answers_and_nothing_else_changes(store: Store) -> None:
    store.journal([SCAN])
    assert len(store.finish(99, [ANSWER])) == 1
    assert store.unfinished_count() == 1


def test_nothing_to_write_is_no_commit(store: Store) -> None:
    assert store.journal([]) == []
    assert store.keep([]) == []
    assert store.kept() == []


def test_a_dead_letter_says_what_why_and_when(folder: Path) -> None:
    with open_store(folder, now=lambda: 1_000.0) as store:
        (one,) = store.journal([SCAN])
        store.bury(SCAN, reason="no handler", details="for \udcff", id=one.id)
        store.bury(SCAN, reason="other", details="")
        assert store.unfinished_count() == 0
    with open_store(folder) as store:
        first, second = store.dead_letters()
    assert (first.received, first.reason, first.details, first.buried_at) == (
        _without_mid(SCAN),
        "no handler",
        r"for \udcff",
        1_000.0,
    )
    assert second.reason == "other"


def test_a_dead_letter_and_the_answer_to_it_are_one_commit(store: Store) -> None:
    (one,) = store.journal([SCAN])
    kept = store.bury(SCAN, reason="no handler", details="", id=one.id, answers=[ANSWER])
    assert store.kept() == [(kept[0], ANSWER)]
    assert store.unfinished_count() == 0


def test_the_journal_can_be_read_in_parts_from_a_number_on(store: Store) -> None:
    ids = [one.id for one in store.journal([SCAN] * 5)]
    store.finish(ids[2])
    assert [one.id for one in store.read_from(ids[1], 2)] == [ids[1], ids[3]]
    assert store.read_from(ids[4] + 1, 2) == []


def test_kept_publications_are_read_in_parts_of_a_bounded_size(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.store._kept.PART_BYTES", 500)
    large = Publication("t", bytes(500))
    ids = store.keep([(Keep.PUBLICATION, each) for each in (ANSWER, ANSWER, ANSWER, large, large)])
    assert [number for number, _ in store.kept(ids[0], 2)] == ids[:2]
    assert [number for number, _ in store.kept(ids[2], 9)] == ids[2:4]
    assert [number for number, _ in store.kept(ids[4], 9)] == ids[4:]


def test_the_oldest_dead_letters_go_and_are_counted_across_runs(folder: Path) -> None:
    limits = Limits(dead_letters=3)
    with open_store(folder, limits=limits) as store:
        for number in range(5):
            store.bury(SCAN, reason=str(number), details="")
        assert [letter.reason for letter in store.dead_letters()] == ["2", "3", "4"]
    with open_store(folder, limits=limits) as store:
        store.bury(SCAN, reason="5", details="")
        assert [letter.reason for letter in store.dead_letters()] == ["3", "4", "5"]
        assert store.dead_letters_dropped() == 3


def test_dead_letters_are_bounded_by_bytes_and_the_newest_stays() -> None:
    with memory_store(limits=Limits(dead_letter_bytes=10_000)) as small:
        for number in range(5):
            small.bury(Received("t", bytes(4_000)), reason=str(number), details="")
        assert [letter.reason for letter in small.dead_letters()] == ["3", "4"]
        small.bury(Received("t", bytes(20_000)), reason="large", details="")
        assert [letter.reason for letter in small.dead_letters()] == ["large"]
        assert small.dead_letters_dropped() == 5


DAY = 86_400.0


def test_dead_letters_that_are_too_old_go_at_the_next_burial_and_when_the_file_is_opened(folder: Path) -> None:
    now = 2e9
    limits = Limits(dead_letter_age=30 * DAY)
    with open_store(folder, limits=limits, now=lambda: now) as store:
        for number in range(4):
            store.bury(SCAN, reason=str(number), details="")
            now += 10 * DAY
        assert [letter.reason for letter in store.dead_letters()] == ["0", "1", "2", "3"], "on the day itself"
        store.bury(SCAN, reason="4", details="")
        assert [letter.reason for letter in store.dead_letters()] == ["1", "2", "3", "4"]
        now += 20 * DAY
    with open_store(folder, limits=limits, now=lambda: now) as store:
        assert [letter.reason for letter in store.dead_letters()] == ["3", "4"]
        assert store.dead_letters_dropped() == 3
        assert store.report() == {"deadLetters": 2, "deadLettersDropped": 3}
    with open_store(folder, limits=limits, now=lambda: now) as store:
        assert store.report() == {"deadLetters": 2, "deadLettersDropped": 3}


def test_the_age_of_a_letter_is_not_known_where_the_clock_was_not_set(folder: Path) -> None:
    now = 5.0
    with open_store(folder, now=lambda: now) as store:
        store.bury(SCAN, reason="unknown", details="")
        now = 2e9
        store.bury(SCAN, reason="old", details="")
        now += 20 * DAY
        store.bury(SCAN, reason="new", details="")
        assert [letter.reason for letter in store.dead_letters()] == ["unknown", "old", "new"]
        now += 20 * DAY
        store.bury(SCAN, reason="newer", details="")
        # What came before one that is too old is too old as well.
        assert [letter.reason for letter in store.dead_letters()] == ["new", "newer"]


def test_old_letters_that_cannot_be_deleted_keep_no_plugin_from_starting(folder: Path) -> None:
    with open_store(folder, now=lambda: 2e9) as store:
        store.bury(SCAN, reason="old", details="")
    with closing(sqlite3.connect(folder / FILE)) as other:
        other.execute("CREATE TRIGGER full BEFORE DELETE ON dead BEGIN SELECT RAISE(FAIL, 'disk full'); END")
    with open_store(folder, now=lambda: 3e9) as store:
        assert store.report() == {"deadLetters": 1, "deadLettersDropped": 0}
        store.journal([SCAN])


def test_a_letter_knows_how_often_its_handler_had_the_message(folder: Path) -> None:
    with open_store(folder) as store:
        once, tried, left = store.journal([SCAN] * 3)
        store.bury(SCAN, reason="failed", details="", id=once.id)
        store.postpone(tried.id, 2, 0.0)
        store.bury(SCAN, reason="failed", details="", id=tried.id)
        store.bury(SCAN, reason="QoS 0", details="")
    with open_store(folder) as store:
        store.begin(left.id, 2)
        store.bury(SCAN, reason="failed", details="", id=left.id)
        assert [letter.deliveries for letter in store.dead_letters()] == [1, 3, None, 2]


# --- what a command in another process changes ------------------------------------------------------------------------


@contextmanager
def letters_of(folder: Path, now: float = 3e9) -> Generator[Letters]:
    """The letters as a command has them: over a connection of its own."""
    with open_letters(folder / FILE, writable=True, now=lambda: now) as letters:
        assert letters is not None
        yield letters


def added(store: Store) -> list[Journalled]:
    found = list[Journalled]()
    while rows := store.added_by_others():
        found += rows
    return found


def test_a_letter_is_put_back_as_it_came_and_begins_anew(folder: Path) -> None:
    full = Received(
        "a/\udcff/b",
        b"\x00\xff",
        qos=2,
        retained=True,
        received_at=12.25,
        response_topic="back/to",
        correlation_data=b"\x01",
        properties={"é": "\udcff"},
    )
    anew = msgspec.structs.replace(full, received_at=3e9)
    with open_store(folder) as store:
        (row,) = store.journal([full])
        store.postpone(row.id, 3, 5e9)
        store.bury(full, reason="failed", details="", id=row.id)
        (letter,) = store.dead_letters()
        with letters_of(folder) as letters:
            assert letters.read(letter.id) == letter
            assert letters.put_back(letter.id)
            assert not letters.put_back(letter.id)
            assert letters.read(letter.id) is None
        (back,) = added(store)
        assert back == Journalled(back.id, anew, 1)
        assert (store.unfinished_count(), store.report()["deadLetters"]) == (1, 0)
        assert added(store) == []
        assert store.read_from(0, 9) == [back]
    with open_store(folder) as store:
        assert store.unfinished() == [Journalled(back.id, anew, 2)]
        assert added(store) == []


def test_what_is_put_back_while_no_plugin_runs_is_left_over_like_the_rest(folder: Path) -> None:
    with open_store(folder) as store:
        store.bury(SCAN, reason="failed", details="")
        (left,) = store.journal([SCAN])
        (letter,) = store.dead_letters()
    with letters_of(folder) as letters:
        letters.put_back(letter.id)
    with open_store(folder) as store:
        # Not the first delivery, which is never counted: a message that ends the process would do so for ever.
        assert [(row.id, row.delivery) for row in store.unfinished()] == [(left.id, 2), (left.id + 1, 2)]
        assert added(store) == []


def test_what_is_put_back_is_not_read_from_the_journal_before_it_was_taken_up(folder: Path) -> None:
    with open_store(folder) as store:
        store.bury(SCAN, reason="failed", details="")
        (first,) = store.journal([SCAN])
        with letters_of(folder) as letters:
            letters.put_back(1)
        (third,) = store.journal([SCAN])
        assert third.id == first.id + 2
        assert [row.id for row in store.read_from(0, 9)] == [first.id, third.id]
        assert [row.id for row in added(store)] == [first.id + 1]
        assert [row.id for row in store.read_from(0, 9)] == [first.id, first.id + 1, third.id]


def test_many_that_are_put_back_are_taken_up_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.store._journal.PART", 3)
    monkeypatch.setattr("kepm_plugin.store._journal.PART_BYTES", 500)
    with open_store(folder) as store:
        for size in (0, 0, 0, 0, 600, 0):
            store.bury(Received("t", bytes(size)), reason="failed", details="")
        with letters_of(folder) as letters:
            for entry in letters.all():
                letters.put_back(entry.id)
        parts = list[int]()
        while rows := store.added_by_others():
            parts.append(len(rows))
        assert parts == [3, 2, 1]
        assert store.unfinished_count() == 6


def test_totals_are_right_after_others_have_deleted_letters(folder: Path) -> None:
    limits = Limits(dead_letters=3)
    with open_store(folder, limits=limits) as store:
        for number in range(3):
            store.bury(SCAN, reason=str(number), details="")
        with letters_of(folder) as letters:
            assert letters.purge([1, 2, 99]) == 2
        # Nobody has looked yet: a burial must not count on letters that are gone.
        store.bury(SCAN, reason="3", details="")
        assert [letter.reason for letter in store.dead_letters()] == ["2", "3"]
        assert store.report() == {"deadLetters": 2, "deadLettersDropped": 0}
        with letters_of(folder) as letters:
            letters.purge([3])
        assert store.report()["deadLetters"] == 2
        assert added(store) == []
        assert store.report()["deadLetters"] == 1


def test_where_nobody_has_written_nothing_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.bury(SCAN, reason="failed", details="")
    monkeypatch.delattr("kepm_plugin.store._dead.DeadLetters.refresh")
    assert store.added_by_others() == []


def test_what_could_not_be_taken_up_is_found_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.database._file.BUSY", 0.01)
    with open_store(folder) as store:
        store.bury(SCAN, reason="failed", details="")
        with letters_of(folder) as letters:
            letters.put_back(1)
        with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                store.added_by_others()
        assert len(added(store)) == 1


def test_a_full_journal_refuses_until_something_is_finished() -> None:
    with memory_store(limits=Limits(journal_bytes=1_000)) as store:
        first, _ = store.journal([Received("t", bytes(500)), Received("t", bytes(600))])
        with pytest.raises(StoreError, match=r"2 messages and is full .* `concurrency`"):
            store.journal([SCAN])
        store.finish(first.id)
        store.journal([SCAN])
        assert store.unfinished_count() == 2
        assert 600 < store.unfinished_bytes() < 1_000


def test_only_the_owner_can_read_the_files(folder: Path) -> None:
    with open_store(folder) as store:
        store.journal([SCAN])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert set(modes) == {FILE, f"{FILE}-wal", f"{FILE}-shm"}
    assert set(modes.values()) == {0o600}


def _garbage(file: Path) -> None:
    file.write_bytes(b"no database" * 100)


def _torn(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\xff" * 4096 + whole[8192:])


def _newer(file: Path) -> None:
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()


def _foreign(file: Path) -> None:
    file.unlink()
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE journal (other)")
        db.execute("PRAGMA user_version = 1")
    db.close()


@pytest.mark.parametrize(
    ("spoil", "fault"), [(_garbage, "damaged"), (_torn, "damaged"), (_newer, "newer"), (_foreign, "damaged")]
)
def test_a_file_that_cannot_be_used_is_set_aside_with_a_warning_and_replaced(
    folder: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None], fault: str
) -> None:
    with open_store(folder) as store:
        store.journal([SCAN])
    spoil(folder / FILE)
    before = (folder / FILE).read_bytes()
    (folder / f"{FILE}-wal").write_bytes(b"left by a crash")
    with caplog.at_level(logging.WARNING), open_store(folder, now=lambda: 0.0) as store:
        assert store.unfinished() == []
        store.journal([SCAN])
    aside = f"{FILE}.{fault}-19700101T000000.000000Z"
    assert (folder / aside).read_bytes() == before
    assert f"is {fault} and was set aside as {aside}" in caplog.text
    with open_store(folder) as store:
        assert store.unfinished_count() == 1


def test_a_failed_write_is_named_and_changes_nothing(folder: Path) -> None:
    with open_store(folder) as store:
        store.journal([SCAN])
        with sqlite3.connect(folder / FILE) as other:
            other.execute(
                "CREATE TRIGGER full BEFORE INSERT ON journal WHEN NEW.qos = 2 "
                "BEGIN SELECT RAISE(FAIL, 'disk full'); END"
            )
        other.close()
        with pytest.raises(StoreError, match=r"cannot journal messages in .*plugin\.db: disk full; .*--data-dir"):
            store.journal([SCAN, Received("t", b"", qos=2)])
        assert store.unfinished_count() == 1
        store.journal([SCAN])
        assert store.unfinished_count() == 2
    with open_store(folder) as store:
        assert store.unfinished_count() == 2


def test_a_file_that_another_process_holds_is_named_after_a_bounded_wait(folder: Path) -> None:
    with open_store(folder) as store:
        other = sqlite3.connect(folder / FILE, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.keep([(Keep.ANSWER, ANSWER)])
        other.execute("ROLLBACK")
        other.close()
        store.keep([(Keep.ANSWER, ANSWER)])
        assert len(store.kept()) == 1


def test_a_place_that_cannot_hold_the_file_is_named(folder: Path) -> None:
    (folder / FILE).mkdir(parents=True)
    with pytest.raises(StoreError, match=r"cannot open in .*plugin\.db"), open_store(folder):
        pass


CHILD = """
import sys
from pathlib import Path
from kepm_plugin.message import Publication, Received
from kepm_plugin.store import open_store
with open_store(Path(sys.argv[1])) as store:
    first, second, third = store.journal([Received(f"t/{n}", bytes([n]), qos=1) for n in range(3)])
    store.finish(first.id, [Publication("answer", b"1")])
    store.bury(second.received, reason="no handler", details="", id=second.id)
    print("committed", flush=True)
    sys.stdin.read()
"""


def test_what_was_committed_survives_the_kill_of_the_process(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "committed\n"
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait(5) == -signal.SIGKILL
    with open_store(folder) as store:
        assert [(one.received.topic, one.delivery) for one in store.unfinished()] == [("t/2", 2)]
        assert [publication.payload for _, publication in store.kept()] == [b"1"]
        assert [letter.received.topic for letter in store.dead_letters()] == ["t/1"]


def _without_mid(received: Received) -> Received:
    return Received(
        received.topic,
        received.payload,
        received.qos,
        received.retained,
        0,
        received.received_at,
        received.response_topic,
        received.correlation_data,
        received.properties,
    )


TEXTS = st.text(st.characters(), max_size=5)
RECEIVED = st.builds(
    Received,
    topic=TEXTS,
    payload=st.binary(max_size=300),
    qos=st.sampled_from([0, 1, 2]),
    retained=st.booleans(),
    received_at=st.floats(min_value=0, max_value=1e10),
    response_topic=st.none() | TEXTS,
    correlation_data=st.none() | st.binary(max_size=3),
    properties=st.dictionaries(TEXTS, TEXTS, max_size=2),
)
PUBLICATIONS = st.builds(
    Publication,
    topic=TEXTS,
    payload=st.binary(max_size=5),
    qos=st.sampled_from([0, 1, 2]),
    retain=st.booleans(),
    correlation_data=st.none() | st.binary(max_size=3),
)
LIMITS = Limits(journal_bytes=2_000, dead_letters=3, dead_letter_bytes=700)


class StoreMachine(RuleBasedStateMachine):
    """Dictionaries say what the file must hold after any sequence of calls, closing and opening included."""

    messages = Bundle[int]("messages")
    publications = Bundle[int]("publications")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp())
        self.journalled: dict[int, Journalled] = {}
        self.inherited: set[int] = set()
        self.kept: dict[int, Publication] = {}
        self.dead: list[tuple[Received, str]] = []
        self.put_back: set[int] = set()
        self.dropped = 0
        self.opened = ExitStack()

    @initialize()
    def open(self) -> None:
        self.store = self.opened.enter_context(open_store(self.folder, limits=LIMITS))
        self.inherited, self.put_back = set(self.journalled), set()

    @rule()
    def reopen(self) -> None:
        self.opened.close()
        self.open()

    @rule(target=messages, batch=st.lists(RECEIVED, max_size=3))
    def journal(self, batch: list[Received]) -> MultipleResults[int]:
        self.look_again()  # the bound is that of what is known
        full = sum(_size(one.received) for one in self.journalled.values()) >= LIMITS.journal_bytes
        if full and batch:
            with pytest.raises(StoreError):
                self.store.journal(batch)
            return multiple()
        new = self.store.journal(batch)
        assert [one.received for one in new] == batch
        assert [one.id for one in new] == sorted(one.id for one in new)
        assert not {one.id for one in new} & set(self.journalled)
        self.journalled |= {one.id: one for one in new}
        return multiple(*(one.id for one in new))

    @rule()
    def take_up(self) -> None:
        left = [self.journalled[id] for id in sorted(self.inherited & set(self.journalled))]  # noqa: A001
        expected = [Journalled(one.id, one.received, 2) for one in left]
        assert self.store.unfinished() == expected

    @rule(target=publications, id=consumes(messages), answers=st.lists(PUBLICATIONS, max_size=2))
    def finish(self, id: int, answers: list[Publication]) -> MultipleResults[int]:  # noqa: A002
        ids = self.store.finish(id, answers)
        self.journalled.pop(id, None)
        self.kept |= dict(zip(ids, answers, strict=True))
        return multiple(*ids)

    @rule(data=st.data())
    def finish_all(self, data: st.DataObject) -> None:
        """What is consumed later may be gone by then, as may what is asked for here."""
        known = sorted(self.journalled)
        ids = data.draw(st.lists(st.sampled_from([*known, 10_000]), max_size=5))
        self.store.finish_all(ids)
        for id in ids:  # noqa: A001
            self.journalled.pop(id, None)

    @rule(target=publications, publication=PUBLICATIONS)
    def keep(self, publication: Publication) -> int:
        [id] = self.store.keep([(Keep.PUBLICATION, publication)])  # noqa: A001
        self.kept[id] = publication
        return id

    @rule(ids=st.lists(publications, max_size=3))
    def sent(self, ids: list[int]) -> None:
        self.store.keep((), ids)
        for id in ids:  # noqa: A001
            self.kept.pop(id, None)

    @rule(id=consumes(messages), reason=TEXTS)
    def bury(self, id: int, reason: str) -> None:  # noqa: A002
        if id not in self.journalled:
            return
        received = self.journalled.pop(id).received
        self.store.bury(received, reason=reason, details="", id=id)
        self.dead.append((received, reason.encode("utf-8", "backslashreplace").decode()))
        while len(self.dead) > 1 and (
            len(self.dead) > LIMITS.dead_letters
            or sum(_size(one) + len(why) for one, why in self.dead) > LIMITS.dead_letter_bytes
        ):
            self.dead.pop(0)
            self.dropped += 1

    @rule(target=messages, data=st.data())
    def put_back_by_a_command(self, data: st.DataObject) -> MultipleResults[int]:
        """A command puts a letter back, and the plugin looks at some later time, or not before its next start."""
        with letters_of(self.folder) as letters:
            entries = letters.all()
            if not entries:
                return multiple()
            number = data.draw(st.integers(0, len(entries) - 1))
            assert letters.put_back(entries[number].id)
        received, _ = self.dead.pop(number)
        anew = msgspec.structs.replace(_without_mid(received), received_at=3e9)
        newest = self.newest_id()
        self.journalled[newest] = Journalled(newest, anew, 1)
        self.put_back.add(newest)
        return multiple(newest)

    def newest_id(self) -> int:
        with closing(sqlite3.connect(self.folder / FILE)) as db:
            return int(db.execute("SELECT max(id) FROM journal").fetchone()[0])

    @rule(count=st.integers(1, 2))
    def purge_by_a_command(self, count: int) -> None:
        with letters_of(self.folder) as letters:
            gone = [entry.id for entry in letters.all()][:count]
            assert letters.purge(gone) == len(gone)
        self.dead = self.dead[count:]

    @rule()
    def look_again(self) -> None:
        expected = [self.journalled[id] for id in sorted(self.put_back & set(self.journalled))]  # noqa: A001
        assert added(self.store) == expected
        self.put_back = set()

    @invariant()
    def holds_what_it_must(self) -> None:
        known = {id for id in self.journalled if id not in self.put_back}  # noqa: A001
        assert {row.id for row in self.store.read_from(0, 99)} == known
        assert dict(self.store.kept()) == self.kept
        assert self.store.kept_count() == len(self.kept)
        assert [(letter.received, letter.reason) for letter in self.store.dead_letters()] == self.dead
        assert self.store.dead_letters_dropped() == self.dropped

    def teardown(self) -> None:
        self.opened.close()
        shutil.rmtree(self.folder)


def _size(received: Received) -> int:
    return 100 + len(received.payload) + len(received.topic)


def test_a_store_holds_what_the_model_says() -> None:
    run_state_machine_as_test(StoreMachine, settings=settings(max_examples=30, stateful_step_count=25, deadline=None))
