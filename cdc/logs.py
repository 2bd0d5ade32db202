"""Log lines on stderr, in UTC: for people, or one JSON object a line with the names of ECS.

ECS is the Elastic Common Schema (https://www.elastic.co/guide/en/ecs/8.11): `@timestamp`, `log.level`,
`message`, `event.duration` in nanoseconds; what is ours begins with `cdc.`. Secrets never get this
far; what does all the same, in the message of a library, is masked here.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import structlog
from psycopg import conninfo
from structlog.stdlib import ProcessorFormatter

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

    def mask(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        return {k: redacted(v, hidden) if isinstance(v, str) else v for k, v in event.items()}

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
            ],
            processors=[
                ProcessorFormatter.remove_processors_meta,
                structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%S.%fZ", utc=True),
                structlog.processors.format_exc_info,
                mask,
                *([_ecs, structlog.processors.JSONRenderer()] if form == "json" else [_line]),
            ],
        )
    )
    root = logging.getLogger("cdc")
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.propagate = False
    each = form == "json" or bool(verbose)
    logging.getLogger(BATCHES).setLevel(logging.INFO if each else logging.WARNING)


def _ecs(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Give what every line has its name in ECS; what a line has of its own has it already."""
    named = {
        "@timestamp": event.pop("timestamp"),
        "log.level": event.pop("level"),
        "message": event.pop("event"),
        "ecs.version": "8.11",
        "service.name": "cdc",
        "log.logger": event.pop("logger"),
    }
    if "exception" in event:
        named["error.stack_trace"] = event.pop("exception")
    return named | dict(event)


def _line(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """Return a line for people: when, how grave, what."""
    at = f"{event['timestamp'][:19]}Z"
    line = f"{at} {event['level'].upper():<7} {event['event']}"
    return f"{line}\n{event['exception']}" if "exception" in event else line


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
