"""The report as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from cdc import lsn as lsns
from cdc.progress import span
from cdc.verify.findings import Finding, TableResult
from cdc.verify.outcome import Outcome, count

#: Findings shown; all of them are in the file that --findings writes.
_SHOWN = 1000

_STYLE = """
:root { --ink: #1d2430; --dim: #9aa3b2; --line: #e3e7ef; --paper: #fff; --soft: #f6f7fa;
        --good: #176b3a; --bad: #a8221c; --open: #8a5a00 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dde2ea; --dim: #667085; --line: #2a303b; --paper: #14171c; --soft: #1b1f27;
          --good: #6fcf97; --bad: #ff8a80; --open: #ffca66 } }
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem;
       color: var(--ink); background: var(--paper) }
h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem }
.dim { color: var(--dim) } .good { color: var(--good) } .bad { color: var(--bad) } .open { color: var(--open) }
.claim { background: var(--soft); border-left: 4px solid; padding: .5rem .9rem; margin: .6rem 0 }
.claim span { color: var(--ink) } .claim strong { margin-right: .5rem }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { padding: .25rem .5rem; text-align: right; border-bottom: 1px solid var(--line);
         font-variant-numeric: tabular-nums; vertical-align: top }
th { font-weight: 600; border-bottom-width: 2px; vertical-align: bottom }
td:first-child, th:first-child, .text td, .text th { text-align: left }
td i { display: inline-block; width: 1.2rem; font-style: normal; font-weight: 600 } ul { padding-left: 1.2rem; margin: .6rem 0 }
code { font: .87em/1.45 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere }
.text td { white-space: nowrap } .text td.value { white-space: normal; min-width: 12rem }
"""

_COLUMNS = (
    "table", "rows", "chunks", "candidates", "in flight", "missing", "extra", "different",
    "undecided", "seconds", "rows/s",
)  # fmt: skip

#: What an exit code is called, and how it looks.
_VERDICTS = {
    0: ("equal", "good"),
    1: ("differs", "bad"),
    2: ("not all was read", "open"),
    3: ("not all was decided", "open"),
}


def page(outcome: Outcome, *, mask: bool) -> str:
    """Return the report; with `mask`, findings name columns and not their values."""
    at = f"{outcome.at:%Y-%m-%d %H:%M:%S} UTC"
    return "\n".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>cdc-verify {at}</title><style>{_STYLE}</style>",
            f"<h1>{count(len(outcome.replicas), 'replica')} against the primary</h1>",
            (
                f'<p class="dim">as of {at}, LSN {escape(lsns.show(outcome.lsn))} · '
                f"{count(len(outcome.layouts), 'table')} compared in {span(outcome.seconds)} · "
                f"rows hashed by {outcome.hash}</p>"
            ),
            *(_claim(outcome, name) for name in outcome.replicas),
            *(line for name in outcome.replicas for line in _tables(outcome.of(name))),
            *_findings(outcome.findings, mask=mask),
            "</html>",
        ]
    )


def _claim(outcome: Outcome, name: str) -> str:
    verdict, kind = _VERDICTS[outcome.of(name).exit_code]
    said = escape(outcome.claim(name).removeprefix(f"{name}: "))
    return (
        f'<p class="claim {kind}"><strong>{escape(name)} {verdict}</strong> <span>{said}</span></p>'
    )


def _tables(outcome: Outcome) -> Iterator[str]:
    if not outcome.results:
        return
    yield f"<h2>{escape(outcome.replicas[0])}</h2>"
    yield '<div class="wide"><table>'
    yield "<tr>" + "".join(f"<th>{name}</th>" for name in _COLUMNS) + "</tr>"
    for result in outcome.results:
        kind, mark = _mark(result)
        name = f'<td class="{kind}"><i>{mark}</i>{escape(str(result.table))}</td>'
        yield f"<tr>{name}{''.join(_numbers(result))}</tr>"
    yield "</table></div>"
    if remarks := [remark for result in outcome.results for remark in _remarks(result)]:
        yield f"<ul>{''.join(remarks)}</ul>"


def _mark(result: TableResult) -> tuple[str, str]:
    if result.differs:
        return "bad", "≠"
    return ("good", "=") if result.proven else ("open", "?")


def _numbers(result: TableResult) -> Iterator[str]:
    for number in (result.rows, result.chunks, result.candidates, result.resolved):
        yield _cell(number)
    for number in (result.missing, result.extra, result.different):
        yield _cell(number, "bad")
    yield _cell(result.unverified, "open")
    yield f"<td>{result.seconds:.1f}</td>"
    yield _cell(round(result.rows / result.seconds) if result.seconds else 0)


def _cell(number: int, kind: str = "") -> str:
    return f'<td class="{kind if number else "dim"}">{number:,}</td>'


def _remarks(result: TableResult) -> Iterator[str]:
    table = escape(str(result.table))
    if result.trouble:
        yield f'<li class="open">{table}: {escape(result.trouble)}</li>'
    for mismatch in result.mismatches:
        kind = "dim" if mismatch.weight == "note" else "bad"
        yield (
            f'<li class="{kind}">{table}: {escape(mismatch.what)}<br>'
            f"<code>{escape(mismatch.mend)}</code></li>"
        )
    for undecided in result.undecided:
        rows = f"{count(len(undecided.keys), 'row')}: " if undecided.keys else ""
        yield f'<li class="open">{table}: {rows}{escape(undecided.reason)}</li>'
    for left in result.left:
        yield f'<li class="open">{table}: not all was mended: {escape(left)}</li>'


def _findings(findings: list[Finding], *, mask: bool) -> Iterator[str]:
    if not findings:
        return
    yield f"<h2>{count(len(findings), 'row')} found to differ</h2>"
    yield '<div class="wide"><table class="text">'
    values = "" if mask else "<th>on the primary</th><th>on the replica</th>"
    yield f"<tr><th>replica</th><th>table</th><th>kind</th><th>key</th><th>column</th>{values}</tr>"
    for finding in findings[:_SHOWN]:
        yield from _finding(finding, mask=mask)
    yield "</table></div>"
    if len(findings) > _SHOWN:
        yield f"<p>and {len(findings) - _SHOWN:,} more: --findings writes all</p>"


def _finding(finding: Finding, *, mask: bool) -> Iterator[str]:
    """Yield one row per column that differs; the first one names the row."""
    key = ", ".join(
        name if mask and not finding.keyed else f"{name} = {_value(value)}"
        for name, value in finding.key.items()
    )
    kind = finding.kind + (f" ({finding.count:,} times)" if finding.count > 1 else "")
    about = [finding.replica, str(finding.table), kind, key]
    columns = finding.columns if finding.kind == "different" else {}
    for name, (ours, theirs) in (columns or {"": (None, None)}).items():
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in about[:3])
        cells += f'<td class="value"><code>{escape(about[3])}</code></td><td>{escape(name)}</td>'
        if not mask:
            cells += "".join(
                f'<td class="value"><code>{escape(_value(v)) if name else ""}</code></td>'
                for v in (ours, theirs)
            )
        yield f"<tr>{cells}</tr>"
        about = ["", "", "", ""]


def _value(value: str | None, most: int = 80) -> str:
    if value is None:
        return "NULL"
    return repr(value if len(value) <= most else value[:most] + "…")
