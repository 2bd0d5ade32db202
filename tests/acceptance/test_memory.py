"""What is large goes through a daemon that keeps only a little of it at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import LiteralString

import compare
import pytest
from harness import Stream

LIMIT_KB = 300 * 1000

#: Rows of ten megabytes; the bar is 100.
LARGE = int(os.environ.get("CDC_TEST_LARGE_ROWS", "24"))

#: Ten million characters; of the second kind one alone makes Python keep four bytes for each.
_PLAIN: LiteralString = (
    "INSERT INTO t SELECT i, repeat(md5(i::text), 312500) FROM generate_series(%s::int, %s::int) i"
)
_WIDE: LiteralString = "INSERT INTO t SELECT i, repeat(md5(i::text), 312500) || chr(128512) FROM generate_series(%s::int, %s::int) i"


@pytest.mark.long
def test_a_million_rows_in_one_transaction(
    stream: Stream, record_property: Callable[[str, object], None]
) -> None:
    """The daemon's peak memory stays below 300 MB, and the rows are the same."""
    stream.ready("CREATE TABLE t (id int PRIMARY KEY, v text, n numeric)")
    stream.config.write_text(stream.config.read_text() + "\n[apply]\nmax_batch_rows = 1000\n")
    daemon = stream.start("run", "-r", "r1")
    stream.sql(
        "primary", "INSERT INTO t SELECT i, md5(i::text), i FROM generate_series(1, 1000000) i"
    )
    waited = stream.cdc(
        "wait", "-r", "r1", "--now", "--timeout", "1200s", check=False, timeout=1230
    )
    assert waited.returncode == 0, waited.stderr + stream.log(daemon)

    peak = _peak_kb(daemon.pid)
    print(f"peak memory {peak / 1000:.0f} MB")
    record_property("peak_kb", peak)
    nodes = {"primary": stream.primary, "r1": stream.replicas["r1"]}
    assert compare.differences(nodes, ["t"]) == []
    assert compare.contents(stream.replicas["r1"], "t").rows == 1_000_000
    assert peak < LIMIT_KB


def test_rows_of_ten_megabytes(
    stream: Stream, record_property: Callable[[str, object], None]
) -> None:
    """The default limits hold the peak below 300 MB, in one transaction and in one per row."""
    stream.ready("CREATE TABLE t (id int PRIMARY KEY, v text)")
    stream.sql("primary", _PLAIN, [1, LARGE // 2])
    for row in range(LARGE // 2 + 1, LARGE + 1):
        stream.sql("primary", _WIDE, [row, row])
    daemon = stream.start("run", "-r", "r1")
    waited = stream.cdc(
        "wait", "-r", "r1", "--now", "--timeout", "1200s", check=False, timeout=1230
    )
    assert waited.returncode == 0, waited.stderr + stream.log(daemon)

    peak = _peak_kb(daemon.pid)
    print(f"peak memory {peak / 1000:.0f} MB with {LARGE} rows of 10 MB")
    record_property("peak_kb", peak)
    nodes = {"primary": stream.primary, "r1": stream.replicas["r1"]}
    assert compare.differences(nodes, ["t"]) == []
    assert compare.contents(stream.replicas["r1"], "t").rows == LARGE
    assert peak < LIMIT_KB


def _peak_kb(pid: int) -> int:
    """Return the most memory the process ever had resident (proc(5), VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])
