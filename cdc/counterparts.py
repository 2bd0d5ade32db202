"""The replica's tables beside the primary's: what must be alike before rows are copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cdc import catalog
from cdc.config import NOTHING_CHANGED, Config
from cdc.errors import SchemaMismatch
from cdc.names import TableName
from cdc.tables import Table


def differences(table: Table, here: Table | None, *, with_key: bool) -> list[str]:
    """Say why rows of the primary's `table` do not fit the replica's `here`."""
    if here is None:
        return ["it does not exist there"]
    found = []
    if here.kind != "r":
        found.append("it is not an ordinary table")
    theirs = {c.name: c for c in table.columns}
    ours = {c.name: c for c in here.columns}
    for name, column in theirs.items():
        mine = ours.get(name)
        if mine is None:
            found.append(f"the column {name} is missing")
        elif mine.type != column.type:
            found.append(f"the column {name} is {mine.type}, not {column.type}")
        elif bool(mine.generated) != bool(column.generated):
            found.append(f"the column {name} is generated on one end only")
    found += [f"the column {name} is there only" for name in ours if name not in theirs]
    # Where bootstrap loads the schema, keys come after the rows.
    if with_key and here.address != table.address:
        found.append(f"its rows are known by {_known_by(here)}, not by {_known_by(table)}")
    return found


def _known_by(table: Table) -> str:
    match table.address:
        case None:
            return "nothing"
        case ():
            return "all their values (REPLICA IDENTITY FULL)"
        case columns:
            return f"the key ({', '.join(columns)})"


def present(fill: Sequence[Table], here: Mapping[TableName, Table], name: str) -> None:
    """Raise SchemaMismatch if a table is missing that bootstrap must not make."""
    if missing := sorted(t.name for t in fill if t.name not in here):
        raise SchemaMismatch(
            f'the replica lacks {listed(missing)}, and bootstrap.schema is "none"',
            safe=NOTHING_CHANGED,
            next='create them there, or set bootstrap.schema = "tables"',
            replica=name,
            table=str(missing[0]) if len(missing) == 1 else None,
        )  # fmt: skip


def unobstructed(config: Config, name: str, fill: Sequence[Table]) -> None:
    """Raise SchemaMismatch if a table that is there already would alter or hide what is copied."""
    replica = config.replica(name)
    found = catalog.read(
        replica.dsn,
        config.application_name(name, "bootstrap"),
        [table.name for table in fill],
        fires_triggers=replica.triggers == "disabled",
    )
    wrong = [(t.name, o) for _, t in sorted(found.items()) for o in t.obstacles]
    if wrong:
        raise SchemaMismatch(
            "; ".join(f"the replica's table {table} {o.what}" for table, o in wrong),
            safe=NOTHING_CHANGED,
            next="on the replica: "
            + "; ".join(o.fix for _, o in wrong)
            + "; then run `cdc bootstrap` again",
            replica=name,
            table=str(wrong[0][0]) if len(wrong) == 1 else None,
        )


def listed(names: Sequence[TableName], most: int = 10) -> str:
    said = ", ".join(str(n) for n in names[:most])
    return said if len(names) <= most else f"{said} and {len(names) - most} more"
