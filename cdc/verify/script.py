"""What mends the findings as guarded SQL, for a person to read and to run."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

from psycopg import sql

from cdc import postgres
from cdc.names import TableName
from cdc.verify.encoding import Layout
from cdc.verify.findings import Finding
from cdc.verify.repair import delete_some


def script(findings: Iterable[Finding], layouts: Mapping[TableName, Layout]) -> Iterator[str]:
    """Yield statements that mend `findings`, replica by replica, for a person to read and run.

    Each does nothing where the replica's row is not the one that was found. An event in flight is
    not looked for: stop the daemon and let `cdc wait` say that it had caught up.
    """
    by_place = sorted(findings, key=lambda f: (f.replica, f.table))
    for (replica, table), group in itertools.groupby(by_place, lambda f: (f.replica, f.table)):
        some, layout = list(group), layouts[table]
        yield f"-- {replica}: {table}. Only there, as its owner, with its daemon stopped after `cdc wait --now`."
        yield "BEGIN;"
        # What was found depends on how values are printed.
        for name, value in {**postgres.PINNED, "client_encoding": "UTF8"}.items():
            yield f"SET LOCAL {name} = '{value}';"
        yield "SET LOCAL session_replication_role = replica;"
        yield f"LOCK TABLE ONLY {table} IN SHARE ROW EXCLUSIVE MODE;"
        if layout.key:
            # All go before any comes: unique values may pass from row to row.
            yield "CREATE TEMPORARY TABLE gone (finding int) ON COMMIT DROP;"
            steps = [
                *(_delete(f, layout, at) for at, f in enumerate(some, 1) if f.kind != "missing"),
                *(_insert(f, layout, at) for at, f in enumerate(some, 1) if f.kind != "extra"),
            ]
        else:
            steps = [_level(f, layout) for f in some]
        for step in steps:
            yield f"{step.as_string()};"
        yield "COMMIT;"


def _delete(finding: Finding, layout: Layout, at: int) -> sql.Composed:
    """Delete the row if it is as it was found, and note that it is gone."""
    key = sql.SQL(" AND ").join(
        sql.SQL("t.{} = {}").format(sql.Identifier(c.name), sql.Literal(value))
        for c, value in zip(layout.key, finding.address, strict=True)
    )
    found = sql.Literal(finding.theirs.hash if finding.theirs else None)
    return sql.SQL(
        "WITH t AS (DELETE FROM ONLY {} AS t WHERE {} AND {} = {} RETURNING 1)"
        " INSERT INTO pg_temp.gone SELECT {} FROM t"
    ).format(layout.table.sql, key, layout.row_hash, found, sql.Literal(at))


def _insert(finding: Finding, layout: Layout, at: int) -> sql.Composed:
    """Insert the primary's row: in the place of the one that is gone, or where there is none."""
    into, values = _row(finding, layout)
    if finding.kind == "missing":
        return sql.SQL("{} VALUES ({}) ON CONFLICT DO NOTHING").format(into, values)
    return sql.SQL("{} SELECT {} FROM pg_temp.gone WHERE finding = {}").format(
        into, values, sql.Literal(at)
    )


def _level(finding: Finding, layout: Layout) -> sql.Composed:
    """Add or take rows of one content if there are as many as were found."""
    found = sql.SQL("(SELECT count(*) FROM ONLY {} AS t WHERE {} = {}) = {}").format(
        layout.table.sql,
        layout.row_hash,
        sql.Literal(int(finding.address[0])),
        sql.Literal(finding.theirs.hash if finding.theirs else 0),
    )
    if finding.kind == "extra":
        delete = delete_some(layout, {finding.address: finding.count})
        return sql.SQL("{} AND {}").format(delete, found)
    into, values = _row(finding, layout)
    return sql.SQL("{} SELECT {} FROM generate_series(1, {}) WHERE {}").format(
        into, values, sql.Literal(finding.count), found
    )


def _row(finding: Finding, layout: Layout) -> tuple[sql.Composed, sql.Composed]:
    """Return the beginning of an INSERT, and the values of the primary's row."""
    ours = finding.ours.values if finding.ours else ()
    written = [
        (sql.Identifier(c.name), sql.Literal(value))
        for c, value in zip(layout.columns, ours, strict=True)
        if not c.generated
    ]
    into = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE").format(
        layout.table.sql, sql.SQL(", ").join(name for name, _ in written)
    )
    return into, sql.SQL(", ").join(value for _, value in written)
