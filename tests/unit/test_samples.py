"""Samples of the lag: runs between gaps, CSV, bars."""

from __future__ import annotations

from cdc import chart, samples
from cdc.samples import Sample


def sample(at: float, seconds: float | None = 1.0) -> Sample:
    return Sample(at, seconds, "unknown" if seconds is None else "following", 3)


def test_gaps_are_never_bridged() -> None:
    """Neither a time without samples nor one where the lag was not known is drawn through."""
    found = [sample(0), sample(10), sample(20, None), sample(30), sample(100)]

    assert [[0, 10], [30], [100]] == [[s.at for s in run] for run in samples.runs(found)]


def test_csv_leaves_empty_what_was_not_known() -> None:
    """A program tells an unknown lag from none."""
    lines = samples.csv([sample(0, 0.0), sample(10, None)]).splitlines()

    assert [
        "at,lag_seconds,state,backlog_records",
        "1970-01-01T00:00:00Z,0.000,following,3",
        "1970-01-01T00:00:10Z,,unknown,3",
    ] == lines


def test_bars_show_peaks_and_gaps() -> None:
    """Each stretch shows its greatest lag; a stretch without any is a dot; what is too old is left out."""
    found = [
        sample(5, 99.0),
        sample(101, 8.0),
        sample(102, 1.0),
        sample(115, 0.0),
        sample(139, 4.0),
    ]

    assert "█▁·▅" == chart.sparkline(found, 140, 40, 4)
