"""Rows from the primary's snapshot to the replica, by COPY, in several sessions at once.

Big tables are cut into ranges of blocks; every range commits by itself, and a table is whole when
all of its ranges are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any

import psycopg
from psycopg import sql

from cdc import postgres, snapshot, statements
from cdc.errors import ApplyRefused, CdcError, Unreachable
from cdc.names import TableName
from cdc.progress import CopyProgress, Tally
from cdc.tables import Table

Connection = psycopg.Connection[Any]

#: Bytes of a table, as stored, that one range covers at least.
RANGE_BYTES = 64 << 20

#: PostgreSQL's block size; a build may use another, which only makes ranges larger or smaller.
_BLOCK = 8192

#: Bytes collected before they are handed to the replica: rows come one by one and are short.
_CHUNK = 256 << 10

_SAFE = "tables that were copied whole stay; this one counts as empty"


class Stopped(Exception):  # noqa: N818 -- says what happened; never shown
    """Another range failed, or a signal came."""


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a table: blocks from `first` up to, not including, `last` (None: no bound).

    `weight` is its size as stored.
    """

    table: Table
    first: int | None
    last: int | None
    weight: int


@dataclasses.dataclass(frozen=True, slots=True)
class Sessions:
    """How to open the two ends: the primary's inside the snapshot, the replica's for writing.

    `place` tells into which table of the replica the rows of one of the primary go.
    """

    source: Callable[[], Connection]
    target: Callable[[], Connection]
    pairs: int
    place: Callable[[TableName], TableName]


def pieces(sizes: Iterable[tuple[Table, int]], range_bytes: int = RANGE_BYTES) -> tuple[Piece, ...]:
    """Cut tables of the given sizes (bytes) into pieces, the largest table first.

    The last piece of a table has no upper bound: what the snapshot sees lies below the table's
    end, wherever that is by now.
    """
    found: list[Piece] = []
    for table, size in sorted(sizes, key=lambda s: (-s[1], s[0].name)):
        blocks = -(-size // _BLOCK)
        step = -(-blocks // max(1, size // range_bytes)) or 1
        starts = range(0, max(1, blocks), step)
        found += [
            Piece(
                table,
                start or None,
                start + step if start != starts[-1] else None,
                size // len(starts),
            )
            for start in starts
        ]
    return tuple(found)


def size(conn: Connection, table: Table) -> int:
    """Return the bytes of a table's own rows as stored, without what TOAST holds elsewhere."""
    row = conn.execute("SELECT pg_relation_size(%s::oid)", [table.oid]).fetchone()
    return int(row[0] or 0) if row else 0


def columns(table: Table) -> tuple[str, ...]:
    """Return the columns that are copied: those the replica does not compute by itself."""
    return tuple(c.name for c in table.columns if not c.generated)


def read_statement(piece: Piece) -> sql.Composed:
    """Return the COPY that reads a piece on the primary; ONLY leaves inheritance children out."""
    bounds = [
        sql.SQL("ctid {} {}::tid").format(sql.SQL(operator), sql.Literal(f"({block},0)"))
        for operator, block in ((">=", piece.first), ("<", piece.last))
        if block is not None
    ]
    where = sql.SQL(" WHERE ") + sql.SQL(" AND ").join(bounds) if bounds else sql.SQL("")
    return sql.SQL("COPY (SELECT {} FROM ONLY {}{}) TO STDOUT").format(
        statements.column_list(columns(piece.table)), piece.table.name.sql, where
    )


def write_statement(table: Table, place: TableName) -> sql.Composed:
    """Return the COPY that writes rows of `table` into `place` on the replica."""
    return sql.SQL("COPY {}{} FROM STDIN").format(place.sql, statements.listed(columns(table)))


def copy(
    work: Sequence[Piece],
    sessions: Sessions,
    on_whole: Callable[[Table, Tally], None],
    progress: CopyProgress,
    stopping: threading.Event,
) -> None:
    """Copy all pieces with as many pairs of sessions as `sessions` allows.

    `on_whole` is called, in a worker's thread, when all pieces of a table are committed. The first
    error ends everything and is raised, as is an interruption of the calling thread; `stopping`
    is set then, so that what `on_whole` does may end too.
    """
    copier = _Copier(work, sessions, on_whole, progress, stopping)
    count = max(1, min(sessions.pairs, len(work)))
    with ThreadPoolExecutor(count, thread_name_prefix="copy") as pool:
        futures: list[Future[None]] = [pool.submit(copier.work) for _ in range(count)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            if not all(f.done() and f.exception() is None for f in futures):
                copier.stop()
    if copier.failure is not None:
        raise copier.failure


class _Copier:
    """What the worker threads share."""

    def __init__(
        self,
        work: Sequence[Piece],
        sessions: Sessions,
        on_whole: Callable[[Table, Tally], None],
        progress: CopyProgress,
        stopping: threading.Event,
    ) -> None:
        self._queue: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        self._left: dict[Any, int] = {}
        for piece in work:
            self._queue.put(piece)
            self._left[piece.table.name] = self._left.get(piece.table.name, 0) + 1
        self._tallies = {name: Tally() for name in self._left}
        self._sessions = sessions
        self._on_whole = on_whole
        self._progress = progress
        self._lock = threading.Lock()
        self._stopping = stopping
        self._open: set[Connection] = set()
        #: What went wrong first; the rest follows from it.
        self.failure: BaseException | None = None

    def stop(self) -> None:
        """Make every worker give up soon, also one that waits for a server."""
        self._stopping.set()
        with self._lock:
            for conn in self._open:
                # A session that is gone or idle has nothing to cancel.
                with contextlib.suppress(psycopg.Error):
                    conn.cancel_safe(timeout=5)

    def work(self) -> None:
        """Take pieces until none is left; remember the first failure of all threads."""
        try:
            self._work()
        except BaseException as error:
            with self._lock:
                self.failure = self.failure or error
            raise

    def _work(self) -> None:
        with contextlib.ExitStack() as stack:
            source = self._opened(stack, self._sessions.source)
            target = self._opened(stack, self._sessions.target)
            while not self._stopping.is_set():
                try:
                    piece = self._queue.get_nowait()
                except queue.Empty:
                    return
                self._finished(piece, self._copy(piece, source, target))
        raise Stopped

    def _opened(self, stack: contextlib.ExitStack, connect: Callable[[], Connection]) -> Connection:
        conn = stack.enter_context(contextlib.closing(connect()))
        with self._lock:
            self._open.add(conn)
        stack.callback(self._forget, conn)
        return conn

    def _forget(self, conn: Connection) -> None:
        with self._lock:
            self._open.discard(conn)

    def _copy(self, piece: Piece, source: Connection, target: Connection) -> Tally:
        try:
            snapshot.hold(source, [piece.table.name])
            return self._stream(piece, source, target)
        except CdcError:
            raise
        except psycopg.Error as error:
            if self._stopping.is_set():
                raise Stopped from error
            raise _failed(piece.table, error) from error

    def _stream(self, piece: Piece, source: Connection, target: Connection) -> Tally:
        # The server sends a message per row; only the display relies on it.
        sent, seen, left = 0, 0, piece.weight
        chunk: list[bytes | bytearray | memoryview] = []
        collected = 0
        with target.transaction(), target.cursor() as into, source.cursor() as out:
            with (
                out.copy(read_statement(piece)) as rows,
                into.copy(
                    write_statement(piece.table, self._sessions.place(piece.table.name))
                ) as copied,
            ):
                for row in rows:
                    chunk.append(row)
                    collected += len(row)
                    if collected >= _CHUNK:
                        if self._stopping.is_set():
                            raise Stopped
                        copied.write(b"".join(chunk))
                        # Text is about as long as what is stored; the end of the piece corrects it.
                        weight = min(collected, left)
                        left -= weight
                        self._progress.add(Tally(len(chunk), collected, weight))
                        sent += collected
                        seen += len(chunk)
                        chunk.clear()
                        collected = 0
                copied.write(b"".join(chunk))
            count = into.rowcount
        self._progress.add(Tally(count - seen, collected, left))
        return Tally(count, sent + collected, piece.weight)

    def _finished(self, piece: Piece, tally: Tally) -> None:
        name = piece.table.name
        with self._lock:
            self._left[name] -= 1
            self._tallies[name] += tally
            whole = self._left[name] == 0
        if whole:
            self._on_whole(piece.table, self._tallies[name])


def _failed(table: Table, error: psycopg.Error) -> CdcError:
    if error.sqlstate is None or error.sqlstate.startswith(("08", "57P")):
        return Unreachable(
            f"a server went away while {table.name} was copied: {postgres.first_line(error)}",
            safe=_SAFE,
            next="see that primary and replica run, then run `cdc bootstrap` again: it continues",
            table=str(table.name),
        )
    what = error.diag.message_primary or postgres.first_line(error)
    context = f" ({error.diag.context})" if error.diag.context else ""
    return ApplyRefused(
        f"copying {table.name} failed: {what}{context}",
        safe=_SAFE,
        next="make the tables of both ends alike and see that both roles may read and write "
        "them, then run `cdc bootstrap` again: it continues",
        table=str(table.name),
        sqlstate=error.sqlstate,
    )
