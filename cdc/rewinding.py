"""Setting a stock connector back to a commit, so that everything after it comes again, whole.

Three things must fit: the connector is stopped, its slot still has the log from there on, and its
offset is a mark (`cdc.runs`), by which the daemon knows the run that begins there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from cdc import lsn as lsns
from cdc import runs
from cdc.errors import NotReady

_SLOTS = """
SELECT slot_name::text, confirmed_flush_lsn - '0/0', plugin::text FROM pg_replication_slots
 WHERE slot_name = ANY (%s) AND database = current_database() AND confirmed_flush_lsn IS NOT NULL
   AND wal_status IS DISTINCT FROM 'lost'
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """A slot and the commit up to which it has let go of the log."""

    name: str
    confirmed: int


def slots(conn: psycopg.Connection[Any], names: Sequence[str]) -> dict[str, Slot]:
    """Return those of the slots that are there and can be read from."""
    found = conn.execute(_SLOTS, [list(names)])
    return {name: Slot(name, int(at)) for name, at, _ in found}


def source_slot(found: Mapping[str, Slot], own: str, keepers: Sequence[str], after: int) -> str:
    """Return the slot that has everything after the commit `after`: the connector's own, or a keeper.

    Raises NotReady where none has.
    """
    for name in (own, *keepers):
        if name in found and found[name].confirmed <= after:
            return name
    told = ", ".join(f"{s.name} from {lsns.show(s.confirmed)}" for s in found.values()) or "no slot"
    raise NotReady(
        f"the log after {lsns.show(after)}, the last commit that every replica has, is not kept any more "
        f"({told})",
        safe="no offset and no slot was changed",
        next="fill the replicas anew: `cdc bootstrap --overwrite`; or compare and repair with cdc-verify",
    )


def replace(conn: psycopg.Connection[Any], own: str, keeper: str) -> None:
    """Make the connector's slot anew as a copy of a keeper."""
    there = conn.execute(
        "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", [own]
    ).fetchone()
    if there is not None:
        conn.execute("SELECT pg_drop_replication_slot(%s)", [own])
    conn.execute("SELECT pg_copy_logical_replication_slot(%s, %s, false)", [keeper, own])


def offset(stored: Mapping[str, Any], after: int) -> dict[str, Any]:
    """Return the stored offset, set back to right after the commit `after`, in no transaction."""
    at = runs.mark(after)
    kept = {key: value for key, value in stored.items() if not key.startswith("transaction_")}
    return {**kept, "lsn": at, "lsn_proc": at, "lsn_commit": at, "messageType": "COMMIT"}
