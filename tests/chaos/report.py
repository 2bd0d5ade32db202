"""What a campaign came to."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

from schedule import Round

#: Seconds above which a recovery is named in the summary.
_SLOW = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Findings:
    """What a comparison found wrong: nothing, or a defect.

    `lost`: acknowledged transactions that a server lacks; `doubled`: what it has beyond them;
    `unmatched`: updates and deletes that found no row; `torn`: samples with half of a transaction.
    """

    differences: list[str] = dataclasses.field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    unmatched: int = 0
    torn: int = 0

    def __add__(self, other: Findings) -> Findings:
        return Findings(
            self.differences + other.differences,
            self.lost + other.lost,
            self.doubled + other.doubled,
            self.unmatched + other.unmatched,
            self.torn + other.torn,
        )


@dataclasses.dataclass(slots=True)
class Totals:
    """What a whole campaign came to."""

    rounds: int = 0
    blows: Counter[str] = dataclasses.field(default_factory=Counter)
    missed: int = 0
    helped: Counter[str] = dataclasses.field(default_factory=Counter)
    checks: int = 0
    transactions: int = 0
    writing_seconds: float = 0.0
    lost_connections: int = 0
    in_doubt: Counter[str] = dataclasses.field(default_factory=Counter)
    refused: Counter[str] = dataclasses.field(default_factory=Counter)
    rows_applied: int = 0
    samples: int = 0
    states: int = 0
    findings: Findings = dataclasses.field(default_factory=Findings)
    recovery: list[float] = dataclasses.field(default_factory=list)
    slow: list[int] = dataclasses.field(default_factory=list)

    def round(
        self, one: Round, hits: list[bool], helped: list[str], recovery: float | None
    ) -> None:
        """Count a round; `recovery` is None where it was not waited for."""
        self.rounds += 1
        self.blows.update(f"{blow.how} {blow.target}" for blow in one.blows)
        self.blows.update(f"at {blow.point}" for blow in one.blows if blow.point)
        self.missed += hits.count(False)
        self.helped.update(helped)
        if recovery is not None:
            self.recovery.append(recovery)
            if recovery > _SLOW:
                self.slow.append(one.number)

    def segment(
        self, found: Findings, wrote: dict[str, Any], watched: list[dict[str, Any]]
    ) -> None:
        """Count what was written and seen between two comparisons."""
        self.checks += 1
        self.findings += found
        self.transactions += wrote["transactions"]
        self.writing_seconds += wrote["seconds"]
        self.lost_connections += wrote["lost_connections"]
        self.in_doubt.update(wrote["in_doubt"])
        self.refused.update(wrote["refused"])
        self.samples += sum(seen["samples"] for seen in watched)
        self.states += sum(seen["states"] for seen in watched)

    def summary(self) -> dict[str, Any]:
        times = sorted(self.recovery)
        return {
            "rounds": self.rounds,
            "blows": dict(sorted(self.blows.items())),
            "failpoints_not_reached": self.missed,
            "started_by_operator": dict(self.helped),
            "comparisons": self.checks,
            "transactions": self.transactions,
            "transactions_per_second": round(self.transactions / max(self.writing_seconds, 1)),
            "lost_connections": self.lost_connections,
            "in_doubt": dict(self.in_doubt),
            "refused": dict(self.refused),
            "rows_applied": self.rows_applied,
            "samples": self.samples,
            "states_seen": self.states,
            "recovery_seconds": {
                "median": round(times[len(times) // 2], 1) if times else None,
                "worst": round(times[-1], 1) if times else None,
                f"rounds_above_{_SLOW:.0f}": self.slow,
            },
            **dataclasses.asdict(self.findings),
        }
