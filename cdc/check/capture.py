"""The connector as Kafka Connect has it: what it would leave out or alter, and whether it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from cdc import connectors, profiles
from cdc.check.finding import ADVICE, DELAYS, LOSES, Finding, Hit, Look, Site, finding
from cdc.connectors import Change, Health
from cdc.units import Duration

#: What to do about a setting that was changed while the connector ran.
_APPLY = (
    "run `cdc connectors apply`; if anything was captured with it, `cdc bootstrap --overwrite` each "
    "replica"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """The stored connector, None when there is none, and the version of the capture plugin.

    `altering` are settings with which rows or values would be lost, `other` those that only differ
    from the shipped definition. `warn` is the lag that `cdc-lag-alert` warns of.
    """

    name: str
    plugin: str | None
    needed: str
    stored: Mapping[str, str] | None
    health: Health | None
    altering: tuple[Change, ...]
    other: tuple[Change, ...]
    database: str | None
    warn: Duration


def read(site: Site) -> Facts:
    config, connect = site.config, site.connect
    stored = connect.config(config.connector)
    status = connect.status(config.connector)
    definition = connectors.render(config)
    wanted = definition.config
    altering = () if stored is None else connectors.altering(config, stored)
    known = {change.key for change in altering} | {"message.key.columns"}
    return Facts(
        config.connector,
        connect.plugins().get(wanted["connector.class"]),
        definition.version,
        stored,
        None if status is None else connectors.health(status),
        altering,
        ()
        if stored is None
        else tuple(c for c in connectors.changes(wanted, stored, ()) if c.key not in known),
        wanted.get("database.dbname"),
        config.lag.warn,
    )


@finding(
    "plugin",
    LOSES,
    "Another version writes other records; without the capture plugin Debezium loses rows.",
)
def plugin(found: Facts) -> Iterator[Hit]:
    if found.plugin != found.needed:
        has = "lacks the connector" if found.plugin is None else f"has version {found.plugin} of it"
        yield Hit(
            f"Kafka Connect {has}, {found.needed} is needed", connectors.install(found.needed)
        )


@finding("connector-absent", DELAYS, "Nothing is captured.")
def absent(found: Facts) -> Iterator[Hit]:
    if found.stored is None:
        yield Hit(f"Kafka Connect has no connector {found.name}", "run `cdc connectors apply`")


@finding(
    "connector-stopped", DELAYS, "Nothing is captured, and the slot holds back the primary's log."
)
def stopped(found: Facts) -> Iterator[Hit]:
    if found.health is None or found.health.running:
        return
    what = found.health.standstill(found.name) or f"the connector {found.name}: {found.health}"
    held = found.health.held
    yield Hit(
        what, "run `cdc connectors apply`" if held else "mend it, then `cdc connectors restart`"
    )


@finding("connector-database", LOSES, "The rows are another database's.")
def database(found: Facts) -> Iterator[Hit]:
    name = (found.stored or {}).get("database.dbname", found.database)
    if name != found.database:
        yield Hit(f"the connector reads the database {name}, not {found.database}", _APPLY)


@finding("connector-heartbeat", DELAYS,
         "Without a heartbeat from the primary a standstill cannot be told from idleness, nor the "
         "lag be known.")  # fmt: skip
def heartbeat(found: Facts) -> Iterator[Hit]:
    if found.stored is None:
        return
    interval = found.stored.get("heartbeat.interval.ms", "0")
    if not interval.isdigit() or not 0 < int(interval) < found.warn * 1000:
        yield Hit(f"heartbeat.interval.ms is {interval}", "run `cdc connectors apply`")
    for change in found.other:
        if change.key == "heartbeat.action.query":
            yield Hit("heartbeat.action.query is not the shipped one", "run `cdc connectors apply`")


@finding("connector-drift", ADVICE, "Somebody changed it past the files, which are the truth.")
def drift(found: Facts) -> Iterator[Hit]:
    for change in found.other:
        yield Hit(
            f"{change.key} is {change.connect or 'not set'}, in the files "
            f"{change.file or 'it is not set'}",
            "run `cdc connectors diff`, then `cdc connectors apply`",
        )


def _setting(name: str, why: str) -> Finding[Facts]:
    """Return the finding for the settings that `connectors` puts under this name."""

    @finding(name, LOSES, why, at_start=True)
    def setting(found: Facts) -> Iterator[Hit]:
        for change in found.altering:
            if profiles.finding(change.key) == name:
                yield Hit(str(change), _APPLY)

    return setting


SETTINGS: tuple[Finding[Facts], ...] = (
    _setting("connector-class",
             "Any other class lets Connect store offsets inside transactions: each restart there "
             "loses rows, and all counts agree."),
    _setting("connector-values",
             "Other converters alter values, or write a column's default where NULL is."),
    _setting("connector-transforms",
             "A transform may drop, alter or reroute events; the order of commits is in one topic."),
    _setting("connector-filters", "What a filter leaves out, no count in the stream misses."),
    _setting("connector-errors", "An event that cannot be converted is dropped, and the counts agree."),
    _setting("connector-source",
             "It reads another stream, or without what proves that nothing is missing."),
    _setting("connector-producer", "Kafka may lose or repeat what it has said it has."),
)  # fmt: skip

LOOKS: tuple[Look[Any], ...] = (
    Look("connect", "the connector", read,
         (plugin, absent, stopped, database, heartbeat, *SETTINGS, drift)),
)  # fmt: skip
