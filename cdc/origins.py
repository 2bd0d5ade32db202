"""Whose history a transaction belongs to: a server, and the timeline that it was on."""

from __future__ import annotations

import functools
import re

import msgspec

#: The header of each BEGIN in which the capture plugin says it; it asks the session that streams.
HEADER = "cdc.origin"

_ORIGIN = re.compile(rb"([0-9]{1,20})/([0-9]{1,10})")


class Origin(msgspec.Struct, frozen=True):
    """The server and timeline that sent a transaction or wrote a heartbeat."""

    system_id: str
    timeline: int


@functools.lru_cache(maxsize=64)  # each transaction says it, and nearly each the same
def parse(header: bytes | None) -> Origin | None:
    """Read the header; None where there is none, ValueError where it says something else."""
    if header is None:
        return None
    found = _ORIGIN.fullmatch(header)
    if found is None:
        raise ValueError(f"its header {HEADER} names no server and timeline: {header[:40]!r}")
    return Origin(found[1].decode(), int(found[2]))
