"""What an audit tells: a table for people, one object for programs. Pure."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from typing import Any, Final

from cdc.check.audit import Audit, Found
from cdc.check.finding import ADVICE, DELAYS, LOSES, End, Severity

#: Columns that a line for people has at most.
WIDTH = 80

_ORDER: Final[tuple[Severity, ...]] = (LOSES, DELAYS, ADVICE)


def value(audit: Audit) -> dict[str, Any]:
    """Return the audit as schemas/check.json has it, without the version."""
    return {
        "exit_code": audit.exit_code,
        "findings": [dataclasses.asdict(found) for found in ordered(audit)],
        "unread": [dataclasses.asdict(unread) for unread in audit.unread],
    }


def text(audit: Audit) -> str:
    """Return the audit for people, the answer first."""
    lines = textwrap.wrap(headline(audit), WIDTH, subsequent_indent="  ")
    if audit.found:
        lines += ["", f"{'severity':<10}{'finding':<25}where"]
    for found in ordered(audit):
        accepted = "  (accepted)" if found.accepted else ""
        lines.append(
            f"{found.severity:<10}{found.name:<25}{where(found.end, found.replica)}{accepted}"
        )
        lines += _wrapped("", found.what)
        lines += _wrapped("why: ", found.why)
        lines += _wrapped("fix: ", found.fix)
    for unread in audit.unread:
        lines += ["", f"{'unread':<10}{where(unread.end, unread.replica)}: {unread.subject}"]
        lines += _wrapped("", unread.why)
        lines += _wrapped("not checked: ", ", ".join(unread.findings))
    return "\n".join(lines)


def headline(audit: Audit) -> str:
    """Say in one line what there is."""
    open_ = [f for f in audit.found if not f.accepted]
    counts = {s: sum(f.severity == s for f in open_) for s in _ORDER}
    said = [
        f"{counts[severity]} {words}"
        for severity, words in zip(
            _ORDER, ("can lose data", "can delay it", "may be better"), strict=True
        )
        if counts[severity]
    ]
    if accepted := len(audit.found) - len(open_):
        said.append(f"{accepted} accepted")
    if not audit.unread:
        return ", ".join(said) if said else "nothing found that can lose or delay data"
    ends = ", ".join(dict.fromkeys(where(u.end, u.replica) for u in audit.unread))
    return ", ".join([*said, f"NOT EVERYTHING COULD BE CHECKED: {ends}"])


def ordered(audit: Audit) -> list[Found]:
    """Return what was found, the gravest first."""
    return sorted(audit.found, key=lambda f: (f.accepted, _ORDER.index(f.severity)))


def where(end: End, replica: str | None) -> str:
    return end if replica is None else f"replica {replica}"


def _wrapped(lead: str, words: str) -> Iterator[str]:
    yield from textwrap.wrap(
        words, WIDTH, initial_indent=f"  {lead}", subsequent_indent="  " + " " * len(lead),
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip
