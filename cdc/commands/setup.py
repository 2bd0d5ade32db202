"""`cdc setup`: prepare the primary, the topic and the replicas."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import click
import psycopg

from cdc import forgetting, provision, readings, roles, state, steps, tables, topic
from cdc.commands import administrator
from cdc.commands.options import Common, common, emit, note
from cdc.config import Config
from cdc.errors import CdcError, NotReady, SchemaMismatch
from cdc.provision import Server
from cdc.state import Wanted
from cdc.steps import Step
from cdc.strays import Inventory
from cdc.tables import Selection, Table

Plan = Callable[[], list[Step]]


@dataclasses.dataclass(frozen=True, slots=True)
class Primary:
    """The primary as it was before anything was done to it."""

    server: Server
    before: Inventory


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """What is done, or with `print_` only written down."""

    print_: bool
    told: list[str] = dataclasses.field(default_factory=list)
    scripts: list[str] = dataclasses.field(default_factory=list)

    def tell(self, line: str) -> None:
        self.told.append(line)
        note(line)

    def carry_out(self, conn: psycopg.Connection[Any], plan: Plan, where: str) -> None:
        """Execute what `plan` decides, tell it, and see that nothing is left to do."""
        decided = plan()
        if self.print_:
            self.scripts.append(steps.script(conn, decided, where))
            return
        steps.execute(conn, decided, where)
        steps.check_done(conn, plan(), where)
        for step in decided:
            self.tell(f"{where}: {step.what}")


@click.command()
@click.option(
    "--print", "print_", is_flag=True, help="Print the SQL and the topic; change nothing."
)
@click.option("--admin-dsn", metavar="DSN", help="Who does it: a superuser of the primary, or with "
              "one -r of that replica.  [default: admin_dsn of the configuration, else dsn]")  # fmt: skip
@click.option("--primary", "only_primary", is_flag=True, help="Only the primary and the topic.")
@click.option("--no-lock", is_flag=True, help="Leave others the right to write the replicas' tables.")  # fmt: skip
@common
def setup(
    said: Common, print_: bool, admin_dsn: str | None, only_primary: bool, no_lock: bool
) -> None:
    """Prepare the primary, the topic and the replicas; with -r only those replicas, with --primary none.

    It may be run again at any time: what is there already stays, what has changed is mended. On a
    replica the right to write its tables is taken from whom it was granted, the right to read is not.
    """
    config = said.load()
    work = Work(print_)
    if only_primary and said.replicas:
        raise click.UsageError("--primary leaves every replica out: give it without -r")
    names = () if only_primary else said.some_replicas(config)
    # The primary is looked at in any case: a replica must not be the primary itself.
    with administrator.session(config, None if said.replicas else admin_dsn) as conn:
        primary = Primary(provision.server(conn, config), readings.inventory(config, conn))
        catalog = tables.read(conn)
        selection = tables.select(config, catalog)
        if not said.replicas:
            _primary(config, conn, work, primary.server, catalog=catalog, wanted=selection)
        has = state.wanted(conn, selection)
    if not said.replicas:
        try:
            _topic(config, work)
        except CdcError as error:
            if work.told:
                error.safe = "what was told above is done; nothing else was changed"
            raise
    for name in names:
        with administrator.session(
            config, admin_dsn if len(said.replicas) == 1 else None, name
        ) as conn:
            _replica(config, conn, work, name, primary=primary, has=has, lock=not no_lock)
    script = "\n\n".join(work.scripts)
    if print_:
        emit(said, {"script": script}, script)
    else:
        emit(said, {"done": work.told}, "ready; next: cdc connectors apply")


def _primary(
    config: Config, conn: psycopg.Connection[Any], work: Work, found: Server, *,
    catalog: Sequence[Table], wanted: Selection,
) -> None:  # fmt: skip
    provision.check_server(found, where="the primary", primary=True)
    _judge(config, wanted, work.tell)
    # pg_dump locks every table that it writes down, which takes the right to read it.
    dumped = [t.oid for t in catalog if t.kind != "f"] if config.bootstrap.schema == "all" else []

    def plan() -> list[Step]:
        return provision.steps(
            conn, config, wanted, dumped=dumped, connector=roles.connector(config, conn),
            daemon=roles.daemon(config.primary.dsn, conn),
        )  # fmt: skip

    work.carry_out(conn, plan, "primary")
    password = roles.connector_password(config)
    if password is None or work.print_:
        return
    if differ := roles.settings_seen(config, password, provision.CONNECTOR_SETTINGS):
        raise NotReady(
            f"a fresh login of {config.connector_role} does not get its settings: "
            + ", ".join(f"{name} is {value}" for name, value in differ.items()),
            safe="values captured with them would arrive altered",
            next="remove what sets them otherwise for that role (pg_db_role_setting, PGOPTIONS)",
        )
    work.tell(f"primary: role {config.connector_role}: logs in, settings read back")


def _judge(config: Config, wanted: Selection, tell: Callable[[str], None]) -> None:
    """Tell what is left out; raise when a table cannot be carried or none is left."""
    for complaint in wanted.left_out:
        tell(f"primary: warning: {complaint}")
    for text in wanted.idle_patterns:
        tell(f"primary: warning: the pattern {text} matches no table")
    if wanted.refused:
        raise SchemaMismatch(
            "\n".join(["these tables cannot be replicated as they are:",
                       *(f"  {complaint}" for complaint in wanted.refused)]),
            safe="nothing was changed",
            next="mend or exclude each of them (primary.exclude), then run `cdc setup` again",
            table=str(wanted.refused[0].table),
        )  # fmt: skip
    if not wanted.published:
        raise NotReady(
            f"no table of the primary matches {', '.join(config.primary.tables)}",
            safe="nothing was changed",
            next="create the tables or correct primary.tables and primary.exclude",
        )


def _topic(config: Config, work: Work) -> None:
    if not work.print_:
        for line in topic.ensure(config):
            work.tell(line)
        return
    options = " ".join(f"--config {k}={v}" for k, v in topic.settings(config).items())
    work.scripts.append(
        f"-- topic, with Kafka's own tool:\n-- kafka-topics.sh --bootstrap-server "
        f"{config.kafka.bootstrap_servers} --create --if-not-exists --topic {config.topic} "
        f"--partitions 1 --replication-factor {config.kafka.topic.replication_factor} {options}"
    )


def _replica(
    config: Config, conn: psycopg.Connection[Any], work: Work, name: str, *, primary: Primary,
    has: Wanted, lock: bool,
) -> None:  # fmt: skip
    found = provision.server(conn, config)
    provision.check_server(found, where=f"replica {name}", primary=False)
    if (found.system_id, found.database) == (primary.server.system_id, primary.server.database):
        raise NotReady(
            f"replica {name} is the primary itself: its dsn leads to the same database",
            safe="nothing was changed there",
            next=f"correct replicas.{name}.dsn",
        )
    replica = config.replica(name)

    def plan() -> list[Step]:
        return [
            *state.steps(conn, config, replica, roles.daemon(replica.dsn, conn), has, lock=lock),
            *forgetting.steps(conn, config.name, primary.before),
        ]

    work.carry_out(conn, plan, name)
