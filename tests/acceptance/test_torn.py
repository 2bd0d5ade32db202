"""The tests themselves: what they are to find, they find."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import compare
import harness
import pytest
import running
import workload
from harness import ROOT, Stack, Stream

MUTANTS = Path(__file__).with_name("mutants")


@pytest.fixture(scope="module")
def written(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """Give a stream with the workload's tables, filled, with no daemon."""
    with harness.stream(stack, tmp_path_factory.mktemp("torn")) as stream:
        stream.ready(workload.TABLES)
        yield stream


def test_a_build_that_commits_per_table_is_caught(written: Stream) -> None:
    """A daemon that commits after each table is seen to tear within 5,000 samples, 10 s at 500/s."""
    log = written.folder / "mutant.log"
    with log.open("wb") as output:
        mutant = subprocess.Popen(
            [
                sys.executable,
                str(MUTANTS / "commit_per_table.py"),
                "-c",
                str(written.config),
                "run",
                "-r",
                "r1",
            ],
            env=harness.environment() | {"PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=output,
        )
    try:
        harness.wait_until(lambda: b"applying from" in log.read_bytes(), "the mutant applies")
        with running.writing(written.primary, 30_000) as writer:
            harness.wait_until(lambda: _applied(written) > 0, "the mutant has applied something")
            with running.watching(
                written.replicas["r1"], "--samples", "5000", "--until-torn"
            ) as seen:
                found = seen.result()
            assert writer.running
    finally:
        mutant.kill()
        mutant.wait()

    assert found["torn"], (found, log.read_text()[-2000:])
    print(f"torn at sample {found['samples']}, after {found['seconds']:.2f} s")


def test_one_wrong_byte_is_found(written: Stream) -> None:
    """One byte changed in one value on one replica is found, with its table and node named."""
    written.cdc("run", "-r", "r2", "--until-caught-up")
    nodes = {"primary": written.primary, "r2": written.replicas["r2"]}
    assert compare.differences(nodes, workload.NAMES) == []

    changed = written.sql(
        "r2",
        "UPDATE w.docs SET body = overlay(body PLACING chr(ascii(right(body, 1)) # 1)"
        " FROM length(body)) WHERE id = (SELECT max(id) FROM w.docs WHERE body <> '') RETURNING id",
    )
    differences = compare.differences(nodes, workload.NAMES)

    assert len(changed) == 1
    assert len(differences) == 1
    assert differences[0].startswith("w.docs: primary has ")
    assert ", r2 has " in differences[0]


def test_a_build_that_commits_rows_before_their_position_is_caught(stream: Stream) -> None:
    """Killed in between, it has written rows that come again: they are seen twice."""
    stream.ready("CREATE TABLE t (v int); ALTER TABLE t REPLICA IDENTITY FULL")
    for number in range(5):
        stream.sql("primary", "INSERT INTO t VALUES (%s)", [number])
    pieces = stream.folder / "pieces.toml"
    text = stream.config.read_text(encoding="utf-8")
    pieces.write_text(f"{text}\n[apply]\nmax_batch_rows = 1\n", encoding="utf-8")

    killed = subprocess.run(
        [sys.executable, str(MUTANTS / "rows_first.py"), "-c", str(pieces), "run", "-r", "r1"],
        env=harness.environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    for replica in stream.replicas:
        stream.cdc("run", "-r", replica, "--until-caught-up")

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    differences = compare.differences({"primary": stream.primary, **stream.replicas}, ["t"])
    assert len(differences) == 1
    assert "t: primary has 5 rows" in differences[0]
    assert "r1 has 6 " in differences[0]


def _applied(stream: Stream) -> int:
    return int(stream.sql("r1", "SELECT transactions_applied FROM cdc.position")[0][0])
