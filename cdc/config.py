"""The configuration: one TOML file, decoded strictly into frozen values.

Unknown keys are errors. `${NAME}` is replaced from the environment; relative paths are relative to
the file. Loading has no side effects. What every key does is told by `cdc.example.toml`.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import msgspec

from cdc import environment, paths, postgres, secrecy
from cdc.alert import settings as alert_settings
from cdc.alert.settings import Alert
from cdc.errors import ConfigError
from cdc.units import Address, Duration, Section, Size

NOTHING_CHANGED = "nothing was read or written"


class Primary(Section, frozen=True):
    dsn: str
    admin_dsn: str | None = None
    tables: tuple[str, ...] = ("*.*",)
    exclude: tuple[str, ...] = ()
    publication: str | None = None
    slot: str | None = None


class Topic(Section, frozen=True):
    name: str | None = None
    retention: Duration = Duration(7 * 86400)
    replication_factor: int = 3
    min_insync_replicas: int = 2
    max_message_bytes: Size = Size(20 << 20)


class Kafka(Section, frozen=True):
    bootstrap_servers: str
    options: dict[str, str | int | float | bool] = msgspec.field(default_factory=dict)
    topic: Topic = Topic()


class ConnectorDatabase(Section, frozen=True):
    """How the connector, seen from the Connect worker, reaches the primary."""

    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = None


class Connect(Section, frozen=True):
    url: str
    user: str | None = None
    password: str | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    profile: Literal["exact", "stock"] = "exact"
    connector: str | None = None
    topic_prefix: str | None = None
    heartbeat: Duration = Duration(2)
    log: Path | None = None
    database: ConnectorDatabase = ConnectorDatabase()
    options: dict[str, str | int | float | bool] = msgspec.field(default_factory=dict)


class Replica(Section, frozen=True):
    dsn: str
    admin_dsn: str | None = None
    listen: Address | None = None
    triggers: Literal["session", "disabled"] = "session"
    group: str | None = None


class Bootstrap(Section, frozen=True):
    schema: Literal["all", "tables", "none"] = "all"
    jobs: int = 4
    slot_timeout: Duration = Duration(60)


class Apply(Section, frozen=True):
    max_batch_rows: int = 20_000
    max_batch_bytes: Size = Size(32 << 20)
    missing_timeout: Duration = Duration(60)


class Log(Section, frozen=True):
    format: Literal["console", "json"] = "console"


class Lag(Section, frozen=True):
    target: Duration = Duration(300)
    warn: Duration = Duration(180)


class Check(Section, frozen=True):
    accept: tuple[str, ...] = ()


class Config(Section, frozen=True):
    """The whole file. Names not given are derived from `name` (docs/configuration.md)."""

    name: str
    primary: Primary
    kafka: Kafka
    connect: Connect
    replicas: dict[str, Replica]
    state_dir: Path | None = None
    bootstrap: Bootstrap = Bootstrap()
    apply: Apply = Apply()
    lag: Lag = Lag()
    log: Log = Log()
    check: Check = Check()
    alert: Alert = Alert()

    @property
    def topic(self) -> str:
        return self.kafka.topic.name or f"cdc.{self.name}"

    @property
    def topic_prefix(self) -> str:
        return self.connect.topic_prefix or self.name

    @property
    def connector(self) -> str:
        return self.connect.connector or f"cdc_{self.name}"

    @property
    def slot(self) -> str:
        return self.primary.slot or f"cdc_{self.name}"

    @property
    def publication(self) -> str:
        return self.primary.publication or f"cdc_{self.name}"

    @property
    def connector_role(self) -> str:
        return self.connect.database.user or f"cdc_{self.name}_connector"

    def group(self, replica: str) -> str:
        """Return the Kafka consumer group that ordinary lag tools see for `replica`."""
        return self.replica(replica).group or f"cdc-{self.name}-{replica}"

    def application_name(self, replica: str, role: str) -> str:
        """Return how a session of ours shows up in pg_stat_activity."""
        return f"cdc-{self.name}/{replica}/{role}"

    def replica(self, name: str) -> Replica:
        """Return the settings of replica `name`; ConfigError naming the known ones if absent."""
        if name not in self.replicas:
            raise ConfigError(
                f"there is no replica {name!r} in the configuration",
                safe=NOTHING_CHANGED,
                next=f"use one of: {', '.join(sorted(self.replicas))}",
            )
        return self.replicas[name]


def load(path: Path) -> Config:
    """Read the configuration file at `path`.

    Raises ConfigError when the file is missing, is not TOML, has an unknown key, a value of the
    wrong form, or names an environment variable that is not set.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _wrong(
            f"there is no configuration file at {path}",
            "give one with -c FILE or CDC_CONFIG; `cdc init` writes one",
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _wrong(f"{path} cannot be read: {error}", "mend the file and try again") from error
    return decode(environment.expanded(raw, os.environ), path)


def decode(raw: dict[str, Any], path: Path) -> Config:
    """Turn decoded TOML into a Config; `path` is the file, for messages and relative paths."""
    _known_keys(raw, Config, "", path)
    try:
        config = msgspec.convert(raw, Config, dec_hook=_hook)
    except msgspec.ValidationError as error:
        raise _wrong(f"{path}: {error}", "correct it: cdc.example.toml has every key") from error
    _check(config, path)
    files = {name: getattr(config.connect, name) for name in ("log", "ca", "certificate", "key")}
    return msgspec.structs.replace(
        config,
        state_dir=paths.beside(path, config.state_dir),
        alert=alert_settings.located(config.alert, path.parent),
        kafka=msgspec.structs.replace(
            config.kafka, options=paths.in_options(path, config.kafka.options)
        ),
        connect=msgspec.structs.replace(
            config.connect, **{name: paths.beside(path, file) for name, file in files.items()}
        ),
        primary=msgspec.structs.replace(
            config.primary,
            dsn=_dsn(config.primary.dsn, "primary.dsn", path),
            admin_dsn=config.primary.admin_dsn
            and _dsn(config.primary.admin_dsn, "primary.admin_dsn", path),
        ),
        replicas={
            name: msgspec.structs.replace(
                replica,
                dsn=_dsn(replica.dsn, f"replicas.{name}.dsn", path),
                admin_dsn=replica.admin_dsn
                and _dsn(replica.admin_dsn, f"replicas.{name}.admin_dsn", path),
            )
            for name, replica in config.replicas.items()
        },
    )


def _wrong(what: str, next_step: str) -> ConfigError:
    return ConfigError(what, safe=NOTHING_CHANGED, next=next_step)


def _hook(kind: type, value: Any) -> Any:
    if kind in (Address, Duration, Size):
        return kind.parse(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(kind)


def _known_keys(raw: Any, kind: Any, where: str, path: Path) -> None:
    """Name the first unknown key and the closest known one; msgspec names only the key."""
    if isinstance(raw, list) and get_args(kind)[1:] == (...,):
        for item in raw:
            _known_keys(item, _tagged(get_args(kind)[0], item), f"{where}", path)
        return
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(raw, dict)):
        if isinstance(raw, dict) and get_args(kind)[1:]:
            for key, value in raw.items():
                _known_keys(value, get_args(kind)[1], f"{where}{key}.", path)
        return
    hints = get_type_hints(kind)
    known = {f.encode_name: hints[f.name] for f in msgspec.structs.fields(kind)}
    if tag := kind.__struct_config__.tag_field:
        known[tag] = str
    for key, value in raw.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = (
                f"did you mean {where}{close[0]}?" if close else f"known here: {', '.join(known)}"
            )
            raise _wrong(f"{path}: unknown key {where}{key}", hint)
        _known_keys(value, known[key], f"{where}{key}.", path)


def _tagged(kind: Any, raw: Any) -> Any:
    """Return which of the sections that `kind` unites an entry is; as it is where it does not say."""
    for one in get_args(kind):
        tag = one.__struct_config__ if isinstance(one, type) and issubclass(one, Section) else None
        if tag and isinstance(raw, dict) and raw.get(tag.tag_field) == tag.tag:
            return one
    return kind


def _check(config: Config, path: Path) -> None:
    if not re.fullmatch(r"[a-z0-9_]{1,40}", config.name):
        raise _wrong(
            f"{path}: name = {config.name!r} is not usable",
            "use 1 to 40 of a-z, 0-9 and _; it becomes part of topic, slot and group names",
        )
    if not config.replicas:
        raise _wrong(f"{path}: no replica is configured", "add a [replicas.r1] table with a dsn")
    if odd := [name for name in config.replicas if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", name)]:
        raise _wrong(
            f"{path}: replica name {odd[0]!r} is not usable", "use 1 to 40 letters, digits, _ and -"
        )
    for key, value in (
        ("bootstrap.jobs", config.bootstrap.jobs),
        ("apply.max_batch_rows", config.apply.max_batch_rows),
        ("apply.max_batch_bytes", config.apply.max_batch_bytes),
    ):
        if value < 1:
            raise _wrong(f"{path}: {key} must be at least 1, not {value}", "correct the value")
    if not 0 < config.lag.warn < config.lag.target:
        raise _wrong(
            f"{path}: lag.warn ({config.lag.warn:g} s) must be less than lag.target "
            f"({config.lag.target:g} s) and more than nothing",
            "correct one of them: a warning that comes after the target is missed warns of nothing",
        )
    for what, next_step in alert_settings.complaints(config.alert):
        raise _wrong(f"{path}: {what}", next_step)
    _check_connect(config.connect, path)


def _check_connect(connect: Connect, path: Path) -> None:
    for one, other in (("user", "password"), ("password", "user"), ("key", "certificate")):
        if getattr(connect, one) is not None and getattr(connect, other) is None:
            raise _wrong(f"{path}: connect.{one} is given without connect.{other}", "give both")
    stored = [(f"connect.options: {key}", key, value) for key, value in connect.options.items()]
    password = connect.database.password or ""
    for where, key, value in [
        ("connect.database.password", "database.password", password),
        *stored,
    ]:
        if secrecy.exposed(key, str(value)):
            raise _wrong(
                f"{path}: {where} is not a config-provider reference",
                'write "${file:/path/on/the/worker.properties:key}": a plain secret would be '
                "stored by Kafka Connect for everyone to read",
            )


def _dsn(dsn: str, where: str, path: Path) -> str:
    """Check a libpq connection string and make the file paths in it absolute."""
    return paths.in_dsn(path, postgres.parts(dsn, f"{path}: {where}"))
