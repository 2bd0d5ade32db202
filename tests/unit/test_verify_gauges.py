"""What is told to who watches, of what the replicas remember."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc.config import Config, Connect, Kafka, Primary, Replica
from cdc.verify.gauges import Gauges, collected, write


@pytest.mark.parametrize(
    ("gauges", "verdict"),
    [
        (Gauges(), "never verified"),
        (Gauges(exit_code=0, whole=True), "identical"),
        (Gauges(exit_code=0), "identical (some tables)"),
        (Gauges(exit_code=1, missing=1, different=2), "3 rows differ"),
        (Gauges(exit_code=1), "the catalog differs"),
        (Gauges(exit_code=2), "not all could be read"),
        (Gauges(exit_code=3), "not all was decided"),
    ],
)
def test_the_last_run_in_a_word_or_two(gauges: Gauges, verdict: str) -> None:
    """Only a run of every table that proved all of it is called identical."""
    assert verdict == gauges.verdict


def test_what_is_not_known_has_no_sample() -> None:
    """A replica that was never proven equal has no moment; its differing rows are counted."""
    known = Gauges(success=5.0, oldest=4.0, missing=1)
    found = {
        (s.name.removeprefix("cdc_verify_"), *s.labels.values()): s.value
        for family in collected({"r1": known, "r2": Gauges()})
        for s in family.samples
    }

    assert {
        ("last_success_timestamp_seconds", "r1"): 5.0,
        ("oldest_verified_timestamp_seconds", "r1"): 4.0,
        ("divergent_rows", "r1", "missing"): 1.0,
        ("divergent_rows", "r1", "extra"): 0.0,
        ("divergent_rows", "r1", "different"): 0.0,
        ("divergent_rows", "r2", "missing"): 0.0,
        ("divergent_rows", "r2", "extra"): 0.0,
        ("divergent_rows", "r2", "different"): 0.0,
    } == found


def test_a_textfile_is_written_also_where_no_replica_answers(tmp_path: Path) -> None:
    """A replica that cannot be read has no sample; the file is written all the same."""
    config = Config(
        name="app",
        primary=Primary(dsn=""),
        kafka=Kafka(bootstrap_servers=""),
        connect=Connect(url=""),
        replicas={"r1": Replica(dsn="host=127.0.0.1 port=1 connect_timeout=1")},
    )
    write(tmp_path / "cdc.prom", config, ["r1"])

    assert "# TYPE cdc_verify_divergent_rows gauge" in (tmp_path / "cdc.prom").read_text()
