"""What a hook is told: one JSON document, versioned; schemas/alert.json and schemas/alert.avsc.

Fields may be added within a version; nothing is renamed or removed without a new one.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import Any

from cdc.alert.judgement import About, Reason, Thresholds
from cdc.alert.machine import Kind, Notice
from cdc.config import Config

VERSION = 1

#: The names under which every way of alerting knows them.
ALERTS = {About.LAG: "CdcReplicaLag", About.TABLES: "CdcReplicaTables"}

#: Sections of docs/operations.md.
_SECTIONS = {
    Reason.BEHIND: "a-replica-is-behind",
    Reason.WILL_BREACH: "a-replica-is-behind",
    Reason.STOPPED: "nothing-new-reaches-a-replica",
    Reason.UNKNOWN: "the-lag-of-a-replica-is-unknown",
    Reason.UNCOVERED: "a-new-table-on-the-primary",
    Reason.ASTRAY: "a-table-was-dropped-renamed-or-made-anew",
    None: "a-test-alert",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """What every document of one configuration shares; `runbooks` is where operations.md lies."""

    stream: str
    thresholds: Thresholds
    runbooks: str

    @classmethod
    def of(cls, config: Config) -> Frame:
        return cls(
            config.name,
            Thresholds(config.lag.warn, config.lag.target),
            config.alert.runbooks,
        )

    def runbook(self, reason: Reason | None) -> str:
        """Return where it stands what to do."""
        return f"{self.runbooks}#{_SECTIONS[reason]}"

    def id(self, notice: Notice) -> str:
        """Return what tells a notice from every other one; the same however often it is sent."""
        return f"{self.stream}/{notice.id}"


def document(frame: Frame, notice: Notice) -> dict[str, Any]:
    """Return the document for a notice."""
    return {
        "version": VERSION,
        "id": frame.id(notice),
        "notification": str(notice.kind),
        "status": "resolved" if notice.kind is Kind.RESOLVED else "firing",
        "alert": ALERTS[notice.about],
        "stream": frame.stream,
        "replica": notice.replica,
        "severity": notice.severity.name.lower(),
        "reason": notice.reason and str(notice.reason),
        "summary": notice.summary,
        "lag_seconds": None if notice.lag is None else round(notice.lag, 3),
        "warn_seconds": float(frame.thresholds.warn),
        "target_seconds": float(frame.thresholds.target),
        "applied_lsn": notice.applied_lsn,
        "at": utc(notice.at),
        "starts_at": utc(notice.starts_at),
        "ends_at": None if notice.ends_at is None else utc(notice.ends_at),
        "runbook": frame.runbook(notice.reason),
    }


def encoded(frame: Frame, notice: Notice) -> bytes:
    return json.dumps(document(frame, notice), ensure_ascii=False).encode()


def environment(frame: Frame, notice: Notice) -> dict[str, str]:
    """Return the document as CDC_* variables, for a command that does not read JSON; null is ""."""
    return {
        f"CDC_{name.upper()}": "" if value is None else str(value)
        for name, value in document(frame, notice).items()
    }


def utc(seconds: float) -> str:
    """Return seconds since 1970 as RFC 3339, to the millisecond."""
    at = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
