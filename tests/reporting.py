"""What a campaign tells as it goes: a line of JSON per event."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any


class Report:
    """A file of such lines; several threads may write."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def close(self) -> None:
        self._file.close()

    def write(self, kind: str, **fields: Any) -> None:
        now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        self._file.write(json.dumps({"kind": kind, "at": now, **fields}) + "\n")
        self._file.flush()
