"""Reading a table without key: its rows as a multiset, addressed by their content.

A row's hash stands for its content. Rows are counted in buckets of hashes, in one statement: they
have no address that would let several statements see each of them exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from cdc.verify.encoding import Layout
from cdc.verify.ranges import Key
from cdc.verify.reading import Image, Row, Session

#: Rows in a bucket of hashes, about: a few that differ spoil a small part of the table, and the server
#: keeps all buckets in memory. Their number is a power of two, at least and at most so many.
_ROWS, _LEAST, _MOST = 64, 16_384, 131_072

#: Rows of a table as the planner believes; of one that was never analyzed it knows nothing.
_SIZE = sql.SQL(
    "SELECT greatest(c.reltuples, 0) FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = $1 AND c.relname = $2"
)

#: Which versions of equal rows there are, within one server. Not by md5: some servers forbid it.
_VERSIONS = sql.SQL("hashtextextended(string_agg(version, ' ' ORDER BY version), 0)::text")


class SetReader:
    """Reads one table of one end by content; a key is (hash,), an image's hash the row count."""

    def __init__(self, session: Session, layout: Layout) -> None:
        self._session = session
        self.layout = layout
        self._hashed = _hashed(layout, version=layout.version, texts=layout.texts)

    def division(self) -> int:
        """Return how many buckets the table is to be divided into, by how many rows it may have."""
        table = self.layout.table
        found = self._session.fetch(_SIZE, (table.schema, table.name))
        wanted = round(found[0][0] / _ROWS) if found else 0
        return 1 << (max(_LEAST, min(_MOST, wanted)) - 1).bit_length()

    def buckets(self, among: int) -> dict[int, tuple[int, int]]:
        """Return the number of rows and the sum of their hashes, by bucket, `among` so many."""
        found = self._session.fetch(buckets(self.layout, among), [])
        return {bucket: (rows, int(total)) for bucket, rows, total in found}

    def images(self, keys: Sequence[Key]) -> dict[Key, Image]:
        """Return how many rows of each content there are, and which versions they are."""
        return self._images(sql.SQL("h"), [int(hashed) for (hashed,) in keys])

    def within(self, buckets: Sequence[int], among: int) -> dict[Key, Image]:
        """Return the images of all contents of these buckets `among` so many."""
        return self._images(_bucket(among), list(buckets))

    def _images(self, wanted: sql.Composable, among: list[int]) -> dict[Key, Image]:
        found = self._session.fetch(
            sql.SQL(
                "SELECT h, count(*), {} FROM {} WHERE {} = ANY($1::bigint[]) GROUP BY 1"
            ).format(_VERSIONS, self._hashed, wanted),
            [among],
        )
        return {(str(hashed),): Image(rows, versions) for hashed, rows, versions in found}

    def rows(self, keys: Sequence[Key]) -> dict[Key, Row]:
        """Return one row of each content, with the image of all."""
        found = self._session.fetch(
            sql.SQL(
                "SELECT h, count(*), {}, (array_agg(texts::text ORDER BY version))[1]::text[] FROM {}"
                " WHERE h = ANY($1::bigint[]) GROUP BY 1"
            ).format(_VERSIONS, self._hashed),
            [[int(hashed) for (hashed,) in keys]],
        )
        return {
            (str(hashed),): Row(Image(rows, versions), tuple(texts))
            for hashed, rows, versions, texts in found
        }


def buckets(layout: Layout, among: int) -> sql.Composed:
    """Return the statement that counts a table's rows in buckets of their hashes, `among` so many."""
    return sql.SQL("SELECT {}, count(*), sum(h) FROM {} GROUP BY 1").format(
        _bucket(among), _hashed(layout, once=True)
    )


def _bucket(among: int) -> sql.Composed:
    return sql.SQL("h & {}").format(sql.Literal(among - 1))


def _hashed(layout: Layout, *, once: bool = False, **more: sql.Composable) -> sql.Composed:
    """Return the rows with their hash `h` and `more`, as the relation `r`.

    Each row's columns are computed where they are used: `more` for those rows only that are wanted,
    the hash as often as it is named. `once` computes all of them beforehand.
    """
    columns = {"h": layout.row_hash, **more}
    # Keeps the planner from merging it into the outer query.
    fence = sql.SQL(" OFFSET 0" if once else "")
    return sql.SQL("(SELECT {} FROM ONLY {} AS t{}) AS r").format(
        sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(value, sql.SQL(name)) for name, value in columns.items()
        ),
        layout.table.sql,
        fence,
    )
