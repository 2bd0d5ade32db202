"""Steps of `cdc setup`: decided first, then executed in one transaction or printed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import errors as pg_errors
from psycopg import sql

from cdc.errors import NotReady

ADMIN = (
    "give the DSN of a superuser (or of the tables' owner with CREATEROLE) with --admin-dsn or "
    "admin_dsn, or let a DBA run what `cdc setup --print` prints"
)

#: What a script begins with: parts for several servers may be given to one of them by mistake.
_HERE = sql.SQL(
    "DO $do$BEGIN IF current_database() <> {database} OR {system} <>"
    " (SELECT system_identifier FROM pg_control_system())"
    " THEN RAISE EXCEPTION USING MESSAGE = {message}; END IF; END$do$;"
)

#: Tries at a transaction that PostgreSQL ends as a deadlock's victim.
_TRIES = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One thing to do, told as done; without a statement it was done before.

    `printed` stands for a statement that holds a secret where the steps are only printed.
    """

    what: str
    statement: sql.Composed | sql.SQL | None = None
    printed: str | None = None


def execute(conn: psycopg.Connection[Any], steps: Sequence[Step], where: str) -> None:
    """Execute the steps that have something to do, all of them or none.

    A deadlock, for one with the autovacuum of a table that was just filled, is tried again.
    Raises NotReady when PostgreSQL refuses a step, or a lock is not to be had in ten seconds.
    """
    for _ in range(_TRIES - 1):
        try:
            return _execute(conn, steps, where)
        except pg_errors.DeadlockDetected:
            continue
    return _execute(conn, steps, where)


def _execute(conn: psycopg.Connection[Any], steps: Sequence[Step], where: str) -> None:
    try:
        with conn.transaction():
            conn.execute("SET LOCAL lock_timeout = '10s'")
            for step in steps:
                if step.statement is not None:
                    conn.execute(step.statement)
    except psycopg.OperationalError as error:
        if not isinstance(error, pg_errors.LockNotAvailable):
            raise
        raise _refused(conn, error, where, "find who holds it with SELECT * FROM pg_locks, then "
                       "run `cdc setup` again") from error  # fmt: skip
    except psycopg.Error as error:
        raise _refused(conn, error, where, ADMIN) from error


def check_done(conn: psycopg.Connection[Any], steps: Iterable[Step], where: str) -> None:
    """Raise NotReady when steps decided anew, after execution, still have something to do.

    A GRANT by somebody who may not grant is only a warning in PostgreSQL.
    """
    left = [step.what for step in steps if step.statement is not None and step.printed is None]
    if left:
        raise NotReady(
            f"{where}: PostgreSQL accepted this from {conn.info.user} and did not do it: {left[0]}",
            safe="nothing is replicated by it",
            next=ADMIN,
        )


def script(conn: psycopg.Connection[Any], steps: Iterable[Step], where: str) -> str:
    """Return the steps as a script for psql, which ends without a change in any other database."""
    ((database, system),) = conn.execute(
        "SELECT current_database()::text, system_identifier FROM pg_control_system()"
    ).fetchall()
    here = _HERE.format(
        database=sql.Literal(database),
        system=sql.Literal(system),
        message=sql.Literal(f"this part is for another database: {where}, {database}"),
    )
    lines = [
        f"-- {where}: database {database}",
        r"\set ON_ERROR_STOP on",
        r"\set ON_ERROR_ROLLBACK off",
        "BEGIN;",
        here.as_string(conn),
    ]
    for step in steps:
        if step.statement is None:
            lines.append(f"-- {step.what}")
        else:
            lines.append(step.printed or step.statement.as_string(conn) + ";")
    return "\n".join([*lines, "COMMIT;"])


def _refused(
    conn: psycopg.Connection[Any], error: psycopg.Error, where: str, next_step: str
) -> NotReady:
    return NotReady(
        f"{where}: PostgreSQL refuses this from {conn.info.user}: "
        f"{error.diag.message_primary or error}",
        safe="nothing was changed on that server",
        next=next_step,
        sqlstate=error.sqlstate,
    )
