"""A first cdc.toml, from what was given and what the ends say of themselves."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo

from cdc import config as configs
from cdc import connectors, environment, postgres, provision, secrecy, tables, topic
from cdc.config import NOTHING_CHANGED, Config
from cdc.connect import Connect
from cdc.errors import NotReady, UsageError


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """What a person says: where the ends are, and under which name."""

    name: str
    primary: str
    kafka: str
    connect: str
    replicas: Mapping[str, str]
    tables: tuple[str, ...] = ()
    kafka_options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    connect_options: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What the ends say: brokers, schemas with tables, and what a person must know (`notes`)."""

    brokers: int = 3
    schemas: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def named(given: str | None, primary: str) -> str:
    """Return the stream's name: as given, else after the primary's database."""
    database = str(postgres.parts(primary, "--primary").get("dbname") or "app")
    return given or re.sub(r"[^a-z0-9_]+", "_", database.lower()).strip("_")[:40] or "app"


def checked(given: Given, path: Path) -> Config:
    """Return the configuration that the draft makes, as it would be read from `path`.

    Raises UsageError where a DSN is none or what is given holds a secret, ConfigError for anything else.
    """
    for where, dsn in (("--primary", given.primary), *(("-r", d) for d in given.replicas.values())):
        parts = postgres.parts(dsn, where)
        if any(_plain(parts.get(key)) for key in postgres.SECRETS):
            raise _secret(
                where,
                "put it into ~/.pgpass (host:port:database:user:password), or name a file of "
                "that form with passfile=…, and leave it out",
            )
    for where, options in (
        ("--kafka-option", given.kafka_options),
        ("--connect-option", given.connect_options),
    ):
        if any(secrecy.exposed(key, value) and _plain(value) for key, value in options.items()):
            raise _secret(where, "write '${NAME}', and have it in the environment")
    return decoded(text(given, Seen()), path)


def _plain(value: str | None) -> bool:
    """Tell whether a secret is given as it is, not as what it is called in the environment."""
    return bool(value) and not environment.names(str(value))


def _secret(where: str, next_step: str) -> UsageError:
    return UsageError(
        f"{where} holds a password, which would stand in the file for everyone to read",
        safe=NOTHING_CHANGED,
        next=next_step,
    )


def decoded(written: str, path: Path) -> Config:
    """Return what a text says, as it would be read from `path`."""
    return configs.decode(environment.expanded(tomllib.loads(written), os.environ), path)


def look(config: Config) -> Seen:
    """Look at every end; raises Unreachable, NotReady or ConnectRefused where one will not do."""
    notes = []
    with contextlib.closing(_session(config, None)) as conn:
        primary = provision.server(conn, config)
        provision.check_server(primary, where="the primary", primary=True)
        catalog = tables.read(conn)
    for name in config.replicas:
        with contextlib.closing(_session(config, name)) as conn:
            found = provision.server(conn, config)
        provision.check_server(found, where=f"replica {name}", primary=False)
        if (found.system_id, found.database) == (primary.system_id, primary.database):
            raise NotReady(
                f"replica {name} is the primary itself: its dsn leads to the same database",
                safe=NOTHING_CHANGED,
                next=f"give another dsn for {name}",
            )
        if found.version_num // 10000 < primary.version_num // 10000:
            notes.append(
                f"replica {name} is PostgreSQL {found.version}, older than the primary "
                f"({primary.version}): what the primary's schema says may be new to it"
            )
    plugins = Connect(config.connect).plugins()
    version = plugins.get(connectors.render(config).config["connector.class"])
    if version != connectors.PLUGIN:
        notes.append(
            "the Connect workers lack the capture plugin: write its jar with `cdc connectors plugin` "
            "beside Debezium's on each, and restart them with -Duser.timezone=UTC"
        )
    schemas = {t.name.schema for t in catalog}
    return Seen(topic.brokers(config), tuple(sorted(schemas)), tuple(notes))


def _session(config: Config, replica: str | None) -> psycopg.Connection[tuple[Any, ...]]:
    dsn = config.primary.dsn if replica is None else config.replica(replica).dsn
    return postgres.connect(dsn, config.application_name(replica or "primary", "init"))


def text(given: Given, seen: Seen) -> str:
    """Return the file: only what is needed, each with what it causes."""
    patterns = list(given.tables or (f"{_pattern(s)}.*" for s in seen.schemas)) or ["*.*"]
    copies = min(3, seen.brokers)
    parts = [
        f"""\
# Made by `cdc init`. cdc.example.toml tells what every key does; one left out has its default.
# Becomes part of every other name: topic, connector, slot, publication. Do not change it later.
name = {_toml(given.name)}

[primary]
# No password here: libpq finds it in ~/.pgpass, in a passfile or in PGPASSWORD.
dsn = {_toml(given.primary)}
# Who `cdc setup` works as, a superuser; or let a DBA run what `cdc setup --print` prints.
# admin_dsn = {_toml(conninfo.make_conninfo(given.primary, user="postgres"))}
# Shell patterns over schema.table, and what of it is left out.
tables = {_toml(patterns)}
exclude = []

[kafka]
bootstrap_servers = {_toml(given.kafka)}
# TLS and SASL, as librdkafka calls them; secrets from the environment.
{_options(given.kafka_options)}

[kafka.topic]
# How long a replica may be down: after that it must be filled anew.
retention = "7d"
# {_brokers(seen.brokers)}
replication_factor = {copies}
min_insync_replicas = {2 if copies == 3 else 1}

[connect]
url = {_toml(given.connect)}
{"".join(f"{key} = {_toml(value)}{chr(10)}" for key, value in given.connect_options.items())}\

# The primary as the Connect worker sees it, and the file there that holds the connector's password:
# the worker needs config.providers=file, and a line password=… in that file.
[connect.database]
host = {_toml(_host(given.primary))}
password = "${{file:/etc/kafka-connect/cdc.properties:password}}"
"""
    ]
    parts += [
        f"""
[replicas.{name}]
# The role owns what it fills and writes the rows.
dsn = {_toml(dsn)}
# admin_dsn = {_toml(conninfo.make_conninfo(dsn, user="postgres"))}
"""
        for name, dsn in given.replicas.items()
    ]
    return "".join(parts)


def _options(given: Mapping[str, str]) -> str:
    shown = given or {"security.protocol": "SASL_SSL", "sasl.password": "${KAFKA_PASSWORD}"}
    pairs = ", ".join(f"{_toml(key)} = {_toml(value)}" for key, value in shown.items())
    return f"{'' if given else '# '}options = {{ {pairs} }}"


def _brokers(count: int) -> str:
    if count >= 3:
        return f"The cluster has {count} brokers."
    return f"The cluster has {count} of 3 brokers: losing one can lose commits."


def _host(dsn: str) -> str:
    return str(conninfo.conninfo_to_dict(dsn).get("host") or "localhost")


def _pattern(schema: str) -> str:
    return (
        schema
        if re.fullmatch(r"[a-z_][a-z0-9_]*", schema)
        else '"' + schema.replace('"', '""') + '"'
    )


def _toml(value: str | Sequence[str]) -> str:
    """Write a string, or a list of them, as TOML."""
    return json.dumps(value, ensure_ascii=False)
