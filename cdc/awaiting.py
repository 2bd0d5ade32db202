"""What the topic does not have yet: waited for, told by name, and given up where it will not come."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable

from cdc import writing
from cdc.daemon import Teller
from cdc.guard import Guard, Patience
from cdc.ledger import Gap
from cdc.writing import Turn


@dataclasses.dataclass(frozen=True, slots=True)
class Awaiting:
    """Waits on behalf of the loop; `limit` is `apply.missing_timeout`.

    `trouble` logs what is waited for, `watch` raises what connector, primary and topic have become
    meanwhile. Looking ahead raises Fenced when `stop` is set.
    """

    limit: float
    stop: threading.Event
    guard: Guard
    teller: Teller
    trouble: Callable[[str], None]
    watch: Callable[[Turn], None]

    def copy(self, turn: Turn, gap: Gap) -> int:
        """Wait for what comes next; return where it stands. Raises the gap's error if it never comes."""
        patience, given_up = Patience(self.limit), gap.lasting
        while (offset := turn.ahead.later_copy(gap, turn.ledger)) is None:
            if given_up:
                raise gap.error
            turn.give_up()
            turn.require_generation()
            holdup = self.guard.holdup()
            given_up = patience.spent(holdup, time.monotonic())
            self._tell(turn, f"{gap.error.what}; {holdup or gap.awaits}")
            if not given_up:
                self.stop.wait(writing.LOOK_AGAIN)
        return offset

    def end(self, turn: Turn) -> int:
        """Return the END of the open transaction, or the least it can be; wait until it is known.

        Without end, as for any row: a large transaction takes what it takes to come, and one that was
        torn comes again when the connector starts again.
        """
        while (end := turn.end_of_open()) is None:
            turn.require_generation()
            holdup = self.guard.holdup() or "the connector runs, and may be sending it"
            txid = turn.buffer.open[0].txid
            self._tell(turn, f"the end of transaction {txid} is not in the topic yet; {holdup}")
            self.stop.wait(writing.LOOK_AGAIN)
        return end

    def _tell(self, turn: Turn, what: str) -> None:
        self.trouble(what)
        # In a transaction nobody would see it on the replica: in memory alone.
        self.teller.waiting(None if turn.in_transaction else turn.conn, what)
        self.watch(turn)
