"""The connector's definition: rendering, comparing, masking."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from cdc import connectors, secrecy
from cdc.config import Config, Connect, ConnectorDatabase, Kafka, Primary, Replica, Topic
from cdc.connectors import Change
from cdc.errors import ConfigError
from cdc.names import TableName
from cdc.units import Duration

REFERENCE = "${file:/run/secrets.properties:password}"


def config(dsn: str = "host=db port=5433 dbname=shop user=cdc", **connect: Any) -> Config:
    given: dict[str, Any] = {
        "url": "http://connect:8083",
        "database": ConnectorDatabase(password=REFERENCE),
        "heartbeat": Duration(1.5),
    }
    return Config(
        name="app",
        primary=Primary(dsn=dsn),
        kafka=Kafka(bootstrap_servers="kafka:9092", topic=Topic()),
        connect=Connect(**{**given, **connect}),
        replicas={"r1": Replica(dsn="dbname=shop")},
    )


def definition(name: str, default: str | None = None, kind: str = "STRING") -> dict[str, Any]:
    """Give one entry of the answer to Connect's validate call."""
    return {
        "definition": {"name": name, "default_value": default, "type": kind},
        "value": {"name": name, "value": None, "errors": []},
    }


def test_the_plugin_that_is_needed_is_the_one_that_is_built() -> None:
    """`connectors apply` asks for the version that the jar of this release says it has."""
    pom = ET.parse(Path(__file__).parents[2] / "connectors/exact/pom.xml")

    assert connectors.PLUGIN == pom.findtext("{*}version")


def test_names_and_places_are_filled_in() -> None:
    """Everything that differs per place comes from the configuration; nothing else is left open."""
    found = connectors.render(config())

    assert "cdc_app" == found.name
    assert {
        "name": "cdc_app",
        "database.hostname": "db",
        "database.port": "5433",
        "database.dbname": "shop",
        "database.user": "cdc_app_connector",
        "database.password": REFERENCE,
        "slot.name": "cdc_app",
        "publication.name": "cdc_app",
        "topic.prefix": "app",
        "transforms.stream.replacement": "cdc.app",
        "heartbeat.interval.ms": "1500",
        "producer.override.max.request.size": str(20 << 20),
    }.items() <= found.config.items()
    assert [REFERENCE] == [value for value in found.config.values() if "${" in value]


def test_what_the_worker_sees_may_differ() -> None:
    """connect.database says how the worker reaches the primary; sslmode follows the dsn."""
    database = ConnectorDatabase(host="inside", port=6000, user="debezium", password=REFERENCE)

    found = connectors.render(
        config("host=/run dbname=shop sslmode=require", database=database)
    ).config

    assert "inside" == found["database.hostname"]
    assert "6000" == found["database.port"]
    assert "debezium" == found["database.user"]
    assert "require" == found["database.sslmode"]


def test_a_key_without_a_value_here_is_left_out() -> None:
    """Without a password reference and sslmode those keys are not sent at all."""
    found = connectors.render(config(database=ConnectorDatabase())).config

    assert set() == {"database.password", "database.sslmode"} & found.keys()


def test_every_topic_of_the_connector_becomes_one() -> None:
    """Rows, messages, transactions and heartbeats are routed; a longer prefix is not ours."""
    found = connectors.render(config(topic_prefix="a.b"))
    route = re.compile(found.config["transforms.stream.regex"])

    names = ["a.b", "a.b.app.t", "a.b.message", "a.b.transaction", "__debezium-heartbeat.a.b"]
    assert all(route.fullmatch(name) for name in names)
    assert not any(route.fullmatch(name) for name in ["axb.app.t", "a.bc.t", "x.a.b.t"])


def test_tables_known_by_another_index_get_its_columns_as_key() -> None:
    """Names become regular expressions that match nothing else and hold no separator of Debezium's."""
    keys = {TableName("a.b", 'q"x'): ("b c", "d:e;f"), TableName("app", "t_1"): ("u",)}

    found = connectors.render(config(), keys).config["message.key.columns"]

    assert r"a\x{2e}b[.]q\x{22}x:b\x{20}c,d\x{3a}e\x{3b}f;app[.]t_1:u" == found
    assert "message.key.columns" not in connectors.render(config()).config


def test_options_are_laid_over_the_file() -> None:
    """connect.options sets keys of the connector, in the form Connect stores."""
    found = connectors.render(
        config(options={"max.batch.size": 4096, "read.only": True, "poll.interval.ms": "50"})
    ).config

    assert ("4096", "true", "50") == (
        found["max.batch.size"], found["read.only"], found["poll.interval.ms"],
    )  # fmt: skip


@pytest.mark.parametrize("key", sorted(connectors.FIXED | {"message.key.columns"}))
def test_options_cannot_touch_what_exactness_rests_on(key: str) -> None:
    """A setting that would lose rows or values is refused by name, before anything is sent."""
    with pytest.raises(ConfigError, match=re.escape(key)):
        connectors.render(config(options={key: "x"}))


def test_everything_fixed_is_in_the_shipped_file() -> None:
    """The list of what may not change names keys that the file has."""
    assert connectors.FIXED <= connectors.render(config()).config.keys()


@pytest.mark.parametrize(
    "dsn", ["dbname=shop", "host=/run/postgresql dbname=shop", "host=a,b dbname=shop", "host=db"]
)
def test_an_unclear_place_is_refused(dsn: str) -> None:
    """Where the worker should connect is never guessed."""
    with pytest.raises(ConfigError):
        connectors.render(config(dsn))


def test_the_stock_profile_is_refused() -> None:
    """There is a shipped definition for the exact profile only."""
    with pytest.raises(ConfigError, match="stock"):
        connectors.render(config(profile="stock"))


def test_defaults_count_on_both_sides() -> None:
    """A key that one side leaves out is the same as its default written out."""
    known = [definition("max.batch.size", "2048"), definition("slot.name")]

    assert () == connectors.changes({"max.batch.size": "2048"}, {}, known)
    assert () == connectors.changes({}, {"max.batch.size": "2048"}, known)
    assert (Change("max.batch.size", "1", "2048"),) == connectors.changes(
        {}, {"max.batch.size": "1"}, known
    )


def test_keys_unknown_to_connect_are_compared_too() -> None:
    """Producer overrides and the like stand in no definition, and count."""
    assert (
        Change("producer.override.acks", "1", "all"),
        Change("stray", "x", None),
    ) == connectors.changes(
        {"producer.override.acks": "all"}, {"producer.override.acks": "1", "stray": "x"}, []
    )


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("database.password", "PASSWORD"),
        ("odd", "PASSWORD"),
        ("producer.override.sasl.jaas.config", "STRING"),
        ("x.api_key", "STRING"),
    ],
)
def test_secrets_are_never_shown(key: str, kind: str) -> None:
    """That a secret differs is shown, what it is not; a reference to one is no secret."""
    found = connectors.changes({key: REFERENCE}, {key: "hunter2"}, [definition(key, kind=kind)])

    assert (Change(key, secrecy.MASK, REFERENCE),) == found


def test_refusals_are_named_per_key() -> None:
    """Every error of the validate call is told with its key, on one line."""
    refused = definition("slot.name")
    refused["value"]["errors"] = ["must not\n be empty", "second"]
    unset = {**definition("other"), "value": None}

    assert (
        ("slot.name", "must not be empty"),
        ("slot.name", "second"),
    ) == connectors.complaints([definition("good"), refused, unset])


def test_a_trace_is_shortened_to_its_ends() -> None:
    """First line and deepest cause are what a person reads."""
    trace = (
        "java.A: top\n\tat x\nCaused by: java.B: middle\n\tat y\nCaused by: java.C: root\n\tat z\n"
    )

    assert "java.A: top\nCaused by: java.C: root" == connectors.shorten(trace)
    assert "java.A: top" == connectors.shorten("java.A: top\n\tat x")


@pytest.mark.parametrize(
    ("states", "running", "failed", "held"),
    [
        (("RUNNING", "RUNNING"), True, False, False),
        (("RUNNING",), False, False, False),
        (("RUNNING", "FAILED"), False, True, False),
        (("PAUSED", "RUNNING"), False, False, True),
        (("STOPPED",), False, False, True),
    ],
)
def test_health(states: tuple[str, ...], running: bool, failed: bool, held: bool) -> None:
    """A connector runs when it and at least one task run and none does anything else."""
    connector, *tasks = states
    found = connectors.health({
        "connector": {"state": connector},
        "tasks": [{"id": n, "state": s, "trace": "e\nCaused by: c"} for n, s in enumerate(tasks)],
    })  # fmt: skip

    assert (running, failed, held) == (found.running, found.failed, found.held)
    assert len(tasks) == len(found.traces)
