"""Table patterns as the configuration has them: which tables are meant."""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import re

from cdc.config import NOTHING_CHANGED
from cdc.errors import ConfigError
from cdc.names import TableName

#: A quoted stretch of a pattern (a doubled quote stands for one), a dot, or a bare stretch.
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(\.)|([^".]+)')


@dataclasses.dataclass(frozen=True, slots=True)
class Pattern:
    """A shell pattern over schema and table, each in fnmatch's form."""

    text: str
    schema: str
    table: str

    def matches(self, name: TableName) -> bool:
        return fnmatch.fnmatchcase(name.schema, self.schema) and fnmatch.fnmatchcase(
            name.name, self.table
        )


def pattern(text: str) -> Pattern:
    """Read a pattern such as `app.*` or `"Mixed-Case".t_?`.

    As in SQL, what is not quoted is folded to lower case; wildcards count only outside quotes.
    Raises ConfigError when it is not of the form schema.table.
    """
    parts = [""]
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            break
        if found[2]:
            parts.append("")
        elif found[3]:
            parts[-1] += found[3].lower()
        else:
            parts[-1] += glob.escape(found[1].replace('""', '"'))
        at = found.end()
    if at < len(text) or len(parts) != 2 or not all(parts):
        raise ConfigError(
            f"{text!r} is not a table pattern",
            safe=NOTHING_CHANGED,
            next='write schema.table with shell wildcards, for example "app.*", and quote as in '
            'SQL: "\\"Mixed-Case\\".*"',
        )
    return Pattern(text, *parts)
