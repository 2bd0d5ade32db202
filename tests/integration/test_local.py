"""`cdc local`, on a small stack of its own that these tests may break."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import msgspec
import pytest

from cdc.local import artifacts, kafka, layout, processes


class Small:
    """A stack with one replica, used through the program alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return harness.run(
            "local",
            args[0],
            "--dir",
            self.folder,
            *args[1:],
            cwd=self.folder.parent,
            check=check,
            timeout=400,
        )

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.run("status", "--json", check=False).stdout))

    def running(self) -> list[int]:
        """Return every process of this stack, whoever its parent is now: it names or works in it."""
        servers = json.loads((self.folder / "state.json").read_text())["servers"]
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                about = (entry / "cmdline").read_text() + str((entry / "cwd").readlink())
                alive = (entry / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
            except OSError:
                continue
            mine = int(entry.name) in (os.getpid(), os.getppid())
            if alive and not mine and (str(self.folder) in about or servers in about):
                found.append(int(entry.name))
        return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    stack = Small(tmp_path_factory.mktemp("small") / "local")
    try:
        stack.run("up", "--replicas", "1", "--tables", "shop.*", "--exclude", "shop.tmp_*")
        yield stack
    finally:
        stack.run("down", "--purge", check=False)


def test_status_tells_where_everything_is(small: Small) -> None:
    """`status --json` prints the documented object, with connection strings usable as they are."""
    status = small.status()

    assert list(status) == ["version", "config", "primary", "replicas", "kafka", "connect", "pids"]
    assert status["version"] == 1
    assert {"r1"} == set(status["replicas"])
    assert {"kafka", "connect", "primary", "r1"} == set(status["pids"])
    assert harness.rows(
        status["primary"], "SELECT current_database()::text, current_setting('wal_level')"
    ) == [("app", "logical")]
    assert harness.answers(status["connect"])


def test_the_configuration_holds_what_was_asked_for(small: Small) -> None:
    """The cdc.toml that `up` writes loads, and names the tables given."""
    from cdc import config

    loaded = config.load(Path(small.status()["config"]))

    assert (loaded.primary.tables, loaded.primary.exclude) == (("shop.*",), ("shop.tmp_*",))
    assert loaded.kafka.topic.replication_factor == 1
    assert harness.rows(
        loaded.primary.dsn,
        "SELECT rolname::text, rolreplication FROM pg_roles WHERE rolname = current_user",
    ) == [("cdc", True)]
    assert harness.rows(
        loaded.replicas["r1"].dsn, "SELECT set_config('session_replication_role', 'replica', false)"
    ) == [("replica",)]


def test_no_secret_is_in_sight(small: Small) -> None:
    """Passwords stand in files only their owner reads: not in the configuration or on a command line."""
    pgpass = small.folder / "pgpass"
    connect = small.folder / "connect-secrets.properties"
    secrets = {line.rpartition(":")[2] for line in pgpass.read_text().split()}
    secrets.add(connect.read_text().strip().partition("=")[2])
    lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in small.running()]
    exposed = [
        *lines,
        (small.folder / "cdc.toml").read_text(),
        *(p.read_text() for p in small.folder.glob("logs/*")),
    ]

    assert (pgpass.stat().st_mode & 0o777, connect.stat().st_mode & 0o777) == (0o600, 0o600)
    assert len(secrets) == 5  # two users on two servers, and the connector's
    assert len(lines) >= 4
    assert [secret for secret in secrets if any(secret in text for text in exposed)] == []


def test_up_twice_is_harmless(small: Small) -> None:
    """A second `up` starts nothing and changes nothing."""
    before = small.status()
    second = small.run("up")

    assert before == small.status()
    assert second.stderr.count("runs already") == 4


def test_an_edited_configuration_stays(small: Small) -> None:
    """`up` leaves a cdc.toml alone that a person has edited, and says so."""
    config = small.folder / "cdc.toml"
    original = config.read_text()
    config.write_text(original + "# mine\n")
    said = small.run("up").stderr
    kept = config.read_text()
    config.write_text(original)

    assert kept.endswith("# mine\n")
    assert "has been edited" in said


def test_psql_and_logs_reach_a_component(small: Small) -> None:
    """`psql` runs on the server named, `logs` shows the component named, a wrong name is refused."""
    psql = small.run("psql", "r1", "-Atc", "SELECT current_setting('port')::int, current_user")
    port = json.loads((small.folder / "state.json").read_text())["ports"]["r1"]

    assert f"{port}|postgres" == psql.stdout.strip()
    assert "ready to accept connections" in small.run("logs", "primary").stdout
    refused = small.run("logs", "r7", check=False)
    assert refused.returncode == 2
    assert "use one of: kafka, connect, primary, r1" in refused.stderr


@pytest.mark.parametrize("victim", ["primary", "connect"])
def test_a_killed_component_is_named_and_healed(small: Small, victim: str) -> None:
    """After kill -9, `status` says which component is gone and exits 1; `up` heals it alone."""
    before = small.status()["pids"]
    harness.rows(
        small.status()["primary"],
        "CREATE TABLE IF NOT EXISTS kept (id int)",
    )
    os.kill(before[victim], signal.SIGKILL)
    harness.wait_until(lambda: small.status()["pids"][victim] is None, f"{victim} is gone")
    told = small.run("status", check=False)
    healed = small.run("up")
    after = small.status()["pids"]

    assert told.returncode == 1
    assert [f"{victim:<8} not running"] == [
        line[:20] for line in told.stdout.splitlines() if "not running" in line
    ]
    assert healed.stderr.count("runs already") == 3
    assert {victim} == {name for name in before if before[name] != after[name]}
    assert harness.rows(small.status()["primary"], "SELECT count(*) FROM kept") == [(0,)]


def test_down_leaves_no_process_also_after_a_kill(small: Small) -> None:
    """`down` ends everything, even the children of a server whose main process was killed."""
    pids = small.status()["pids"]
    data = Path(f"/proc/{pids['primary']}/cwd").readlink()
    servers = [process.pid for process in processes.working_in(data, "postgres")]
    children = [pid for pid in servers if pid != pids["primary"]]
    os.kill(children[0], signal.SIGSTOP)  # this one cannot notice that its server is gone
    os.kill(pids["primary"], signal.SIGKILL)
    small.run("down")

    assert small.running() == []
    assert small.run("status", check=False).returncode == 1


def test_a_failed_up_names_the_component_and_leaves_nothing_running(small: Small) -> None:
    """When a port is taken, `up` shows the end of that component's log and stops what it started."""
    small.run("down")
    port = json.loads((small.folder / "state.json").read_text())["ports"]["connect"]
    with socket.create_server(("127.0.0.1", port)):
        failed = small.run("up", check=False)

    assert failed.returncode == 1
    assert "cdc: connect ended while starting; the end of its log:" in failed.stderr
    assert "Address already in use" in failed.stderr
    assert "data is kept" in failed.stderr
    assert small.running() == []


def test_an_interrupted_up_leaves_nothing_running(small: Small) -> None:
    """`up` that is terminated half-way stops what it has started."""
    small.run("down")
    up = subprocess.Popen(
        [*harness.program(), "local", "up", "--dir", str(small.folder)],
        env=harness.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert up.stderr is not None
    first = up.stderr.readline()
    up.terminate()
    up.communicate(timeout=60)

    assert " pid " in first
    assert up.returncode == 130
    assert small.running() == []


def test_up_after_down_resumes_with_the_same_data_and_ports(small: Small) -> None:
    """A stack comes back where it was, with rows and addresses, and grows by a replica if asked."""
    before = small.status()
    small.run("up", "--replicas", "2")
    after = small.status()

    assert before["primary"] == after["primary"]
    assert before["kafka"] == after["kafka"]
    assert {"r1", "r2"} == set(after["replicas"])
    assert harness.rows(after["primary"], "SELECT count(*) FROM kept") == [(0,)]
    assert harness.rows(
        after["replicas"]["r2"],
        "SELECT datdba::regrole::text FROM pg_database WHERE datname = 'app'",
    ) == [("cdc",)]
    refused = small.run("up", "--replicas", "1", check=False)
    assert refused.returncode == 2


def test_a_cluster_id_may_begin_with_a_dash(tmp_path: Path) -> None:
    """Kafka's storage is formatted whatever the random id begins with: one in 64 looks like an option."""
    place = layout.Layout(tmp_path)
    place.create()
    state = layout.new_state(place, replicas=1, tables=["*.*"], exclude=[])
    dashed = msgspec.structs.replace(state, cluster_id=f"-{state.cluster_id[1:]}")
    found = artifacts.fetch(artifacts.cache_folder(), note=print)
    kafka.Kafka(place, dashed, found.jars).prepare()
    formatted = (place.data("kafka") / "meta.properties").read_text()
    place.remove(state)

    assert f"cluster.id={dashed.cluster_id}" in formatted.splitlines()


def test_purge_removes_everything(small: Small) -> None:
    """`down --purge` leaves neither process nor file, wherever the data directories had to lie."""
    servers = Path(json.loads((small.folder / "state.json").read_text())["servers"])
    small.run("down", "--purge")

    assert not servers.exists()
    assert not small.folder.exists()
    assert small.run("status", check=False).returncode == 2
