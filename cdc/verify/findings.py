"""What was found, row by row and table by table."""

from __future__ import annotations

import dataclasses
from typing import Literal

from cdc.names import TableName
from cdc.verify.ranges import Key
from cdc.verify.reading import Image, Row
from cdc.verify.shape import Mismatch

Kind = Literal["missing", "extra", "different"]


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """A row that differs between the primary and one replica.

    `key` maps the key's columns to their text; of a table without key it is the whole row, and
    `count` how many of such rows are too few or too many. `columns` maps the columns that differ
    to their texts on the primary and on the replica. `address`, `ours` (the primary's row) and
    `theirs` (the replica's version of it) are what mending needs.
    """

    replica: str
    table: TableName
    kind: Kind
    key: dict[str, str | None]
    columns: dict[str, tuple[str | None, str | None]]
    address: Key
    ours: Row | None
    theirs: Image | None
    count: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Undecided:
    """Rows about which nothing is said, and why; without keys it is about the table."""

    keys: tuple[Key, ...]
    reason: str


@dataclasses.dataclass(slots=True)
class TableResult:
    """One table on one replica.

    `rows` were compared on the primary; `candidates` differed at first sight, `resolved` of them
    turned out to be changes on their way. `mended` of the differing ones were repaired and then
    found equal, `left` says why others were not. `alike` rows differ in binary and not as PostgreSQL
    prints them. `whole` is False where the scan did not reach the end.
    """

    replica: str
    table: TableName
    rows: int = 0
    chunks: int = 0
    candidates: int = 0
    resolved: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    alike: int = 0
    mended: int = 0
    seconds: float = 0.0
    whole: bool = False
    mismatches: tuple[Mismatch, ...] = ()
    undecided: list[Undecided] = dataclasses.field(default_factory=list)
    trouble: str | None = None
    left: tuple[str, ...] = ()

    @property
    def unverified(self) -> int:
        return sum(len(u.keys) for u in self.undecided)

    @property
    def found(self) -> int:
        return self.missing + self.extra + self.different

    @property
    def differs(self) -> bool:
        return self.found > self.mended or any(m.fatal for m in self.mismatches)

    @property
    def proven(self) -> bool:
        return self.whole and not (self.differs or self.undecided or self.trouble)

    def count(self, finding: Finding) -> None:
        match finding.kind:
            case "missing":
                self.missing += finding.count
            case "extra":
                self.extra += finding.count
            case "different":
                self.different += finding.count
