"""One verification: which tables and ends, then table by table, whatever becomes of one of them."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import psycopg

from cdc import postgres, tables
from cdc.config import Config
from cdc.errors import CdcError, NotReady
from cdc.names import TableName
from cdc.verify import encoding, ends, repair, scan, shape
from cdc.verify.confirm import Confirmation, RowReader
from cdc.verify.encoding import Hash, Layout
from cdc.verify.ends import Patience, Primary, Replica
from cdc.verify.findings import Finding, TableResult, Undecided
from cdc.verify.ranges import Pace
from cdc.verify.reading import Reader
from cdc.verify.sets import SetReader
from cdc.verify.shape import Shape


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What the caller chose; `share` of the time the primary may work for us, up to 1.

    With `mend`, what differs is repaired on the replica.
    """

    only: frozenset[TableName] = frozenset()
    share: float = 0.5
    mend: bool = False
    patience: Patience = dataclasses.field(default_factory=Patience)


@dataclasses.dataclass(frozen=True, slots=True)
class Uncovered:
    """A table that the patterns match and that was not compared; on every replica if None."""

    replica: str | None
    table: TableName
    reason: str


@dataclasses.dataclass(slots=True)
class Outcome:
    """Everything one verification found.

    It speaks of what was visible on the primary at `at`, when its log ended at `lsn`. `trouble`
    tells, by replica, why one could not be compared.
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


def verify(
    config: Config, names: Sequence[str], options: Options, note: Callable[[str], None]
) -> Outcome:
    """Compare the replicas `names` with the primary and return everything found.

    Raises CdcError when the primary cannot be read or a chosen table is not replicated.
    """
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        primary = ends.open_primary(stack, config, options.patience)
        outcome = _begin(primary, names)
        wanted = _tables(primary, config, options, outcome)
        replicas: list[Replica] = []
        for name in names:
            try:
                replicas.append(ends.open_replica(stack, config, name, options.patience))
            except CdcError as error:
                outcome.trouble[name] = f"{error.what}; next: {error.next}"
        if replicas:
            pool = stack.enter_context(ThreadPoolExecutor(len(replicas)))
            _Tables(primary, replicas, pool, options, outcome, note).verify(wanted)
    outcome.seconds = time.monotonic() - started
    return outcome


def _begin(primary: Primary, names: Sequence[str]) -> Outcome:
    row = primary.conn.execute(
        "SELECT clock_timestamp(), pg_current_wal_insert_lsn() - '0/0'"
    ).fetchone()
    assert row is not None
    return Outcome(row[0], int(row[1]), tuple(names))


def _tables(
    primary: Primary, config: Config, options: Options, outcome: Outcome
) -> list[TableName]:
    """Return the chosen tables whose rows travel; note those that are matched and do not."""
    selection = tables.select(config, tables.read(primary.conn))
    left_out = {c.table: c.what for c in (*selection.left_out, *selection.refused)}
    carried = [table.name for table in selection.rows if table.name not in left_out]
    only = options.only or {*carried, *left_out}
    if unknown := only - {*carried, *left_out}:
        raise NotReady(
            f"not replicated: {', '.join(map(str, sorted(unknown)))}",
            safe="nothing was compared",
            next="name tables that primary.tables matches and primary.exclude does not",
        )
    outcome.uncovered += [
        Uncovered(None, table, why) for table, why in left_out.items() if table in only
    ]
    return [table for table in carried if table in only]


@dataclasses.dataclass(frozen=True, slots=True)
class _Tables:
    """Goes through the tables with the ends that are open."""

    primary: Primary
    replicas: Sequence[Replica]
    pool: ThreadPoolExecutor
    options: Options
    outcome: Outcome
    note: Callable[[str], None]

    def verify(self, wanted: Sequence[TableName]) -> None:
        conns = [self.primary.conn, *(r.conn for r in self.replicas)]
        self.outcome.hash = "lookup3" if encoding.alike(conns) else "sha256"
        ours = shape.read(self.primary.conn, wanted)
        theirs = {r.name: shape.read(r.conn, wanted) for r in self.replicas}
        for table in wanted:
            self._table(table, ours.get(table), {n: s.get(table) for n, s in theirs.items()})

    def _table(self, table: TableName, ours: Shape | None, theirs: dict[str, Shape | None]) -> None:
        """Compare one table with every replica that holds it."""
        fit: dict[str, tuple[Replica, Shape, TableResult]] = {}
        for replica in self.replicas:
            there = theirs[replica.name]
            if table not in replica.held:
                why = f"was not filled with it: `cdc bootstrap --table {table}`"
                self.outcome.uncovered.append(Uncovered(replica.name, table, why))
                continue
            result = TableResult(replica.name, table)
            self.outcome.results.append(result)
            if ours is None or there is None:
                where = "primary" if ours is None else "replica"
                result.trouble = f"it does not exist on the {where}"
                continue
            result.mismatches = shape.compare(ours, there)
            if not any(m.fatal for m in result.mismatches):
                fit[replica.name] = (replica, there, result)
        if ours is None or not fit:
            return
        layout = encoding.layout(ours, [s for _, s, _ in fit.values()], self.outcome.hash)
        self.outcome.layouts[table] = layout
        started = time.monotonic()
        try:
            passed = self._scan(layout, [replica for replica, _, _ in fit.values()])
            for replica, _, result in fit.values():
                result.rows, result.chunks = passed.rows, passed.chunks
                self._confirm(layout, replica, result, passed.found[replica.name])
                result.seconds = time.monotonic() - started
        except psycopg.Error as error:
            for _, _, result in fit.values():
                result.whole = False
                result.trouble = result.trouble or postgres.first_line(error)
            if self.primary.conn.closed:
                raise

    def _scan(self, layout: Layout, replicas: Sequence[Replica]) -> scan.Pass:
        here = self.primary.conn
        if layout.key:
            readers = {r.name: Reader(r.conn, layout) for r in replicas}
            return scan.keyed(Reader(here, layout), readers, Pace(self.options.share), self.pool)
        sets = {r.name: SetReader(r.conn, layout) for r in replicas}
        return scan.unkeyed(SetReader(here, layout), sets, self.pool)

    def _confirm(
        self, layout: Layout, replica: Replica, result: TableResult, found: scan.Found
    ) -> None:
        """Decide the candidates of one replica."""
        result.candidates, result.whole = len(found.candidates), found.whole
        if found.trouble is not None:
            result.trouble = postgres.first_line(found.trouble)
            return
        if not found.whole:
            why = (
                f"more than {scan.MOST:,} rows differ, so the table was left: "
                f"`cdc bootstrap --table {layout.table} --overwrite`"
            )
            result.undecided.append(Undecided(len(found.candidates), why))
            return
        kind = Reader if layout.key else SetReader
        readers = kind(self.primary.conn, layout), kind(replica.conn, layout)
        confirmation = Confirmation(self.primary, replica, readers)
        decided = confirmation.decide(found.candidates)
        result.resolved, result.alike = decided.same, decided.alike
        result.undecided += decided.undecided
        for finding in decided.findings:
            result.count(finding)
        self.outcome.findings += decided.findings
        if self.options.mend and decided.findings:
            self._mend(replica, readers, decided.findings, result)

    def _mend(
        self,
        replica: Replica,
        readers: tuple[RowReader, RowReader],
        findings: list[Finding],
        result: TableResult,
    ) -> None:
        """Repair what was found, then decide the same rows again."""
        with contextlib.closing(repair.writer(replica.config, replica.name)) as writer:
            mended = repair.Repair(self.primary, replica, readers, writer).mend(findings)
        again = Confirmation(self.primary, replica, readers).decide([f.address for f in findings])
        still = {finding.address for finding in again.findings}
        result.mended = sum(f.count for f in findings if f.address not in still)
        result.undecided += again.undecided
        if mended.left:
            self.note(f"{replica.name} {result.table}: {'; '.join(mended.left)}")
