"""What a verification tells: for people, as JSON, as one line per finding."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cdc import __version__
from cdc import lsn as lsns
from cdc.verify.findings import Finding, TableResult, Undecided
from cdc.verify.outcome import Outcome, count
from cdc.verify.store import Run

#: Version of the JSON forms (schemas/verify.json).
VERSION = 1

#: Findings shown to people; all of them are in the file that --findings writes.
_SHOWN = 50

#: Two lines each: the whole fits a terminal of a hundred columns.
_HEAD = (
    ("", "  table"), ("", "rows"), ("", "chunks"), ("candi-", "dates"), ("in", "flight"),
    ("", "missing"), ("", "extra"), ("differ-", "ent"), ("unde-", "cided"), ("", "sec."), ("", "rows/s"),
)  # fmt: skip


def human(outcome: Outcome, *, mask: bool = False) -> str:
    """Return the report for people: a table per replica, what is wrong, the claim.

    With `mask`, the columns that differ are named and their values left out.
    """
    lines: list[str] = []
    for name in outcome.replicas:
        results = [r for r in outcome.results if r.replica == name]
        if results:
            lines += [name, *_table(results), ""]
    lines += [*_remarks(outcome, mask=mask), *map(outcome.claim, outcome.replicas)]
    return "\n".join(lines)


def _table(results: Iterable[TableResult]) -> Iterator[str]:
    rows = [*zip(*_HEAD, strict=True), *(_row(result) for result in results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    for first, *others in rows:
        numbers = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
        yield "  ".join((first.ljust(widths[0]), *numbers)).rstrip()


def _row(result: TableResult) -> tuple[str, ...]:
    rate = round(result.rows / result.seconds) if result.seconds else 0
    faults = (
        result.candidates, result.resolved, result.missing, result.extra, result.different,
        result.unverified,
    )  # fmt: skip
    mark = "!" if result.differs else "=" if result.proven else "?"
    return (
        f"{mark} {result.table}",
        f"{result.rows:,}",
        f"{result.chunks:,}",
        *(f"{number:,}" if number else "·" for number in faults),
        f"{result.seconds:.1f}",
        f"{rate:,}",
    )


def _remarks(outcome: Outcome, *, mask: bool) -> Iterator[str]:
    for result in outcome.results:
        where = f"{result.replica} {result.table}"
        if result.trouble:
            yield f"{where}: {result.trouble}"
        for mismatch in result.mismatches:
            yield f"{where}: {mismatch.what}; {mismatch.mend}"
        for undecided in result.undecided:
            rows = (
                f"{count(len(undecided.keys), 'row')} undecided" if undecided.keys else "undecided"
            )
            yield f"{where}: {rows}: {undecided.reason}{_keys(undecided)}"
        if result.left:
            yield f"{where}: not all was mended: {'; '.join(result.left)}"
    for finding in outcome.findings[:_SHOWN]:
        yield told(finding, mask=mask)
    if len(outcome.findings) > _SHOWN:
        yield f"and {len(outcome.findings) - _SHOWN:,} more rows that differ: --findings FILE has all"
    for uncovered in outcome.uncovered:
        where = f"{uncovered.replica} " if uncovered.replica else ""
        yield f"{where}{uncovered.table}: not covered: it {uncovered.reason}"


def _keys(undecided: Undecided, most: int = 5) -> str:
    """Return the first keys; rows of a table without key have none to show."""
    if not (undecided.addressed and undecided.keys):
        return ""
    shown = ", ".join("(" + ", ".join(key) + ")" for key in undecided.keys[:most])
    more = len(undecided.keys) - most
    return f": {shown}" + (f" and {more:,} more" if more > 0 else "")


def told(finding: Finding, *, mask: bool = False) -> str:
    """Return a finding in one line."""
    key = ", ".join(
        name if mask and not finding.keyed else f"{name}={_shown(value)}"
        for name, value in finding.key.items()
    )
    times = f" ({finding.count} times)" if finding.count > 1 else ""
    said = f"{finding.replica} {finding.table} {finding.kind} {key}{times}"
    if finding.kind == "different":
        said += ": " + "; ".join(
            name if mask else f"{name} {_shown(p)} on the primary, {_shown(r)} here"
            for name, (p, r) in finding.columns.items()
        )
    return said


def _shown(value: str | None, most: int = 60) -> str:
    if value is None:
        return "NULL"
    return repr(value if len(value) <= most else value[:most] + "…")


def as_json(outcome: Outcome, *, mask: bool = False) -> dict[str, Any]:
    """Return the whole outcome for programs; with `mask`, without the findings' values."""
    return {
        "version": VERSION,
        "program": f"cdc-verify {__version__}",
        "at": outcome.at.isoformat(),
        "lsn": lsns.show(outcome.lsn),
        "hash": outcome.hash,
        "exit_code": outcome.exit_code,
        "seconds": round(outcome.seconds, 3),
        "replicas": [
            {
                "name": name,
                "claim": outcome.claim(name),
                "trouble": outcome.trouble.get(name),
                "tables": [_result(r) for r in outcome.results if r.replica == name],
            }
            for name in outcome.replicas
        ],
        "findings": [line(finding, mask=mask) for finding in outcome.findings],
        "uncovered": [
            {"replica": u.replica, "table": str(u.table), "reason": u.reason}
            for u in outcome.uncovered
        ],
    }


def _result(result: TableResult) -> dict[str, Any]:
    return {
        "table": str(result.table),
        "proven": result.proven,
        "rows": result.rows,
        "chunks": result.chunks,
        "candidates": result.candidates,
        "resolved": result.resolved,
        "missing": result.missing,
        "extra": result.extra,
        "different": result.different,
        "mended": result.mended,
        "unverified": result.unverified,
        "undecided": [
            {
                "rows": len(u.keys),
                "reason": u.reason,
                "keys": [list(key) for key in u.keys[:_SHOWN]] if u.addressed else [],
            }
            for u in result.undecided
        ],
        "mismatches": [
            {"what": m.what, "mend": m.mend, "weight": m.weight} for m in result.mismatches
        ],
        "left": list(result.left),
        "trouble": result.trouble,
        "seconds": round(result.seconds, 3),
    }


def line(finding: Finding, *, mask: bool = False) -> dict[str, Any]:
    """Return a finding for a line of JSON; with `mask`, values are left out and columns named."""
    columns = {
        name: None if mask else {"primary": p, "replica": r}
        for name, (p, r) in finding.columns.items()
    }
    return {
        "version": VERSION,
        "replica": finding.replica,
        "table": str(finding.table),
        "kind": finding.kind,
        "key": dict.fromkeys(finding.key) if mask and not finding.keyed else finding.key,
        "count": finding.count,
        "columns": columns,
    }


def lines(findings: Iterable[Finding], *, mask: bool) -> Iterator[str]:
    """Yield one JSON document per finding."""
    for finding in findings:
        yield json.dumps(line(finding, mask=mask), ensure_ascii=False)


def history(runs: Mapping[str, Sequence[Run]]) -> str:
    """Return the runs of each replica, newest first, a line each."""
    lines = []
    for name, some in runs.items():
        for run in some:
            ended = f"exit {run.exit_code}" if run.ended_at else "did not end"
            claim = run.claim or f"{name}: as of LSN {lsns.show(run.lsn)}"
            lines.append(f"{run.started_at:%Y-%m-%d %H:%M:%S} UTC  {ended}  {claim}")
    return "\n".join(lines) or "no runs are remembered"


def history_json(runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Return the runs of each replica for programs."""
    return {
        "version": VERSION,
        "replicas": {
            name: [
                {
                    "at": run.started_at.isoformat(),
                    "lsn": lsns.show(run.lsn),
                    "ended_at": run.ended_at and run.ended_at.isoformat(),
                    "exit_code": run.exit_code,
                    "claim": run.claim,
                }
                for run in some
            ]
            for name, some in runs.items()
        },
    }
