"""`cdc setup`: prepare the primary, the topic and the replicas."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import click
import psycopg

from cdc import postgres, provision, roles, state, steps, tables, topic
from cdc.commands.options import Common, common, emit, note
from cdc.config import Config
from cdc.errors import CdcError, NotReady, SchemaMismatch
from cdc.provision import Server
from cdc.roles import Login
from cdc.steps import Step
from cdc.tables import Selection


@click.command()
@click.option(
    "--print", "print_", is_flag=True, help="Print the SQL and the topic; change nothing."
)
@click.option("--admin-dsn", metavar="DSN", help="Who does it: a superuser of the primary, or with "
              "one -r of that replica.  [default: admin_dsn of the configuration, else dsn]")  # fmt: skip
@common
def setup(said: Common, print_: bool, admin_dsn: str | None) -> None:
    """Prepare the primary, the topic and the replicas; with -r only those replicas.

    It may be run again at any time: what is there already stays, what has changed is mended.
    """
    config = said.load()
    scripts: list[str] = []
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        note(line)

    def carry_out(conn: psycopg.Connection[Any], plan: list[Step], where: str) -> None:
        if print_:
            scripts.append(steps.script(conn, plan, where))
        else:
            steps.execute(conn, plan, tell, where)

    whole = not said.replicas
    # The primary is looked at in any case: a replica must not be the primary itself.
    with _session(config, admin_dsn if whole else None, None) as conn:
        primary = provision.server(conn, config)
        if whole:
            provision.check_server(primary, where="the primary", primary=True)
            connector, password = roles.connector(config, conn)
            carry_out(conn, _primary_plan(config, conn, connector, tell), "primary")
    if whole and print_:
        scripts.append(_topic_script(config))
    elif whole:
        if password is not None:
            _read_back(config, password, tell)
        for line in topic.ensure(config):
            tell(line)
    for name in said.some_replicas(config):
        with _session(config, admin_dsn if len(said.replicas) == 1 else None, name) as conn:
            carry_out(conn, _replica_plan(config, conn, name, primary), name)
    script = "\n\n".join(scripts)
    if print_:
        emit(said, {"script": script}, script)
    else:
        emit(said, {"done": told}, "ready; next: cdc connectors apply")


@contextlib.contextmanager
def _session(
    config: Config, given: str | None, replica: str | None
) -> Iterator[psycopg.Connection[Any]]:
    """Open the administrator's session on a replica, or on the primary."""
    end = config.replica(replica) if replica else config.primary
    dsn = given or end.admin_dsn or end.dsn
    name = config.application_name(replica or "primary", "setup")
    with postgres.connect(dsn, name, autocommit=True) as conn:
        try:
            yield conn
        except CdcError as error:
            raise error.at(replica=replica) from error.__cause__


def _primary_plan(
    config: Config, conn: psycopg.Connection[Any], connector: Login, tell: Callable[[str], None]
) -> list[Step]:
    catalog = tables.read(conn)
    wanted = tables.select(config, catalog)
    _judge(config, wanted, tell)
    # pg_dump locks every table that it writes down, which takes the right to read it.
    dumped = [t.oid for t in catalog if t.kind != "f"] if config.bootstrap.schema == "all" else []
    daemon = roles.daemon(config.primary.dsn, conn)
    return provision.steps(conn, config, wanted, dumped=dumped, connector=connector, daemon=daemon)


def _judge(config: Config, wanted: Selection, tell: Callable[[str], None]) -> None:
    """Tell what is left out; raise when a table cannot be carried or none is left."""
    for complaint in wanted.left_out:
        tell(f"primary: warning: {complaint}")
    for text in wanted.idle_patterns:
        tell(f"primary: warning: the pattern {text} matches no table")
    if wanted.refused:
        first, *rest = wanted.refused
        raise SchemaMismatch(
            "\n".join([f"{len(wanted.refused)} findings on tables that cannot be replicated truly:",
                       *(f"  {complaint}" for complaint in (first, *rest))]),
            safe="nothing was changed",
            next="mend or exclude each of them (primary.exclude), then run `cdc setup` again",
            table=str(first.table),
        )  # fmt: skip
    if not wanted.published:
        raise NotReady(
            f"no table of the primary matches {', '.join(config.primary.tables)}",
            safe="nothing was changed",
            next="create the tables or correct primary.tables and primary.exclude",
        )


def _read_back(config: Config, password: str, tell: Callable[[str], None]) -> None:
    """See through the eyes of the connector's role whether its settings hold."""
    differ = roles.settings_seen(config, password, provision.CONNECTOR_SETTINGS)
    if differ:
        raise NotReady(
            f"a fresh login of {config.connector_role} does not get its settings: "
            + ", ".join(f"{name} is {value}" for name, value in differ.items()),
            safe="nothing is captured with them yet, or the connector must be stopped",
            next="remove what sets them otherwise for that role (pg_db_role_setting, PGOPTIONS)",
        )
    tell(f"primary: role {config.connector_role}: logs in, settings read back")


def _replica_plan(
    config: Config, conn: psycopg.Connection[Any], name: str, primary: Server
) -> list[Step]:
    found = provision.server(conn, config)
    provision.check_server(found, where=f"replica {name}", primary=False)
    if (found.system_id, found.database) == (primary.system_id, primary.database):
        raise NotReady(
            f"replica {name} is the primary itself: its dsn leads to the same database",
            safe="nothing was changed there",
            next=f"correct replicas.{name}.dsn",
        )
    replica = config.replica(name)
    return state.steps(conn, config, replica, roles.daemon(replica.dsn, conn))


def _topic_script(config: Config) -> str:
    options = " ".join(f"--config {k}={v}" for k, v in topic.settings(config).items())
    return (
        f"-- topic, with Kafka's own tool:\n-- kafka-topics.sh --bootstrap-server "
        f"{config.kafka.bootstrap_servers} --create --if-not-exists --topic {config.topic} "
        f"--partitions 1 --replication-factor {config.kafka.topic.replication_factor} {options}"
    )
