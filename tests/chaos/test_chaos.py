"""Everything is killed, again and again, while everything is written."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import harness
import pytest
import schedule
import workload
from campaign import Campaign
from harness import Stack, Stream
from report import Findings
from reporting import Report

#: `make chaos` asks for a thousand; the default takes three minutes, and strikes most of what there is once.
ROUNDS = int(os.environ.get("CDC_CHAOS_ROUNDS", "14"))

#: Source transactions per second: the bar is 200, which leaves nothing for tests beside this one.
RATE = float(os.environ.get("CDC_CHAOS_RATE", "60"))

#: Rounds between two comparisons.
EVERY = 50


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Give a stack of its own: other tests use the shared one meanwhile."""
    with harness.own_stack(tmp_path / "stack") as own:
        yield own


@pytest.mark.long
def test_everything_is_killed_while_everything_is_written(
    stream: Stream, record_property: Callable[[str, object], None]
) -> None:
    """No transaction is lost, doubled or torn, whatever dies; both replicas end equal."""
    seed = int(os.environ.get("CDC_CHAOS_SEED", random.randrange(1 << 30)))
    report = Path(os.environ.get("CDC_CHAOS_REPORT", stream.folder / "chaos.jsonl")).absolute()
    print(f"CDC_CHAOS_SEED={seed} CDC_CHAOS_ROUNDS={ROUNDS}; report in {report}")
    stream.ready(workload.TABLES)
    # Small batches: many commits to be killed between.
    stream.config.write_text(stream.config.read_text() + "\n[apply]\nmax_batch_rows = 500\n")

    with contextlib.closing(Report(report)) as lines:
        campaign = Campaign(stream, seed, RATE, lines)
        drawn = itertools.islice(schedule.rounds(seed), ROUNDS)
        while segment := list(itertools.islice(drawn, EVERY)):
            campaign.segment(segment)
        summary = campaign.totals.summary()
        lines.write("summary", seed=seed, **summary)

    print(json.dumps(summary, indent=2))
    for name, value in summary.items():
        record_property(name, value)
    assert campaign.totals.findings == Findings()
    assert campaign.totals.rounds == ROUNDS
    assert campaign.totals.states > ROUNDS
