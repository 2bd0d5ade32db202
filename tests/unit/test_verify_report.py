"""What a verification tells, and what it never claims."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cdc.names import TableName
from cdc.verify import report
from cdc.verify.encoding import Layout
from cdc.verify.findings import Finding, TableResult, Undecided
from cdc.verify.likeness import Mismatch, compare
from cdc.verify.outcome import Outcome, Uncovered
from cdc.verify.page import page
from cdc.verify.reading import Image, Row
from cdc.verify.script import script
from cdc.verify.shape import Column, Index, Shape

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "schemas" / "verify.json").read_text(encoding="utf-8")
)
TABLE = TableName("app", "Orders")
SECRET = "4111 1111 1111 1111"


def column(name: str, kind: str = "integer", **more: Any) -> Column:
    return dataclasses.replace(Column(name, kind, not_null=True), **more)


LAYOUT = Layout(
    TABLE, (column("id"), column("card", "text", not_null=False)), (column("id"),), "lookup3"
)


def result(**more: Any) -> TableResult:
    whole = TableResult("r1", TABLE, rows=10, chunks=1, whole=True, seconds=0.5)
    return dataclasses.replace(whole, **more)


def outcome(*results: TableResult, **more: Any) -> Outcome:
    at = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    return dataclasses.replace(Outcome(at, 0x5832408, ("r1",)), results=[*results], **more)


FINDING = Finding(
    "r1", TABLE, "different", {"id": "7"}, {"card": (SECRET, "<b>")}, ("7",),
    Row(Image(1, "p"), ("7", SECRET)), Image(-5, "r"),
)  # fmt: skip


def test_all_proven_is_exit_0_with_a_claim() -> None:
    """Everything proven: exit 0 and one line that says what, as of when."""
    found = outcome(result())

    assert 0 == found.exit_code
    assert (
        "r1: 1 table, 10 rows proven equal as of LSN 0/5832408 (2026-01-02 03:04:05 UTC); "
        "0 differences; 0 undecided" == found.claim("r1")
    )


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (1, outcome(result(missing=1))),
        (1, outcome(result(different=2, mends=Counter(different=1)))),
        (0, outcome(result(different=2, mends=Counter(different=2)))),
        (1, outcome(result(mismatches=(Mismatch("a column is missing", "ALTER", "fatal"),)))),
        (1, outcome(result(mismatches=(Mismatch("an index is missing", "CREATE INDEX"),)))),
        (0, outcome(result(mismatches=(Mismatch("an index is not there", "none", "note"),)))),
        (1, outcome(result(extra=1), result(trouble="permission denied"))),
        (2, outcome(result(trouble="permission denied"))),
        (2, outcome(result(), trouble={"r2": "cannot connect"})),
        (3, outcome(result(undecided=[Undecided((("1",),), "written meanwhile")]))),
        (3, outcome(result(whole=False))),
        (3, outcome(result(), uncovered=[Uncovered(None, TABLE, "is unlogged")])),
        (3, outcome()),
    ],
)
def test_nothing_less_than_all_proven_is_exit_0(code: int, found: Outcome) -> None:
    """Differences come first, then trouble; a cap, a skip or an open row is never success."""
    assert code == found.exit_code


def test_the_json_is_what_its_schema_says() -> None:
    """The report and each finding validate against schemas/verify.json."""
    found = outcome(
        result(
            different=1, undecided=[Undecided((("1",),), "why")], mismatches=(Mismatch("a", "b"),)
        ),
        findings=[FINDING],
        uncovered=[Uncovered("r1", TABLE, "why")],
    )
    validator = jsonschema.Draft202012Validator(SCHEMA)
    line = {"$ref": "#/$defs/finding", "$defs": SCHEMA["$defs"]}

    validator.validate(json.loads(json.dumps(report.as_json(found))))
    for mask in (False, True):
        (text,) = report.lines([FINDING], mask=mask)
        jsonschema.Draft202012Validator(line).validate(json.loads(text))


def test_a_mask_leaves_no_value() -> None:
    """With a mask, every form of the report names the columns and shows no value of them."""
    whole = dataclasses.replace(
        FINDING, kind="missing", key={"card": SECRET}, columns={}, keyed=False
    )
    found = outcome(result(different=1), findings=[FINDING, whole])

    def forms(*, mask: bool) -> list[str]:
        return [
            *report.lines(found.findings, mask=mask),
            json.dumps(report.as_json(found, mask=mask)),
            report.human(found, mask=mask),
            page(found, mask=mask),
        ]

    for masked, plain in zip(forms(mask=True), forms(mask=False), strict=True):
        assert SECRET in plain
        assert SECRET not in masked
        assert "card" in masked


def test_people_see_some_and_are_told_of_the_rest() -> None:
    """A long list is cut and says so; what is undecided comes with its first keys, where it has some."""
    keys = tuple((str(n),) for n in range(7))
    found = outcome(
        result(
            different=60,
            undecided=[Undecided(keys, "hot"), Undecided((("-5",),), "new", addressed=False)],
        ),
        result(undecided=[Undecided((), "too many differ")]),
        findings=[FINDING] * 60,
    )
    lines = report.human(found).splitlines()

    assert 50 == sum(" different id=" in line for line in lines)
    assert "and 10 more rows that differ: --findings FILE has all" in lines
    assert 'r1 app."Orders": 7 rows undecided: hot: (0), (1), (2), (3), (4) and 2 more' in lines
    assert 'r1 app."Orders": 1 row undecided: new' in lines
    assert 'r1 app."Orders": undecided: too many differ' in lines


def test_the_page_needs_nothing_else_and_escapes() -> None:
    """The page refers to nothing outside of it and shows values as text."""
    shown = page(outcome(result(different=1), findings=[FINDING]), mask=False)

    assert not {"<script", "http:", "https:", "<link", "<img"} & {
        word for word in ("<script", "http:", "https:", "<link", "<img") if word in shown
    }
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown


def test_the_script_is_guarded() -> None:
    """Each statement of the plan names the row as it was found, or gives way to one that came."""
    missing = dataclasses.replace(FINDING, kind="missing", theirs=None)
    extra = dataclasses.replace(FINDING, kind="extra", ours=None)
    different, extra_row, missing_row = (
        "\n".join(script([finding], {TABLE: LAYOUT})) for finding in (FINDING, extra, missing)
    )

    assert "-5 RETURNING 1) INSERT INTO" in different
    assert "-5 RETURNING 1)" in extra_row
    assert "ON CONFLICT DO NOTHING" in missing_row
    assert 'LOCK TABLE ONLY app."Orders" IN SHARE ROW EXCLUSIVE MODE;' in different


def test_a_generated_column_is_never_written() -> None:
    """Its value is computed by the replica; the plan leaves it out."""
    computed = dataclasses.replace(LAYOUT, columns=(column("id"), column("card", generated="s")))
    text = "\n".join(script([dataclasses.replace(FINDING, kind="missing")], {TABLE: computed}))

    assert '("id") OVERRIDING' in text


MADE = Index(
    "orders_card",
    'CREATE INDEX orders_card ON app."Orders" USING btree (card)',
    None,
    refuses=False,
)
KEY = Index(
    "orders_pkey",
    'CREATE UNIQUE INDEX orders_pkey ON app."Orders" USING btree (id)',
    "PRIMARY KEY (id)",
    refuses=True,
)
SHAPE = Shape(TABLE, (column("id"), column("card", "text", not_null=False)), ("id",), (KEY, MADE))
MOOD = column("mood", "app.mood", enum="app.mood", labels=("bad", "so so", "it's good"))


def columns(first: Column, second: Column | None = None) -> Shape:
    return dataclasses.replace(SHAPE, columns=(first, second or SHAPE.columns[1]))


@pytest.mark.parametrize(
    ("replica", "weight", "mend"),
    [
        (dataclasses.replace(SHAPE, columns=SHAPE.columns[:1]), "fatal",
         'ALTER TABLE app."Orders" ADD COLUMN card text; then cdc bootstrap --table app."Orders" --overwrite'),
        (columns(column("id", "bigint")), "table", 'ALTER TABLE app."Orders" ALTER COLUMN id TYPE integer'),
        (columns(column("id", not_null=False)), "table", 'ALTER TABLE app."Orders" ALTER COLUMN id SET NOT NULL'),
        (columns(column("id", identity="a")), "table", 'ALTER TABLE app."Orders" ALTER COLUMN id DROP IDENTITY'),
        (columns(column("id", generated="s", expression="1")), "table", 'ALTER TABLE app."Orders" ALTER COLUMN id DROP EXPRESSION'),
        (columns(SHAPE.columns[0], column("card", "text", not_null=False, collate='app."de"')), "table",
         'ALTER TABLE app."Orders" ALTER COLUMN card TYPE text COLLATE pg_catalog."default"'),
        (columns(SHAPE.columns[0], column("card", "text", not_null=False, collation="c en_US 2.36")), "note",
         "none is needed for its rows to be equal; only another database or library sorts alike"),
        (dataclasses.replace(SHAPE, columns=(*SHAPE.columns, column("more"))), "fatal",
         'ALTER TABLE app."Orders" DROP COLUMN more'),
        (dataclasses.replace(SHAPE, key=(), indexes=(MADE,)), "table",
         'ALTER TABLE app."Orders" ADD CONSTRAINT orders_pkey PRIMARY KEY (id)'),
        (dataclasses.replace(SHAPE, indexes=(KEY,)), "table", MADE.definition),
        (dataclasses.replace(SHAPE, indexes=(KEY, dataclasses.replace(MADE, valid=False))), "table",
         "REINDEX INDEX app.orders_card"),
        (dataclasses.replace(SHAPE, indexes=(KEY, MADE, MADE)), "note",
         "none is needed, or DROP INDEX app.orders_card"),
        (dataclasses.replace(SHAPE, indexes=(KEY, MADE, dataclasses.replace(KEY, name="again"))), "table",
         'ALTER TABLE app."Orders" DROP CONSTRAINT again'),
    ],
)  # fmt: skip
def test_each_way_to_differ_comes_with_its_mend(replica: Shape, weight: str, mend: str) -> None:
    """A table that is otherwise on the replica is told with the statement that makes it alike."""
    (found,) = compare(SHAPE, replica)

    assert (weight, mend) == (found.weight, found.mend)
    assert () == compare(SHAPE, SHAPE)


def test_an_index_by_another_name_is_the_same_index() -> None:
    """What an index is decides, not what it is called."""
    other = Index("renamed", MADE.definition.replace("orders_card", "renamed"), None, refuses=False)

    assert () == compare(SHAPE, dataclasses.replace(SHAPE, indexes=(KEY, other)))


@pytest.mark.parametrize(
    ("labels", "mend"),
    [
        (("so so", "it's good"), "ALTER TYPE app.mood ADD VALUE 'bad' BEFORE 'so so'"),
        (("bad", "so so"), "ALTER TYPE app.mood ADD VALUE 'it''s good' AFTER 'so so'"),
        (("so so",), ("ALTER TYPE app.mood ADD VALUE 'bad' BEFORE 'so so'; "
         "ALTER TYPE app.mood ADD VALUE 'it''s good' AFTER 'so so'")),
        (("so so", "bad", "it's good"), "make app.mood anew as on the primary: labels cannot be dropped or moved"),
    ],
)  # fmt: skip
def test_labels_of_a_type_are_compared_in_order(labels: tuple[str, ...], mend: str) -> None:
    """Labels that the replica lacks can be added at their place; a type is told once."""
    ours = dataclasses.replace(SHAPE, columns=(MOOD, dataclasses.replace(MOOD, name="again")))
    theirs = dataclasses.replace(
        ours, columns=tuple(dataclasses.replace(c, labels=labels) for c in ours.columns)
    )
    (found,) = compare(ours, theirs)

    assert mend == found.mend
