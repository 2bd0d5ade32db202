"""What many small tables cost: each command, a daemon at rest, and a transaction that changes every table.

Run it by `make bench-growth`. Each number of tables has a stream of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, LiteralString

import harness
import psycopg
import servers
from contestants import Ours
from harness import Stack, Stream
from progress import say
from psycopg import sql

#: Tables of that number, each with that many rows.
TABLES: LiteralString = """
    DO $$ BEGIN
        FOR t IN 1 .. {} LOOP
            EXECUTE format('CREATE TABLE many_%1$s (id bigint PRIMARY KEY, account int NOT NULL,
              amount numeric(12,2) NOT NULL, note text, changed timestamptz NOT NULL);
              INSERT INTO many_%1$s
              SELECT n, n %% 50000, n / 7.0, ''note '' || n, timestamptz ''2024-06-01 UTC'' + n * interval ''1 s''
              FROM generate_series(1, {}) n', t);
        END LOOP;
    END $$
"""

#: Changes a row of each table, in a transaction each or in one.
CHANGE: LiteralString = """
    CREATE PROCEDURE change(tables int, apart boolean) LANGUAGE plpgsql AS $$ BEGIN
        FOR t IN 1 .. tables LOOP
            EXECUTE format('UPDATE many_%s SET account = account + 1 WHERE id = 1', t);
            IF apart THEN COMMIT; END IF;
        END LOOP;
        COMMIT;
    END $$
"""

#: Seconds between two looks at the replica.
_LOOK = 0.002

_LONG = 1800.0


def tables(
    stack: Stack, folder: Path, counts: Sequence[int], rows: int, runs: int
) -> dict[str, Any]:
    """Measure each number of tables; what is quick is done `runs` times."""
    found = []
    for count in counts:
        with harness.stream(stack, folder / str(count)) as stream:
            one = _measured(stream, count, rows, runs)
            say(f"tables: {one}")
            found.append(one)
    return {"rows": rows, "at": found}


def _measured(stream: Stream, count: int, rows: int, runs: int) -> dict[str, Any]:
    stream.sql("primary", sql.SQL(TABLES).format(sql.Literal(count), sql.Literal(rows)))
    stream.sql("primary", CHANGE)
    ours = Ours(stream)
    once = {
        "setup": _took(lambda: stream.cdc("setup", timeout=_LONG)),
        "setup_again": _took(lambda: stream.cdc("setup", timeout=_LONG)),
        "connectors": _took(lambda: stream.cdc("connectors", "apply", timeout=_LONG)),
        "bootstrap": _took(lambda: stream.cdc("bootstrap", "-r", "r1", timeout=_LONG)),
    }
    idle: list[dict[str, float]] = []
    caught_up = [_took(lambda: idle.append(ours.idle())) for _ in range(runs)]
    daemon = stream.start("run", "-r", "r1")
    _wait(stream)
    memory = {"idle": round(servers.held(daemon.pid), 1)}
    _change(stream, count, apart=True)
    _wait(stream)
    memory["after"] = round(servers.held(daemon.pid), 1)
    every = [_every(stream, count) for _ in range(runs)]
    often = {
        "status": [_took(lambda: stream.cdc("status", timeout=_LONG)) for _ in range(runs)],
        "check": [_took(lambda: stream.cdc("check", timeout=_LONG)) for _ in range(runs)],
        "verify": [_took(lambda: _verified(stream)) for _ in range(runs)],
    }
    return {
        "tables": count, "once": once, "often": {"caught_up": caught_up, "every": every, **often},
        "caught_up_cpu": [round(one["cpu"], 2) for one in idle], "memory": memory,
    }  # fmt: skip


def _took(work: Callable[[], object]) -> float:
    """Return the seconds that it took."""
    began = time.monotonic()
    work()
    return round(time.monotonic() - began, 3)


def _wait(stream: Stream) -> None:
    stream.cdc("wait", "-r", "r1", "--now", "--timeout", "600s", timeout=630)


def _change(stream: Stream, count: int, *, apart: bool) -> None:
    with psycopg.connect(stream.primary, autocommit=True) as conn:
        conn.execute("CALL change(%s, %s)", [count, apart])


def _every(stream: Stream, count: int) -> float:
    """Change each table in one transaction; return the seconds from after its commit to when the replica has it."""
    look: LiteralString = "SELECT account FROM many_1 WHERE id = 1"
    with psycopg.connect(stream.dsn("r1"), autocommit=True) as replica:
        before = replica.execute(look).fetchall()
        _change(stream, count, apart=False)
        began = time.monotonic()
        while replica.execute(look).fetchall() == before:
            assert time.monotonic() < began + _LONG, "a transaction has not come"
            time.sleep(_LOOK)
        return round(time.monotonic() - began, 3)


def _verified(stream: Stream) -> None:
    done = stream.verify("-r", "r1", "--max-cpu", "50")
    assert done.returncode == 0, done.stdout + done.stderr
