"""The replica's tables as the daemon writes them, read through SQLAlchemy's Inspector."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy
from sqlalchemy.pool import NullPool

from cdc import postgres
from cdc.errors import SchemaMismatch
from cdc.names import TableName


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table of the replica.

    `columns` are all that are written, in order; generated ones are left out. `key` is the primary
    key. `identity_always` are the columns that only OVERRIDING SYSTEM VALUE may fill.
    """

    name: TableName
    columns: tuple[str, ...]
    key: tuple[str, ...]
    identity_always: frozenset[str]

    @property
    def column_set(self) -> frozenset[str]:
        return frozenset(self.columns)


@contextlib.contextmanager
def inspector(dsn: str, application: str) -> Iterator[sqlalchemy.Inspector]:
    """Give SQLAlchemy's Inspector on a session of its own, with the pinned settings.

    Of its own, because SQLAlchemy rolls back when it is done with a session.
    """
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: postgres.connect(dsn, application),
        poolclass=NullPool,
    )
    try:
        with warnings.catch_warnings(), engine.connect() as connection:
            # The Inspector warns of types it has no class for; types do not matter here.
            warnings.simplefilter("ignore", sqlalchemy.exc.SAWarning)
            yield sqlalchemy.inspect(connection)
    except sqlalchemy.exc.DBAPIError as error:
        # As from any other session of ours: by its SQLSTATE it is decided what to do.
        raise (error.orig or error) from error


def read(dsn: str, application: str, tables: Iterable[TableName]) -> dict[TableName, Table]:
    """Return those of `tables` that exist on the server of `dsn`.

    Raises SchemaMismatch for one without a primary key, Unreachable.
    """
    wanted = set(tables)
    found: dict[TableName, Table] = {}
    with inspector(dsn, application) as look:
        for schema in {table.schema for table in wanted}:
            names = [t.name for t in wanted if t.schema == schema]
            columns = look.get_multi_columns(schema, names)
            keys = look.get_multi_pk_constraint(schema, names)
            for (_, name), described in columns.items():
                table = TableName(schema, name)
                key = keys.get((schema, name))
                found[table] = _table(table, described, key["constrained_columns"] if key else [])
    return found


def _table(name: TableName, described: list[Any], key: list[str]) -> Table:
    if not key:
        raise SchemaMismatch(
            f"the replica's table {name} has no primary key, so its rows have no address",
            safe="nothing was applied to it",
            next="give it the primary key that it has on the primary",
            table=str(name),
        )
    written = [column for column in described if not column.get("computed")]
    return Table(
        name,
        tuple(column["name"] for column in written),
        tuple(key),
        frozenset(c["name"] for c in written if (c.get("identity") or {}).get("always")),
    )
