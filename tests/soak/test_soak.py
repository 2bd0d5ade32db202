"""`cdc-verify` neither accuses a sound replica nor misses a fault, however long it goes on."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import rows
from harness import Stream
from reporting import Report
from soak import Soak
from totals import Totals

#: `make soak-verify` asks for 100 runs, 300 faults and 20 kills.
RUNS = int(os.environ.get("CDC_SOAK_RUNS", "3"))
FAULTS = int(os.environ.get("CDC_SOAK_FAULTS", "20"))
KILLS = int(os.environ.get("CDC_SOAK_KILLS", "2"))

#: Source transactions per second: the bar is 200, which leaves nothing for tests beside this one.
RATE = float(os.environ.get("CDC_SOAK_RATE", "60"))

#: Seconds that a daemon is stopped at most, now and then.
STALL = float(os.environ.get("CDC_SOAK_STALL", "2"))


@pytest.mark.long
@pytest.mark.stack
def test_verification_is_right_for_as_long_as_it_is_asked(
    stream: Stream, record_property: Callable[[str, object], None]
) -> None:
    """Sound rows are never accused, faults all told and mended, killed runs go on where they were."""
    seed = int(os.environ.get("CDC_SOAK_SEED", random.randrange(1 << 30)))
    path = Path(os.environ.get("CDC_SOAK_REPORT", stream.folder / "soak.jsonl")).absolute()
    print(f"CDC_SOAK_SEED={seed} of {RUNS} runs, {FAULTS} faults, {KILLS} kills; report in {path}")
    stream.ready(rows.TABLES)
    totals = Totals(seed)
    with contextlib.closing(Report(path)) as report:
        soak = Soak(stream, totals, RATE, STALL, report)
        if RUNS:
            soak.runs(RUNS)
        if FAULTS:
            soak.faults(FAULTS)
        if KILLS:
            soak.kills(KILLS)
        summary = totals.summary()
        report.write("summary", **summary)

    print(json.dumps(summary, indent=2))
    for name, value in summary.items():
        record_property(name, value)
    undecided = sum(one["rows"] for one in totals.undecided)
    assert undecided <= 1
    assert totals.exits.get("0", 0) >= RUNS - undecided
    assert ([], [], []) == (totals.false, totals.missed, totals.wrong)
    assert [] == totals.differences
    assert 0 == totals.unmended
    assert (KILLS, []) == (totals.kills, totals.other_results)
    assert max(totals.chunks_read_twice, default=0) <= 1
