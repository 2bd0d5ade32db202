"""The tables that a replica follows, against those that the primary has now."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from cdc import readings, state, strays
from cdc.check.finding import LOSES, Hit, Look, Site, finding
from cdc.strays import LACKING, Stray


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """Tables that the replica follows and that are not as it has them."""

    strays: tuple[Stray, ...]


def read(site: Site) -> Facts:
    followed = {site.replica or "": state.followed(site.here(), site.config.name)}
    found = strays.of(readings.inventory(site.config, site.primary()), followed)
    return Facts(tuple(stray for stray in found if stray.why not in LACKING))


@finding("replica-stray", LOSES,
         "Readers of the replica see rows that the primary has not, or has under another name.")  # fmt: skip
def stray(found: Facts) -> Iterator[Hit]:
    for each in found.strays:
        yield Hit(f"{each.table} {each.what}", each.fix)


LOOKS: tuple[Look[Any], ...] = (
    Look("replica", "the tables it follows, on the primary", read, (stray,)),
)
