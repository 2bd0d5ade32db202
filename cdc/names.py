"""Names of tables, as PostgreSQL has them and as people write them."""

from __future__ import annotations

import dataclasses
import re

from psycopg import sql

#: PostgreSQL reads an identifier of this form back unchanged without quotes (reserved words
#: apart, which need none after a dot and are rare as schema names).
_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")

#: One part of a dotted name: quoted (a doubled quote stands for one) or bare.
_PART = re.compile(r'"((?:[^"]|"")+)"|([^".\s]+)')


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class TableName:
    """A table by schema and name, both exactly as in pg_catalog."""

    schema: str
    name: str

    @property
    def sql(self) -> sql.Identifier:
        """The name for use in a statement."""
        return sql.Identifier(self.schema, self.name)

    def __str__(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"


def quoted(identifier: str) -> str:
    """Return `identifier` as one would write it in SQL: in quotes only where they are needed."""
    if _PLAIN.fullmatch(identifier):
        return identifier
    return '"' + identifier.replace('"', '""') + '"'


def split(text: str) -> tuple[tuple[str, bool], ...]:
    """Split a dotted name into (part, was quoted); bare parts are folded to lower case as in SQL.

    Raises ValueError when `text` is not a dotted name.
    """
    parts: list[tuple[str, bool]] = []
    at = 0
    while True:
        found = _PART.match(text, at)
        if found is None:
            raise ValueError(f"not a dotted name: {text!r}")
        in_quotes = found[1] is not None
        parts.append((found[1].replace('""', '"') if in_quotes else found[2].lower(), in_quotes))
        at = found.end()
        if at == len(text):
            return tuple(parts)
        if text[at] != ".":
            raise ValueError(f"not a dotted name: {text!r}")
        at += 1


def parse(text: str) -> TableName:
    """Return the table that `text` ('schema.table', quoting as in SQL) names.

    Raises ValueError when it is not of that form.
    """
    parts = split(text)
    if len(parts) != 2:
        raise ValueError(f"not a table: {text!r} (write schema.table)")
    return TableName(parts[0][0], parts[1][0])
