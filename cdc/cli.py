"""The `cdc` program: parse, build, call; turn errors into exit codes."""

from __future__ import annotations

import sys
import traceback

import click

from cdc import __version__
from cdc.commands.bootstrap import bootstrap
from cdc.commands.completion import completion
from cdc.commands.connectors import connectors
from cdc.commands.local import local
from cdc.commands.options import Common, common
from cdc.commands.run import run
from cdc.commands.setup import setup
from cdc.commands.status import status
from cdc.commands.wait import wait
from cdc.errors import CdcError

#: sysexits.h EX_SOFTWARE: a defect of this program, not of its input.
EXIT_DEFECT = 70


@click.group(context_settings={"help_option_names": ["-h", "--help"], "obj": None})
@click.version_option(__version__, prog_name="cdc")
@common
def cdc(said: Common) -> None:
    """Keep PostgreSQL replicas identical through Debezium and Kafka."""


cdc.add_command(bootstrap)
cdc.add_command(completion)
cdc.add_command(connectors)
cdc.add_command(local)
cdc.add_command(run)
cdc.add_command(status)
cdc.add_command(setup)
cdc.add_command(wait)


def main() -> None:
    """Run the program and exit with the code that docs/commands.md promises."""
    try:
        code = cdc.main(standalone_mode=False)
    except CdcError as error:
        click.echo(f"cdc: {error}", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except Exception:  # noqa: BLE001 -- the one place where a defect becomes an exit code
        traceback.print_exc()
        click.echo("cdc: this is a defect of cdc; please report it with the lines above", err=True)
        sys.exit(EXIT_DEFECT)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
