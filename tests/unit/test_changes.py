"""The net change of a batch, against a dictionary that plays the table."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import changes
from cdc.changes import KeyChange, RowCounts, TableChanges, Truncate, Unmergeable
from cdc.events import UNCHANGED, Change, Row
from cdc.names import TableName

A, B = TableName("s", "a"), TableName("s", "b")
KEYS = {A: ("id",), B: ("id",)}
Tables = dict[TableName, dict[str, dict[str, str]]]


@dataclasses.dataclass
class Script:
    """A valid history of two tables: the events of it and the state before and after."""

    before: Tables
    after: Tables
    events: list[Change]


def change(
    op: str, table: TableName = A, before: Row | None = None, after: Row | None = None, lsn: int = 0
) -> Change:
    return Change(op, table, before, after, 1, lsn, 1, 0, 10)  # type: ignore[arg-type]  # op is one of the four


@st.composite
def histories(draw: st.DrawFn) -> Script:
    """Draw what a primary could do to two tables, as Debezium would send it."""
    ids = [str(i) for i in range(5)]
    tables: Tables = {
        t: {i: {"id": i, "v": f"{i}v", "w": f"{i}w"} for i in draw(st.sets(st.sampled_from(ids)))}
        for t in (A, B)
    }
    script = Script(
        {t: {i: dict(r) for i, r in rows.items()} for t, rows in tables.items()}, tables, []
    )
    lsn, value = count(1), count(1)
    for _ in range(draw(st.integers(0, 25))):
        table = draw(st.sampled_from([A, B]))
        rows = tables[table]
        free, taken = [i for i in ids if i not in rows], sorted(rows)
        kinds = ["t"] + ["c"] * bool(free) + ["u", "d"] * bool(taken) + ["k"] * bool(free and taken)
        match draw(st.sampled_from(kinds)):
            case "c":
                row = {"id": draw(st.sampled_from(free)), "v": f"n{next(value)}", "w": "new"}
                rows[row["id"]] = row
                script.events.append(change("c", table, None, dict(row), next(lsn)))
            case "u":
                row = rows[draw(st.sampled_from(taken))]
                row["v"] = f"u{next(value)}"
                script.events.append(change("u", table, None, _sent(draw, row), next(lsn)))
            case "d":
                key = draw(st.sampled_from(taken))
                del rows[key]
                script.events.append(
                    change("d", table, {"id": key, "v": None, "w": None}, None, next(lsn))
                )
            case "k":
                old, new = draw(st.sampled_from(taken)), draw(st.sampled_from(free))
                row = rows[new] = {**rows.pop(old), "id": new}
                at = next(lsn)
                script.events.append(
                    change("d", table, {"id": old, "v": None, "w": None}, None, at)
                )
                script.events.append(change("c", table, None, _sent(draw, row), at))
            case _:
                at, also = next(lsn), draw(st.booleans())
                for emptied in (table, *({A, B} - {table} if also else ())):
                    tables[emptied].clear()
                    script.events.append(change("t", emptied, None, None, at))
    return script


def _sent(draw: st.DrawFn, row: dict[str, str]) -> Row:
    """Leave out `w`, as an unchanged TOAST value is left out."""
    return {**row, "w": UNCHANGED} if draw(st.booleans()) else dict(row)


def replay(steps: list[changes.Step], tables: Tables) -> None:
    """Do what the applier's statements do, and demand what they demand."""
    for step in steps:
        match step:
            case TableChanges():
                rows = tables[step.table]
                for (key,) in step.deletes:
                    del rows[key]
                for (key,), row in step.updates.items():
                    rows[key] = {
                        **rows[key],
                        **{c: v for c, v in row.items() if isinstance(v, str)},
                    }
                for (key,), row in step.inserts.items():
                    assert key not in rows
                    rows[key] = {c: v for c, v in row.items() if isinstance(v, str)}
                    assert len(rows[key]) == 3
            case KeyChange(delete, insert):
                rows = tables[delete.table]
                old = rows.pop(changes.key_of(delete, ("id",))[0])
                new = {c: v for c, v in (insert.after or {}).items() if isinstance(v, str)}
                assert new["id"] not in rows
                rows[new["id"]] = {**old, **new}
            case Truncate(emptied, _):
                for table in emptied:
                    tables[table].clear()


@given(histories())
def test_the_plan_has_the_effect_of_the_events(script: Script) -> None:
    """Whatever a primary does to its tables, the planned steps leave the same rows."""
    tables = script.before

    replay(changes.plan(script.events, KEYS), tables)

    assert script.after == tables


@given(histories())
def test_every_key_with_an_event_is_written(script: Script) -> None:
    """A key with an event and a row in the end is written even if its values end as they began."""
    touched = {(c.table, c.after["id"]) for c in script.events if c.op in "cu" and c.after}
    written: set[tuple[TableName, object]] = set()
    for step in changes.plan(script.events, KEYS):
        if isinstance(step, TableChanges):
            written |= {(step.table, key) for (key,) in (*step.inserts, *step.updates, *step.gone)}
        elif isinstance(step, KeyChange):
            written.add((step.insert.table, (step.insert.after or {})["id"]))

    assert set() == {(t, k) for t, k in touched if k in script.after[t]} - written


def test_an_update_that_moves_the_key_is_a_key_change() -> None:
    """An update whose before image has another key is a barrier, not a net change."""
    moved = change("u", before={"id": "1", "v": "x"}, after={"id": "2", "v": "x"})

    assert [KeyChange(moved, moved)] == changes.plan([moved], KEYS)


def test_a_key_stored_out_of_line_is_taken_from_before() -> None:
    """An unchanged key value in `after` keeps the value that `before` gives."""
    update = change("u", before={"id": "long", "v": None}, after={"id": UNCHANGED, "v": "x"})

    steps = changes.plan([update], KEYS)

    assert [TableChanges(A, updates={("long",): {"id": "long", "v": "x"}})] == steps


@pytest.mark.parametrize(
    "events",
    [
        [change("c", after={"id": "1"}, lsn=1), change("c", after={"id": "1"}, lsn=2)],
        [change("d", before={"id": "1"}, lsn=1), change("d", before={"id": "1"}, lsn=2)],
        [change("d", before={"id": "1"}, lsn=1), change("u", after={"id": "1"}, lsn=2)],
        [change("c", after={"id": "1", "v": UNCHANGED})],
    ],
)
def test_contradicting_events_are_not_merged(events: list[Change]) -> None:
    """Events of a key that cannot follow each other are left to the row-by-row path."""
    with pytest.raises(Unmergeable):
        changes.plan(events, KEYS)


ROWS: list[Row] = [
    {"v": "1", "w": "a"},
    {"v": "1", "w": None},
    {"v": None, "w": None},
    {"v": "", "w": "a"},
]


def bag(rows: list[Row]) -> Counter[object]:
    return Counter((row["v"], row["w"]) for row in rows)


@given(st.data())
def test_rows_without_a_key_are_counted(data: st.DataObject) -> None:
    """Of equal rows the right number is left, however they were inserted, changed and deleted."""
    rows: list[Row] = data.draw(st.lists(st.sampled_from(ROWS), max_size=6))
    initial, script = bag(rows), list[Change]()
    for lsn in range(data.draw(st.integers(1, 20))):
        op = data.draw(st.sampled_from("cudk" if rows else "c"))
        new = data.draw(st.sampled_from(ROWS))
        old = rows.pop(data.draw(st.integers(0, len(rows) - 1))) if op != "c" else None
        if op != "d":
            rows.append(new)
        kept = {c: UNCHANGED if old and old[c] == v else v for c, v in new.items()}
        if op == "k":  # as Debezium sends the change of a deferrable key
            script += [change("d", before=old, lsn=lsn), change("c", after=kept, lsn=lsn)]
        else:
            script.append(change(op, before=old, after=kept if op == "u" else None, lsn=lsn))
            if op == "c":
                script[-1] = change("c", after=new, lsn=lsn)

    found = changes.plan(script, {A: ()})

    for step in found:
        assert isinstance(step, RowCounts)
        assert ("v", "w") == step.columns
        assert step.deletes <= initial
        initial.subtract(step.deletes)
        initial.update(step.inserts)
    assert +bag(rows) == +initial


def test_a_row_without_a_key_needs_all_its_values() -> None:
    """A value that neither image brings is never made up."""
    with pytest.raises(Unmergeable):
        changes.plan([change("c", after={"v": UNCHANGED})], {A: ()})


def test_tables_of_one_truncate_are_written_the_same_way() -> None:
    """What one statement truncates stays together, and so does what shares a table with it."""
    c, d = TableName("s", "c"), TableName("s", "d")
    history = [
        change("t", A, lsn=1), change("t", B, lsn=1),
        change("c", d, None, {"id": "1"}, lsn=2),
        change("t", B, lsn=3), change("t", c, lsn=3),
        change("t", d, lsn=4),
    ]  # fmt: skip

    assert {A, B, c} == changes.truncated_with(history, A)
    assert {d} == changes.truncated_with(history, d)
