"""Reading the topic when Kafka does not answer."""

from __future__ import annotations

import socket

import pytest

from cdc import topic
from cdc.config import Config, Connect, Kafka, Primary, Replica
from cdc.errors import Unreachable
from cdc.source import Source


def test_looking_ahead_gives_up_when_kafka_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no broker the log has no end to be found: an error that is tried again, not a hang."""
    monkeypatch.setattr(topic, "TIMEOUT", 0.2)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # not listening: connections are refused
        servers = f"127.0.0.1:{bound.getsockname()[1]}"
        config = Config(
            name="app",
            primary=Primary(dsn=""),
            kafka=Kafka(bootstrap_servers=servers),
            connect=Connect(url="http://127.0.0.1:1"),
            replicas={"r1": Replica(dsn="")},
        )
        source = Source(config, "g", lambda _what: None)

        with pytest.raises(Unreachable, match="does not answer"):
            next(source.ahead(0))

        source.close()
