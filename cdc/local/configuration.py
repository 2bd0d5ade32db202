"""The cdc.toml of a stack."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import msgspec

from cdc.local.layout import Layout, State
from cdc.local.postgres_server import PostgresServer


def write(layout: Layout, state: State, servers: Sequence[PostgresServer]) -> tuple[State, bool]:
    """Write cdc.toml unless a person has edited it; return the state to keep and whether it is ours."""
    fresh = text(layout, state, servers)
    if (
        layout.config.exists()
        and _digest(layout.config.read_text(encoding="utf-8")) != state.written
    ):
        return state, False
    layout.config.write_text(fresh, encoding="utf-8")
    return msgspec.structs.replace(state, written=_digest(fresh)), True


def text(layout: Layout, state: State, servers: Sequence[PostgresServer]) -> str:
    """Return the file's text, complete and commented."""
    by_name = {server.name: server for server in servers}
    primary = by_name["primary"]
    parts = [
        f"""\
# A local stack made by `cdc local up`: everything on this machine, passwords in {layout.pgpass.name}.
# `cdc.example.toml` tells what every key does.
name = {_toml(state.name)}
state_dir = {_toml(str(layout.folder / "state"))}

[primary]
dsn = {_toml(primary.dsn("cdc"))}
# The superuser, used by `cdc setup` alone.
admin_dsn = {_toml(primary.dsn("postgres"))}
# Shell patterns over schema.table; system schemas and cdc never.
tables = {_toml(list(state.tables))}
exclude = {_toml(list(state.exclude))}

[kafka]
bootstrap_servers = "127.0.0.1:{state.ports["kafka"]}"

[kafka.topic]
# One broker, so one copy: a local stack is not where you keep data.
replication_factor = 1
min_insync_replicas = 1

[connect]
url = "http://127.0.0.1:{state.ports["connect"]}"
profile = "exact"
log = {_toml(str(layout.log("connect")))}

[connect.database]
host = "127.0.0.1"
port = {primary.port}
# Kafka Connect reads the password from this file each time; it never stores it.
password = {_toml(f"${{file:{layout.connect_secrets}:password}}")}
"""
    ]
    parts += [
        f"""\
[replicas.{name}]
dsn = {_toml(by_name[name].dsn("cdc"))}
admin_dsn = {_toml(by_name[name].dsn("postgres"))}
listen = "127.0.0.1:{state.ports[f"{name}.listen"]}"
"""
        for name in state.replicas
    ]
    return "\n".join(parts)


def _toml(value: str | list[str]) -> str:
    """Return a TOML basic string or array: JSON's escapes are a subset of TOML's."""
    return json.dumps(value, ensure_ascii=False)


def _digest(written: str) -> str:
    return hashlib.sha256(written.encode()).hexdigest()
