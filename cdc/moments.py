"""Dates and times as the stock converters write them: ISO texts, or numbers since 1970."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, Final

from cdc.modes import Codec, Lost, Modes, Type, unlike

#: Days and microseconds from 1970-01-01, by which the integers count.
_MICROSECONDS = 1_000_000
_DAY = 86_400 * _MICROSECONDS

#: What PostgreSQL has for dates: 4713-11-24 BC to 5874897-12-31; timestamps to the end of 294276.
_FIRST_DAY, _LAST_DAY = -2_440_588, 2_145_042_905
_LAST_MOMENT = 9_224_318_016_000_000_000

_MICROSECONDS_MODE = "time.precision.mode=microseconds"
_ISO = re.compile(
    r"([+-]?[0-9]{4,9})-([0-9]{2})-([0-9]{2})(?:T([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?))?Z"
)

#: How the converters write infinite dates and timestamps, per form.
_INFINITE: Final[dict[Any, str]] = {
    "-5877611-06-21Z": "infinity", "-5877611-06-22Z": "-infinity",
    "+294247-01-10T04:00:25.2Z": "infinity", "-290308-12-21T19:59:27.6Z": "-infinity",
    "infinity": "infinity", "-infinity": "-infinity",
}  # fmt: skip
_INFINITE_DAYS: Final = {-2_147_472_692: "infinity", -2_147_472_691: "-infinity"}
_INFINITE_MOMENTS: Final = {
    9_223_372_036_825_200_000: "infinity", -9_223_372_036_832_400_000: "-infinity",
}  # fmt: skip


def date(_type: Type, modes: Modes) -> Codec:
    return _iso(moment=False) if modes.time == "isostring" else _days


def time(type_: Type, modes: Modes) -> Codec | Lost:
    if modes.time == "isostring":
        return Lost("24:00:00 becomes 00:00:00", _MICROSECONDS_MODE)
    unit = _unit(type_, modes.time)
    return unit if isinstance(unit, Lost) else _clock(unit)


def timestamp(type_: Type, modes: Modes) -> Codec | Lost:
    if modes.time == "isostring":
        return _iso(moment=True)
    if modes.time == "nanoseconds":
        return Lost("what lies beyond 292 years from 1970 becomes NULL", _MICROSECONDS_MODE)
    unit = _unit(type_, modes.time)
    return unit if isinstance(unit, Lost) else _moment(unit)


def timestamptz(_type: Type, _modes: Modes) -> Codec:
    return _iso(moment=True, zone="+00")


def _unit(type_: Type, mode: str) -> int | Lost:
    """Return how many nanoseconds an integer counts in."""
    coarse = 0 <= type_.modifier <= 3
    if mode == "connect" and not coarse:
        return Lost("what is finer than a millisecond is cut off", _MICROSECONDS_MODE)
    if mode == "nanoseconds":
        return 1
    adaptive = mode in ("adaptive", "connect") or (
        mode == "adaptive_time_microseconds" and type_.name == "timestamp"
    )
    return 1_000_000 if adaptive and coarse else 1000


def _scaled(value: Any, unit: int) -> int:
    """Return microseconds."""
    if type(value) is not int:
        raise unlike(value, "no whole number")
    found, rest = divmod(value * unit, 1000)
    if rest:
        raise unlike(value, "finer than a microsecond")
    return found


def _clock(unit: int) -> Codec:
    def read(value: Any) -> str:
        at = _scaled(value, unit)
        if not 0 <= at <= _DAY:
            raise ValueError(f"{value} is no time of a day")
        return _time_of(at)

    return read


def _time_of(at: int) -> str:
    seconds, part = divmod(at, _MICROSECONDS)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{clock}.{part:06}" if part else clock


def _days(value: Any) -> str:
    if value in _INFINITE_DAYS:
        return _INFINITE_DAYS[value]
    if type(value) is not int or not _FIRST_DAY <= value <= _LAST_DAY:
        raise unlike(value, "no number of days of a date")
    return _date_of(value)


def _moment(unit: int) -> Codec:
    def read(value: Any) -> str:
        at = _scaled(value, unit)
        if at in _INFINITE_MOMENTS:
            return _INFINITE_MOMENTS[at]
        if not _FIRST_DAY * _DAY <= at < _LAST_MOMENT:
            raise ValueError(
                f"{value} is no timestamp of PostgreSQL (from the year 294247 on it is altered)"
            )
        days, rest = divmod(at, _DAY)
        date, era, bc = _date_of(days).partition(" BC")
        return f"{date} {_time_of(rest)}{era}{bc}"

    return read


def _date_of(days: int) -> str:
    """Return the date so many days after 1970-01-01, of the Gregorian calendar throughout."""
    # Whole cycles of 400 years bring every day into what the library knows.
    cycles, rest = divmod(days + dt.date(1970, 1, 1).toordinal() - 1, 146_097)
    day = dt.date.fromordinal(rest + 1)
    return _dated(day.year + 400 * cycles, f"{day.month:02}", f"{day.day:02}")


def _dated(year: int, month: str, day: str) -> str:
    """Return a date; year 0 is 1 BC."""
    return f"{year:04}-{month}-{day}" if year > 0 else f"{1 - year:04}-{month}-{day} BC"


def _iso(*, moment: bool, zone: str = "") -> Codec:
    def read(value: Any) -> str:
        if value in _INFINITE:
            return _INFINITE[value]
        found = _ISO.fullmatch(value) if isinstance(value, str) else None
        if found is None or (found[4] is not None) != moment:
            raise unlike(value, "no timestamp" if moment else "no date")
        date, era, bc = _dated(int(found[1]), found[2], found[3]).partition(" BC")
        return f"{date} {found[4]}{zone}{era}{bc}" if moment else f"{date}{era}{bc}"

    return read
