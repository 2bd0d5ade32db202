"""`cdc connectors` against a real Kafka Connect."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from harness import Stack, Stream, answers, edit, run, wait_until

from cdc import cli, leaving

pytestmark = pytest.mark.stack


@pytest.fixture
def made(stream: Stream) -> Stream:
    """Give a stream that is set up and has no connector yet."""
    stream.sql("primary", "CREATE TABLE t (id int PRIMARY KEY)")
    stream.cdc("setup")
    return stream


def stored(stream: Stream) -> dict[str, str]:
    """Return what Connect has stored of the connector."""
    answer = requests.get(f"{stream.connect}/connectors/cdc_{stream.name}/config", timeout=30)
    answer.raise_for_status()
    return dict(answer.json())


def put(stream: Stream, **changes: str) -> None:
    """Change the connector as somebody else would, past the files."""
    config = {**stored(stream), **{k.replace("__", "."): v for k, v in changes.items()}}
    url = f"{stream.connect}/connectors/cdc_{stream.name}/config"
    requests.put(url, json=config, timeout=60).raise_for_status()


def refused(done: subprocess.CompletedProcess[str], *says: str, code: int = 1) -> None:
    """Assert that a command gave up with a message in three parts that says all of `says`."""
    assert code == done.returncode, done.stderr
    assert "Traceback" not in done.stderr
    for part in ("cdc: ", "\n  data: ", "\n  next: ", *says):
        assert part in done.stderr, done.stderr


def first_event(stream: Stream, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Read the topic from its start until a value is `wanted`."""
    consumer = Consumer({"bootstrap.servers": stream.kafka, "group.id": "test"})
    consumer.assign([TopicPartition(stream.topic, 0, OFFSET_BEGINNING)])
    try:
        for _ in range(600):
            message = consumer.poll(0.1)
            if message is None or message.error():
                continue
            value: dict[str, Any] = json.loads(message.value() or b"{}")
            if wanted(value):
                return value
    finally:
        consumer.close()
    raise AssertionError("no such event within a minute")


def is_row(value: dict[str, Any]) -> bool:
    return value.get("op") == "c"


def test_apply_creates_a_connector_that_runs(made: Stream) -> None:
    """After apply rows flow, and heartbeats say which server and timeline they come from."""
    done = made.cdc("connectors", "apply")

    assert "created; connector RUNNING, task 0 RUNNING" in done.stdout
    made.sql("primary", "INSERT INTO t VALUES (7)")
    assert {"id": "7"} == first_event(made, is_row)["after"]
    beat = first_event(made, lambda v: v.get("message", {}).get("prefix") == "cdc.heartbeat")
    content = json.loads(base64.b64decode(beat["message"]["content"]))
    ((system,),) = made.sql("primary", "SELECT system_identifier::text FROM pg_control_system()")
    ((now,),) = made.sql("primary", "SELECT extract(epoch FROM clock_timestamp())::float8")
    assert (system, 1) == (content["system"], content["timeline"])
    assert 0 <= now - content["ts"] < 600
    ((ahead,),) = made.sql(
        "primary", "SELECT pg_current_wal_insert_lsn() >= %s::pg_lsn", [content["lsn"]]
    )
    assert ahead


def test_apply_again_does_nothing(made: Stream) -> None:
    """An unchanged definition is not sent: the task goes on undisturbed."""
    made.cdc("connectors", "apply")
    log = made.stack.config.parent / "logs" / "connect.log"
    starts = f"cdc_{made.name}-0}} Source task finished initialization and start"
    before = log.read_text(errors="replace").count(starts)

    assert "unchanged; connector RUNNING" in made.cdc("connectors", "apply").stdout
    assert 0 == made.cdc("connectors", "diff").returncode
    assert before == log.read_text(errors="replace").count(starts)


def test_connect_stores_no_password(made: Stream) -> None:
    """What Connect has stored, for everyone to read, is a reference to the worker's file."""
    made.cdc("connectors", "apply")
    secrets = (made.stack.config.parent / "connect-secrets.properties").read_text("ascii")
    password = secrets.strip().removeprefix("password=")

    everything = requests.get(
        f"{made.connect}/connectors?expand=info&expand=status", timeout=30
    ).text
    assert stored(made)["database.password"].startswith("${file:")
    assert password not in everything


def test_foreign_drift_is_shown_and_undone(made: Stream) -> None:
    """Keys that somebody changed or added are listed, secrets masked, and apply puts them back."""
    made.cdc("connectors", "apply")
    before = stored(made)
    put(made, poll__interval__ms="500", value__converter__replace__null__with__default="true",
        producer__override__ssl__key__password="hunter2")  # fmt: skip

    seen = made.cdc("connectors", "diff", check=False)
    machine = made.cdc("connectors", "diff", "--json", check=False)
    dry = made.cdc("connectors", "apply", "--dry-run")

    assert (1, 1) == (seen.returncode, machine.returncode)
    for line in ("  poll.interval.ms\n    - 500\n    + 10", "    - ********\n    + (not set)",
                 "  value.converter.replace.null.with.default\n    - true\n    + false"):  # fmt: skip
        assert line in seen.stdout
    assert {"key": "poll.interval.ms", "connect": "500", "file": "10"} in json.loads(
        machine.stdout
    )["changes"]
    assert "would be changed" in dry.stdout
    assert before != stored(made)
    done = made.cdc("connectors", "apply")
    assert "changed; connector RUNNING" in done.stdout
    assert before == stored(made)
    assert "hunter2" not in f"{seen.stdout}{seen.stderr}{dry.stdout}{done.stdout}{done.stderr}"


def test_a_failed_task_is_told_shortly_and_mended(made: Stream) -> None:
    """Status and restart show the first line and the deepest cause; apply mends the cause."""
    made.cdc("connectors", "apply")
    put(made, publication__name="nowhere")
    wait_until(
        lambda: "FAILED" in made.cdc("connectors", "status", check=False).stdout,
        "the task has failed",
    )

    seen = made.cdc("connectors", "status", check=False)
    again = made.cdc("connectors", "restart", check=False)

    assert 1 == seen.returncode
    assert "Caused by: " in seen.stdout
    assert 3 == len(seen.stdout.splitlines()), seen.stdout
    refused(again, "task 0 FAILED", "Publication", "cdc connectors restart")
    assert "changed; connector RUNNING" in made.cdc("connectors", "apply").stdout
    assert 0 == made.cdc("connectors", "status").returncode


def test_restart_loses_nothing(made: Stream) -> None:
    """What is written around a restart arrives."""
    made.cdc("connectors", "apply")
    made.sql("primary", "INSERT INTO t VALUES (1)")

    assert "restarted; connector RUNNING" in made.cdc("connectors", "restart").stdout

    made.sql("primary", "INSERT INTO t VALUES (2)")
    first_event(made, lambda v: is_row(v) and v["after"] == {"id": "1"})
    first_event(made, lambda v: is_row(v) and v["after"] == {"id": "2"})


@pytest.mark.parametrize("action", ["pause", "stop"])
def test_apply_resumes_what_somebody_held(made: Stream, action: str) -> None:
    """A connector that was paused or stopped past the files runs again after apply."""
    made.cdc("connectors", "apply")
    url = f"{made.connect}/connectors/cdc_{made.name}/{action}"
    requests.put(url, timeout=30).raise_for_status()
    state = {"pause": "PAUSED", "stop": "STOPPED"}[action]
    wait_until(
        lambda: state in made.cdc("connectors", "status", check=False).stdout, f"it is {state}"
    )

    done = made.cdc("connectors", "apply")

    assert "resumed" in done.stderr
    assert "unchanged; connector RUNNING, task 0 RUNNING" in done.stdout


def test_delete_keeps_offsets_and_slot(made: Stream) -> None:
    """Deleted and created again, the connector goes on where it was and skips nothing."""
    made.cdc("connectors", "apply")
    made.sql("primary", "INSERT INTO t VALUES (1)")
    first_event(made, is_row)

    assert "would be deleted" in made.cdc("connectors", "delete", "--dry-run").stdout
    done = made.cdc("connectors", "delete")

    assert "offsets stay" in done.stderr
    # Connect says for a moment that nobody runs it.
    wait_until(lambda: made.cdc("connectors", "status", check=False).stdout == "", "it is gone")
    refused(made.cdc("connectors", "status", check=False), "there is no connector")
    assert "was not there" in made.cdc("connectors", "delete").stdout
    made.sql("primary", "INSERT INTO t VALUES (2)")
    made.cdc("connectors", "apply")
    late = first_event(made, lambda v: is_row(v) and v["after"] == {"id": "2"})
    assert json.loads(late["source"]["sequence"])[0] is not None


def test_a_dry_run_asks_nobody_for_the_slot(made: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether somebody reads from the slot matters only to who waits for the connector."""
    asked: list[str] = []
    monkeypatch.setattr(leaving, "slot", lambda _conn, name: asked.append(name))

    done = CliRunner().invoke(cli.cdc, ["-c", str(made.config), "connectors", "apply", "--dry-run"])

    assert (0, []) == (done.exit_code, asked), done.output
    assert "would be created" in done.output


def test_offsets_written_after_their_deletion_are_deleted_too(made: Stream) -> None:
    """What a task that Connect has abandoned writes late is not where the next connector begins."""
    made.cdc("connectors", "apply")
    url = f"{made.connect}/connectors/cdc_{made.name}/offsets"

    def offsets() -> list[Any]:
        answer = requests.get(url, timeout=30)
        answer.raise_for_status()  # which a connector that is deleted by now is not past
        return list(answer.json()["offsets"])

    wait_until(lambda: offsets() != [], "the connector has offsets")
    old = offsets()
    deleting = made.start("connectors", "delete", "--offsets")
    wait_until(lambda: offsets() == [], "they are deleted")
    requests.patch(url, json={"offsets": old}, timeout=60).raise_for_status()

    wait_until(lambda: offsets() == [], "they are deleted again")
    assert 0 == deleting.wait(90), made.log(deleting)


def test_refusals_are_named_per_key(made: Stream) -> None:
    """What Connect finds wrong is listed before anything is created."""
    edit(made, r"^port = .*$", "port = 1")

    refused(made.cdc("connectors", "apply", check=False), "refuses the definition", "  database.")
    assert (
        requests.codes.not_found
        == requests.get(f"{made.connect}/connectors/cdc_{made.name}", timeout=30).status_code
    )


def test_options_that_lose_data_are_refused(made: Stream) -> None:
    """A key that exactness rests on cannot be set by an option: usage error, nothing sent."""
    edit(made, r"^\[connect\]$", '[connect]\noptions = {"skipped.operations" = "t"}')

    refused(made.cdc("connectors", "apply", check=False), "skipped.operations", code=2)


def test_without_setup_nothing_starts(stream: Stream) -> None:
    """No topic: the connector is not created, and the message says what to run."""
    if not stream.least:  # whose role of the daemon nobody has made yet
        refused(
            stream.cdc("connectors", "apply", check=False), "refuses the definition", "password"
        )
    stream.sql("primary", "CREATE TABLE t (id int PRIMARY KEY)")
    stream.cdc("setup")
    edit(stream, r"^\[kafka.topic\]$", '[kafka.topic]\nname = "absent"')

    refused(stream.cdc("connectors", "apply", check=False), "absent does not exist", "`cdc setup`")


def test_nobody_answers(made: Stream) -> None:
    """An address where no worker listens is an error that names it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        edit(made, r"^url = .*$", f'url = "http://127.0.0.1:{free.getsockname()[1]}"')

        refused(made.cdc("connectors", "status", check=False), "does not answer", "connect.url")


def test_the_plugin_is_written_out(made: Stream) -> None:
    """`connectors plugin` writes a jar that holds the connector's class."""
    made.cdc("connectors", "plugin", "out.jar")

    with zipfile.ZipFile(made.folder / "out.jar") as jar:
        assert "cdc/capture/ExactConnector.class" in jar.namelist()


@pytest.fixture
def bare_worker(stack: Stack, tmp_path: Path) -> Iterator[str]:
    """Give the address of a Connect worker that has no plugins, in a group of its own."""
    local = stack.config.parent
    found = run("local", "status", "--json", "--dir", local, cwd=tmp_path).stdout
    running = Path("/proc") / str(json.loads(found)["pids"]["connect"])
    *java, settings = running.joinpath("cmdline").read_bytes().decode().rstrip("\0").split("\0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    own = {"group.id": "bare", "listeners": url, "plugin.path": str(tmp_path / "none"),
           **{f"{kind}.storage.topic": f"bare-{kind}" for kind in ("offset", "config", "status")}}  # fmt: skip
    (tmp_path / "none").mkdir()
    lines = Path(settings).read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.partition("=")[0] not in own]
    properties = tmp_path / "bare.properties"
    properties.write_text("\n".join([*kept, *(f"{k}={v}" for k, v in own.items())]))
    with (tmp_path / "bare.log").open("wb") as log:
        worker = subprocess.Popen([*java, properties], cwd=tmp_path, stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(f"{url}/connectors"), "the bare worker answers", timeout=120)
        yield url
    finally:
        worker.terminate()
        worker.wait()


def test_a_worker_without_the_plugin(made: Stream, bare_worker: str) -> None:
    """The message says which class is missing, how to get its jar and where to put it."""
    edit(made, r"^url = .*$", f'url = "{bare_worker}"')

    refused(made.cdc("connectors", "apply", check=False), "does not have the plugin",
            "cdc.capture.ExactConnector", "cdc connectors plugin")  # fmt: skip


def test_an_identity_by_another_index_becomes_the_key(stream: Stream) -> None:
    """Tables with REPLICA IDENTITY USING INDEX get that index as message key; diff shows when it changes."""
    stream.sql(
        "primary",
        """
        CREATE SCHEMA "o.dd, s";
        CREATE TABLE "o.dd, s"."T;:x" (id int PRIMARY KEY, "u v" int NOT NULL UNIQUE, "w.x" int);
        ALTER TABLE "o.dd, s"."T;:x" REPLICA IDENTITY USING INDEX "T;:x_u v_key";
        """,
    )
    stream.cdc("setup")
    stream.cdc("connectors", "apply")
    stream.sql("primary", 'INSERT INTO "o.dd, s"."T;:x" VALUES (1, 2, 3)')
    consumer = Consumer({"bootstrap.servers": stream.kafka, "group.id": "test"})
    consumer.assign([TopicPartition(stream.topic, 0, OFFSET_BEGINNING)])
    keys: list[Any] = []

    def arrived() -> bool:
        message = consumer.poll(0.1)
        if message is not None and is_row(json.loads(message.value() or b"{}")):
            keys.append(json.loads(message.key() or b"null"))
        return bool(keys)

    wait_until(arrived, "the row is in the topic")
    consumer.close()
    assert [{"u v": "2"}] == keys
    assert 0 == stream.cdc("connectors", "diff", check=False).returncode

    stream.sql("primary", 'ALTER TABLE "o.dd, s"."T;:x" REPLICA IDENTITY DEFAULT')
    differs = stream.cdc("connectors", "diff", check=False)
    assert (1, True) == (differs.returncode, "message.key.columns" in differs.stdout)
    stream.cdc("connectors", "apply")
    assert "message.key.columns" not in stored(stream)
