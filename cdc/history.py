"""The primary's history: which server it is, on which timeline, and where the timelines before ended.

A standby that is promoted begins a new timeline at the point where it stopped following. What the
old primary committed beyond that point never happened on the new one, whose LSNs begin there again.
A replica that holds nothing beyond it goes on; one that does can only be filled anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import pq

from cdc import lsn as lsns
from cdc import postgres
from cdc.config import Config
from cdc.errors import BrokenStream, CdcError, NotReady
from cdc.origins import Origin
from cdc.position import RING, Position

log = logging.getLogger(__name__)

#: Seconds between two looks of the daemon, and what one may take to connect.
EVERY = 15.0
_CONNECT_TIMEOUT = 5

#: Beyond any LSN: the present timeline has not ended.
_OPEN = 1 << 64

#: Commits that an error names; of more the first and the last.
_NAMED = 12

#: What leads out of a failover that lost commits; docs/operations.md explains each.
WAY_OUT = (
    "let primary.dsn lead to the new primary, then `cdc connectors delete --offsets`, `cdc "
    "connectors apply` and, for every replica, `cdc bootstrap -r NAME --overwrite`; what must not "
    'be lost is on the replicas until then (docs/operations.md, "The primary was failed over")'
)


@dataclasses.dataclass(frozen=True, slots=True)
class History:
    """Where a server comes from; `switches` are (timeline, LSN at which it ended), oldest first."""

    system_id: str
    timeline: int
    switches: tuple[tuple[int, int], ...] = ()

    def end_of(self, timeline: int) -> int | None:
        """Return the LSN up to which `timeline` is part of this history; None if it never was."""
        if timeline == self.timeline:
            return _OPEN
        return dict(self.switches).get(timeline)


def parse(text: str) -> tuple[tuple[int, int], ...]:
    """Read a timeline history file: a line has the timeline, where it ended and why."""
    rows = [line.split(maxsplit=2) for line in text.splitlines()]
    return tuple(
        (int(row[0]), lsns.parse(row[1])) for row in rows if row and not row[0].startswith("#")
    )


def read(dsn: str, application: str) -> History:
    """Ask a server for its history.

    Raises Unreachable, or NotReady when the role may not ask.
    """
    with contextlib.closing(
        postgres.connect(
            dsn,
            application,
            autocommit=True,
            replication="database",
            connect_timeout=_CONNECT_TIMEOUT,
        )
    ) as conn:
        system, timeline = _ask(conn, "IDENTIFY_SYSTEM")[:2]
        if timeline == "1":
            return History(system, 1)
        _name, content = _ask(conn, f"TIMELINE_HISTORY {int(timeline)}")
        return History(system, int(timeline), parse(content))


def _ask(conn: psycopg.Connection[Any], command: str) -> list[str]:
    result = conn.pgconn.exec_(command.encode())
    if result.status != pq.ExecStatus.TUPLES_OK:
        raise NotReady(
            f"the primary does not tell its history ({command}): "
            f"{result.error_message.decode(errors='replace').strip()}",
            safe="nothing was changed",
            next="run `cdc setup`: the role of primary.dsn needs REPLICATION; a history file that "
            "was removed from pg_wal must be put back",
        )
    return [(result.get_value(0, i) or b"").decode() for i in range(result.nfields)]


def require(at: Position, holds: int, primary: History) -> None:
    """Raise BrokenStream, naming the commits, when the replica holds what the primary lacks."""
    if at.system_id != primary.system_id:
        raise _elsewhere(at, Origin(primary.system_id, primary.timeline))
    if primary.timeline <= at.timeline:
        return  # a primary that was replaced, if not ours: only the stream tells who sends
    end = primary.end_of(at.timeline)
    if end is None or holds > end:
        raise _lost(at, holds, primary, end)


def follow(at: Position, holds: int, origin: Origin, lsn: int, primary: History) -> Position:
    """Return the position on the timeline that `origin` says an event at `lsn` comes from.

    Raises BrokenStream when that would leave out what the replica holds, or cannot be known.
    """
    if at.system_id != origin.system_id:
        raise _elsewhere(at, origin)
    require(at, holds, primary)
    here, there = primary.end_of(at.timeline), primary.end_of(origin.timeline)
    if here is None or there is None or lsn > there:
        raise BrokenStream(
            f"the connector sends timeline {origin.timeline} of the primary up to {lsns.show(lsn)}, "
            f"which is not in the history of the server that primary.dsn leads to (timeline "
            f"{primary.timeline})",
            safe="nothing of it was applied; the replica is consistent as of its position, on "
            f"timeline {at.timeline}",
            next="only one server may be the primary: shut the other down, let primary.dsn lead to "
            "the one, `cdc connectors apply`, then start again",
            lsn=lsn,
        )
    if origin.timeline <= at.timeline:
        return at  # sent again: what it is the ledger says
    return dataclasses.replace(at, timeline=origin.timeline)


def _elsewhere(at: Position, origin: Origin) -> BrokenStream:
    return BrokenStream(
        f"the primary is another server than this replica was filled from: system "
        f"{origin.system_id} timeline {origin.timeline}, expected {at.system_id} timeline "
        f"{at.timeline} (a restored copy, or another cluster)",
        safe="nothing of it was applied; the replica may hold commits that this server does not "
        f"have: the last applied one ends at {lsns.show(at.applied_lsn)}",
        next=WAY_OUT,
    )


def _lost(at: Position, holds: int, primary: History, end: int | None) -> BrokenStream:
    """Return the error that names what the replica has and the primary has not."""
    beyond = [(txid, lsn) for txid, lsn in at.ring if end is None or lsn > end]
    more = "at least " if len(beyond) == RING else ""
    began = (
        f"timeline {at.timeline} is not in its history"
        if end is None
        else f"timeline {at.timeline} ended for it at {lsns.show(end)}"
    )
    if beyond:
        noun = "commit" if len(beyond) == 1 else "commits"
        what = f"{more}{len(beyond)} {noun} applied here, up to LSN {lsns.show(beyond[-1][1])}"
        listed = f": {_named(beyond)}"
        if at.applied_ms is not None:
            when = datetime.fromtimestamp(at.applied_ms / 1000, UTC)
            listed += f"; the last was committed at {when:%Y-%m-%d %H:%M:%S} UTC"
    else:
        what = f"what was copied and applied here up to LSN {lsns.show(holds)}"
        listed = ""
    return BrokenStream(
        f"the primary was failed over to a server that lacks {what}. It is on timeline "
        f"{primary.timeline}; {began}{listed}",
        safe="nothing of the new timeline was applied; this replica holds rows that the primary "
        "does not have",
        next=WAY_OUT,
        lsn=at.applied_lsn,
    )


def _named(commits: list[tuple[int, int]]) -> str:
    told = [f"transaction {txid} at {lsns.show(lsn)}" for txid, lsn in commits]
    if len(told) > _NAMED:
        told = [*told[: _NAMED // 2], f"{len(told) - _NAMED} more", *told[-_NAMED // 2 :]]
    return ", ".join(told)


class Succession:
    """The daemon's look at the primary, which another server may have succeeded."""

    def __init__(self, config: Config, replica: str) -> None:
        self._dsn = config.primary.dsn
        self._application = config.application_name(replica, "history")
        self._looked_at: float | None = None
        self._seen: History | None = None

    def again(self, at: Position, holds: int) -> None:
        """Judge what the last look found; begin another in the background when one is due.

        Raises BrokenStream. Where the primary does not answer nothing is known, and nothing said:
        what the topic holds is applied meanwhile.
        """
        if self._seen is not None:
            require(at, holds, self._seen)
        now = time.monotonic()
        if self._looked_at is None or now - self._looked_at >= EVERY:
            self._looked_at = now
            threading.Thread(target=self._look, name="history", daemon=True).start()

    def explain(self, at: Position, holds: int) -> None:
        """Look now: what breaks the stream may be a failover. Raises BrokenStream if it is."""
        self._look()
        if self._seen is not None:
            require(at, holds, self._seen)

    def follow(self, at: Position, holds: int, origin: Origin, lsn: int) -> Position:
        """Return the position on the timeline of `origin`, see above; raises Unreachable too."""
        seen = self._seen
        if seen is None or seen.end_of(origin.timeline) is None or seen.end_of(at.timeline) is None:
            seen = self._seen = read(self._dsn, self._application)
        moved = follow(at, holds, origin, lsn, seen)
        if moved is not at:
            log.info(
                "the primary is on timeline %d now; nothing of timeline %d was lost",
                moved.timeline,
                at.timeline,
            )
        return moved

    def _look(self) -> None:
        try:
            self._seen = read(self._dsn, self._application)
        except (CdcError, psycopg.Error) as error:
            log.debug("the primary does not tell its history: %s", error)
