"""What holds a replica up, in words."""

from __future__ import annotations

from typing import Any

import pytest
from test_status import RUNS, replica

from cdc import explanation
from cdc.errors import CdcError, Unreachable
from cdc.lag import Lag, State
from cdc.readings import Capture, Daemon, ReplicaReading, Writer


def why(state: State, found: ReplicaReading, capture: Capture | None = RUNS, **unread: Any) -> str:
    told = explanation.added(
        Lag("r1", 1000.0, 70.0, state, heartbeat_age=72.0), found, capture, unread
    )
    return told.why or ""


def silent(end: str) -> CdcError:
    return Unreachable(f"{end} does not answer", safe="", next="")


FAILED = Capture("task 0 FAILED", False, (0,), ("boom",), "the connector has failed: boom")
POISON = Capture("task 0 RUNNING", True, (), (), None, "ERROR a value out of range")


@pytest.mark.parametrize(
    ("state", "found", "more", "said"),
    [
        ("unknown", replica(), {"primary": silent("the primary")}, "the primary does not answer"),
        ("unknown", replica(position=None), {}, "`cdc bootstrap`"),
        ("heartbeat failing", replica(), {}, "no heartbeat for 72 s"),
        ("not moving", replica(writer=None), {}, "no daemon holds the writer's lock"),
        ("not moving", replica(daemon=Daemon("waiting", "waits: full", 1)), {}, "waits: full"),
        ("not moving", replica(writer=Writer(1, 42.0)), {}, "done nothing for 42 s: it hangs"),
        ("not moving", replica(), {}, "a large transaction"),
        ("not fed", replica(), {"capture": FAILED}, "has failed: boom"),
        ("not fed", replica(), {"kafka": silent("Kafka"), "capture": None}, "Kafka does not"),
        ("not fed", replica(), {}, "no heartbeat has come out of the connector for 72 s"),
        ("not fed", replica(), {"capture": POISON}, "ERROR a value out of range"),
        ("following", replica(), {"capture": FAILED}, "has failed: boom"),
        ("following", replica(), {}, ""),
    ],
)
def test_each_standstill_is_explained(
    state: State, found: ReplicaReading, more: dict[str, Any], said: str
) -> None:
    """The nearest cause is told, and none where there is none."""
    told = why(state, found, **more)

    assert said in told
    assert bool(said) == bool(told)
