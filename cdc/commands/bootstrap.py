"""`cdc bootstrap`: fill a replica from the primary."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

import click
import psycopg

from cdc import bootstrap as bootstraps
from cdc import filling, planning, postgres
from cdc import lsn as lsns
from cdc.bootstrap import Bootstrap, Filled
from cdc.commands.options import Common, common, emit, note
from cdc.errors import Halt
from cdc.planning import Plan
from cdc.progress import amount, span


@click.command()
@click.option("--table", "tables_", multiple=True, metavar="SCHEMA.TABLE",
              help="Fill only this table; may be repeated.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1), metavar="N",
              help="Tables or ranges copied at once.  [default: bootstrap.jobs]")  # fmt: skip
@click.option("--overwrite", is_flag=True,
              help="Fill tables that have rows too, also those filled already; their rows are replaced.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
@common
def bootstrap(
    said: Common, tables_: tuple[str, ...], jobs: int | None, overwrite: bool, dry_run: bool
) -> None:
    """Fill a replica from the primary, under live writes.

    Interrupted and run again it continues. Tables filled already stay as they are. On a replica in
    use the daemon goes on meanwhile, and readers see a table's old rows until all new ones are there.
    """
    config = said.load()
    name = said.one_replica(config)
    application = config.application_name(name, "bootstrap")
    settings = {"lock_timeout": "60s", "statement_timeout": "0"}
    with (
        _stoppable(name),
        contextlib.closing(
            postgres.connect(config.primary.dsn, application, autocommit=True)
        ) as primary,
        contextlib.closing(
            postgres.connect(
                config.replica(name).dsn, application, autocommit=True, settings=settings
            )
        ) as replica,
    ):
        try:
            filling.lock(replica, config.name)
            plan = planning.make(config, name, primary, replica, tables_, overwrite=overwrite)
            if dry_run:
                emit(said, _plan_value(plan), _plan_text(plan, name))
                return
            done = Bootstrap(
                config=config, name=name, plan=plan, primary=primary, replica=replica, note=note
            ).run(jobs or config.bootstrap.jobs)
        except psycopg.Error as error:
            raise bootstraps.guard(error, name) from error
    emit(said, _value(name, done), _text(name, done))


@contextlib.contextmanager
def _stoppable(name: str) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the work cleanly; a second one kills."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        raise _Stop(number)

    before: dict[int, Any] = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except _Stop as asked:
        raise Halt(
            f"stopped by {signal.Signals(asked.number).name}",
            safe="tables that were copied whole stay; the others count as empty",
            next="run `cdc bootstrap` again: it continues",
            replica=name,
        ) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Stop(BaseException):
    """A signal came; not an Exception, so that nothing on the way takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _plan_value(plan: Plan) -> dict[str, Any]:
    return {
        "fill": [str(t.name) for t in plan.fill],
        "overwrite": [str(n) for n in plan.overwritten],
        "kept": [str(n) for n in _kept(plan)],
        "schema": "all" if plan.whole_schema else "what the tables need",
        "first": plan.needs_start,
    }


def _kept(plan: Plan) -> list[Any]:
    fill = {t.name for t in plan.fill}
    return sorted(t.name for t in plan.rows if t.name not in fill)


def _plan_text(plan: Plan, name: str) -> str:
    replaced = plan.in_use if plan.beside else set(plan.overwritten)
    how = "fill it again, then exchange its rows" if plan.beside else "empty it, then fill it"
    lines = [f"{t.name}: {how if t.name in replaced else 'fill it'}" for t in plan.fill]
    lines += [f"{n}: filled already, stays" for n in _kept(plan)]
    return "\n".join([f"on {name}, would", *(f"  {line}" for line in lines)])


def _value(name: str, done: Filled) -> dict[str, Any]:
    return {
        "replica": name,
        "lsn": None if done.lsn is None else lsns.show(done.lsn),
        "filled": [str(n) for n in done.tables],
        "kept": [str(n) for n in done.kept],
        "rows": done.done.rows,
        "bytes": done.done.bytes,
        "seconds": round(done.seconds, 3),
        "sequences": done.sequences,
        "sequences_left": list(done.sequences_left),
        "foreign_keys": {
            "made": [str(k) for k in done.foreign_keys.made],
            "pending": [str(k) for k in done.foreign_keys.pending],
            "not_made": [str(k) for k in done.foreign_keys.one_sided],
        },
    }


def _text(name: str, done: Filled) -> str:
    lines = []
    if done.lsn is None:
        lines.append(f"{name}: all {len(done.kept)} tables were filled already")
    else:
        lines.append(
            f"{name}: {len(done.tables)} tables filled as of {lsns.show(done.lsn)}: {done.done.rows:,} "
            f"rows, {amount(done.done.bytes)} in {span(done.seconds)}"
        )
        lines.append(f"next: cdc run -r {name}")
    lines += [
        f"the foreign key {k} is not made: the table it refers to is not replicated"
        for k in done.foreign_keys.one_sided
    ]
    if done.foreign_keys.pending:
        lines.append(
            "not made yet, because tables were copied at different moments: "
            + ", ".join(str(k) for k in done.foreign_keys.pending)
            + "; run `cdc bootstrap` again when the replica has caught up"
        )
    if done.sequences_left:
        lines.append(f"sequences left as they were: {', '.join(done.sequences_left)}")
    return "\n".join(lines)
