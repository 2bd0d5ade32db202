"""Hooks of every kind against real programs, servers and an Alertmanager: taken, refused, hanging."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import receivers
import requests
from harness import wait_until

from cdc.alert import alertmanager, courier, trial, watcher
from cdc.alert.clock import Clock
from cdc.alert.command import Command
from cdc.alert.delivery import NotTaken
from cdc.alert.judgement import Sample, Thresholds
from cdc.alert.machine import Rules
from cdc.alert.payload import Frame, document
from cdc.alert.settings import AlertmanagerHook, CommandHook, Hook, WebhookHook
from cdc.alert.store import State, Store
from cdc.alert.webhook import Webhook, signature
from cdc.units import Duration

FRAME = Frame("app", Thresholds(180.0, 300.0), "docs/operations.md")
NOTICE = trial.notice(1e9)
RULES = Rules(Thresholds(180.0, 300.0), for_=0.0, clear_for=0.0)


def command(*argv: str, timeout: float = 60) -> Command:
    return Command("hook", CommandHook(argv=argv, timeout=Duration(timeout)), FRAME)


@pytest.fixture
def server() -> Iterator[receivers.Server]:
    """Give a server that keeps what is posted to it."""
    with receivers.server() as one:
        yield one


def test_a_command_gets_the_document_both_ways(tmp_path: Path) -> None:
    """JSON on standard input, CDC_ variables beside the caller's own, no shell in between."""
    script = (
        "import json, os, sys; document = json.load(sys.stdin);"
        "json.dump([document, os.environ['CDC_SUMMARY'], os.environ['PATH'], sys.argv[2]],"
        " open(sys.argv[1], 'w'))"
    )
    command(sys.executable, "-c", script, str(tmp_path / "got"), "$(false) *").tell(NOTICE)

    got = json.loads((tmp_path / "got").read_text())
    assert got == [document(FRAME, NOTICE), NOTICE.summary, os.environ["PATH"], "$(false) *"]


@pytest.mark.parametrize(
    ("argv", "outcome", "said"),
    [
        (["/nowhere/page"], "missing", "page cannot be started: No such file or directory"),
        (["/etc/passwd"], "missing", "passwd cannot be started: Permission denied"),
        (["sh", "-c", "exit 3"], "failed", "sh exited 3"),
        (["sh", "-c", "kill -9 $$"], "failed", "sh was ended by signal 9"),
    ],
)
def test_a_command_that_fails_is_named(argv: list[str], outcome: str, said: str) -> None:
    """Missing, not executable, another exit code than 0, killed: each in its own words."""
    with pytest.raises(NotTaken, match=f"^{said}$") as found:
        command(*argv).tell(NOTICE)
    assert outcome == found.value.outcome


def test_a_command_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    """It gets TERM; what it has started and does not heed that is killed."""
    script = f"""
        (trap '' TERM; echo $BASHPID > {tmp_path}/child; sleep 600) &
        trap 'echo termed > {tmp_path}/parent; exit 0' TERM
        while [ ! -s {tmp_path}/child ]; do sleep 0.1; done
        while true; do sleep 0.1; done
    """
    with pytest.raises(NotTaken, match=r"bash did not end within 3 s and was ended") as found:
        command("bash", "-c", script, timeout=3).tell(NOTICE)

    assert found.value.outcome == "timeout"
    assert (tmp_path / "parent").read_text() == "termed\n"
    child = int((tmp_path / "child").read_text())
    wait_until(lambda: not _lives(child), "the child is gone")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_a_command_prints_is_logged_and_never_fills_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first of it is logged; a command that prints without end is ended like any that hangs."""
    with caplog.at_level(logging.INFO, "cdc"):
        command("sh", "-c", "echo told bob; echo late >&2").tell(NOTICE)
        assert [r.message for r in caplog.records] == ["hook hook: told bob", "hook hook: late"]
        with pytest.raises(NotTaken, match="did not end"):
            command("yes", timeout=1).tell(NOTICE)
    assert 1000 < len(caplog.records) < 5000


def test_a_webhook_is_signed_and_told_apart(server: receivers.Server) -> None:
    """A receiver can check who sent it and when, and knows the same notice again."""
    hook = WebhookHook(url=f"{server.url}/x?token=t", secret="s3cret")
    Webhook("hook", hook, FRAME).tell(NOTICE)
    Webhook("hook", hook, FRAME).tell(NOTICE)

    first, second = server.requests
    assert first.document == document(FRAME, NOTICE)
    assert (
        first.headers["Idempotency-Key"]
        == second.headers["Idempotency-Key"]
        == "app/test/1000000000.000"
    )
    message = first.headers["X-Cdc-Timestamp"].encode() + b"." + first.body
    wanted = hmac.new(b"s3cret", message, hashlib.sha256).hexdigest()
    assert first.headers["X-Cdc-Signature"] == f"sha256={wanted}"
    assert signature("other", first.headers["X-Cdc-Timestamp"], first.body) != wanted


def test_a_webhook_that_does_not_take_it_is_named_without_secrets(server: receivers.Server) -> None:
    """Refused, redirected, gone, hanging: the text has the host and not the path."""

    def trouble(url: str, timeout: float = 30) -> tuple[str, str]:
        with pytest.raises(NotTaken) as found:
            Webhook("hook", WebhookHook(url=url, timeout=Duration(timeout)), FRAME).tell(NOTICE)
        return found.value.outcome, str(found.value)

    host = server.url.removeprefix("http://")
    secret = f"http://user:passw@{host}/T0K3N"
    server.status = 503
    assert trouble(secret) == ("refused", f"{host} answers 503 Service Unavailable")
    server.status = 302
    assert trouble(secret) == ("refused", f"{host} answers 302 Found")
    server.hangs.clear()
    assert trouble(secret, 0.5) == ("timeout", f"{host} does not answer within 0.5 s")
    server.hangs.set()
    gone = f"127.0.0.1:{receivers.free_port()}"
    assert trouble(f"http://{gone}/T0K3N") == ("unreachable", f"{gone}: ConnectionError")


def test_a_hook_that_hangs_delays_no_other(tmp_path: Path, server: receivers.Server) -> None:
    """While a command hangs, a webhook and another command are told at once."""
    file = tmp_path / "told.jsonl"
    hooks: list[Hook] = [
        CommandHook(argv=("sleep", "600"), timeout=Duration(300)),
        WebhookHook(url=server.url),
        CommandHook(argv=("sh", "-c", f"cat >> {file}")),
    ]
    kept, clock = Store(tmp_path), Clock()
    errands = courier.errands(hooks, FRAME)
    assert ["command sleep", "webhook 127.0.0.1:" + server.url[17:], "command sh"] == [
        e.name for e in errands
    ]
    state, _ = watcher.advance(
        State(), {"r1": Sample(200.0)}, clock.now(), RULES, boxes=[e.name for e in errands]
    )
    kept.change(lambda _: state)
    threads = [courier.Courier(errand, kept, clock) for errand in errands]
    with _running(threads):
        wait_until(lambda: len(server.requests) == len(receivers.lines(file)) == 1, "both are told")
        assert kept.state.outboxes["command sleep"].runs == {}
        assert len(kept.state.outboxes["command sleep"].notices) == 1


@contextlib.contextmanager
def _running(threads: list[courier.Courier]) -> Iterator[None]:
    for one in threads:
        one.start()
    try:
        yield
    finally:
        for one in threads:
            one.stop()


def test_alertmanager_hears_what_fires_and_what_is_over(
    tmp_path: Path, server: receivers.Server
) -> None:
    """A real one tells its receiver of each alert once each way, one that got graver included."""
    with receivers.alertmanager(tmp_path, server) as url:
        hook = AlertmanagerHook(urls=(url,), resend=Duration(1))
        kept, clock = Store(tmp_path / "state"), Clock()
        (errand,) = courier.errands([hook], FRAME)

        def see(lag: float) -> None:
            state, _ = watcher.advance(kept.state, {"r1": Sample(lag)}, clock.now(), RULES)
            kept.change(lambda _: state)

        def told() -> list[Any]:
            return [
                sorted((a["labels"]["severity"], a["status"]) for a in d["alerts"])
                for d in server.documents
            ]

        with _running([courier.Courier(errand, kept, clock)]):
            see(200)
            wait_until(lambda: told() == [[("warning", "firing")]], "the warning is told")
            see(400)
            wait_until(
                lambda: (
                    told()[-1] == [("critical", "firing")] or ("critical", "firing") in told()[-1]
                ),
                "it is told as critical",
            )
            see(1)
            wait_until(lambda: ("critical", "resolved") in told()[-1], "it is told as over")
        alert = server.documents[-1]["alerts"][-1]
        assert alert["labels"]["alertname"] == "CdcReplicaLag"
        assert alert["annotations"]["runbook_url"] == "docs/operations.md#a-replica-is-behind"
        assert kept.state.outboxes[errand.name].runs["ok"] >= 3
        requests.post(f"{url}/api/v2/alerts", json=[], timeout=10).raise_for_status()


def test_alertmanager_that_refuses_is_counted_and_tried_again(
    tmp_path: Path, server: receivers.Server
) -> None:
    """One instance that refuses does not keep the other from being told."""
    good, bad = server, receivers.free_port()
    hook = AlertmanagerHook(urls=(f"{good.url}/am", f"http://127.0.0.1:{bad}"), resend=Duration(1))
    kept, clock = Store(tmp_path), Clock()
    errands = courier.errands([hook], FRAME)
    state, _ = watcher.advance(State(), {"r1": Sample(200.0)}, clock.now(), RULES)
    kept.change(lambda _: state)
    with _running([courier.Courier(errand, kept, clock) for errand in errands]):
        wait_until(lambda: len(good.requests) >= 2, "it is told again and again")
        name = f"alertmanager 127.0.0.1:{bad}"
        wait_until(lambda: kept.state.outboxes[name].failures >= 2, "the failures are counted")
    assert good.requests[0].path == "/am/api/v2/alerts"
    assert "ConnectionError" in (kept.state.outboxes[name].last_error or "")


def test_what_fires_again_is_not_sent_as_over() -> None:
    """An alert that ended lately and fires again under the same labels is sent once, as firing."""
    state = State()
    for at, lag in ((1000.0, 200.0), (1010.0, 1.0), (1020.0, 200.0)):
        state, _ = watcher.advance(state, {"r1": Sample(lag)}, at, RULES)

    (found,) = alertmanager.alerts(state, FRAME, 1025.0, 30.0)
    assert found["startsAt"] == "1970-01-01T00:17:00.000Z"
    assert found["endsAt"] == "1970-01-01T00:19:05.000Z"
    after, _ = watcher.advance(state, {"r1": Sample(1.0)}, 1030.0, RULES)
    assert len(after.over) == 2
    later, _ = watcher.advance(after, {"r1": Sample(1.0)}, 1340.0, RULES)
    assert later.over == ()
    assert dataclasses.replace(later, over=()) == later
