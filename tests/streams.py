"""Real streams: what the shipped connector wrote into its topic, kept in tests/streams.

`python tests/streams.py` captures them anew from the stack of CDC_TEST_DIR: each is a stretch of
one topic, from right after one commit to another, with the rows that the primary had at both ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, LiteralString

from capture import Capture, capture, server
from confluent_kafka import OFFSET_BEGINNING, Message, TopicPartition
from harness import Stack, wait_until
from psycopg import sql

from cdc import source
from cdc.events import LINK, Record
from cdc.names import TableName

FOLDER = Path(__file__).parent / "streams"
TOPIC = "cdc.app"

#: The offset that the first record of every kept stream gets.
FIRST = 100

Rows = tuple[tuple[str | None, ...], ...]

#: A record's value (None is a tombstone) and headers.
Raw = tuple[bytes | None, tuple[tuple[str, bytes], ...]]


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """A table: its columns, its key, and the primary's rows before and after the stream."""

    columns: tuple[str, ...]
    key: tuple[str, ...]
    before: Rows
    after: Rows


@dataclasses.dataclass(frozen=True, slots=True)
class Captured:
    """A stretch of a real topic that follows the commit `applied` (txid, END LSN)."""

    name: str
    applied: tuple[int, int]
    system: str
    timeline: int
    tables: dict[TableName, Held]
    raw: tuple[Raw, ...]

    @property
    def records(self) -> list[Record]:
        """The records as the daemon's source gives them."""
        return [
            source.record(
                Message("t", 0, at, None, value, list(headers) or None, leader_epoch=0), TOPIC
            )
            for at, (value, headers) in enumerate(self.raw, FIRST)
        ]


def load(name: str) -> Captured:
    """Return the stream kept under `name`."""
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    head = json.loads(lines[0])
    tables = {
        TableName(*table["name"]): Held(
            tuple(table["columns"]),
            tuple(table["key"]),
            tuple(map(tuple, table["before"])),
            tuple(map(tuple, table["after"])),
        )
        for table in head["tables"]
    }
    raw = tuple(
        (
            line["value"] and line["value"].encode(),
            tuple((key, value.encode()) for key, value in line["headers"].items()),
        )
        for line in map(json.loads, lines[1:])
    )
    return Captured(
        name,
        (head["applied"][0], head["applied"][1]),
        head["system"],
        head["timeline"],
        tables,
        raw,
    )


def names() -> list[str]:
    """Return the names of the streams kept."""
    return sorted(path.stem for path in FOLDER.glob("*.jsonl"))


TABLES: dict[tuple[str, str], tuple[tuple[str, ...], LiteralString]] = {
    ("app", "orders"): (("id",), "id int, customer text DEFAULT 'nobody', total numeric(9, 2)"),
    ("app", "items"): (("order_id", "n"), "order_id int, n int, what text, tags text[]"),
    ("app", "big"): (("id",), "id text, body text, small int"),
    ("app", "whole"): (("id",), "id int, v text"),
    ("app", 'Übel.e "N"ame'): (("a b",), '"a b" int, "from" text'),
}

_SETTINGS: LiteralString = """
    ALTER TABLE app.big ALTER body SET STORAGE EXTERNAL;
    ALTER TABLE app.whole REPLICA IDENTITY FULL;
    CREATE TABLE app.left_out (id int PRIMARY KEY);
"""

#: Each transaction is a string; a stream ends with a marking message of its own. The last one's
#: connector is set back before that to where the stream began.
STREAMS: dict[str, tuple[LiteralString, ...]] = {
    "rows": (
        "INSERT INTO app.orders VALUES (1, 'ann', 10), (2, 'bob', 20.5), (3, NULL, NULL)",
        "INSERT INTO app.items VALUES (1, 1, 'nut', '{a,b}'), (1, 2, E'bolt\\ttab\\\\', '{{x},{y}}')",
        """UPDATE app.orders SET total = total - 5 WHERE id = 1;
           UPDATE app.orders SET total = total + 5 WHERE id = 2;
           INSERT INTO app."Übel.e ""N""ame" VALUES (1, 'ein Wert: 𝄞 "quoted"')""",
        "INSERT INTO app.left_out VALUES (1)",
        "DELETE FROM app.items WHERE n = 2; UPDATE app.items SET what = E'\\x01 first'",
        "UPDATE app.orders SET customer = 'ann' WHERE customer = 'ann'",
        "SELECT pg_logical_emit_message(true, 'app', 'a note')",
        """INSERT INTO app.orders VALUES (4, 'dan', 4);
           SELECT pg_logical_emit_message(true, 'app', 'inside');
           INSERT INTO app.items VALUES (4, 1, '', '{}'); DELETE FROM app.orders WHERE id = 3""",
        "INSERT INTO app.left_out VALUES (2)",
        "INSERT INTO app.whole SELECT i, 'v' || i FROM generate_series(1, 12) i",
    ),
    "keys": (
        "",  # a heartbeat
        "INSERT INTO app.big SELECT i, repeat('x' || i, 1100), i FROM generate_series(1, 3) i",
        "UPDATE app.big SET small = 10 WHERE id = '1'",
        "UPDATE app.big SET id = 'moved' WHERE id = '2'",
        "UPDATE app.big SET id = 'again', small = 7 WHERE id = 'moved'",
        "UPDATE app.orders SET id = 9 WHERE id = 1; UPDATE app.orders SET id = 1 WHERE id = 9",
        """UPDATE app.orders SET id = 8 WHERE id = 1; UPDATE app.orders SET id = 1 WHERE id = 2;
           UPDATE app.orders SET id = 2 WHERE id = 8""",
        "DELETE FROM app.orders WHERE id = 2; INSERT INTO app.orders VALUES (2, 'new', 1)",
        "UPDATE app.whole SET id = id + 100 WHERE id < 4; UPDATE app.whole SET v = 'w' WHERE id > 9",
        "DELETE FROM app.whole WHERE id IN (4, 5); DELETE FROM app.big WHERE id = '3'",
        "UPDATE app.big SET body = repeat('y', 2200) WHERE id = '1'; UPDATE app.big SET small = 0",
    ),
    "truncates": (
        "INSERT INTO app.orders SELECT i, 'c' || i, i FROM generate_series(20, 30) i",
        "TRUNCATE app.orders, app.items",
        """INSERT INTO app.orders VALUES (1, 'x', 1); TRUNCATE app.orders;
           INSERT INTO app.orders VALUES (1, 'y', 2)""",
        "SELECT pg_logical_emit_message(false, 'app', 'outside of transactions')",
        "INSERT INTO app.items VALUES (7, 7, 'seven', NULL)",
        """INSERT INTO app.orders VALUES (2, 'z', 3);
           SELECT pg_logical_emit_message(false, 'app', 'sent at once');
           INSERT INTO app.orders VALUES (3, 'z', 3)""",
        "TRUNCATE app.whole",
        "INSERT INTO app.whole SELECT i, 'again' FROM generate_series(1, 30) i",
    ),
    "repeated": (
        "INSERT INTO app.orders VALUES (51, 'first', 1), (52, 'first', 2)",
        "UPDATE app.orders SET total = total + 1 WHERE id > 50",
        "INSERT INTO app.left_out VALUES (51)",
        "UPDATE app.orders SET id = 61 WHERE id = 51; INSERT INTO app.items VALUES (61, 1, '', '{}')",
        "DELETE FROM app.orders WHERE id = 52",
    ),
}


def captured(stack: Stack) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Give name and lines (the head, then the records) of each stream, from a connector of its own."""
    with capture(stack) as topic:
        topic.sql("CREATE SCHEMA app")
        for table, (key, columns) in TABLES.items():
            topic.sql(
                sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))").format(
                    sql.Identifier(*table),
                    sql.SQL(columns),
                    sql.SQL(", ").join(map(sql.Identifier, key)),
                )
            )
        topic.sql(_SETTINGS)
        # The slot stays where it is, so that a connector set back is sent everything again.
        # Heartbeats come when they are asked for, so that a stream is the same each time.
        topic.start(
            table__exclude__list="app.left_out",
            flush__lsn__source="false",
            heartbeat__interval__ms=str(3_600_000),
        )
        beat = topic.config()["heartbeat.action.query"]
        before, first = _contents(topic), topic.mark()
        for name, transactions in STREAMS.items():
            stored = _settled(topic) if name == "repeated" else None
            for statements in transactions:
                topic.sql(statements or sql.SQL(beat))  # type: ignore[arg-type]  # the shipped query
            if stored is not None:
                _set_back(topic, stored)
            last = topic.mark()
            records = _records(topic, last)
            start = _end(records, first)
            after = _contents(topic)
            head = {
                "applied": [int(n) for n in str(_wire(records[start])["id"]).split(":")],
                "system": topic.sql("SELECT system_identifier::text FROM pg_control_system()")[0][
                    0
                ],
                "timeline": topic.sql("SELECT timeline_id FROM pg_control_checkpoint()")[0][0],
                "tables": [
                    {"name": table, "columns": columns, "key": key, "before": rows, "after": then}
                    for (table, columns, key, rows), (*_, then) in zip(before, after, strict=True)
                ],
            }
            yield name, [head, *records[start + 1 : _end(records, last) + 1]]
            before, first = after, last


def _settled(topic: Capture) -> dict[str, Any]:
    """Return an offset that Connect has stored after now: that of a message's commit."""
    ((position,),) = topic.sql("SELECT pg_current_wal_insert_lsn() - '0/0'")
    topic.mark()
    found: dict[str, Any] = {}

    def stored() -> bool:
        found.update(topic.stored() or {})
        return bool(found.get("lsn", 0) >= position)

    wait_until(stored, "the message's commit is stored", 120)
    return found


def _set_back(topic: Capture, stored: dict[str, Any]) -> None:
    """Let everything be sent, then let the connector begin at the offset `stored` once more."""
    topic.drained()
    topic.act("PUT", "/stop")
    wait_until(lambda: topic.states() == ["STOPPED"], "the connector has stopped")
    topic.set_back(stored)
    topic.act("PUT", "/resume")
    topic.running()


def _records(topic: Capture, last: str) -> list[dict[str, Any]]:
    """Return the topic from its start to the end of the transaction of the message `last`."""
    found: list[dict[str, Any]] = []
    with closing(topic.consumer()) as consumer:
        consumer.assign([TopicPartition(topic.topic, 0, OFFSET_BEGINNING)])

        def whole() -> bool:
            for message in consumer.consume(10_000, timeout=1):
                if message.error():
                    continue  # the log's present end
                read = source.record(message, TOPIC)
                found.append({
                    "value": None if read.value is None else read.value.decode(),
                    "headers": {} if read.link is None else {LINK: read.link.decode()},
                })  # fmt: skip
            with contextlib.suppress(StopIteration):
                return _end(found, last) > 0
            return False

        wait_until(whole, "the stream's last commit is in the topic", 120)
    return found


def _end(records: list[dict[str, Any]], prefix: str) -> int:
    """Return where the transaction of the first message `prefix` ends."""
    at, wire = next(
        (at, wire)
        for at, wire in enumerate(map(_wire, records))
        if (wire.get("message") or {}).get("prefix") == prefix
    )
    txid = f"{wire['source']['txId']}:"
    return next(
        end
        for end, wire in enumerate(map(_wire, records))
        if end > at and wire.get("status") == "END" and wire["id"].startswith(txid)
    )


def _wire(record: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record["value"] or "{}")
    return found


def _contents(topic: Capture) -> list[tuple[list[str], list[str], list[str], list[list[Any]]]]:
    """Return name, columns, key and rows, as text in key order, of every table that is captured."""
    found = []
    with server(topic.dsn) as primary:
        for name, (key, _) in TABLES.items():
            table = sql.Identifier(*name)
            head = primary.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(table))
            columns = [column.name for column in head.description or ()]
            rows = primary.execute(
                sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
                    sql.SQL(", ").join(
                        sql.SQL("{}::text").format(sql.Identifier(c)) for c in columns
                    ),
                    table,
                    sql.SQL(", ").join(map(sql.Identifier, key)),
                )
            ).fetchall()
            found.append((list(name), columns, list(key), [list(row) for row in rows]))
    return found


def main() -> None:
    """Write the streams of a running stack into tests/streams."""
    FOLDER.mkdir(exist_ok=True)
    for name, lines in captured(Stack.at(Path(os.environ["CDC_TEST_DIR"]).absolute())):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (FOLDER / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{name}: {len(lines) - 1} records")


if __name__ == "__main__":
    main()
