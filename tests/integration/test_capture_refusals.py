"""What the capture plugin does not start with, and what it stops at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
from capture import Capture, capture
from harness import Stack
from psycopg import sql

pytestmark = pytest.mark.stack


@pytest.fixture
def exact(stack: Stack) -> Iterator[Capture]:
    with capture(stack) as fresh:
        yield fresh


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("provide.transaction.metadata", None, "no offset could ever be stored at a commit"),
        ("provide.transaction.metadata", "false", "no offset could ever be stored at a commit"),
        ("snapshot.mode", None, "snapshot.mode must be no_data, it is initial"),
        ("snapshot.mode", "always", "`cdc bootstrap` fills replicas"),
        ("event.converting.failure.handling.mode", None, "cannot be converted arrives as NULL"),
        ("event.processing.failure.handling.mode", "warn", "the counts still agree"),
        ("skipped.operations", None, "skipped.operations must be none, it is t"),
        ("table.ignore.builtin", None, "table.ignore.builtin must be false, it is true"),
        ("converters", None, "converters must name one converter"),
        ("exact.type", "io.debezium.Other", "whose type is cdc.capture.ExactText"),
        ("plugin.name", None, "plugin.name must be pgoutput"),
        ("signal.data.collection", "public.signals", "signal.data.collection must not be set"),
        ("lsn.flush.mode", "connector_and_driver", "lsn.flush.mode must be connector or manual"),
        ("offset.mismatch.strategy", "trust_slot", "are passed over"),
        ("slot.drop.on.stop", "true", "while the connector is stopped is lost"),
    ],
)
def test_losing_configurations_are_refused(
    exact: Capture, key: str, value: str | None, message: str
) -> None:
    """A setting that would lose rows or values is refused when it is given, with the reason."""
    answer = exact.put(**{key.replace(".", "__"): value})

    assert answer.status_code == requests.codes.bad_request
    assert message in answer.json()["message"]
    assert exact.states() == []


def test_the_shipped_definition_is_accepted(exact: Capture) -> None:
    """The shipped definition has no complaint of the plugin."""
    answer = requests.put(
        f"{exact.stack.connect}/connector-plugins/ExactConnector/config/validate",
        json=exact.config() | {"name": exact.connector},
        timeout=60,
    )

    assert answer.ok
    assert answer.json()["error_count"] == 0


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("intervalstyle", "sql_standard"),
        ("extra_float_digits", "-5"),
        ("bytea_output", "escape"),
        ("lc_monetary", "C.UTF-8"),
    ],
)
def test_sessions_that_print_otherwise_are_refused(
    exact: Capture, setting: str, value: str
) -> None:
    """The task fails, saying what to change, when its session would print values differently."""
    name = sql.Identifier(exact.name)
    exact.sql(
        sql.SQL("ALTER ROLE {0} IN DATABASE {0} SET {1} = {2}").format(
            name, sql.Identifier(setting), value
        )
    )
    exact.put()

    said = exact.failed()

    assert f"{value}, it must be" in said
    assert f"ALTER ROLE {exact.name} IN DATABASE {exact.name} SET" in said


def test_offsets_inside_a_transaction_are_refused(exact: Capture) -> None:
    """Offsets can be set over REST only to a commit; a reset is accepted."""
    exact.start()
    exact.drained()
    exact.act("PUT", "/stop")
    stop = exact.stored()
    assert stop is None or stop["messageType"] == "COMMIT"
    partition = {"server": exact.name}
    inside = {"lsn": 1, "lsn_proc": 1, "lsn_commit": 0, "messageType": "INSERT"}

    def patch(offset: dict[str, object]) -> requests.Response:
        body = {"offsets": [{"partition": partition, "offset": offset}]}
        return requests.patch(f"{exact.url}/offsets", json=body, timeout=60)

    refused = patch(inside)
    taken = patch({"lsn": 9, "lsn_proc": 9, "lsn_commit": 9, "messageType": "COMMIT"})

    assert not refused.ok
    assert "not at a commit" in refused.json()["message"]
    assert taken.ok, taken.text
    assert requests.delete(f"{exact.url}/offsets", timeout=60).ok
