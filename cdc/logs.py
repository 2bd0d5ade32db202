"""Log lines for people, on stderr, in UTC."""

from __future__ import annotations

import logging
import sys
import time


def configure(verbose: int) -> None:
    """Send log lines to stderr: states and a summary; with -v each batch."""
    formatter = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger("cdc")
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.propagate = False
