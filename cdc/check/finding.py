"""A finding: a name, how grave it is, why, and the rule over facts that tells where it is the case."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, Literal, TypeVar

import psycopg

from cdc import postgres, tables
from cdc.config import Config
from cdc.connect import Connect
from cdc.errors import Unreachable
from cdc.tables import Selection

F = TypeVar("F")

#: "loses": rows or values can be lost or altered, or what proves that none are. "delays": capture
#: or apply stops, or will, until a person acts. "advice": sound as it is, better otherwise.
Severity = Literal["loses", "delays", "advice"]
LOSES: Final = "loses"
DELAYS: Final = "delays"
ADVICE: Final = "advice"

End = Literal["primary", "replica", "kafka", "connect"]

#: Seconds that an end has to answer one request of a look.
TIMEOUT = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Hit:
    """A finding that is the case: what was found, and the statement or command that mends it."""

    what: str
    fix: str


@dataclasses.dataclass(frozen=True, slots=True)
class Finding(Generic[F]):
    """Something that can lose or delay data.

    `name` is what people accept it by; `rule` is pure. The daemon does not start on one that is
    `at_start`.
    """

    name: str
    severity: Severity
    why: str
    rule: Callable[[F], Iterator[Hit]]
    at_start: bool = False


def finding(
    name: str, severity: Severity, why: str, *, at_start: bool = False
) -> Callable[[Callable[[F], Iterator[Hit]]], Finding[F]]:
    """Make a finding of the rule that is decorated."""

    def made(rule: Callable[[F], Iterator[Hit]]) -> Finding[F]:
        return Finding(name, severity, why, rule, at_start)

    return made


class Site:
    """The ends of a stream for one round of looks; `replica` is the one it is about, if any.

    A session is opened when it is first needed and kept. A server that could not be reached is not
    tried again.
    """

    def __init__(self, config: Config, replica: str | None = None) -> None:
        self.config = config
        self.replica = replica
        self.connect = Connect(config.connect, patience=0, timeout=TIMEOUT)
        self._sessions: dict[str, psycopg.Connection[Any] | Unreachable] = {}
        self._selection: Selection | None = None

    def primary(self) -> psycopg.Connection[Any]:
        """Return the session on the primary; Unreachable when it does not let us in."""
        return self._session("primary", self.config.primary.dsn)

    def here(self) -> psycopg.Connection[Any]:
        """Return the session on the replica, or on the primary where the site is about none."""
        if self.replica is None:
            return self.primary()
        return self._session(self.replica, self.config.replica(self.replica).dsn)

    def selection(self) -> Selection:
        """Return what the configured patterns make of the primary's catalog, which is read once."""
        if self._selection is None:
            self._selection = tables.select(self.config, tables.read(self.primary()))
        return self._selection

    def _session(self, end: str, dsn: str) -> psycopg.Connection[Any]:
        if end not in self._sessions:
            try:
                self._sessions[end] = postgres.connect(
                    dsn,
                    self.config.application_name(end, "check"),
                    autocommit=True,
                    connect_timeout=TIMEOUT,
                )
            except Unreachable as error:
                self._sessions[end] = error
        found = self._sessions[end]
        if isinstance(found, Unreachable):
            raise found
        return found

    def close(self) -> None:
        for session in self._sessions.values():
            if not isinstance(session, Unreachable):
                session.close()


@dataclasses.dataclass(frozen=True, slots=True)
class Look(Generic[F]):
    """A look at one end: how its facts are read, and the findings that are judged by them.

    What cannot be read raises: none of its findings is then known not to be the case.
    """

    end: End
    subject: str
    read: Callable[[Site], F]
    findings: tuple[Finding[F], ...]
