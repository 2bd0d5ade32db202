"""Tables that primary and replica do not share as they should: come, gone, renamed, made anew, not published.

Judged by the numbers (oids) that tables have on the primary, which a rename keeps and a new table has not. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Final, Literal, get_args

from cdc.names import TableName

#: `unpublished`, `unfilled`: the patterns match it, the replica does not follow it. The others the replica
#: follows: `silent` is not published any more, `renamed` has another name now, `made anew` is another table by
#: that name, `left out` is not to be replicated any more, `gone` is there no more.
Why = Literal["unpublished", "unfilled", "silent", "renamed", "made anew", "left out", "gone"]
WHYS: Final[tuple[Why, ...]] = get_args(Why)

#: Of a table that the replica lacks.
LACKING: Final = ("unpublished", "unfilled")


_FORGET = "`cdc setup`, which forgets it; the table stays: drop it there if nobody needs it"
_AGAIN = "`cdc setup`, then `cdc bootstrap --table {table} --overwrite` for it"

#: What is the case, and what to do.
_SAID: Final[Mapping[Why, tuple[str, str]]] = {
    "unpublished": (
        "matches the patterns and is not published",
        "`cdc setup`, then `cdc bootstrap --table {table}` for each replica",
    ),
    "unfilled": (
        "is published, but was not filled there",
        "`cdc bootstrap --table {table}` for it",
    ),
    "silent": (
        "is not published any more: its changes leave no trace in the stream",
        _AGAIN,
    ),
    "renamed": (
        "is called {now} on the primary now",
        "rename it there too, then `cdc bootstrap --table {now} --overwrite`",
    ),
    "made anew": (
        "was dropped on the primary, and another table has that name now",
        _AGAIN,
    ),
    "left out": (
        "is on the primary and not to be replicated any more; what the replica has stands still",
        _FORGET,
    ),
    "gone": (
        "was dropped on the primary; what the replica has stands still",
        _FORGET,
    ),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Inventory:
    """The primary's tables: those that shall be replicated, those published, and each by its number."""

    chosen: tuple[TableName, ...]
    published: frozenset[TableName]
    numbers: Mapping[int, TableName]


@dataclasses.dataclass(frozen=True, slots=True)
class Stray:
    """A table that is not as it should be on `replicas`; `now` is what a renamed one is called."""

    table: TableName
    why: Why
    replicas: tuple[str, ...]
    now: TableName | None = None

    @property
    def what(self) -> str:
        """Say what is the case."""
        return _SAID[self.why][0].format(now=self.now)

    @property
    def fix(self) -> str:
        """Say what to do."""
        return _SAID[self.why][1].format(table=self.table, now=self.now)


def of(
    inventory: Inventory, followed: Mapping[str, Mapping[TableName, int | None]]
) -> tuple[Stray, ...]:
    """Return the strays; `followed` has of each replica that was filled its tables and their numbers."""
    found: dict[tuple[TableName, Why, TableName | None], list[str]] = {}
    for replica, tables in followed.items():
        for stray in _of_one(inventory, tables):
            found.setdefault(stray, []).append(replica)
    return tuple(
        Stray(table, why, tuple(replicas), now) for (table, why, now), replicas in found.items()
    )


def _of_one(
    inventory: Inventory, followed: Mapping[TableName, int | None]
) -> Iterable[tuple[TableName, Why, TableName | None]]:
    numbered = {name: number for number, name in inventory.numbers.items()}
    known = set(followed.values())
    for table in inventory.chosen:
        if table not in followed:
            if numbered.get(table) in known:
                continue  # told by the name that it had
            yield table, "unfilled" if table in inventory.published else "unpublished", None
        elif followed[table] in (None, numbered.get(table)) and table not in inventory.published:
            yield table, "silent", None
    for table, number in sorted(followed.items(), key=lambda item: item[0]):
        now = numbered.get(table)
        if number is not None and number != now:
            elsewhere = inventory.numbers.get(number)
            if elsewhere is not None:
                yield table, "renamed", elsewhere
            else:
                yield table, "gone" if now is None else "made anew", None
        elif now is None:
            yield table, "gone", None
        elif table not in inventory.chosen:
            yield table, "left out", None
