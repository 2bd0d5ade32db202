"""A bar chart as SVG, the same for the same figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_COLOURS = ("#1f6feb", "#57606a", "#bf8700", "#d4a72c")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 760, 300, 44, 34, 26


def bars(title: str, groups: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """Return a group of bars, one of each series, for each of `groups`."""
    most = max(max(values) for values in series.values())
    step = _step(most)
    top = step * -(-most // step)
    room, high = (_WIDTH - _LEFT) / len(groups), _HEIGHT - _TOP - _BOTTOM
    wide = room * 0.8 / len(series)

    def y(value: float) -> float:
        return _TOP + high * (1 - value / top)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}">',
        "<style>text { font: 12px sans-serif }</style>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="4" y="14">{title}</text>',
    ]
    for number, name in enumerate(series):
        x = _LEFT + 180 + number * 130
        parts.append(f'<rect x="{x}" y="5" width="10" height="10" fill="{_COLOURS[number]}"/>')
        parts.append(f'<text x="{x + 14}" y="14">{name}</text>')
    for mark in range(int(top // step) + 1):
        at = y(mark * step)
        parts.append(f'<path d="M{_LEFT} {at:.1f}H{_WIDTH}" stroke="#d0d7de"/>')
        parts.append(
            f'<text x="{_LEFT - 4}" y="{at + 4:.1f}" text-anchor="end">{mark * step:g}</text>'
        )
    for place, group in enumerate(groups):
        left = _LEFT + room * (place + 0.1)
        for number, values in enumerate(series.values()):
            parts.append(
                f'<rect x="{left + number * wide:.1f}" y="{y(values[place]):.1f}" width="{wide:.1f}" '
                f'height="{_TOP + high - y(values[place]):.1f}" fill="{_COLOURS[number]}"/>'
            )
        middle = left + room * 0.4
        parts.append(
            f'<text x="{middle:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{group}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _step(most: float) -> float:
    """Return a round distance of marks, of which four to ten reach `most`."""
    step = 1.0
    while most / step > 10:
        step *= 2.5 if str(step).startswith("2") else 2
    return step
