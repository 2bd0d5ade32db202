"""What a verification has compared, kept on each replica: it can go on, and be looked up later.

Written after every chunk in a transaction of its own, so a killed run loses one chunk. While it goes
on a run holds a lock of the session that writes, which the server lets go of with it. Findings are
not kept: what was not decided when a run died is decided when it goes on, and what was found to
differ is looked at again.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import sql

from cdc import lsn as lsns
from cdc import postgres
from cdc.config import Config
from cdc.errors import NotReady
from cdc.names import TableName
from cdc.verify.findings import TableResult
from cdc.verify.ranges import Key

Connection = psycopg.Connection[Any]

#: Runs remembered per replica.
_KEEP = 100

#: With these the server ends the session of a run that has vanished with its machine, and its lock.
#: Between chunks it is idle for as long as the primary rests.
_SETTINGS = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "idle_session_timeout": "0",
    "statement_timeout": "60s",
    "lock_timeout": "3s",  # a killed run's session ends sooner
}


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

    `open` keys are to be decided again: those that were not, and those that were found to differ.
    `candidates` and `resolved` count as in a TableResult.
    """

    upto: Key | None = None
    done: bool = False
    rows: int = 0
    chunks: int = 0
    candidates: int = 0
    resolved: int = 0
    open: tuple[Key, ...] = ()


class Store:
    """The runs of one replica."""

    def __init__(self, conn: Connection, stream: str) -> None:
        self._conn, self._stream = conn, stream

    @classmethod
    def open(cls, config: Config, replica: str) -> Store:
        """Open a replica's runs; NotReady where `cdc setup` has not made their tables for us yet."""
        conn = postgres.connect(
            config.replica(replica).dsn,
            f"cdc-verify/{config.name}/store",
            autocommit=True,
            settings=_SETTINGS,
        )
        try:
            for table in ("verification", "verified", "compared"):
                conn.execute(sql.SQL("SELECT FROM cdc.{} LIMIT 0").format(sql.Identifier(table)))
        except psycopg.Error as error:
            conn.close()
            raise NotReady(
                f"runs cannot be remembered in the schema cdc on {replica}: "
                f"{postgres.first_line(error)}",
                safe="nothing was compared",
                next="run `cdc setup`, which brings that schema forward",
                replica=replica,
            ) from error
        return cls(conn, config.name)

    def close(self) -> None:
        self._conn.close()

    def claim(self, at: dt.datetime) -> bool:
        """Take the run that began at `at` for this session, unless it goes on in another one."""
        name = f"cdc-verify/{self._stream}/{at.astimezone(dt.UTC).isoformat()}"
        try:
            self._conn.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [name])
        except psycopg.errors.LockNotAvailable:
            return False
        return True

    def begin(self, at: dt.datetime, lsn: int, fingerprint: str, *, whole: bool) -> None:
        """Remember that a run has begun; older ones cannot go on, and the oldest are forgotten.

        `whole` says that every replicated table is to be compared. The last whole run that proved
        everything is never forgotten: its age is a metric.
        """
        self.claim(at)
        with self._conn.transaction():
            self._conn.execute("DELETE FROM cdc.verified WHERE stream = %s", [self._stream])
            self._conn.execute(
                "INSERT INTO cdc.verification (stream, started_at, lsn, fingerprint, whole)"
                " VALUES (%s, %s, %s, %s, %s)",
                [self._stream, at, lsns.show(lsn), fingerprint, whole],
            )
            self._conn.execute(
                "DELETE FROM cdc.verification WHERE stream = %(stream)s AND started_at <= ("
                "SELECT started_at FROM cdc.verification WHERE stream = %(stream)s"
                " ORDER BY started_at DESC OFFSET %(keep)s LIMIT 1)"
                " AND started_at IS DISTINCT FROM (SELECT max(started_at) FROM cdc.verification"
                " WHERE stream = %(stream)s AND whole AND exit_code = 0)",
                {"stream": self._stream, "keep": _KEEP},
            )

    def end(
        self,
        at: dt.datetime,
        results: Iterable[TableResult],
        exit_code: int,
        claim: str,
        *,
        left_open: bool,
    ) -> None:
        """Remember how the run that began at `at` ended, and what it found in each table.

        What it takes to go on is dropped unless something was `left_open`.
        """
        with self._conn.transaction(), self._conn.cursor() as cursor:
            cursor.execute(
                "UPDATE cdc.verification SET ended_at = clock_timestamp(), exit_code = %s,"
                " claim = %s, left_open = %s WHERE stream = %s AND started_at = %s",
                [exit_code, claim, left_open, self._stream, at],
            )
            cursor.executemany(
                "INSERT INTO cdc.compared AS c VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
                " ON CONFLICT (stream, schema_name, table_name) DO UPDATE SET"
                " started_at = excluded.started_at,"
                " proven_at = coalesce(excluded.proven_at, c.proven_at),"
                " missing = excluded.missing, extra = excluded.extra, different = excluded.different",
                [
                    (
                        self._stream, r.table.schema, r.table.name, at, at if r.proven else None,
                        *(r.still(kind) for kind in ("missing", "extra", "different")),
                    )
                    for r in results
                ],
            )  # fmt: skip
            if not left_open:
                cursor.execute(
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
        """Return when the newest run began and where the log ended then, if it left something open.

        Only a run that compared the same in the same way can go on.
        """
        row = self._conn.execute(
            "SELECT started_at, lsn - '0/0', left_open, fingerprint FROM cdc.verification"
            " WHERE stream = %s ORDER BY started_at DESC LIMIT 1",
            [self._stream],
        ).fetchone()
        if row is None or not row[2] or row[3] != fingerprint:
            return None
        return row[0], int(row[1])

    def save(self, at: dt.datetime, table: TableName, shape: str, progress: Progress) -> None:
        """Remember how far a table is; what was remembered of it before is replaced."""
        self._conn.execute(
            "INSERT INTO cdc.verified VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (stream, started_at, schema_name, table_name) DO UPDATE SET"
            " shape = excluded.shape, upto = excluded.upto, done = excluded.done,"
            " rows = excluded.rows, chunks = excluded.chunks, candidates = excluded.candidates,"
            " resolved = excluded.resolved, open = excluded.open",
            [
                self._stream, at, table.schema, table.name, shape,
                None if progress.upto is None else json.dumps(progress.upto),
                progress.done, progress.rows, progress.chunks, progress.candidates,
                progress.resolved, json.dumps(progress.open),
            ],
        )  # fmt: skip

    def saved(self, at: dt.datetime, table: TableName, shape: str) -> Progress | None:
        """Return how far a table is; None where it was not begun or looks otherwise now."""
        row = self._conn.execute(
            "SELECT shape, upto, done, rows, chunks, candidates, resolved, open FROM cdc.verified"
            " WHERE stream = %s AND started_at = %s AND schema_name = %s AND table_name = %s",
            [self._stream, at, table.schema, table.name],
        ).fetchone()
        if row is None or row[0] != shape:
            return None
        _, upto, done, rows, chunks, candidates, resolved, left = row
        return Progress(
            None if upto is None else tuple(upto),
            done,
            rows,
            chunks,
            candidates,
            resolved,
            tuple(map(tuple, left)),
        )


def digest(*parts: object) -> str:
    """Return a fingerprint of values that have a stable repr."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()
