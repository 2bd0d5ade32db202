"""What a connector is made of: the capture plugin (exact), or Debezium's own classes alone (stock)."""

from __future__ import annotations

import dataclasses
import re

from cdc.config import Config

#: Nothing lost and every value exact rests on these: no option may change them.
_FIXED = frozenset({
    "name", "connector.class", "tasks.max", "topic.prefix", "plugin.name", "slot.name",
    "publication.name", "publication.autocreate.mode", "snapshot.mode",
    "include.unknown.datatypes", "provide.transaction.metadata", "skipped.operations",
    "tombstones.on.delete", "event.converting.failure.handling.mode",
    "event.processing.failure.handling.mode", "errors.tolerance", "heartbeat.action.query",
    "transforms", "transforms.stream.type", "transforms.stream.regex",
    "transforms.stream.replacement", "key.converter", "key.converter.replace.null.with.default",
    "value.converter", "value.converter.replace.null.with.default", "header.converter",
    "producer.override.acks", "producer.override.enable.idempotence",
})  # fmt: skip

#: How the stock converters write values; `cdc.codecs` reads each of them, or refuses the column.
MODES = frozenset({
    "time.precision.mode", "decimal.handling.mode", "interval.handling.mode",
    "binary.handling.mode", "hstore.handling.mode", "unavailable.value.placeholder",
})  # fmt: skip

_SCHEMAS = frozenset({"key.converter.schemas.enable", "value.converter.schemas.enable"})

#: Of the fixed ones, what no row or value rests on; a release may change them before the connector
#: has them.
_HARMLESS = frozenset({"name", "tasks.max", "tombstones.on.delete", "heartbeat.action.query"})

#: Each of these leaves out or alters events, and the counts in the stream still agree.
_FILTERS = (
    r"(table|schema|column|message\.prefix)\.(include|exclude)\.list|column\.(mask|truncate)\..+"
    r"|skip\.messages\.without\.change|post\.processors|predicates"
    r"|transforms\.stream\.(predicate|negate)"
)

#: Of the stock connector also converters of others, and snapshots, whose rows it reads otherwise.
_STOCK_FILTERS = (
    rf"{_FILTERS}|converters|(key|value)\.converter\.decimal\.format|signal\..+|column\..+"
    r"|publish\.via\.partition\.root"
)

#: What a setting that loses rows or values is called as a finding (`cdc check`, check.accept).
_FINDINGS = (
    ("connector-class", re.compile(r"connector\.class")),
    ("connector-values", re.compile(
        r"converters|exact\.type|include\.unknown\.datatypes|(key|value|header)\.converter(\..+)?"
        r"|column\.(?!(include|exclude)\.list).+|unavailable\.value\.placeholder"
        r"|(time\.precision|(decimal|interval|binary|hstore)\.handling|.+\.adjustment)\.mode")),
    ("connector-transforms", re.compile(r"transforms(\..+)?|predicates|post\.processors")),
    ("connector-filters", re.compile(
        r".+\.(include|exclude)\.list|skip\.messages\.without\.change|skipped\.operations"
        r"|table\.ignore\.builtin")),
    ("connector-errors", re.compile(r"errors\.tolerance|event\..+\.failure\.handling\.mode")),
    ("connector-source", re.compile(
        r"topic\.prefix|plugin\.name|slot\.name|publication\..+|snapshot\.mode"
        r"|provide\.transaction\.metadata|extended\.headers\.enabled|lsn\.flush\.mode|signal\..+"
        r"|offset\.mismatch\.strategy|publish\..+|heartbeat\.action\.query")),
    ("connector-producer", re.compile(r"producer\.override\..+")),
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """A way to capture.

    `fixed` are the keys that no option may change, `silent` those of which a stored connector loses
    rows or values where it has another value than the files; `filters` must not be set at all.
    """

    shipped: str
    fixed: frozenset[str]
    silent: frozenset[str]
    filters: re.Pattern[str]


_EXACT = _FIXED | _SCHEMAS | {"converters", "exact.type", "table.ignore.builtin"}

EXACT = Profile(
    "connectors/postgres.json",
    _EXACT,
    _EXACT - _HARMLESS,
    re.compile(_FILTERS),
)

#: What the stock connector's restarts are judged by, on top.
_EVIDENCE = frozenset({
    "schema.name.adjustment.mode", "field.name.adjustment.mode", "extended.headers.enabled",
    "lsn.flush.mode", "offset.mismatch.strategy",
})  # fmt: skip

STOCK = Profile(
    "connectors/stock.json",
    _FIXED | _EVIDENCE,
    # Without the row in each heartbeat no restart could be told from a stream that goes on.
    (_FIXED | _EVIDENCE | MODES) - (_HARMLESS - {"heartbeat.action.query"}),
    re.compile(_STOCK_FILTERS),
)


def of(config: Config) -> Profile:
    """Return the profile that the configuration names."""
    return EXACT if config.connect.profile == "exact" else STOCK


def finding(key: str) -> str:
    """Return the finding that a key with which rows or values are lost belongs to."""
    return next(name for name, keys in _FINDINGS if keys.fullmatch(key))
