"""The primary's schema onto the replica, by pg_dump and pg_restore, only what is missing there.

An archive's table of contents names each object by its catalog and oid on the primary. What exists
on the replica already is left out, so a section may be restored again after an interruption, onto
tables that somebody made by hand, or for a table that is added years later.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
import tempfile
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg

from cdc import clients, postgres
from cdc.clients import Programs
from cdc.errors import InstallationError, SchemaMismatch

Connection = psycopg.Connection[Any]

#: Kinds of entries whose name is more than one word; the others are one word in capitals.
_LONG_KINDS = (
    "ACCESS METHOD", "CHECK CONSTRAINT", "DEFAULT ACL", "EVENT TRIGGER", "FK CONSTRAINT",
    "FOREIGN DATA WRAPPER", "FOREIGN SERVER", "FOREIGN TABLE", "INDEX ATTACH", "MATERIALIZED VIEW",
    "OPERATOR CLASS", "OPERATOR FAMILY", "PROCEDURAL LANGUAGE", "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA", "ROW SECURITY", "SECURITY LABEL", "SEQUENCE OWNED BY",
    "SEQUENCE SET", "SHELL TYPE", "SUBSCRIPTION TABLE", "TABLE ATTACH", "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY", "TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE", "USER MAPPING",
)  # fmt: skip

_ENTRY = re.compile(
    r"(\d+); (\d+) (\d+) ("
    + "|".join(sorted(_LONG_KINDS, key=len, reverse=True))
    + r"|[A-Z]+) (.*)"
)

#: What a script of pg_restore begins with, before its first object: comments, settings, what psql alone reads.
_HEAD = re.compile(rb"$|--|\\|SET \w+ =|SELECT pg_catalog\.set_config\(")

_SET = re.compile(rb"SET (\w+) =")

#: Never restored: what belongs to the server, carries passwords, or would act on its own here.
#: Foreign keys come last, by `cdc.finishing`.
_NEVER = frozenset({
    "DATABASE", "EVENT TRIGGER", "FK CONSTRAINT", "PUBLICATION", "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA", "SUBSCRIPTION", "SUBSCRIPTION TABLE", "USER MAPPING",
})  # fmt: skip

#: What makes a table whole, found by its dependency on the table, an index or a sequence of it.
_PARTS = frozenset({
    "CHECK CONSTRAINT", "COMMENT", "CONSTRAINT", "DEFAULT", "INDEX", "INDEX ATTACH", "POLICY",
    "ROW SECURITY", "RULE", "SEQUENCE", "SEQUENCE OWNED BY", "STATISTICS", "TABLE ATTACH", "TRIGGER",
})  # fmt: skip

_SAFE = "the section is one transaction: nothing of it was created; no row was copied into it"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One line of an archive's table of contents; `catalog` and `oid` are the primary's, or 0."""

    line: str
    number: int
    catalog: int
    oid: int
    kind: str
    tag: str
    depends: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Archive:
    """A dump of the primary's schema; `settings` are those of a replica older than the programs, else None."""

    path: Path
    programs: Programs
    entries: tuple[Entry, ...]
    settings: frozenset[str] | None


@contextlib.contextmanager
def dumped(
    found: Programs,
    dsn: str,
    snapshot: str | None,
    replica: Connection,
    without: Iterable[str] = (),
) -> Iterator[Archive]:
    """Dump the schema, as an exported snapshot sees it, into a file that lives for a while.

    `without` are tables to leave out, as pg_dump patterns. Raises SchemaMismatch when pg_dump
    fails.
    """
    older = replica.info.server_version // 10000 < found.version
    if older and not found.psql.exists():
        raise InstallationError(
            f"the replica is older than {found.pg_restore}, and there is no {found.psql}, which fills such a one",
            safe="nothing was changed",
            next="install PostgreSQL's client programs whole, and name their folder in CDC_PG_BIN",
        )
    with tempfile.TemporaryDirectory(prefix="cdc-") as folder:
        path = Path(folder) / "schema.dump"
        argv = [
            str(found.pg_dump), "--dbname", postgres.shown(dsn), "--file", str(path), "--format=custom",
            "--schema-only", "--no-owner", "--no-privileges", "--no-publications",
            "--no-subscriptions", "--no-security-labels", "--exclude-schema=cdc",
            *(f"--snapshot={name}" for name in [snapshot] if name),
            *(f"--exclude-table={pattern}" for pattern in without),
        ]  # fmt: skip
        done = clients.run(argv, dsn)
        if done.returncode != 0:
            raise SchemaMismatch(
                f"pg_dump failed on the primary: {clients.told(done.stderr)}",
                safe="nothing was changed on the replica",
                next="pg_dump reads every table's definition: let the role of primary.dsn read them "
                "all, set primary.admin_dsn, or create the tables on the replica yourself and "
                'set bootstrap.schema = "none"',
            )
        settings = replica.execute("SELECT name::text FROM pg_settings").fetchall() if older else ()
        yield Archive(
            path, found, _contents(found, path),
            frozenset(name for (name,) in settings) if older else None,
        )  # fmt: skip


def _contents(found: Programs, path: Path) -> tuple[Entry, ...]:
    # Messages of a failure would come from a damaged file of our own: a defect.
    done = subprocess.run(
        [found.pg_restore, "--list", "--verbose", path], capture_output=True, text=True, check=True
    )
    return parse(done.stdout)


def parse(listing: str) -> tuple[Entry, ...]:
    """Read what `pg_restore --list --verbose` prints."""
    entries: list[Entry] = []
    for line in listing.splitlines():
        if found := _ENTRY.fullmatch(line):
            number, catalog, oid = (int(found[i]) for i in (1, 2, 3))
            entries.append(Entry(line, number, catalog, oid, found[4], found[5], ()))
        elif line.startswith(";\tdepends on: "):
            depends = tuple(int(n) for n in line.partition(": ")[2].split())
            entries[-1] = dataclasses.replace(entries[-1], depends=depends)
    return tuple(e for e in entries if e.kind not in _NEVER and not _idle_comment(e))


def _idle_comment(entry: Entry) -> bool:
    """Tell comments on what is not ours to comment: the schema public, extensions, foreign keys.

    A comment on a foreign key cannot be told from one on another constraint: all are left out.
    """
    return entry.kind == "COMMENT" and (
        entry.tag.startswith(("- EXTENSION ", "- SCHEMA public "))
        or re.search(r" CONSTRAINT .* ON ", entry.tag) is not None
    )


def for_tables(entries: Sequence[Entry], oids: Collection[int]) -> tuple[Entry, ...]:
    """Return the entries that the tables with these oids need: their parts and what those need."""
    by_number = {e.number: e for e in entries}
    roots = {e.number for e in entries if e.kind == "TABLE" and e.oid in oids}
    owned = {
        e.number
        for e in entries
        if e.kind in ("CONSTRAINT", "INDEX", "SEQUENCE") and roots & set(e.depends)
    }
    wanted = roots | {
        e.number for e in entries if e.kind in _PARTS and (roots | owned) & set(e.depends)
    }
    open_ends = list(wanted)
    while open_ends:
        for number in by_number[open_ends.pop()].depends:
            if number in by_number and number not in wanted:
                wanted.add(number)
                open_ends.append(number)
    return tuple(e for e in entries if e.number in wanted)


def by_table(entries: Sequence[Entry], conn: Connection) -> dict[int, list[Entry]]:
    """Return the entries that make a table fit for changes, by its oid.

    Indexes and constraints made of one, so that rows are found; triggers and rules, so that they
    are quiet before the first change and not made under it.
    """
    tables_of = {
        (catalog, oid): table
        for catalog, oid, table in conn.execute(
            "SELECT 'pg_class'::regclass::oid, indexrelid::oid, indrelid::oid FROM pg_index"
            " UNION ALL SELECT 'pg_constraint'::regclass, oid, conrelid FROM pg_constraint"
            " WHERE contype IN ('p', 'u', 'x')"
            " UNION ALL SELECT 'pg_trigger'::regclass, oid, tgrelid FROM pg_trigger"
            " UNION ALL SELECT 'pg_rewrite'::regclass, oid, ev_class FROM pg_rewrite"
        )
    }
    found: dict[int, list[Entry]] = {}
    for entry in entries:
        table = tables_of.get((entry.catalog, entry.oid))
        if table is not None and entry.kind in ("INDEX", "CONSTRAINT", "TRIGGER", "RULE"):
            found.setdefault(table, []).append(entry)
    return found


def unreadable(conn: Connection) -> tuple[str, ...]:
    """Return the tables whose definition pg_dump could not lock, as patterns for it."""
    rows = conn.execute(
        "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%%'"
        " AND n.nspname <> 'information_schema' AND NOT has_table_privilege(c.oid, 'SELECT')",
        (),
    )
    return tuple(name for (name,) in rows)


def absent(entries: Sequence[Entry], primary: Connection, replica: Connection) -> tuple[Entry, ...]:
    """Return the entries whose object the replica does not have.

    Attaching a partition stays if it or its parent is created now; other actions that name no
    object of their own may be repeated.
    """
    known = [e for e in entries if e.catalog]
    addresses = primary.execute(
        "SELECT a.type, a.object_names, a.object_args FROM unnest(%s::oid[], %s::oid[])"
        " WITH ORDINALITY AS w (catalog, oid, place)"
        " LEFT JOIN LATERAL pg_identify_object_as_address(w.catalog, w.oid, 0) AS a ON true"
        " ORDER BY w.place",
        [[e.catalog for e in known], [e.oid for e in known]],
    ).fetchall()
    there = {
        entry.number for entry, (kind, names, args) in zip(known, addresses, strict=True)
        if kind is not None and _exists(replica, kind, names, args)
    }  # fmt: skip
    return tuple(
        e for e in entries
        if e.number not in there and not (e.kind == "TABLE ATTACH" and set(e.depends) <= there)
    )  # fmt: skip


def _exists(replica: Connection, kind: str, names: list[str], args: list[str]) -> bool:
    try:
        with replica.transaction():
            replica.execute("SELECT pg_get_object_address(%s, %s, %s)", [kind, names, args])
    except psycopg.ProgrammingError:
        return False
    return True


def restore(
    archive: Archive,
    entries: Sequence[Entry],
    dsn: str,
    section: str,
    stopping: threading.Event | None = None,
) -> None:
    """Restore those of the entries that belong to `section`, in one transaction.

    Raises SchemaMismatch with what the replica said, also when `stopping` made it give up.
    """
    if not entries:
        return
    listing = archive.path.with_name(f"{section}-{entries[0].number}-{len(entries)}.list")
    listing.write_text("\n".join(e.line for e in entries) + "\n", encoding="utf-8")
    what = [
        str(archive.programs.pg_restore), "--no-owner", "--no-privileges", f"--section={section}",
        f"--use-list={listing}", str(archive.path),
    ]  # fmt: skip
    if archive.settings is None:
        into = ["--dbname", postgres.shown(dsn), "--single-transaction", "--exit-on-error"]
        done = clients.run([*what, *into], dsn, stopping)
    else:
        script = listing.with_suffix(".sql")
        subprocess.run([*what, f"--file={script}"], capture_output=True, check=True)
        script.write_bytes(understood(script.read_bytes(), archive.settings))
        argv = [
            str(archive.programs.psql), "--dbname", postgres.shown(dsn), "--no-psqlrc", "--quiet",
            "--single-transaction", "--set=ON_ERROR_STOP=1", f"--file={script}",
        ]  # fmt: skip
        done = clients.run(argv, dsn, stopping)
    if done.returncode != 0:
        raise SchemaMismatch(
            f"the replica refuses a part of the schema ({section}): {clients.told(done.stderr)}",
            safe=_SAFE,
            next="create what is refused on the replica yourself (as a superuser, if it is a "
            "matter of privileges), then run `cdc bootstrap` again: it continues",
        )


def understood(script: bytes, settings: Collection[str]) -> bytes:
    """Leave out of a script's head what sets a setting that the server does not have.

    A newer pg_restore sets there what an older server does not know (transaction_timeout, from 17 on).
    """
    lines = script.split(b"\n")
    head = next((i for i, line in enumerate(lines) if not _HEAD.match(line)), len(lines))
    known = [
        line for line in lines[:head]
        if not (found := _SET.match(line)) or found[1].decode() in settings
    ]  # fmt: skip
    return b"\n".join([*known, *lines[head:]])
