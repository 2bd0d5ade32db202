"""What is struck when: a seed says it all."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator
from typing import Literal

from cdc.failpoint import Point

Target = Literal["daemon r1", "daemon r2", "r1", "r2", "primary", "connect", "kafka"]

#: `kill` is SIGKILL, `stop` SIGSTOP and later SIGCONT; `crash` is SIGKILL for one of a server's
#: processes, whereupon the server ends all its sessions and recovers; `point` is a daemon's own
#: SIGKILL at a failpoint.
How = Literal["kill", "stop", "crash", "point"]

#: How often which, in thousandths: what recovers soon is struck often.
WEIGHTS: dict[tuple[Target, How], int] = {
    ("daemon r1", "point"): 170,
    ("daemon r2", "point"): 170,
    ("daemon r1", "kill"): 110,
    ("daemon r2", "kill"): 110,
    ("daemon r1", "stop"): 30,
    ("daemon r2", "stop"): 30,
    ("r1", "crash"): 45,
    ("r2", "crash"): 45,
    ("primary", "crash"): 50,
    ("r1", "kill"): 25,
    ("r2", "kill"): 25,
    ("primary", "kill"): 30,
    ("r1", "stop"): 15,
    ("r2", "stop"): 15,
    ("primary", "stop"): 15,
    ("connect", "kill"): 50,
    ("connect", "stop"): 20,
    ("kafka", "kill"): 25,
    ("kafka", "stop"): 20,
}

#: Where a daemon ends itself, and how often in eight.
POINTS: dict[Point, int] = {
    "copy.open": 2,
    "stage.filled": 2,
    "position.moved": 1,
    "batch.committed": 2,
    "session.locked": 1,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Blow:
    """One signal; `seconds` is how long its victim stays stopped, or dead before it is restarted."""

    target: Target
    how: How
    seconds: float
    point: Point | None = None
    times: int = 1

    def __str__(self) -> str:
        at = f" at {self.point} #{self.times}" if self.point else f" for {self.seconds:.1f} s"
        return f"{self.how} {self.target}{at}"


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """Blows that fall together; after a `hasty` round the next one waits for nothing."""

    number: int
    blows: tuple[Blow, ...]
    pause: float
    hasty: bool


#: So many rounds see everything at least once.
DECK = len([how for _, how in WEIGHTS if how != "point"]) + len(POINTS)


def rounds(seed: int) -> Iterator[Round]:
    """Yield the rounds of this seed: everything once, then by weight.

    Two victims in a tenth of them, haste in another tenth.
    """
    chance = random.Random(seed)
    deck = _deck(chance)
    for number in itertools.count(1):
        blows = [deck.pop() if deck else _blow(chance)]
        if chance.random() < 0.1:
            second = _blow(chance)
            while second.target == blows[0].target:
                second = _blow(chance)
            blows.append(second)
        yield Round(number, tuple(blows), chance.uniform(0, 1), chance.random() < 0.1)


def _deck(chance: random.Random) -> list[Blow]:
    """Return a blow of every kind, and one at every point, shuffled."""
    kinds = [_struck(chance, target, how) for target, how in WEIGHTS if how != "point"]
    daemons = itertools.cycle(target for target, how in WEIGHTS if how == "point")
    points = [_aimed(chance, target, point) for target, point in zip(daemons, POINTS, strict=False)]
    deck = [*kinds, *points]
    chance.shuffle(deck)
    return deck


def _blow(chance: random.Random) -> Blow:
    (target, how) = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    if how != "point":
        return _struck(chance, target, how)
    return _aimed(chance, target, chance.choices(list(POINTS), list(POINTS.values()))[0])


def _struck(chance: random.Random, target: Target, how: How) -> Blow:
    # Most outages are short; some outlast timeouts of a few seconds.
    if chance.random() < 0.08:
        return Blow(target, how, chance.uniform(8, 20))
    return Blow(target, how, chance.uniform(0.5, 4) if how == "stop" else chance.uniform(0, 2))


def _aimed(chance: random.Random, target: Target, point: Point) -> Blow:
    # A daemon has one session as long as nothing goes wrong.
    times = 1 if point == "session.locked" else chance.randrange(1, 8)
    return Blow(target, "point", 0, point, times)
