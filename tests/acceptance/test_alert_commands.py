"""`cdc-lag-alert` as people, cron and Nagios use it, and its bad input."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import harness
import jsonschema
import pytest
import receivers
import requests
from harness import Stack, Stream, wait_until

from cdc import resources

pytestmark = [pytest.mark.stack]

ALERT = """
[lag]
target = "300s"
warn = "{warn}"

[alert]
interval = "500ms"
for = "0s"
clear_for = "0s"
grace = "0s"
"""


@pytest.fixture(scope="module")
def stream(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """Give a stream whose r1 is filled and whose r2 is not; no daemon runs."""
    with harness.stream(stack, tmp_path_factory.mktemp("alert")) as made:
        made.sql("primary", "CREATE TABLE notes (id int PRIMARY KEY)")
        made.cdc("setup")
        made.cdc("connectors", "apply")
        made.cdc("bootstrap", "-r", "r1")
        yield made


def variant(stream: Stream, folder: Path, *hooks: str, more: str = "", warn: str = "180s") -> Path:
    """Write a configuration with alerts, its state in `folder`."""
    path = stream.folder / f"{folder.name}.toml"
    text = stream.config.read_text(encoding="utf-8").replace(
        'state_dir = "state"', f"state_dir = {json.dumps(str(folder / 'state'))}"
    )
    path.write_text("\n".join([text, ALERT.format(warn=warn), more, *hooks]), encoding="utf-8")
    return path


def hook(kind: str, **keys: object) -> str:
    lines = [f"{key} = {json.dumps(value)}" for key, value in {"kind": kind, **keys}.items()]
    return "\n".join(["[[alert.hooks]]", *lines])


def alert(config: Path, *args: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    return harness.run("-c", config, *args, cwd=config.parent, check=check, name="cdc-lag-alert")


@contextlib.contextmanager
def following(stream: Stream) -> Iterator[subprocess.Popen[bytes]]:
    """Run r1's daemon meanwhile; it follows when this begins."""
    daemon = stream.start("run", "-r", "r1")
    stream.cdc("wait", "-r", "r1", "--now")
    try:
        yield daemon
    finally:
        daemon.kill()
        daemon.wait()


@contextlib.contextmanager
def watching(stream: Stream, config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Watch r1 meanwhile; it ends in order afterwards."""
    watcher = stream.start("-c", str(config), "watch", "-r", "r1", name="cdc-lag-alert")
    try:
        yield watcher
        assert watcher.poll() is None, stream.log(watcher)
        watcher.send_signal(signal.SIGTERM)
        assert watcher.wait(60) == 0, stream.log(watcher)
    finally:
        watcher.kill()
        watcher.wait()


def says(stream: Stream, watcher: subprocess.Popen[bytes], what: str) -> Callable[[], bool]:
    return lambda: what in stream.log(watcher)


def test_once_answers_as_nagios_wants_it(stream: Stream, tmp_path: Path) -> None:
    """One line with what to draw; 0 ok, 1 warning, 2 critical, 3 unknown; the gravest of all."""
    config = variant(stream, tmp_path)
    with following(stream):
        good = alert(config, "once", "-r", "r1")
        unfilled = alert(config, "once")
        strict = alert(variant(stream, tmp_path, warn="1ms"), "once", "-r", "r1", "--json")
        stream.sql("primary", "CREATE TABLE later (id int PRIMARY KEY)")
        astray = alert(config, "once", "-r", "r1")
        stream.sql("primary", "DROP TABLE later")
    stopped = alert(config, "once", "-r", "r1")

    assert (0, "") == (good.returncode, good.stderr)
    assert good.stdout.startswith("CDC OK - r1 is ")
    assert ";180;300;0" in good.stdout
    assert (1, True) == (astray.returncode, astray.stdout.startswith("CDC WARNING - r1 is "))
    assert "public.later matches the patterns and is not published" in astray.stdout
    assert 3 == unfilled.returncode
    assert "how far r2 is behind is unknown" in unfilled.stdout
    assert "r2=U;180;300;0" in unfilled.stdout
    said = json.loads(strict.stdout)
    assert strict.returncode == {"ok": 0, "warning": 1}[said["state"]]
    assert (2, True) == (stopped.returncode, "no daemon applies" in stopped.stdout)


def test_once_says_unknown_when_it_cannot_look(stream: Stream, tmp_path: Path) -> None:
    """A configuration that cannot be read is no "critical": the code is 3, the message on stdout."""
    config = variant(stream, tmp_path, more='colour = "red"')
    done = alert(config, "once")

    assert 3 == done.returncode
    assert done.stdout.startswith("CDC UNKNOWN - ")
    assert "unknown key alert.colour" in done.stdout


def test_cron_tells_once_each_way(stream: Stream, tmp_path: Path) -> None:
    """`once --notify` again and again tells the beginning once and the end once."""
    file = tmp_path / "told.jsonl"
    config = variant(
        stream, tmp_path, hook("command", argv=["sh", "-c", f"cat >> {file}; echo >> {file}"])
    )
    for _ in range(3):
        alert(config, "once", "--notify", "-r", "r1")
    assert ["new"] == [d["notification"] for d in receivers.lines(file)]
    with following(stream):
        for _ in range(3):
            assert 0 == alert(config, "once", "--notify", "-r", "r1").returncode
    assert ["new", "resolved"] == [d["notification"] for d in receivers.lines(file)]


def test_a_test_alert_goes_through_every_hook(stream: Stream, tmp_path: Path) -> None:
    """What each hook did is reported; one that fails makes the exit code 1, secrets stay hidden."""
    with receivers.server() as server, receivers.server() as refusing:
        refusing.status = 401
        good = variant(
            stream,
            tmp_path,
            hook("webhook", url=f"{server.url}/t0ken", secret="${SECRET}"),
            hook("command", argv=["cat"]),
            hook("alertmanager", urls=[f"{server.url}/am"]),
        )
        env = {"SECRET": "s3cret-of-all"}
        done = harness.run("-c", good, "test", cwd=tmp_path, name="cdc-lag-alert", env=env)
        bad = variant(
            stream,
            tmp_path,
            hook("webhook", url=f"{refusing.url}/t0ken"),
            hook("command", argv=["/nowhere/page"]),
            hook("command", argv=["sleep", "600"], timeout="500ms"),
        )
        failed = alert(bad, "test")
        host = refusing.url.removeprefix("http://")

    assert done.stdout.count(": taken") == 3
    documents = {r.path: r.document for r in server.requests}
    jsonschema.validate(documents["/t0ken"], json.loads(resources.text("schemas/alert.json")))
    assert "CdcReplicaLagTest" == documents["/am/api/v2/alerts"][0]["labels"]["alertname"]
    assert "s3cret-of-all" not in done.stdout + done.stderr
    assert (1, [
        f"webhook {host}: NOT TAKEN: {host} answers 401 Unauthorized (refused)",
        "command page: NOT TAKEN: page cannot be started: No such file or directory (missing)",
        "command sleep: NOT TAKEN: sleep did not end within 0.5 s and was ended (timeout)",
    ]) == (failed.returncode, failed.stdout.splitlines())  # fmt: skip
    assert "t0ken" not in failed.stdout + failed.stderr
    assert 1 == alert(variant(stream, tmp_path), "test").returncode


def test_in_a_silence_nobody_is_told_until_it_ends(stream: Stream, tmp_path: Path) -> None:
    """It is listed with its reason; what fires in it is told when it is ended."""
    file = tmp_path / "told.jsonl"
    config = variant(
        stream, tmp_path, hook("command", argv=["sh", "-c", f"cat >> {file}; echo >> {file}"])
    )
    set_ = ["silence", "set", "--for", "1h", "--reason", "new disks", "-r", "r1", "--json"]
    (silence,) = json.loads(alert(config, *set_, check=True).stdout)["silences"]
    assert "new disks" in alert(config, "silence", "list").stdout
    with watching(stream, config) as watcher:
        wait_until(lambda: "nobody is told for now" in stream.log(watcher), "it fires unheard")
        assert [] == receivers.lines(file)
        assert 2 == alert(config, "silence", "end", "nonsense").returncode
        alert(config, "silence", "end", silence["id"], check=True)
        wait_until(lambda: len(receivers.lines(file)) == 1, "it is told")
    assert "nothing is silenced" in alert(config, "silence", "list").stdout


def test_two_watchers_cannot_both_tell(stream: Stream, tmp_path: Path) -> None:
    """The second names the first one's process and ends; so does `once --notify`."""
    config = variant(stream, tmp_path)
    with watching(stream, config) as watcher:
        wait_until(lambda: "watching r1" in stream.log(watcher), "one watches")
        second = alert(config, "watch", "-r", "r1")
        cron = alert(config, "once", "--notify", "-r", "r1")

    assert (1, 3) == (second.returncode, cron.returncode)
    assert f"another cdc-lag-alert (process {watcher.pid}) watches" in second.stderr
    assert f"process {watcher.pid}" in cron.stdout


def test_watching_goes_on_without_port_state_or_hook(stream: Stream, tmp_path: Path) -> None:
    """A port that is taken, a state that cannot be kept, hooks that fail: said, counted, gone on with."""
    (tmp_path / "state").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken, receivers.server() as server:
        port = taken.getsockname()[1]
        config = variant(
            stream,
            tmp_path,
            hook("command", argv=["/nowhere/page"]),
            hook("command", argv=["sleep", "600"], timeout="1s"),
            hook("webhook", url=f"http://127.0.0.1:{receivers.free_port()}/t0ken"),
            hook("webhook", url=server.url),
            more=f'listen = "127.0.0.1:{port}"',
        )
        with watching(stream, config) as watcher:
            for said in (
                f"the HTTP port 127.0.0.1:{port} cannot be opened: Address already in use",
                "the state cannot be kept in",
                "a second watcher would tell everything twice",
                "hook command page: page cannot be started: No such file or directory; 1 waiting",
                "hook command sleep: sleep did not end within 1 s and was ended",
                "ConnectionError; 1 waiting, trying again in",
            ):
                wait_until(says(stream, watcher, said), said)
            assert ["new"] == [d["notification"] for d in server.documents]
            taken.close()
            wait_until(lambda: harness.answers(f"http://127.0.0.1:{port}/metrics"), "it serves", 90)
            metrics = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    assert 'cdc_alert_hook_runs_total{hook="command page",outcome="missing"}' in metrics
    assert 'cdc_alert_hook_waiting{hook="command page"} 1.0' in metrics
    for counted in ("cdc_alert_listen_failures_total", "cdc_alert_state_write_failures_total"):
        assert f"{counted} 0.0" not in metrics
        assert counted in metrics
    assert "t0ken" not in stream.log(watcher)


def test_a_damaged_state_is_said_and_watching_begins_anew(stream: Stream, tmp_path: Path) -> None:
    """Nobody is left in silence: what fires is told, and the damaged file is kept."""
    file = tmp_path / "told.jsonl"
    (tmp_path / "state").mkdir()
    (tmp_path / "state/alerts.json").write_text("{")
    config = variant(stream, tmp_path, hook("command", argv=["sh", "-c", f"cat >> {file}"]))
    with watching(stream, config) as watcher:
        wait_until(file.exists, "it is told")

    assert "it is damaged" in stream.log(watcher)
    assert 1 == len(list((tmp_path / "state").glob("alerts.json.damaged-*")))
