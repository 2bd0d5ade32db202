"""`cdc-verify` run to its end, and what it told."""

from __future__ import annotations

import json
from typing import Any

from harness import Stream


def told(stream: Stream, *args: str) -> tuple[int, dict[str, Any], str]:
    """Verify at full speed; return the exit code, the report, and what was said meanwhile."""
    done = stream.verify("--json", "--max-cpu", "100", *args)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def verified(stream: Stream, *args: str) -> tuple[int, dict[str, Any]]:
    """Verify at full speed; return the exit code and the report."""
    code, report, _ = told(stream, *args)
    return code, report
