"""Log lines on stderr, in UTC: for people, or one JSON object a line with the names of ECS.

ECS is the Elastic Common Schema (https://www.elastic.co/guide/en/ecs/8.11): `@timestamp`, `log.level`,
`message`, `event.duration` in nanoseconds; what is ours begins with `cdc.`. Secrets never get this
far; what does all the same, in the message of a library, is masked here.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import sys
from collections.abc import Collection
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from psycopg import conninfo

from cdc import postgres, secrecy
from cdc.config import Config

Format = Literal["console", "json"]

#: Which logger has a line per batch: always as JSON, for people with -v.
BATCHES = "cdc.batch"

#: Where a secret may stand that nobody told of: key=value in connection strings and options, as JSON
#: too, and in addresses between a name and an @.
_KEYED = re.compile(
    r"""((?:password|passwd|secret|token|api[._-]?key|credential)[\w.]*["']?\s*[=:]\s*)"""
    r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,;}&]+)""",
    re.IGNORECASE,
)
_IN_ADDRESS = re.compile(r"(://[^\s/:@]*:)[^\s/@]+(@)")

#: A shorter one would mask half of what is said.
_SHORTEST = 4


def configure(verbose: int, form: Format = "console", hidden: Collection[str] = ()) -> None:
    """Send log lines to stderr: states and a summary; with -v, or as JSON, each batch.

    `hidden` are values that are masked wherever they appear.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Ecs(hidden) if form == "json" else _People(hidden))
    root = logging.getLogger("cdc")
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.propagate = False
    each = form == "json" or bool(verbose)
    logging.getLogger(BATCHES).setLevel(logging.INFO if each else logging.WARNING)


#: What every record of the library has; whatever else one has was given with `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _People(logging.Formatter):
    """A line for people: when, how grave, what."""

    def __init__(self, hidden: Collection[str]) -> None:
        super().__init__()
        self.hidden = hidden

    def format(self, record: logging.LogRecord) -> str:
        lines = [f"{_moment(record)[:19]}Z {record.levelname:<7} {record.getMessage()}"]
        if record.exc_info:
            lines.append(self.formatException(record.exc_info))
        return redacted("\n".join(lines), self.hidden)


class _Ecs(_People):
    """A JSON object: what every line has under its name in ECS; what a line has of its own has one already."""

    def format(self, record: logging.LogRecord) -> str:
        named: dict[str, Any] = {
            "@timestamp": _moment(record),
            "log.level": record.levelname.lower(),
            "message": record.getMessage(),
            "ecs.version": "8.11",
            "service.name": "cdc",
            "log.logger": record.name,
        }
        if record.exc_info:
            named["error.stack_trace"] = self.formatException(record.exc_info)
        named |= {key: value for key, value in vars(record).items() if key not in _OWN}
        masked = {
            key: redacted(value, self.hidden) if isinstance(value, str) else value
            for key, value in named.items()
        }
        return json.dumps(masked, default=repr)


def _moment(record: logging.LogRecord) -> str:
    at = dt.datetime.fromtimestamp(record.created, dt.UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def redacted(text: str, hidden: Collection[str] = ()) -> str:
    """Return `text` with secrets masked: the values `hidden`, and what stands where secrets do."""
    for value in hidden:
        text = text.replace(value, secrecy.MASK)
    text = _KEYED.sub(rf"\g<1>{secrecy.MASK}", text)
    return _IN_ADDRESS.sub(rf"\g<1>{secrecy.MASK}\g<2>", text)


def secrets(config: Config) -> frozenset[str]:
    """Return the secrets that a configuration holds, as they may appear in a message."""
    dsns = [config.primary.dsn, config.primary.admin_dsn]
    for replica in config.replicas.values():
        dsns += [replica.dsn, replica.admin_dsn]
    given = [conninfo.conninfo_to_dict(dsn) for dsn in dsns if dsn]
    found = [parts.get(key) for parts in given for key in postgres.SECRETS]
    found += [urlsplit(config.connect.url).password, config.connect.password]
    for options in (config.kafka.options, config.connect.options):
        found += [str(value) for key, value in options.items() if secrecy.hidden(key)]
    values = {str(value) for value in found if value and len(str(value)) >= _SHORTEST}
    return frozenset(values | {quote(value, safe="") for value in values})
