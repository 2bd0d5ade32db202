"""What people write in the configuration and on command lines: tables, durations, sizes, addresses."""

from __future__ import annotations

import re
from typing import Any

import msgspec

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file; keys are the field names."""


class Duration(float):
    """Seconds, written in the file as "500ms", "30s", "5m", "7d"."""

    @classmethod
    def parse(cls, text: Any) -> Duration:
        found = (
            re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text) if isinstance(text, str) else None
        )
        if found is None:
            raise ValueError(f'{text!r} is not a duration (write "500ms", "30s", "5m", "7d")')
        return cls(float(found[1]) * _UNITS[found[2]])


class Size(int):
    """Bytes, written in the file as "8MiB"."""

    @classmethod
    def parse(cls, text: Any) -> Size:
        found = re.fullmatch(r"(\d+)(B|KiB|MiB|GiB)", text) if isinstance(text, str) else None
        if found is None:
            raise ValueError(f'{text!r} is not a size (write "512KiB", "8MiB", "1GiB")')
        return cls(int(found[1]) * _SIZES[found[2]])


class Address(str):
    """Where to listen, written in the file as "127.0.0.1:9401" or "[::1]:9401"."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: Any) -> Address:
        found = isinstance(text, str) and re.fullmatch(
            r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+):(\d{1,5})", text
        )
        if not found or int(found[2]) > 65535:
            raise ValueError(f'{text!r} is not an address to listen at (write "127.0.0.1:9401")')
        return cls(text)

    @property
    def host(self) -> str:
        return self.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.rpartition(":")[2])
