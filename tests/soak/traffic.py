"""Random transactions on the tables of a soak until SIGTERM, one row of them without pause.

A program of its own, so that it takes no time from the test. Imports nothing of the package under
test.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
from rows import FEW, TENS, UUID, WIDE, WORD

#: Connections that write beside the one that updates a single row.
WRITERS = 3

#: Updates of the one row, per second.
_HOT = 50

#: Tens out of `TENS` that get a third of the writes.
_WARM = 100

_ONE: LiteralString = "(SELECT %(g)s::bigint AS g) AS o"

_CHANGES: tuple[LiteralString, ...] = (
    "UPDATE s.wide SET n = n + 1, changed = clock_timestamp() WHERE id = %(g)s",
    "UPDATE s.wide SET note = nullif(repeat('ß', (random() * 9)::int), '') WHERE id = %(g)s",
    "UPDATE s.wide SET doc = doc || jsonb_build_object('n', random()) WHERE id = %(g)s",
    (
        "UPDATE s.wide SET amount = amount + 0.01, f = -f, tags = tags || 'y'::text WHERE id = %(g)s"
        " AND cardinality(tags) < 9"
    ),
    "UPDATE s.uuids SET v = md5(random()::text) WHERE id = md5(%(g)s::text)::uuid",
    "UPDATE s.words SET c = c + 0.25 WHERE (a, b) = (chr(97 + mod(%(g)s, 26)), 'w' || %(g)s)",
    "UPDATE s.pairs SET v = 'v' || %(g)s || '/' || random() WHERE id = %(few)s",
)

_DELETES: tuple[LiteralString, ...] = (
    "DELETE FROM s.wide WHERE id = %(g)s",
    "DELETE FROM s.uuids WHERE id = md5(%(g)s::text)::uuid",
    "DELETE FROM s.words WHERE (a, b) = (chr(97 + mod(%(g)s, 26)), 'w' || %(g)s)",
)
_INSERTS: tuple[LiteralString, ...] = (
    "INSERT INTO s.wide SELECT " + WIDE + " FROM " + _ONE + " ON CONFLICT DO NOTHING",
    "INSERT INTO s.uuids SELECT " + UUID + " FROM " + _ONE + " ON CONFLICT DO NOTHING",
    "INSERT INTO s.words SELECT " + WORD + " FROM " + _ONE + " ON CONFLICT DO NOTHING",
)

_MOVES: tuple[LiteralString, ...] = (
    (
        "UPDATE s.wide SET id = %(to)s WHERE id = %(g)s"
        " AND NOT EXISTS (SELECT FROM s.wide WHERE id = %(to)s)"
    ),
    (
        "UPDATE s.uuids SET id = md5(%(to)s::text)::uuid WHERE id = md5(%(g)s::text)::uuid"
        " AND NOT EXISTS (SELECT FROM s.uuids WHERE id = md5(%(to)s::text)::uuid)"
    ),
    (
        "UPDATE s.words SET a = chr(97 + mod(%(to)s, 26)), b = 'w' || %(to)s"
        " WHERE (a, b) = (chr(97 + mod(%(g)s, 26)), 'w' || %(g)s) AND NOT EXISTS"
        " (SELECT FROM s.words WHERE (a, b) = (chr(97 + mod(%(to)s, 26)), 'w' || %(to)s))"
    ),
)

_LINES: tuple[LiteralString, ...] = (
    "INSERT INTO s.lines VALUES (%(own)s, 'new ' || %(few)s, 1), (%(own)s, 'new ' || %(few)s, 1)",
    "DELETE FROM s.lines WHERE ctid = (SELECT min(ctid) FROM s.lines WHERE a = %(own)s)",
    "UPDATE s.lines SET c = c + 1 WHERE ctid = (SELECT max(ctid) FROM s.lines WHERE a = %(own)s)",
)

_MANY: LiteralString = (
    "UPDATE s.wide SET n = n - 1 WHERE id BETWEEN %(g)s AND %(g)s + 1000 AND mod(id, 10) = %(own)s"
)


class Writer:
    """One connection; its rows are nobody else's, so it neither waits nor deadlocks."""

    def __init__(self, dsn: str, number: int, seed: int) -> None:
        self.committed = 0
        self._own = number + 1
        self._random = random.Random(f"{seed}/{number}")
        self._conn = psycopg.connect(dsn)

    def transaction(self) -> None:
        """Do one of random kind; one in thirty is rolled back."""
        kinds: dict[Callable[[], None], int] = {
            self._change: 60, self._toggle: 15, self._again: 5, self._move: 8, self._line: 8,
            self._savepoint: 2, self._many: 1, self._mixed: 1,
        }  # fmt: skip
        self._random.choices(list(kinds), list(kinds.values()))[0]()
        if self._random.random() < 1 / 30:
            self._conn.rollback()
        else:
            self._conn.commit()
            self.committed += 1

    def close(self) -> None:
        self._conn.close()

    def _do(self, statement: LiteralString, **given: int) -> int:
        values = {"own": self._own, "few": self._row(FEW), "g": self._row(TENS), **given}
        return self._conn.execute(statement, values).rowcount

    def _row(self, tens: int) -> int:
        within = _WARM if self._random.random() < 1 / 3 else tens
        return self._random.randrange(1, min(within, tens) + 1) * 10 + self._own

    def _change(self) -> None:
        for _ in range(self._random.randrange(1, 4)):
            self._do(self._random.choice(_CHANGES))

    def _toggle(self) -> None:
        at = self._random.randrange(len(_DELETES))
        g = self._row(TENS)
        if not self._do(_DELETES[at], g=g):
            self._do(_INSERTS[at], g=g)

    def _again(self) -> None:
        at = self._random.randrange(len(_DELETES))
        g = self._row(TENS)
        self._do(_DELETES[at], g=g)
        self._do(_INSERTS[at], g=g)
        self._do(_CHANGES[0], g=g)

    def _move(self) -> None:
        here = self._row(TENS)
        there = here + 3
        move = self._random.choice(_MOVES)
        if not self._do(move, g=there, to=here):
            self._do(move, g=here, to=there)

    def _line(self) -> None:
        for _ in range(self._random.randrange(1, 3)):
            self._do(self._random.choice(_LINES))

    def _savepoint(self) -> None:
        self._change()
        with self._conn.transaction() as inner:
            self._toggle()
            raise psycopg.Rollback(inner)
        self._change()

    def _many(self) -> None:
        self._do(_MANY)

    def _mixed(self) -> None:
        for _ in range(self._random.randrange(3, 12)):
            self._random.choice((self._change, self._toggle, self._again, self._move, self._line))()


class Traffic:
    """All of the writers, at `rate` transactions a second together, a fifth of them on one row."""

    def __init__(self, dsn: str, rate: float, seed: int) -> None:
        self._dsn, self._rate, self._seed = dsn, rate, seed
        self._troubles: list[BaseException] = []
        self._hot = 0
        self.stop = threading.Event()

    def write(self) -> dict[str, Any]:
        """Write until stopped; return how many transactions were committed in how many seconds."""
        began = time.monotonic()
        hot_rate = min(_HOT, self._rate / 4)
        writers = [Writer(self._dsn, number, self._seed) for number in range(WRITERS)]
        each = (self._rate - hot_rate) / WRITERS
        threads = [
            threading.Thread(target=self._guard, args=[self._paced, each, one.transaction])
            for one in writers
        ]
        threads.append(threading.Thread(target=self._guard, args=[self._one_row, hot_rate]))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - began
        for one in writers:
            one.close()
        if self._troubles:
            raise self._troubles[0]
        committed = sum(one.committed for one in writers) + self._hot
        return {"transactions": committed, "of_one_row": self._hot, "seconds": seconds}

    def _one_row(self, rate: float) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as conn:

            def again() -> None:
                conn.execute("UPDATE s.counter SET n = n + 1 WHERE id = 1")
                self._hot += 1

            self._paced(rate, again)

    def _paced(self, rate: float, once: Callable[[], None]) -> None:
        began = time.monotonic()
        done = 0
        while not self.stop.wait(max(0.0, began + done / rate - time.monotonic())):
            once()
            done += 1

    def _guard(self, work: Callable[..., None], *args: Any) -> None:
        try:
            work(*args)
        except BaseException as trouble:
            self._troubles.append(trouble)
            self.stop.set()
            raise


def main() -> None:
    """Write, then print what was done as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    said = parser.parse_args()
    traffic = Traffic(said.dsn, said.rate, said.seed)
    signal.signal(signal.SIGTERM, lambda *_: traffic.stop.set())
    print(json.dumps({"writing": True}), flush=True)
    print(json.dumps(traffic.write()))


if __name__ == "__main__":
    main()
