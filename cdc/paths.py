"""Paths in the configuration are relative to its file, whoever starts a program where."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from psycopg import conninfo

V = TypeVar("V")

#: What of a connection string is a path.
_IN_DSN = ("passfile", "sslrootcert", "sslcert", "sslkey", "sslcrl")

#: Words that stand for what the system has, where a path may stand.
_WORDS = ("", "system", "probe")


def beside(file: Path, path: Path | None) -> Path | None:
    return None if path is None else (file.parent / path).absolute()


def in_dsn(file: Path, dsn: str) -> str:
    """Make the paths in a libpq connection string absolute; psycopg.ProgrammingError if it is none."""
    parts = conninfo.conninfo_to_dict(dsn)
    for key in _IN_DSN:
        if (value := parts.get(key)) is not None and value not in _WORDS:
            parts[key] = str(beside(file, Path(str(value))))
    return conninfo.make_conninfo("", **parts)


def in_options(file: Path, options: Mapping[str, V]) -> dict[str, V | str]:
    """Make the paths in settings of librdkafka absolute, which all end in `.location`."""
    return {
        key: str(beside(file, Path(value)))
        if key.endswith(".location") and isinstance(value, str) and value not in _WORDS
        else value
        for key, value in options.items()
    }
