"""`cdc teardown`: take a stream away, with everything it has on the primary, in Kafka and Connect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import psycopg

from cdc import leaving, roles, steps, topic
from cdc.commands import administrator, confirmed, settling
from cdc.commands.options import Common, common, emit, note
from cdc.connect import Connect
from cdc.errors import NotReady
from cdc.steps import Step

#: Seconds until the server must have noticed that the connector is gone.
_PATIENCE = 60.0


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be taken away; change nothing.")
@click.option(
    "--print", "print_", is_flag=True, help="Print the SQL for the primary's DBA; change nothing."
)
@click.option("--yes", metavar="NAME", help="Confirm with the stream's name, instead of typing it.")
@click.option("--admin-dsn", metavar="DSN", help="Who does it: a superuser of the primary.  "
              "[default: admin_dsn of the configuration, else dsn]")  # fmt: skip
@common
def teardown(
    said: Common, *, dry_run: bool, print_: bool, yes: str | None, admin_dsn: str | None
) -> None:
    """Take the whole stream away: connector with its offsets, slot, publication, roles, topic.

    The primary is then as it was before `cdc setup`. Tables and rows are touched nowhere. Replicas
    keep what they have: take each away first, with `cdc remove -r`. Roles that were there before
    `cdc setup` stay, with their rights. May be run again where it was interrupted.

    Without an administrator publication and roles are left to a DBA, with exit code 1; what he executes
    is what --print prints.
    """
    config = said.load()
    connect = Connect(config.connect)
    connector, slot = config.connector, config.slot
    with administrator.session(config, admin_dsn, command="teardown") as conn:
        daemon = roles.login_name(config.primary.dsn)
        if print_:
            plan = leaving.primary_steps(conn, config, daemon, by_another=True)
            script = steps.script(conn, plan, "primary")
            emit(said, {"script": script}, script)
            return
        plan = leaving.primary_steps(conn, config, daemon)
        there = {
            f"connector {connector}: deleted with its offsets": connect.config(connector) is not None,
            f"slot {slot}: dropped, nobody keeps log for the stream any more": leaving.slot(conn, slot) is not None,
            f"topic {config.topic}: deleted with everything in it": topic.exists(config),
        }  # fmt: skip
        lines = [
            what if is_ else f"{what.partition(':')[0]}: not there" for what, is_ in there.items()
        ]
        lines[2:2] = [step.what for step in plan]
        if dry_run:
            note("dry run: nothing was changed")
        else:
            confirmed.by_name("to be taken away", config.name, lines, yes)
            settling.forget(connect, connector)
            connect.delete(connector)
            _drop_slot(conn, slot)
            left = _take_off(conn, leaving.primary_steps(conn, config, daemon))
            topic.delete(config)
            if left:
                raise NotReady(
                    f"publication and roles are left on the primary: PostgreSQL refuses this from "
                    f"{conn.info.user}: {left}",
                    safe="connector, slot and topic are gone; nothing else was changed",
                    next="let a DBA execute what `cdc teardown --print` prints",
                )
    emit(said, {"dry_run": dry_run, "done": lines}, "\n".join(lines))
    note("replicas keep their tables, rows and schema cdc until `cdc remove -r NAME`")


def _take_off(conn: psycopg.Connection[Any], plan: Sequence[Step]) -> str | None:
    """Take publication and roles off the primary; say why where only another role may."""
    try:
        steps.execute(conn, plan, "primary")
    except NotReady as error:
        if not isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
            raise
        return error.__cause__.diag.message_primary
    return None


def _drop_slot(conn: psycopg.Connection[Any], name: str) -> None:
    """Drop the slot once nobody reads from it; NotReady when somebody goes on reading."""
    settling.wait_released(
        conn,
        name,
        patience=_PATIENCE,
        safe="the connector is deleted; slot, publication, roles and topic are still there",
        again="`cdc teardown`",
    )
    if leaving.slot(conn, name) is not None:
        conn.execute("SELECT pg_drop_replication_slot(%s)", [name])
