"""What holds a replica up, in one sentence for people: judged from what all ends say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from cdc import daemon
from cdc.errors import CdcError
from cdc.lag import Lag
from cdc.readings import Capture, ReplicaReading

#: Seconds without a new statement after which the writer's session is not working on anything.
_QUIET = 10.0


def added(
    lag: Lag,
    replica: ReplicaReading | None,
    capture: Capture | None,
    unread: Mapping[str, CdcError],
) -> Lag:
    """Return `lag` with the sentence that explains it, where there is something to explain."""
    return dataclasses.replace(lag, why=lag.why or _why(lag, replica, capture, unread))


def _why(
    lag: Lag,
    replica: ReplicaReading | None,
    capture: Capture | None,
    unread: Mapping[str, CdcError],
) -> str | None:
    for end in (lag.replica, "primary"):
        if end in unread:
            return unread[end].what
    if replica is not None and replica.position is None:
        return "it was not filled yet: `cdc bootstrap`"
    match lag.state:
        case "heartbeat failing":
            return (None if capture is None else capture.standstill) or (
                f"rows arrive, but no heartbeat for {lag.heartbeat_age or 0:.0f} s: the connector's "
                "heartbeat query fails on the primary (its role's rights? a read-only server?)"
            )
        case "not moving":
            return (replica and (idle(replica) or _quiet(replica))) or (
                "a large transaction is on its way"
            )
        case "not fed":
            return _not_fed(lag, capture, unread)
    return (replica and idle(replica)) or (None if capture is None else capture.standstill)


def daemon_state(replica: ReplicaReading) -> str:
    """Return what its daemon recorded, or "not connected" where that cannot be so any more."""
    said = replica.daemon
    if said is None:
        return "never ran"
    gone = replica.writer is None and (
        said.state == "applying" or (said.state == "waiting" and said.age > daemon.WAITING_FOR)
    )
    return "not connected" if gone else said.state


def idle(replica: ReplicaReading) -> str | None:
    """Say why nothing is applied there, None where a daemon is at work."""
    said, state = replica.daemon, daemon_state(replica)
    match state:
        case "applying":
            return None
        case "never ran":
            return "no daemon ever ran: `cdc run`"
        case "not connected":
            last = said and said.error
            told = f"; {said.age:.0f} s ago it said that it {last}" if said and last else ""
            return f"no daemon holds the writer's lock{told}"
    return (said and said.error) or f"its daemon {state}"


def _quiet(replica: ReplicaReading) -> str | None:
    """Say that a daemon holds the lock and does nothing, None where it is at work."""
    quiet = replica.writer.quiet if replica.writer else None
    if quiet is None or quiet < _QUIET:
        return None
    return f"its daemon holds the writer's lock and has done nothing for {quiet:.0f} s: it hangs"


def _not_fed(lag: Lag, capture: Capture | None, unread: Mapping[str, CdcError]) -> str:
    if capture is not None and capture.standstill:
        return capture.standstill
    for end in ("kafka", "connect"):
        if end in unread:
            return unread[end].what
    said = capture.complaint if capture else None
    return (
        f"no heartbeat has come out of the connector for {lag.heartbeat_age or 0:.0f} s, though Connect "
        f"says of it: {capture.state if capture else 'nothing'}. "
        + (
            f"The last error in the worker's log: {said}"
            if said
            else "A value that it cannot read stops it so: the worker's log names it "
            '(docs/operations.md, "Nothing arrives")'
        )
    )
