"""A PostgreSQL server itself, the primary or a replica: what it is, how it is set, what it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from cdc import postgres, provision
from cdc.check.finding import ADVICE, DELAYS, LOSES, Finding, Hit, Look, Severity, Site, finding
from cdc.provision import Server

#: Settings whose value in megabytes or milliseconds is -1 or 0 where there is no such limit.
_NAMES = (
    "fsync", "full_page_writes", "max_wal_senders", "max_slot_wal_keep_size",
    "idle_replication_slot_timeout", "wal_compression", "synchronized_standby_slots", "wal_keep_size",
)  # fmt: skip

#: Seconds over which log is averaged at least: what made a server, and filled it, is no rate of its work.
_LONG_ENOUGH = 86400

_FACTS = """
SELECT pg_backend_pid(),
       (SELECT json_object_agg(name, setting) FROM pg_settings WHERE name = ANY (%(names)s)),
       (SELECT json_object_agg(name, setting) FROM pg_settings WHERE lower(name) = ANY (%(pinned)s)),
       (SELECT count(*) FROM pg_stat_replication),
       (SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'physical'),
       (SELECT array_agg(c.collname::text ORDER BY 1) FROM pg_collation c
         WHERE c.collversion <> pg_collation_actual_version(c.oid)),
       (SELECT d.datcollversion <> pg_database_collation_actual_version(d.oid)
          FROM pg_database d WHERE d.datname = current_database()),
       (SELECT wal_bytes::float8 / greatest(extract(epoch FROM clock_timestamp() - stats_reset), %(long)s)
          FROM pg_stat_wal)
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """A server; `primary` tells which end it is.

    `told_pid` is the process that the connection was told it has, `pid` the one that answers.
    `pinned` are the settings of this very session. `senders` counts walsenders, `standbys` slots of
    physical standbys. `collations` are those whose library has another version than when they were
    made. `log_rate` is the bytes of log it writes in a second, on average, `outage` the seconds for which
    Kafka keeps what a replica has not read.
    """

    primary: bool
    server: Server
    told_pid: int
    pid: int
    settings: Mapping[str, str]
    pinned: Mapping[str, str]
    senders: int
    standbys: int
    collations: tuple[str, ...]
    log_rate: float = 0.0
    outage: float = 0.0


def read(site: Site) -> Facts:
    conn = site.here()
    given = {
        "names": list(_NAMES),
        "pinned": [name.lower() for name in postgres.PINNED],
        "long": _LONG_ENOUGH,
    }
    row = conn.execute(_FACTS, given).fetchone()
    assert row is not None
    pid, settings, pinned, senders, standbys, collations, database, log_rate = row
    return Facts(
        site.replica is None,
        provision.server(conn, site.config),
        conn.info.backend_pid,
        pid,
        settings,
        {name.lower(): value for name, value in pinned.items()},
        senders,
        standbys,
        (*(collations or ()), *(["the database's own"] if database else [])),
        float(log_rate),
        float(site.config.kafka.topic.retention),
    )


def _unfit(name: str, severity: Severity, why: str) -> Finding[Facts]:
    """Return the finding for what `cdc setup` refuses by this name."""

    @finding(name, severity, why)
    def unfit(found: Facts) -> Iterator[Hit]:
        for kind, what, fix in provision.unfit(found.server, primary=found.primary):
            if kind == name:
                yield Hit(what, fix)

    return unfit


version = _unfit(
    "version", DELAYS, "Older servers lack what the daemon and the connector's role need."
)
encoding = _unfit("encoding", LOSES,
                  "Text would not arrive unchanged; one byte that is no UTF-8 stops capture while "
                  "Connect says RUNNING.")  # fmt: skip
standby = _unfit(
    "standby", DELAYS, "A server in recovery cannot be written: no heartbeat, no apply."
)
wal_level = _unfit("wal-level", LOSES, "The log holds no row changes: nothing is captured.")
slots_left = _unfit("slots-left", DELAYS,
                    "The connector needs a replication slot, a bootstrap another one while it runs, in the "
                    "stock profile each replica one that stays.")  # fmt: skip


@finding("senders-left", DELAYS, "The connector and a bootstrap each need a walsender.")
def senders_left(found: Facts) -> Iterator[Hit]:
    most = int(found.settings["max_wal_senders"])
    if most - found.senders < 1:
        yield Hit(
            f"all {most} walsenders are in use",
            "ALTER SYSTEM SET max_wal_senders to more, then restart that server",
        )


@finding("fsync", LOSES,
         "A crash of the machine can lose commits that were captured, or pages that were applied, "
         "and nothing tells.")  # fmt: skip
def fsync(found: Facts) -> Iterator[Hit]:
    for name in ("fsync", "full_page_writes"):
        if found.settings[name] == "off":
            yield Hit(f"{name} is off", f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()")


@finding("pooler", LOSES,
         "Behind a pooler a session's lock and settings belong to whoever comes next: two daemons "
         "could write, values could be read in another form.", at_start=True)  # fmt: skip
def pooler(found: Facts) -> Iterator[Hit]:
    differ = sorted(n for n, v in postgres.PINNED.items() if found.pinned.get(n.lower()) != v)
    if found.told_pid != found.pid:
        yield Hit(
            "the dsn leads to a connection pooler, not to the server: another process answers "
            "than the connection was told",
            "name the server itself in the dsn, past PgBouncer and the like",
        )
    elif differ:
        yield Hit(
            f"what the session asks for at its start is not in force: {', '.join(differ)}",
            "name the server itself in the dsn, past whatever drops the parameter `options`",
        )


@finding("slot-outage", DELAYS,
         "Kafka keeps the stream for so long, the primary does not: when Kafka or Kafka Connect stands still, the "
         "slot is lost before the topic's retention is over, and every replica must be filled anew.")  # fmt: skip
def slot_outage(found: Facts) -> Iterator[Hit]:
    limit = int(found.settings["max_slot_wal_keep_size"])
    if limit < 0:
        return
    kept = max(limit, int(found.settings["wal_keep_size"])) << 20
    lasts = kept / found.log_rate if found.log_rate else found.outage
    if lasts < found.outage:
        yield Hit(
            f"{kept >> 20} MB of log (max_slot_wal_keep_size, wal_keep_size) are written in "
            f"{lasts / 3600:.1f} h; kafka.topic.retention is {found.outage / 3600:.1f} h",
            f"ALTER SYSTEM SET max_slot_wal_keep_size = '{int(found.outage * found.log_rate) // (1 << 20) + 1}MB' "
            "if the disk holds that; SELECT pg_reload_conf()",
        )


@finding("slot-limit", ADVICE,
         "Capture that stands still for longer loses its slot, and every replica must be filled "
         "anew.")  # fmt: skip
def slot_limit(found: Facts) -> Iterator[Hit]:
    size = int(found.settings["max_slot_wal_keep_size"])
    if size >= 0:
        yield Hit(
            f"a slot is lost once it holds back more than {size} MB of log",
            "ALTER SYSTEM SET max_slot_wal_keep_size to what the disk can hold; watch `cdc status`",
        )


@finding("slot-idle-timeout", DELAYS,
         "A connector that is stopped for longer loses its slot: every replica must be filled anew.")  # fmt: skip
def slot_idle_timeout(found: Facts) -> Iterator[Hit]:
    if int(found.settings.get("idle_replication_slot_timeout", 0)):
        yield Hit(
            f"idle_replication_slot_timeout is {found.settings['idle_replication_slot_timeout']} s",
            "ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf()",
        )


@finding("wal-compression", ADVICE,
         "Full pages fill the log that the slot holds back; compressed they take a fraction.")  # fmt: skip
def wal_compression(found: Facts) -> Iterator[Hit]:
    if found.settings["wal_compression"] == "off":
        yield Hit(
            "wal_compression is off",
            "ALTER SYSTEM SET wal_compression = on; SELECT pg_reload_conf()",
        )


@finding("failover-slots", ADVICE,
         "A failover to a standby that lacks the last captured commits halts every replica.")  # fmt: skip
def failover_slots(found: Facts) -> Iterator[Hit]:
    if found.standbys and not found.settings.get("synchronized_standby_slots"):
        yield Hit(
            f"{found.standbys} physical standbys, and capture waits for none of them",
            "ALTER SYSTEM SET synchronized_standby_slots to their slots, SELECT pg_reload_conf()"
            if found.server.version_num >= 170000
            else "use PostgreSQL 17 or newer, which has synchronized_standby_slots",
        )


@finding("collation-version", LOSES,
         "Indexes over text made with another version of the library may not find rows that are "
         "there, nor refuse ones that are there twice.")  # fmt: skip
def collation_version(found: Facts) -> Iterator[Hit]:
    if found.collations:
        yield Hit(
            f"the library has another version now for the collations {', '.join(found.collations)}",
            f"REINDEX DATABASE {found.server.database}; then ALTER COLLATION … REFRESH VERSION, "
            "or ALTER DATABASE … REFRESH COLLATION VERSION",
        )


#: Of both ends, then of the primary alone.
BOTH: tuple[Finding[Facts], ...] = (version, encoding, standby, fsync, pooler, collation_version)
PRIMARY: tuple[Finding[Facts], ...] = (
    wal_level, slots_left, senders_left, slot_outage, slot_limit, slot_idle_timeout, wal_compression,
    failover_slots,
)  # fmt: skip

LOOKS: tuple[Look[Any], ...] = (
    Look("primary", "the server", read, (*BOTH, *PRIMARY)),
    Look("replica", "the server", read, BOTH),
)
