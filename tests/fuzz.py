"""Random damage to real streams: `python tests/fuzz.py 100000` tries so many cases and counts outcomes.

Each case is made from its number alone. Whatever is dropped, doubled, swapped, cut or altered, what
the daemon applies are the next transactions of the truth, each once with exactly its rows, or it
halts with an error of its own. The one damage left out is what nobody downstream can see: a row
altered into another legal row of the same place, or a BEGIN's link into that of another commit (right
after a bootstrap, into any older place), whatever lay between being taken away.
"""

from __future__ import annotations

import collections
import functools
import json
import logging
import multiprocessing
import random
import sys
from collections.abc import Callable, Iterable
from typing import Any

import streams
import truth
from streams import Raw
from truth import Truth
from world import World

from cdc import events
from cdc.config import Apply
from cdc.errors import MalformedRecord
from cdc.events import LINK, Change, Event, Record

Damage = Callable[[random.Random, list[Raw]], list[Raw] | None]

#: What a field may be set to, besides what it is in another record.
_VALUES: tuple[Any, ...] = (
    None, "", "x", 0, 1, -1, 2, 1 << 31, 1 << 63, 1 << 80, 1.5, True, [], {}, "1", "\x01", "\x00", "é",
)  # fmt: skip


@functools.cache
def known() -> tuple[Truth, ...]:
    """Return the kept streams."""
    return tuple(truth.read(streams.load(name)) for name in streams.names())


def _place(rng: random.Random, raw: list[Raw]) -> int:
    return rng.randrange(len(raw))


def _stretch(rng: random.Random, raw: list[Raw]) -> tuple[int, int]:
    first = _place(rng, raw)
    return first, min(len(raw), first + rng.choice((1, 1, 2, 3, 5, 20)))


def drop(rng: random.Random, raw: list[Raw]) -> list[Raw]:
    first, end = _stretch(rng, raw)
    return [*raw[:first], *raw[end:]]


def repeat(rng: random.Random, raw: list[Raw]) -> list[Raw]:
    first, end = _stretch(rng, raw)
    return [*raw[:end], *raw[first:]]


def go_back(rng: random.Random, raw: list[Raw]) -> list[Raw]:
    """Begin again anywhere before, as a connector does that is set back, but at any record."""
    at = _place(rng, raw)
    return [*raw[: at + 1], *raw[rng.randrange(at + 1) :]]


def swap(rng: random.Random, raw: list[Raw]) -> list[Raw]:
    one, two = _place(rng, raw), _place(rng, raw)
    if rng.random() < 0.5:
        two = min(one + 1, len(raw) - 1)
    changed = list(raw)
    changed[one], changed[two] = changed[two], changed[one]
    return changed


def move(rng: random.Random, raw: list[Raw]) -> list[Raw]:
    first, end = _stretch(rng, raw)
    rest = [*raw[:first], *raw[end:]]
    at = rng.randrange(len(rest) + 1)
    return [*rest[:at], *raw[first:end], *rest[at:]]


def cut(rng: random.Random, raw: list[Raw]) -> list[Raw]:
    return raw[: _place(rng, raw)]


def transplant(rng: random.Random, raw: list[Raw]) -> list[Raw]:
    """Put a stretch of any stream where it does not belong."""
    foreign = rng.choice(known()).raw
    first, end = _stretch(rng, foreign)
    at = _place(rng, raw)
    return [*raw[:at], *foreign[first:end], *raw[at:]]


def put_in(rng: random.Random, raw: list[Raw]) -> list[Raw]:
    at = _place(rng, raw)
    values = (None, b"", b"{}", b'{"ts_ms":1}', b'{"x":1}', b"\x00\x00\x00\x00\x01x", b"null")
    return [*raw[:at], (rng.choice(values), ()), *raw[at:]]


def scramble(rng: random.Random, raw: list[Raw]) -> list[Raw] | None:
    """Alter, take out or put in a few bytes of one record."""
    at = _place(rng, raw)
    value = bytearray(raw[at][0] or b"")
    for _ in range(rng.choice((1, 1, 2, 8))):
        if not value:
            return None
        spot = rng.randrange(len(value))
        match rng.randrange(4):
            case 0:
                value[spot] = rng.randrange(256)
            case 1:
                del value[spot : spot + rng.choice((1, 4, 400))]
            case 2:
                value[spot:spot] = rng.randbytes(rng.choice((1, 3)))
            case _:
                value[spot] = rng.choice(b'0123456789":,{}[]')
    return _replaced(raw, at, (bytes(value), raw[at][1]))


def alter(rng: random.Random, raw: list[Raw]) -> list[Raw] | None:
    """Set, take out or rename one field of one record."""
    at = _place(rng, raw)
    try:
        wire = json.loads(raw[at][0] or b"")
    except ValueError:
        return None
    fields = list(_fields(wire))
    if not fields:
        return None
    holder, name = rng.choice(fields)
    match rng.randrange(5):
        case 0:
            del holder[name]
        case 1:
            holder[rng.choice((f"{name}s", name.upper(), "x"))] = holder.pop(name)
        case 2:
            others = [h[n] for r in raw for h, n in _fields(_json(r)) if n == name]
            holder[name] = rng.choice(others)
        case 3:
            holder[name] = rng.choice(_VALUES)
        case _:
            holder[name] = _near(rng, holder[name])
    return _replaced(raw, at, (json.dumps(wire, separators=(",", ":")).encode(), raw[at][1]))


def relink(rng: random.Random, raw: list[Raw]) -> list[Raw] | None:
    """Alter the header of one BEGIN into what is no commit."""
    begins = [at for at, (_, headers) in enumerate(raw) if headers]
    if not begins:
        return None
    at = rng.choice(begins)
    link = dict(raw[at][1])[LINK]
    new = rng.choice((
        None, b"", b"x", b"0", b"%d" % (int(link) + rng.choice((-8, 8))), rng.randbytes(3),
    )) if link.isdigit() else None  # fmt: skip
    return _replaced(raw, at, (raw[at][0], () if new is None else ((LINK, new),)))


DAMAGES: tuple[Damage, ...] = (
    drop, drop, repeat, go_back, swap, move, cut, transplant, put_in, scramble, scramble, alter, alter,
    alter, relink,
)  # fmt: skip


def _json(raw: Raw) -> Any:
    try:
        return json.loads(raw[0] or b"null")
    except ValueError:
        return None


def _fields(wire: Any) -> Iterable[tuple[dict[str, Any], str]]:
    """Yield every field at any depth as its holder and name."""
    if isinstance(wire, dict):
        for name, value in wire.items():
            yield wire, name
            yield from _fields(value)
    elif isinstance(wire, list):
        for value in wire:
            yield from _fields(value)


def _near(rng: random.Random, value: Any) -> Any:
    """Return something like `value`."""
    if isinstance(value, int):
        return value + rng.choice((-1, 1, 8, 1000))
    if isinstance(value, str) and value:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice("0123456789x:") + value[at + 1 :]
    return [value]


def _replaced(raw: list[Raw], at: int, new: Raw) -> list[Raw] | None:
    """Return the stream with one record altered; None where nobody downstream could see it."""
    if (event := _event(new)) is not None and _unseen(_event(raw[at]), event):
        return None
    return [*raw[:at], new, *raw[at + 1 :]]


def _event(raw: Raw) -> Event | None:
    link = dict(raw[1]).get(LINK)
    try:
        return events.decode(Record(streams.TOPIC, 0, 0, 0, raw[0], link))
    except MalformedRecord:
        return None


def _unseen(old: Event | None, new: Event) -> bool:
    """Tell whether a row of the same place differs in what only the primary can know."""
    if not isinstance(new, Change):
        return False
    if not isinstance(old, Change):
        return True  # a row made of something else: forged from scratch
    return (old.op, old.before, old.after) != (new.op, new.before, new.after)


def case(number: int) -> tuple[Truth, int, World, str]:
    """Return the stream, how much of it was applied before, the world, and what was done."""
    rng = random.Random(number)
    kept, copied = rng.choice(known()), rng.random() < 0.3
    damages = tuple(d for d in DAMAGES if d is not relink) if copied else DAMAGES
    raw, done = kept.raw, list[str]()
    while len(done) < rng.choice((1, 1, 1, 2, 2, 3, 5)):
        damage = rng.choice(damages)
        if raw and (changed := damage(rng, raw)) is not None:
            raw = changed
            done.append(damage.__name__)
    start = rng.randrange(len(kept.wholes))
    limits = Apply(max_batch_rows=rng.choice((1, 2, 3, 20_000, 20_000)))
    world = truth.start(kept, start, raw, limits, copied=copied)
    world.most = rng.choice((1, 7, 500, 500))
    return kept, start, world, f"{kept.captured.name}: {', '.join(done)}"


def attempt(number: int) -> str:
    """Run one case and return its outcome; fails where the invariant does."""
    kept, start, world, _ = case(number)
    halted = world.run()
    applied = truth.judge(kept, world, start)
    if halted is not None:
        return type(halted).__name__
    if applied == sum(bool(whole.changes) for whole in kept.wholes[start:]):
        return "all applied"
    return "not all came"


def attempts(numbers: Iterable[int]) -> collections.Counter[str]:
    """Run cases; a failure names its case."""
    logging.disable(logging.CRITICAL)
    found: collections.Counter[str] = collections.Counter()
    try:
        for number in numbers:
            try:
                found[attempt(number)] += 1
            except BaseException as error:
                error.add_note(f"fuzz case {number}: {case(number)[3]}")
                raise
    finally:
        logging.disable(logging.NOTSET)
    return found


def main(count: int, jobs: int = 2) -> None:
    """Run `count` cases and print how many came to which outcome."""
    with multiprocessing.Pool(jobs) as pool:
        found = collections.Counter[str]()
        chunks = [range(first, min(first + 1000, count)) for first in range(0, count, 1000)]
        for part in pool.imap_unordered(attempts, chunks):
            found += part
    print(f"{count} cases:")
    for outcome, times in found.most_common():
        print(f"  {times:8}  {outcome}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
