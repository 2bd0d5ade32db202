"""The daemon's look before it starts: what would lose data from here on, as far as it costs little."""

from __future__ import annotations

import logging

from cdc import guard
from cdc.check import audit, registry
from cdc.config import Config
from cdc.errors import NotReady

log = logging.getLogger(__name__)

#: Seconds that an end which does not answer holds up the start.
_PATIENCE = 5.0


def look(config: Config, replica: str) -> None:
    """Log what is accepted or cannot be seen; raise NotReady naming what can lose data.

    An end that does not answer is no reason not to start: what the topic holds is applied, and what
    is wrong with an end the daemon meets by itself.
    """
    registry.known(config)
    if config.check.accept:
        log.warning("accepted although data may be lost by it: %s", ", ".join(config.check.accept))
    found = audit.take(config, registry.AT_START, [replica], _PATIENCE)
    for unread in found.unread:
        log.warning(
            "could not look at %s before the start (%s): %s",
            unread.subject,
            unread.why,
            ", ".join(unread.findings),
        )
    if losing := found.losing:
        raise NotReady(
            "\n".join(
                ["data would be lost from here on:", *(f"  {f.name}: {f.what}" for f in losing)]
            ),
            safe="nothing was applied; the replica is as of its position",
            next="; ".join(f.fix for f in losing)
            + f"; then start again. Or {guard.acceptance(f.name for f in losing)}",
            replica=replica,
        )
