"""What a verification tells, and what it never claims."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cdc.names import TableName
from cdc.verify import report
from cdc.verify.encoding import Layout
from cdc.verify.findings import Finding, TableResult, Undecided
from cdc.verify.outcome import Outcome, Uncovered
from cdc.verify.page import page
from cdc.verify.reading import Image, Row
from cdc.verify.repair import script
from cdc.verify.shape import Column, Mismatch, Shape, compare

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "schemas" / "verify.json").read_text(encoding="utf-8")
)
TABLE = TableName("app", "Orders")
SECRET = "4111 1111 1111 1111"


def column(name: str, kind: str = "integer", **more: Any) -> Column:
    plain = Column(name, kind, True, "", "", True, None, True)
    return dataclasses.replace(plain, **more)


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
        (1, outcome(result(different=2, mended=1))),
        (0, outcome(result(different=2, mended=2))),
        (1, outcome(result(mismatches=(Mismatch("a column is missing", "ALTER", fatal=True),)))),
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
    """With a mask, findings and page name the columns and show no value of them."""
    found = outcome(result(different=1), findings=[FINDING])
    (line,) = report.lines(found.findings, mask=True)

    assert SECRET not in line + page(found, mask=True)
    assert "card" in line
    assert "card" in page(found, mask=True)
    assert SECRET in page(found, mask=False)


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
    assert "-5;" in extra_row
    assert "ON CONFLICT DO NOTHING" in missing_row
    assert 'LOCK TABLE ONLY app."Orders" IN SHARE ROW EXCLUSIVE MODE;' in different


def test_a_generated_column_is_never_written() -> None:
    """Its value is computed by the replica; the plan leaves it out."""
    computed = dataclasses.replace(LAYOUT, columns=(column("id"), column("card", generated="s")))
    text = "\n".join(script([dataclasses.replace(FINDING, kind="missing")], {TABLE: computed}))

    assert '("id") OVERRIDING' in text


SHAPE = Shape(TABLE, (column("id"), column("card", "text", not_null=False)), ("id",))


@pytest.mark.parametrize(
    ("replica", "fatal", "mend"),
    [
        (dataclasses.replace(SHAPE, columns=SHAPE.columns[:1]), True,
         'ALTER TABLE app."Orders" ADD COLUMN card text; then cdc bootstrap --table app."Orders" --overwrite'),
        (dataclasses.replace(SHAPE, columns=(column("id", "bigint"), SHAPE.columns[1])), False,
         'ALTER TABLE app."Orders" ALTER COLUMN id TYPE integer'),
        (dataclasses.replace(SHAPE, columns=(column("id", not_null=False), SHAPE.columns[1])), False,
         'ALTER TABLE app."Orders" ALTER COLUMN id SET NOT NULL'),
        (dataclasses.replace(SHAPE, columns=(column("id", identity="a"), SHAPE.columns[1])), False,
         'ALTER TABLE app."Orders" ALTER COLUMN id DROP IDENTITY'),
        (dataclasses.replace(SHAPE, columns=(*SHAPE.columns, column("more"))), True,
         'ALTER TABLE app."Orders" DROP COLUMN more'),
        (dataclasses.replace(SHAPE, key=()), False,
         'ALTER TABLE app."Orders" ADD PRIMARY KEY (id)'),
    ],
)  # fmt: skip
def test_each_way_to_differ_comes_with_its_mend(replica: Shape, fatal: bool, mend: str) -> None:
    """A table that is otherwise on the replica is told with the statement that makes it alike."""
    (found,) = compare(SHAPE, replica)

    assert (fatal, mend) == (found.fatal, found.mend)
    assert () == compare(SHAPE, SHAPE)
