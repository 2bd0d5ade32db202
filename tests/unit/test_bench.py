"""The document about speed says what was measured."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest


def test_the_document_is_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/performance.md and its picture are what bench/document.py makes of bench/results."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "bench")
    document = importlib.import_module("document")

    for path, text in document.files().items():
        assert text == path.read_text(encoding="utf-8")
