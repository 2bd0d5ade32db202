"""What the daemon's loop looks at itself, before the ledger has its say."""

from __future__ import annotations

import base64
import json
import threading
from typing import Any
from unittest import mock

import pytest

from cdc.batch import Buffer
from cdc.config import Apply, Config, Connect, Kafka, Primary, Replica
from cdc.errors import BrokenStream
from cdc.events import Record
from cdc.ledger import Ledger
from cdc.position import Position
from cdc.replicator import Replicator, Session

APPLIED = 1000
RING = ((7, APPLIED),)


def session() -> Session:
    """Return a daemon's turn on a replica whose last commit ends at APPLIED; no server is asked."""
    position = Position("app", "cdc.app", "id", 5, None, APPLIED, "one", 1, RING, 0)
    return Session(
        mock.Mock(), mock.Mock(), position, Ledger(APPLIED, RING), Buffer(Apply(), {}), 5
    )


def replicator() -> Replicator:
    config = Config(
        name="app",
        primary=Primary(dsn=""),
        kafka=Kafka(bootstrap_servers="127.0.0.1:1"),
        connect=Connect(url="http://127.0.0.1:1"),
        replicas={"r1": Replica(dsn="")},
    )
    return Replicator(config, "r1", threading.Event())


def heartbeat(previous: int, system: str, timeline: int) -> list[Record]:
    """Return a heartbeat's records as far as they tell whose it is: BEGIN and the message."""
    content = json.dumps({"ts": 1.0, "system": system, "timeline": timeline, "lsn": "0/1"})
    begin: dict[str, Any] = {"status": "BEGIN", "id": "8:900"}
    message = {
        "op": "m",
        "source": {"txId": 8, "lsn": previous + 10, "sequence": json.dumps([str(previous), "0"])},
        "transaction": {"total_order": 1},
        "message": {
            "prefix": "cdc.heartbeat",
            "content": base64.b64encode(content.encode()).decode(),
        },
    }
    return [
        Record("cdc.app", 0, offset, None, json.dumps(value).encode())
        for offset, value in enumerate((begin, message), 5)
    ]


@pytest.mark.parametrize("previous", [APPLIED, APPLIED - 500])
def test_another_primary_halts_also_where_its_log_looks_repeated(previous: int) -> None:
    """After a failover LSNs go back: what the new primary sends looks applied, its name tells."""
    turn, daemon = session(), replicator()
    begin, message = heartbeat(previous, "one", 2)
    daemon._take(turn, begin)

    with pytest.raises(BrokenStream, match="another server"):
        daemon._take(turn, message)


def test_a_repeated_heartbeat_does_not_count() -> None:
    """A heartbeat that comes again is older than what was applied: freshness must not go back."""
    turn, daemon = session(), replicator()
    for record in heartbeat(APPLIED - 500, "one", 1):
        daemon._take(turn, record)

    assert turn.buffer.heartbeat is None
