"""Records that no sound connector writes: named changes to real streams, and what must come of them."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
from collections.abc import Callable
from typing import Any

from streams import Raw

from cdc.errors import ApplyRefused, BrokenStream, Halt, MalformedRecord, SchemaMismatch
from cdc.events import LINK

Change = Callable[[list[Raw]], list[Raw]]
Wire = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """What is done to which stream, and the outcome.

    `halts` is the error, None where the change must not matter; `says` a part of its message;
    `at` the record it must name; `applied` how many transactions with rows come before. `in_pieces`
    says the same three where pieces of the transaction are written before its END is known.
    """

    stream: str
    change: Change
    halts: type[Halt] | None = None
    says: str = ""
    at: int | None = None
    applied: int | None = None
    in_pieces: tuple[type[Halt], str, int] | None = None


# The transaction aimed at in "rows": BEGIN, two updates of one table, an insert into another, END.
# Two transactions with rows are before it, and an empty one follows.
BEGIN, FIRST, SECOND, THIRD, END = 9, 10, 11, 12, 13
BEFORE = 2

CASES: dict[str, Case] = {}


def wire(raw: Raw) -> Wire:
    """Return a record's JSON."""
    found: Wire = json.loads(raw[0] or b"{}")
    return found


def packed(found: Any) -> bytes:
    """Return JSON as the connector writes it."""
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()


def value(at: int, change: Callable[[bytes], bytes | None]) -> Change:
    """Change the bytes of one record."""

    def changed(raw: list[Raw]) -> list[Raw]:
        return [*raw[:at], (change(raw[at][0] or b""), raw[at][1]), *raw[at + 1 :]]

    return changed


def edit(at: int, change: Callable[[Wire], object]) -> Change:
    """Change the JSON of one record in place, or for what `change` returns."""

    def changed(old: bytes) -> bytes:
        found = json.loads(old)
        new = change(found)
        return packed(found if new is None else new)

    return value(at, changed)


def put(at: int, path: str, new: Any) -> Change:
    """Set the field at the dotted path; `...` takes it out."""

    def changed(found: Wire) -> None:
        *parents, last = path.split(".")
        for name in parents:
            found = found[name]
        if new is ...:
            del found[last]
        else:
            found[last] = new

    return edit(at, changed)


def renamed(at: int, change: Callable[[int, int], str]) -> Change:
    """Change the transaction number and LSN by which a boundary names its transaction."""

    def changed(found: Wire) -> None:
        txid, lsn = map(int, found["id"].split(":"))
        found["id"] = change(txid, lsn)

    return edit(at, changed)


def named(at: int, form: str) -> Change:
    """Write that name in another form."""
    return renamed(at, form.format)


def linked(at: int, change: Callable[[bytes], bytes | None]) -> Change:
    """Change what a BEGIN's header says of the commit before; None takes it away."""

    def changed(raw: list[Raw]) -> list[Raw]:
        new = change(dict(raw[at][1])[LINK])
        headers = () if new is None else ((LINK, new),)
        return [*raw[:at], (raw[at][0], headers), *raw[at + 1 :]]

    return changed


def links(at: int, link: bytes) -> Change:
    """Let a BEGIN's header say `link`."""
    return linked(at, lambda _: link)


def both(*changes: Change) -> Change:
    """Make several changes, one after the other."""

    def changed(raw: list[Raw]) -> list[Raw]:
        for change in changes:
            raw = change(raw)
        return raw

    return changed


def order(*stretches: tuple[int, int | None]) -> Change:
    """Put stretches of the stream one after the other."""

    def changed(raw: list[Raw]) -> list[Raw]:
        return [record for first, end in stretches for record in raw[first:end]]

    return changed


def without(first: int, end: int | None = None) -> Change:
    """Lose one record, or those up to `end`."""
    return order((0, first), (first + 1 if end is None else end, None))


def insert(at: int, make: Callable[[list[Raw]], list[Raw]]) -> Change:
    """Put records in front of the one at `at`."""

    def changed(raw: list[Raw]) -> list[Raw]:
        return [*raw[:at], *make(raw), *raw[at:]]

    return changed


def forged(at: int, found: Any) -> Change:
    """Put a record of somebody else in front of the one at `at`."""
    return insert(at, lambda _raw: [(packed(found), ())])


def content(change: Callable[[Wire], object]) -> Callable[[Wire], None]:
    """Change the JSON inside a heartbeat's message."""

    def changed(found: Wire) -> None:
        inside = json.loads(base64.b64decode(found["message"]["content"]))
        new = change(inside)
        text = packed(inside if new is None else new)
        found["message"]["content"] = base64.b64encode(text).decode()

    return changed


def lacking(name: str) -> Callable[[Wire], object]:
    """Take a field away."""
    return lambda found: {key: value for key, value in found.items() if key != name}


def malformed(
    name: str,
    change: Change,
    at: int = FIRST,
    says: str = "cannot be read",
    applied: int = BEFORE,
) -> None:
    CASES[name] = Case("rows", change, MalformedRecord, says, at, applied)


def broken(
    name: str, change: Change, says: str, at: int | None = None, applied: int | None = BEFORE
) -> None:
    CASES[name] = Case("rows", change, BrokenStream, says, at, applied)


def mismatch(name: str, change: Change, says: str, at: int = FIRST) -> None:
    CASES[name] = Case("rows", change, SchemaMismatch, says, at, None)


def harmless(name: str, change: Change, stream: str = "rows") -> None:
    CASES[name] = Case(stream, change)


# Bytes that are not a record.
malformed("no bytes", value(FIRST, lambda _: b""))
malformed("not JSON", value(FIRST, lambda _: b"\x00\x07 not JSON"))
malformed("truncated JSON", value(FIRST, lambda v: v[:-20]))
malformed("cut inside a character", value(THIRD, lambda v: v[: v.index("Ü".encode()) + 1]), THIRD)
malformed("bytes behind the record", value(FIRST, lambda v: v + b"}"))
malformed("two records in one", value(FIRST, lambda v: v + v))
malformed("deep nesting", value(FIRST, lambda _: b'{"op":' + b"[" * 100_000))
malformed(
    "deep nesting in an unknown field", value(FIRST, lambda v: v[:-1] + b',"x":' + b"[" * 99_999)
)
malformed("byte-order mark", value(FIRST, lambda v: b"\xef\xbb\xbf" + v))
malformed("invalid UTF-8", value(FIRST, lambda v: v.replace(b"ann", b"\xff\xfe")))
malformed("overlong UTF-8", value(FIRST, lambda v: v.replace(b"ann", b"\xc0\xae")))
malformed("UTF-16", value(FIRST, lambda v: v.decode().encode("utf-16")))
malformed("lone surrogate", value(FIRST, lambda v: v.replace(b"ann", b"\\ud800")))
malformed("control character in a string", value(FIRST, lambda v: v.replace(b"ann", b"a\x00n")))
malformed("NaN", value(FIRST, lambda v: v.replace(b'"op":"u"', b'"op":NaN')))
malformed("compressed", value(FIRST, gzip.compress))
malformed("Avro", value(FIRST, lambda v: b"\x00\x00\x00\x00\x07" + v))
malformed("a list", value(FIRST, lambda v: b"[" + v + b"]"))
malformed("JSON null", value(FIRST, lambda _: b"null"))
malformed("a string", value(FIRST, lambda v: json.dumps(v.decode()).encode()))
malformed("a number", value(FIRST, lambda _: b"17"))

# Records of another kind.
_NEITHER = "neither a change event, a transaction boundary nor a heartbeat"
malformed("a foreign record", forged(FIRST, {"order": 4711, "customer": "x"}), says=_NEITHER)
malformed("with schema", edit(FIRST, lambda w: {"schema": {}, "payload": w}), says=_NEITHER)
malformed("a flattened row", edit(FIRST, lambda w: w["after"] | {"__op": "u"}), says=_NEITHER)
malformed(
    "a schema change", forged(FIRST, {"source": {}, "ts_ms": 1, "ddl": "DROP"}), says=_NEITHER
)
malformed(
    "a notification", forged(FIRST, {"id": "x", "type": "DONE", "timestamp": 1}), says=_NEITHER
)
malformed("a signal", forged(FIRST, {"type": "execute-snapshot", "data": {}}), says=_NEITHER)
malformed("a snapshot row", put(FIRST, "op", "r"), says="snapshot events")
malformed("an incremental snapshot's row", both(put(FIRST, "op", "r"), put(FIRST, "source.lsn", None)),
          says="snapshot events")  # fmt: skip

# A row, field by field.
for _path in (
    "op", "source", "source.lsn", "source.txId", "source.schema", "source.table", "transaction",
    "transaction.total_order", "after",
):  # fmt: skip
    malformed(f"{_path} missing", put(FIRST, _path, ...))
    malformed(f"{_path} null", put(FIRST, _path, None))
_BAD_ROW: tuple[tuple[str, Any], ...] = (
    ("op", 7), ("op", ["u"]), ("op", "x"), ("op", "U"), ("op", ""), ("op", "m"), ("source", "x"),
    ("source.lsn", "34467856"), ("source.lsn", 1.5), ("source.lsn", True), ("source.lsn", -1),
    ("source.lsn", 1 << 80), ("source.txId", "782"), ("source.txId", -1), ("source.txId", 1 << 80),
    ("source.table", 7), ("source.table", ""), ("source.schema", ""), ("transaction", []),
    ("transaction.total_order", "1"), ("transaction.total_order", 1.5), ("before", []),
    ("before", "x"), ("after", []), ("after.id", 1), ("after.id", True), ("after.id", {}),
    ("after.id", ["1"]), ("after.total", 5.0),
    ("transaction.total_order", 1 << 80),
)  # fmt: skip
for _path, _new in _BAD_ROW:
    malformed(f"{_path} is {_new!r}", put(FIRST, _path, _new))
malformed(
    "before and after swapped", edit(FIRST, lambda w: w | {"before": w["after"], "after": None})
)
malformed("a delete's images swapped",
          edit(17, lambda w: w | {"before": None, "after": w["before"]}), 17,
          applied=BEFORE + 1)  # fmt: skip
malformed("a single U+0001 in front of a value", put(FIRST, "after.customer", "\x01x"))
malformed("a message without content", both(put(FIRST, "op", "m"), put(FIRST, "message", None)))
malformed("a message that is not base64", put(24, "message.content", "§"), 24, applied=BEFORE + 3)

# A row that does not fit the replica.
mismatch("a column missing", put(FIRST, "after.total", ...), "the event lacks total")
mismatch("a column more", put(FIRST, "after.ghost", "1"), "the replica lacks ghost")
mismatch("a column's case changed", edit(FIRST, lambda w: w["after"].update(Total=w["after"].pop("total"))),
         "the replica lacks Total")  # fmt: skip
mismatch("the key null", put(FIRST, "after.id", None), "lacks a value of the replica's key")
mismatch("the key unchanged", put(FIRST, "after.id", "\x01"), "lacks a value of the replica's key")
mismatch("a delete without its key", put(17, "before.n", ...), "lacks a value of the replica's", 17)
CASES["an insert without a value"] = Case(
    "rows", put(1, "after.customer", "\x01"), ApplyRefused, "came without all its values", 1, 0
)
CASES["an insert of a row that is there"] = Case(
    "rows", put(FIRST, "op", "c"), ApplyRefused, "duplicate key", FIRST, None
)

# Transactions: boundaries.
_NO_BEGIN, _NOT_WHOLE = "without the transaction's beginning", "is not whole in the topic"
_GAP, _NUMBER = "transactions are missing", "was due"
_NO_LINK = "does not say which commit it follows"
broken("BEGIN lost", without(BEGIN), _NO_BEGIN, BEGIN)
broken("BEGIN of another transaction", renamed(BEGIN, lambda txid, lsn: f"{txid + 9000}:{lsn}"),
       _NO_BEGIN, FIRST)  # fmt: skip
broken(
    "BEGIN again among the rows", order((0, THIRD), (BEGIN, BEGIN + 1), (THIRD, None)), _NOT_WHOLE
)
harmless("BEGIN twice", order((0, FIRST), (BEGIN, None)))
broken(
    "BEGIN of a coming transaction too early", order((0, FIRST), (16, 17), (FIRST, None)), _GAP, 10
)
broken("END lost", without(END), _GAP, END)
broken("END and BEGIN of the next lost", without(END, END + 2), "ends without having begun", END)
broken("END and what follows up to the next rows lost", without(END, 17), _NO_BEGIN, END)
harmless("END twice", order((0, END + 1), (END, None)))
broken(
    "END too early", order((0, THIRD), (END, END + 1), (THIRD, END), (END + 1, None)), _NOT_WHOLE
)
broken("END behind the next one's BEGIN", order((0, 8), (9, 10), (8, 9), (10, None)), _GAP, 8, 1)
broken("END of another transaction", renamed(END, lambda txid, lsn: f"{txid + 9000}:{lsn}"),
       "ends without having begun", END)  # fmt: skip
for _count in (4, 2, 0):
    broken(f"END counts {_count} events", put(END, "event_count", _count), _NOT_WHOLE, END)
broken("END counts no tables", put(END, "data_collections", None), _NOT_WHOLE, END)
broken("END counts right in sum, wrong by table", edit(END, lambda w: w.update(data_collections=[
    {"data_collection": "app.orders", "event_count": 1},
    {"data_collection": 'app.Übel.e "N"ame', "event_count": 2},
])), _NOT_WHOLE, END)  # fmt: skip
broken("END counts a table without events",
       edit(END, lambda w: w["data_collections"].append({"data_collection": "app.x", "event_count": 1})),
       _NOT_WHOLE, END)  # fmt: skip
broken("an empty transaction that counts an event", put(15, "event_count", 1), _NOT_WHOLE, 15, 3)
_BAD_END: tuple[tuple[str, Any], ...] = (
    ("event_count", ...), ("event_count", None), ("event_count", "3"), ("event_count", 1 << 80),
    ("event_count", -3), ("ts_ms", None), ("ts_ms", "x"), ("ts_ms", 1 << 60), ("ts_ms", -1),
    ("status", "COMMIT"), ("status", "end"), ("status", 7), ("id", ...), ("id", None), ("id", 7),
    ("id", ""), ("data_collections", {}), ("data_collections", [{"data_collection": "app.orders"}]),
    ("data_collections", [{"data_collection": "app.orders", "event_count": "1"}]),
)  # fmt: skip
for _path, _new in _BAD_END:
    malformed(
        f"END: {_path} {'missing' if _new is ... else repr(_new)}", put(END, _path, _new), END
    )
for _what, _id in (
    ("an id without LSN", "{0}"), ("an id without its LSN", "{0}:"), ("an id without number", ":{1}"),
    ("a number in letters", "x:{1}"), ("an LSN in letters", "{0}:x"), ("a negative LSN", "{0}:-{1}"),
    ("a negative number", "-{0}:{1}"), ("a huge LSN", "{0}:9{1:025}"), ("a huge number", "9{0:025}:{1}"),
    ("an id with a third part", "{0}:{1}:1"), ("a number with underscores", "{0:_}_1:{1}"),
    ("an LSN with a space", "{0}: {1}"), ("an LSN in hexadecimal", "{0}:{1:#x}"),
    ("a number of another script", "\u0668\u0661\u0663:{1}"), ("an id with a line's end", "{0}:{1}\n"),
):  # fmt: skip
    malformed(f"END: {_what}", named(END, _id), END)
    malformed(f"BEGIN: {_what}", named(BEGIN, _id), BEGIN)
for _link in (b"", b"x", b"-1", b"+1", b" 1", b"1.0", b"0x1", b"1_0", b"null", b'"1"', b"\xff"):
    malformed(f"BEGIN: the link {_link!r}", links(BEGIN, _link), BEGIN)
broken("END's LSN behind", renamed(END, lambda txid, lsn: f"{txid}:{lsn - 8}"), _GAP, END + 1, 3)
broken("END's LSN ahead", renamed(END, lambda txid, lsn: f"{txid}:{lsn + 8}"), "", END + 2, 3)
broken("END's LSN before the commit before", renamed(END, lambda txid, _: f"{txid}:9"),
       "yet ends before it", END)  # fmt: skip
broken("the link lost", linked(BEGIN, lambda _: None), _NO_LINK, BEGIN)
CASES["the link lost, and the log goes on"] = Case(
    "truncates", linked(13, lambda _: None), BrokenStream, _NO_LINK, 13, 1
)
broken("the link ahead", linked(BEGIN, lambda link: b"%d" % (int(link) + 8)), _GAP, BEGIN)
broken("the link back", linked(BEGIN, lambda link: b"%d" % (int(link) - 8)), "now ends later", END)
broken("the link of the beginning", linked(BEGIN, lambda _: b"0"), "now ends later", END)

# Transactions: rows.
for _at in (FIRST, SECOND, THIRD):
    broken(f"row {_at - BEGIN} lost", without(_at), _NOT_WHOLE, END - 1)
    broken(f"row {_at - BEGIN} twice", order((0, _at + 1), (_at, None)), _NUMBER, END + 1)
broken(
    "rows swapped", order((0, FIRST), (SECOND, THIRD), (FIRST, SECOND), (THIRD, None)), _NUMBER, END
)
broken("a row numbered too high", put(SECOND, "transaction.total_order", 3), _NUMBER, END)
broken("a row numbered 0", put(FIRST, "transaction.total_order", 0), _NUMBER, END)
broken("a row of another transaction", put(SECOND, "source.txId", 9782), _NO_BEGIN, SECOND)
broken("a row of a coming transaction",
       order((0, FIRST), (18, 19), (FIRST, None)), _NO_BEGIN, FIRST)  # fmt: skip
broken(
    "a row behind its END",
    order((0, THIRD), (END, END + 1), (THIRD, END), (END + 1, None)),
    _NOT_WHOLE,
)
broken("a row before its BEGIN",
       order((0, BEGIN), (FIRST, SECOND), (BEGIN, FIRST), (SECOND, None)), _NOT_WHOLE, END)  # fmt: skip
for _what, _where, _other in (
    ("table renamed", "table", "other"),
    ("table in other letters", "table", "Orders"),
    ("schema renamed", "schema", "public"),
):
    CASES[f"a row's {_what}"] = Case(
        "rows", put(FIRST, f"source.{_where}", _other), BrokenStream, _NOT_WHOLE, END, BEFORE,
        in_pieces=(SchemaMismatch, "never filled with", FIRST),
    )  # fmt: skip
harmless("a row of an applied transaction", order((0, FIRST), (6, 7), (FIRST, None)))
broken("a message inside a transaction lost", without(28), _NUMBER, 30, 5)

# The chain.
broken("a transaction lost before an empty one", without(BEGIN, END + 1), _GAP, BEGIN)
broken("a transaction lost before one with rows", without(16, 20), _GAP, 16, 3)
broken("a transaction lost before a message", without(20, 23), _GAP, 20, 4)
broken("an empty transaction lost", without(14, 16), _GAP, 14, 3)
broken("a message's transaction lost", without(23, 26), _GAP, 23, 5)
CASES["a transaction lost before a message outside of any"] = Case(
    "truncates", without(17, 22), BrokenStream, _GAP, 18, 2
)
broken("two transactions swapped", order((0, 5), (9, 14), (5, 9), (14, None)), _GAP, 14, 2)
broken("a transaction late", order((0, 5), (9, 23), (5, 9), (23, None)), _GAP, 23, 2)
harmless("a transaction repeated at once", order((0, END + 1), (BEGIN, None)))
harmless("a transaction repeated later", order((0, 31), (BEGIN, END + 1), (31, None)))
harmless("everything repeated", order((0, None), (0, None)))
harmless("everything repeated from the middle, twice", order((0, 40), (5, 25), (5, None)))
harmless("begun, cut, and begun again", order((0, THIRD), (BEGIN, None)))
harmless("cut, and begun again some transactions before", order((0, 40), (0, None)))
broken("cut and not begun again", without(THIRD, 14), _GAP, THIRD)
broken("the log begins later", without(0, 5), _GAP, 0, 0)
broken("the log begins in the middle of a transaction", without(0, 2), _NO_BEGIN, 0, 0)

# What stands between.
harmless("a tombstone in a transaction", insert(SECOND, lambda _: [(None, ())]))
harmless(
    "Debezium's heartbeats anywhere", both(*(forged(at, {"ts_ms": 1}) for at in (30, 14, 11, 0)))
)
harmless("unknown fields", edit(FIRST, lambda w: w.update(later={"x": [1, None]}, more=1.5)))
harmless("fields in another order", edit(FIRST, lambda w: dict(reversed(w.items()))))
harmless(
    "spaces in a row", value(FIRST, lambda v: b" " + json.dumps(json.loads(v), indent=2).encode())
)
harmless("escapes", value(FIRST, lambda v: v.replace(b"ann", b"\\u0061\\u006e\\u006E")))
harmless("a field given twice", value(FIRST, lambda v: b'{"op":"d",' + v[1:]))
broken("a number given twice",
       value(FIRST, lambda v: v.replace(b'"total_order":1', b'"total_order":1,"total_order":9')),
       _NUMBER, END)  # fmt: skip
harmless("a snapshot marker on a row", put(FIRST, "source.snapshot", "last"))

# Heartbeats of the connector, and other messages, in "keys".
_BEAT = 1


def beat(name: str, change: Callable[[Wire], object], halts: type[Halt], says: str) -> None:
    CASES[name] = Case("keys", edit(_BEAT, change), halts, says, _BEAT, 0)


beat("a heartbeat of another system", content(lambda c: c.update(system="1")), BrokenStream,
     "the primary is another server")  # fmt: skip
beat("a heartbeat of another timeline", content(lambda c: c.update(timeline=2)), BrokenStream,
     "the connector sends timeline 2")  # fmt: skip
for _path in ("ts", "system", "timeline", "lsn"):
    beat(
        f"a heartbeat without {_path}",
        content(lacking(_path)),
        MalformedRecord,
        "a heartbeat cannot be read",
    )
beat("a heartbeat that is no JSON", lambda w: w["message"].update(content="AAAA"), MalformedRecord,
     "a heartbeat cannot be read")  # fmt: skip
beat(
    "a heartbeat that is a list",
    content(lambda _: []),
    MalformedRecord,
    "a heartbeat cannot be read",
)
beat("a heartbeat whose LSN is none", content(lambda c: c.update(lsn="x")), MalformedRecord,
     "a heartbeat cannot be read")  # fmt: skip
beat("a heartbeat whose time is none", content(lambda c: c.update(ts=1e300)), MalformedRecord,
     "a heartbeat cannot be read")  # fmt: skip
beat("a heartbeat's prefix null", lambda w: w["message"].update(prefix=None), MalformedRecord,
     "cannot be read")  # fmt: skip
beat(
    "a heartbeat that is not UTF-8",
    lambda w: w["message"].update(content=base64.b64encode(b'{"ts":1,"system":"\x81"}').decode()),
    MalformedRecord,
    "a heartbeat cannot be read",
)
CASES["a note with the prefix of heartbeats"] = Case(
    "rows", edit(28, lambda w: w["message"].update(prefix="cdc.heartbeat")), MalformedRecord,
    "a heartbeat cannot be read", 28, 5,
)  # fmt: skip

# Key changes and truncates, which come in parts.
for _at, _what in ((12, "first"), (13, "second")):
    CASES[f"the {_what} half of a key change lost"] = Case(
        "keys", without(_at), BrokenStream, _NOT_WHOLE, 13, 2
    )
CASES["the halves of a key change swapped"] = Case(
    "keys", order((0, 12), (13, 14), (12, 13), (14, None)), BrokenStream, _NUMBER, 14, 2
)
CASES["the halves of a key change torn apart"] = Case(
    "keys", put(13, "source.lsn", 1), ApplyRefused, "came without all its values", 13, None
)
for _at, _what in ((14, "first"), (15, "second")):
    CASES[f"the {_what} table of a truncate lost"] = Case(
        "truncates", without(_at), BrokenStream, _NOT_WHOLE, 15, 1
    )
CASES["a truncate's table renamed"] = Case(
    "truncates", put(15, "source.table", "orders"), BrokenStream, _NOT_WHOLE, 16, 1
)

# A connector set back, in "repeated": it begins again at 24.
CASES["a repeated transaction ends later than anything"] = Case(
    "repeated", renamed(30, lambda txid, lsn: f"{txid}:{lsn + 99_999}"), BrokenStream, "now ends later",
    30, 4,
)  # fmt: skip
CASES["a repeated transaction ends elsewhere"] = Case(
    "repeated",
    renamed(30, lambda txid, lsn: f"{txid}:{lsn + 8}"),
    BrokenStream,
    "comes late",
    30,
    4,
)
CASES["a transaction that was never applied among repeated ones"] = Case(
    "repeated", both(*(put(at, "source.txId", 9843) for at in (28, 29)),
                     *(renamed(at, lambda _, lsn: f"9843:{lsn}") for at in (27, 30))),
    BrokenStream, "comes late", 30, 4,
)  # fmt: skip
harmless("a repeated transaction without its rows", without(28, 30), "repeated")
harmless("a repeated stretch cut short", order((0, 32), (48, None)), "repeated")
