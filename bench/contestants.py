"""Who applies the changes: this program, PostgreSQL's own apply worker, Debezium's JDBC sink.

Each has a database of its own on the replica's server, and starts from where it was before the changes.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
from typing import Any, LiteralString, Protocol

import harness
import requests
import subscription
from cells import Cell
from harness import Stream
from psycopg import conninfo, sql
from sink import Worker

from cdc.local.layout import Layout


class Contestant(Protocol):
    """One that applies; `name` is its key in the results, `sessions` finds its sessions there."""

    @property
    def name(self) -> str: ...
    @property
    def database(self) -> str: ...
    @property
    def sessions(self) -> LiteralString: ...
    def reset(self, cell: Cell) -> None: ...
    def begin(self, cell: Cell) -> int | None: ...
    def end(self) -> None: ...


def refill(dsn: str, cell: Cell) -> None:
    """Give a cell's table the rows that it had before the changes."""
    table = sql.Identifier(cell.table)
    harness.rows(dsn, sql.SQL("TRUNCATE {}").format(table))
    harness.rows(dsn, cell.fill)
    harness.rows(dsn, sql.SQL("VACUUM (FREEZE, ANALYZE) {}").format(table))


class Ours:
    """`cdc run --until-caught-up`, from process start."""

    name = "cdc"
    sessions: LiteralString = "application_name LIKE 'cdc-%%/r1/apply'"

    def __init__(self, stream: Stream) -> None:
        self._stream, self.database = stream, stream.name
        self._process: subprocess.Popen[bytes] | None = None
        self._position: str = ""

    def remember(self) -> None:
        """Take today's position as the one before the changes."""
        ((self._position,),) = self._stream.sql(
            "r1", "SELECT to_jsonb(p)::text FROM cdc.position p"
        )

    def reset(self, cell: Cell) -> None:
        refill(self._stream.dsn("r1"), cell)
        self._stream.sql("r1", "DELETE FROM cdc.position")
        self._stream.sql(
            "r1",
            "INSERT INTO cdc.position SELECT * FROM jsonb_populate_record(null::cdc.position, %s::jsonb)",
            [self._position],
        )

    def begin(self, cell: Cell) -> int:  # noqa: ARG002 -- it applies whatever comes
        self._process = self._stream.start("run", "-r", "r1", "--until-caught-up")
        return self._process.pid

    def end(self) -> None:
        assert self._process is not None
        code = self._process.wait(timeout=600)
        assert code == 0, self._stream.log(self._process)

    def idle(self) -> dict[str, float]:
        """Return what a run with nothing to apply takes: seconds of processor, and memory in MiB."""
        process = self._stream.start("run", "-r", "r1", "--until-caught-up")
        _, code, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
        assert process.returncode == 0, self._stream.log(process)
        return {"cpu": used.ru_utime + used.ru_stime, "memory": used.ru_maxrss / 1024}


class Postgres:
    """A subscription that begins at a copy of a slot made before the changes."""

    name = "postgresql"
    sessions: LiteralString = "backend_type LIKE 'logical replication%%worker'"

    def __init__(self, stream: Stream) -> None:
        self._stream, self.database = stream, f"{stream.name}_pg"
        self._numbers = itertools.count(1)
        self._slot = ""

    @property
    def dsn(self) -> str:
        return conninfo.make_conninfo(self._stream.dsn("r1"), dbname=self.database)

    def remember(self) -> None:
        self._stream.sql(
            "primary",
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'bench'",
        )
        self._stream.sql(
            "primary", "SELECT pg_create_logical_replication_slot('bench', 'pgoutput')"
        )

    def reset(self, cell: Cell) -> None:
        refill(self.dsn, cell)
        self._slot = f"bench_{next(self._numbers)}"
        self._stream.sql(
            "primary", "SELECT pg_copy_logical_replication_slot('bench', %s)", [self._slot]
        )
        subscription.create(self._stream, self.dsn, subscription.from_slot(self._slot))

    def begin(self, cell: Cell) -> None:  # noqa: ARG002 -- it applies whatever comes
        harness.rows(self.dsn, "ALTER SUBSCRIPTION bench ENABLE")

    def end(self) -> None:
        subscription.drop(self.dsn)
        subscription.let_go(self._stream, self._slot)
        self._stream.sql("primary", "SELECT pg_drop_replication_slot(%s)", [self._slot])


@dataclasses.dataclass(slots=True)
class Sink:
    """Debezium's JDBC sink, on topics that Debezium's stock connector writes with schemas."""

    name: str
    stream: Stream
    worker: Worker
    password: str
    settings: dict[str, str]
    parameters: str = ""
    sessions: LiteralString = "application_name = 'bench-sink'"
    _numbers: Any = dataclasses.field(default_factory=lambda: itertools.count(1))
    _connector: str = ""

    @property
    def database(self) -> str:
        return f"{self.stream.name}_sink"

    @property
    def dsn(self) -> str:
        return conninfo.make_conninfo(self.stream.dsn("r1"), dbname=self.database)

    def reset(self, cell: Cell) -> None:
        refill(self.dsn, cell)

    def begin(self, cell: Cell) -> int:
        self.follow(cell.table)
        return self.worker.pid

    def follow(self, table: str) -> None:
        """Start a connector, which reads the table's topic from its beginning unless `settings` name a group."""
        server = conninfo.conninfo_to_dict(self.dsn)
        url = f"jdbc:postgresql://{server['host']}:{server['port']}/{self.database}"
        self._connector = f"{self.name}_{next(self._numbers)}"
        self.worker.start(
            self._connector,
            {
                "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
                "tasks.max": "1",
                "topics": f"{source_prefix(self.stream)}.public.{table}",
                "connection.url": f"{url}?ApplicationName=bench-sink"
                f"&options=-c%20synchronous_commit=off{self.parameters}",
                "connection.username": "postgres",
                "connection.password": self.password,
                "insert.mode": "upsert",
                "delete.enabled": "true",
                "primary.key.mode": "record_key",
                "schema.evolution": "none",
                "collection.name.format": "${source.schema}.${source.table}",
                **self.settings,
            },
        )

    def end(self) -> None:
        self.worker.remove(self._connector)
        sessions: LiteralString = (
            "SELECT FROM pg_stat_activity WHERE application_name = 'bench-sink'"
        )
        harness.wait_until(lambda: not harness.rows(self.dsn, sessions), "the sink's sessions end")

    def fault(self) -> str | None:
        return self.worker.fault(self._connector)


def source_prefix(stream: Stream) -> str:
    return f"peer_{stream.name}"


def start_source(stream: Stream) -> str:
    """Start Debezium's stock connector for the sink's topics; return its slot."""
    ours = requests.get(f"{stream.connect}/connectors/cdc_{stream.name}/config", timeout=60).json()
    name = source_prefix(stream)
    own = {key: ours[key] for key in ("heartbeat.action.query", "poll.interval.ms")}
    # The sink has no use for tombstones.
    start_stock(
        stream, name, own | {"tombstones.on.delete": "false", "heartbeat.interval.ms": "2000"}
    )
    return name


def start_stock(stream: Stream, name: str, settings: dict[str, str]) -> None:
    """Start Debezium's stock connector as `put_stock` does, and wait until it streams."""
    put_stock(stream, name, settings)
    active: LiteralString = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
    harness.wait_until(
        lambda: stream.sql("primary", active, [name]) == [(True,)], f"{name} streams", timeout=120
    )


def put_stock(stream: Stream, name: str, settings: dict[str, str]) -> None:
    """Ask for Debezium's stock connector of that name, prefix and slot, with what it needs and `settings`."""
    ours = requests.get(f"{stream.connect}/connectors/cdc_{stream.name}/config", timeout=60).json()
    needed = {
        key: value for key, value in ours.items() if key.startswith(("database.", "publication."))
    }
    answer = requests.put(
        f"{stream.connect}/connectors/{name}/config",
        json={
            **needed,
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "tasks.max": "1",
            "topic.prefix": name,
            "plugin.name": "pgoutput",
            "slot.name": name,
            "snapshot.mode": "no_data",
            "topic.creation.default.partitions": "1",
            "topic.creation.default.replication.factor": "1",
            "key.converter": "org.apache.kafka.connect.json.JsonConverter",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter",
            **settings,
        },
        timeout=60,
    )
    assert answer.ok, answer.text


def pid(stream: Stream, component: str) -> int:
    """Return the process of a component of the local stack: `kafka`, `connect`."""
    return int(Layout(stream.stack.config.parent).pid_file(component).read_text().split()[0])


def stop_source(stream: Stream) -> None:
    """Take the sink's source away: as long as it reads, its slot cannot be dropped."""
    requests.delete(f"{stream.connect}/connectors/{source_prefix(stream)}", timeout=60)


def shown_settings(dsn: str) -> dict[str, str]:
    """Return the replica server's settings on which the figures depend."""
    found = harness.rows(
        dsn,
        "SELECT json_object_agg(name, current_setting(name)) FROM pg_settings WHERE name = ANY (%s)",
        [["fsync", "full_page_writes", "max_wal_size", "shared_buffers", "wal_compression"]],
    )
    return dict(found[0][0]) if isinstance(found[0][0], dict) else dict(json.loads(found[0][0]))
