"""One verification: which tables and ends, then table by table, whatever becomes of one of them."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import psycopg

from cdc import tables
from cdc.config import Config
from cdc.errors import CdcError, NotReady, Unreachable
from cdc.names import TableName
from cdc.progress import CopyProgress, Tally, span
from cdc.verify import encoding, ends, hashing, likeness
from cdc.verify.comparison import Comparison, Side
from cdc.verify.ends import Patience, Primary, Replica, Shapes
from cdc.verify.findings import TableResult
from cdc.verify.hashing import Hash
from cdc.verify.outcome import Outcome, Uncovered
from cdc.verify.shape import Shape
from cdc.verify.store import Run, Store, digest
from cdc.verify.throttle import Throttle


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What the caller chose; `share` of the time the primary may work for us, up to 1.

    With `mend`, what differs is repaired on the replica; with `resume`, a run that was killed or
    left something open goes on, if it compared the same tables of the same replicas. `hash` is the
    one to use, None the fastest that all servers agree on.
    """

    only: frozenset[TableName] = frozenset()
    share: float = 1.0
    mend: bool = False
    resume: bool = False
    hash: Hash | None = None
    patience: Patience = dataclasses.field(default_factory=Patience)


def verify(
    config: Config, names: Sequence[str], options: Options, note: Callable[[str], None]
) -> Outcome:
    """Compare the replicas `names` with the primary and return everything found.

    Raises CdcError when the primary cannot be read to begin with, or a chosen table is not
    replicated; what ends the comparison later is told in the outcome.
    """
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        primary = ends.open_primary(stack, config, options.patience, options.share)
        try:
            outcome = _begin(primary, names)
            wanted = _tables(primary, config, options, outcome)
            size = _size(primary, wanted)
        except psycopg.Error as error:
            raise Unreachable(
                f"the primary's catalog cannot be read: {ends.told(error)}",
                safe="nothing was compared",
                next="make that possible and run the command again",
            ) from error
        replicas: list[Replica] = []
        stores: dict[str, Store] = {}
        for name in names:
            try:
                opened = ends.open_replica(stack, config, name, options.patience, note)
                stores[name] = stack.enter_context(contextlib.closing(Store.open(config, name)))
            except (CdcError, psycopg.Error) as error:
                outcome.trouble[name] = ends.told(error)
            else:
                replicas.append(opened)
        for replica in () if options.only else replicas:
            outcome.abandoned(replica.name, replica.held - set(wanted))
        if replicas:
            resumed = _remember(outcome, stores, options, note)
            pool = stack.enter_context(ThreadPoolExecutor(len(replicas)))
            course = _Course()
            meter = stack.enter_context(CopyProgress("comparing", size, course.say))
            every = _Tables(primary, replicas, stores, pool, options, outcome, meter, course)
            every.verify(wanted, resumed=resumed)
            _finish(outcome, stores)
    outcome.seconds = time.monotonic() - started
    return outcome


def past(config: Config, names: Sequence[str]) -> dict[str, list[Run]]:
    """Return the runs that the replicas remember, newest first."""
    runs: dict[str, list[Run]] = {}
    for name in names:
        with contextlib.closing(Store.open(config, name)) as store:
            runs[name] = store.history()
    return runs


def _begin(primary: Primary, names: Sequence[str]) -> Outcome:
    row = primary.conn.execute(
        "SELECT clock_timestamp(), pg_current_wal_insert_lsn() - '0/0'"
    ).fetchone()
    assert row is not None
    return Outcome(row[0], int(row[1]), tuple(names))


def _remember(
    outcome: Outcome, stores: dict[str, Store], options: Options, note: Callable[[str], None]
) -> bool:
    """Write down that a run begins, or find the one that goes on; tell which of the two it is."""
    fingerprint = digest(sorted(map(str, options.only)), sorted(stores))
    if options.resume:
        found = {_unfinished(store, fingerprint) for store in stores.values()}
        (first, *others) = found
        if first is not None and not others:
            outcome.at, outcome.lsn = first
            _take(stores, outcome.at)
            note(f"going on with the run of {outcome.at:%Y-%m-%d %H:%M:%S} UTC")
            return True
        note("no run of the same tables and replicas has left anything open: beginning anew")
    for name, store in stores.items():
        try:
            store.begin(outcome.at, outcome.lsn, fingerprint, whole=not options.only)
        except psycopg.Error as error:
            outcome.trouble[name] = f"the run cannot be remembered: {ends.told(error)}"
    return False


def _take(stores: dict[str, Store], at: dt.datetime) -> None:
    """Take a run that was left open to go on with it; raises NotReady where it goes on already."""
    for name, store in stores.items():
        try:
            free = store.claim(at)
        except psycopg.Error:
            continue  # to write will fail as well, and is told
        if not free:
            raise NotReady(
                f"the run of {at:%Y-%m-%d %H:%M:%S} UTC has not ended: its session on {name} is alive",
                safe="nothing was compared; that run goes on",
                next="wait for it to end, or end it, and run the command again; without --resume "
                "one can begin beside it",
                replica=name,
            )


def _unfinished(store: Store, fingerprint: str) -> tuple[dt.datetime, int] | None:
    try:
        return store.unfinished(fingerprint)
    except psycopg.Error:
        return None  # to begin will fail as well, and is told


def _finish(outcome: Outcome, stores: dict[str, Store]) -> None:
    """Write down how the run ended, on the replicas that still answer."""
    for name, store in stores.items():
        about = outcome.of(name)
        try:
            store.end(
                outcome.at,
                about.results,
                about.exit_code,
                outcome.claim(name),
                left_open=outcome.left_open,
            )
        except psycopg.Error as error:
            outcome.trouble.setdefault(name, ends.told(error))


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


def _size(primary: Primary, wanted: Sequence[TableName]) -> int:
    """Return about how many rows there are, as the planner believes, or the statistics."""
    row = primary.conn.execute(
        "SELECT coalesce(sum(CASE WHEN reltuples < 0 THEN pg_stat_get_live_tuples(c.oid)"
        " ELSE reltuples END), 0)::bigint FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))",
        [[t.schema for t in wanted], [t.name for t in wanted]],
    ).fetchone()
    assert row is not None
    return int(row[0])


@dataclasses.dataclass(slots=True)
class _Course:
    """Says how far the run is, and in which table."""

    table: TableName | None = None

    def say(self, done: Tally, total: int, seconds: float) -> str:
        rate = done.rows / seconds if seconds > 0 else 0.0
        said = f"{done.rows:,} rows, {rate:,.0f} rows/s"
        if 0 < done.rows < total:
            said += f", {span((total - done.rows) / rate)} left"
        return f"{said}, in {self.table}" if self.table else said


@dataclasses.dataclass(frozen=True, slots=True)
class _Tables:
    """Goes through the tables with the ends that are open."""

    primary: Primary
    replicas: Sequence[Replica]
    stores: dict[str, Store]
    pool: ThreadPoolExecutor
    options: Options
    outcome: Outcome
    meter: CopyProgress
    course: _Course

    def verify(self, wanted: Sequence[TableName], *, resumed: bool) -> None:
        """Compare table by table, until an end breaks."""
        try:
            ours, theirs = self._shapes(wanted)
            throttle = Throttle(self.primary, self.options.patience.lag)
            for table in wanted:
                here, self.course.table = ours.get(table), table
                there = {name: shapes.get(table) for name, shapes in theirs.items()}
                if (fit := self._fit(table, here, there)) and isinstance(here, Shape):
                    self._compare(here, fit, throttle, resumed=resumed)
        except (psycopg.Error, CdcError) as error:
            broken = "the session on the primary broke" if self.primary.broken else "stopped"
            for replica in self.replicas:
                self._lose(replica, f"{broken}: {ends.told(error)}")

    def _shapes(self, wanted: Sequence[TableName]) -> tuple[Shapes, dict[str, Shapes]]:
        conns = [self.primary.conn, *(r.conn for r in self.replicas)]
        self.outcome.hash = self.options.hash or hashing.choose(conns)
        reading = [(replica, self.pool.submit(replica.shapes, wanted)) for replica in self.replicas]
        ours = self.primary.shapes(wanted)
        theirs: dict[str, Shapes] = {}
        for replica, read in reading:
            try:
                theirs[replica.name] = read.result()
            except (psycopg.Error, CdcError) as error:
                self._lose(replica, replica.told(error))
        return ours, theirs

    def _lose(self, replica: Replica, why: str) -> None:
        """Give up a replica: what was compared is told, what is left of it can be gone on with."""
        self.outcome.trouble.setdefault(
            replica.name, f"{why}; next: run the same command again with --resume"
        )

    def _fit(
        self,
        table: TableName,
        ours: Shape | psycopg.Error | None,
        theirs: dict[str, Shape | psycopg.Error | None],
    ) -> list[Side]:
        """Return the replicas on which the table's rows can be compared; note why on others not."""
        fit = []
        for replica in self.replicas:
            if replica.name in self.outcome.trouble:
                continue
            if table not in replica.held:
                why = f"was not filled with it: `cdc bootstrap --table {table}`"
                self.outcome.uncovered.append(Uncovered(replica.name, table, why))
                continue
            result = TableResult(replica.name, table)
            self.outcome.results.append(result)
            there = theirs.get(replica.name)
            match ours, there:
                case Shape(), Shape():
                    result.mismatches = likeness.compare(ours, there)
                    if not result.incomparable:
                        fit.append(Side(replica, self.stores[replica.name], there, result))
                case (psycopg.Error(), _):
                    result.trouble = f"on the primary: {ends.told(ours)}"
                case (_, psycopg.Error()):
                    result.trouble = replica.told(there)
                case (None, _):
                    result.trouble = "it does not exist on the primary"
                case _:
                    result.trouble = f"it does not exist on {replica.name}"
        return fit

    def _compare(
        self, ours: Shape, sides: list[Side], throttle: Throttle, *, resumed: bool
    ) -> None:
        theirs = [side.shape for side in sides]
        layout = encoding.layout(ours, theirs, self.outcome.hash)
        self.outcome.layouts[ours.table] = layout
        comparison = Comparison(
            self.primary,
            layout,
            sides,
            self.outcome.at,
            digest(hashing.VERSION, ours, *theirs, layout),
            self.pool,
            throttle,
            lambda rows: self.meter.add(Tally(rows=rows, weight=rows)),
        )
        try:
            comparison.run(resumed=resumed, mend=self.options.mend)
        except (psycopg.Error, CdcError) as error:
            for side in sides:
                side.result.whole = False
                side.result.trouble = side.result.trouble or f"on the primary: {ends.told(error)}"
            if self.primary.broken:
                raise
        finally:
            for side in sides:
                self.outcome.findings += side.findings
        for side in sides:
            if side.replica.conn.closed:
                self._lose(side.replica, f"the session on {side.replica.name} broke")
