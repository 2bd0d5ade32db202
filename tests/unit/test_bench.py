"""The document about speed says what was measured."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_document_is_what_was_measured() -> None:
    """docs/performance.md is what bench/document.py makes of bench/results/verify.json."""
    page = runpy.run_path(str(ROOT / "bench/document.py"))["page"]
    told = json.loads((ROOT / "bench/results/verify.json").read_text(encoding="utf-8"))

    assert page(told) == (ROOT / "docs/performance.md").read_text(encoding="utf-8")
