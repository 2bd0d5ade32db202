"""Tables that a replica cannot go on following: `cdc setup` lets it forget them; their rows stay.

A table that left the publication and enters it again, or was dropped and made anew, has changed meanwhile
without a trace in the stream. Forgotten, it counts as not filled: its changes are passed over, every look
names it, and `cdc bootstrap --table … --overwrite` makes it right.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import sql

from cdc import state, strays
from cdc.steps import Step
from cdc.strays import Inventory, Why

#: Why a replica cannot go on with a table. A renamed one is told by its daemon, which halts at its changes.
_HOPELESS: Final[tuple[Why, ...]] = ("silent", "made anew", "left out", "gone")


def steps(conn: psycopg.Connection[Any], stream: str, before: Inventory) -> list[Step]:
    """Decide what a replica forgets, by the primary's tables as they were before the publication was changed.

    Without a publication nothing has been passed by: the connector fails then.
    """
    there = conn.execute("SELECT to_regclass('cdc.tables') IS NOT NULL").fetchone()
    if not before.published or there != (True,):
        return []
    return [
        Step(
            f"{stray.table} {stray.what}: forgotten, its rows stay",
            sql.SQL(
                "DELETE FROM cdc.tables WHERE stream = {0} AND schema_name = {1} AND table_name = {2};\n"
                "UPDATE cdc.position SET generation = generation + 1 WHERE stream = {0}"
            ).format(
                sql.Literal(stream), sql.Literal(stray.table.schema), sql.Literal(stray.table.name)
            ),
        )
        for stray in strays.of(before, {"": state.followed(conn, stream)})
        if stray.why in _HOPELESS
    ]
