"""`cdc local demo`: see it work, break, heal and proved."""

from __future__ import annotations

import click

from cdc.commands.options import Common, common
from cdc.local.demo import acts
from cdc.local.demo.screen import Screen


@click.command()
@common
def demo(_said: Common) -> int:
    """Show all of it on this machine, in about a minute: fill, flow, break, heal, prove.

    Everything runs in a temporary folder and is removed, also after Ctrl-C. Exit code 0: the
    replicas were proved identical; 1: they were not, or something failed.
    """
    return 0 if acts.play(Screen()) else 1
