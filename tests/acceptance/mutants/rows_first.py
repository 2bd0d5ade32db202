"""The program, made worse: rows commit before their position does, and it dies in between."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Sequence

from cdc import cli
from cdc.apply import Applier
from cdc.events import Change
from cdc.position import Written

_whole = Applier.write
_batches = itertools.count(1)


def _alone(self: Applier, batch: Sequence[Change]) -> Written:
    written = _whole(self, batch)
    self._conn.execute("COMMIT")
    if next(_batches) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    self._conn.execute("BEGIN")
    return written


Applier.write = _alone  # type: ignore[method-assign]  # the mutation itself

if __name__ == "__main__":
    cli.main()
