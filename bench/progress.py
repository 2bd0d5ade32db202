"""What a long benchmark says meanwhile."""

from __future__ import annotations

import time


def say(*words: object) -> None:
    """Tell the progress."""
    print(time.strftime("%H:%M:%S"), *words, flush=True)
