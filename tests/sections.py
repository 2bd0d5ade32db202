"""The sections of docs/operations.md that alerts link to."""

from __future__ import annotations

import re
from pathlib import Path

OPERATIONS = Path(__file__).parents[1] / "docs/operations.md"


def complete(anchor: str) -> None:
    """Assert that there is a section of this name, and that it says all that somebody needs."""
    parts = re.split(r"^## (.+)$", OPERATIONS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-"): text
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    assert anchor in found
    missing = [w for w in ("Means", "See", "Do", "Over") if f"**{w}**:" not in found[anchor]]
    assert [] == missing, anchor
