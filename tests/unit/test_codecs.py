"""Codecs of the stock converters' values: exact, or refused by name."""

from __future__ import annotations

import json
import math
import struct
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import codecs, modes
from cdc.events import UNCHANGED
from cdc.modes import Codec, Lost, Modes, Type

PLACEHOLDER = "\x00unchanged"
MODES = Modes("microseconds", "string", "string", "hex", PLACEHOLDER)
ISO = Modes("isostring", "string", "string", "hex", PLACEHOLDER)
ADAPTIVE = Modes("adaptive", "string", "string", "hex", PLACEHOLDER)
NANO = Modes("nanoseconds", "string", "string", "hex", PLACEHOLDER)
CONNECT = Modes("connect", "string", "string", "hex", PLACEHOLDER)


def of(name: str, by: Modes = MODES, modifier: int = -1, **other: Any) -> Codec:
    """Return the codec of a type of pg_catalog, which must have one."""
    found = codecs.codec(a_type(name, modifier, **other), by)
    assert not isinstance(found, Lost), found
    return found


def a_type(name: str, modifier: int = -1, **other: Any) -> Type:
    given_: dict[str, Any] = {"schema": "pg_catalog", "kind": "b", "array": False, **other}
    return Type(name=name, modifier=modifier, shown=name, **given_)


def julian(days: int) -> str:
    """Write the date so many days after 1970 as PostgreSQL's own j2date does."""
    at = days + 2_440_588 + 32044
    quad = at // 146_097
    extra = (at - quad * 146_097) * 4 + 3
    at += 60 + quad * 3 + extra // 146_097
    quad = at // 1461
    at -= quad * 1461
    year = at * 4 // 1461
    at = ((at + 305) % 365 if year != 0 else (at + 306) % 366) + 123
    year += quad * 4
    quad = at * 2141 // 65_536
    year, month, day = year - 4800, (quad + 10) % 12 + 1, at - 7834 * quad // 256
    return f"{year if year > 0 else 1 - year:04}-{month:02}-{day:02}" + (" BC" if year <= 0 else "")


@given(st.integers(-2_440_588, 2_145_042_905))
def test_days_are_the_dates_that_postgresql_prints(days: int) -> None:
    """Every date that PostgreSQL has comes out as it prints it."""
    assert julian(days) == of("date")(days)


@given(st.integers(-2_440_588 * 86_400_000_000, 9_224_318_015_999_999_999))
def test_microseconds_are_the_timestamps_that_postgresql_prints(at: int) -> None:
    """Every timestamp does, with the era at its end; the precision of a column tells the unit."""
    days, rest = divmod(at, 86_400_000_000)
    date, _, era = julian(days).partition(" ")
    clock = f"{rest // 3_600_000_000:02}:{rest // 60_000_000 % 60:02}:{rest // 1_000_000 % 60:02}"
    clock += f".{rest % 1_000_000:06}" if rest % 1_000_000 else ""

    expected = f"{date} {clock} {era}".strip()
    assert at in {9223372036825200000, -9223372036832400000} or expected == of("timestamp")(at)
    if at % 1000 == 0:
        for by in (ADAPTIVE, CONNECT):
            assert of("timestamp")(at) == of("timestamp", by, modifier=3)(at // 1000)


@given(st.integers(0, 86_400_000_000))
def test_the_end_of_a_day_is_not_its_beginning(at: int) -> None:
    """A time of day is read back as it was, 24:00:00 among them."""
    found = str(of("time")(at))
    assert found == of("time", NANO)(at * 1000)
    hours, minutes, seconds = found.split(":")

    assert at == round(
        Decimal(hours) * 3_600_000_000
        + Decimal(minutes) * 60_000_000
        + Decimal(seconds) * 1_000_000
    )
    assert ("24:00:00" == found) == (at == 86_400_000_000)


@pytest.mark.parametrize(
    ("name", "by", "written", "text"),
    [
        ("date", ISO, "2024-02-29Z", "2024-02-29"),
        ("date", ISO, "+10000-01-01Z", "10000-01-01"),
        ("date", ISO, "0000-01-01Z", "0001-01-01 BC"),
        ("date", ISO, "-4712-01-01Z", "4713-01-01 BC"),
        ("date", ISO, "-5877611-06-21Z", "infinity"),
        ("date", ISO, "-5877611-06-22Z", "-infinity"),
        ("date", MODES, -2147472692, "infinity"),
        ("date", MODES, -2147472691, "-infinity"),
        ("timestamp", ISO, "2024-02-29T12:34:56.789012Z", "2024-02-29 12:34:56.789012"),
        ("timestamp", ISO, "-0043-03-15T12:00:00.5Z", "0044-03-15 12:00:00.5 BC"),
        ("timestamp", ISO, "+294247-01-10T04:00:25.2Z", "infinity"),
        ("timestamp", ISO, "-290308-12-21T19:59:27.6Z", "-infinity"),
        ("timestamp", MODES, 9223372036825200000, "infinity"),
        ("timestamptz", MODES, "2024-02-29T10:34:56.789012Z", "2024-02-29 10:34:56.789012+00"),
        ("timestamptz", MODES, "-0043-03-15T12:00:00.500000Z", "0044-03-15 12:00:00.500000+00 BC"),
        ("timestamptz", MODES, "-infinity", "-infinity"),
        ("timestamptz", NANO, "2024-02-29T10:34:56Z", "2024-02-29 10:34:56+00"),
        ("timestamptz", CONNECT, "infinity", "infinity"),
        ("date", NANO, -735160, "0044-03-15 BC"),
        ("date", CONNECT, -2147472692, "infinity"),
        ("time", MODES, 86_400_000_000, "24:00:00"),
        ("time", NANO, 86_400_000_000_000, "24:00:00"),
        ("numeric", MODES, "1.50", "1.50"),
        ("numeric", MODES, "NAN", "NaN"),
        ("numeric", MODES, "NEGATIVE_INFINITY", "-Infinity"),
        ("money", MODES, "-92233720368547758.08", "-92233720368547758.08"),
        ("bool", MODES, False, "f"),
        ("int8", MODES, -(2**63), "-9223372036854775808"),
        ("float8", MODES, "-Infinity", "-Infinity"),
        ("bytea", MODES, "00ff10", "\\x00ff10"),
        ("bpchar", MODES, "ab    ", "ab    "),
        ("interval", MODES, "P0Y-1M3DT-4H-5M-6.7S", "P0Y-1M3DT-4H-5M-6.7S"),
        ("text", MODES, "__debezium_unavailable_value", "__debezium_unavailable_value"),
    ],
)
def test_what_the_converters_write_is_read(name: str, by: Modes, written: Any, text: str) -> None:
    """Each form that was measured gives the text of the value."""
    assert text == of(name, by)(written)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_keeps_each_bit(value: float) -> None:
    """What JSON holds of a double is the double again, -0 and the smallest included."""
    text = str(of("float8")(json.loads(json.dumps(value))))

    assert struct.pack(">d", value) == struct.pack(">d", float(text))
    assert math.copysign(1, value) == math.copysign(1, float(text))


@given(st.text())
def test_no_text_stands_for_a_value_that_was_not_sent(text: str) -> None:
    """The placeholder holds U+0000, which no text of PostgreSQL does: nothing else means unchanged."""
    read = of("text")

    assert (UNCHANGED if text == PLACEHOLDER else text) == read(text)
    assert UNCHANGED is read(PLACEHOLDER)
    for name in ("jsonb", "numeric", "numrange", "bytea", "bpchar", "tsvector"):
        assert UNCHANGED is of(name)(PLACEHOLDER)


@pytest.mark.parametrize(
    ("name", "by", "why"),
    [
        ("timetz", MODES, "offset"),
        ("varbit", MODES, "leading zeros"),
        ("xml", MODES, "declaration"),
        ("refcursor", MODES, "not measured"),
        ("time", ISO, "24:00:00"),
        ("numeric", Modes("isostring", "double", "string", "hex", PLACEHOLDER), "rounded"),
        ("numeric", Modes("isostring", "precise", "string", "hex", PLACEHOLDER), "NaN"),
        ("money", Modes("isostring", "precise", "string", "hex", PLACEHOLDER), "decimal places"),
        ("timestamp", CONNECT, "finer"),
        ("time", CONNECT, "finer"),
        ("timestamp", NANO, "292 years"),
        ("interval", Modes("isostring", "string", "numeric", "hex", PLACEHOLDER), "months"),
        ("bytea", Modes("isostring", "string", "string", "base64", PLACEHOLDER), "not sent"),
        (
            "text",
            Modes("isostring", "string", "string", "hex", "__debezium_unavailable_value"),
            "may be",
        ),
    ],
)
def test_what_would_be_lost_is_refused(name: str, by: Modes, why: str) -> None:
    """A column whose values do not survive the converters has no codec, and the reason is told."""
    found = codecs.codec(a_type(name), by)

    assert isinstance(found, Lost)
    assert why in found.why


def test_intervals_that_may_be_infinite_are_refused() -> None:
    """From PostgreSQL 17 on there are such intervals."""
    assert isinstance(codecs.codec(a_type("interval", infinite=True), MODES), Lost)


def test_arrays_are_refused() -> None:
    """Dimensions and bounds are lost without a word, whatever the element."""
    found = codecs.codec(a_type("_int4", array=True), MODES)

    assert isinstance(found, Lost)
    assert "dimensions" in found.why


def test_a_type_of_somebody_is_refused_and_an_enum_is_carried() -> None:
    """Of extensions and composites nothing was measured but citext; labels of an enum are text."""
    assert isinstance(codecs.codec(a_type("comp", schema="public", kind="c"), MODES), Lost)
    assert isinstance(codecs.codec(a_type("text", schema="public"), MODES), Lost)
    assert "sad" == of("mood", schema="public", kind="e")("sad")
    assert "X" == of("citext", schema="public")("X")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("int4", 2**31), ("int4", True), ("int4", "1"), ("bool", 1), ("float8", "inf"), ("float8", 1),
        ("numeric", 1.5), ("numeric", "1,5"), ("text", 1), ("date", "2024-02-29Z"), ("date", 2**40),
        ("timestamp", 9_224_318_016_000_000_000), ("time", 86_400_000_001), ("interval", "1 day"),
        ("bytea", "xyz"), ("bytea", 1),
    ],
)  # fmt: skip
def test_what_the_converters_never_write_is_no_value(name: str, value: Any) -> None:
    """Nothing is guessed: a value of another form is an error that shows it."""
    with pytest.raises(ValueError, match=r"is no|is neither|hexadecimal"):
        of(name)(value)


def test_modes_are_what_the_settings_say() -> None:
    """The placeholder may be told in hex; a mode that is not known is named."""
    settings = {
        "time.precision.mode": "isostring", "decimal.handling.mode": "string",
        "interval.handling.mode": "string", "binary.handling.mode": "hex",
        "hstore.handling.mode": "json", "unavailable.value.placeholder": "hex:0041",
    }  # fmt: skip

    assert Modes("isostring", "string", "string", "hex", "\x00A") == modes.of(settings)
    with pytest.raises(ValueError, match=r"time\.precision\.mode is structured"):
        modes.of({**settings, "time.precision.mode": "structured"})
    with pytest.raises(ValueError, match="placeholder"):
        modes.of({**settings, "unavailable.value.placeholder": "hex:zz"})
