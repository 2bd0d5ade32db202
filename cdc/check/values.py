"""The primary's columns, as far as a stock connector cannot write their values exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from cdc import columns, connectors
from cdc.check.finding import LOSES, Hit, Look, Site, finding
from cdc.modes import Lost
from cdc.names import TableName, quoted


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """Columns that are not carried: table, column, type and why; none in the exact profile."""

    lost: tuple[tuple[TableName, str, str, Lost], ...] = ()


def read(site: Site) -> Facts:
    modes = connectors.modes_of(site.config)
    if modes is None:
        return Facts()
    names = [table.name for table in site.selection().rows]
    return Facts(tuple(columns.lost(columns.read(site.primary(), names), modes)))


@finding("stock-values", LOSES,
         "Debezium's converters alter such values without a word; the daemon does not start.")  # fmt: skip
def values(found: Facts) -> Iterator[Hit]:
    for table, column, shown, lost in found.lost:
        otherwise = f"set {lost.instead} in [connect.options], or " if lost.instead else ""
        yield Hit(
            f"{table}.{quoted(column)} ({shown}): {lost.why}",
            f'{otherwise}use connect.profile = "exact", or leave the table out (primary.exclude)',
        )


LOOKS: tuple[Look[Any], ...] = (
    Look("primary", "the columns' types", read, (values,)),
)  # fmt: skip
