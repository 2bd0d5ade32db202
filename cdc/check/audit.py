"""Take the looks: each end by itself, so that one that hangs holds up no other."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg

from cdc import postgres
from cdc.check.finding import End, Finding, Look, Severity, Site
from cdc.config import Config
from cdc.errors import CdcError, ConfigError

#: Seconds for all looks at one end; they take a few tenths as a rule.
PATIENCE = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A finding that is the case, where, and whether somebody has accepted it."""

    name: str
    severity: Severity
    end: End
    replica: str | None
    what: str
    why: str
    fix: str
    accepted: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Unread:
    """What could not be read, why, and which findings are therefore not known not to be the case."""

    end: End
    replica: str | None
    subject: str
    why: str
    findings: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Audit:
    """What a round of looks found. Only where nothing is `unread` do missing findings mean anything."""

    found: tuple[Found, ...]
    unread: tuple[Unread, ...]

    @property
    def losing(self) -> tuple[Found, ...]:
        """What can lose data and was not accepted."""
        return tuple(f for f in self.found if f.severity == "loses" and not f.accepted)

    @property
    def exit_code(self) -> int:
        """0: nothing that can lose or delay data; 1: something; 2: not everything could be read."""
        if any(f.severity != "advice" and not f.accepted for f in self.found):
            return 1
        return 2 if self.unread else 0


class _Group(threading.Thread):
    """The looks at one end, in their order; a thread of its own, given up when it hangs."""

    def __init__(self, site: Site, looks: Sequence[Look[Any]]) -> None:
        super().__init__(name=f"check {looks[0].end} {site.replica or ''}", daemon=True)
        self.site = site
        self.looks = looks
        self.done: dict[int, list[Found] | str] = {}
        self.wrong: ConfigError | None = None

    def run(self) -> None:
        with contextlib.closing(self.site):
            for number, look in enumerate(self.looks):
                try:
                    self.done[number] = list(_judged(look, self.site))
                except ConfigError as error:
                    self.wrong = error
                    return
                except CdcError as error:
                    self.done[number] = error.what
                except psycopg.Error as error:
                    self.done[number] = postgres.first_line(error)


def take(
    config: Config, looks: Sequence[Look[Any]], replicas: Sequence[str], patience: float = PATIENCE
) -> Audit:
    """Take the looks, those at a replica for each of `replicas`; wait `patience` seconds at most.

    Raises ConfigError where the configuration does not say what to look at.
    """
    groups = []
    for end in dict.fromkeys(look.end for look in looks):
        of_end = [look for look in looks if look.end == end]
        names: Sequence[str | None] = replicas if end == "replica" else (None,)
        groups += [_Group(Site(config, name), of_end) for name in names]
    for group in groups:
        group.start()
    deadline = time.monotonic() + patience
    found: list[Found] = []
    unread: list[Unread] = []
    for group in groups:
        group.join(max(0.0, deadline - time.monotonic()))
        if group.wrong is not None:
            raise group.wrong
        for number, look in enumerate(group.looks):
            result = group.done.get(number, f"no answer within {patience:g} s")
            if isinstance(result, str):
                names_ = tuple(f.name for f in look.findings)
                unread.append(Unread(look.end, group.site.replica, look.subject, result, names_))
            else:
                found += result
    return Audit(tuple(found), tuple(unread))


def _judged(look: Look[Any], site: Site) -> Iterable[Found]:
    facts = look.read(site)
    for finding in look.findings:
        yield from _hits(finding, facts, look.end, site)


def _hits(finding: Finding[Any], facts: Any, end: End, site: Site) -> Iterable[Found]:
    accepted = finding.name in site.config.check.accept
    for hit in finding.rule(facts):
        yield Found(
            finding.name, finding.severity, end, site.replica, hit.what, finding.why, hit.fix, accepted
        )  # fmt: skip
