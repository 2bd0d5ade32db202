"""The primary: the tables that shall be replicated, the roles, the slot, what runs for too long."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from cdc import provision, roles
from cdc.check.finding import ADVICE, DELAYS, LOSES, Hit, Look, Site, finding
from cdc.config import Config
from cdc.provision import CONNECTOR_SETTINGS, Right
from cdc.roles import Role
from cdc.tables import Selection


@finding("table-refused", LOSES, "What changes in such a table cannot be carried truly.")
def table_refused(found: Selection) -> Iterator[Hit]:
    for complaint in found.refused:
        yield Hit(f"{complaint.table} {complaint.what}", complaint.fix)


@finding("table-not-logged", LOSES,
         "PostgreSQL writes its rows into no log: they never reach a replica.")  # fmt: skip
def table_not_logged(found: Selection) -> Iterator[Hit]:
    for complaint in found.left_out:
        logged = "is unlogged" in complaint.what
        yield Hit(
            f"{complaint.table} {complaint.what} and matches primary.tables",
            (f"ALTER TABLE {complaint.table} SET LOGGED, or exclude it" if logged
             else "exclude it (primary.exclude)"),
        )  # fmt: skip


@finding("pattern-idle", ADVICE, "A typing error would leave out what it was meant for.")
def pattern_idle(found: Selection) -> Iterator[Hit]:
    for text in found.idle_patterns:
        yield Hit(
            f"the pattern {text} matches no table", "correct primary.tables or primary.exclude"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Roles:
    """The two roles on the primary; `differ` are the connector's settings that are not as pinned.

    `lacking` and `daemon_lacking` are the rights that they lack.
    """

    name: str
    connector: Role | None
    differ: Mapping[str, str]
    lacking: tuple[Right, ...]
    daemon_name: str
    daemon: Role | None
    daemon_lacking: tuple[Right, ...]
    row_security: bool


def read_roles(site: Site) -> Roles:
    conn, config = site.primary(), site.config
    wanted = site.selection()
    connector = Role.read(conn, config.connector_role)
    daemon = conn.info.user
    found = Role.read(conn, daemon)
    carried = (*wanted.rows, *wanted.partitioned)
    return Roles(
        config.connector_role,
        connector,
        _differing(config, connector),
        () if connector is None else provision.lacking(conn, connector),
        daemon,
        found,
        provision.lacking(
            conn, found, {t.name.schema for t in carried}, {t.oid for t in carried}
        ),
        any(t.row_security for t in wanted.rows),
    )  # fmt: skip


def _differing(config: Config, connector: Role | None) -> dict[str, str]:
    """Return the settings that a login of the connector's role does not get as they are pinned.

    By a fresh login where its password is known here; else by what is stored for the role in this
    database, which goes before what is set for either alone.
    """
    if connector is None:
        return {}
    password = roles.connector_password(config)
    if password is not None and connector.login:
        return roles.settings_seen(config, password, CONNECTOR_SETTINGS)
    return {
        name: connector.settings.get(name, "not set")
        for name, value in CONNECTOR_SETTINGS.items()
        if connector.settings.get(name) != value
    }


@finding("connector-role", DELAYS, "The connector cannot log in, or cannot stream the log.")
def connector_role(found: Roles) -> Iterator[Hit]:
    role = found.connector
    if role is None:
        yield Hit(f"there is no role {found.name}", "run `cdc setup`")
    elif not role.superuser:
        lacks = [w for w, there in (("LOGIN", role.login), ("REPLICATION", role.replication))
                 if not there]  # fmt: skip
        if lacks:
            yield Hit(f"the role {role.name} lacks {', '.join(lacks)}",
                      f"ALTER ROLE {role.name} {' '.join(lacks)}, or run `cdc setup`")  # fmt: skip


@finding("connector-session", LOSES,
         "The values that arrive are what the server prints in the connector's session: with other "
         "settings they lose digits or parts.")  # fmt: skip
def connector_session(found: Roles) -> Iterator[Hit]:
    for name, value in found.differ.items():
        yield Hit(
            f"{name} is {value} for {found.name}, must be {CONNECTOR_SETTINGS[name]!r}",
            "run `cdc setup`, restart the connector (`cdc connectors restart`); rows that were "
            "captured meanwhile: cdc-verify",
        )


@finding("connector-rights", DELAYS, "Without them no heartbeat is written: the lag is unknown.")
def connector_rights(found: Roles) -> Iterator[Hit]:
    yield from _rights(found.name, found.lacking)


@finding("daemon-rights", DELAYS, "Bootstrap, repair and verification cannot read every row.")
def daemon_rights(found: Roles) -> Iterator[Hit]:
    yield from _rights(found.daemon_name, found.daemon_lacking)
    role = found.daemon
    if found.row_security and role and not (role.superuser or role.bypass_row_security):
        yield Hit(
            f"row security hides rows of replicated tables from {found.daemon_name}",
            f"ALTER ROLE {found.daemon_name} BYPASSRLS, or run `cdc setup`",
        )


def _rights(role: str, lacking: tuple[Right, ...]) -> Iterator[Hit]:
    for kind, schema, name in lacking:
        full = name if schema is None else f"{schema}.{name}"
        yield Hit(f"{role} may not use the {kind.lower()} {full}", "run `cdc setup`")


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """The connector's replication slot; `left` is None where nothing limits what it holds back."""

    name: str
    database: str
    here: str
    plugin: str | None
    temporary: bool
    active: bool
    status: str | None
    left: int | None


_SLOT = """
SELECT slot_name::text, coalesce(database::text, ''), current_database()::text, plugin::text,
       temporary, active, wal_status, safe_wal_size
  FROM pg_replication_slots WHERE slot_name = %s
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """The slot of that name, None when there is none."""

    name: str
    slot: Slot | None


def read_slot(site: Site) -> Place:
    row = site.primary().execute(_SLOT, [site.config.slot]).fetchone()
    return Place(site.config.slot, None if row is None else Slot(*row))


@finding("slot-absent", DELAYS,
         "Nothing keeps the log for the connector. Replicas that were filled before halt, unless "
         "nothing was committed meanwhile.")  # fmt: skip
def slot_absent(found: Place) -> Iterator[Hit]:
    if found.slot is None:
        yield Hit(
            f"there is no slot {found.name}",
            "run `cdc connectors apply`, which makes it; replicas that halt then: "
            "`cdc bootstrap --overwrite`",
        )


@finding(
    "slot-foreign",
    LOSES,
    "What it holds is not this database's changes as the connector reads them.",
)
def slot_foreign(found: Place) -> Iterator[Hit]:
    slot = found.slot
    if slot is None:
        return
    wrong = []
    if slot.plugin != "pgoutput":
        wrong.append(f"is of {slot.plugin or 'a physical standby'}, not of pgoutput")
    if slot.database != slot.here:
        wrong.append(f"is of the database {slot.database or 'of none'}")
    if slot.temporary:
        wrong.append("is temporary")
    if wrong:
        yield Hit(
            f"the slot {slot.name} {' and '.join(wrong)}",
            "set another primary.slot, or see who made it and SELECT "
            f"pg_drop_replication_slot('{slot.name}')",
        )


@finding("slot-lost", LOSES,
         "The log that the connector has not read is gone: what was committed since never comes.")  # fmt: skip
def slot_lost(found: Place) -> Iterator[Hit]:
    if found.slot is not None and found.slot.status == "lost":
        yield Hit(
            f"the slot {found.name} is lost",
            f"`cdc connectors delete --offsets`, SELECT pg_drop_replication_slot('{found.name}'), "
            "`cdc connectors apply`, then `cdc bootstrap --overwrite` each replica",
        )


@finding("slot-short", DELAYS, "The slot is about to be lost: see slot-lost.")
def slot_short(found: Place) -> Iterator[Hit]:
    slot = found.slot
    if slot is not None and (
        slot.status == "unreserved"
        or (slot.status == "extended" and slot.left is not None and slot.left < _SHORT)
    ):
        left = "" if slot.left is None else f", {max(0, slot.left) >> 20} MB of log are left to it"
        yield Hit(
            f"the slot {slot.name} is {slot.status}{left}",
            "let the connector run (`cdc connectors status`), or ALTER SYSTEM SET "
            "max_slot_wal_keep_size to more; SELECT pg_reload_conf()",
        )


@finding("slot-inactive", DELAYS, "Nobody reads the log, and the primary's disk fills with it.")
def slot_inactive(found: Place) -> Iterator[Hit]:
    if found.slot is not None and not found.slot.active and found.slot.status != "lost":
        yield Hit(f"nobody reads from the slot {found.name}",
                  "run `cdc connectors status`, then `cdc connectors restart`")  # fmt: skip


#: Bytes of log below which a slot that is on its extended time is called short.
_SHORT = 256 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Running:
    """What has run for longer than the lag target: (seconds, who it is, how it is ended)."""

    target: float
    transactions: tuple[tuple[float, int, str], ...]
    prepared: tuple[tuple[float, str], ...]


_TRANSACTIONS = """
SELECT extract(epoch FROM clock_timestamp() - xact_start)::float8, pid,
       concat_ws(' ', usename, nullif(application_name, ''), client_addr)
  FROM pg_stat_activity
 WHERE backend_xid IS NOT NULL AND xact_start < clock_timestamp() - make_interval(secs => %s)
 ORDER BY 1 DESC LIMIT 10
"""

_PREPARED = """
SELECT extract(epoch FROM clock_timestamp() - prepared)::float8, gid FROM pg_prepared_xacts
 WHERE prepared < clock_timestamp() - make_interval(secs => %s) ORDER BY 1 DESC LIMIT 10
"""


def read_running(site: Site) -> Running:
    conn, target = site.primary(), float(site.config.lag.target)
    return Running(
        target,
        tuple(conn.execute(_TRANSACTIONS, [target])),
        tuple(conn.execute(_PREPARED, [target])),
    )


@finding("transaction-long", DELAYS,
         "The slot holds back all log since it began, a bootstrap waits for its end, and its rows "
         "come when it commits.")  # fmt: skip
def transaction_long(found: Running) -> Iterator[Hit]:
    for seconds, pid, who in found.transactions:
        yield Hit(f"a transaction that writes is open for {seconds:.0f} s: pid {pid} ({who})",
                  f"end it, or SELECT pg_terminate_backend({pid})")  # fmt: skip


@finding("prepared-old", DELAYS,
         "A prepared transaction outlives its session and a restart; the slot holds back all log "
         "since it began.")  # fmt: skip
def prepared_old(found: Running) -> Iterator[Hit]:
    for seconds, gid in found.prepared:
        yield Hit(f"the transaction {gid!r} is prepared for {seconds:.0f} s",
                  f"COMMIT PREPARED '{gid}' or ROLLBACK PREPARED '{gid}'")  # fmt: skip


LOOKS: tuple[Look[Any], ...] = (
    Look("primary", "its tables", Site.selection, (table_refused, table_not_logged, pattern_idle)),
    Look("primary", "the roles", read_roles,
         (connector_role, connector_session, connector_rights, daemon_rights)),
    Look("primary", "the replication slot", read_slot,
         (slot_absent, slot_foreign, slot_lost, slot_short, slot_inactive)),
    Look("primary", "its transactions", read_running, (transaction_long, prepared_old)),
)  # fmt: skip
