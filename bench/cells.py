"""What the contestants apply: the tables, and the changes that are written to the primary once."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Literal, LiteralString

import psycopg
from psycopg import sql

Shape = Literal["narrow", "wide"]
Kind = Literal["insert", "update", "mixed"]
Size = Literal["large", "single"]

#: Rows of a transaction, by what it is called.
ROWS: dict[Size, int] = {"large": 10_000, "single": 1}

#: Columns besides the key, each with its value; `n` is the row's number and `v` its version.
_COLUMNS: dict[Shape, dict[LiteralString, LiteralString]] = {
    "narrow": {
        "account int NOT NULL": "(n * 7919 % 50000)::int",
        "amount numeric(12,2) NOT NULL": "n % 100000 / 7.0 + v",
        "note text": "CASE WHEN n % 5 < 3 THEN 'note ' || n || ' of version ' || v END",
        "changed timestamptz NOT NULL": "timestamptz '2024-06-01 UTC' + (n * 7 + v) * interval '0.9 s'",
    },
    "wide": {
        "customer int NOT NULL": "(n * 7919 % 50000)::int",
        "quantity smallint NOT NULL": "(n % 1000)::smallint",
        "total bigint NOT NULL": "n * 1000 + v",
        "status text NOT NULL": "(ARRAY['new', 'paid', 'sent', 'back'])[1 + (n + v) % 4]",
        "amount numeric(12,2) NOT NULL": "n % 100000 / 7.0 + v",
        "tax numeric(14,4) NOT NULL": "n % 100000 / 19.0 + v",
        "currency char(3) NOT NULL": "'EUR'",
        "placed timestamptz NOT NULL": "timestamptz '2024-01-01 UTC' + n * interval '1.234567 s'",
        "changed timestamptz NOT NULL": "timestamptz '2024-06-01 UTC' + (n * 7 + v) * interval '0.9 s'",
        "due date": "CASE WHEN n % 4 > 0 THEN date '2024-01-01' + (n % 3000)::int END",
        "seen timestamp": "CASE WHEN n % 3 > 0 THEN timestamp '2024-01-01' + n * interval '1.1 s' END",
        "note text": "CASE WHEN n % 5 < 3 THEN 'note ' || n || E'\\tof version\\n' || v END",
        "name varchar(80) NOT NULL": "'name of customer ' || n % 50000",
        "doc jsonb NOT NULL": "jsonb_build_object('source', 'web', 'n', n, 'v', v)",
        "paid boolean NOT NULL": "(n + v) % 3 = 0",
        "token uuid NOT NULL": "md5('t' || n)::uuid",
        "weight float8 NOT NULL": "n / 3.0",
        "share real NOT NULL": "(n % 1000) / 7.0",
        "digest bytea NOT NULL": "decode(md5('d' || n || ' ' || v), 'hex')",
    },
}  # fmt: skip

#: Which row the i-th change concerns: all rows once, none beside the one before.
_SCATTERED: LiteralString = "1 + i::bigint * 7919 % base"


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """A table and `events` changes to it, in transactions of one size; besides a row that is last."""

    shape: Shape
    kind: Kind
    size: Size
    events: int

    @property
    def table(self) -> str:
        return f"{self.shape}_{self.kind}_{self.size}"

    @property
    def create(self) -> sql.Composed:
        return sql.SQL("CREATE TABLE {} (id bigint PRIMARY KEY, {})").format(
            sql.Identifier(self.table), sql.SQL(", ").join(map(sql.SQL, _COLUMNS[self.shape]))
        )

    @property
    def fill(self) -> sql.Composed:
        """The rows that are there before, as many as there are changes."""
        return sql.SQL("INSERT INTO {} {}").format(
            sql.Identifier(self.table), self._rows("n", "generate_series(1::bigint, {}) n", 1)
        )

    def write(self, conn: psycopg.Connection[tuple[object, ...]]) -> None:
        """Make all changes, one statement for each; `conn` is in autocommit."""
        conn.execute("SET synchronous_commit = off")
        conn.execute(self._procedure)
        conn.execute("CALL pg_temp.change()")
        # Its version on a server tells when all was applied there.
        conn.execute(
            sql.SQL("INSERT INTO {} {}").format(
                sql.Identifier(self.table), self._rows("n", "generate_series(0::bigint, 0) n", 1)
            )
        )

    def _rows(self, number: LiteralString, source: LiteralString, version: int) -> sql.Composed:
        values = sql.SQL(", ").join(map(sql.SQL, _COLUMNS[self.shape].values()))
        return sql.SQL("SELECT {}, {} FROM (SELECT n, {}::int AS v FROM {}) r").format(
            sql.SQL(number), values, sql.Literal(version), sql.SQL(source).format(self.events)
        )

    @property
    def _procedure(self) -> sql.Composed:
        insert = sql.SQL("INSERT INTO {} {};").format(
            sql.Identifier(self.table), self._rows("n", "(SELECT base + i AS n) m", 2)
        )
        changed = {d: e for d, e in _COLUMNS[self.shape].items() if "|| v" in e or " v" in e}
        update = sql.SQL("UPDATE {} SET {} FROM (SELECT {} AS n, 2 AS v) r WHERE id = n;").format(
            sql.Identifier(self.table),
            sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(d.split()[0]), sql.SQL(e))
                for d, e in changed.items()
            ),
            sql.SQL(_SCATTERED),
        )
        delete = sql.SQL("DELETE FROM {} WHERE id = {};").format(
            sql.Identifier(self.table), sql.SQL(_SCATTERED)
        )
        body = {
            "insert": insert,
            "update": update,
            "mixed": sql.SQL("CASE i % 4 WHEN 0 THEN {} WHEN 3 THEN {} ELSE {} END CASE;").format(
                insert, delete, update
            ),
        }[self.kind]
        return sql.SQL(
            "CREATE OR REPLACE PROCEDURE pg_temp.change() LANGUAGE plpgsql AS $do$"
            " DECLARE base CONSTANT bigint := {};"
            " BEGIN FOR i IN 1..base LOOP {} IF i % {} = 0 THEN COMMIT; END IF; END LOOP; COMMIT;"
            " END $do$"
        ).format(sql.Literal(self.events), body, sql.Literal(ROWS[self.size]))


def cells(large: int, single: int) -> list[Cell]:
    """Return all, the six of large transactions first; so many changes in each."""
    shapes: tuple[Shape, ...] = ("narrow", "wide")
    kinds: tuple[Kind, ...] = ("insert", "update", "mixed")
    return [
        *(Cell(s, k, "large", large) for s, k in itertools.product(shapes, kinds)),
        *(Cell(s, k, "single", single) for s, k in itertools.product(shapes, kinds) if single),
    ]
