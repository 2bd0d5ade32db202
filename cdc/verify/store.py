"""What a verification has compared, kept on each replica: it can go on, and be looked up later.

Written after every chunk in a transaction of its own, so a killed run loses one chunk. Findings are
not kept: what was not decided when a run died is decided when it goes on.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
from typing import Any

import psycopg

from cdc import lsn as lsns
from cdc import postgres
from cdc.config import Config
from cdc.errors import NotReady
from cdc.names import TableName
from cdc.verify.ranges import Key

Connection = psycopg.Connection[Any]

#: Runs remembered per replica.
_KEEP = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """A run as it is remembered; `ended_at` is None where it was killed or still goes on."""

    started_at: dt.datetime
    lsn: int
    ended_at: dt.datetime | None
    exit_code: int | None
    claim: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a table is: keys up to `upto` are compared, all of them if `done`.

    `candidates` are to be decided again: those that were not, and those that were found to differ.
    """

    upto: Key | None = None
    done: bool = False
    rows: int = 0
    chunks: int = 0
    candidates: tuple[Key, ...] = ()


class Store:
    """The runs of one replica."""

    def __init__(self, conn: Connection, stream: str) -> None:
        self._conn, self._stream = conn, stream

    @classmethod
    def open(cls, config: Config, replica: str) -> Store:
        """Open a replica's runs; NotReady where `cdc setup` has not made their tables yet."""
        conn = postgres.connect(
            config.replica(replica).dsn, f"cdc-verify/{config.name}/store", autocommit=True
        )
        try:
            conn.execute("SELECT FROM cdc.verification LIMIT 0")
        except psycopg.errors.UndefinedTable:
            conn.close()
            raise NotReady(
                f"the schema cdc on {replica} is of an older release",
                safe="nothing was compared",
                next="run `cdc setup`, which brings it forward",
                replica=replica,
            ) from None
        return cls(conn, config.name)

    def close(self) -> None:
        self._conn.close()

    def begin(self, at: dt.datetime, lsn: int, fingerprint: str) -> None:
        """Remember that a run has begun; older ones cannot go on, and the oldest are forgotten."""
        with self._conn.transaction():
            self._conn.execute("DELETE FROM cdc.verified WHERE stream = %s", [self._stream])
            self._conn.execute(
                "INSERT INTO cdc.verification (stream, started_at, lsn, fingerprint)"
                " VALUES (%s, %s, %s, %s)",
                [self._stream, at, lsns.show(lsn), fingerprint],
            )
            self._conn.execute(
                "DELETE FROM cdc.verification WHERE stream = %(stream)s AND started_at <= ("
                "SELECT started_at FROM cdc.verification WHERE stream = %(stream)s"
                " ORDER BY started_at DESC OFFSET %(keep)s LIMIT 1)",
                {"stream": self._stream, "keep": _KEEP},
            )

    def end(self, at: dt.datetime, exit_code: int, claim: str) -> None:
        """Remember how the run that began at `at` ended; what it takes to go on is dropped."""
        with self._conn.transaction():
            self._conn.execute(
                "UPDATE cdc.verification SET ended_at = clock_timestamp(), exit_code = %s,"
                " claim = %s WHERE stream = %s AND started_at = %s",
                [exit_code, claim, self._stream, at],
            )
            self._conn.execute(
                "DELETE FROM cdc.verified WHERE stream = %s AND started_at = %s",
                [self._stream, at],
            )

    def history(self) -> list[Run]:
        """Return the runs, newest first."""
        found = self._conn.execute(
            "SELECT started_at, lsn - '0/0', ended_at, exit_code, claim FROM cdc.verification"
            " WHERE stream = %s ORDER BY started_at DESC",
            [self._stream],
        )
        return [Run(at, int(lsn), *rest) for at, lsn, *rest in found]

    def unfinished(self, fingerprint: str) -> tuple[dt.datetime, int] | None:
        """Return when the newest run began and where the log ended then, if it did not end.

        Only a run that compared the same in the same way can go on.
        """
        row = self._conn.execute(
            "SELECT started_at, lsn - '0/0', ended_at, fingerprint FROM cdc.verification"
            " WHERE stream = %s ORDER BY started_at DESC LIMIT 1",
            [self._stream],
        ).fetchone()
        if row is None or row[2] is not None or row[3] != fingerprint:
            return None
        return row[0], int(row[1])

    def save(self, at: dt.datetime, table: TableName, shape: str, progress: Progress) -> None:
        """Remember how far a table is; what was remembered of it before is replaced."""
        self._conn.execute(
            "INSERT INTO cdc.verified VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (stream, started_at, schema_name, table_name) DO UPDATE SET"
            " upto = excluded.upto, done = excluded.done, rows = excluded.rows, chunks = excluded.chunks,"
            " candidates = excluded.candidates",
            [
                self._stream, at, table.schema, table.name, shape,
                None if progress.upto is None else json.dumps(progress.upto),
                progress.done, progress.rows, progress.chunks, json.dumps(progress.candidates),
            ],
        )  # fmt: skip

    def saved(self, at: dt.datetime, table: TableName, shape: str) -> Progress | None:
        """Return how far a table is; None where it was not begun or looks otherwise now."""
        row = self._conn.execute(
            "SELECT shape, upto, done, rows, chunks, candidates FROM cdc.verified"
            " WHERE stream = %s AND started_at = %s AND schema_name = %s AND table_name = %s",
            [self._stream, at, table.schema, table.name],
        ).fetchone()
        if row is None or row[0] != shape:
            return None
        upto = None if row[1] is None else tuple(row[1])
        return Progress(upto, row[2], row[3], row[4], tuple(map(tuple, row[5])))


def digest(*parts: object) -> str:
    """Return a fingerprint of values that have a stable repr."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()
