"""Samples of the lag drawn: as a line of characters, or as a picture (extra `plot`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cdc import samples
from cdc.errors import InstallationError
from cdc.samples import Sample

_BARS = "▁▂▃▄▅▆▇█"


def sparkline(found: Sequence[Sample], now: float, span: float, width: int) -> str:
    """Return the greatest lag of each stretch of the last `span` seconds; a gap is a dot.

    The highest bar is the greatest lag, or a second where all is below.
    """
    peaks: list[float | None] = [None] * width
    for sample in found:
        place = int((sample.at - now + span) / span * width)
        if sample.seconds is not None and 0 <= place < width:
            peaks[place] = max(peaks[place] or 0.0, sample.seconds)
    top = max([1.0, *(peak for peak in peaks if peak is not None)])
    return "".join(
        "·" if peak is None else _BARS[min(len(_BARS) - 1, int(peak / top * len(_BARS)))]
        for peak in peaks
    )


def png(file: Path, replica: str, found: Sequence[Sample], target: float, warn: float) -> None:
    """Draw the samples into `file`: the lag over time, gaps left open, the two limits.

    Raises InstallationError without matplotlib.
    """
    try:
        from matplotlib import dates  # noqa: PLC0415 -- an optional extra, for this picture alone
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 -- as above
        from matplotlib.figure import Figure  # noqa: PLC0415 -- as above
    except ImportError:
        raise InstallationError(
            "drawing a picture needs matplotlib, which is not installed",
            safe="nothing was written",
            next="pip install 'cdc-replica[plot]', or take --csv",
        ) from None
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()

    def day(at: float) -> float:
        return float(dates.date2num(datetime.fromtimestamp(at, UTC)))  # type: ignore[no-untyped-call]  # matplotlib types it in part

    for run in samples.runs(found):
        days, lags = [day(s.at) for s in run], [s.seconds or 0.0 for s in run]
        axes.plot(days, lags, ".-" if len(run) == 1 else "-", color="tab:blue", linewidth=1.2)
        axes.fill_between(days, lags, color="tab:blue", alpha=0.15)
    top = max([1.0, *(s.seconds or 0.0 for s in found)])
    for limit, name, color in ((warn, "warn", "tab:orange"), (target, "target", "tab:red")):
        if top > limit / 2:
            top = max(top, limit)
            axes.axhline(limit, color=color, linestyle="--", linewidth=1, label=name)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left")
    if len(found) > 1:
        axes.set_xlim(day(found[0].at), day(found[-1].at))
    axes.set_ylim(bottom=0, top=top * 1.1)
    axes.set_title(f"{replica}: seconds behind the primary (UTC; a gap: not known)")
    axes.grid(visible=True, alpha=0.3)
    locator = dates.AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call]  # as above
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]  # as above
    figure.savefig(file, dpi=120)
