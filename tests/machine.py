"""The apply loop as a state machine: a log that grows, two daemons, and everything that may break.

Each daemon is the real one in a thread of its own, which runs only when it is told to and stops at
the next point that could matter: a failpoint, asking for records, COMMIT, waiting. Between two
steps anything may happen. What the primary has committed is the reference: after every step the
replica's rows are the primary's as of the position.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from typing import Any, Literal

import hostile
import truth
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from streams import Raw
from world import Connection, Database, Log, Lost, Tables, World

from cdc import failpoint
from cdc.catalog import Table
from cdc.config import Apply
from cdc.gauge import Gauge
from cdc.names import TableName
from cdc.position import Coverage, Position
from cdc.replicator import Replicator

TABLES = (TableName("s", "a"), TableName("s", "b"))
KEYS = dict.fromkeys(TABLES, ("id",))
START = 1000

#: How much a daemon may do at once in a turn, in points passed; more than any test needs.
PATIENCE = 1_000

#: Where a daemon stands; what may befall it there.
POINTS = (
    "read", "wait", "session.locked", "batch.begun", "rows.written", "position.moved", "commit",
    "commit", "batch.committed", "batch.acknowledged",
)  # fmt: skip
FAULTS = (
    "nothing", "killed", "vanishes", "loses its session", "loses its COMMIT", "loses COMMIT's answer",
)  # fmt: skip

#: One change as hypothesis draws it: what, which table, which key, which value.
Draw = tuple[int, int, int, int]
draws = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 1), st.integers(0, 3), st.integers(0, 9)),
    max_size=5,
)


class Killed(BaseException):
    """SIGKILL: the daemon's code does not go on."""


Order = BaseException | Literal["before", "after"] | None


class Actor:
    """A daemon in a thread, parked at `point` until it is resumed; None when it has ended."""

    def __init__(self, stage: Stage) -> None:
        self.point: str | None = "start"
        self.halted: BaseException | None = None
        self.session: Session | None = None
        self.stop = Waiting(self)
        self._order: Order = None
        self._go, self._parked = threading.Semaphore(0), threading.Semaphore(0)
        self._stage = stage
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.actor = self  # type: ignore[attr-defined]  # how its own calls find it
        self._thread.start()

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not isinstance(self._order, BaseException):
                Replicator(self._stage.config, "r1", self.stop, Gauge("r1")).run()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 -- told to the test, whatever it is
            self.halted = error
        self.point = None
        self._parked.release()

    def park(self, point: str) -> Order:
        """Stand at `point` until resumed; called in the daemon's thread."""
        self.point = point
        self._parked.release()
        self._go.acquire()
        if isinstance(self._order, BaseException):
            raise self._order
        return self._order

    def resume(self, order: Order = None) -> None:
        """Let the daemon go on to its next point, or do there what `order` says."""
        self._order = order
        self._go.release()
        assert self._parked.acquire(timeout=60), f"the daemon does not come back from {self.point}"
        if self.halted is not None:
            raise self.halted

    def kill(self) -> None:
        """Let it end where it stands; wherever it catches that, once more."""
        while self.point is not None:
            self.resume(Killed())


def here() -> Actor | None:
    """Return the daemon in whose thread this is called."""
    return getattr(threading.current_thread(), "actor", None)


class Waiting(threading.Event):
    """The stop signal of one daemon: whoever waits for it is parked."""

    def __init__(self, actor: Actor) -> None:
        super().__init__()
        self._actor = actor

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 -- the signature it stands in for
        if not self.is_set():
            self._actor.park("wait")
        return self.is_set()


class Session(Connection):
    """A session whose COMMIT can be lost, before or after it has happened."""

    lingers = False

    def commit(self) -> None:
        actor = here()
        outcome = actor.park("commit") if actor is not None else None
        if not self.alive or outcome == "before":
            self.end()
            raise Lost("the connection is lost")
        super().commit()
        if outcome == "after":
            self.end()
            raise Lost("the connection is lost")

    def close(self) -> None:
        if not self.lingers:
            self.end()


class Stage(World):
    """The world with daemons on it; each read gives at most `most` records."""

    most = 500
    failed: str | None = None

    def holdup(self) -> str | None:
        return self.failed

    def reading(self) -> None:
        if (actor := here()) is not None:
            actor.park("read")

    def idle(self) -> None:
        """Nothing: a daemon reads on until it is stopped."""

    def connection(self, *_given: Any, **_settings: Any) -> Connection:
        actor = here()
        assert actor is not None
        actor.session = Session(self.database)
        return actor.session

    def reached(self, point: failpoint.Point | failpoint.FillPoint) -> None:
        if (actor := here()) is not None:
            actor.park(point)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        with super().installed():
            failpoint.arm(self.reached)
            try:
                yield
            finally:
                failpoint.arm(None)


@dataclasses.dataclass(frozen=True, slots=True)
class Sent:
    """A transaction of the primary as the connector sends it, and the rows after it."""

    txid: int
    previous: int
    end: int
    events: tuple[dict[str, Any], ...]
    after: Tables

    def records(self) -> list[Raw]:
        """Return BEGIN, events and END."""
        counts: dict[str, int] = {}
        for event in self.events:
            source = event["source"]
            name = (
                f"{source['schema']}.{source['table']}"
                if event["op"] != "m"
                else "LogicalDecodingMessageId@1"
            )
            counts[name] = counts.get(name, 0) + 1
        begin = {"status": "BEGIN", "id": f"{self.txid}:{self.previous}", "ts_ms": 1}
        end = {
            "status": "END", "id": f"{self.txid}:{self.end}", "event_count": len(self.events),
            "data_collections": [
                {"data_collection": name, "event_count": n} for name, n in counts.items()
            ],
            "ts_ms": 1,
        }  # fmt: skip
        link = ("cdc.previous", str(self.previous).encode())
        return [
            (hostile.packed(begin), (link,)),
            *((hostile.packed(event), ()) for event in self.events),
            (hostile.packed(end), ()),
        ]


class Primary:
    """The reference: what was committed, in order, and the rows after each commit."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.rows: Tables = {table: {} for table in TABLES}

    @property
    def end(self) -> int:
        return self.sent[-1].end if self.sent else START

    def at(self, lsn: int) -> Tables:
        """Return the rows as of the commit that ends at `lsn`."""
        found = [sent for sent in self.sent if sent.end <= lsn]
        return found[-1].after if found else {table: {} for table in TABLES}

    def commit(self, drawn: list[Draw]) -> Sent:
        """Commit the changes drawn, each as far as it makes sense with the rows there are."""
        txid, previous, events = len(self.sent) + 10, self.end, list[dict[str, Any]]()
        rows = {table: dict(held) for table, held in self.rows.items()}

        def event(op: str, table: TableName | None, **images: Any) -> None:
            lsn = previous + 10 * (len(events) + 1) - (10 if op == "moved" else 0)
            events.append({
                "before": images.get("before"), "after": images.get("after"),
                "source": {
                    "schema": table.schema if table else "", "table": table.name if table else "",
                    "txId": txid, "lsn": lsn,
                },
                "transaction": {"id": f"{txid}:{lsn}", "total_order": len(events) + 1},
                "message": images.get("message"), "op": "c" if op == "moved" else op, "ts_ms": 1,
            })  # fmt: skip

        for what, which, key_number, value in drawn:
            table, key, text = TABLES[which], str(key_number), f"v{value}"
            held = rows[table]
            old = {"id": key, "v": None}
            if what == 6:
                event("m", None, message={"prefix": "note", "content": ""})
            elif what == 5:
                held.clear()
                event("t", table)
            elif (key,) not in held:
                held[key,] = {"id": key, "v": text}
                event("c", table, after={"id": key, "v": text})
            elif what == 0:
                del held[key,]
                event("d", table, before=old)
            elif what == 1:  # a value that is large and unchanged
                event("u", table, after={"id": key, "v": "\x01"})
            elif what == 2 and (new := str(value)) != key and (new,) not in held:
                held[new,] = {**held.pop((key,)), "id": new}
                event("d", table, before=old)
                event("moved", table, after={"id": new, "v": "\x01"})
            else:
                held[key,] = {"id": key, "v": text}
                event("u", table, after={"id": key, "v": text})
        self.rows = rows
        end = previous + 10 * (len(events) + 2)
        self.sent.append(Sent(txid, previous, end, tuple(events), rows))
        return self.sent[-1]


class Machine(RuleBasedStateMachine):
    """Whatever happens, each daemon leaves the replica as the primary was at the position."""

    def __init__(self) -> None:
        super().__init__()
        self.primary = Primary()
        self.actors: list[Actor | None] = [None, None]
        self.lingering: list[Session] = []
        self.copying: dict[TableName, Tables | None] = {}
        self.unsent: list[Sent] = []
        self.stage: Stage | None = None
        self.exits = contextlib.ExitStack()

    @initialize(
        held=st.lists(draws, max_size=3), copied=st.booleans(), rows=st.sampled_from([1, 2, 3, 1000]),
        most=st.sampled_from([1, 4, 500]),
    )  # fmt: skip
    def begin(self, held: list[list[Draw]], copied: bool, rows: int, most: int) -> None:
        """Fill the replica: with `copied` from a snapshot that the log reaches back behind."""
        log = Log(0)
        for drawn in held:
            for raw in self.primary.commit(drawn).records():
                log.append(*raw)
        at = self.primary.end
        links = [(sent.txid, sent.end) for sent in self.primary.sent] or [(1, START)]
        position = Position(
            "app", "cdc.app", truth.TOPIC_ID, 0 if copied else log.end, 0, at, "one", 1,
            () if copied else tuple(links), 0,
        )  # fmt: skip
        catalog = {table: Table(table, ("id", "v"), ("id",), frozenset()) for table in TABLES}
        tables = {table: dict(found) for table, found in self.primary.rows.items()}
        covered = dict.fromkeys(TABLES, Coverage("copied", at if copied else 0))
        database = Database(catalog, tables, position, covered)
        self.stage = Stage(log, database, Apply(max_batch_rows=rows))
        self.stage.most = most
        self.exits.enter_context(self.stage.installed())

    # What the primary and its connector do.

    @rule(drawn=draws)
    def commit(self, drawn: list[Draw]) -> None:
        """Commit a transaction that is sent whole."""
        self._send(self.primary.commit(drawn))

    @precondition(lambda self: not self.unsent)
    @rule(drawn=draws, part=st.integers(0, 5), back=st.integers(0, 5))
    def restart(self, drawn: list[Draw], part: int, back: int) -> None:
        """Let the connector die within a transaction and begin again some commits before."""
        cut = self.primary.commit(drawn)
        for raw in cut.records()[:-1][:part]:
            self._log.append(*raw)
        for sent in self.primary.sent[-back - 1 :]:
            self._send(sent)

    @precondition(lambda self: not self.unsent)
    @rule(drawn=draws, at=st.integers(0, 5), back=st.integers(1, 4))
    def stale(self, drawn: list[Draw], at: int, back: int) -> None:
        """Let a worker that was replaced send older transactions inside a newer one."""
        older = self.primary.sent[-back:]
        records = self.primary.commit(drawn).records()
        at = min(at, len(records) - 1)
        between = [raw for sent in older for raw in sent.records()]
        for raw in [*records[:at], *between, *records[at:]]:
            self._log.append(*raw)

    @precondition(lambda self: not self.unsent)
    @rule(drawn=draws, lost=st.integers(0, 4))
    def repair(self, drawn: list[Draw], lost: int) -> None:
        """Lose a row that END counts; then the connector sends the transaction again whole."""
        sent = self.primary.commit(drawn)
        records = sent.records()
        if len(records) > 2:
            at = 1 + lost % (len(records) - 2)
            for raw in [*records[:at], *records[at + 1 :]]:
                self._log.append(*raw)
        self._send(sent)

    @precondition(lambda self: not self.unsent)
    @rule(drawn=draws, lost=st.integers(0, 6), later=st.lists(draws, max_size=2))
    def refuse(self, drawn: list[Draw], lost: int, later: list[list[Draw]]) -> None:
        """Let the broker refuse a record, and the connector fail of it once some later ones are there."""
        assert self.stage is not None
        sent = self.primary.commit(drawn)
        records = sent.records()
        del records[lost % len(records)]
        after = [self.primary.commit(one) for one in later]
        for raw in [*records, *(raw for one in after for raw in one.records())]:
            self._log.append(*raw)
        self.unsent, self.stage.failed = [sent, *after], "the connector has failed"

    @precondition(lambda self: self.unsent)
    @rule()
    def mend(self) -> None:
        """Let the connector go on from the last commit that it has sent whole."""
        assert self.stage is not None
        due, self.unsent, self.stage.failed = self.unsent, [], None
        for sent in due:
            self._send(sent)

    # What the daemons do, and what befalls them.

    @rule(which=st.integers(0, 1), steps=st.sampled_from([1, 5, 30, 60]))
    def go_on(self, which: int, steps: int) -> None:
        """Let a daemon go on to its next points, started where none runs."""
        self._start(which)
        for _ in range(steps):
            self._resume(which)

    @rule(
        which=st.integers(0, 1), point=st.sampled_from(POINTS), fault=st.sampled_from(FAULTS),
        passed=st.integers(0, 2),
    )  # fmt: skip
    def strike(  # noqa: C901 -- an arm per fault
        self, which: int, point: str, fault: str, passed: int
    ) -> None:
        """Let a daemon go on until it stands at `point` again, and something happen to it there."""
        self._start(which)
        for _ in range(60):
            actor = self._resume(which)
            if actor is None:
                return
            passed -= actor.point == point
            if passed < 0:
                break
        else:
            return
        session = actor.session
        match fault:
            case "killed":
                self._kill(which)
            case "vanishes":  # with its host: the server does not notice for a while
                if session is not None and session.alive:
                    session.lingers = True
                    self.lingering.append(session)
                self._kill(which)
            case "loses its session":  # and learns of it at its next statement
                if session is not None:
                    session.end()
            case "loses its COMMIT" if point == "commit":
                self._resume(which, "before")
            case "loses COMMIT's answer" if point == "commit":
                self._resume(which, "after")

    @precondition(lambda self: self.lingering)
    @rule()
    def notice(self) -> None:
        """Let the server notice which clients are gone."""
        while self.lingering:
            self.lingering.pop().end()

    @precondition(lambda self: any(self.actors))
    @rule(which=st.integers(0, 1))
    def terminate(self, which: int) -> None:
        """End a daemon by SIGTERM."""
        actor = self.actors[which]
        if actor is None:
            return
        actor.stop.set()
        for _ in range(PATIENCE):
            if self._resume(which) is None:
                return
        raise AssertionError("the daemon does not end when it is told to")

    # What a bootstrap of single tables does meanwhile.

    @precondition(lambda self: self._free())
    @rule(table=st.sampled_from(TABLES), steps=st.integers(0, 2))
    def register(self, table: TableName, steps: int) -> None:
        """Stop the daemon before the table's next event; more of the copy may follow at once."""
        self.copying[table] = None
        self._cover(table, Coverage("registered", None))
        if steps > 0 and self._free(table):
            self.empty()
        if steps > 1 and self.copying[table] is not None:
            self.copied()

    @precondition(lambda self: None in self.copying.values())
    @rule()
    def empty(self) -> None:
        """Empty the tables registered, to be filled as of now."""
        for table, snapshot in list(self.copying.items()):
            if snapshot is None and self._free(table):
                self.copying[table] = self.primary.rows
                self._database.tables[table] = {}
                self._cover(table, Coverage("copying", self.primary.end))

    @precondition(lambda self: any(self.copying.values()))
    @rule()
    def copied(self) -> None:
        """Let the rows of the snapshot arrive."""
        for table, snapshot in list(self.copying.items()):
            if snapshot is not None:
                del self.copying[table]
                self._database.tables[table] = dict(snapshot[table])
                at = self._database.coverage[table].snapshot_lsn
                # The daemon's batch stays valid: no generation is raised.
                self._database.coverage[table] = Coverage("copied", at)

    # What must hold.

    @invariant()
    def rows_are_as_of_the_position(self) -> None:
        if self.stage is None:
            return
        position = self._database.position
        assert position.applied_lsn in {START, *(sent.end for sent in self.primary.sent)}
        for table, covered in self._database.coverage.items():
            if covered.state == "copied":
                at = max(position.applied_lsn, covered.snapshot_lsn or 0)
                assert self.primary.at(at)[table] == self._database.tables[table]
        assert self._database.unmatched == 0

    @invariant()
    def nothing_is_passed_over(self) -> None:
        if self.stage is None:
            return
        position = self._database.position
        ahead = self._log.messages[position.next_offset :]
        late = {sent.txid for sent in self.unsent}
        due = {s.txid for s in self.primary.sent if s.end > position.applied_lsn} - late
        begins = {m.value() for m in ahead if (m.value() or b"").startswith(b'{"status":"BEGIN"')}
        assert [] == [
            t for t in due if not any(f'"id":"{t}:'.encode() in (b or b"") for b in begins)
        ]

    def teardown(self) -> None:
        """When failures stop, the replica catches up."""
        try:
            if self.stage is not None:
                self._settle()
        finally:
            for actor in self.actors:
                if actor is not None:
                    actor.kill()
            self.exits.close()

    def _settle(self) -> None:
        self.notice()
        if self.unsent:
            self.mend()
        if self.copying:
            self._until(lambda: self._free(*TABLES))
            self.empty()
            self.copied()
        self._until(lambda: self._database.position.applied_lsn == self.primary.end)
        self.rows_are_as_of_the_position()
        assert self.primary.rows == self._database.tables

    def _until(self, done: Any) -> None:
        for turn in range(PATIENCE):
            if done():
                return
            for which in (0, 1):
                self._start(which)
                actor = self.actors[which]
                # One that waits is asked now and then; the other goes on meanwhile.
                if actor is not None and (actor.point != "wait" or turn % 20 == 0):
                    self._resume(which)
        raise AssertionError("the daemons do not catch up")

    def _start(self, which: int) -> None:
        if self.actors[which] is None and self.stage is not None:
            self.actors[which] = Actor(self.stage)

    def _kill(self, which: int) -> None:
        actor = self.actors[which]
        if actor is not None:
            actor.kill()
        self.actors[which] = None

    def _resume(self, which: int, order: Order = None) -> Actor | None:
        """Let a daemon go on; return it if it still runs."""
        actor = self.actors[which]
        if actor is not None:
            try:
                actor.resume(order)
            finally:
                if actor.point is None:
                    self.actors[which] = None
        return self.actors[which]

    @property
    def _log(self) -> Log:
        assert self.stage is not None
        return self.stage.log

    @property
    def _database(self) -> Database:
        assert self.stage is not None
        return self.stage.database

    def _send(self, sent: Sent) -> None:
        if self.unsent:
            self.unsent.append(sent)
            return
        for raw in sent.records():
            self._log.append(*raw)

    def _free(self, *tables: TableName) -> bool:
        """Tell whether no session has locked the position or one of these tables."""
        sessions = [*self.lingering, *(a.session for a in self.actors if a is not None)]
        open_ = [s.transaction for s in sessions if s is not None and s.transaction is not None]
        return not any(t.position is not None or t.tables.keys() & set(tables) for t in open_)

    def _cover(self, table: TableName, covered: Coverage) -> None:
        self._database.coverage[table] = covered
        at = self._database.position
        self._database.position = dataclasses.replace(at, generation=at.generation + 1)
