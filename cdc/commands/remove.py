"""`cdc remove`: let a replica go its own way."""

from __future__ import annotations

from typing import Any

import click
import psycopg

from cdc import keeper, leaving, position, roles, steps, topic
from cdc.commands import administrator, confirmed
from cdc.commands.options import Common, common, emit, note
from cdc.errors import NotReady


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be taken away; change nothing.")
@click.option(
    "--yes", metavar="NAME", help="Confirm with the replica's name, instead of typing it."
)
@click.option("--admin-dsn", metavar="DSN", help="Who does it: a superuser of the replica.  "
              "[default: admin_dsn of the configuration, else dsn]")  # fmt: skip
@common
def remove(said: Common, *, dry_run: bool, yes: str | None, admin_dsn: str | None) -> None:
    """Take away what makes a server a replica: its position, the schema cdc, roles, consumer group.

    Its tables and rows stay as they are; who could write them before `cdc setup` may again. Stop its daemon first. A role that owns tables stays, and
    so does one that was there before `cdc setup`. Other replicas are not touched; afterwards take
    the replica out of the configuration.
    """
    config = said.load()
    name = said.one_replica(config)
    replica, group = config.replica(name), config.group(name)
    role = roles.login_name(replica.dsn)
    with administrator.session(config, admin_dsn, name, command="remove") as conn:
        lines = [step.what for step in leaving.replica_steps(conn, config, replica, role)]
        forgotten = f"consumer group {group}: its offsets deleted"
        lines.append(forgotten)
        if dry_run:
            note("dry run: nothing was changed")
        else:
            _idle(conn, config.name)
            confirmed.by_name(f"to be taken away from {name}", name, lines, yes)
            steps.execute(conn, leaving.replica_steps(conn, config, replica, role), name)
            if config.connect.profile == "stock":
                with administrator.session(config, None, command="remove") as primary:
                    kept = keeper.removal(primary, config, [name])
                    steps.execute(primary, kept, "the primary")
                    lines += [f"primary: {step.what}" for step in kept]
            if not topic.forget_group(config, group):
                lines[lines.index(forgotten)] = f"consumer group {group}: not there"
    emit(said, {"replica": name, "dry_run": dry_run, "done": lines}, "\n".join(lines))


def _idle(conn: psycopg.Connection[Any], stream: str) -> None:
    """Take the writer's lock, for as long as this session lives; NotReady when a daemon has it."""
    if not position.try_lock(conn, stream):
        raise NotReady(
            "a daemon applies to this replica",
            safe="nothing was changed",
            next="stop it (`cdc run`), and whatever would start it again; then run this again",
        )
