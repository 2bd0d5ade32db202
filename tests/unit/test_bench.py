"""The document about speed says what was measured."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest


def test_the_document_is_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/performance.md and its picture are what bench/document.py makes of bench/results."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "bench")
    document = importlib.import_module("document")

    for path, text in document.files().items():
        assert text == path.read_text(encoding="utf-8")


def test_what_was_not_measured_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latencies beside others stand in the document as medians and the most of all; a part without figures does not."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "bench")
    carried = importlib.import_module("carried")
    machine = dict.fromkeys(
        ("date", "processor", "memory", "postgresql", "python", "system"), "some"
    )
    runs = [
        {"rate": 999, "p50": 0.001 * n, "p95": 0.01 * n, "p99": 0.1 * n, "most": n}
        for n in (1, 3, 2)
    ]
    told: dict[str, Any] = {
        "machine": machine,
        "capture-latency": {"rate": 500, "runs": {"cdc": runs, "defaults": runs}},
        "peers": {
            "sink": "1.0",
            "rate": 1000,
            "runs": {"cdc": runs, "postgresql": runs},
            "refused": {"sink_500": "a fault"},
        },
    }

    text = carried.section(told)

    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == ["## From commit to Kafka", "## From commit to replica, beside others"]
    for name in ("the shipped definition", "this program", "PostgreSQL's subscription"):
        assert f"| {name} | 999 | 2.0 | 20 | 200 | 3,000 |\n" in text
    assert "JDBC sink, batch 500 could not: a fault\n" in text
    del told["peers"], told["capture-latency"]
    assert "##" not in carried.section(told)
