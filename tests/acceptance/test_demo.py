"""`cdc local demo`: it ends with a proof, cleans up in any case, and its proof can fail."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import harness
import psycopg
import pytest
from harness import Stack
from psycopg import conninfo, sql

from cdc.local import artifacts
from cdc.local.demo import compare


@pytest.fixture
def place() -> Iterator[Path]:
    """Give an empty folder for temporary files that PostgreSQL's user can enter, too."""
    folder = Path(tempfile.mkdtemp(prefix="cdc-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def start(place: Path) -> subprocess.Popen[str]:
    """Start the demo with `place` as its folder for temporary files."""
    return subprocess.Popen(
        [*harness.program(), "local", "demo"],
        cwd=place,
        env=harness.environment() | {"TMPDIR": str(place)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def left(place: Path) -> list[str]:
    """Return what the demo has left: files, and processes that know its folder."""
    files = [str(p) for p in place.iterdir()]
    said = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True)
    return files + [line for line in said.stdout.splitlines() if str(place) in line]


@pytest.mark.long
def test_the_demo_ends_with_a_proof(place: Path) -> None:
    """All six acts are played, every table is the same on three servers, and nothing is left."""
    demo = start(place)
    said, _ = demo.communicate(timeout=600)

    assert 0 == demo.returncode, said
    for number, act in enumerate(("fill", "flow", "break", "heal", "mend", "prove"), 1):
        assert f"{number} of 6 · {act}" in said
    assert 6 == sum(line.endswith("  same") for line in said.splitlines()), said
    assert "three servers, identical" in said
    assert 80 > max(len(line) for line in said.splitlines() if "/" not in line)
    assert "\x1b" not in said
    assert [] == left(place)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(place: Path, number: signal.Signals) -> None:
    """Ctrl-C or a termination while daemons run ends everything that was started."""
    demo = start(place)
    assert demo.stdout is not None
    said = []
    for line in demo.stdout:
        said.append(line)
        if "cdc run -r r2" in line:
            os.kill(demo.pid, number)
            break
    said.append(demo.stdout.read())
    demo.stdout.close()

    assert 130 == demo.wait(120), "".join(said)
    assert [] == left(place)


@contextlib.contextmanager
def databases(dsn: str, names: list[str]) -> Iterator[dict[str, str]]:
    """Give databases of the same content on one server, removed afterwards."""
    with psycopg.connect(dsn, autocommit=True) as server:
        for name in names:
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield {name: conninfo.make_conninfo(dsn, dbname=name) for name in names}
        finally:
            for name in names:
                server.execute(
                    sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
                )


def test_the_comparison_finds_one_wrong_byte(stack: Stack) -> None:
    """Equal servers agree; a changed byte, a missing row or a missing table does not; empty proves nothing."""
    psql = str(artifacts.fetch(artifacts.cache_folder(), lambda _: None).postgres_bin / "psql")
    with databases(stack.primary, ["compare_a", "compare_b"]) as nodes:

        def verdict() -> int:
            arguments = [f"{name}={dsn}" for name, dsn in nodes.items()]
            return subprocess.run(
                [sys.executable, "-I", compare.__file__, psql, *arguments],
                stdout=subprocess.DEVNULL,
                check=False,
            ).returncode

        assert 1 == verdict()
        for dsn in nodes.values():
            harness.rows(dsn, "CREATE TABLE t (id int PRIMARY KEY, v text)")
        assert 1 == verdict()
        for dsn in nodes.values():
            harness.rows(
                dsn, "INSERT INTO t SELECT n, E'line\\n' || n FROM generate_series(1, 99) n"
            )
        assert 0 == verdict()
        harness.rows(nodes["compare_b"], "UPDATE t SET v = E'line\\n8' WHERE id = 7")
        assert 1 == verdict()
        harness.rows(nodes["compare_b"], "UPDATE t SET v = E'line\\n7' WHERE id = 7")
        assert 0 == verdict()
        harness.rows(nodes["compare_b"], "DELETE FROM t WHERE id = 99")
        assert 1 == verdict()
        harness.rows(nodes["compare_a"], "DELETE FROM t WHERE id = 99")
        harness.rows(nodes["compare_b"], "CREATE TABLE more (id int PRIMARY KEY)")
        assert 1 == verdict()
        harness.rows(nodes["compare_b"], "DROP TABLE more, t")
        assert 1 == verdict()
    nodes = {"gone": "host=127.0.0.1 port=1 dbname=x"}
    assert 2 == verdict()
