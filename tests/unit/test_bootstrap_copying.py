"""How tables are cut into pieces and which statements copy them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import copying, progress
from cdc.copying import Piece
from cdc.names import TableName
from cdc.progress import Tally, amount, describe, span
from cdc.tables import Column, Table


def table(name: str = "t", *columns: Column) -> Table:
    return Table(
        oid=1,
        name=TableName("Mixed Case", name),
        kind="r",
        persistence="p",
        replica_identity="d",
        row_security=False,
        parent=None,
        key=("id",),
        key_immediate=True,
        index=(),
        columns=columns or (column("id"),),
    )


def column(name: str, kind: str = "integer", generated: str = "", identity: str = "") -> Column:
    return Column(name, kind, not_null=False, identity=identity, generated=generated)


@given(blocks=st.integers(0, 10_000), range_blocks=st.integers(1, 500))
def test_pieces_cover_every_block_once(blocks: int, range_blocks: int) -> None:
    """The pieces of a table follow each other without gap or overlap and have no upper end."""
    found = copying.pieces([(table(), blocks * 8192)], range_blocks * 8192)

    assert found[0].first is None
    assert found[-1].last is None
    for piece, following in itertools.pairwise(found):
        assert piece.last == following.first
        assert piece.last is not None
        assert piece.last > (piece.first or 0)
        assert piece.last <= max(1, blocks)


def test_largest_table_first() -> None:
    """Big tables begin first, so that no worker is left alone with one at the end."""
    found = copying.pieces(
        [(table("small"), 10), (table("big"), 3 * 8192), (table("mid"), 2 * 8192)], 8192
    )

    assert ["big"] * 3 + ["mid"] * 2 + ["small"] == [p.table.name.name for p in found]


def test_statements_name_columns_and_leave_children_and_generated_columns_out() -> None:
    """Rows are read from the table ONLY, by quoted names, without generated columns."""
    mixed = table("T 1", column("id", identity="a"), column('a"b'), column("g", generated="s"))

    read = copying.read_statement(Piece(mixed, 8, 16, 0)).as_string()
    write = copying.write_statement(mixed, mixed.name).as_string()

    assert (
        'COPY (SELECT "id", "a""b" FROM ONLY "Mixed Case"."T 1"'
        " WHERE ctid >= '(8,0)'::tid AND ctid < '(16,0)'::tid) TO STDOUT"
    ) == read
    assert 'COPY "Mixed Case"."T 1" ("id", "a""b") FROM STDIN' == write


def test_statement_of_a_whole_table_has_no_bounds() -> None:
    """A table in one piece is read without any condition."""
    read = copying.read_statement(Piece(table(), None, None, 0)).as_string()

    assert 'COPY (SELECT "id" FROM ONLY "Mixed Case"."t") TO STDOUT' == read


def test_progress_tells_rows_bytes_rate_and_time_left() -> None:
    """After a quarter of the stored bytes in ten seconds, half a minute is left."""
    said = describe(Tally(1000, 2048, 25), 100, 10.0)

    assert said == "1,000 rows, 2.0 KiB, 100 rows/s, 205 B/s, 0:30 left"


def test_progress_is_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal, percent and rate are said in plain lines on stderr, not too often."""
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)

    with progress.CopyProgress("copying into r1", 100) as shown:
        shown.add(Tally(10, 100, 50))
        monkeypatch.setattr(progress, "_LINE_EVERY", 1000.0)
        shown.add(Tally(10, 100, 50))

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("copying into r1: 50 %, 10 rows, 100 B, ")
    assert said.err.count("\n") == 1
    assert shown.done == Tally(20, 200, 100)


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Work that is done at once shows no progress."""
    with progress.CopyProgress("copying into r1", 100) as shown:
        shown.add(Tally(10, 100, 100))

    assert capsys.readouterr().err == ""


def test_amounts_and_spans_are_written_for_people() -> None:
    """Sizes get a unit that fits, times are hours, minutes and seconds."""
    assert ["0 B", "1.5 KiB", "3.0 GiB"] == [amount(n) for n in (0, 1536, 3 << 30)]
    assert ["0:00", "1:05", "1:01:01"] == [span(s) for s in (0, 65, 3661)]
