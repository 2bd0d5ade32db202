"""`cdc check`: what can lose or delay data, each finding with its fix."""

from __future__ import annotations

import click

from cdc.check import audit, registry, report
from cdc.commands.options import Common, common, emit


@click.command()
@common
def check(said: Common) -> int:
    """Look for what can lose or delay data, on every end; each finding comes with its fix.

    With -r only those replicas are looked at, with primary, Kafka and Kafka Connect. Nothing is
    changed. Every finding, and why it matters: docs/check.md.

    Exit code 0: nothing that can lose or delay data (advice does not count, nor what check.accept
    names); 1: something; 2: nothing so far, but not everything could be read.
    """
    config = said.load()
    registry.known(config)
    found = audit.take(config, registry.LOOKS, said.some_replicas(config))
    emit(said, report.value(found), report.text(found))
    return found.exit_code
