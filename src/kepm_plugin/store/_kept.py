"""Publications that are kept until the broker has them."""

from collections.abc import Sequence

from ..database import Connection, Database, insert
from ..message import Publication
from . import _tables as tables


class Kept:
    """The table of publications."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, publication: Publication) -> int:
        """Keep a publication; return its id."""
        with self._database.commit("keep a publication") as db:
            return keep(db, publication)

    def all(self) -> list[tuple[int, Publication]]:
        """Return what is kept, oldest first, with ids."""
        with self._database.read("read publications") as db:
            return [
                (number, Publication(tables.topic_text(topic), payload, qos, bool(retain), correlation_data))
                for number, topic, payload, qos, retain, correlation_data in db.execute(tables.KEPT)
            ]

    def remove(self, ids: Sequence[int]) -> None:
        """Forget publications; unknown ids are nothing."""
        with self._database.commit("forget publications") as db:
            db.executemany("DELETE FROM kept WHERE id = ?", [(number,) for number in ids])


def keep(db: Connection, publication: Publication) -> int:
    """Keep a publication in an open commit; return its id."""
    return insert(db, tables.KEEP, tables.publication_row(publication))
