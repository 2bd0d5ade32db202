"""A source transaction of a million rows goes through a daemon that keeps a thousand at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import compare
import pytest
from harness import Stream

LIMIT_KB = 300 * 1000


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
    waited = stream.cdc("wait", "-r", "r1", "--now", "--timeout", "500s", check=False, timeout=520)
    assert waited.returncode == 0, waited.stderr + stream.log(daemon)

    peak = _peak_kb(daemon.pid)
    print(f"peak memory {peak / 1000:.0f} MB")
    record_property("peak_kb", peak)
    nodes = {"primary": stream.primary, "r1": stream.replicas["r1"]}
    assert compare.differences(nodes, ["t"]) == []
    assert compare.contents(stream.replicas["r1"], "t").rows == 1_000_000
    assert peak < LIMIT_KB


def _peak_kb(pid: int) -> int:
    """Return the most memory the process ever had resident (proc(5), VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])
