"""Codecs: what the stock converters wrote of a value, as the text that PostgreSQL reads back exactly.

`codec` gives the function for a column's type under given modes, or says what would be lost. What
each type looks like in each mode was measured of Debezium 3.6.3 (docs/stock.md); what was not
measured is refused. A codec takes the JSON value of a column that is not NULL and raises ValueError
for one that the converters never write.
"""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Callable
from typing import Any, Final

from cdc import moments
from cdc.events import UNCHANGED, Value
from cdc.modes import Codec, Lost, Modes, Type, unlike

_DISTINCT = Lost(
    "unavailable.value.placeholder may be a value, and stands for one that was not sent",
    "an unavailable.value.placeholder in hex that contains 00",
)

ARRAY: Final = Lost("one of several dimensions, or whose bounds do not begin at 1, is altered")
UNKNOWN: Final = Lost("how it is written was not measured")

_INTEGERS: Final = {
    "int2": (-(1 << 15), (1 << 15) - 1),
    "int4": (-(1 << 31), (1 << 31) - 1),
    "int8": (-(1 << 63), (1 << 63) - 1),
    "oid": (0, (1 << 32) - 1),
}


def codec(type_: Type, modes: Modes) -> Codec | Lost:
    """Return how values of the type are read, or why that would not be exact."""
    if type_.array:
        return ARRAY
    if type_.kind == "e":
        return _text
    known = KNOWN.get(type_.name)
    if known is None or (type_.schema != "pg_catalog" and type_.name != "citext"):
        return UNKNOWN
    return known if isinstance(known, Lost) else known(type_, modes)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise unlike(value, "no text")
    return value


def _short(_type: Type, _modes: Modes) -> Codec:
    return _text


def _long(_type: Type, modes: Modes) -> Codec | Lost:
    """Read what may lie out of line, and is then written as the placeholder where it is unchanged."""
    placeholder = modes.placeholder
    if not modes.distinct:
        return _DISTINCT
    return lambda value: UNCHANGED if value == placeholder else _text(value)


def _bytea(_type: Type, modes: Modes) -> Codec | Lost:
    placeholder = modes.placeholder
    if modes.binary != "hex":
        return Lost(
            f"under binary.handling.mode={modes.binary} a value may be the one that stands for one that "
            "was not sent", "binary.handling.mode=hex",
        )  # fmt: skip
    if not modes.distinct:
        return _DISTINCT
    return lambda value: UNCHANGED if value == placeholder else _hex(value)


def _integer(type_: Type, _modes: Modes) -> Codec:
    least, most = _INTEGERS[type_.name]

    def read(value: Any) -> str:
        if type(value) is not int or not least <= value <= most:
            raise unlike(value, f"no whole number from {least} to {most}")
        return str(value)

    return read


def _boolean(_type: Type, _modes: Modes) -> Codec:
    def read(value: Any) -> str:
        if not isinstance(value, bool):
            raise unlike(value, "neither true nor false")
        return "t" if value else "f"

    return read


def _float(_type: Type, _modes: Modes) -> Codec:
    def read(value: Any) -> str:
        if value in ("NaN", "Infinity", "-Infinity"):
            return str(value)
        if not isinstance(value, float) or not math.isfinite(value):
            raise unlike(value, "no number")
        return repr(value)

    return read


_DECIMAL = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_DECIMALS = {"NAN": "NaN", "POSITIVE_INFINITY": "Infinity", "NEGATIVE_INFINITY": "-Infinity"}


def _decimal(type_: Type, modes: Modes) -> Codec | Lost:
    if modes.decimal != "string":
        return Lost(
            f"under decimal.handling.mode={modes.decimal} "
            + ("digits are rounded" if modes.decimal == "double"
               else "NaN becomes NULL and the number of decimal places is not written"),
            "decimal.handling.mode=string",
        )  # fmt: skip

    def read(value: Any) -> Value:
        if value == modes.placeholder:
            return UNCHANGED
        if value in _DECIMALS:
            return _DECIMALS[value]
        if not isinstance(value, str) or _DECIMAL.fullmatch(value) is None:
            raise unlike(value, "no decimal number")
        return value

    return read if type_.name == "money" or modes.distinct else _DISTINCT


_INTERVAL = re.compile(
    r"P(-?[0-9]+)Y(-?[0-9]+)M(-?[0-9]+)DT(-?[0-9]+)H(-?[0-9]+)M(-?[0-9]+(?:\.[0-9]{1,6})?)S"
)


def _interval(type_: Type, modes: Modes) -> Codec | Lost:
    if type_.infinite:
        return Lost("an infinite one is written as 0")
    if modes.interval != "string":
        return Lost("its months and days are turned into a length", "interval.handling.mode=string")

    def read(value: Any) -> str:
        if not isinstance(value, str) or _INTERVAL.fullmatch(value) is None:
            raise unlike(value, "no interval")
        return value

    return read


def _hex(value: Any) -> str:
    try:
        return "\\x" + binascii.unhexlify(value).hex()
    except (TypeError, ValueError) as error:
        raise ValueError(f"not hexadecimal: {error}") from None


#: How each type of PostgreSQL is read.
KNOWN: Final[dict[str, Lost | Callable[[Type, Modes], Codec | Lost]]] = {
    **dict.fromkeys(
        ("text", "varchar", "bpchar", "json", "jsonb", "tsvector", "citext", "numrange", "int4range",
         "int8range", "daterange", "tsrange", "tstzrange"), _long),
    **dict.fromkeys(("name", "char", "uuid", "inet", "cidr", "macaddr", "macaddr8"), _short),
    **dict.fromkeys(("int2", "int4", "int8", "oid"), _integer),
    **dict.fromkeys(("float4", "float8"), _float),
    **dict.fromkeys(("numeric", "money"), _decimal),
    "bool": _boolean,
    "bytea": _bytea,
    "interval": _interval,
    "date": moments.date,
    "time": moments.time,
    "timestamp": moments.timestamp,
    "timestamptz": moments.timestamptz,
    "timetz": Lost("its offset from UTC is not written"),
    "varbit": Lost("leading zeros are not written"),
    "xml": Lost("the XML declaration is not written"),
}  # fmt: skip
