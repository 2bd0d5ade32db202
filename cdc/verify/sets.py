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

#: Buckets of hashes, a power of two.
_BUCKETS = 16384

#: Which versions of equal rows there are, within one server. Not by md5: some servers forbid it.
_VERSIONS = sql.SQL("hashtextextended(string_agg(version, ' ' ORDER BY version), 0)::text")


class SetReader:
    """Reads one table of one end by content; a key is (hash,), an image's hash the row count."""

    def __init__(self, session: Session, layout: Layout) -> None:
        self._session = session
        self.layout = layout
        self._hashed = _hashed(layout, version=layout.version, texts=layout.texts)

    def buckets(self) -> dict[int, tuple[int, int]]:
        """Return the number of rows and the sum of their hashes, by bucket."""
        found = self._session.fetch(buckets(self.layout), [])
        return {bucket: (rows, int(total)) for bucket, rows, total in found}

    def images(self, keys: Sequence[Key]) -> dict[Key, Image]:
        """Return how many rows of each content there are, and which versions they are."""
        return self._images(sql.SQL("h"), [int(hashed) for (hashed,) in keys])

    def within(self, buckets: Sequence[int]) -> dict[Key, Image]:
        """Return the images of all contents of these buckets."""
        return self._images(sql.SQL("h & {}").format(sql.Literal(_BUCKETS - 1)), list(buckets))

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


def buckets(layout: Layout) -> sql.Composed:
    """Return the statement that counts a table's rows in buckets of their hashes."""
    return sql.SQL("SELECT h & {}, count(*), sum(h) FROM {} GROUP BY 1").format(
        sql.Literal(_BUCKETS - 1), _hashed(layout, once=True)
    )


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
