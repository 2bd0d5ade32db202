"""What was found, row by row and table by table."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Literal

from cdc.names import TableName
from cdc.verify.likeness import Mismatch
from cdc.verify.ranges import Key
from cdc.verify.reading import Image, Row

Kind = Literal["missing", "extra", "different"]


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """A row that differs between the primary and one replica.

    `key` maps the key's columns to their text; where the table has none (not `keyed`) it is the whole
    row, and `count` how many of such rows are too few or too many. `columns` maps the columns that differ
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
    keyed: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Undecided:
    """Rows about which nothing is said, and why; without keys it is about the table.

    `addressed` is False in a table without key, where `keys` stand for contents.
    """

    keys: tuple[Key, ...]
    reason: str
    addressed: bool = True


@dataclasses.dataclass(slots=True)
class TableResult:
    """One table on one replica.

    `rows` were compared on the primary; `candidates` differed at first sight, `resolved` of them
    turned out to be changes on their way. `mends` counts, by kind, the differing ones that were
    repaired and then found equal; `left` says why others were not. `whole` is False where
    the scan did not reach the end.
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
    seconds: float = 0.0
    whole: bool = False
    mismatches: tuple[Mismatch, ...] = ()
    undecided: list[Undecided] = dataclasses.field(default_factory=list)
    trouble: str | None = None
    left: tuple[str, ...] = ()
    mends: Counter[Kind] = dataclasses.field(default_factory=Counter)

    @property
    def mended(self) -> int:
        return self.mends.total()

    @property
    def unverified(self) -> int:
        return sum(len(u.keys) for u in self.undecided)

    @property
    def found(self) -> int:
        return self.missing + self.extra + self.different

    @property
    def differs(self) -> bool:
        return self.found > self.mended or self.mismatched

    @property
    def mismatched(self) -> bool:
        """Whether the replica's table is not like the primary's, its rows apart."""
        return any(m.weight != "note" for m in self.mismatches)

    @property
    def open(self) -> bool:
        """Whether a later look may say more: something was not read, or not decided."""
        return bool(self.undecided or self.trouble) or not (self.whole or self.incomparable)

    @property
    def incomparable(self) -> bool:
        return any(m.weight == "fatal" for m in self.mismatches)

    @property
    def proven(self) -> bool:
        """Whether every row is proven equal; a catalog that differs does not make rows differ."""
        return self.whole and self.found == self.mended and not (self.undecided or self.trouble)

    def still(self, kind: Kind) -> int:
        """Return how many rows differ in this way and were not mended."""
        found: int = getattr(self, kind)
        return found - self.mends[kind]

    def count(self, finding: Finding) -> None:
        match finding.kind:
            case "missing":
                self.missing += finding.count
            case "extra":
                self.extra += finding.count
            case "different":
                self.different += finding.count
