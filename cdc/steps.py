"""Steps of `cdc setup`: decided first, then executed in one transaction or printed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import psycopg
from psycopg import errors as pg_errors
from psycopg import sql

from cdc.errors import NotReady


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One thing to do, told as done; without a statement it was done before.

    `printed` stands for a statement that holds a secret where the steps are only printed.
    """

    what: str
    statement: sql.Composed | sql.SQL | None = None
    printed: str | None = None


def execute(
    conn: psycopg.Connection[Any], steps: Iterable[Step], note: Callable[[str], None], where: str
) -> None:
    """Execute the steps that have something to do, all or none; tell each one by `note`.

    Raises NotReady when the session's role may not, or a lock is not to be had in ten seconds.
    """
    told = list(steps)
    try:
        with conn.transaction():
            conn.execute("SET LOCAL lock_timeout = '10s'")
            for step in told:
                if step.statement is not None:
                    conn.execute(step.statement)
    except pg_errors.InsufficientPrivilege as error:
        raise NotReady(
            f"{where}: the role {conn.info.user} may not do this: {_message(error)}",
            safe="nothing was changed on that server",
            next="give the DSN of a superuser (or of the owner of the tables with CREATEROLE) with "
            "--admin-dsn or admin_dsn, or let a DBA run what `cdc setup --print` prints",
            sqlstate=error.sqlstate,
        ) from error
    except pg_errors.LockNotAvailable as error:
        raise NotReady(
            f"{where}: a table stays locked by somebody else: {_message(error)}",
            safe="nothing was changed on that server",
            next="find it with SELECT * FROM pg_locks WHERE granted, then run `cdc setup` again",
            sqlstate=error.sqlstate,
        ) from error
    for step in told:
        note(f"{where}: {step.what}")


def script(conn: psycopg.Connection[Any], steps: Iterable[Step], where: str) -> str:
    """Return the steps as a script for psql."""
    lines = [f"-- {where}: database {conn.info.dbname}", "BEGIN;"]
    for step in steps:
        if step.statement is None:
            lines.append(f"-- {step.what}")
        else:
            lines.append(step.printed or step.statement.as_string(conn) + ";")
    return "\n".join([*lines, "COMMIT;"])


def _message(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error)
