"""One connection that does transactions, and knows which were committed whatever dies meanwhile.

Imports nothing of the package under test.
"""

from __future__ import annotations

import dataclasses
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
from psycopg import sql

#: Connections that write at once; each has rows of its own, so they seldom wait for each other.
WRITERS = 5

#: Every transaction leaves its number here: what was acknowledged can be counted on any server.
TABLES: LiteralString = """
    CREATE TABLE w.journal (writer int, number bigint, kind text, PRIMARY KEY (writer, number));
"""

Kind = Callable[["Writer"], None]

#: Deadlocks, conflicts, and a temporary table in a transaction that is to be prepared.
_REFUSALS = (psycopg.OperationalError, psycopg.IntegrityError, psycopg.errors.FeatureNotSupported)


@dataclasses.dataclass(slots=True)
class Tally:
    """What a writer did; `kept` and `undone` were in doubt when the server died."""

    committed: int = 0
    refused: Counter[str] = dataclasses.field(default_factory=Counter)
    kinds: Counter[str] = dataclasses.field(default_factory=Counter)
    lost_connections: int = 0
    kept: int = 0
    undone: int = 0


class Writer:
    """Random transactions of one connection; `number` tells its rows from the others'."""

    def __init__(self, dsn: str, number: int, seed: str) -> None:
        self.number = number
        self.random = random.Random(f"{seed}/{number}")
        self.tally = Tally()
        self._dsn = dsn
        self._conn = psycopg.connect(dsn)
        self._two_phase = int(self.do("SHOW max_prepared_transactions")[0][0]) > 0
        self._xid = ""
        self._gid = sql.Literal(f"w{number}")
        self._journaled = int(
            self.do(
                "SELECT coalesce(max(number), 0) FROM w.journal WHERE writer = %s", self.number
            )[0][0]
        )
        self._conn.commit()

    @property
    def acknowledged(self) -> int:
        """Return the number of the last transaction that is known to be committed."""
        return self._journaled

    def do(self, statement: LiteralString | sql.Composed, *params: Any) -> list[tuple[Any, ...]]:
        """Execute a statement in the open transaction; return its rows."""
        cursor = self._conn.execute(statement, params or None)
        return cursor.fetchall() if cursor.description is not None else []

    def copy(self, statement: LiteralString, text: str) -> None:
        """Execute COPY … FROM STDIN."""
        with self._conn.cursor().copy(statement) as copy:
            copy.write(text)

    def rollback(self) -> None:
        """Give up what the open transaction did so far."""
        self._conn.rollback()

    def text(self, length: int) -> str:
        """Return text that is unkind to whoever does not quote."""
        return "".join(self.random.choices("abcdefgh äß🐘\\\t\n'\"%", k=length))

    def below(self, limit: int) -> int:
        return self.random.randrange(limit)

    def transaction(self, kind: Kind) -> None:
        """Do one, with its number in the journal; what the server refuses is undone and counted."""
        name = kind.__name__
        self._xid = ""
        try:
            kind(self)
            self._end(name)
        except psycopg.Error as error:
            if self._conn.closed:
                self._find_out(name)
            elif isinstance(error, _REFUSALS):
                self._conn.rollback()
                self.tally.refused[f"{name} {error.sqlstate}"] += 1
            else:
                raise

    def close(self) -> None:
        self._conn.close()

    def _end(self, name: str) -> None:
        self._xid = str(
            self.do(
                "INSERT INTO w.journal VALUES (%s, %s, %s) RETURNING pg_current_xact_id()",
                self.number, self._journaled + 1, name,
            )[0][0]
        )  # fmt: skip
        if self._two_phase and self.random.random() < 0.02:
            self.do(sql.SQL("PREPARE TRANSACTION {}").format(self._gid))
            self._commit_prepared()
        else:
            self._conn.commit()
        self._committed(name)

    def _committed(self, name: str) -> None:
        self._journaled += 1
        self.tally.committed += 1
        self.tally.kinds[name] += 1

    def _commit_prepared(self) -> None:
        self._conn.autocommit = True
        self.do(sql.SQL("COMMIT PREPARED {}").format(self._gid))
        self._conn.autocommit = False

    def _find_out(self, name: str) -> None:
        """Connect again and learn what became of the transaction that was open."""
        self.tally.lost_connections += 1
        pause = threading.Event()
        while True:
            try:
                self._conn.close()
                self._conn = psycopg.connect(self._dsn)
                if self._ended(name):
                    return
            except psycopg.OperationalError:  # the server is not back yet, or gone again
                pass
            pause.wait(0.1)

    def _ended(self, name: str) -> bool:
        """Tell whether the transaction in doubt has ended; count it by how."""
        prepared = sql.SQL("SELECT 1 FROM pg_prepared_xacts WHERE gid = {}").format(self._gid)
        if self.do(prepared):
            self._conn.rollback()
            self._commit_prepared()
        # A killed session counts as running until the server has noticed: not decided before that.
        if self._xid and self._status() == "in progress":
            self._conn.rollback()
            return False
        found = self.do(
            "SELECT 1 FROM w.journal WHERE (writer, number) = (%s, %s)",
            self.number, self._journaled + 1,
        )  # fmt: skip
        self._conn.commit()
        if found:
            self.tally.kept += 1
            self._committed(name)
        elif self._xid:
            self.tally.undone += 1
        return True

    def _status(self) -> str | None:
        try:
            return str(self.do("SELECT pg_xact_status(%s::xid8)", self._xid)[0][0])
        except psycopg.errors.InvalidParameterValue:  # of the future: nothing of it reached the log
            self._conn.rollback()
            return None
