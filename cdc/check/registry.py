"""Every finding there is, with the looks that they are judged by."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator
from typing import Any, Final

from cdc.check import (
    access,
    capture,
    coverage,
    primary,
    proof,
    publication,
    replica,
    server,
    stream,
    values,
)
from cdc.check.finding import Finding, Look
from cdc.config import NOTHING_CHANGED, Config
from cdc.errors import ConfigError

LOOKS: Final[tuple[Look[Any], ...]] = (
    *server.LOOKS[:1], *primary.LOOKS, *publication.LOOKS, *values.LOOKS, *stream.LOOKS, *capture.LOOKS,
    *proof.LOOKS, *server.LOOKS[1:], *access.LOOKS, *replica.LOOKS, *coverage.LOOKS,
)  # fmt: skip


def _at_start() -> Iterator[Look[Any]]:
    for look in LOOKS:
        findings = tuple(f for f in look.findings if f.at_start)
        # The connector's settings are the guard's to watch; of the primary nothing is needed yet.
        if look.end in ("replica", "kafka") and findings:
            yield dataclasses.replace(look, findings=findings)


#: What the daemon looks at before it starts.
AT_START: Final[tuple[Look[Any], ...]] = tuple(_at_start())


def findings(looks: Iterable[Look[Any]] = LOOKS) -> dict[str, Finding[Any]]:
    """Return the findings of `looks` by name, each once."""
    return {f.name: f for look in looks for f in look.findings}


def known(config: Config) -> None:
    """Raise ConfigError where check.accept names a finding that there is not."""
    names = findings()
    for name in config.check.accept:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            raise ConfigError(
                f"check.accept: there is no finding {name}",
                safe=NOTHING_CHANGED,
                next=f"did you mean {close[0]}?" if close else "docs/check.md has all of them",
            )
