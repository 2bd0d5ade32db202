"""docs/performance.md, written from what was measured."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aims
import applied
import carried
import growing

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench/results"

#: Keys of a result's runs.
CONTESTANTS = ("default", "max_cpu_50", "reladiff")

_NAMES = {
    "by_bigint": "bigint key",
    "by_uuid": "uuid key",
    "no_key": "no key",
}

_TITLE = """# How fast it is

Written by `make bench`, `make bench-quick`, `make bench-road`, `make bench-growth` and `make bench-verify`; what was
measured is in `bench/results/`, run by run.

"""

_HEAD = """## cdc-verify

Against reladiff {reladiff}, which also compares by checksums of key ranges, and mends nothing: the same tables of
the same two servers. Seconds, median of {least} to {runs} runs, taken by turns; in brackets
the fastest and the slowest. "Processor" is the time that the primary's server used, in seconds and, for
the defaults, of the run: `cdc-verify` takes one core at most by default, and rests between ranges where it is told to
take less; reladiff takes what it gets.

| {rows:,} rows | differ | caches | cdc-verify | processor | with `--max-cpu 50` | processor | reladiff | processor |
|---|---:|---|---:|---:|---:|---:|---:|---:|
"""

_TAIL = """
- **Machine** ({date}): {processor}, {memory}; both servers, the broker, the daemon and the programs run on it.
  PostgreSQL {postgresql}, shared_buffers {shared_buffers}, Python {python}, {system}.
- **Tables**: 13 columns (int, text, numeric, char, two timestamptz, text with NULLs, jsonb, boolean, uuid,
  float8, text[]), about 240 bytes a row; only the key is another. {differing}
- **Caches**: warm is what the runs before left. Cold: before each run both servers' shared buffers were
  filled with another table and Linux dropped its page cache.
- **Processor**: all processes of the primary's server, from the start of the program to its end.
- **reladiff** had the best of {tried} settings for each table, tried warm before, and given up after twice
  the best one's time: threads, bisection factor and threshold were {best}. Besides `--skip-sort-results`, and `--assume-unique-key` where there is a key. It needs
  a column to divide a table by: for the one without key it was given `id`, which has no index; without such a
  column it cannot compare one.
- **Load** of the machine just before a run (its average over a minute, the run before included): median {load:.1f},
  at most {worst:.1f}.
- Both read everything: each row's every column. reladiff compares floats to 13 decimals, and knows no
  positions: what is written meanwhile it takes for differences, so nothing was written here.
"""


_DIFFERING = """What differs has a trailing space more in
  one column, each thousandth row, so that no part of a table is without."""


def write() -> None:
    """Write the document and its picture anew from all results."""
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")


def files() -> dict[Path, str]:
    """Return what is written: a part for each result that is there, and the picture."""
    docs, found = ROOT / "docs", {path.stem: path for path in RESULTS.glob("*.json")}
    told = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in found.items()}
    written, parts = {}, [_TITLE, aims.section(told), "\n"]
    if "apply" in told:
        parts += [applied.section(told["apply"]), "\n"]
        written[docs / "apply.svg"] = applied.picture(told["apply"])
    if "road" in told:
        parts += [carried.section(told["road"]), "\n"]
    if "growth" in told:
        parts += [growing.section(told["growth"]), "\n"]
    if "verify" in told:
        parts.append(_verify(told["verify"]))
    return {**written, docs / "performance.md": "".join(parts)}


def _verify(told: Mapping[str, Any]) -> str:
    """Return the part about cdc-verify."""
    results = sorted(  # a table may have been measured again by itself
        told["results"], key=lambda r: (r["differing"], [*_NAMES].index(r["table"]), r["cold"])
    )
    used = sorted({tuple(result["reladiff_settings"]) for result in results})
    loads = [
        run["load"] for result in results for name in CONTESTANTS for run in result.get(name, ())
    ]
    head = _HEAD.format(
        reladiff=told["machine"]["reladiff"],
        runs=max(len(result["default"]) for result in results),
        least=min(len(result["default"]) for result in results),
        rows=told["rows"],
    )
    tail = _TAIL.format(
        tried=len({tuple(one["settings"]) for one in told["reladiff_tried"]}),
        best=" or ".join(", ".join(map(str, settings)) for settings in used),
        differing=_DIFFERING
        if any(result["differing"] for result in results)
        else "All rows are equal.",
        load=statistics.median(loads),
        worst=max(loads),
        **told["machine"],
    )
    return head + "\n".join(map(line, results)) + "\n" + tail


def line(result: Mapping[str, Any]) -> str:
    """Return a result as a row of the table."""
    share = statistics.median(run["primary_cpu"] / run["seconds"] for run in result["default"])
    cells = [
        _NAMES[result["table"]],
        f"{result['differing']:,}",
        "cold" if result["cold"] else "warm",
    ]
    for name in CONTESTANTS:
        cells += _shown(result.get(name))
    cells[4] += f", {share:.0%}"
    return f"| {' | '.join(cells)} |"


def _shown(runs: list[dict[str, Any]] | None) -> tuple[str, str]:
    """Return the seconds of some runs, and those of the primary's processor."""
    if runs is None:
        return "", ""
    seconds = [run["seconds"] for run in runs]
    used = statistics.median(run["primary_cpu"] for run in runs)
    spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
    return f"{statistics.median(seconds):.1f} ({spread})", f"{used:.1f}"
