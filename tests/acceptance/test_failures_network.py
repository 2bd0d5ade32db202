"""A network that swallows packets, and servers that fall silent: own stack, others use the shared."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import compare
import harness
import markers
import network
import psycopg
import pytest
import receivers
import refusals
from harness import Stack, Stream, wait_until
from markers import Markers
from network import Namespace, Relay
from psycopg import conninfo, sql

#: The bar for a daemon that stands by, in seconds from the cut.
TAKEOVER = 60

#: What is told of a lag when the target is short, to a file.
TARGET = 30
ALERT = f"""
[lag]
target = "{TARGET}s"
warn = "20s"

[alert]
interval = "1s"
for = "1s"
clear_for = "1s"
grace = "0s"

[[alert.hooks]]
kind = "command"
argv = ["/bin/sh", "-c", "cat >> told.jsonl; echo >> told.jsonl"]
"""

#: How long Kafka is silent; minutes where somebody asks for them.
SILENCE = int(os.environ.get("CDC_TEST_SILENCE", "0"))


def pids(stack: Stack) -> dict[str, int]:
    folder = stack.config.parent
    said = harness.run("local", "status", "--json", "--dir", folder, cwd=folder.parent).stdout
    return dict(json.loads(said)["pids"])


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give a stack whose components may be stopped."""
    folder = tmp_path_factory.mktemp("network") / "stack"
    with harness.own_stack(folder, "--replicas", "1") as stack:
        yield stack


@pytest.fixture(scope="module")
def filled(own: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """Give a stream that these tests share."""
    with harness.stream(own, tmp_path_factory.mktemp("failures")) as stream:
        stream.ready("CREATE TABLE t (id int PRIMARY KEY, v text)")
        yield stream


def logged(stream: Stream, number: int, what: str) -> Callable[[], bool]:
    return lambda: what in stream.log(stream.daemons[number])


def caught_up(stream: Stream) -> None:
    stream.cdc("wait", "-r", "r1", "--now", "--timeout", "120s", timeout=150)
    nodes = {"primary": stream.primary, "r1": stream.replicas["r1"]}
    assert compare.differences(nodes, ["t"]) == []


@contextlib.contextmanager
def reachable(stack: Stack, address: str) -> Iterator[None]:
    """Let the replica's server listen on one more address."""
    (data,) = harness.rows(stack.replicas["r1"], "SHOW data_directory")[0]
    rules = Path(data) / "pg_hba.test.conf"
    rules.write_text("host all all 0.0.0.0/0 scram-sha-256\n", encoding="ascii")
    os.chown(rules, Path(data).stat().st_uid, -1)
    for name, value in (("listen_addresses", f"127.0.0.1,{address}"), ("hba_file", str(rules))):
        change = sql.SQL("ALTER SYSTEM SET {} = {}")
        harness.rows(stack.replicas["r1"], change.format(sql.Identifier(name), sql.Literal(value)))
    restart(stack, "r1")
    yield
    for name in ("listen_addresses", "hba_file"):
        change = sql.SQL("ALTER SYSTEM RESET {}")
        harness.rows(stack.replicas["r1"], change.format(sql.Identifier(name)))
    restart(stack, "r1")


def restart(stack: Stack, server: str) -> None:
    """Shut a PostgreSQL server down fast, as a person would, and start it again."""
    pid = pids(stack)[server]
    os.kill(pid, signal.SIGINT)
    wait_until(lambda: not harness.answers_sql(stack.ends[server]), f"{server} is down")
    folder = stack.config.parent
    wait_until(lambda: not (Path("/proc") / str(pid) / "exe").exists(), f"{server} has ended")
    harness.run("local", "up", "--dir", folder, cwd=folder.parent)


@pytest.fixture
def elsewhere(own: Stack) -> Iterator[Namespace]:
    """Give another host that reaches the replica over the network; Kafka and Connect by relays."""
    with network.namespace() as host, contextlib.ExitStack() as relays:
        ports = [int(own.kafka.rpartition(":")[2]), urlsplit(own.connect).port or 0]
        for port in ports:
            relay = relays.enter_context(contextlib.closing(Relay(host, port)))
            relay.open()
        with reachable(own, host.here):
            yield host


def test_a_standby_takes_over_when_the_active_daemon_s_host_vanishes(
    filled: Stream, elsewhere: Namespace, record_property: Callable[[str, object], None]
) -> None:
    """The server itself lets go of the lost daemon's lock; the daemon stands by when it is back."""
    witness = refusals.Witness(filled, [])
    there = witness.moved("r1", host=elsewhere.here, password=witness.password("r1"))
    filled.start("-c", there, "run", "-r", "r1", before=elsewhere.command)
    wait_until(logged(filled, 0, "applying from"), "the daemon on the other host applies")
    filled.start("run", "-r", "r1")
    wait_until(logged(filled, 1, "standing by"), "the daemon here stands by")
    filled.sql("primary", "INSERT INTO t SELECT i, 'before' FROM generate_series(1, 100) i")
    caught_up(filled)
    ((before,),) = filled.sql("r1", "SELECT rows_applied FROM cdc.position")

    with elsewhere.cut():
        started = time.monotonic()
        filled.sql("primary", "UPDATE t SET v = 'cut'")
        wait_until(logged(filled, 1, "applying from"), "the daemon here takes over", TAKEOVER)
        seconds = time.monotonic() - started
        print(f"taken over {seconds:.1f} s after the cut")
        record_property("takeover_seconds", round(seconds, 1))
        caught_up(filled)
        wait_until(logged(filled, 0, "trying again in"), "the lost one has noticed")
    wait_until(logged(filled, 0, "standing by"), "the lost one is back, and waits")
    filled.sql("primary", "UPDATE t SET v = 'both'")
    caught_up(filled)

    filled.daemons[1].kill()
    filled.sql("primary", "UPDATE t SET v = 'back'")
    caught_up(filled)
    assert "after LSN" in filled.log(filled.daemons[0]).partition("standing by")[2]
    # Each row's change was written once, by one of them.
    assert filled.sql("r1", "SELECT rows_applied FROM cdc.position") == [(before + 300,)]
    end(filled, 0)


def test_the_lag_is_true_while_the_replica_is_cut_off(filled: Stream, elsewhere: Namespace) -> None:
    """Packets to the replica vanish: within 2 s of the truth, then unknown, told in time and once each way."""
    filled.sql("primary", markers.TABLE)
    filled.cdc("setup")
    filled.cdc("bootstrap", "-r", "r1")
    witness = refusals.Witness(filled, [])
    there = witness.moved("r1", host=elsewhere.here, password=witness.password("r1"))
    with there.open("a", encoding="utf-8") as config:
        config.write(ALERT)
    port = int(str(conninfo.conninfo_to_dict(filled.primary)["port"]))
    with (
        contextlib.closing(Relay(elsewhere, port)) as primary,
        contextlib.closing(Markers(filled.primary, filled.dsn("r1"))) as truth,
    ):
        primary.open()
        first = len(filled.daemons)
        daemon = filled.start("-c", there, "run", "-r", "r1", before=elsewhere.command)
        watch = filled.start(
            "-c", there, "status", "-r", "r1", "--watch", "--json", before=elsewhere.command
        )

        def told() -> list[dict[str, Any]]:
            """Return what the watch has said of the replica, look by look."""
            whole = [line for line in filled.log(watch).splitlines() if line.endswith("}}}")]
            return [json.loads(line)["replicas"]["r1"] for line in whole]

        def follows() -> bool:
            last = told()[-1:]
            return bool(last) and last[0]["state"] == "live" and last[0]["lag_seconds"] < 1

        def notified() -> list[Any]:
            return receivers.lines(filled.folder / "told.jsonl")

        wait_until(follows, "the watch on the other host sees it follow")
        filled.start("-c", there, "watch", before=elsewhere.command, name="cdc-lag-alert")
        wait_until(logged(filled, first + 2, "watching r1"), "alerts are watched for there")
        with elsewhere.cut():
            at = time.time()
            wait_until(lambda: told()[-1]["lag_state"] == "unknown", "it is unknown")
            wait_until(lambda: len(notified()) == 1, "somebody is told")
            shown = truth.shown()
            during = [look for look in told() if (look["as_of"] or 0) > at + 1]
        wait_until(follows, "it follows again", timeout=120)
        wait_until(lambda: len(notified()) > 1, "somebody is told that it is over")
        watch.kill()
        end(filled, first + 2)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(60) == 0, filled.log(daemon)

    known = [look for look in during if look["lag_seconds"] is not None]
    assert known
    assert [] == [look for look in known if abs(look["as_of"] - shown - look["lag_seconds"]) > 2]
    new, over = notified()
    assert ("new", "unknown", "resolved") == (
        new["notification"],
        new["reason"],
        over["notification"],
    )
    assert dt.datetime.fromisoformat(new["at"]).timestamp() - shown < TARGET


def end(stream: Stream, number: int) -> None:
    """Ask a daemon to stop: it never exited by itself, and does now with 0."""
    daemon = stream.daemons[number]
    assert daemon.poll() is None, stream.log(daemon)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(60) == 0, stream.log(daemon)


def test_kafka_falls_silent(filled: Stream, own: Stack) -> None:
    """A broker that takes connections and says nothing: status and log name it; SIGTERM ends it."""
    first = len(filled.daemons)
    filled.start("run", "-r", "r1")
    wait_until(logged(filled, first, "applying from"), "the daemon applies")
    broker = pids(own)["kafka"]
    os.kill(broker, signal.SIGSTOP)
    try:

        def told() -> bool:
            said = json.loads(filled.cdc("status", "--json", check=False).stdout)["replicas"]["r1"]
            return said["daemon"] == "waiting" and "does not answer" in said["error"]

        wait_until(told, "status says that Kafka does not answer")
        wait_until(logged(filled, first, "does not answer"), "and so does the log")
        filled.sql(
            "primary", "INSERT INTO t SELECT i, 'meanwhile' FROM generate_series(101, 200) i"
        )
        until = time.monotonic() + SILENCE
        wait_until(lambda: time.monotonic() > until, "it was silent for long enough", SILENCE + 60)
        second = len(filled.daemons)
        filled.start("run", "-r", "r1")
        wait_until(logged(filled, second, "INFO"), "a second daemon has begun")
        end(filled, second)
    finally:
        os.kill(broker, signal.SIGCONT)
    caught_up(filled)
    end(filled, first)


def test_primary_and_replica_are_restarted(filled: Stream, own: Stack) -> None:
    """An orderly shutdown of either server ends no daemon; all that was written arrives."""
    first = len(filled.daemons)
    filled.start("run", "-r", "r1")
    for number, server in enumerate(("r1", "primary")):
        with psycopg.connect(filled.primary) as primary:
            primary.execute("UPDATE t SET v = %s", [f"before {number}"])
        restart(own, server)
        with psycopg.connect(filled.primary) as primary:
            primary.execute("UPDATE t SET v = %s", [f"after {number}"])
        caught_up(filled)
    assert "trying again in" in filled.log(filled.daemons[first])
    end(filled, first)
