"""A small shop with accounts: its tables, its first rows, and what happens in it all day."""

from __future__ import annotations

import random
import uuid
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[Any]

CUSTOMERS, PRODUCTS, ORDERS = 5_000, 500, 40_000

SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.customers (
    customer_id bigint PRIMARY KEY,
    email       text NOT NULL UNIQUE,
    profile     jsonb NOT NULL,
    notes       text,
    joined_at   timestamptz NOT NULL
);
CREATE TABLE shop.accounts (
    account_id bigint PRIMARY KEY REFERENCES shop.customers,
    balance    numeric(14, 2) NOT NULL
);
CREATE TABLE shop.transfers (
    transfer_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payer       bigint NOT NULL REFERENCES shop.accounts,
    payee       bigint NOT NULL REFERENCES shop.accounts,
    amount      numeric(14, 2) NOT NULL CHECK (amount > 0),
    moved_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE shop.products (
    sku        text PRIMARY KEY,
    price      numeric(10, 2) NOT NULL,
    stock      integer NOT NULL,
    attributes jsonb NOT NULL
);
CREATE TABLE shop.orders (
    order_id    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    customer_id bigint NOT NULL REFERENCES shop.customers,
    status      text NOT NULL DEFAULT 'placed',
    placed_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE shop.order_lines (
    order_id uuid NOT NULL REFERENCES shop.orders ON DELETE CASCADE,
    line     smallint NOT NULL,
    sku      text NOT NULL REFERENCES shop.products,
    quantity integer NOT NULL,
    price    numeric(10, 2) NOT NULL,
    PRIMARY KEY (order_id, line)
);
"""

# The notes of every tenth customer are long enough to be stored out of line (TOAST).
_FIRST_ROWS = """
INSERT INTO shop.customers
SELECT n, 'customer' || n || '@example.org',
       jsonb_build_object('tier', n % 4, 'tags', jsonb_build_array('a' || n % 7, 'b' || n % 5)),
       CASE WHEN n % 10 = 0 THEN (SELECT string_agg(md5((n * 131 + i)::text), ' ')
                                  FROM generate_series(1, 100) i) END,
       timestamptz '2024-01-01 00:00Z' + n * interval '1 hour'
FROM generate_series(1, {customers}) n;
INSERT INTO shop.accounts SELECT n, 1000 FROM generate_series(1, {customers}) n;
INSERT INTO shop.products
SELECT 'SKU-' || lpad(n::text, 5, '0'), 1 + (n * 37 % 9900) / 100.0, 100000,
       jsonb_build_object('colour', (ARRAY['red', 'blue', 'grün', 'weiß'])[1 + n % 4], 'grams', n)
FROM generate_series(1, {products}) n;
WITH placed AS (
    INSERT INTO shop.orders (customer_id, placed_at)
    SELECT 1 + n * 7919 % {customers}, timestamptz '2025-01-01 00:00Z' + n * interval '7 min'
    FROM generate_series(1, {orders}) n RETURNING order_id, customer_id
)
INSERT INTO shop.order_lines
SELECT order_id, line, 'SKU-' || lpad((1 + (customer_id * line) % {products})::text, 5, '0'),
       1 + line % 3, 9.90 + line
FROM placed, generate_series(1, 2 + customer_id % 3) line;
"""


def open_shop(conn: Connection) -> int:
    """Create the tables and their first rows; return the number of rows."""
    with conn.transaction():
        conn.execute(SCHEMA)
        conn.execute(
            _FIRST_ROWS.format(customers=CUSTOMERS, products=PRODUCTS, orders=ORDERS).encode()
        )
    row = conn.execute(
        "SELECT (SELECT count(*) FROM shop.customers) + (SELECT count(*) FROM shop.accounts)"
        " + (SELECT count(*) FROM shop.products) + (SELECT count(*) FROM shop.orders)"
        " + (SELECT count(*) FROM shop.order_lines)"
    ).fetchone()
    assert row is not None
    return int(row[0])


def visit(conn: Connection, dice: random.Random) -> None:
    """Do one transaction: an order, a transfer, a shipment, a cancellation or a change of mind."""
    (act,) = dice.choices(
        (_order, _transfer, _ship, _cancel, _profile, _renamed), (40, 35, 15, 5, 4, 1)
    )
    with conn.transaction():
        act(conn, dice)


def _order(conn: Connection, dice: random.Random) -> None:
    # Rows are always taken in the order of their keys, so that writers cannot deadlock.
    skus = sorted(
        f"SKU-{n:05}" for n in dice.sample(range(1, PRODUCTS + 1), dice.choice((1, 2, 3)))
    )
    row = conn.execute(
        "INSERT INTO shop.orders (customer_id) VALUES (%s) RETURNING order_id",
        [dice.randint(1, CUSTOMERS)],
    ).fetchone()
    assert row is not None
    for line, sku in enumerate(skus, 1):
        conn.execute(
            "WITH taken AS (UPDATE shop.products SET stock = stock - %(quantity)s"
            " WHERE sku = %(sku)s RETURNING price)"
            " INSERT INTO shop.order_lines SELECT %(order)s, %(line)s, %(sku)s, %(quantity)s, price"
            " FROM taken",
            {"quantity": dice.randint(1, 3), "sku": sku, "order": row[0], "line": line},
        )


def _transfer(conn: Connection, dice: random.Random) -> None:
    payer, payee = dice.sample(range(1, CUSTOMERS + 1), 2)
    amount = dice.randint(1, 9_999) / 100
    for account in sorted((payer, payee)):
        conn.execute(
            "UPDATE shop.accounts SET balance = balance + %s::numeric(14, 2) WHERE account_id = %s",
            [amount if account == payee else -amount, account],
        )
    conn.execute(
        "INSERT INTO shop.transfers (payer, payee, amount) VALUES (%s, %s, %s)",
        [payer, payee, amount],
    )


def _ship(conn: Connection, dice: random.Random) -> None:
    if order := _some_order(conn, dice):
        conn.execute("UPDATE shop.orders SET status = 'shipped' WHERE order_id = %s", [order])


def _cancel(conn: Connection, dice: random.Random) -> None:
    if order := _some_order(conn, dice):
        conn.execute("DELETE FROM shop.orders WHERE order_id = %s", [order])


def _profile(conn: Connection, dice: random.Random) -> None:
    conn.execute(
        "UPDATE shop.customers SET profile = profile || %s WHERE customer_id = %s",
        [Jsonb({"tier": dice.randint(0, 9), "seen": dice.random()}), dice.randint(1, CUSTOMERS)],
    )


def _renamed(conn: Connection, dice: random.Random) -> None:
    """Change a primary key."""
    if order := _some_order(conn, dice):
        conn.execute(
            "UPDATE shop.order_lines SET line = line + 100 WHERE order_id = %(order)s AND line ="
            " (SELECT max(line) FROM shop.order_lines WHERE order_id = %(order)s) AND line < 1000",
            {"order": order},
        )


def _some_order(conn: Connection, dice: random.Random) -> uuid.UUID | None:
    """Lock the first order that nobody works on from a random point on: cheap by the key's index."""
    row = conn.execute(
        "SELECT order_id FROM shop.orders WHERE order_id >= %s ORDER BY order_id LIMIT 1"
        " FOR UPDATE SKIP LOCKED",
        [uuid.UUID(int=dice.getrandbits(128))],
    ).fetchone()
    return None if row is None else row[0]
