"""What a hook still has to be told, and the state that outlives the watcher."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from cdc.alert import courier, silences, store, watcher
from cdc.alert.clock import Clock
from cdc.alert.delivery import NotTaken
from cdc.alert.judgement import Level, Sample, Thresholds
from cdc.alert.machine import Kind, Notice, Rules
from cdc.alert.outbox import Outbox
from cdc.alert.silences import Silence
from cdc.alert.store import State, Store
from cdc.errors import CdcError, UsageError

HOUR = 3600.0
RULES = Rules(Thresholds(180.0, 300.0), for_=0.0, clear_for=0.0, repeat=600.0)


class Time:
    """Two clocks that a test moves."""

    def __init__(self) -> None:
        self.wall = self.steady = 1000.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.steady)


class Receiver:
    """A hook that takes nothing while it is away."""

    name = "receiver"

    def __init__(self) -> None:
        self.away, self.tries = True, 0
        self.got: list[Notice] = []

    def tell(self, notice: Notice) -> None:
        self.tries += 1
        if self.away:
            raise NotTaken("unreachable", "it is away")
        self.got.append(notice)


def replace(kept: Store, state: State) -> None:
    kept.change(lambda _: state)


def notice(number: int, kind: Kind = Kind.NEW, replica: str = "r1") -> Notice:
    return Notice(
        f"{replica}/1/{number}", kind, replica, Level.WARNING, None, "told", 1000.0, 1000.0
    )


def test_a_hook_that_was_away_for_an_hour_hears_it_all_in_order(tmp_path: Path) -> None:
    """Each try is counted and later than the one before, up to a minute; nothing is lost or doubled."""
    time, receiver, kept = Time(), Receiver(), Store(tmp_path)
    clock, errand = time.clock(), courier.Telling(receiver)
    samples = [Sample(200.0), Sample(1.0), Sample(200.0)]
    for n in range(int(HOUR)):
        if n % 1200 == 0:
            state, _ = watcher.advance(
                kept.state, {"r1": samples[n // 1200]}, clock.now(), RULES, boxes=["receiver"]
            )
            replace(kept, state)
        errand.run(kept, clock)
        time.pass_(1)
    waiting = kept.state.outboxes["receiver"]

    assert [Kind.NEW, Kind.RESOLVED, Kind.NEW] == [n.kind for n in waiting.notices]
    assert 60 <= receiver.tries == waiting.failures == waiting.runs["unreachable"] <= 140
    assert waiting.last_error == "it is away"

    kept = Store(tmp_path)  # as after a restart
    receiver.away = False
    time.pass_(60)
    errand.run(kept, clock)
    errand.run(kept, clock)
    assert list(waiting.notices) == receiver.got
    assert kept.state.outboxes["receiver"].runs["ok"] == 3
    assert kept.state.outboxes["receiver"].failures == 0


@hypothesis.given(
    st.lists(
        st.tuples(st.sampled_from([None, 1.0, 150.0, 200.0, 400.0]), st.booleans(), st.booleans())
    ),
)
def test_a_hook_is_told_everything_once_and_in_order(
    looks: list[tuple[float | None, bool, bool]],
) -> None:
    """Through any failures of the hook and restarts of the watcher, as long as none is killed in between."""
    state, now, told, got = State(), 1000.0, list[Notice](), list[Notice]()

    def deliver(taken: bool) -> None:
        nonlocal state
        box = state.outboxes.get("x", Outbox())
        while (due := box.due(now)) is not None:
            if taken:
                got.append(due)
            box = box.taken(due) if taken else box.refused("failed", "no", now, 1.0)
        state = dataclasses.replace(state, outboxes={"x": box})

    for lag, taken, restart in looks:
        state, notices = watcher.advance(state, {"r1": Sample(lag)}, now, RULES, boxes=["x"])
        told += notices
        deliver(taken)
        if restart:
            state = msgspec.json.decode(msgspec.json.encode(state), type=State)
        now += 5.0
    now += HOUR
    deliver(taken=True)

    assert told == got
    assert len(told) == len({n.id for n in told})


def test_a_defect_in_a_hook_is_counted_and_does_not_end_its_thread(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a hook raises, it is tried again."""
    time, kept = Time(), Store(tmp_path)
    kept.change(lambda s: dataclasses.replace(s, outboxes={"x": Outbox((notice(1),))}))

    def defect() -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.CRITICAL + 1, "cdc"):
        assert not courier.attempt(kept, "x", time.clock(), defect, notice(1))
    assert kept.state.outboxes["x"].runs == {"failed": 1}
    assert kept.state.outboxes["x"].notices == (notice(1),)


def test_reminders_do_not_pile_up_for_a_hook_that_is_away() -> None:
    """While something of an alert waits, another reminder of it adds nothing."""
    box = Outbox().with_(notice(1)).with_(notice(2, Kind.REPEATED))
    assert box.notices == (notice(1),)
    assert len(box.with_(notice(2, Kind.REPEATED, "r2")).notices) == 2


def test_only_so_much_waits_for_a_hook() -> None:
    """The oldest are dropped, and counted, when a thousand wait."""
    box = Outbox()
    for number in range(1005):
        box = box.with_(notice(number))

    assert (1000, 5) == (len(box.notices), box.dropped)
    assert box.notices[-1] == notice(1004)


def test_the_state_comes_back_as_it_was(tmp_path: Path) -> None:
    """What one watcher kept the next one finds, alerts with their beginning and what still waits."""
    kept = Store(tmp_path)
    state, told = watcher.advance(
        State(), {"r1": Sample(200.0), "r2": Sample(None, "away")}, 5000.5, RULES, boxes=["x"]
    )
    replace(kept, state)

    again = Store(tmp_path).state
    assert state == again
    assert again.replicas["r1"].starts_at == 5000.5
    assert tuple(told) == again.outboxes["x"].notices
    _, told = watcher.advance(again, {"r1": Sample(200.0)}, 5010.0, RULES, boxes=["x"])
    assert [] == told


def test_a_damaged_state_is_put_aside_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Watching begins anew, aloud, and the damaged file is kept."""
    (tmp_path / "alerts.json").write_text('{"version": 1, "replicas": {"r1": {"pha')
    assert State() == Store(tmp_path).state
    assert "it is damaged" in caplog.text
    assert len(list(tmp_path.glob("alerts.json.damaged-*"))) == 1

    (tmp_path / "alerts.json").write_text(json.dumps({"version": 99}))
    assert State() == Store(tmp_path).state
    assert "it has version 99, this program knows 1" in caplog.text


def test_watching_goes_on_where_the_state_cannot_be_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that cannot be made is said once, counted each time, and forgotten when it can be."""
    blocked = tmp_path / "file"
    blocked.touch()
    kept = Store(blocked / "state")
    for n in range(3):
        replace(kept, State(seen_at=float(n)))

    assert (2.0, 3) == (kept.state.seen_at, kept.write_failures)
    assert caplog.text.count("the state cannot be kept in") == 1
    blocked.unlink()
    kept.change(lambda s: s)
    assert kept.unwritten is None
    assert Store(blocked / "state").state.seen_at == 2.0


def test_two_watchers_cannot_both_tell(tmp_path: Path) -> None:
    """The second is refused, naming the process of the first."""
    with (
        store.only_one(tmp_path),
        pytest.raises(CdcError, match=r"another cdc-lag-alert \(process \d+\) watches"),
        store.only_one(tmp_path, patience=0.0),
    ):
        raise AssertionError
    with store.only_one(tmp_path, patience=0.0):
        pass


def test_a_jump_of_the_clock_moves_what_is_remembered() -> None:
    """Time goes on evenly until the jump is asked for; then everything is moved with it."""
    time = Time()
    clock = time.clock()
    time.pass_(5)
    time.wall += HOUR
    assert clock.now() == 1005.0
    assert clock.jump() == HOUR
    assert clock.now() == 1005.0 + HOUR
    assert clock.jump() == 0.0

    state, _ = watcher.advance(State(), {"r1": Sample(200.0)}, 1000.0, RULES, boxes=["x"])
    moved = state.moved(HOUR)
    assert moved.replicas["r1"].starts_at == 1000.0 + HOUR
    assert moved.seen_at == 1000.0 + HOUR


def test_a_clock_that_is_slewed_is_no_jump() -> None:
    """Small differences are followed and told to nobody."""
    time = Time()
    clock = time.clock()
    for _ in range(100):
        time.pass_(5)
        time.wall += 0.1
        assert clock.jump() == 0.0
    assert clock.now() == time.wall


def test_silences_are_kept_listed_and_ended(tmp_path: Path) -> None:
    """A silence covers its replica, or all, until its end; an unknown one is refused by name."""
    assert silences.load(tmp_path) == ()
    silences.add(tmp_path, Silence("a", "r1", 100.0, 200.0, "upgrade"))
    silences.add(tmp_path, Silence("b", None, 150.0, 160.0, "all"))

    found = silences.load(tmp_path)
    assert silences.covered(found, "r1", 199.0)
    assert not silences.covered(found, "r1", 200.0)
    assert not silences.covered(found, "r2", 199.0)
    assert silences.covered(found, "r2", 155.0)
    with pytest.raises(UsageError, match="no silence 'c'"):
        silences.end(tmp_path, "c", 150.0)
    silences.end(tmp_path, "a", 150.0)
    assert ["b"] == [s.id for s in silences.load(tmp_path)]
    silences.add(tmp_path, Silence("c", None, 300.0, 310.0, "later"))
    assert ["c"] == [s.id for s in silences.load(tmp_path)]


def test_damaged_silences_hold_nothing_back(tmp_path: Path) -> None:
    """A file that cannot be read is an error that says so, not a silence."""
    (tmp_path / "silences.json").write_bytes(b"\xff")
    with pytest.raises(CdcError, match="cannot be read"):
        silences.load(tmp_path)


def test_the_state_says_its_version() -> None:
    """The file's first field tells programs of later releases what it is."""
    assert json.loads(msgspec.json.encode(State()))["version"] == store.VERSION
