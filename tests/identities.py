"""Random transactions on tables whose rows are addressed by something else than a primary key.

Imports nothing of the package under test.
"""

from __future__ import annotations

from typing import LiteralString

from writer import WRITERS, Kind, Writer

TABLES: LiteralString = """
    CREATE TABLE w.marks (writer int, word text, n numeric, large text);
    ALTER TABLE w.marks ALTER large SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
    CREATE TABLE w.codes (
        id int PRIMARY KEY, code text NOT NULL CONSTRAINT code UNIQUE, v text, large text);
    ALTER TABLE w.codes ALTER large SET STORAGE EXTERNAL, REPLICA IDENTITY USING INDEX code;
"""

#: Every table that holds rows.
NAMES = ("w.marks", "w.codes")


def marks(w: Writer) -> None:
    """Rows without any key, many of them equal: one of them changes or goes, or all do."""
    word = w.random.choice(["yes", "no", None])
    match w.below(6):
        case 0 | 1 | 2:
            w.do(
                "INSERT INTO w.marks SELECT %s, %s, %s, %s FROM generate_series(1, %s)",
                w.number, word, w.random.choice((1, 1, "1.0", None)),
                w.random.choice((None, "x" * 3000)), 1 + w.below(3),
            )  # fmt: skip
        case 3:
            w.do(
                "DELETE FROM w.marks WHERE ctid IN (SELECT ctid FROM w.marks WHERE writer = %s"
                " AND word IS NOT DISTINCT FROM %s LIMIT 2)", w.number, word,
            )  # fmt: skip
        case 4:
            w.do(
                "UPDATE w.marks SET n = n + 1 WHERE ctid = (SELECT ctid FROM w.marks"
                " WHERE writer = %s AND word IS NOT DISTINCT FROM %s LIMIT 1)", w.number, word,
            )  # fmt: skip
        case _:
            w.do("UPDATE w.marks SET word = %s WHERE writer = %s AND n = 2", word, w.number)
            w.do("DELETE FROM w.marks WHERE writer = %s AND n >= 2", w.number)


def codes(w: Writer) -> None:
    """Rows addressed by a unique index that is not the primary key: either may change."""
    key = w.below(30) * WRITERS + w.number
    match w.below(5):
        case 0 | 1:
            w.do(
                "INSERT INTO w.codes VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (id) DO UPDATE SET v = excluded.v",
                key, f"{w.number} {w.text(8)} {w.below(1 << 60)}", w.text(3),
                w.text(w.random.choice((3, 3000))),
            )  # fmt: skip
        case 2:  # the address changes, a large value stays
            w.do(
                "UPDATE w.codes SET code = code || '+', v = NULL WHERE id = %s", key
            )  # fmt: skip
        case 3:  # the primary key changes, which is only a column to the replica
            w.do(
                "UPDATE w.codes SET id = %s WHERE id = %s AND NOT EXISTS"
                " (SELECT FROM w.codes WHERE id = %s)",
                key + 1000 * WRITERS, key, key + 1000 * WRITERS,
            )  # fmt: skip
        case _:
            w.do(
                "DELETE FROM w.codes WHERE id IN (%s, %s)", key, key + 1000 * WRITERS
            )  # fmt: skip


#: What is done how often, in thousandths together with the other modules'.
KINDS: dict[Kind, int] = {
    marks: 40,
    codes: 25,
}
