"""The program, made worse: it commits after each table, so that readers see half of a transaction."""

from __future__ import annotations

from cdc import cli
from cdc.apply import Applier
from cdc.changes import TableChanges
from cdc.position import Written

_whole = Applier._write_net


def _alone(self: Applier, net: TableChanges) -> Written:
    written = _whole(self, net)
    self._conn.execute("RELEASE SAVEPOINT cdc_batch")
    self._conn.execute("COMMIT")
    self._conn.execute("BEGIN")
    self._conn.execute("SAVEPOINT cdc_batch")
    return written


Applier._write_net = _alone  # type: ignore[method-assign]  # the mutation itself

if __name__ == "__main__":
    cli.main()
