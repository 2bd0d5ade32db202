"""A first configuration: what it says, and what it is refused for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cdc import draft
from cdc.draft import Given, Seen
from cdc.errors import UsageError

GIVEN = Given(
    "app", "host=db1 dbname=app user=cdc", "k1:9092", "http://connect:8083",
    {"r1": "host=db2 dbname=app user=cdc", "r2": 'host=db3 dbname="a" user=cdc'},
)  # fmt: skip


def test_a_draft_is_a_configuration() -> None:
    """What is written loads, says what was given, and follows the number of brokers."""
    many = draft.decoded(draft.text(GIVEN, Seen(5, ("app", "Odd"))), Path("cdc.toml"))
    few = draft.decoded(draft.text(GIVEN, Seen(2)), Path("cdc.toml"))

    assert ("app.*", '"Odd".*') == many.primary.tables
    assert (3, 2) == (many.kafka.topic.replication_factor, many.kafka.topic.min_insync_replicas)
    assert (2, 1) == (few.kafka.topic.replication_factor, few.kafka.topic.min_insync_replicas)
    assert ("*.*",) == few.primary.tables
    assert ["r1", "r2"] == [*many.replicas]
    assert "db1" == many.connect.database.host


def test_a_draft_holds_no_password() -> None:
    """A DSN with one is refused, with the place where it belongs; so is what is no DSN."""
    for wrong in (
        dataclasses.replace(GIVEN, primary="dbname=app password=s3cret"),
        dataclasses.replace(GIVEN, replicas={"r1": "postgresql://cdc:s3cret@db2/app"}),
    ):
        with pytest.raises(UsageError, match="holds a password") as raised:
            draft.checked(wrong, Path("cdc.toml"))
        assert "s3cret" not in str(raised.value)
        assert "pgpass" in raised.value.next
    with pytest.raises(UsageError, match="is no connection string"):
        draft.checked(dataclasses.replace(GIVEN, primary="nonsense"), Path("cdc.toml"))


def test_a_draft_takes_credentials_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options for TLS stand in the file as they were given, secrets as what the environment calls them."""
    known = dataclasses.replace(
        GIVEN,
        primary="host=db1 dbname=app user=cdc sslkey=c.key sslpassword=${KEY}",
        kafka_options={"security.protocol": "SASL_SSL", "sasl.password": "${KAFKA}"},
        connect_options={"user": "cdc", "password": "${CONNECT}", "ca": "ca.pem"},
    )
    for name in ("KEY", "KAFKA", "CONNECT"):
        monkeypatch.setenv(name, f"of {name}")

    written, found = draft.text(known, Seen()), draft.checked(known, Path("/etc/cdc.toml"))

    assert "of " not in "".join(line for line in written.splitlines() if "$" in line)
    assert "of KAFKA" == found.kafka.options["sasl.password"]
    assert ("cdc", "of CONNECT", Path("/etc/ca.pem")) == (
        found.connect.user, found.connect.password, found.connect.ca,
    )  # fmt: skip
    for wrong in (
        dataclasses.replace(GIVEN, kafka_options={"sasl.password": "s3cret"}),
        dataclasses.replace(GIVEN, connect_options={"user": "u", "password": "s3cret"}),
    ):
        with pytest.raises(UsageError, match="holds a password") as raised:
            draft.checked(wrong, Path("cdc.toml"))
        assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "dsn", "name"),
    [(None, "dbname=Shop-1", "shop_1"), ("x", "dbname=shop", "x"), (None, "host=h", "app")],
)
def test_a_stream_is_called_after_the_database(given: str | None, dsn: str, name: str) -> None:
    """Where no name is given the database's makes one that is usable."""
    assert name == draft.named(given, dsn)
