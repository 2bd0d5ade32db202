"""Random writes to a primary, and a reader that looks for torn transactions on a replica.

Run as programs of their own (`python workload.py write …`, `… watch …`), so that they take no time
from each other. Imports nothing of the package under test.

Three tables hold amounts whose sum no transaction changes; the others are of many shapes.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg

#: What all amounts of the three tables add up to.
TOTAL = 3 * 40 * 1000

TABLES: LiteralString = """
    CREATE SCHEMA w;
    CREATE TABLE w.cash (id int PRIMARY KEY, amount bigint NOT NULL);
    CREATE TABLE w.bank (iban text PRIMARY KEY, amount numeric(20, 2) NOT NULL, note text);
    CREATE TABLE w.bonds (holder uuid, series int, amount int NOT NULL, PRIMARY KEY (holder, series));
    CREATE TABLE w.docs (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, writer int NOT NULL, title text UNIQUE,
        body text, tags text[], data jsonb, length int GENERATED ALWAYS AS (length(body)) STORED);
    ALTER TABLE w.docs ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE w.events (id int, region text, v numeric, PRIMARY KEY (id, region))
        PARTITION BY LIST (region);
    CREATE TABLE w.events_a PARTITION OF w.events FOR VALUES IN ('a');
    CREATE TABLE w.events_b PARTITION OF w.events FOR VALUES IN ('b');
    CREATE TABLE w.events_rest PARTITION OF w.events DEFAULT;
    CREATE TABLE w."Order Lines" ("order" int, line int, "the text" text, PRIMARY KEY ("order", line));
    ALTER TABLE w."Order Lines" REPLICA IDENTITY FULL;
    CREATE TABLE w.log (id uuid PRIMARY KEY, at timestamptz DEFAULT clock_timestamp(), line text);
    INSERT INTO w.cash SELECT i, 1000 FROM generate_series(1, 40) i;
    INSERT INTO w.bank SELECT 'w' || i % 4 || '-' || i, 1000, NULL FROM generate_series(1, 40) i;
    INSERT INTO w.bonds SELECT md5((i % 4)::text)::uuid, i, 1000 FROM generate_series(1, 40) i;
"""

#: Every table that holds rows.
NAMES = (
    "w.cash", "w.bank", "w.bonds", "w.docs", "w.events_a", "w.events_b", "w.events_rest",
    'w."Order Lines"', "w.log",
)  # fmt: skip

#: One statement, so one snapshot.
_SUMS: LiteralString = """
    SELECT (SELECT coalesce(sum(amount), 0) FROM w.cash)::bigint,
           (SELECT coalesce(sum(amount), 0) FROM w.bank)::bigint,
           (SELECT coalesce(sum(amount), 0) FROM w.bonds)::bigint
"""

#: Connections that write; each has rows of its own, so they do not deadlock.
WRITERS = 4


class Writer:
    """One connection's random transactions."""

    def __init__(self, dsn: str, number: int, seed: int) -> None:
        self._conn = psycopg.connect(dsn)
        self._number = number
        self._random = random.Random(f"{seed}/{number}")
        kinds: dict[Callable[[], None], int] = {
            self._transfer: 40,
            self._move_account: 12,
            self._rename_account: 8,
            self._documents: 15,
            self._events: 10,
            self._lines: 10,
            self._bulk: 2,
            self._empty_log: 1,
            self._undone: 4,
        }
        self._kinds, self._weights = list(kinds), list(kinds.values())

    def transaction(self) -> None:
        """Do one random transaction."""
        self._random.choices(self._kinds, self._weights)[0]()
        self._conn.commit()

    def close(self) -> None:
        self._conn.close()

    def _do(self, statement: LiteralString, *params: Any) -> list[tuple[Any, ...]]:
        cursor = self._conn.execute(statement, params or None)
        return cursor.fetchall() if cursor.description else []

    def _add(self, table: str, amount: int) -> None:
        """Add to a random account of ours; open one where there is none."""
        match table:
            case "cash":
                found = self._do(
                    "UPDATE w.cash SET amount = amount + %s WHERE id = (SELECT id FROM w.cash"
                    " WHERE id %% 4 = %s ORDER BY random() LIMIT 1) RETURNING 1",
                    amount, self._number,
                )  # fmt: skip
            case "bank":
                found = self._do(
                    "UPDATE w.bank SET amount = amount + %s, note = %s WHERE iban = (SELECT iban"
                    " FROM w.bank WHERE iban LIKE %s ORDER BY random() LIMIT 1) RETURNING 1",
                    amount, self._text(20), f"w{self._number}-%",
                )  # fmt: skip
            case _:
                found = self._do(
                    "UPDATE w.bonds SET amount = amount + %s WHERE (holder, series) = (SELECT holder,"
                    " series FROM w.bonds WHERE holder = %s ORDER BY random() LIMIT 1) RETURNING 1",
                    amount, self._holder,
                )  # fmt: skip
        if not found:
            self._open(table, amount)

    def _open(self, table: str, amount: int) -> None:
        """Open an account with so much in it."""
        number = self._random.randrange(1 << 28)
        match table:
            case "cash":
                key = number * WRITERS + self._number
                self._do("INSERT INTO w.cash VALUES (%s, %s)", key, amount)
            case "bank":
                iban = f"w{self._number}-{self._text(9)}{number}"
                self._do("INSERT INTO w.bank VALUES (%s, %s)", iban, amount)
            case _:
                self._do("INSERT INTO w.bonds VALUES (%s, %s, %s)", self._holder, number, amount)

    def _transfer(self) -> None:
        tables = self._random.sample(["cash", "bank", "bonds"], self._random.choice((2, 2, 3)))
        left = 0
        for table in tables[:-1]:
            amount = self._random.randrange(-500, 500) or 1
            self._add(table, amount)
            left -= amount
            if self._random.random() < 0.3:
                self._note("transfer")
        self._add(tables[-1], left)

    def _move_account(self) -> None:
        """Close one account and pay what was in it into another table."""
        match self._random.randrange(3):
            case 0:
                gone = self._do(
                    "DELETE FROM w.cash WHERE id = (SELECT id FROM w.cash WHERE id %% 4 = %s"
                    " ORDER BY random() LIMIT 1) RETURNING amount", self._number,
                )  # fmt: skip
                target = "bank"
            case 1:
                gone = self._do(
                    "DELETE FROM w.bank WHERE iban = (SELECT iban FROM w.bank WHERE iban LIKE %s"
                    " ORDER BY random() LIMIT 1) RETURNING amount::bigint", f"w{self._number}-%",
                )  # fmt: skip
                target = "bonds"
            case _:
                gone = self._do(
                    "DELETE FROM w.bonds WHERE (holder, series) = (SELECT holder, series FROM w.bonds"
                    " WHERE holder = %s ORDER BY random() LIMIT 1) RETURNING amount", self._holder,
                )  # fmt: skip
                target = "cash"
        if gone:
            self._open(target, int(gone[0][0]) - 5)
            self._add("cash", 5)

    def _rename_account(self) -> None:
        """Change the key of an account, maybe together with its amount."""
        more = self._random.choice((0, 7))
        self._add("cash", -more)
        renamed = self._do(
            "UPDATE w.bonds SET series = %s, amount = amount + %s WHERE (holder, series) = (SELECT"
            " holder, series FROM w.bonds WHERE holder = %s ORDER BY random() LIMIT 1) RETURNING 1",
            self._random.randrange(1 << 30), more, self._holder,
        )  # fmt: skip
        if not renamed:
            self._add("bank", more)

    def _documents(self) -> None:
        match self._random.randrange(5):
            case 0 | 1:
                self._do(
                    "INSERT INTO w.docs (writer, title, body, tags, data) VALUES (%s, %s, %s, %s, %s)",
                    self._number, self._text(16), self._text(self._random.choice((0, 50, 9000))),
                    [self._text(3), None], json.dumps({"n": self._random.random()}),
                )  # fmt: skip
            case 2:  # a large body stays as it is
                self._do(
                    "UPDATE w.docs SET tags = array_append(tags, %s), data = NULL WHERE writer = %s AND id %% 5 = %s",
                    self._text(4), self._number, self._random.randrange(5),
                )  # fmt: skip
            case 3:
                self._do(
                    "UPDATE w.docs SET body = %s WHERE writer = %s AND id %% 7 = %s",
                    self._text(5000), self._number, self._random.randrange(7),
                )  # fmt: skip
            case _:
                self._do(
                    "DELETE FROM w.docs WHERE writer = %s AND id %% 3 = %s",
                    self._number, self._random.randrange(3),
                )  # fmt: skip

    def _events(self) -> None:
        key = self._random.randrange(100) * WRITERS + self._number
        match self._random.randrange(3):
            case 0:
                self._do(
                    "INSERT INTO w.events VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                    key, self._random.choice("abc"), self._random.randrange(10**9) / 100,
                )  # fmt: skip
            case 1:
                region = self._random.choice("abcd")
                self._do("DELETE FROM w.events WHERE id = %s AND region = %s", key, region)
                self._do(
                    "UPDATE w.events SET region = %s WHERE (id, region) = (SELECT id, region"
                    " FROM w.events WHERE id %% 4 = %s ORDER BY id LIMIT 1) AND NOT EXISTS"
                    " (SELECT FROM w.events AS e WHERE e.id = events.id AND e.region = %s)",
                    region, self._number, region,
                )  # fmt: skip
            case _:
                self._do(
                    "UPDATE w.events SET v = v + 1 WHERE id %% 4 = %s AND id < 40", self._number
                )

    def _lines(self) -> None:
        order = self._random.randrange(30) * WRITERS + self._number
        self._do('DELETE FROM w."Order Lines" WHERE "order" = %s AND line > 3', order)
        for line in range(self._random.randrange(1, 6)):
            self._do(
                'INSERT INTO w."Order Lines" VALUES (%s, %s, %s)'
                ' ON CONFLICT ("order", line) DO UPDATE SET "the text" = excluded."the text"',
                order, line, self._text(10),
            )  # fmt: skip

    def _bulk(self) -> None:
        self._do(
            "INSERT INTO w.log SELECT gen_random_uuid(), now(), i FROM generate_series(1, 300) i"
        )
        self._add("bank", 3)
        self._add("cash", -3)

    def _empty_log(self) -> None:
        self._do("TRUNCATE w.log")
        self._note("emptied")

    def _undone(self) -> None:
        """Write in vain, wholly or down to a savepoint."""
        self._add("cash", 1)
        if self._random.random() < 0.5:
            self._conn.rollback()
            return
        self._do("SAVEPOINT s")
        self._add("bank", 100)
        self._do("ROLLBACK TO s")
        self._add("bonds", -1)

    def _note(self, line: str) -> None:
        self._do(
            "INSERT INTO w.log VALUES (%s, DEFAULT, %s)",
            uuid.UUID(int=self._random.getrandbits(128)),
            line,
        )

    @property
    def _holder(self) -> str:
        """Return md5 of our number, as TABLES made it."""
        return (
            "cfcd2084-95d5-65ef-66e7-dff9f98764da", "c4ca4238-a0b9-2382-0dcc-509a6f75849b",
            "c81e728d-9d4c-2f63-6f06-7f89cc14862c", "eccbc87e-4b5c-e2fe-2830-8fd9f2a7baf3",
        )[self._number]  # fmt: skip

    def _text(self, length: int) -> str:
        return "".join(self._random.choices("abcdefgh äß🐘\\\t\n'\"%", k=length))


def write(dsn: str, transactions: int, rate: float, seed: int) -> dict[str, float]:
    """Do so many transactions, at most `rate` per second; return how many and in how long."""
    began = time.monotonic()
    troubles: list[BaseException] = []

    def work(number: int) -> None:
        try:
            writer = Writer(dsn, number, seed)
            for done in range(transactions // WRITERS):
                time.sleep(max(0.0, began + done * WRITERS / rate - time.monotonic()))
                writer.transaction()
            writer.close()
        except BaseException as trouble:
            troubles.append(trouble)
            raise

    threads = [threading.Thread(target=work, args=[n]) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if troubles:
        raise troubles[0]
    return {"transactions": transactions // WRITERS * WRITERS, "seconds": time.monotonic() - began}


def watch(dsn: str, samples: int, until_torn: bool) -> dict[str, Any]:
    """Read the three sums in one snapshot, `samples` times or until SIGTERM.

    Return the samples, how many states were seen, and the torn ones; with `until_torn` stop at the
    first of these.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    seen = states = 0
    last: tuple[Any, ...] = ()
    torn: list[tuple[int, tuple[Any, ...]]] = []
    with psycopg.connect(dsn, autocommit=True) as replica:
        print(json.dumps({"watching": True}), flush=True)
        began = time.monotonic()
        cursor = replica.cursor()
        while seen < samples and not stop.is_set() and not (torn and until_torn):
            sums = cursor.execute(_SUMS, prepare=True).fetchone() or ()
            seen += 1
            states += sums != last
            last = sums
            if sum(sums) != TOTAL:
                torn.append((seen, sums))
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
    writing.add_argument("--transactions", type=int, required=True)
    writing.add_argument("--rate", type=float, required=True)
    writing.add_argument("--seed", type=int, required=True)
    watching = commands.add_parser("watch")
    watching.add_argument("--dsn", required=True)
    watching.add_argument("--samples", type=int, default=1 << 60)
    watching.add_argument("--until-torn", action="store_true")
    said = parser.parse_args()
    if said.command == "write":
        print(json.dumps(write(said.dsn, said.transactions, said.rate, said.seed)))
    else:
        print(json.dumps(watch(said.dsn, said.samples, said.until_torn)))


if __name__ == "__main__":
    main()
