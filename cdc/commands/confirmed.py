"""What is taken away: listed, then confirmed by typing a name."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from cdc.config import NOTHING_CHANGED
from cdc.errors import UsageError


def by_name(what: str, name: str, lines: Iterable[str], given: str | None) -> None:
    """List what is about to be done on stderr; return when `name` was given or is typed now.

    Raises UsageError when another name was given or typed, or nobody is there to type.
    """
    click.echo(f"{what}:", err=True)
    for line in lines:
        click.echo(f"  {line}", err=True)
    if given is None:
        if not sys.stdin.isatty():
            raise UsageError(
                "this takes away what is listed above, and nobody is there to confirm it",
                safe=NOTHING_CHANGED,
                next=f"add --yes {name}, or --dry-run to see it only",
            )
        given = click.prompt(f"type {name} to do it", default="", show_default=False, err=True)
    if given != name:
        raise UsageError(
            f"{given!r} is not {name}",
            safe=NOTHING_CHANGED,
            next=f"confirm with the name {name}",
        )
