"""How the stock converters write values, as connector settings say, and the types they write."""

from __future__ import annotations

import binascii
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

from cdc.events import Value

#: Characters of a value that an error shows.
_SHOWN = 80

#: The settings and the values of each that some column can be read with.
KNOWN: Final[dict[str, tuple[str, ...]]] = {
    "time.precision.mode": (
        "microseconds", "isostring", "adaptive", "adaptive_time_microseconds", "nanoseconds", "connect",
    ),
    "decimal.handling.mode": ("string", "precise", "double"),
    "interval.handling.mode": ("string", "numeric"),
    "binary.handling.mode": ("hex", "bytes", "base64", "base64-url-safe"),
    "hstore.handling.mode": ("json", "map"),
}  # fmt: skip

_HEX = "hex:"


@dataclasses.dataclass(frozen=True, slots=True)
class Modes:
    """The settings by which values are written; `placeholder` is sent for an unchanged TOAST value."""

    time: str
    decimal: str
    interval: str
    binary: str
    placeholder: str

    @property
    def distinct(self) -> bool:
        """The placeholder cannot be a value: PostgreSQL's texts hold no U+0000."""
        return "\x00" in self.placeholder


@dataclasses.dataclass(frozen=True, slots=True)
class Lost:
    """Why a column cannot be carried, and the setting that would carry it, if there is one."""

    why: str
    instead: str | None = None


#: Reads the JSON value of a column that is not NULL; ValueError for one that is never written.
Codec = Callable[[Any], Value]


def unlike(value: Any, what: str) -> ValueError:
    """Return the error for a value that is `what` instead of what the converters write."""
    shown = repr(value)
    return ValueError(f"{shown if len(shown) < _SHOWN else shown[:_SHOWN] + '…'} is {what}")


@dataclasses.dataclass(frozen=True, slots=True)
class Type:
    """A column's type, domains resolved: `kind` is pg_type.typtype, `modifier` atttypmod.

    `shown` is how format_type prints it. `infinite` says that its server has infinite ones (intervals,
    from PostgreSQL 17 on).
    """

    schema: str
    name: str
    kind: str
    modifier: int
    array: bool
    shown: str
    infinite: bool = False


def of(connector: Mapping[str, str]) -> Modes:
    """Return the modes of a connector's configuration; ValueError where one is not known."""
    for key, known in KNOWN.items():
        if connector[key] not in known:
            raise ValueError(f"{key} is {connector[key]}; known are {', '.join(known)}")
    return Modes(
        connector["time.precision.mode"],
        connector["decimal.handling.mode"],
        connector["interval.handling.mode"],
        connector["binary.handling.mode"],
        _placeholder(connector["unavailable.value.placeholder"]),
    )


def _placeholder(setting: str) -> str:
    if not setting.startswith(_HEX):
        return setting
    try:
        return bytes.fromhex(setting.removeprefix(_HEX)).decode()
    except (ValueError, binascii.Error) as error:
        raise ValueError(
            f"unavailable.value.placeholder is not the UTF-8 of a text: {error}"
        ) from None
