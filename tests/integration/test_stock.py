"""The stock profile on the real stack: Debezium's own connector, without a jar of ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import harness
import pytest
from harness import Stack, Stream

pytestmark = [pytest.mark.stack, pytest.mark.long]


@pytest.fixture
def stream(stack: Stack, tmp_path: Path) -> Iterator[Stream]:
    with harness.stream(stack, tmp_path / "stream") as made:
        harness.edit(made, r'^profile = "exact"$', 'profile = "stock"')
        yield made


def test_rows_arrive(stream: Stream) -> None:
    """Rows that were changed on the primary are the same on the replicas, and a restart is survived."""
    stream.running(
        "CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(10,2), at timestamptz, b bytea);"
        "INSERT INTO t SELECT i, 'v' || i, i / 3.0, now(), '\\x00ff' FROM generate_series(1, 100) i"
    )
    stream.sql("primary", "UPDATE t SET v = 'x' || id, n = 1.50 WHERE id < 50")
    stream.sql("primary", "DELETE FROM t WHERE id > 90")
    stream.sql("primary", "INSERT INTO t VALUES (1000, NULL, 'NaN', 'infinity', '')")
    stream.caught_up()

    query = "SELECT * FROM t ORDER BY id"
    assert stream.sql("primary", query) == stream.sql("r1", query) == stream.sql("r2", query)
