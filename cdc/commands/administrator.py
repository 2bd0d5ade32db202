"""The administrator's session, for commands that change what a daemon may not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg

from cdc import postgres, steps
from cdc.config import Config
from cdc.errors import CdcError, NotReady, Unreachable


@contextlib.contextmanager
def session(
    config: Config, given: str | None, replica: str | None = None, command: str = "setup"
) -> Iterator[psycopg.Connection[Any]]:
    """Open a session on a replica, or on the primary, as `given`, else admin_dsn, else dsn says."""
    end = config.replica(replica) if replica else config.primary
    if given is not None:
        postgres.parts(given, "--admin-dsn")
    dsn = given or end.admin_dsn or end.dsn
    name = config.application_name(replica or "primary", command)
    with postgres.connect(dsn, name, autocommit=True) as conn:
        try:
            yield conn
        except CdcError as error:
            raise error.at(replica=replica) from error.__cause__
        except psycopg.OperationalError as error:
            raise Unreachable(
                f"the session on {postgres.address(dsn)} broke: {postgres.first_line(error)}",
                safe="what was told above is done; nothing else was changed",
                next=f"run `cdc {command}` again",
                replica=replica,
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise NotReady(
                f"{conn.info.user} may not look at {postgres.address(dsn)} as {command} must: "
                f"{error.diag.message_primary}",
                safe="nothing was changed there",
                next=steps.ADMIN,
                replica=replica,
                sqlstate=error.sqlstate,
            ) from error
