"""Finding a barrier among what others write into the topic."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import pytest

from cdc import barrier
from cdc.barrier import Watch
from cdc.config import Config, Connect, Kafka, Primary, Replica
from cdc.errors import NotReady
from cdc.events import End
from cdc.marks import Mark

CONFIG = Config(
    name="app",
    primary=Primary(dsn=""),
    kafka=Kafka(bootstrap_servers=""),
    connect=Connect(url=""),
    replicas={"r1": Replica(dsn="")},
)


@dataclasses.dataclass(frozen=True)
class Received:
    """A message as Kafka's client gives it."""

    at: int
    content: bytes | None

    def error(self) -> None:
        return None

    def value(self) -> bytes | None:
        return self.content

    def offset(self) -> int:
        return self.at

    def leader_epoch(self) -> int:
        return 3

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 1700


class Consumer:
    """A consumer whose topic holds `values`, read one at a time."""

    def __init__(self, values: list[Any]) -> None:
        made = [v if isinstance(v, bytes | None) else json.dumps(v).encode() for v in values]
        self.left = [Received(at, content) for at, content in enumerate(made, 40)]

    def ends(self, _partition: object, _timeout: float) -> tuple[int, int]:
        return 0, 40

    def assign(self, _partitions: object) -> None:
        pass

    def poll(self, _timeout: float) -> Received:
        return self.left.pop(0)

    def consume(self, _most: int, _timeout: float) -> list[Received]:
        return []

    def close(self) -> None:
        pass


def mark(token: str, txid: int) -> dict[str, Any]:
    content = base64.b64encode(token.encode()).decode()
    return {
        "op": "m",
        "source": {"txId": txid, "lsn": 10, "sequence": '["1","2"]'},
        "transaction": {"id": f"{txid}:20", "total_order": 1},
        "message": {"prefix": "cdc.barrier", "content": content},
    }


def end(txid: int) -> dict[str, Any]:
    return {"status": "END", "id": f"{txid}:{txid}00", "event_count": 1, "ts_ms": 5}


def test_the_end_of_the_barrier_s_own_transaction_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other barriers, other ENDs, heartbeats, tombstones and foreign records are passed by."""
    others = [None, b"not JSON", {"ts_ms": 1}, {"foreign": 1}, mark("other", 6), end(6)]
    topic = Consumer([*others, mark("mine", 7), end(6), end(7), end(8)])
    monkeypatch.setattr(barrier, "_consumer", lambda _config: topic)

    found = Watch(CONFIG).until(Mark("mine", 9, 0.0), lambda _line: None)

    assert End(7, 700, 1, {}, 5, 48, 3, appended_ms=1700) == found


def test_a_stream_that_passes_the_barrier_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connector of another database goes on for ever: its later commits say that it is one."""
    endless = Consumer([end(6), *({**end(n), "ts_ms": 70_000} for n in range(7, 10))])
    monkeypatch.setattr(barrier, "_consumer", lambda _config: endless)

    with pytest.raises(NotReady, match="another database or server"):
        Watch(CONFIG).until(Mark("mine", 9, 0.0), lambda _line: None, silence=60)
