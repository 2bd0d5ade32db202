"""What was observed of the stream, as what the alerts judge."""

from __future__ import annotations

from cdc import lsn as lsns
from cdc.alert.judgement import Sample
from cdc.observation import Observation
from cdc.strays import Stray


def samples(seen: Observation) -> dict[str, Sample]:
    """Return a sample of each replica."""
    return {found.replica: _sample(seen, found.replica) for found in seen.lags}


def failed(seen: Observation) -> bool:
    """Tell whether the connector or one of its tasks is FAILED, so that a restart may help."""
    return seen.capture is not None and (
        bool(seen.capture.failed) or "connector FAILED" in seen.capture.state
    )


def _sample(seen: Observation, replica: str) -> Sample:
    lag = seen.lag(replica)
    why = (lag.why or ("" if lag.seconds is not None else lag.state)).partition("\n")[0]
    if lag.seconds is None and (unread := seen.unread.get(replica) or seen.unread.get("primary")):
        why = unread.what
    applied = None if lag.applied_lsn is None else lsns.show(lag.applied_lsn)
    return Sample(lag.seconds, why, _stopped(seen, replica), applied, _strays(seen, replica))


def _strays(seen: Observation, replica: str) -> tuple[Stray, ...] | None:
    """Return the tables that are not as on the primary; None while either end is not known."""
    said = seen.readings.get(replica)
    if not seen.tables_known or said is None or said.position is None:
        return None
    return tuple(stray for stray in seen.strays if replica in stray.replicas)


def _stopped(seen: Observation, replica: str) -> str | None:
    """Say what has certainly ended the flow to a replica, however small its lag still is."""
    lag, said = seen.lag(replica), seen.readings.get(replica)
    if lag.state == "diverged":
        return lag.why
    if seen.capture is not None and seen.capture.standstill is not None:
        return seen.capture.standstill
    if seen.slot is not None and seen.slot.wal_status == "lost":
        return "the primary has dropped log that the connector has not read: its slot is lost"
    if said is not None and said.position is not None and said.writer is None:
        told = "" if said.daemon is None else f"; it last said that it was {said.daemon.state}"
        error = said.daemon.error if said.daemon is not None else None
        first = (error or "").partition("\n")[0]
        return f"no daemon applies{told}{f': {first}' if first else ''}"
    return None
