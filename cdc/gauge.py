"""What the daemon's loop knows of itself, in memory, for the threads that serve it.

The loop writes attributes and waits for nobody; readers may see one a moment older than another.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

from cdc import lag, metrics
from cdc.batch import Batch
from cdc.names import TableName
from cdc.position import Coverage, Position, Written

#: Seconds without a step of the loop after which it hangs; it takes one every half second.
HANGS = 60.0


@dataclasses.dataclass(slots=True)
class Gauge:
    """The loop of one replica's daemon; times in seconds, `tick` by the monotonic clock.

    `doing` is one of starting, standing by, applying, waiting; `trouble` what it waits for. `busy`
    tells that it writes a batch, which takes what it takes. `first_at` is when the first transaction
    that was read and not applied committed. `known_at` is when the position was read or moved last,
    `loaded_at` when it was read with what is recorded of the tables, `lost_at` when the session on the
    replica was lost: a server that crashed may have forgotten commits.
    """

    replica: str
    tick: float = dataclasses.field(default_factory=time.monotonic)
    doing: str = "starting"
    trouble: str | None = None
    busy: bool = False
    position: Position | None = None
    unfilled: int = 0
    complete_at: int = 0
    heartbeat_at: float | None = None
    first_at: float | None = None
    read_at: float = 0.0
    known_at: float = 0.0
    loaded_at: float = 0.0
    lost_at: float = 0.0
    batches: int = 0
    transactions: int = 0
    total: Written = dataclasses.field(default_factory=Written)
    stages: metrics.Stages = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.stages = metrics.Stages(self.replica)

    def step(self) -> None:
        """Say that the loop goes on."""
        self.tick, self.busy = time.monotonic(), False

    def writing(self, commit_ms: int | None) -> None:
        """Say that a batch is written from now on, whose first transaction committed then."""
        self.busy = True
        self.pending(commit_ms)

    def loaded(self, at: Position, coverage: Mapping[TableName, Coverage]) -> None:
        """Take the place from which a turn begins; it may lie before what was applied last."""
        self.position, self.heartbeat_at, self.first_at = at, None, None
        self.known_at = self.loaded_at = time.monotonic()
        self.unfilled = sum(table.state != "copied" for table in coverage.values())
        self.complete_at = max((t.snapshot_lsn or 0 for t in coverage.values()), default=0)

    def pending(self, commit_ms: int | None) -> None:
        """Take the commit time of what was read and is not applied: the first since the last commit."""
        if self.first_at is None and commit_ms is not None:
            self.first_at = commit_ms / 1000

    def applied(self, batch: Batch, at: Position, written: Written, seconds: float) -> None:
        """Take what was committed on the replica, and how long writing took."""
        self.position, self.first_at, self.known_at = at, None, time.monotonic()
        if batch.heartbeat is not None:
            self.heartbeat_at = batch.heartbeat.ts
        self.batches += 1
        self.transactions += len(batch.ends)
        self.total += written
        end = batch.ends[-1]
        if end.appended_ms is not None:
            appended = end.appended_ms / 1000
            self.stages.observe(appended - end.commit_ms / 1000, self.read_at - appended, seconds)

    @property
    def applied_at(self) -> float | None:
        """When the last transaction applied committed."""
        applied_ms = None if self.position is None else self.position.applied_ms
        return None if applied_ms is None else applied_ms / 1000

    @property
    def alive(self) -> bool:
        """Whether the loop goes on, or waits for something that a restart would not bring."""
        waits = self.busy or self.doing in {"standing by", "waiting"}
        return waits or time.monotonic() - self.tick <= HANGS

    @property
    def filling(self) -> bool:
        """Whether a bootstrap had not finished when the position was read, or its copies are ahead of it.

        That it has finished since then the loop learns only at an event of such a table.
        """
        at = self.position
        return self.unfilled > 0 or at is None or at.applied_lsn < self.complete_at

    def lag(self, now: float, period: float) -> float | None:
        """Return the lag at `now` of the primary's clock, None where nothing is known yet."""
        return lag.seconds(
            now,
            heartbeat_at=self.heartbeat_at,
            applied_at=self.applied_at,
            first_unapplied=self.first_at,
            period=period,
        )
