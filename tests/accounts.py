"""Three tables whose amounts add up to the same after every transaction: a torn one shows.

Imports nothing of the package under test.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import LiteralString

from writer import WRITERS, Kind, Writer

#: What all amounts of the three tables add up to.
TOTAL = 3 * 40 * 1000

TABLES: LiteralString = """
    CREATE TABLE w.cash (id int PRIMARY KEY, amount bigint NOT NULL);
    CREATE TABLE w.bank (iban text PRIMARY KEY, amount numeric(20, 2) NOT NULL, note text);
    CREATE TABLE w.bonds (holder uuid, series int, amount int NOT NULL, PRIMARY KEY (holder, series));
    CREATE TABLE w.log (id uuid PRIMARY KEY, at timestamptz DEFAULT clock_timestamp(), line text);
    INSERT INTO w.cash SELECT i, 1000 FROM generate_series(1, 40) i;
    INSERT INTO w.bank SELECT 'w' || i % 5 || '-' || i, 1000, NULL FROM generate_series(1, 40) i;
    INSERT INTO w.bonds SELECT md5((i % 5)::text)::uuid, i, 1000 FROM generate_series(1, 40) i;
"""

#: Every table that holds rows.
NAMES = ("w.cash", "w.bank", "w.bonds", "w.log")

#: One statement, so one snapshot.
SUMS: LiteralString = """
    SELECT (SELECT coalesce(sum(amount), 0) FROM w.cash)::bigint,
           (SELECT coalesce(sum(amount), 0) FROM w.bank)::bigint,
           (SELECT coalesce(sum(amount), 0) FROM w.bonds)::bigint
"""


def add(w: Writer, table: str, amount: int) -> None:
    """Add to a random account of ours; open one where there is none."""
    match table:
        case "cash":
            found = w.do(
                "UPDATE w.cash SET amount = amount + %s WHERE id = (SELECT id FROM w.cash"
                " WHERE id %% 5 = %s ORDER BY random() LIMIT 1) RETURNING 1",
                amount, w.number,
            )  # fmt: skip
        case "bank":
            found = w.do(
                "UPDATE w.bank SET amount = amount + %s, note = %s WHERE iban = (SELECT iban"
                " FROM w.bank WHERE iban LIKE %s ORDER BY random() LIMIT 1) RETURNING 1",
                amount, w.text(20), f"w{w.number}-%",
            )  # fmt: skip
        case _:
            found = w.do(
                "UPDATE w.bonds SET amount = amount + %s WHERE (holder, series) = (SELECT holder,"
                " series FROM w.bonds WHERE holder = %s ORDER BY random() LIMIT 1) RETURNING 1",
                amount, _holder(w),
            )  # fmt: skip
    if not found:
        open_account(w, table, amount)


def open_account(w: Writer, table: str, amount: int) -> None:
    """Open an account with so much in it."""
    number = w.below(1 << 28)
    match table:
        case "cash":
            key = number * WRITERS + w.number
            w.do("INSERT INTO w.cash VALUES (%s, %s)", key, amount)
        case "bank":
            iban = f"w{w.number}-{w.text(9)}{number}"
            w.do("INSERT INTO w.bank VALUES (%s, %s)", iban, amount)
        case _:
            w.do("INSERT INTO w.bonds VALUES (%s, %s, %s)", _holder(w), number, amount)


def transfer(w: Writer) -> None:
    tables = w.random.sample(["cash", "bank", "bonds"], w.random.choice((2, 2, 3)))
    left = 0
    for table in tables[:-1]:
        amount = w.random.randrange(-500, 500) or 1
        add(w, table, amount)
        left -= amount
        if w.random.random() < 0.3:
            note(w, "transfer")
    add(w, tables[-1], left)


def move_account(w: Writer) -> None:
    """Close one account and pay what was in it into another table."""
    match w.below(3):
        case 0:
            gone = w.do(
                "DELETE FROM w.cash WHERE id = (SELECT id FROM w.cash WHERE id %% 5 = %s"
                " ORDER BY random() LIMIT 1) RETURNING amount", w.number,
            )  # fmt: skip
            target = "bank"
        case 1:
            gone = w.do(
                "DELETE FROM w.bank WHERE iban = (SELECT iban FROM w.bank WHERE iban LIKE %s"
                " ORDER BY random() LIMIT 1) RETURNING amount::bigint", f"w{w.number}-%",
            )  # fmt: skip
            target = "bonds"
        case _:
            gone = w.do(
                "DELETE FROM w.bonds WHERE (holder, series) = (SELECT holder, series FROM w.bonds"
                " WHERE holder = %s ORDER BY random() LIMIT 1) RETURNING amount", _holder(w),
            )  # fmt: skip
            target = "cash"
    if gone:
        open_account(w, target, int(gone[0][0]) - 5)
        add(w, "cash", 5)


def rename_account(w: Writer) -> None:
    """Change the key of an account, maybe together with its amount."""
    more = w.random.choice((0, 7))
    add(w, "cash", -more)
    renamed = w.do(
        "UPDATE w.bonds SET series = %s, amount = amount + %s WHERE (holder, series) = (SELECT"
        " holder, series FROM w.bonds WHERE holder = %s ORDER BY random() LIMIT 1) RETURNING 1",
        w.below(1 << 30), more, _holder(w),
    )  # fmt: skip
    if not renamed:
        add(w, "bank", more)


def bulk(w: Writer) -> None:
    """Write many rows, and a little of the money before and after them."""
    add(w, "bank", 3)
    w.do("INSERT INTO w.log SELECT gen_random_uuid(), now(), i FROM generate_series(1, 300) i")
    add(w, "cash", -3)


def load(w: Writer) -> None:
    """Write more rows than a batch takes, by COPY: a reader must not see the money half moved."""
    add(w, "bonds", -9)
    lines = [f"{uuid.UUID(int=w.random.getrandbits(128))}\tline {i}\n" for i in range(3000)]
    w.copy("COPY w.log (id, line) FROM STDIN", "".join(lines))
    add(w, "cash", 9)


def empty_log(w: Writer) -> None:
    w.do("TRUNCATE w.log")
    note(w, "emptied")


def in_vain(w: Writer) -> None:
    """Write in vain, wholly or down to a savepoint."""
    add(w, "cash", 1)
    if w.random.random() < 0.5:
        w.rollback()
        return
    w.do("SAVEPOINT s")
    add(w, "bank", 100)
    w.do("ROLLBACK TO s")
    add(w, "bonds", -1)


def lend(w: Writer) -> None:
    """Move money without touching what others wait for; fit for a transaction that stays open."""
    add(w, "bank", -2)
    add(w, "bonds", 2)


def note(w: Writer, line: str) -> None:
    w.do(
        "INSERT INTO w.log VALUES (%s, DEFAULT, %s)",
        uuid.UUID(int=w.random.getrandbits(128)), line,
    )  # fmt: skip


def _holder(w: Writer) -> uuid.UUID:
    """Return md5 of the writer's number, as TABLES made it."""
    return uuid.UUID(hashlib.md5(str(w.number).encode()).hexdigest())


#: What is done how often, in thousandths together with the other modules'.
KINDS: dict[Kind, int] = {
    transfer: 300,
    move_account: 100,
    rename_account: 60,
    bulk: 6,
    load: 1,
    empty_log: 3,
    in_vain: 30,
}
