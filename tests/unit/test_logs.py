"""Log lines: for people and as JSON, and what never stands in one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from cdc import daemon, logs
from cdc.batch import Batch
from cdc.config import Config, Connect, Kafka, Primary, Replica
from cdc.events import End
from cdc.gauge import Gauge
from cdc.position import Position

CONFIG = Config(
    name="app",
    primary=Primary(dsn="host=db user=cdc password='geheim 1'"),
    kafka=Kafka(bootstrap_servers="k:1", options={"sasl.password": "geheim2", "client.id": "cdc"}),
    connect=Connect(
        url="http://admin:geheim%203@connect:8083", options={"my.secret": "${file:/x:y}"}
    ),
    replicas={"r1": Replica(dsn="postgresql://cdc:geheim4@db2/app")},
)


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Give the loggers back as they were."""
    root, batches = logging.getLogger("cdc"), logging.getLogger(logs.BATCHES)
    before = (root.handlers[:], root.level, root.propagate, batches.level)
    yield
    root.handlers[:], root.level, root.propagate, batches.level = before


def applied() -> None:
    """Let a batch of one transaction be applied, as the daemon does."""
    end = End(7, 0x2000, 3, {}, 1_700_000_000_000, 41, None, 1_700_000_000_100)
    at = Position("app", "cdc.app", "id", 42, None, 0x2000, "7", 1, (), 0)
    daemon.Summary(0.0, Gauge("r1")).batch(Batch([], [end], None, 1), at, 0.25)


def test_a_batch_is_one_json_line_with_the_names_of_ecs(capsys: pytest.CaptureFixture[str]) -> None:
    """What a program needs of a batch stands under its own name, times and durations in ECS' units."""
    logs.configure(0, "json")

    applied()
    found: dict[str, Any] = json.loads(capsys.readouterr().err)

    assert found["@timestamp"].endswith("Z")
    assert 0 < found.pop("cdc.commit_age_seconds")
    assert {
        "log.level": "info",
        "event.action": "batch-applied",
        "event.duration": 250_000_000,
        "cdc.replica": "r1",
        "cdc.transactions": 1,
        "cdc.skipped": 1,
        "cdc.lsn": "0/2000",
        "cdc.next_offset": 42,
    }.items() <= found.items()


@pytest.mark.parametrize(("verbose", "lines"), [(0, 0), (1, 1)])
def test_people_see_batches_when_they_ask(
    verbose: int, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without -v a person is not told of each batch."""
    logs.configure(verbose)

    applied()

    assert lines == capsys.readouterr().err.count("batch of 1 transactions")


@pytest.mark.parametrize("form", ["console", "json"])
def test_secrets_never_stand_in_a_line(
    form: logs.Format, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither values the configuration holds, nor what stands where secrets do, nor in tracebacks."""
    logs.configure(0, form, logs.secrets(CONFIG))
    log = logging.getLogger("cdc.test")

    log.warning("cannot connect: %s", CONFIG.primary.dsn)
    log.warning("%s, %s", CONFIG.connect.url, CONFIG.replica("r1").dsn)
    log.warning("somebody said geheim2", extra={"cdc.note": "geheim2"})
    log.warning(
        'user=x password=unheard-of, {"sasl.password": "unheard-of"}, amqp://u:unheard-of@h'
    )
    try:
        raise ValueError("password='unheard-of' geheim4")  # noqa: TRY301 -- a library's error
    except ValueError:
        log.exception("it failed")

    said = capsys.readouterr().err
    assert "geheim" not in said
    assert "unheard-of" not in said
    assert "cannot connect" in said
    assert "ValueError" in said
