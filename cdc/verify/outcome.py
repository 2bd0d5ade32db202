"""Everything one verification found, and what may be claimed from it."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Collection

from cdc import lsn as lsns
from cdc.names import TableName
from cdc.verify.encoding import Layout
from cdc.verify.findings import Finding, TableResult
from cdc.verify.hashing import Hash


@dataclasses.dataclass(frozen=True, slots=True)
class Uncovered:
    """A table that should have been compared and was not; on every replica if None."""

    replica: str | None
    table: TableName
    reason: str


@dataclasses.dataclass(slots=True)
class Outcome:
    """Everything one verification found.

    It speaks of what was visible on the primary at `at`, when its log ended at `lsn`. `trouble`
    tells, by replica, why it could not be compared, or not to the end.
    """

    at: dt.datetime
    lsn: int
    replicas: tuple[str, ...]
    hash: Hash = "lookup3"
    layouts: dict[TableName, Layout] = dataclasses.field(default_factory=dict)
    results: list[TableResult] = dataclasses.field(default_factory=list)
    findings: list[Finding] = dataclasses.field(default_factory=list)
    uncovered: list[Uncovered] = dataclasses.field(default_factory=list)
    trouble: dict[str, str] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0

    def of(self, replica: str) -> Outcome:
        """Return what of this is about one replica."""
        return dataclasses.replace(
            self,
            replicas=(replica,),
            results=[r for r in self.results if r.replica == replica],
            findings=[f for f in self.findings if f.replica == replica],
            uncovered=[u for u in self.uncovered if u.replica in (None, replica)],
            trouble={n: why for n, why in self.trouble.items() if n == replica},
        )

    def abandoned(self, replica: str, followed: Collection[TableName]) -> None:
        """Take note of tables that a replica follows, and that are not to be compared."""
        told = {found.table for found in self.uncovered if found.replica is None}
        why = "is followed there, but on the primary dropped, renamed or left out (`cdc status`)"
        self.uncovered += [Uncovered(replica, t, why) for t in sorted(followed) if t not in told]

    @property
    def exit_code(self) -> int:
        """0 all proven equal, 1 differences, 2 trouble, 3 rows or tables left undecided."""
        if any(result.differs for result in self.results):
            return 1
        if self.trouble or any(result.trouble for result in self.results):
            return 2
        if self.uncovered or not self.results:
            return 3
        return 0 if all(result.proven for result in self.results) else 3

    @property
    def left_open(self) -> bool:
        """Whether going on later may say more."""
        return bool(self.trouble) or any(result.open for result in self.results)

    def claim(self, name: str) -> str:
        """Return what was proven of a replica, in one line."""
        results = [r for r in self.results if r.replica == name]
        if name in self.trouble and not results:
            return f"{name}: not compared: {self.trouble[name]}"
        proven = [r for r in results if r.proven]
        differences = sum(r.found for r in results)
        mended = sum(r.mended for r in results)
        undecided = sum(r.unverified for r in results)
        said = (
            f"{name}: {count(len(proven), 'table')}, {sum(r.rows for r in proven):,} rows proven "
            f"equal as of LSN {lsns.show(self.lsn)} ({self.at:%Y-%m-%d %H:%M:%S} UTC); "
            f"{count(differences, 'difference')}{f', {mended:,} mended' if mended else ''}; "
            f"{undecided:,} undecided"
        )
        if otherwise := [str(r.table) for r in results if r.mismatched]:
            said += f"; the catalog differs: {', '.join(otherwise)}"
        if others := [str(r.table) for r in results if not r.proven]:
            said += f"; not proven: {', '.join(others)}"
        if uncovered := [str(u.table) for u in self.uncovered if u.replica in (None, name)]:
            said += f"; not covered: {', '.join(uncovered)}"
        return said + (f"; not finished: {self.trouble[name]}" if name in self.trouble else "")


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural but for one."""
    return f"{number:,} {noun}{'s'[: number != 1]}"
