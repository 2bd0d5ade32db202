"""`${NAME}` in the configuration: replaced from the environment, or from a file that it names."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psycopg import ProgrammingError, conninfo

from cdc.errors import ConfigError

#: Config-provider references such as ${file:path:key} hold a colon and are Kafka Connect's.
_NAME = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expanded(value: Any, environment: Mapping[str, str], where: str = "") -> Any:
    """Return decoded TOML with every `${NAME}` replaced; ConfigError where there is no such value.

    Where NAME is not set, NAME_FILE may name a file that holds it, as container secrets and systemd
    credentials do; the line's end is left off.
    """
    if isinstance(value, dict):
        return {
            key: expanded(item, environment, f"{where}.{key}".lstrip("."))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [expanded(item, environment, where) for item in value]
    if not isinstance(value, str):
        return value

    def filled(text: str) -> str:
        return _NAME.sub(lambda found: _value(found[1], environment, where), text)

    if where.endswith("dsn"):
        # Part by part: a password may hold what a connection string would have to quote.
        with contextlib.suppress(ProgrammingError):
            parts = conninfo.conninfo_to_dict(value)
            return conninfo.make_conninfo("", **{k: filled(str(v)) for k, v in parts.items()})
    return filled(value)


def names(text: str) -> list[str]:
    """Return the NAME of every `${NAME}` in a text."""
    return _NAME.findall(text)


def _value(name: str, environment: Mapping[str, str], where: str) -> str:
    if name in environment:
        return environment[name]
    file = environment.get(f"{name}_FILE")
    if file is None:
        raise ConfigError(
            f"{where} names the environment variable {name}, which is not set",
            safe="nothing was read or written",
            next=f"set {name}, or {name}_FILE to a file that holds it, and try again",
        )
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise ConfigError(
            f"{where} is held by the file that {name}_FILE names, {file}, which cannot be read: {why}",
            safe="nothing was read or written",
            next="let the user that runs this program read it, and try again",
        ) from None
