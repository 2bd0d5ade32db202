"""The watcher where nothing answers: no primary, no replica, no Kafka, no Connect.

`CDC_ALERT_OUTAGE` are the seconds for which a webhook is down; minutes where somebody asks for them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import harness
import pytest
import receivers
import requests
from harness import wait_until

OUTAGE = float(os.environ.get("CDC_ALERT_OUTAGE", "4"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Give a configuration whose every address is closed; the paths in it are relative to it."""
    port = receivers.free_port
    folder = tmp_path / "etc"
    folder.mkdir()
    told = json.dumps(["sh", "-c", f"cat >> {tmp_path}/told.jsonl; echo >> {tmp_path}/told.jsonl"])
    path = folder / "cdc.toml"
    path.write_text(f"""\
name = "app"
state_dir = "state"
[primary]
dsn = "host=127.0.0.1 port={port()} dbname=app user=cdc"
[kafka]
bootstrap_servers = "127.0.0.1:{port()}"
[connect]
url = "http://127.0.0.1:{port()}"
[replicas.r1]
dsn = "host=127.0.0.1 port={port()} dbname=app user=cdc password=n0-secret"
[alert]
interval = "500ms"
for = "1s"
grace = "0s"
listen = "127.0.0.1:{port()}"
[[alert.hooks]]
kind = "command"
argv = {told}
""")
    return path


def watch(config: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [*harness.program("cdc-lag-alert"), "-c", str(config), "watch"],
            cwd=config.parent.parent,
            env=harness.environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def test_that_nothing_answers_is_told_once(config: Path, tmp_path: Path) -> None:
    """The lag is unknown, and why; a watcher that is ended or killed and comes back says it no more."""
    told, log = tmp_path / "told.jsonl", tmp_path / "log"
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        before = log.read_text() if log.exists() else ""
        watcher = watch(config, log)
        try:
            wait_until(lambda: len(receivers.lines(told)) == 1, "it is told")
            listen = config.read_text().partition('listen = "')[2].partition('"')[0]
            wait_until(partial(fires, listen), "it has looked again")
            watcher.send_signal(number)
            assert watcher.wait(60) == (0 if number == signal.SIGTERM else -number)
        finally:
            watcher.kill()
            watcher.wait()
        assert "Traceback" not in log.read_text()[len(before) :]

    (document,) = receivers.lines(told)
    assert ("new", "critical", "unknown") == (
        document["notification"], document["severity"], document["reason"],
    )  # fmt: skip
    assert "how far r1 is behind is unknown: cannot connect to PostgreSQL" in document["summary"]
    assert "n0-secret" not in log.read_text() + told.read_text()
    assert (config.parent / "state/alerts.json").exists()


def fires(listen: str) -> bool:
    """Tell whether the watcher serves that an alert fires."""
    try:
        text = requests.get(f"http://{listen}/metrics", timeout=5).text
    except requests.RequestException:
        return False
    return 'cdc_alert_firing{replica="r1"} 1.0' in text


def test_a_webhook_that_was_down_hears_it_once(config: Path, tmp_path: Path) -> None:
    """While it is down each try is counted, through a restart as well; then it is told once."""
    log = tmp_path / "log"
    refused = "answers 503 Service Unavailable; 1 waiting, trying again in"
    with receivers.server() as server:
        server.status = 503
        with config.open("a") as more:
            more.write(f'[[alert.hooks]]\nkind = "webhook"\nurl = "{server.url}"\n')
        with watching(config, log):
            wait_until(lambda: refused in log.read_text(), "it is refused")
            time.sleep(OUTAGE / 2)  # the time itself is what is tested
        said = len(log.read_text())
        with watching(config, log):
            wait_until(lambda: refused in log.read_text()[said:], "it is refused again", 120)
            time.sleep(OUTAGE / 2)
            assert [] == server.requests
            server.status = 200
            wait_until(lambda: len(server.requests) == 1, "it is told", 120)
    state = json.loads((config.parent / "state/alerts.json").read_text())
    runs = state["outboxes"][f"webhook {server.url.removeprefix('http://')}"]["runs"]
    print(f"down for {OUTAGE:.0f} s: {runs}")

    assert 1 == runs["ok"] == len(server.requests)
    assert 2 <= runs["refused"]


@contextlib.contextmanager
def watching(config: Path, log: Path) -> Iterator[None]:
    """Watch meanwhile; the watcher ends in order afterwards."""
    watcher = watch(config, log)
    try:
        yield
        watcher.send_signal(signal.SIGTERM)
        assert watcher.wait(60) == 0
    finally:
        watcher.kill()
        watcher.wait()


def test_once_says_why_it_is_unknown(config: Path) -> None:
    """Nagios gets its line and exit code 3 though nothing answers."""
    done = harness.run("-c", config, "once", cwd=config.parent, check=False, name="cdc-lag-alert")

    assert 3 == done.returncode
    assert done.stdout.startswith("CDC UNKNOWN - how far r1 is behind is unknown: cannot connect")
    assert "n0-secret" not in done.stdout + done.stderr
