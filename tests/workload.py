"""Random writes to a primary, and a reader that looks for torn transactions on a replica.

Run as programs of their own (`python workload.py write …`, `… watch …`), so that they take no time
from each other. Imports nothing of the package under test.

Four writers do short transactions, a fifth keeps its own open for seconds. `accounts`, `keys`,
`identities` and `shapes` say what they do; a server that dies is waited for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, LiteralString

import accounts
import identities
import keys
import psycopg
import shapes
import writer
from writer import WRITERS, Kind, Writer

TABLES: LiteralString = (
    "CREATE SCHEMA w;"
    + writer.TABLES
    + accounts.TABLES
    + keys.TABLES
    + identities.TABLES
    + shapes.TABLES
)

#: Every table that holds rows.
NAMES = ("w.journal", *accounts.NAMES, *keys.NAMES, *identities.NAMES, *shapes.NAMES)

KINDS: dict[Kind, int] = {**accounts.KINDS, **keys.KINDS, **identities.KINDS, **shapes.KINDS}

#: What the writer does whose transactions stay open: nothing that others wait for.
_SLOWLY = (accounts.lend, keys.chains, keys.seats, shapes.documents, shapes.typed_values)


class Crew:
    """The writers of one run."""

    def __init__(self, dsn: str, seed: int) -> None:
        self._writers = [Writer(dsn, number, str(seed)) for number in range(WRITERS)]
        self._troubles: list[BaseException] = []
        self._over = threading.Event()
        self.stop = threading.Event()

    def write(self, transactions: int | None, rate: float) -> dict[str, Any]:
        """Do so many short transactions, or until stopped, at most `rate` per second."""
        began = time.monotonic()
        *quick, slow = self._writers

        def quickly(one: Writer) -> None:
            kinds, weights = list(KINDS), list(KINDS.values())
            done = 0
            while not self.stop.is_set() and (
                transactions is None or done < transactions // len(quick)
            ):
                self.stop.wait(max(0.0, began + done * len(quick) / rate - time.monotonic()))
                one.transaction(one.random.choices(kinds, weights)[0])
                done += 1

        def slowly(one: Writer) -> None:
            while not self._over.is_set():
                one.transaction(self._open_for_seconds)

        threads = [threading.Thread(target=self._guard, args=[quickly, one]) for one in quick]
        staying = threading.Thread(target=self._guard, args=[slowly, slow])
        for thread in (*threads, staying):
            thread.start()
        for thread in threads:
            thread.join()
        self._over.set()
        staying.join()
        if self._troubles:
            raise self._troubles[0]
        return self._result(time.monotonic() - began)

    def _open_for_seconds(self, one: Writer) -> None:
        for _ in range(one.random.randrange(3, 9)):
            one.random.choice(_SLOWLY)(one)
            self._over.wait(one.random.uniform(0.05, 1.0))

    def _guard(self, work: Callable[[Writer], None], one: Writer) -> None:
        try:
            work(one)
            one.close()
        except BaseException as trouble:
            self._troubles.append(trouble)
            self.stop.set()
            raise

    def _result(self, seconds: float) -> dict[str, Any]:
        tallies = [one.tally for one in self._writers]
        return {
            "transactions": sum(tally.committed for tally in tallies),
            "seconds": seconds,
            "acknowledged": {one.number: one.acknowledged for one in self._writers},
            "kinds": dict(sum((tally.kinds for tally in tallies), Counter())),
            "refused": dict(sum((tally.refused for tally in tallies), Counter())),
            "lost_connections": sum(tally.lost_connections for tally in tallies),
            "in_doubt": {
                "kept": sum(tally.kept for tally in tallies),
                "undone": sum(tally.undone for tally in tallies),
            },
        }


def watch(dsn: str, samples: int, rate: float, *, until_torn: bool) -> dict[str, Any]:
    """Read the three sums in one snapshot, `samples` times or until SIGTERM.

    Return the samples, how many states were seen, and the torn ones; with `until_torn` stop at the
    first of these. A server that dies is waited for.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    seen = states = 0
    last: tuple[Any, ...] = ()
    torn: list[tuple[int, tuple[Any, ...]]] = []
    replica = psycopg.connect(dsn, autocommit=True)
    print(json.dumps({"watching": True}), flush=True)
    began = time.monotonic()
    while seen < samples and not stop.is_set() and not (torn and until_torn):
        try:
            sums = replica.execute(accounts.SUMS, prepare=True).fetchone() or ()
        except psycopg.OperationalError:
            replica.close()
            stop.wait(0.2)
            with contextlib.suppress(psycopg.OperationalError):
                replica = psycopg.connect(dsn, autocommit=True)
            continue
        seen += 1
        states += sums != last
        last = sums
        if sum(sums) != accounts.TOTAL:
            torn.append((seen, sums))
        stop.wait(max(0.0, began + seen / rate - time.monotonic()))
    replica.close()
    return {
        "samples": seen,
        "states": states,
        "torn": torn[:10],
        "seconds": time.monotonic() - began,
    }


def main() -> None:
    """Write or watch, then print what was done as JSON."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write")
    writing.add_argument("--dsn", required=True)
    writing.add_argument("--transactions", type=int, help="else until SIGTERM")
    writing.add_argument("--rate", type=float, required=True)
    writing.add_argument("--seed", type=int, required=True)
    watching = commands.add_parser("watch")
    watching.add_argument("--dsn", required=True)
    watching.add_argument("--samples", type=int, default=1 << 60)
    watching.add_argument("--rate", type=float, default=1e9)
    watching.add_argument("--until-torn", action="store_true")
    said = parser.parse_args()
    if said.command == "write":
        crew = Crew(said.dsn, said.seed)
        signal.signal(signal.SIGTERM, lambda *_: crew.stop.set())
        print(json.dumps({"writing": True}), flush=True)
        print(json.dumps(crew.write(said.transactions, said.rate)))
    else:
        print(json.dumps(watch(said.dsn, said.samples, said.rate, until_torn=said.until_torn)))


if __name__ == "__main__":
    main()
