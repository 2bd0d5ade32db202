"""What the daemon sees of its connector's settings."""

from __future__ import annotations

import logging
import threading

import pytest
from test_connectors import config
from test_connectors_rest import Worker, refusal, worker

from cdc import connectors, guard
from cdc.connectors import FIXED
from cdc.errors import ConfigError, ConnectRefused
from cdc.guard import Guard, Patience

__all__ = ["worker"]  # the fixture

EXACT = connectors.render(config()).config

RUNNING = {"connector": {"state": "RUNNING"}, "tasks": [{"id": 0, "state": "RUNNING"}]}
FAILED = {
    "connector": {"state": "RUNNING"},
    "tasks": [{"id": 0, "state": "FAILED", "trace": "a.b.Exception: told\n\tat x\nCaused by: why"}],
}


def without(key: str) -> dict[str, str]:
    return {name: value for name, value in EXACT.items() if name != key}


def look(found: Guard) -> None:
    """Start a look in the background and wait until it has ended."""
    found.again()
    for thread in threading.enumerate():
        if thread.name == "guard":
            thread.join()


def test_the_shipped_definition_loses_nothing() -> None:
    """What apply writes is what the daemon asks for, whatever options lie over it."""
    assert () == connectors.losing(config(), EXACT)
    assert () == connectors.losing(config(), EXACT | {"max.batch.size": "99"})


@pytest.mark.parametrize(
    "key",
    sorted(FIXED - {"name", "tasks.max", "tombstones.on.delete", "heartbeat.action.query"}),
)
def test_a_setting_left_out_or_changed_is_named(key: str) -> None:
    """Every setting that rows or values rest on is named with what was found and what is needed."""
    absent = connectors.losing(config(), without(key))
    other = connectors.losing(config(), EXACT | {key: "something else"})

    assert [(key, None, EXACT[key])] == [(c.key, c.connect, c.file) for c in absent]
    assert [(key, "something else", EXACT[key])] == [(c.key, c.connect, c.file) for c in other]


@pytest.mark.parametrize(
    "key",
    [
        "table.include.list",
        "schema.exclude.list",
        "column.exclude.list",
        "message.prefix.include.list",
        "column.mask.with.8.chars",
        "column.truncate.to.20.chars",
        "skip.messages.without.change",
        "post.processors",
        "transforms.stream.predicate",
    ],
)
def test_a_filter_is_named_in_connect_and_refused_in_the_configuration(key: str) -> None:
    """Nothing may leave out or alter events where the counts in the stream still agree."""
    found = connectors.losing(config(), EXACT | {key: "x"})

    assert [(key, "x", None)] == [(c.key, c.connect, c.file) for c in found]
    with pytest.raises(ConfigError, match=key):
        connectors.render(config(options={key: "x"}))


def test_the_first_look_refuses_a_lossy_connector(worker: Worker) -> None:
    """The refusal names key, found and needed value, and the command that leads out."""
    lossy = without("value.converter.replace.null.with.default")
    worker.answers = [(200, lossy), (200, RUNNING)]

    with pytest.raises(ConnectRefused) as refused:
        Guard(config(url=worker.url)).first()

    assert "value.converter.replace.null.with.default is not set, must be false" in str(
        refused.value
    )
    assert "cdc connectors apply" in refused.value.next
    assert 'check.accept: [check] accept = ["connector-values"]' in refused.value.next
    assert ("GET", "/connectors/cdc_app/config", None) == worker.asked[0]


def test_drift_is_noticed_while_running(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connector changed under a running daemon stops it at the next look."""
    monkeypatch.setattr(guard, "EVERY", 0.0)
    worker.answers = [
        (200, EXACT),
        (200, RUNNING),
        (200, EXACT | {"skipped.operations": "t"}),
        (200, RUNNING),
    ]
    found = Guard(config(url=worker.url))
    found.first()
    look(found)

    with pytest.raises(ConnectRefused, match=r"skipped\.operations is t, must be none"):
        found.again()


def test_between_two_looks_nothing_is_asked(worker: Worker) -> None:
    """A look less than a minute old will do, also for a new session."""
    worker.answers = [(200, EXACT), (200, RUNNING)]
    found = Guard(config(url=worker.url))
    for _ in range(5):
        found.first()
        found.again()

    assert 2 == len(worker.asked)


def test_a_failed_connector_is_named_once_and_so_is_its_return(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The daemon goes on with what is there, and says why nothing new comes."""
    monkeypatch.setattr(guard, "EVERY", 0.0)
    monkeypatch.setattr(logging.getLogger("cdc"), "propagate", True)
    for state in (FAILED, FAILED, RUNNING):
        worker.answers += [(200, EXACT), (200, state)]
    found = Guard(config(url=worker.url))
    with caplog.at_level(logging.INFO, "cdc.guard"):
        for _ in range(3):
            look(found)

    assert [
        (
            "the connector cdc_app has failed (connector RUNNING, task 0 FAILED): "
            "a.b.Exception: told; Caused by: why; applying what the topic holds"
        ),
        "the connector runs again",
    ] == [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (refusal(404, "Connector cdc_app not found"), "has no connector cdc_app"),
        (refusal(401, "User cannot access the resource."), "401: User cannot access"),
        (refusal(409, "rebalancing"), "409: rebalancing"),
    ],
)
def test_what_cannot_be_seen_does_not_stop_the_daemon(
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answer: tuple[int, object],
    told: str,
) -> None:
    """It warns once, goes on, and says when the settings can be seen again."""
    monkeypatch.setattr(guard, "EVERY", 0.0)
    monkeypatch.setattr(logging.getLogger("cdc"), "propagate", True)
    worker.answers = [answer, answer, (200, EXACT), (200, RUNNING)]
    found = Guard(config(url=worker.url))
    with caplog.at_level(logging.INFO, "cdc.guard"):
        found.first()
        look(found)
        look(found)

    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert 1 == len(warnings)
    assert told in warnings[0]
    assert "s3cret" not in caplog.text
    assert "can be seen now" in caplog.text


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((200, RUNNING), None),
        ((200, FAILED), "has failed (connector RUNNING, task 0 FAILED): a.b.Exception: told"),
        (
            (200, {"connector": {"state": "PAUSED"}, "tasks": [{"id": 0, "state": "PAUSED"}]}),
            "is held: connector PAUSED, task 0 PAUSED",
        ),
        (
            (200, {"connector": {"state": "RUNNING"}, "tasks": [{"id": 0, "state": "RESTARTING"}]}),
            "does not run yet: connector RUNNING, task 0 RESTARTING",
        ),
        ((200, {"connector": {"state": "RUNNING"}, "tasks": []}), "does not run yet"),
        (refusal(404, "No status found"), "has no connector cdc_app"),
        (refusal(401, "User cannot access the resource."), "401: User cannot access"),
    ],
)
def test_what_holds_the_connector_up(
    worker: Worker, answer: tuple[int, object], told: str | None
) -> None:
    """Only a connector whose task runs is held up by nothing; what cannot be told is said."""
    worker.answers = [answer]

    found = Guard(config(url=worker.url)).holdup()

    assert (told is None) == (found is None)
    assert (told or "") in (found or "")


def test_a_running_connector_is_given_its_time() -> None:
    """The time begins anew whenever the connector was held up, and then never ends meanwhile."""
    patience = Patience(60.0)
    looks: list[tuple[float, str | None]] = [
        (0.0, None), (59.0, None), (61.0, "failed"), (9_999.0, "failed"),
        (10_000.0, None), (10_059.0, None), (10_060.0, None),
    ]  # fmt: skip

    assert [False] * 6 + [True] == [patience.spent(holdup, now) for now, holdup in looks]
