"""The SQL that writes rows on a replica: whole statements, one place.

`ONLY` everywhere: the tables of the stream are ordinary tables and leaf partitions, and rows of
inheritance children are not theirs. Row-by-row statements use `$1` placeholders (psycopg's
RawCursor), because a column's name may hold a `%`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from psycopg import sql

from cdc.catalog import Table
from cdc.events import UNCHANGED, Value
from cdc.names import TableName

#: The backslash first: the others bring one.
_ESCAPES = (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))
_BYTE_ESCAPES = tuple((plain.encode(), escaped.encode()) for plain, escaped in _ESCAPES)

#: Rows of a block, and characters from which on it is written value by value.
_BLOCK = 200
_LARGE = 1 << 20

#: Characters of a large value that are sent at once.
_PART = 1 << 18


def copy_text(rows: Iterable[Sequence[Value]]) -> Iterator[bytes]:
    """Yield rows in COPY's text format (PostgreSQL manual, COPY, "Text Format"), in blocks.

    Column by column, since few hold anything to escape. Of large values there is never more than
    one copy at a time.
    """
    waiting = iter(rows)
    while block := list(itertools.islice(waiting, _BLOCK)):
        columns = list(zip(*block, strict=True))
        if not columns:  # a table may have none that is written
            yield b"\n" * len(block)
        elif sum(map(_length, columns)) > _LARGE:
            for row in block:
                yield from _large(row)
        else:
            lines = zip(*map(_escaped, columns), strict=True)
            yield ("\n".join(map("\t".join, lines)) + "\n").encode()


def _length(column: Sequence[Value]) -> int:
    try:
        return sum(map(len, column))  # type: ignore[arg-type]  # what has no length raises
    except TypeError:
        if UNCHANGED in column:
            raise TypeError("an unchanged value has no text") from None
        return sum(map(len, filter(None, column)))  # type: ignore[arg-type]  # as above


def _escaped(column: Sequence[str | None]) -> Sequence[str]:
    """Return a column's values as COPY reads them."""
    try:
        everything, nulls = "".join(column), False  # type: ignore[arg-type]  # NULL raises
    except TypeError:
        everything, nulls = "".join(filter(None, column)), True
    for plain, escaped in _ESCAPES:
        if plain in everything:
            column = [value and value.replace(plain, escaped) for value in column]
    if nulls:
        return ["\\N" if value is None else value for value in column]
    return column  # type: ignore[return-value]  # no value is NULL


def _large(row: Sequence[Value]) -> Iterator[bytes]:
    """Yield one row; escaped as bytes, since one wide character makes a text four times as large."""
    for number, value in enumerate(row):
        yield b"\t" if number else b""
        if value is None:
            yield b"\\N"
            continue
        # In parts: to encode a text with a wide character Python takes four bytes for each of it, once more.
        for start in range(0, len(value), _PART):  # type: ignore[arg-type]  # its caller has looked
            data = value[start : start + _PART].encode()  # type: ignore[index]  # as above
            for plain, escaped in _BYTE_ESCAPES:
                data = data.replace(plain, escaped)
            yield data
    yield b"\n"


def create_stage(table: Table, stage: sql.Identifier) -> sql.Composed:
    """Make a session-long table with the target's types, so that text becomes values only once."""
    return sql.SQL(
        "CREATE TEMPORARY TABLE {} ON COMMIT DELETE ROWS AS SELECT {} FROM ONLY {} WITH NO DATA"
    ).format(stage, column_list(table.columns), table.name.sql)


def copy_into(target: sql.Identifier, columns: Iterable[str]) -> sql.Composed:
    return sql.SQL("COPY {}{} FROM STDIN (FORMAT text)").format(target, listed(columns))


def delete_staged(table: Table, stage: sql.Identifier) -> sql.Composed:
    return sql.SQL("DELETE FROM ONLY {} AS t USING {} AS s WHERE {}").format(
        table.name.sql, stage, same_key(table)
    )


def delete_images(table: Table, stage: sql.Identifier, columns: Iterable[str]) -> sql.Composed:
    """Delete as many rows of each image as are staged, whichever of the equal ones.

    Equal is what PostgreSQL prints alike, column by column: that is what the stream carries, and
    what a column has whose type has no `=` (json, point). An index on columns that are never null
    leads to the candidates; without one the table is read once.
    """
    listed, own, found = list(columns), sql.Identifier("s"), sql.Identifier("t")
    groups = [sql.SQL("ROW({})::text").format(column_list_of(own, listed))]
    groups += [sql.SQL("s.{}").format(sql.Identifier(c)) for c in table.lookup]
    return sql.SQL(
        "WITH asked AS (SELECT {groups}, count(*) FROM {stage} AS s GROUP BY {groups}),"
        " numbered ({names}) AS (SELECT row_number() OVER (), asked.* FROM asked)"
        " DELETE FROM ONLY {table} WHERE ctid = ANY (ARRAY("
        "SELECT place FROM (SELECT t.ctid AS place, a.times,"
        " row_number() OVER (PARTITION BY a.number) AS nth"
        " FROM ONLY {table} AS t JOIN numbered AS a ON ROW({row})::text = a.image{lookup}) AS f"
        " WHERE nth <= times))"
    ).format(
        groups=sql.SQL(", ").join(groups),
        stage=stage,
        names=sql.SQL(", ").join(
            map(sql.SQL, ["number", "image", *(f"k{i}" for i in range(len(table.lookup))), "times"])
        ),
        table=table.name.sql,
        row=column_list_of(found, listed),
        lookup=sql.SQL("").join(
            sql.SQL(" AND t.{} {} a.{}").format(
                sql.Identifier(c), _equals(table, c), sql.SQL(f"k{i}")
            )
            for i, c in enumerate(table.lookup)
        ),
    )


def update_staged(table: Table, stage: sql.Identifier, columns: Iterable[str]) -> sql.Composed:
    """Write every staged row, equal or not: a row with an event gets a new version (its xmin)."""
    assignments = [
        sql.SQL("{0} = s.{0}").format(sql.Identifier(c)) for c in updatable(table, columns)
    ]
    return sql.SQL("UPDATE ONLY {} AS t SET {} FROM {} AS s WHERE {}").format(
        table.name.sql, sql.SQL(", ").join(assignments), stage, same_key(table)
    )


def insert_missing(table: Table, stage: sql.Identifier) -> sql.Composed:
    return sql.SQL(
        "INSERT INTO {0} ({1}) OVERRIDING SYSTEM VALUE SELECT {1} FROM {2} AS s"
        " WHERE NOT EXISTS (SELECT FROM ONLY {0} AS t WHERE {3})"
    ).format(table.name.sql, column_list(table.columns), stage, same_key(table))


def changed_identity(
    table: Table, stage: sql.Identifier, columns: Iterable[str]
) -> sql.Composed | None:
    """Count staged rows whose GENERATED ALWAYS value differs: UPDATE cannot write it."""
    always = [c for c in columns if c in table.identity_always and c not in table.key]
    if not always:
        return None
    return sql.SQL("SELECT count(*) FROM ONLY {} AS t JOIN {} AS s ON {} WHERE {}").format(
        table.name.sql,
        stage,
        same_key(table),
        sql.SQL(" OR ").join(
            sql.SQL("t.{0} IS DISTINCT FROM s.{0}").format(sql.Identifier(c)) for c in always
        ),
    )


def updatable(table: Table, columns: Iterable[str]) -> list[str]:
    """Return the columns an UPDATE sets: not the key unless it is all there is."""
    free = [c for c in columns if c not in table.identity_always]
    return [c for c in free if c not in table.key] or free


def insert_one(table: Table) -> sql.Composed:
    if not table.columns:
        return sql.SQL("INSERT INTO {} DEFAULT VALUES").format(table.name.sql)
    return sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})").format(
        table.name.sql, column_list(table.columns), _placeholders(len(table.columns))
    )


def update_one(table: Table, columns: Sequence[str]) -> sql.Composed:
    """Set `columns` ($1…) of the row whose key is given after them."""
    assignments = [
        sql.SQL("{} = {}").format(sql.Identifier(c), sql.SQL(f"${i}"))
        for i, c in enumerate(columns, 1)
    ]
    return sql.SQL("UPDATE ONLY {} SET {} WHERE {}").format(
        table.name.sql, sql.SQL(", ").join(assignments), _key_is(table, len(columns) + 1)
    )


def differs_one(table: Table, columns: Sequence[str]) -> sql.Composed:
    """Select the row whose key is given last if one of `columns` is not as given ($1…)."""
    differs = [
        sql.SQL("{} IS DISTINCT FROM {}").format(sql.Identifier(c), sql.SQL(f"${i}"))
        for i, c in enumerate(columns, 1)
    ]
    return sql.SQL("SELECT FROM ONLY {} WHERE ({}) AND {}").format(
        table.name.sql, sql.SQL(" OR ").join(differs), _key_is(table, len(columns) + 1)
    )


def rewrite_one(table: Table, columns: Sequence[str]) -> sql.Composed:
    """Replace the row whose key is given last by one with `columns` ($1…) and its other values.

    UPDATE cannot set GENERATED ALWAYS identity columns; INSERT can. What is not given, unchanged
    TOAST values for one, comes from the row that is replaced.
    """
    places = {column: sql.SQL(f"${i}") for i, column in enumerate(columns, 1)}
    kept = sql.SQL(", ").join(
        places.get(c, sql.SQL("old.{}").format(sql.Identifier(c))) for c in table.columns
    )
    return sql.SQL(
        "WITH old AS (DELETE FROM ONLY {0} WHERE {1} RETURNING *)"
        " INSERT INTO {0} ({2}) OVERRIDING SYSTEM VALUE SELECT {3} FROM old"
    ).format(table.name.sql, _key_is(table, len(columns) + 1), column_list(table.columns), kept)


def delete_one(table: Table) -> sql.Composed:
    return sql.SQL("DELETE FROM ONLY {} WHERE {}").format(table.name.sql, _key_is(table, 1))


def truncate(tables: Iterable[TableName]) -> sql.Composed:
    return sql.SQL("TRUNCATE {}").format(
        sql.SQL(", ").join(sql.SQL("ONLY {}").format(t.sql) for t in tables)
    )


def delete_all(table: TableName) -> sql.Composed:
    return sql.SQL("DELETE FROM ONLY {}").format(table.sql)


def column_list(columns: Iterable[str]) -> sql.Composed:
    """Return columns with commas between."""
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def listed(columns: Iterable[str]) -> sql.Composed:
    """Return which columns are written, in brackets; nothing where none is, as SQL wants it."""
    names = column_list(columns)
    return sql.SQL(" ({})").format(names) if list(names) else names


def _placeholders(count: int) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL(f"${i}") for i in range(1, count + 1))


def column_list_of(source: sql.Identifier, columns: Iterable[str]) -> sql.Composed:
    """Return columns of one side of a join with commas between."""
    return sql.SQL(", ").join(sql.SQL("{}.{}").format(source, sql.Identifier(c)) for c in columns)


def same_key(table: Table) -> sql.Composed:
    """Say that a row `t` and a row `s` have the same key."""
    return sql.SQL(" AND ").join(
        sql.SQL("t.{0} {1} s.{0}").format(sql.Identifier(c), _equals(table, c)) for c in table.key
    )


def _key_is(table: Table, start: int) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} {} {}").format(sql.Identifier(c), _equals(table, c), sql.SQL(f"${i}"))
        for i, c in enumerate(table.key, start)
    )


def _equals(table: Table, column: str) -> sql.Composable:
    """Return the index's own operator: the sessions' search_path finds only pg_catalog's."""
    if column not in table.equality:
        return sql.SQL("=")
    schema, operator = table.equality[column]
    return sql.SQL("OPERATOR({}.{})").format(sql.Identifier(schema), sql.SQL(operator))
