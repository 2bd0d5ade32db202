"""What a campaign tells as it goes: a line of JSON per event."""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path
from typing import Any


class Report:
    """A file of such lines; several threads may write."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def close(self) -> None:
        self._file.close()

    def write(self, kind: str, **fields: Any) -> None:
        self._file.write(_line(kind, fields))
        self._file.flush()


def note(kind: str, **fields: Any) -> None:
    """Print what a test has measured; add it to the file that CDC_LAG_REPORT names, if it does."""
    line = _line(kind, fields)
    print(line, end="")
    if named := os.environ.get("CDC_LAG_REPORT"):
        with Path(named).open("a", encoding="utf-8") as file:
            file.write(line)


def _line(kind: str, fields: dict[str, Any]) -> str:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    return json.dumps({"kind": kind, "at": now, **fields}) + "\n"
