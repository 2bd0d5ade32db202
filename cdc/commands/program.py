"""What every program of this package does around its command: errors become exit codes."""

from __future__ import annotations

import sys
import traceback
from typing import NoReturn

import click

from cdc.errors import CdcError

#: sysexits.h EX_SOFTWARE: a defect of this program, not of its input.
EXIT_DEFECT = 70


def run(command: click.Command, name: str, trouble: int | None = None) -> NoReturn:
    """Run `command` and exit with the code it returns.

    An error exits with its own code, or with `trouble` where the program has one for all of them.
    """
    try:
        code = command.main(standalone_mode=False)
    except CdcError as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(error.exit_code if trouble is None else trouble)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except Exception:  # noqa: BLE001 -- the one place where a defect becomes an exit code
        from cdc import logs  # noqa: PLC0415 -- it imports much, and few programs get here

        click.echo(logs.redacted(traceback.format_exc()), err=True, nl=False)
        click.echo(
            f"{name}: this is a defect of {name}; please report it with the lines above", err=True
        )
        sys.exit(EXIT_DEFECT)
    sys.exit(code if isinstance(code, int) else 0)
