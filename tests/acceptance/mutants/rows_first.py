"""The program, made worse: rows commit before their position does, and it dies in between."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import armed

from cdc import cli
from cdc.apply import Applier
from cdc.events import Change
from cdc.position import Written

_written = Applier.write


def _committed(self: Applier, batch: Sequence[Change]) -> Written:
    written = _written(self, batch)
    self._conn.execute("COMMIT")
    self._conn.execute("BEGIN")
    return written


Applier.write = _committed  # type: ignore[method-assign]  # the mutation itself

if __name__ == "__main__":
    armed.arm("position.moved", 2, signal.SIGKILL)
    cli.main()
