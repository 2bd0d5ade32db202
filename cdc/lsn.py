"""Log sequence numbers: positions in the primary's write-ahead log.

Inside the program an LSN is an `int`, a byte position (PostgreSQL manual, `pg_lsn`); people and
SQL see the `16/B374D848` form.
"""

from __future__ import annotations


def parse(text: str) -> int:
    """Return the number of an LSN written as `16/B374D848`; ValueError if it is not one."""
    high, slash, low = text.partition("/")
    if not slash:
        raise ValueError(f"not an LSN: {text!r} (expected the form 16/B374D848)")
    if not (0 < len(high) <= 8 and 0 < len(low) <= 8):
        raise ValueError(f"not an LSN: {text!r} (expected the form 16/B374D848)")
    return (int(high, 16) << 32) | int(low, 16)


def show(lsn: int) -> str:
    """Return `lsn` as PostgreSQL prints it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
