"""What a soak came to."""

from __future__ import annotations

import dataclasses
from typing import Any

from faults import Found


@dataclasses.dataclass(slots=True)
class Totals:
    """What a soak came to.

    `false` are findings that are no faults, `missed` faults that were not found, `wrong` findings that
    name other columns; `healed` are faults on rows that the writers wrote over before they were told.
    """

    seed: int
    runs: int = 0
    exits: dict[str, int] = dataclasses.field(default_factory=dict)
    rows: int = 0
    candidates: int = 0
    resolved: int = 0
    run_seconds: list[float] = dataclasses.field(default_factory=list)
    undecided: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    false: list[Found] = dataclasses.field(default_factory=list)
    injected: int = 0
    rows_spoiled: int = 0
    missed: list[str] = dataclasses.field(default_factory=list)
    wrong: list[Found] = dataclasses.field(default_factory=list)
    on_written_rows: int = 0
    told: int = 0
    healed: int = 0
    mending_runs: int = 0
    mending_runs_killed: int = 0
    unmended: int = 0
    kills: int = 0
    ended_before_the_kill: int = 0
    resumed_runs: int = 0
    other_results: list[str] = dataclasses.field(default_factory=list)
    chunks_read_twice: dict[int, int] = dataclasses.field(default_factory=dict)
    differences: list[str] = dataclasses.field(default_factory=list)
    transactions: int = 0
    updates_of_one_row: int = 0
    writing_seconds: float = 0.0
    stalls: int = 0
    stalled_seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        said = dataclasses.asdict(self)
        times = sorted(said.pop("run_seconds")) or [0.0]
        seconds = max(self.writing_seconds, 1)
        return said | {
            "run_seconds": {"median": times[len(times) // 2], "worst": times[-1]},
            "transactions_per_second": round(self.transactions / seconds, 1),
            "updates_of_one_row_per_second": round(self.updates_of_one_row / seconds, 1),
        }
