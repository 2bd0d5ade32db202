"""Compare every table of several PostgreSQL servers by the sha256 of psql's own output.

Standard library only: what this says is evidence, so it shares nothing with what it judges.

    python compare.py PSQL NAME=CONNINFO NAME=CONNINFO ...

Exit status: 0 all the same, 1 something differs, 2 could not look.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping

_TABLES = """
SELECT c.oid::regclass::text, coalesce(
         (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY array_position(i.indkey, a.attnum))
          FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
          WHERE i.indrelid = c.oid AND i.indisprimary), 't.*::text COLLATE "C"')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT IN ('cdc', 'information_schema') AND n.nspname !~ '^pg_'
ORDER BY c.oid::regclass::text COLLATE "C"
"""

#: A value's text depends on these; they are the same for every server compared.
_SETTINGS = {
    "PGTZ": "UTC",
    "PGDATESTYLE": "ISO",
    "PGCLIENTENCODING": "UTF8",
    "PGOPTIONS": "-c search_path=pg_catalog -c intervalstyle=postgres -c extra_float_digits=1"
    " -c bytea_output=hex -c lc_monetary=C -c row_security=off",
}


def copy_command(table: str, order: str) -> str:
    """Return the SQL whose output is summed up."""
    return f"COPY (SELECT * FROM ONLY {table} t ORDER BY {order}) TO STDOUT"  # noqa: S608 -- names quoted by the server


def tables(psql: str, conninfo: str) -> dict[str, str]:
    """Return every user table and the columns of its primary key."""
    said = _psql(psql, conninfo, _TABLES).decode().splitlines()
    return dict(line.split("\t") for line in said)


def contents(psql: str, conninfo: str, table: str, order: str) -> tuple[int, str]:
    """Return a table's number of rows and the sha256 of all of them."""
    data = _psql(psql, conninfo, copy_command(table, order))
    # COPY writes a line break within a value as \n: each line is one row.
    return data.count(b"\n"), hashlib.sha256(data).hexdigest()


def report(psql: str, nodes: Mapping[str, str]) -> tuple[list[str], bool]:
    """Compare the nodes with the first of them; return lines for people and whether all agree."""
    first, *others = nodes
    known = {name: tables(psql, conninfo) for name, conninfo in nodes.items()}
    lines = [f"{'table':<17}{'rows':>9}  " + "".join(f"{name:<14}" for name in nodes)]
    same, total = bool(known[first]), 0
    for table in sorted(set().union(*known.values())):
        found = {
            name: contents(psql, conninfo, table, known[first].get(table) or known[name][table])
            if table in known[name]
            else None
            for name, conninfo in nodes.items()
        }
        expected = found[first]
        agree = expected is not None and all(found[name] == expected for name in others)
        same, total = same and agree, total + (expected[0] if expected else 0)
        sums = "".join(f"{held[1][:12] if held else 'absent':<14}" for held in found.values())
        rows = f"{expected[0]:,}" if expected else "-"
        lines.append(f"{table:<17}{rows:>9}  {sums}{'same' if agree else 'DIFFERS'}")
    if not total:
        return [*lines, "there is not a single row: this proves nothing"], False
    return lines, same


def _psql(psql: str, conninfo: str, command: str) -> bytes:
    return subprocess.run(
        [psql, "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", conninfo, "-c", command],
        env={**os.environ, **_SETTINGS},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout  # fmt: skip


def main(psql: str, *nodes: str) -> int:
    try:
        lines, same = report(psql, dict(node.split("=", 1) for node in nodes))
    except (OSError, subprocess.CalledProcessError) as error:
        code = getattr(error, "returncode", None)
        why = f"psql ended with exit code {code}" if code is not None else error
        print(f"could not look: {why}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
