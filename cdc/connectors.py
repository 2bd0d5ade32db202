"""Connector definitions: what the files say, what Connect has, and how they differ.

Everything here is pure: values in, values out. The shipped definition is
`connectors/postgres.json`, that of the stock profile `connectors/stock.json`: a connector as Kafka
Connect takes it with `${…}` for what differs per place. `connect.options` of the configuration is
laid over it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from psycopg import conninfo

from cdc import modes, profiles, resources, secrecy
from cdc.config import NOTHING_CHANGED, Config
from cdc.errors import ConfigError
from cdc.modes import Modes
from cdc.names import TableName
from cdc.profiles import Profile

#: What the capture plugin's jar is called here and in an installation.
JAR = "connectors/exact/target/cdc-exact.jar"

#: The version of that jar (connectors/exact/pom.xml); an older one writes other records.
PLUGIN = "0.5.0"

#: What Debezium's own connector must be in the stock profile: how it resumes and converts was measured
#: of this version.
DEBEZIUM = "3.6.3.Final"

#: Decided by the primary's catalog, not by the file; Debezium then writes a row's key as its identity.
_KEYS = "message.key.columns"


@dataclasses.dataclass(frozen=True, slots=True)
class Definition:
    """A connector by name and configuration, as the files want it, and its class's version."""

    name: str
    config: dict[str, str]
    version: str


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """A key whose value in Connect is not the file's; None where a side does not set it."""

    key: str
    connect: str | None
    file: str | None

    def __str__(self) -> str:
        must = "not be set" if self.file is None else f"be {self.file}"
        return f"{self.key} is {self.connect or 'not set'}, must {must}"


@dataclasses.dataclass(frozen=True, slots=True)
class Health:
    """States of a connector and its tasks, with shortened traces of what failed."""

    states: tuple[tuple[str, str], ...]
    traces: tuple[str, ...]

    @property
    def running(self) -> bool:
        """Connector and at least one task run, and none does anything else."""
        return len(self.states) > 1 and all(state == "RUNNING" for _, state in self.states)

    @property
    def held(self) -> bool:
        """Somebody has paused or stopped it."""
        return any(state in {"PAUSED", "STOPPED"} for _, state in self.states)

    @property
    def failed(self) -> bool:
        return any(state == "FAILED" for _, state in self.states)

    def standstill(self, name: str) -> str | None:
        """Say why the connector `name` sends nothing, None where it may."""
        if self.failed:
            why = "; ".join(line for trace in self.traces for line in trace.splitlines())
            return f"the connector {name} has failed ({self}): {why}"
        return f"the connector {name} is held: {self}" if self.held else None

    def __str__(self) -> str:
        return ", ".join(f"{part} {state}" for part, state in self.states) or "no status yet"


def render(config: Config, keys: Mapping[TableName, Sequence[str]] | None = None) -> Definition:
    """Return the connector that `config` describes.

    `keys` are the columns of the index that REPLICA IDENTITY USING INDEX names, per table. Raises ConfigError when the configuration does not say how a worker reaches the primary, or
    when connect.options would change what exactness rests on.
    """
    options, profile = config.connect.options, profiles.of(config)
    if touched := sorted(
        key for key in options if key in profile.fixed | {_KEYS} or profile.filters.fullmatch(key)
    ):
        raise _wrong(
            f"connect.options sets {', '.join(touched)}, which this program decides: rows or "
            "values would be lost otherwise",
            "remove it from connect.options",
        )
    values = _names(config) | _database(config)
    filled = {key: _fill(value, values) for key, value in _shipped(profile).items()}
    name = config.connector
    return Definition(
        name,
        {
            "name": name,
            **{key: value for key, value in filled.items() if value is not None},
            **({_KEYS: _key_columns(keys)} if keys else {}),
            **{key: _as_text(value) for key, value in options.items()},
        },
        PLUGIN if profile is profiles.EXACT else DEBEZIUM,
    )


def install(version: str) -> str:
    """Say how the class that is needed, in this version, comes onto a worker."""
    if version == DEBEZIUM:
        return (
            f"install Debezium's PostgreSQL connector {version} (in plugin.path) on every worker and "
            "restart them"
        )
    return (
        "write its jar with `cdc connectors plugin`, put it into the folder of Debezium's "
        "PostgreSQL connector (in plugin.path) on every worker and restart them"
    )


def losing(config: Config, stored: Mapping[str, str]) -> tuple[Change, ...]:
    """Return what `altering` does, less what somebody has accepted by the finding's name."""
    accepted = config.check.accept
    return tuple(c for c in altering(config, stored) if profiles.finding(c.key) not in accepted)


def altering(config: Config, stored: Mapping[str, str]) -> tuple[Change, ...]:
    """Return the keys of a stored connector with which rows or values would be lost silently.

    All of them are set by the shipped definition, so one left out is one too: Connect's default
    may be another.
    """
    profile = profiles.of(config)
    wanted = _chosen(config, profile.silent)
    found = [
        Change(key, shown(key, stored.get(key)), value)
        for key, value in wanted.items()
        if stored.get(key) != value
    ]
    filters = sorted(key for key in stored if profile.filters.fullmatch(key))
    return (*found, *(Change(key, shown(key, stored[key]), None) for key in filters))


def changes(
    wanted: Mapping[str, str],
    stored: Mapping[str, str],
    definitions: Iterable[Mapping[str, Any]],
) -> tuple[Change, ...]:
    """Compare every key of both configurations; a key left out counts as its default.

    `definitions` is what Connect's validate call returns. Secrets are masked in the result.
    """
    known = {d["definition"]["name"]: d["definition"] for d in definitions}
    found = []
    for key in sorted(wanted.keys() | stored.keys()):
        default = known.get(key, {}).get("default_value")
        file, connect = wanted.get(key, default), stored.get(key, default)
        if file != connect:
            secret = known.get(key, {}).get("type") == "PASSWORD"
            found.append(Change(key, shown(key, connect, secret), shown(key, file, secret)))
    return tuple(found)


def shown(key: str, value: str | None, secret: bool = False) -> str | None:
    """Return a value as people may see it: a secret only when it is a mere reference."""
    if value is None or secrecy.reference(value):
        return value
    return secrecy.MASK if secret or secrecy.hidden(key) else value


def complaints(validated: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    """Return (key, what is wrong with it) of everything Connect's validate call refuses."""
    return tuple(
        (entry["value"]["name"], " ".join(error.split()))
        for entry in validated
        if entry["value"]
        for error in entry["value"]["errors"]
    )


def health(status: Mapping[str, Any]) -> Health:
    """Read a status answer of Connect."""
    parts = [("connector", status["connector"])]
    parts += [(f"task {task['id']}", task) for task in status.get("tasks", ())]
    return Health(
        states=tuple((name, part["state"]) for name, part in parts),
        traces=tuple(shorten(part["trace"]) for _, part in parts if part.get("trace")),
    )


def shorten(trace: str) -> str:
    """Return a Java stack trace's first line and its deepest cause."""
    lines = [line.strip() for line in trace.splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by:")]
    return "\n".join([*lines[:1], *causes[-1:]])


def _key_columns(keys: Mapping[TableName, Sequence[str]]) -> str:
    """Write keys as Debezium reads them: regular expressions, between `.`, `:`, `,` and `;`."""
    return ";".join(
        f"{_verbatim(table.schema)}[.]{_verbatim(table.name)}:{','.join(map(_verbatim, columns))}"
        for table, columns in sorted(keys.items())
    )


def _verbatim(name: str) -> str:
    """Return a Java regular expression for just this name, without anything that separates."""
    return re.sub(r"[^A-Za-z0-9_]", lambda found: f"\\x{{{ord(found[0]):x}}}", name)


def _shipped(profile: Profile) -> dict[str, str]:
    return dict(json.loads(resources.text(profile.shipped))["config"])


def _chosen(config: Config, keys: Collection[str]) -> dict[str, str | None]:
    """Return the values of those of `keys` that are shipped; connect.options go before."""
    options, names = config.connect.options, _names(config)
    return {
        key: _as_text(options[key]) if key in options else _fill(text, names)
        for key, text in _shipped(profiles.of(config)).items()
        if key in keys
    }


def modes_of(config: Config) -> Modes | None:
    """Return how the stock connector writes values; None in the exact profile.

    Raises ConfigError where an option names a mode that is not known.
    """
    if config.connect.profile == "exact":
        return None
    written = _chosen(config, profiles.MODES)
    try:
        return modes.of({key: str(value) for key, value in written.items()})
    except ValueError as error:
        raise _wrong(f"connect.options: {error}", "set one of the known values") from error


def _database(config: Config) -> dict[str, str | None]:
    """Return what tells the connector where the primary is; None leaves a key out."""
    primary = conninfo.conninfo_to_dict(config.primary.dsn)
    database = config.connect.database
    host = database.host or primary.get("host")
    name = primary.get("dbname")
    # libpq checks a certificate in full where it checks it by the system's authorities.
    sslmode = primary.get("sslmode") or (
        "verify-full" if primary.get("sslrootcert") == "system" else None
    )
    if not isinstance(host, str) or host.startswith("/") or "," in host:
        raise _wrong(
            "the connector cannot be told where the primary is: primary.dsn names no single host",
            "set host (and port) in [connect.database] as the Connect worker sees them",
        )
    if name is None:
        raise _wrong("primary.dsn names no database", "add dbname=… to primary.dsn")
    return {
        "database.host": host,
        "database.port": str(database.port or primary.get("port") or 5432),
        "database.name": str(name),
        "database.user": config.connector_role,
        "database.password": database.password,
        # As strict as the person's own sessions; certificates lie on the worker and are options.
        "database.sslmode": None if sslmode is None else str(sslmode),
    }


def _names(config: Config) -> dict[str, str | None]:
    """Return what stands for the other `${…}` of the shipped file."""
    return {
        "name": config.name,
        "connector": config.connector,
        "topic": config.topic,
        "topic.prefix": config.topic_prefix,
        "topic.prefix.quoted": re.escape(config.topic_prefix),
        "topic.max_message_bytes": str(int(config.kafka.topic.max_message_bytes)),
        # The producer holds at least two of the largest rows, and never less than 64 MiB.
        "producer.buffer": str(max(64 << 20, 3 * config.kafka.topic.max_message_bytes)),
        "slot": config.slot,
        "publication": config.publication,
        "heartbeat.ms": str(round(config.connect.heartbeat * 1000)),
        # U+0000, which no text of PostgreSQL holds, in front.
        "placeholder": f"\0cdc/{config.name}/unchanged".encode().hex(),
    }


def _fill(text: str, values: Mapping[str, str | None]) -> str | None:
    """Replace each `${…}`; None when one of them has no value here."""
    names = re.findall(r"\$\{([^}]+)\}", text)
    if any(values[name] is None for name in names):
        return None
    return re.sub(r"\$\{([^}]+)\}", lambda found: str(values[found[1]]), text)


def _as_text(value: str | float | bool) -> str:
    """Write an option the way Connect stores it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _wrong(what: str, next_step: str) -> ConfigError:
    return ConfigError(what, safe=NOTHING_CHANGED, next=next_step)
