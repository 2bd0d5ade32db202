"""Which versions of what is not ours are used: `versions.env`, which compose reads as well."""

from __future__ import annotations

from pathlib import Path

FILE = Path(__file__).with_name("versions.env")


def read(text: str) -> dict[str, str]:
    """Return the assignments in `text`, one a line; what a line says after # is for people."""
    pairs = (line.partition("=") for line in text.splitlines() if line and line[0] != "#")
    return {name: value for name, _, value in pairs}


_STATED = read(FILE.read_text(encoding="utf-8"))

KAFKA = _STATED["CDC_KAFKA"]
DEBEZIUM = _STATED["CDC_DEBEZIUM"]
JAVA = int(_STATED["CDC_JAVA"])

#: Wheels that carry PostgreSQL's programs, by major version: servers, psql, pg_dump and the rest.
WHEELS = {
    major: wheel
    for name, wheel in _STATED.items()
    if (major := name.removeprefix("CDC_POSTGRES_")).isdigit()
}
POSTGRES = _STATED["CDC_POSTGRES"]
