"""`cdc connectors`: the definition in the files against what Kafka Connect has."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import psycopg

from cdc import connectors as definitions
from cdc import leaving, postgres, resources, tables, topic
from cdc import lsn as lsns
from cdc.commands import rewind as rewind_
from cdc.commands import settling
from cdc.commands.options import Common, common, emit, note
from cdc.config import Config
from cdc.connect import Connect
from cdc.connectors import Change, Definition, Health
from cdc.errors import ConnectRefused, NotReady, PositionLost, Unreachable
from cdc.names import TableName

_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")


@click.group()
@common
def connectors(said: Common) -> None:
    """Compare, apply and watch the connector; the files are the truth."""


@connectors.command()
@common
def diff(said: Common) -> int:
    """Show how Connect's configuration differs from the files; exit 1 when it does."""
    config = said.load()
    connect = Connect(config.connect)
    wanted = definitions.render(config, _keys(config))
    found = _compare(connect, wanted)
    if found is None:
        emit(said, {"connector": wanted.name, "exists": False, "changes": []},
             f"connector {wanted.name} does not exist")  # fmt: skip
        return 1
    emit(said, {"connector": wanted.name, "exists": True, "changes": _told(found)},
         _table(wanted.name, found))  # fmt: skip
    return 1 if found else 0


@connectors.command()
@_dry_run
@common
def apply(said: Common, dry_run: bool) -> None:
    """Create the connector or change it to what the files say; wait until it runs."""
    config = said.load()
    connect = Connect(config.connect)
    wanted = definitions.render(config, _keys(config))
    found = _compare(connect, wanted)
    read_before = dry_run or found is not None or _slot_is_read(config)
    if not dry_run and found != ():
        _check_topic(config)
        connect.put(wanted.name, wanted.config)
    done = "created" if found is None else "changed" if found else "unchanged"
    lines = [_table(wanted.name, found)] if found else []
    if dry_run:
        note("dry run: nothing was changed")
        state = f"would be {done}" if done != "unchanged" else done
    else:
        if (status := connect.status(wanted.name)) and definitions.health(status).held:
            note(f"connector {wanted.name} was paused or stopped: resumed")
            connect.resume(wanted.name)
        health = settling.wait(
            connect, wanted.name, lambda: not read_before and _slot_is_read(config)
        )
        state = f"{done}; {health}"
    emit(said, {"connector": wanted.name, "done": done, "dry_run": dry_run,
                "changes": _told(found or ())},
         "\n".join([*lines, f"connector {wanted.name}: {state}"]))  # fmt: skip


@connectors.command()
@common
def status(said: Common) -> int:
    """Show the states of connector and tasks; exit 1 unless all run."""
    config = said.load()
    found = _health(Connect(config.connect), config.connector)
    emit(said, {"connector": config.connector, "running": found.running, **dataclasses.asdict(found)},
         "\n".join([f"connector {config.connector}: {found}", *found.traces]))  # fmt: skip
    return 0 if found.running else 1


@connectors.command()
@_dry_run
@common
def restart(said: Common, dry_run: bool) -> None:
    """Restart connector and tasks; wait until they run. Nothing is lost by it.

    In the stock profile as `rewind` does it, since rows may be missing after any other restart.
    """
    config = said.load()
    connect = Connect(config.connect)
    found = _health(connect, config.connector)
    if dry_run:
        state = f"would be restarted; now {found}"
    elif config.connect.profile == "stock":
        after, found = rewind_.rewind(config, connect)
        state = f"restarted after {lsns.show(after)}; {found}"
    else:
        connect.restart(config.connector)
        state = f"restarted; {settling.wait(connect, config.connector)}"
    emit(said, {"connector": config.connector, "done": "restarted", "dry_run": dry_run},
         f"connector {config.connector}: {state}")  # fmt: skip


@connectors.command()
@_dry_run
@common
def rewind(said: Common, dry_run: bool) -> None:
    """Let the stock connector send all after the last applied commit again; wait until it runs.

    It goes back to the commit that every configured replica has applied. Nothing is applied twice.
    """
    config = said.load()
    connect = Connect(config.connect)
    _health(connect, config.connector)
    if dry_run:
        after, state = rewind_.target(config), "would be set back"
    else:
        after, found = rewind_.rewind(config, connect)
        state = f"set back; {found}"
    emit(said, {"connector": config.connector, "after": lsns.show(after), "dry_run": dry_run},
         f"connector {config.connector}: {state}; it goes on after {lsns.show(after)}")  # fmt: skip


@connectors.command()
@click.option("--offsets", is_flag=True, help="Delete also where it was: a new one begins where "
              "the slot is.")  # fmt: skip
@_dry_run
@common
def delete(said: Common, offsets: bool, dry_run: bool) -> None:
    """Delete the connector. The replication slot stays, and so do the offsets without --offsets."""
    config = said.load()
    connect = Connect(config.connect)
    if offsets and not dry_run:
        settling.forget(connect, config.connector)
    there = (
        connect.status(config.connector) is not None
        if dry_run
        else connect.delete(config.connector)
    )
    done = "deleted" if there else "absent"
    human = f"connector {config.connector}: " + (
        ("would be deleted" if dry_run else "deleted") if there else "was not there"
    )
    if offsets and there:
        note("its offsets go too: a connector of the same name begins where the slot is, and each "
             "replica halts unless that leaves nothing out")  # fmt: skip
    else:
        note("its offsets stay in Connect: a connector of the same name goes on where it was")
    note(f"the slot {config.slot} keeps log on the primary until a connector reads it again or it "
         "is dropped")  # fmt: skip
    emit(said, {"connector": config.connector, "done": done, "dry_run": dry_run}, human)


@connectors.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("cdc-exact.jar"))
@common
def plugin(said: Common, file: Path) -> None:
    """Write the capture plugin's jar to FILE, to be put into Debezium's plugin folder."""
    shutil.copyfile(resources.path(definitions.JAR), file)
    emit(said, {"file": str(file)}, f"{file}: put it beside Debezium's jars "
         "(plugin.path/debezium-connector-postgres/) on every worker and restart them")  # fmt: skip


def _keys(config: Config) -> dict[TableName, tuple[str, ...]]:
    """Read which replicated tables are known by another index than their primary key's."""
    application = f"cdc-{config.name}/connectors"
    with contextlib.closing(postgres.connect(config.primary.dsn, application)) as primary:
        found = tables.select(config, tables.read(primary)).rows
    return {t.name: t.index for t in found if t.replica_identity == "i" and t.index}


def _slot_is_read(config: Config) -> bool:
    """Tell whether somebody is seen to read the connector's slot."""
    application = f"cdc-{config.name}/connectors"
    with (
        contextlib.suppress(Unreachable, psycopg.Error),
        contextlib.closing(
            postgres.connect(config.primary.dsn, application, autocommit=True)
        ) as primary,
    ):
        return bool(leaving.slot(primary, config.slot))
    return False


def _compare(connect: Connect, wanted: Definition) -> tuple[Change, ...] | None:
    """Validate the definition and return how Connect differs; None when it has no such connector.

    Raises ConnectRefused with every key that Connect refuses, NotReady without the plugin.
    """
    kind, plugins = wanted.config["connector.class"], connect.plugins()
    if plugins.get(kind) != wanted.version:
        raise NotReady(
            f"the Connect worker at {connect.shown} "
            + (
                f"has version {plugins[kind]} of {kind}, this program needs {wanted.version}"
                if kind in plugins
                else f"does not have the plugin {kind}"
            ),
            safe="nothing was changed",
            next=definitions.install(wanted.version),
        )
    stored = connect.config(wanted.name)
    validated = connect.validate(wanted.config)
    if wrong := definitions.complaints(validated):
        raise ConnectRefused(
            "\n".join(
                ["Kafka Connect refuses the definition:", *(f"  {k}: {w}" for k, w in wrong)]
            ),
            safe="nothing was changed",
            next="correct what the keys stand for in the configuration, then `cdc connectors apply`",
        )
    return None if stored is None else definitions.changes(wanted.config, stored, validated)


def _check_topic(config: Config) -> None:
    """Raise before a connector starts that could not write its topic in order."""
    found = topic.describe(config)
    if found.partitions != 1:
        raise PositionLost(
            f"the topic {config.topic} has {found.partitions} partitions; it must have one",
            safe="nothing was changed",
            next="run `cdc setup`, which says how to mend it",
            topic=config.topic,
        )


def _health(connect: Connect, name: str) -> Health:
    status = connect.status(name)
    if status is None:
        raise NotReady(
            f"there is no connector {name}",
            safe="nothing was changed",
            next="run `cdc connectors apply`",
        )
    return definitions.health(status)


def _told(found: Sequence[Change]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(change) for change in found]


def _table(name: str, found: Sequence[Change]) -> str:
    """Show changes as a diff: minus is what Connect has, plus what the files say."""
    if not found:
        return f"connector {name}: as in the files"
    lines = [f"connector {name}: {len(found)} of its keys differ from the files"]
    for change in found:
        lines.append(f"  {change.key}")
        lines.append(f"    - {_value(change.connect)}")
        lines.append(f"    + {_value(change.file)}")
    return "\n".join(lines)


def _value(value: str | None) -> str:
    return "(not set)" if value is None else value
