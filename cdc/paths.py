"""Paths in the configuration are relative to its file, whoever starts a program where."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from psycopg import conninfo

V = TypeVar("V")

#: What of a connection string is a path.
_IN_DSN = ("passfile", "sslrootcert", "sslcert", "sslkey", "sslcrl")

#: Words that stand for what the system has, where a path may stand.
_WORDS = ("", "system", "probe")


def beside(file: Path, path: Path | None) -> Path | None:
    return None if path is None else (file.parent / path).absolute()


def in_dsn(file: Path, parts: Mapping[str, Any]) -> str:
    """Return the libpq connection string of `parts` with absolute paths."""
    paths = {
        key: str(beside(file, Path(str(value))))
        for key in _IN_DSN
        if (value := parts.get(key)) is not None and value not in _WORDS
    }
    return conninfo.make_conninfo("", **(dict(parts) | paths))


def in_options(file: Path, options: Mapping[str, V]) -> dict[str, V | str]:
    """Make the paths in settings of librdkafka absolute, which all end in `.location`."""
    return {
        key: str(beside(file, Path(value)))
        if key.endswith(".location") and isinstance(value, str) and value not in _WORDS
        else value
        for key, value in options.items()
    }
