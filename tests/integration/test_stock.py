"""The stock profile on the real stack: Debezium's own connector, without a jar of ours."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import compare
import harness
import psycopg
import pytest
import requests
import type_cases
from harness import Stack, Stream, wait_until
from psycopg import sql

pytestmark = [pytest.mark.stack, pytest.mark.long]

APART = pytest.mark.apart

#: Rows of the transaction that is interrupted, and how many are in the topic when it is.
ROWS, READ = 40_000, 10_000


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give a stack of its own, whose worker may be killed."""
    folder = tmp_path_factory.mktemp("stock") / "local"
    with harness.own_stack(folder, "--replicas", "1") as made:
        yield made


@pytest.fixture
def stream(own: Stack, tmp_path: Path) -> Iterator[Stream]:
    with harness.stream(own, tmp_path / "stream") as made:
        harness.edit(made, r'^profile = "exact"$', 'profile = "stock"')
        yield made


def restart_task(stream: Stream) -> None:
    url = f"{stream.connect}/connectors/cdc_{stream.name}"
    requests.post(f"{url}/restart?includeTasks=true", timeout=60).raise_for_status()


def end_stream(stream: Stream) -> None:
    """End the server's side of the stream: Debezium begins again within the same task."""
    stream.sql(
        "primary",
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s",
        [f"cdc_{stream.name}"],
    )


def kill_worker(stream: Stream) -> None:
    """End the worker as a power cut would, and start it again."""
    folder = stream.stack.config.parent
    told = json.loads(
        harness.run("local", "status", "--json", "--dir", folder, cwd=folder.parent).stdout
    )
    os.kill(told["pids"]["connect"], signal.SIGKILL)
    harness.run("local", "up", "--dir", folder, cwd=folder.parent, timeout=600)


def interrupted(stream: Stream, first: int, interrupt: Callable[[Stream], None]) -> None:
    """Copy rows in one transaction, and interrupt the connector amid them."""
    before = stream.records()
    with (
        psycopg.connect(stream.primary) as session,
        session.cursor().copy("COPY big FROM STDIN") as copy,
    ):
        for key in range(first, first + ROWS):
            copy.write_row([key, f"row {key}"])
    wait_until(lambda: stream.records() > before + READ, "a part of it is in the topic", 180)
    assert stream.records() < before + ROWS, "all of it was there before it could be interrupted"
    interrupt(stream)


def test_rows_arrive(stream: Stream) -> None:
    """Rows that were changed on the primary are the same on the replicas."""
    stream.running(
        "CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(10,2), at timestamptz, b bytea);"
        "CREATE TABLE emptied (id int PRIMARY KEY); INSERT INTO emptied VALUES (1);"
        "INSERT INTO t SELECT i, 'v' || i, i / 3.0, now(), '\\x00ff' FROM generate_series(1, 100) i"
    )
    stream.sql("primary", "UPDATE t SET v = 'x' || id, n = 1.50 WHERE id < 50")
    stream.sql("primary", "DELETE FROM t WHERE id > 90")
    stream.sql("primary", "INSERT INTO t VALUES (1000, NULL, 'NaN', 'infinity', '')")
    stream.sql("primary", "CREATE TABLE unpublished (id int); INSERT INTO unpublished VALUES (1)")
    stream.sql("primary", "UPDATE t SET id = -id WHERE id = 5; TRUNCATE emptied")
    stream.caught_up()
    assert [(0,)] == stream.sql("r1", "SELECT count(*) FROM emptied")

    query = "SELECT id, v, n::text, at::text, b FROM t ORDER BY id"
    assert stream.sql("primary", query) == stream.sql("r1", query)


@pytest.mark.parametrize(
    "interrupt", [restart_task, *(pytest.param(f, marks=APART) for f in (end_stream, kill_worker))]
)
def test_what_a_restart_tears_halts_and_comes_again(
    stream: Stream, interrupt: Callable[[Stream], None]
) -> None:
    """Amid a transaction of 40,000 rows: it is whole, or the daemon halts and what it says brings it."""
    text = stream.config.read_text(encoding="utf-8")
    stream.config.write_text(f'{text}\n[apply]\nmissing_timeout = "30s"\n', encoding="utf-8")
    stream.running("CREATE TABLE big (id int PRIMARY KEY, v text)")
    daemon = stream.daemons[-1]
    interrupted(stream, 1, interrupt)

    waiting = stream.start("wait", "-r", "r1", "--now", "--timeout", "120s")
    wait_until(
        lambda: daemon.poll() is not None or waiting.poll() is not None, "it halts or is whole", 150
    )
    if daemon.poll() is not None:
        assert 1 == daemon.returncode
        told = stream.log(daemon)
        assert "`cdc connectors rewind`" in told, told
        assert [(0,)] == stream.sql("r1", "SELECT count(*) FROM big")
        waiting.kill()
        stream.cdc("connectors", "rewind")
        stream.start("run", "-r", "r1")
        stream.caught_up()

    query = "SELECT count(*), sum(id), md5(string_agg(v, ',' ORDER BY id)) FROM big"
    assert stream.sql("primary", query) == stream.sql("r1", query)
    assert ROWS == stream.sql("r1", query)[0][0]


#: Types that no mode carries exactly.
REFUSED = (
    "timetz", "varbit", "bit", "xml", "jsonpath", "multirange", "txtrange", "point", "line", "lseg", "box",
    "path", "polygon", "circle", "tsquery", "reg", "pg_lsn", "xid", "tid", "vector", "snapshot",
    "refcursor", "aclitem", "comp", "arrdom", "int2vector", "oidvector", "regclass",
)  # fmt: skip

#: Intervals at which Debezium's task stops, and the microsecond that it takes for infinity.
POISON = ("2147483648 hours", "500000000 hours", "294247-01-10 04:00:25.2")

MODES: dict[str, tuple[dict[str, str | bool], tuple[str, ...]]] = {
    "numbers": ({}, ("294247", "294276")),
    "texts": ({"time.precision.mode": "isostring", "value.converter.schemas.enable": True,
               "key.converter.schemas.enable": True}, ("time", "time(0)", "time(3)")),
    "adaptive": ({"time.precision.mode": "adaptive"}, ("294247", "294276")),
    "nanoseconds": ({"time.precision.mode": "nanoseconds"},
                    ("timestamp", "timestamp(0)", "timestamp(3)", "294247", "294276")),
    "connect": ({"time.precision.mode": "connect"}, ("time", "timestamp", "294247", "294276")),
}  # fmt: skip


def execute(stream: Stream, statements: str) -> None:
    """Execute text that is made of this module's own."""
    stream.sql("primary", sql.Composed([sql.SQL(statements)]))


def may_be_infinite(stream: Stream) -> bool:
    """Tell whether the server has infinite intervals."""
    return stream.sql("primary", "SELECT current_setting('server_version_num')::int >= 170000") == [
        (True,)
    ]


def carried(stream: Stream, without: tuple[str, ...]) -> list[type_cases.Case]:
    """Return the cases that the stock profile carries, less values and types of `without`."""
    cases = []
    infinite = may_be_infinite(stream)
    for case in type_cases.SCALARS:
        kind = case.type.partition("(")[0].strip('"')
        if (
            case.needs
            or kind == "cid"
            or case.type in without
            or (infinite and (kind.startswith("interval") or kind == "spandom"))
            or any(word in kind and kind != "tsvector" for word in REFUSED)
        ):
            continue
        values = [v for v in case.values if not any(p in v for p in (*POISON, *without))]
        cases.append(type_cases.Case(case.type, tuple(values), case.big))
    return cases


@pytest.mark.parametrize(
    "name", ["numbers", *(pytest.param(n, marks=APART) for n in MODES if n != "numbers")]
)
def test_values_arrive_exactly(stream: Stream, name: str) -> None:
    """Values of every type that is carried, with their extremes, stand on the replica to the character."""
    options, without = MODES[name]
    lines = "\n".join(f'"{key}" = {json.dumps(value)}' for key, value in options.items())
    text = stream.config.read_text(encoding="utf-8")
    stream.config.write_text(f"{text}\n[connect.options]\n{lines}\n", encoding="utf-8")
    cases = carried(stream, without)
    columns = ", ".join(f"c{n} {case.type}" for n, case in enumerate(cases))
    large = [(n, case) for n, case in enumerate(cases) if case.big]
    external = ", ".join(f"ALTER c{n} SET STORAGE EXTERNAL" for n, _ in large)
    execute(stream, f"""
        {type_cases.PRELUDE}
        CREATE TABLE t (id int PRIMARY KEY, n int, {columns}); ALTER TABLE t {external};
        CREATE TABLE bare (LIKE t); ALTER TABLE bare REPLICA IDENTITY FULL
    """)  # fmt: skip
    stream.running("SELECT")

    for number in range(max(len(case.values) for case in cases)):
        values = ", ".join(
            f"({case.values[number]})::{case.type}" if number < len(case.values) else "NULL"
            for case in cases
        )
        execute(stream, f"INSERT INTO t VALUES ({number}, 0, {values})")
    names = ", ".join(f"c{n}" for n, _ in large)
    bigs = ", ".join(f"({case.big})::{case.type}" for _, case in large)
    execute(stream, f"INSERT INTO t (id, n, {names}) VALUES (1000, 0, {bigs})")
    stream.sql("primary", "INSERT INTO bare SELECT * FROM t")
    stream.sql("primary", "UPDATE t SET n = 1")
    stream.sql("primary", "UPDATE t SET id = id + 5000 WHERE id % 2 = 0")
    stream.sql(
        "primary", "UPDATE bare SET n = 1 WHERE id % 2 = 0; DELETE FROM bare WHERE id % 3 = 0"
    )
    stream.caught_up()

    nodes = {"primary": stream.primary, **stream.replicas}
    assert [] == compare.differences(nodes, ["t", "bare"])


def test_what_is_not_carried_is_named(stream: Stream) -> None:
    """`cdc check` names each column that would be altered, and the daemon does not start on one."""
    execute(stream, type_cases.PRELUDE)
    stream.sql(
        "primary",
        "CREATE TABLE t (id int PRIMARY KEY, a timetz, b int[], c varbit, d comp, e interval)",
    )
    stream.ready("CREATE TABLE u (id int PRIMARY KEY)")

    found = json.loads(stream.cdc("check", "--json", check=False).stdout)["findings"]
    daemon = stream.start("run", "-r", "r1")

    told = {f["what"].partition(" ")[0] for f in found if f["name"] == "stock-values"}
    lost = {"public.t.a", "public.t.b", "public.t.c", "public.t.d"}
    assert lost | ({"public.t.e"} if may_be_infinite(stream) else set()) == told
    assert 1 == daemon.wait(60)
    assert "public.t.a (time with time zone): its offset" in stream.log(daemon)
