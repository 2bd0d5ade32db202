"""`cdc-verify` against reladiff: the same tables on the same two servers, by turns.

Run it by `make bench-verify`, on a machine that does nothing else. It starts a stack of its own,
installs reladiff into an environment of its own, and writes bench/results/verify.json and
docs/performance.md, in which the method is told.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import subprocess
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, LiteralString

import document
import harness
import servers
from harness import Stack, Stream
from psycopg import conninfo, sql

ROOT = Path(__file__).parents[1]
RELADIFF = "0.6.0"

#: The other 12 columns of each table; `n` is the row's number.
_COLUMNS: LiteralString = """
    customer int NOT NULL, status text NOT NULL, amount numeric(12, 2) NOT NULL, currency char(3) NOT NULL,
    placed timestamptz NOT NULL, changed timestamptz NOT NULL, note text, doc jsonb NOT NULL,
    paid boolean NOT NULL, token uuid NOT NULL, weight float8 NOT NULL, tags text[] NOT NULL"""
_VALUES: LiteralString = """
    (n * 7919 % 50000)::int, (ARRAY['new', 'paid', 'sent', 'back'])[1 + n % 4], n % 100000 / 7.0, 'EUR',
    '2024-01-01 UTC'::timestamptz + n * interval '1.234567 s',
    '2024-06-01 UTC'::timestamptz + n * interval '0.9 s',
    CASE WHEN n % 5 < 3 THEN repeat('some note ', (n % 7)::int) || n END,
    jsonb_build_object('source', 'web', 'n', n, 'ok', n % 2 = 0), n % 3 = 0, md5('t' || n)::uuid,
    n / 3.0, ARRAY['a' || n % 10, 'b' || n % 100]"""

#: By table, its first column's type, and its value.
TABLES: dict[LiteralString, tuple[LiteralString, LiteralString]] = {
    "by_bigint": ("bigint PRIMARY KEY", "n"),
    "by_uuid": ("uuid PRIMARY KEY", "md5(n::text)::uuid"),
    "no_key": ("bigint", "n"),
}

#: Rows in a thousand that differ on the replica, evenly spread: every chunk has some.
_SPOIL: dict[str, LiteralString] = {
    "by_bigint": "UPDATE by_bigint SET note = coalesce(note, '') || ' ' WHERE id % 1000 = 500",
    "by_uuid": "UPDATE by_uuid SET note = coalesce(note, '') || ' ' WHERE id IN"
    " (SELECT md5(n::text)::uuid FROM generate_series(500::bigint, (SELECT count(*) FROM by_uuid), 1000) n)",
    "no_key": "UPDATE no_key SET note = coalesce(note, '') || ' ' WHERE id % 1000 = 500",
}

#: Ends what a killed program has left running.
_END: LiteralString = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND usename = 'postgres' AND pid <> pg_backend_pid()"""

#: Runs at most, by whether rows differ (reladiff then fetches them) and whether caches are cold (to
#: make them so takes longer than a run).
_MOST = {(False, False): 5, (False, True): 3, (True, False): 3, (True, True): 2}

#: reladiff's settings that are tried, the best of which is taken: threads, factor, threshold.
_SETTINGS = ((2, 8, 150_000), (2, 32, 16_384), (1, 32, 16_384))

#: Times the best one's seconds after which another one is given up: by a column without index some
#: take many minutes to find rows that differ.
_GIVEN_UP = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One run: seconds, processor seconds of the two servers, rows found to differ, load before it."""

    seconds: float
    primary_cpu: float
    replica_cpu: float
    found: int
    load: float


def reladiff() -> Path:
    """Return the program, installed into an environment of its own in the cache."""
    cache = Path(os.environ.get("CDC_CACHE", Path.home() / ".cache" / "cdc"))
    home = cache / f"bench-reladiff-{RELADIFF}"
    if not (home / "bin/reladiff").exists():
        venv.create(home, with_pip=True)
        packages = [f"reladiff=={RELADIFF}", "psycopg2-binary"]
        subprocess.run([home / "bin/python", "-m", "pip", "install", "-q", *packages], check=True)
    return home / "bin/reladiff"


class Bench:
    """The stream with its tables, and how programs are run on them."""

    def __init__(self, stream: Stream, rows: int, tables: Sequence[str]) -> None:
        self.stream, self.rows = stream, rows
        self.tables: list[LiteralString] = list(tables)
        self._primary = servers.Server(stream.stack.primary)
        self._replica = servers.Server(stream.stack.replicas["r1"])
        self._env = {
            **harness.environment(),
            "PGPASSFILE": servers.passfile(stream.primary),
            "COLUMNS": "1000000",  # reladiff breaks its lines of JSON at the terminal's width
        }

    def build(self) -> None:
        """Fill the primary and r1, with all tables whichever are compared, then start the daemon."""
        for table, (key, value) in TABLES.items():
            self.stream.sql(
                "primary", "CREATE TABLE " + table + " (id " + key + "," + _COLUMNS + ")"
            )
            self.stream.sql(
                "primary",
                sql.SQL("INSERT INTO {} SELECT {},{} FROM generate_series(1::bigint, {}) n").format(
                    sql.Identifier(table), sql.SQL(value), sql.SQL(_VALUES), sql.Literal(self.rows)
                ),
            )
            if table == "no_key":
                self.stream.sql("primary", "ALTER TABLE no_key REPLICA IDENTITY FULL")
        self.stream.cdc("setup")
        self.stream.cdc("connectors", "apply")
        self.stream.cdc("bootstrap", "-r", "r1", timeout=1800)
        self.stream.start("run", "-r", "r1")
        self.stream.cdc("wait", "-r", "r1", "--now", "--timeout", "120s")
        for end in ("primary", "r1"):
            self.stream.sql(end, "VACUUM (FREEZE, ANALYZE)")
            self.stream.sql(end, "CHECKPOINT")

    def ours(self, table: str, percent: int) -> list[str]:
        options = ["--max-cpu", str(percent)] if percent != 100 else []  # the default
        return [
            *harness.program("cdc-verify"), "-c", str(self.stream.config), "-r", "r1", "--json",
            "--table", f"public.{table}", *options,
        ]  # fmt: skip

    def theirs(self, program: Path, table: str, settings: Sequence[int]) -> list[str]:
        threads, factor, threshold = map(str, settings)
        return [
            str(program), _uri(self.stream.dsn("primary")), table, _uri(self.stream.dsn("r1")), table,
            "-k", "id", "-c", "%", "--json", "--algorithm", "hashdiff",
            "--threads", threads, "--bisection-factor", factor, "--bisection-threshold", threshold,
            "--skip-sort-results", *(["--assume-unique-key"] if table != "no_key" else []),
        ]  # fmt: skip

    def run(self, command: Sequence[str], *, cold: bool, limit: float | None = None) -> Run:
        """Run a program to its end; cold: after both servers and the system have forgotten.

        Raises subprocess.TimeoutExpired after `limit` seconds.
        """
        if cold:
            servers.forget([self._primary, self._replica])
        load = os.getloadavg()[0]
        before = self._primary.cpu(), self._replica.cpu()
        began = time.monotonic()
        done = subprocess.run(
            command, env=self._env, cwd=self.stream.folder, capture_output=True, text=True, check=False,
            timeout=limit,
        )  # fmt: skip
        seconds = time.monotonic() - began
        after = self._primary.cpu(), self._replica.cpu()
        return Run(
            round(seconds, 2), round(after[0] - before[0], 2), round(after[1] - before[1], 2),
            _found(command, done), round(load, 1),
        )  # fmt: skip

    def given_up(self, command: Sequence[str], limit: float) -> float:
        """Return the seconds that a program takes; `limit` where it took longer and was killed."""
        try:
            return self.run(command, cold=False, limit=limit).seconds
        except subprocess.TimeoutExpired:
            for end in ("primary", "r1"):
                self.stream.sql(end, _END)
            return limit

    def spoil(self, table: str) -> None:
        self.stream.sql("r1", _SPOIL[table])


def _found(command: Sequence[str], done: subprocess.CompletedProcess[str]) -> int:
    """Return how many rows a program found to differ; fails with what it said where it did not run."""
    if "reladiff" in Path(command[0]).name:
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        return len({line[1][0] for line in lines})
    assert done.returncode in (0, 1), done.stderr
    # Without a key a row with another value is one too few and one too many.
    return sum(f["count"] for f in json.loads(done.stdout)["findings"] if f["kind"] != "extra")


def _uri(dsn: str) -> str:
    """Return what reladiff takes; the password stays in the password file."""
    said = conninfo.conninfo_to_dict(dsn)
    return f"postgresql://{said['user']}@{said['host']}:{said['port']}/{said['dbname']}"


def compete(bench: Bench, program: Path, runs: int, told: dict[str, Any]) -> Iterator[None]:
    """Add to `told` a result per table, temperature, share that differs, and contestant."""
    best: dict[tuple[str, int], tuple[int, ...]] = {}
    for differing in (0, len(range(500, bench.rows + 1, 1000))):
        if differing:
            for table in bench.tables:
                bench.spoil(table)
        for table in bench.tables:
            tried = _tried(bench, program, table)
            told["reladiff_tried"] += [
                {"table": table, "differing": differing, "settings": settings, "seconds": seconds}
                for settings, seconds in tried.items()
            ]
            best[table, differing] = min(tried, key=tried.__getitem__)
        for table, cold in itertools.product(bench.tables, (False, True)):
            settings = best[table, differing]
            contestants = {
                "default": bench.ours(table, 100),
                "max_cpu_50": bench.ours(table, 50),
                "reladiff": bench.theirs(program, table, settings),
            }
            if cold:
                del contestants["max_cpu_50"]
            seen: dict[str, list[Run]] = {name: [] for name in contestants}
            for _ in range(min(runs, _MOST[bool(differing), cold])):
                for name, command in contestants.items():
                    seen[name].append(run := bench.run(command, cold=cold))
                    assert run.found == differing, (table, name, run)
            told["results"].append(
                {
                    "table": table, "differing": differing, "cold": cold, "reladiff_settings": settings,
                    **{name: [dataclasses.asdict(run) for run in its] for name, its in seen.items()},
                }
            )  # fmt: skip
            yield


def _tried(bench: Bench, program: Path, table: str) -> dict[tuple[int, ...], float]:
    """Return the seconds that reladiff takes, at least, with each of its settings, warm, once each."""
    bench.run(bench.ours(table, 100), cold=False)
    tried: dict[tuple[int, ...], float] = {}
    for settings in _SETTINGS:
        limit = round(_GIVEN_UP * min(tried.values(), default=300.0), 2)
        tried[settings] = bench.given_up(bench.theirs(program, table, settings), limit)
    return tried


def _kept(told: dict[str, Any], rows: int, tables: Sequence[str]) -> dict[str, Any]:
    """Return of an earlier run with as many rows what it has of other tables."""
    return {
        "rows": rows,
        **{
            key: [r for r in told[key] if told["rows"] == rows and r["table"] not in tables]
            for key in ("reladiff_tried", "results")
        },
    }


def _stack(running: Path | None, folder: Path) -> contextlib.AbstractContextManager[Stack]:
    if running is None:
        return harness.own_stack(folder / "stack")
    return contextlib.nullcontext(Stack.at(running.absolute()))


def main() -> None:
    """Measure and write results and document, or the document anew from what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--stack", type=Path, help="a running local stack, else one of its own")
    parser.add_argument("--measured", action="store_true", help="only write the document")
    said = parser.parse_args()
    if not said.measured:
        program = reladiff()
        with (
            tempfile.TemporaryDirectory(prefix="cdc-bench-") as folder,
            _stack(said.stack, Path(folder)) as stack,
            harness.stream(stack, Path(folder) / "stream") as stream,
        ):
            bench = Bench(stream, said.rows, said.tables)
            bench.build()
            written = document.RESULTS / "verify.json"
            told = _kept(json.loads(written.read_text(encoding="utf-8")), said.rows, said.tables)
            told["machine"] = servers.machine(stream.primary) | {"reladiff": RELADIFF}
            for _ in compete(bench, program, said.runs, told):
                written.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
                print(document.line(told["results"][-1]), flush=True)
    document.write()


if __name__ == "__main__":
    main()
