"""The hook `alertmanager`: one instance of one, which is told again and again what fires (API v2).

It forgets what it is not told: while an alert fires it is sent with an end some intervals ahead, and
one that is over is sent as such for five minutes, as Prometheus does. An alert's severity is one of
its labels; one that gets graver is there another alert, and the milder one is over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cdc.alert import webhook
from cdc.alert.judgement import About, Level
from cdc.alert.machine import Notice
from cdc.alert.payload import ALERTS, Frame, utc
from cdc.alert.store import State, Told

#: Intervals that an alert outlives its last sending by.
_OUTLIVES = 4

#: Seconds that a test alert fires: longer than an Alertmanager usually waits for others of its group.
_TRIAL = 120.0

#: Seconds for which one that is over is sent as such.
OVER_FOR = 300.0


def alerts(state: State, frame: Frame, now: float, resend: float) -> list[dict[str, Any]]:
    """Return what an Alertmanager is to be told now: what people were told, and what is over.

    What fires again under the same labels is not over: the older one is left out.
    """
    firing = list(_firing(state, now, resend))
    again = {_labels(told) for told in firing}
    over = (told for told in state.over if _labels(told) not in again)
    return [_alert(frame, told) for told in (*firing, *over)]


def _firing(state: State, now: float, resend: float) -> Iterator[Told]:
    for about in About:
        for replica, memory in state.memories(about).items():
            if memory.told is not None:
                yield Told(
                    replica,
                    memory.told,
                    memory.reason,
                    memory.summary,
                    memory.starts_at,
                    now + _OUTLIVES * resend,
                    about,
                )


def _labels(told: Told) -> tuple[About, str, Level]:
    return told.about, told.replica, told.severity


def trial(test: Notice, frame: Frame) -> dict[str, Any]:
    """Return a test alert; it fires for a while, because nobody is told of one that is over already."""
    told = Told(test.replica, test.severity, test.reason, test.summary, test.at, test.at + _TRIAL)
    alert = _alert(frame, told)
    return {
        **alert,
        "labels": {**alert["labels"], "alertname": f"{alert['labels']['alertname']}Test"},
    }


def _alert(frame: Frame, told: Told) -> dict[str, Any]:
    return {
        "labels": {
            "alertname": ALERTS[told.about],
            "stream": frame.stream,
            "replica": told.replica,
            "severity": told.severity.name.lower(),
        },
        "annotations": {
            "summary": told.summary,
            "reason": str(told.reason or ""),
            "runbook_url": frame.runbook(told.reason),
        },
        "startsAt": utc(told.starts_at),
        "endsAt": utc(told.ends_at),
    }


def send(url: str, found: list[dict[str, Any]], timeout: float) -> None:
    """Post alerts to the instance at `url`; NotTaken where it does not take them."""
    webhook.post(
        f"{url.rstrip('/')}/api/v2/alerts",
        json.dumps(found).encode(),
        {"Content-Type": "application/json"},
        timeout,
    )
