"""Every error this package raises.

    CdcError
    ├── UsageError              exit 2: the command line or configuration is wrong
    │   └── ConfigError
    ├── Halt                    exit 1: a person is needed, a restart will not help
    │   ├── BrokenStream        the ledger found something missing, torn or foreign
    │   ├── MalformedRecord     a record that cannot be decoded
    │   ├── PositionLost        the topic no longer holds what comes next
    │   ├── SchemaMismatch      the replica's tables do not fit the events
    │   ├── ApplyRefused        the replica refused a change
    │   ├── NotReady            something that must exist or run first does not
    │   ├── NotEmpty            a table that would be filled has rows
    │   └── ConnectRefused      Kafka Connect refused, or a connector failed
    ├── Unreachable             a server does not answer; exit 1 for commands, retried by the daemon
    ├── WaitTimeout             exit 1: `cdc wait` gave up
    └── InstallationError       exit 1: the programs or their files are damaged or absent

Each carries the three things a person needs: what happened (`what`), what that means for the data
(`safe`) and what to do (`next`), and the place it happened as attributes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from cdc import lsn as lsns


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an error happened; only what is known is set.

    `offset` is the record's own offset in Kafka, `lsn` a byte position in the primary's log,
    `sqlstate` PostgreSQL's five-character code.
    """

    replica: str | None = None
    table: str | None = None
    key: str | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    txid: int | None = None
    lsn: int | None = None
    sqlstate: str | None = None

    def items(self) -> list[tuple[str, str]]:
        """Return the known parts as (name, text), in declaration order."""
        parts = [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self)]
        return [(n, lsns.show(v) if n == "lsn" else str(v)) for n, v in parts if v is not None]

    def merged(self, **more: Any) -> Place:
        """Return this place with the parts still unknown taken from `more`."""
        known = {n: v for n, v in more.items() if v is not None and getattr(self, n) is None}
        return dataclasses.replace(self, **known)


class CdcError(Exception):
    """An error with what happened, what is safe and what to do next."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, safe: str, next: str, **place: Any) -> None:  # noqa: A002 -- the word people read in the message
        super().__init__(what)
        self.what = what
        self.safe = safe
        self.next = next
        self.place = Place(**place)

    def at(self, **place: Any) -> CdcError:
        """Add what is known about the place where it is not known yet; return self."""
        self.place = self.place.merged(**place)
        return self

    def __str__(self) -> str:
        lines = [self.what]
        if place := self.place.items():
            lines.append("  at:   " + " ".join(f"{name}={value}" for name, value in place))
        lines += [f"  data: {self.safe}", f"  next: {self.next}"]
        return "\n".join(lines)


class UsageError(CdcError):
    """The command line is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """The configuration file is wrong."""


class Halt(CdcError):  # noqa: N818 -- named by what is the case
    """Replication stops until a person acts; nothing is skipped."""


class BrokenStream(Halt):
    """The stream lacks, repeats or tears something that the ledger cannot account for."""


class MalformedRecord(Halt):
    """A record is not what Debezium emits in the exact profile."""


class PositionLost(Halt):
    """The topic does not hold the record that comes next for this replica."""


class SchemaMismatch(Halt):
    """A table or column of the event is not what the replica has."""


class ApplyRefused(Halt):
    """PostgreSQL refused a change on the replica."""


class NotReady(Halt):
    """Something that must exist or run first does not."""


class NotEmpty(Halt):
    """A table that would be filled already has rows."""


class ConnectRefused(Halt):
    """Kafka Connect refused a request, or a connector has failed."""


class Unreachable(CdcError):  # noqa: N818 -- named by what is the case
    """A server does not answer, or refuses to let us in."""


class WaitTimeout(CdcError):  # noqa: N818 -- named by what is the case
    """The replica did not reach the wanted position in time."""


class InstallationError(CdcError):
    """A file or program this installation needs is missing or damaged."""
