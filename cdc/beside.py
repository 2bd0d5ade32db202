"""Tables filled beside a stream that goes on: copied, brought to where the daemon is, handed over to it.

A table that the replica follows already stays in use: its new rows are collected in a `shadow`. One that it does not
follow takes its rows itself, and the daemon passes its events over. Then, one table after the other: lock the
table and the position for a moment, apply what is left up to that position, exchange the rows, record the
table. The daemon goes on from there with a new generation. Killed at any instant, nothing has changed for anybody;
running again begins these tables anew.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc import catalog, failpoint, filling, marks, position, postgres, shadow, writing
from cdc.config import Config
from cdc.errors import NotReady, PositionLost
from cdc.filling import Start
from cdc.following import Again, Follower
from cdc.names import TableName
from cdc.position import Position
from cdc.progress import Tally
from cdc.session import Session
from cdc.tables import Table

Connection = psycopg.Connection[Any]

#: How often locking a table is tried, each time for as long as a session waits for a lock: ten minutes.
_ATTEMPTS = 60

#: Records that may be left to apply while table and position are locked.
_NEAR = 2000

#: Seconds without a step of the daemon after which it is not waited for any longer.
_STANDSTILL = 30.0

_LOOK_AGAIN = 0.1


class Beside:
    """One run for one replica; `primary` and `replica` are sessions in autocommit."""

    def __init__(
        self, config: Config, name: str, primary: Connection, replica: Connection,
        note: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._config = config
        self._name = name
        self._primary = primary
        self._replica = replica
        self._note = note
        self._shadows: dict[TableName, TableName] = {}
        self._begun: list[TableName] = []
        self._copied: dict[TableName, tuple[Table, catalog.Table, Tally]] = {}

    def begin(
        self, found: Sequence[Table], in_use: Collection[TableName], partly: Collection[TableName]
    ) -> None:
        """Mark the tables, and make a shadow for each that is `in_use`; empty those `partly` filled."""
        stream = self._config.name
        with self._replica.transaction():
            for table in found:
                here = shadow.name(stream, table) if table.name in in_use else None
                shadow.mark(self._replica, stream, table.name, here)
                if here is not None:
                    shadow.create(self._replica, table, here)
                    self._shadows[table.name] = here
            if again := [t.name for t in found if t.name in partly]:
                filling.empty(self._replica, again, fires_triggers=self._fires_triggers)
        self._begun = [t.name for t in found]
        failpoint.reach("fill.marked")

    def place(self, table: TableName) -> TableName:
        """Return the table of the replica into which the rows of one of the primary go."""
        return self._shadows.get(table, table)

    def whole(self, conn: Connection, table: Table, tally: Tally) -> None:
        """Take note that all rows of a table's snapshot are there, and its indexes."""
        application = self._config.application_name(self._name, "bootstrap")
        found = catalog.read(
            self._config.replica(self._name).dsn, application, [table.name],
            fires_triggers=self._fires_triggers,
        )  # fmt: skip
        target = found[table.name]
        if (here := self._shadows.get(table.name)) is not None:
            shadow.finish(conn, target, here)
        self._copied[table.name] = (table, target, tally)

    def withdraw(self) -> None:
        """Throw the new rows away; marks of tables that have got some themselves stay."""
        for name in self._begun:
            if name in self._shadows:
                shadow.unmark(self._replica, self._config.name, name)

    def join(self, start: Start) -> None:
        """Bring the copied tables to where the daemon is and hand them over."""
        failpoint.reach("fill.copied")
        self._let_pass(start.applied_lsn)
        with (
            contextlib.closing(writing.connect(self._config, self._name, "bootstrap")) as conn,
            contextlib.closing(self._follower(conn, start)) as follower,
        ):
            try:
                for name in sorted(self._copied):
                    self._join(conn, follower, name, start.applied_lsn)
                    self._begun.remove(name)
                    follower.drop(name)
            except PositionLost as lost:
                lost.next = (
                    "the copy took longer than the topic keeps records: raise kafka.topic.retention, "
                    "run `cdc setup`, then this command again"
                )
                raise

    @property
    def _fires_triggers(self) -> bool:
        return self._config.replica(self._name).triggers == "disabled"

    def _follower(self, conn: Session, start: Start) -> Follower:
        began = Position(
            self._config.name, start.topic, start.topic_id, start.next_offset, start.leader_epoch,
            start.applied_lsn, start.system_id, start.timeline, (), 0,
        )  # fmt: skip
        into = {name: self.place(name) for name in self._copied}
        return Follower(self._config, self._name, conn, began, into)

    def _let_pass(self, lsn: int) -> None:
        """Wait until the daemon has applied what the snapshot holds; without a daemon there is no need.

        Else the table would show rows that the others do not have yet.
        """
        # A commit behind the snapshot: only commits move the position.
        marks.emit(self._primary, self._config)
        last, since, why = -1, time.monotonic(), None
        while why is None and (at := self._reached()).applied_lsn < lsn:
            now = time.monotonic()
            if at.next_offset != last:
                last, since = at.next_offset, now
            if position.lock_holder(self._replica, self._config.name) is None:
                why = "no daemon runs; the replica catches up with the copy when one does"
            elif now - since > _STANDSTILL:
                why = "the daemon stands still; it catches up with the copy when it goes on"
            else:
                time.sleep(_LOOK_AGAIN)
        if why is not None:
            self._note(why)

    def _join(self, conn: Connection, follower: Follower, name: TableName, lsn: int) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            self._approach(follower, lsn)
            failpoint.reach("fill.followed")
            try:
                with conn.transaction():
                    said = self._hand_over(conn, follower, name, lsn)
            except Again as again:
                follower.go_back(again.offset)
            except (psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable) as error:
                follower.go_back()
                if attempt == 1:
                    self._note(f"waiting for a lock on {name}: {postgres.first_line(error)}")
                if attempt == _ATTEMPTS:
                    raise NotReady(
                        f"{name} is locked on the replica: {postgres.first_line(error)}",
                        safe="the table is as it was before; its new rows are thrown away",
                        next="end the sessions that change the table there (pg_stat_activity, "
                        "pg_locks), then run `cdc bootstrap` again",
                        table=str(name),
                    ) from error
            else:
                follower.settle()
                failpoint.reach("fill.joined")
                self._note(said)
                return

    def _approach(self, follower: Follower, lsn: int) -> None:
        """Follow the daemon without holding it up, until it is near."""
        while (at := self._reached()).applied_lsn >= lsn:
            left = at.next_offset - follower.next_offset
            follower.upto(at.next_offset)
            if left <= _NEAR:
                return

    def _hand_over(self, conn: Connection, follower: Follower, name: TableName, lsn: int) -> str:
        """Make the table right as of the position, in the open transaction, and record it so.

        Returns what was done. The table is locked before the position, as the daemon does.
        """
        table, target, tally = self._copied[name]
        conn.execute(sql.SQL("LOCK TABLE ONLY {} IN SHARE ROW EXCLUSIVE MODE").format(name.sql))
        row = conn.execute(
            "SELECT next_offset, applied_lsn - '0/0' FROM cdc.position WHERE stream = %s FOR UPDATE",
            [self._config.name],
        ).fetchone()
        locked = time.monotonic()
        failpoint.reach("fill.locked")
        if row is None:
            raise NotReady(
                "the replica's position was removed meanwhile",
                safe="the table is as it was before",
                next="run `cdc bootstrap` for the whole replica",
            )
        if row[1] >= lsn:
            follower.upto_inside(row[0])
        said = "filled"
        if (here := self._shadows.get(name)) is not None:
            said = f"{shadow.exchange(conn, target, here):,} rows were not as on the primary"
        filling.joined(conn, self._config.name, table, lsn, tally)
        shadow.unmark(conn, self._config.name, name)
        failpoint.reach("fill.merged")
        return f"{name}: {said}; the daemon could not go on for {time.monotonic() - locked:.2f} s"

    def _reached(self) -> filling.Reached:
        reached, _recorded = filling.load(self._replica, self._config.name)
        if reached is None:
            raise NotReady(
                "the replica's position was removed meanwhile",
                safe="the tables are as they were before",
                next="run `cdc bootstrap` for the whole replica",
            )
        return reached
