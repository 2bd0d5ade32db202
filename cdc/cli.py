"""The `cdc` program: parse, build, call; turn errors into exit codes."""

from __future__ import annotations

import importlib
from typing import Final

import click

from cdc import __version__
from cdc.commands import program
from cdc.commands.options import Common, common

#: Each is a module of `cdc.commands` that has a command of the same name.
COMMANDS: Final = (
    "bootstrap", "check", "completion", "connectors", "init", "lag", "local", "remove", "run",
    "setup", "status", "teardown", "wait",
)  # fmt: skip


class OnDemand(click.Group):
    """A group that imports a command when it is asked for.

    What one command needs (SQLAlchemy, requests, librdkafka) takes another half a second to import.
    """

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found = getattr(importlib.import_module(f"cdc.commands.{cmd_name}"), cmd_name)
        assert isinstance(found, click.Command)
        return found


@click.group(cls=OnDemand, context_settings={"help_option_names": ["-h", "--help"], "obj": None})
@click.version_option(__version__, prog_name="cdc")
@common
def cdc(said: Common) -> None:
    """Keep PostgreSQL replicas identical through Debezium and Kafka."""


def main() -> None:
    """Run the program and exit with the code that docs/commands.md promises."""
    program.run(cdc, "cdc")


if __name__ == "__main__":
    main()
