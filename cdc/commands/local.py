"""`cdc local`: the whole road on this machine, as plain processes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from cdc.commands.demo import demo
from cdc.commands.options import Common, common, emit, note
from cdc.errors import UsageError
from cdc.local import artifacts, processes, stack
from cdc.local.layout import Layout
from cdc.local.stack import Status, Wanted

_directory = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("cdc-local"),
    show_default=True,
    metavar="D",
    help="Directory of the stack.",
)


@click.group()
@common
def local(said: Common) -> None:
    """Run a whole stack on this machine: PostgreSQL servers, Kafka, Kafka Connect."""


local.add_command(demo)


@local.command()
@_directory
@click.option(
    "--replicas",
    type=click.IntRange(1, 20),
    metavar="N",
    help=f"Number of replica servers.  [default: {stack.DEFAULT_REPLICAS}]",
)
@click.option(
    "--tables",
    multiple=True,
    metavar="P",
    help='Tables to replicate, as schema.table patterns; may be repeated.  [default: "*.*"]',
)
@click.option("--exclude", multiple=True, metavar="P", help="Tables to leave out; may be repeated.")
@common
def up(
    said: Common,
    folder: Path,
    replicas: int | None,
    tables: tuple[str, ...],
    exclude: tuple[str, ...],
) -> None:
    """Start the stack; what runs already stays."""
    # A terminated `up` cleans up as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    emit_status(said, stack.up(folder, Wanted(replicas, tables or None, exclude or None), note))


@local.command()
@_directory
@click.option(
    "--purge", is_flag=True, help="Remove the data and everything else of the stack, too."
)
@common
def down(_said: Common, folder: Path, *, purge: bool) -> None:
    """Stop the stack; its data stays."""
    stack.down(folder, purge=purge, note=note)


@local.command()
@_directory
@common
def status(said: Common, folder: Path) -> int:
    """Show what runs, and where; exit 1 unless all does."""
    found = stack.status(folder)
    emit_status(said, found)
    return 0 if found.running else 1


@local.command()
@_directory
@click.argument("component", required=False)
@click.option(
    "-n",
    "lines",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    metavar="N",
    help="Lines of each.",
)
@common
def logs(_said: Common, folder: Path, component: str | None, lines: int) -> None:
    """Show the end of a component's log, or of all."""
    where = Layout(folder.absolute())
    for name in _chosen(component, stack.component_names(where.read())):
        click.echo(f"==> {where.log(name)}\n{processes.tail(where.log(name), lines)}")


@local.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_directory
@click.argument("server")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@common
def psql(_said: Common, folder: Path, server: str, arguments: tuple[str, ...]) -> None:
    """Open psql as superuser on SERVER (primary, r1 …); ARGUMENTS go to psql."""
    found = stack.status(folder)
    servers = {"primary": found.primary, **found.replicas}
    dsn = servers[_chosen(server, list(servers))[0]]
    program = artifacts.fetch(artifacts.cache_folder(), note).postgres_bin / "psql"
    sys.stdout.flush()
    os.execv(program, ["psql", "-d", dsn, *arguments])  # noqa: S606 -- psql takes the terminal


def emit_status(said: Common, found: Status) -> None:
    """Print a stack's status: a table, or JSON."""
    addresses = {
        "kafka": found.kafka,
        "connect": found.connect,
        "primary": found.primary,
        **found.replicas,
    }
    rows = [
        f"{name:<8} {'pid ' + str(pid) if pid else 'not running':<12}  {addresses[name]}"
        for name, pid in found.pids.items()
    ]
    emit(
        said,
        {
            "config": str(found.config),
            "primary": found.primary,
            "replicas": found.replicas,
            "kafka": found.kafka,
            "connect": found.connect,
            "pids": found.pids,
        },
        "\n".join([*rows, f"{'config':<8} {'':<12}  {found.config}"]),
    )


def _chosen(name: str | None, known: list[str]) -> list[str]:
    if name is not None and name not in known:
        raise UsageError(
            f"there is no {name!r} in this stack",
            safe="nothing was changed",
            next=f"use one of: {', '.join(known)}",
        )
    return [name] if name else known
