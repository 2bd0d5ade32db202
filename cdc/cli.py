"""The `cdc` program: parse, build, call; turn errors into exit codes."""

from __future__ import annotations

import click

from cdc import __version__
from cdc.commands import program
from cdc.commands.bootstrap import bootstrap
from cdc.commands.completion import completion
from cdc.commands.connectors import connectors
from cdc.commands.lag import lag
from cdc.commands.local import local
from cdc.commands.options import Common, common
from cdc.commands.run import run
from cdc.commands.setup import setup
from cdc.commands.status import status
from cdc.commands.wait import wait


@click.group(context_settings={"help_option_names": ["-h", "--help"], "obj": None})
@click.version_option(__version__, prog_name="cdc")
@common
def cdc(said: Common) -> None:
    """Keep PostgreSQL replicas identical through Debezium and Kafka."""


cdc.add_command(bootstrap)
cdc.add_command(completion)
cdc.add_command(connectors)
cdc.add_command(lag)
cdc.add_command(local)
cdc.add_command(run)
cdc.add_command(status)
cdc.add_command(setup)
cdc.add_command(wait)


def main() -> None:
    """Run the program and exit with the code that docs/commands.md promises."""
    program.run(cdc, "cdc")


if __name__ == "__main__":
    main()
