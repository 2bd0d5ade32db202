"""The report as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from cdc import lsn as lsns
from cdc.verify.findings import Finding, TableResult
from cdc.verify.outcome import Outcome

#: Findings shown; all of them are in the file that --findings writes.
_SHOWN = 1000

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
       color: #1d2430; background: #fff }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } td, th { padding: .25rem .6rem; text-align: right }
td:first-child, th:first-child, .text td { text-align: left } th { border-bottom: 2px solid #ccd }
td { border-bottom: 1px solid #eef } .good { color: #176b3a } .bad { color: #a8221c }
.open { color: #8a5a00 } code { font-size: .9em; overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) {
  body { color: #dde; background: #14171c } td { border-color: #252a33 } th { border-color: #3a4250 }
  .good { color: #6fcf97 } .bad { color: #ff8a80 } .open { color: #ffca66 } }
"""

_COLUMNS = ("table", "rows", "chunks", "candidates", "resolved", "missing", "extra", "different", "unverified", "seconds")  # fmt: skip


def page(outcome: Outcome, *, mask: bool) -> str:
    """Return the report; with `mask`, findings name columns and not their values."""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>cdc-verify {outcome.at:%Y-%m-%d %H:%M}</title><style>{_STYLE}</style>",
            f"<h1>Replicas against the primary, as of {escape(lsns.show(outcome.lsn))}</h1>",
            f"<p>{outcome.at:%Y-%m-%d %H:%M:%S} UTC, {outcome.seconds:.1f} s</p>",
            *(_claim(outcome, name) for name in outcome.replicas),
            *(line for name in outcome.replicas for line in _tables(outcome.of(name))),
            *_findings(outcome.findings, mask=mask),
            "</html>",
        ]
    )


def _claim(outcome: Outcome, name: str) -> str:
    code = outcome.of(name).exit_code
    kind = {0: "good", 1: "bad"}.get(code, "open")
    return f'<p class="{kind}"><strong>{escape(outcome.claim(name))}</strong></p>'


def _tables(outcome: Outcome) -> Iterator[str]:
    if not outcome.results:
        return
    yield f"<h2>{escape(outcome.replicas[0])}</h2><table>"
    yield "<tr>" + "".join(f"<th>{name}</th>" for name in _COLUMNS) + "</tr>"
    for result in outcome.results:
        kind = "good" if result.proven else "bad" if result.differs else "open"
        cells = "".join(f"<td>{text}</td>" for text in _numbers(result))
        yield f'<tr><td class="{kind}">{escape(str(result.table))}</td>{cells}</tr>'
    yield "</table>"
    for result in outcome.results:
        remarks = [m.what for m in result.mismatches] + [u.reason for u in result.undecided]
        for remark in [*remarks, *result.left, *filter(None, [result.trouble])]:
            yield f'<p class="open">{escape(str(result.table))}: {escape(remark)}</p>'


def _numbers(result: TableResult) -> Iterator[str]:
    for number in (
        result.rows, result.chunks, result.candidates, result.resolved, result.missing,
        result.extra, result.different, result.unverified,
    ):  # fmt: skip
        yield f"{number:,}"
    yield f"{result.seconds:.1f}"


def _findings(findings: list[Finding], *, mask: bool) -> Iterator[str]:
    if not findings:
        return
    yield f"<h2>{len(findings):,} rows that differ</h2><table class=text>"
    yield "<tr><th>replica</th><th>table</th><th>kind</th><th>key</th><th>columns</th></tr>"
    for finding in findings[:_SHOWN]:
        key = ", ".join(f"{name}={_value(value)}" for name, value in finding.key.items())
        columns = "; ".join(
            name if mask else f"{name}: {_value(ours)} → {_value(theirs)}"
            for name, (ours, theirs) in finding.columns.items()
        )
        cells = (finding.replica, str(finding.table), finding.kind, key, columns)
        yield "<tr>" + "".join(f"<td><code>{escape(cell)}</code></td>" for cell in cells) + "</tr>"
    yield "</table>"
    if len(findings) > _SHOWN:
        yield f"<p>and {len(findings) - _SHOWN:,} more</p>"


def _value(value: str | None, most: int = 80) -> str:
    if value is None:
        return "NULL"
    return repr(value if len(value) <= most else value[:most] + "…")
