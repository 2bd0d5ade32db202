"""SIGKILL at any moment: nothing is lost, nothing comes twice, nothing is seen torn."""

from __future__ import annotations

import functools
import os
import random
import subprocess
from collections.abc import Callable

import compare
import pytest
import running
import workload
from harness import Stream, wait_until

#: How long the primary is written to; the bar is 300.
SECONDS = int(os.environ.get("CDC_TEST_SECONDS", "40"))


def applies(stream: Stream, daemon: subprocess.Popen[bytes]) -> bool:
    return "applying from" in stream.log(daemon)


@pytest.mark.long
def test_random_writes_while_daemons_are_killed(
    stream: Stream, record_property: Callable[[str, object], None]
) -> None:
    """Both replicas end equal to the primary, and no reader ever saw half of a transaction."""
    stream.ready(workload.TABLES)
    # Small batches: many commits to be killed between, however late the daemons are.
    stream.config.write_text(stream.config.read_text() + "\n[apply]\nmax_batch_rows = 500\n")
    daemons = {replica: stream.start("run", "-r", replica) for replica in stream.replicas}
    kills = dict.fromkeys(daemons, 0)

    with (
        running.watching(stream.replicas["r1"]) as watcher,
        running.writing(stream.primary, running.RATE * SECONDS) as writer,
    ):
        while not writer.wait(random.uniform(0.2, 4)):
            replica = random.choice(list(daemons))
            daemon = daemons[replica]
            if random.random() < 0.8:  # else it is killed while it starts
                wait_until(functools.partial(applies, stream, daemon), f"{replica} applies")
                writer.wait(random.uniform(0, 2))
            assert daemon.poll() is None, stream.log(daemon)[-3000:]
            daemon.kill()
            daemon.wait()
            kills[replica] += 1
            daemons[replica] = stream.start("run", "-r", replica)
        wrote = writer.result()
        for replica, daemon in daemons.items():
            waited = stream.cdc(
                "wait", "-r", replica, "--now", "--timeout", "300s", check=False, timeout=330
            )
            assert waited.returncode == 0, waited.stderr + stream.log(daemon)[-3000:]
        watched = watcher.stop()

    figures = {
        "transactions": wrote["transactions"],
        "transactions_per_second": round(wrote["transactions"] / wrote["seconds"]),
        "kills": kills,
        "samples": watched["samples"],
        "samples_per_second": round(watched["samples"] / watched["seconds"]),
        "states_seen": watched["states"],
        "torn": watched["torn"],
        "differences": compare.differences(
            {"primary": stream.primary, **stream.replicas}, workload.NAMES
        ),
        "rows": {name: compare.contents(stream.primary, name).rows for name in workload.NAMES},
    }
    print(figures)
    for name, value in figures.items():
        record_property(name, value)
    assert figures["differences"] == []
    assert figures["torn"] == []
    assert watched["states"] > 50
    assert min(kills.values()) > 0
    for replica in stream.replicas:
        assert stream.sql(
            replica, "SELECT unmatched_updates, unmatched_deletes FROM cdc.position"
        ) == [(0, 0)]
    if "CDC_TEST_SECONDS" in os.environ:
        # The bar itself, where somebody asks for it: not a promise about every machine.
        assert figures["transactions_per_second"] >= 200
        assert figures["samples_per_second"] >= 500
