"""The rules of `cdc check` over facts, and what is made of what they find."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import psycopg
import pytest
from test_connectors import config as connector_config
from test_provision import publication
from test_provision import server as pg_server
from test_tables import config, table

from cdc import config as configs
from cdc import connectors, postgres, profiles, state, tables, topic
from cdc.catalog import Obstacle
from cdc.check import (
    access,
    audit,
    capture,
    coverage,
    primary,
    proof,
    registry,
    replica,
    report,
    server,
    stream,
    values,
)
from cdc.check import publication as publications
from cdc.check.audit import Audit, Found, Unread
from cdc.check.finding import ADVICE, DELAYS, LOSES, Look, finding
from cdc.connectors import Health
from cdc.errors import ConfigError, Unreachable
from cdc.modes import Lost
from cdc.names import TableName
from cdc.rights import Writer
from cdc.roles import Role
from cdc.strays import Stray
from cdc.topic import Policy
from cdc.verify.likeness import Mismatch

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas/check.json").read_text(encoding="utf-8"))
T, OTHER = TableName("app", "t"), TableName("app", "other")

SERVER = server.Facts(
    primary=True, server=pg_server(), told_pid=7, pid=7,
    settings={"fsync": "on", "full_page_writes": "on", "max_wal_senders": "10",
              "max_slot_wal_keep_size": "-1", "wal_keep_size": "0", "wal_compression": "pglz"},
    pinned=dict(postgres.PINNED), senders=1, standbys=0, collations=(),
)  # fmt: skip


def role(**other: Any) -> Role:
    given: dict[str, Any] = {
        "name": "cdc", "superuser": False, "login": True, "replication": True,
        "bypass_row_security": False, "settings": {},
    }  # fmt: skip
    return Role(**{**given, **other})


ROLES = primary.Roles("conn", role(name="conn"), {}, (), "cdc", role(), (), row_security=False)
SLOT = primary.Slot("s", "app", "app", "pgoutput", False, True, "reserved", None)
TABLES = tables.select(config("app.*"), (table("app.t"),))
PUBLICATION = publications.Facts("p", publication({T: False}), (T,))
POLICY = Policy(1, 3, 3, {**topic.settings(config()), "unclean.leader.election.enable": "false"})
TOPIC = stream.Facts("cdc.app", POLICY, configs.Topic(), topic.settings(config()))
EXACT = connectors.render(connector_config()).config
CONNECTOR = capture.Facts(
    "cdc_app", connectors.PLUGIN, connectors.PLUGIN, EXACT, Health((("connector", "RUNNING"), ("task 0", "RUNNING")), ()),
    (), (), EXACT["database.dbname"], configs.Lag().warn,
)  # fmt: skip
STATE = access.State("cdc", state.VERSION, None, True, ())
REPLICA = replica.Tables(True, (), (), (), ())
FOLLOWED = replica.Followed(())
OTHERS = access.Others("cdc", ())
VALUES = proof.Facts(True, "3.6.3.Final")
BROKERS = stream.Brokers("cdc.app", False)
VERSIONS = replica.Versions(16, "16.14", 16, "16.14")
WELL: tuple[Any, ...] = (
    SERVER, ROLES, TABLES, primary.Place("s", SLOT), primary.Running(300, (), ()), PUBLICATION,
    TOPIC, CONNECTOR, STATE, REPLICA, FOLLOWED, OTHERS, BROKERS, VERSIONS,
    VALUES, values.Facts(), coverage.Facts(()),
)  # fmt: skip


def settings(**other: str) -> server.Facts:
    return dataclasses.replace(SERVER, settings={**SERVER.settings, **other})


def a_server(**other: Any) -> server.Facts:
    return dataclasses.replace(SERVER, server=pg_server(**other))


def a_slot(**other: Any) -> primary.Place:
    return primary.Place("s", dataclasses.replace(SLOT, **other))


def a_topic(*, policy: dict[str, Any] | None = None, **other: str) -> stream.Facts:
    kept = {**POLICY.settings, **{k.replace("_", "."): v for k, v in other.items()}}
    return dataclasses.replace(
        TOPIC, policy=dataclasses.replace(POLICY, settings=kept, **(policy or {}))
    )


def stored(**other: str | None) -> capture.Facts:
    """Return the facts of a connector with other settings; None leaves one out."""
    changed = EXACT | {k.replace("__", "."): v for k, v in other.items() if v is not None}
    left = {k: v for k, v in changed.items() if other.get(k.replace(".", "__"), "") is not None}
    altering = connectors.altering(connector_config(), left)
    known = {c.key for c in altering}
    return dataclasses.replace(
        CONNECTOR, stored=left, altering=altering,
        other=tuple(c for c in connectors.changes(EXACT, left, ()) if c.key not in known),
    )  # fmt: skip


def obstacle(kind: Any) -> replica.Tables:
    return dataclasses.replace(REPLICA, obstacles=((T, Obstacle(kind, "has it", "mend it")),))


BAD: dict[str, Any] = {
    "version": a_server(version_num=140012, version="14.12"),
    "encoding": a_server(encoding="LATIN1"),
    "standby": a_server(standby=True),
    "wal-level": a_server(wal_level="replica"),
    "slots-left": a_server(others=9),
    "senders-left": settings(max_wal_senders="1"),
    "fsync": settings(full_page_writes="off"),
    "pooler": dataclasses.replace(SERVER, told_pid=8),
    "slot-outage": dataclasses.replace(settings(max_slot_wal_keep_size="1024"), log_rate=1e6, outage=7 * 86400.0),
    "slot-limit": settings(max_slot_wal_keep_size="1024"),
    "slot-idle-timeout": settings(idle_replication_slot_timeout="3600"),
    "wal-compression": settings(wal_compression="off"),
    "failover-slots": dataclasses.replace(SERVER, standbys=1),
    "collation-version": dataclasses.replace(SERVER, collations=("en_US",)),
    "table-refused": tables.select(config("app.*"), (table("app.t", key=()),)),
    "table-not-logged": tables.select(config("app.*"), (table("app.t", persistence="u"),)),
    "pattern-idle": tables.select(config("app.*", "shop.*"), (table("app.t"),)),
    "connector-role": dataclasses.replace(ROLES, connector=role(replication=False)),
    "connector-session": dataclasses.replace(ROLES, differ={"bytea_output": "escape"}),
    "connector-rights": dataclasses.replace(ROLES, lacking=(("FUNCTION", None, "f()"),)),
    "daemon-rights": dataclasses.replace(ROLES, row_security=True),
    "slot-absent": primary.Place("s", None),
    "slot-foreign": a_slot(plugin="test_decoding"),
    "slot-lost": a_slot(status="lost"),
    "slot-short": a_slot(status="extended", left=1 << 20),
    "slot-inactive": a_slot(active=False),
    "transaction-long": primary.Running(300, ((301.0, 42, "app"),), ()),
    "prepared-old": primary.Running(300, (), ((301.0, "gid"),)),
    "publication-absent": dataclasses.replace(PUBLICATION, publication=None),
    "publication-tables": dataclasses.replace(PUBLICATION, wanted=(T, OTHER)),
    "publication-filter": dataclasses.replace(PUBLICATION, publication=publication({T: True})),
    "publication-operations": dataclasses.replace(PUBLICATION, unpublished=("truncate",)),
    "publication-root": dataclasses.replace(PUBLICATION, by_root=True),
    "publication-more": dataclasses.replace(
        PUBLICATION, publication=publication({T: False, OTHER: False})),
    "topic-absent": dataclasses.replace(TOPIC, policy=None),
    "topic-partitions": a_topic(policy={"partitions": 2}),
    "topic-compacted": a_topic(cleanup_policy="compact"),
    "topic-retention": a_topic(retention_bytes="1000000"),
    "topic-size": a_topic(max_message_bytes="1000000"),
    "topic-copies": a_topic(policy={"copies": 2}),
    "topic-unclean": a_topic(unclean_leader_election_enable="true"),
    "stock-values": values.Facts(((T, "v", "timetz", Lost("its offset is lost")),)),
    "topic-in-sync": a_topic(policy={"in_sync": 1}),
    "topic-few-copies": dataclasses.replace(TOPIC, configured=configs.Topic(replication_factor=2)),
    "topic-unasked": dataclasses.replace(BROKERS, made_unasked=True),
    "plugin": dataclasses.replace(CONNECTOR, plugin="0.1.0"),
    "plugin-proof": proof.Facts(True, against=("exact.proof: text a arrives as b",)),
    "connector-absent": dataclasses.replace(CONNECTOR, stored=None, health=None),
    "connector-stopped": dataclasses.replace(CONNECTOR, health=Health((("connector", "PAUSED"),), ())),
    "connector-database": stored(database__dbname="other"),
    "connector-heartbeat": stored(heartbeat__interval__ms="180000"),
    "connector-drift": stored(poll__interval__ms="99"),
    "connector-class": stored(connector__class="io.debezium.connector.postgresql.PostgresConnector"),
    "connector-values": stored(converters=None),
    "connector-transforms": stored(transforms="stream,drop"),
    "connector-filters": stored(table__include__list="app.t"),
    "connector-errors": stored(errors__tolerance="all"),
    "connector-source": stored(snapshot__mode="when_needed"),
    "connector-producer": stored(producer__override__acks="1"),
    "replica-schema": dataclasses.replace(STATE, version=1),
    "replica-rights": dataclasses.replace(STATE, lacking=(("TABLE", "DELETE", "app", "t"),)),
    "replica-trigger": obstacle("trigger"),
    "replica-rule": obstacle("rule"),
    "replica-row-security": obstacle("row security"),
    "replica-table": dataclasses.replace(REPLICA, differing=((T, Mismatch("is not", "make it")),)),
    "replica-constraint": dataclasses.replace(REPLICA, refusing=((T, "x", "CHECK (id > 0)"),)),
    "replica-domain": dataclasses.replace(REPLICA, domains=((T, "x", "CHECK (VALUE > 0)"), (T, "", "NOT NULL"))),
    "replica-collation": dataclasses.replace(REPLICA, sorting=(("c en_US 2.36", "c en_US 2.31", "app.t.v", 2),)),
    "replica-older": dataclasses.replace(VERSIONS, primary=18),
    "replica-uncovered": dataclasses.replace(REPLICA, uncovered=(T,)),
    "replica-stray": coverage.Facts((Stray(T, "gone", ("r1",)),)),
    "replica-unlogged": dataclasses.replace(FOLLOWED, unlogged=(T,)),
    "replica-writers": access.Others("cdc", (Writer("PUBLIC", True, "grant", (T, T, T)),)),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_rule_finds_what_it_is_about(name: str) -> None:
    """Each finding is told of facts in which it is the case, with something to do about it."""
    hits = [*registry.findings()[name].rule(BAD[name])]

    assert hits
    assert all(hit.what and hit.fix for hit in hits)


def test_every_finding_has_its_facts() -> None:
    """No finding is without facts in which it is the case."""
    assert registry.findings().keys() == BAD.keys()


def test_nothing_is_found_where_all_is_well() -> None:
    """Facts of a sound stream give no finding at all, advice included."""
    kinds = {type(facts): facts for facts in WELL}
    looks = {look.read: look for look in registry.LOOKS}
    judged = [
        (f.name, hit)
        for look in looks.values()
        for f in look.findings
        for hit in f.rule(kinds[type(BAD[f.name])])
    ]

    assert [] == judged


def test_other_ways_to_be_wrong() -> None:
    """What a rule tells in more than one case is told in each of them."""
    dropped = dataclasses.replace(SERVER, pinned={**postgres.PINNED, "timezone": "Europe/Berlin"})
    everything = dataclasses.replace(PUBLICATION, publication=publication({}, all_tables=True))
    schema = dataclasses.replace(PUBLICATION, publication=publication({T: False}, schemas=("app",)))
    half = a_topic(min_insync_replicas="1")
    told = [
        *server.pooler.rule(dropped), *primary.connector_role.rule(dataclasses.replace(ROLES, connector=None)),
        *primary.daemon_rights.rule(dataclasses.replace(ROLES, daemon_lacking=(("TABLE", "app", "t"),))),
        *primary.slot_foreign.rule(a_slot(database="x", temporary=True)), *primary.slot_short.rule(a_slot(status="unreserved")),
        *publications.more.rule(everything), *publications.more.rule(schema), *stream.copies.rule(half),
        *access.lacking.rule(dataclasses.replace(STATE, may_quiet=False, lacking=(("SCHEMA", "USAGE", None, "Ap"),))),
        *access.writers.rule(access.Others("cdc", (Writer("old", False, "owner", (T, T)), Writer("app", False, "member", (T,))))),
        *access.schema.rule(dataclasses.replace(STATE, version=99)), *access.schema.rule(dataclasses.replace(STATE, version=None)),
        *access.schema.rule(dataclasses.replace(STATE, version=None, foreign="is not ours")),
        *replica.uncovered.rule(dataclasses.replace(REPLICA, uncovered=(T,), filled=False)),
        *capture.heartbeat.rule(stored(heartbeat__action__query="SELECT 1")),
    ]  # fmt: skip

    for part in (
        "not in force: timezone", "there is no role conn", "cdc may not use the table app.t",
        "database x and is temporary", "unreserved", "FOR ALL TABLES", "the whole schema app",
        "min.insync.replicas is 1", "has version 99", "there is no schema cdc", "is not ours",
        "nothing was filled yet", "heartbeat.action.query", "may not set session_replication_role",
        'lacks USAGE on the schema "Ap"', "old owns app.t and 1 more", "app may act as cdc",
    ):  # fmt: skip
        assert any(part in hit.what for hit in told), part
    assert [] == [*publications.lacking.rule(everything)]


def test_constraints_are_compared_by_what_they_say() -> None:
    """One of another name is the same; one more of the same is one too many."""
    ours = [("app", "t", "a", "CHECK (id > 0)")]
    theirs = [("app", "t", "b", "CHECK (id > 0)"), ("app", "t", "c", "CHECK (id > 0)")]

    assert ((T, "c", "CHECK (id > 0)"),) == replica.surplus(ours, theirs)


def test_what_the_plugin_has_tried_is_read_out_of_a_validation() -> None:
    """It is proven for a version, or what was refused says why not; an older plugin says nothing."""

    def entry(name: str, *errors: str, recommended: tuple[str, ...] = ()) -> dict[str, Any]:
        return {"value": {"name": name, "errors": [*errors], "recommended_values": [*recommended]}}

    proven = [entry("slot.name"), entry("exact.proof", recommended=("3.6.3.Final",))]
    altered = [entry("exact.proof", "bit varying 0001 arrives as 1")]
    refused = [entry("database.hostname", "no\n  connection"), entry("exact.proof")]

    assert proof.Facts(True, "3.6.3.Final") == proof.outcome(proven)
    assert proof.Facts(
        True, against=("exact.proof: bit varying 0001 arrives as 1",)
    ) == proof.outcome(altered)
    assert proof.Facts(True, against=("database.hostname: no connection",)) == proof.outcome(
        refused
    )
    assert proof.Facts(True) == proof.outcome([entry("slot.name")])


@pytest.mark.parametrize("key", sorted({*EXACT, "column.mask.with.8.chars", "predicates"}))
def test_every_setting_that_loses_belongs_to_a_finding(key: str) -> None:
    """Whatever setting the daemon refuses has a finding by whose name it can be accepted."""
    found = connectors.altering(connector_config(), EXACT | {key: "x"})

    for change in found:
        assert profiles.finding(change.key) in registry.findings()
        accepted = msgspec.structs.replace(
            connector_config(), check=configs.Check((profiles.finding(change.key),))
        )
        assert () == connectors.losing(accepted, EXACT | {key: "x"})


def made(**other: Any) -> Found:
    given: dict[str, Any] = {
        "name": "fsync", "severity": LOSES, "end": "primary", "replica": None, "what": "fsync is off",
        "why": "A crash loses commits.", "fix": "ALTER SYSTEM SET fsync = on", "accepted": False,
    }  # fmt: skip
    return Found(**{**given, **other})


UNREAD = Unread("kafka", None, "the topic", "does not answer", ("topic-absent", "topic-size"))


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        (0, Audit((), ())),
        (0, Audit((made(severity=ADVICE), made(accepted=True)), ())),
        (1, Audit((made(),), ())),
        (1, Audit((made(severity=DELAYS),), (UNREAD,))),
        (2, Audit((made(severity=ADVICE),), (UNREAD,))),
    ],
)
def test_what_was_not_read_is_never_exit_0(code: int, seen: Audit) -> None:
    """Findings come first, then what could not be read; advice and what is accepted do not count."""
    assert code == seen.exit_code


def test_the_json_is_what_its_schema_says() -> None:
    """Everything an audit can tell validates against schemas/check.json."""
    seen = Audit((made(replica="r1", end="replica"), made(accepted=True)), (UNREAD,))

    told = json.loads(json.dumps({"version": 1, **report.value(seen)}))
    jsonschema.Draft202012Validator(SCHEMA).validate(told)


def test_people_read_the_gravest_first_in_80_columns() -> None:
    """The first line counts; then each finding with why and fix; then what was not checked."""
    seen = Audit(
        (made(severity=ADVICE, name="wal-compression"), made(what="x " * 90, end="replica", replica="r1"),
         made(accepted=True)),
        (UNREAD,),
    )  # fmt: skip
    lines = report.text(seen).splitlines()

    assert [
        "1 can lose data, 1 may be better, 1 accepted, NOT EVERYTHING COULD BE CHECKED:",
        "  kafka",
        "",
    ] == lines[:3]
    assert ["loses", "advice", "loses"] == [
        line.split()[0] for line in lines if line[:1].isalpha()
    ][1:4]
    assert "fsync                    replica r1" in lines[4]
    assert all(len(line) <= 80 for line in lines)
    assert "  not checked: topic-absent, topic-size" in lines


def look_that(read: Any) -> Look[Any]:
    @finding("nothing", ADVICE, "why")
    def nothing(_found: Any) -> Any:
        yield from ()

    return Look("kafka", "it", read, (nothing,))


def test_an_end_that_hangs_holds_up_no_other() -> None:
    """It is unread after its time, while what others said counts; errors are told as they are."""
    hung = threading.Event()

    def refuses(_site: Any) -> None:
        raise psycopg.OperationalError("no\nmore")

    def unreachable(_site: Any) -> None:
        raise Unreachable("is away", safe="", next="")

    looks = [
        *(look_that(read) for read in (refuses, unreachable, lambda _: None)),
        dataclasses.replace(look_that(lambda _: hung.wait()), end="connect"),
    ]
    seen = audit.take(config("app.*"), looks, ["r1"], patience=1.0)
    hung.set()

    assert ["more", "is away", "no answer within 1 s"] == [u.why for u in seen.unread]
    assert 2 == seen.exit_code


def test_only_known_findings_can_be_accepted() -> None:
    """A name that is none is an error that names the closest one."""
    wrong = msgspec.structs.replace(config("app.*"), check=configs.Check(("topic-compacte",)))

    with pytest.raises(ConfigError) as raised:
        registry.known(wrong)

    assert "did you mean topic-compacted?" == raised.value.next
