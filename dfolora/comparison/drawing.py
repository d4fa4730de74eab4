"""Curves as SVG, made by ourselves: no script, no font, no request."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from dfolora.comparison.curves import Line

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 420, 260, 52, 36, 10, 24


def picture(title: str, unit: str, lines: Sequence[tuple[int, str, Line]]) -> str:
    """An SVG element.

    Args:
        title: what is drawn, for those who cannot see it.
        unit: of the x axis.
        lines: for each method its colour (0, 1, ...), its label and its curve; ``x`` from 0 upwards.
    """
    right = max(float(line.x[-1]) for _, _, line in lines) or 1.0
    low = min(float((line.mean - line.sd).min()) for _, _, line in lines)
    high = max(float((line.mean + line.sd).max()) for _, _, line in lines)
    ticks_y, ticks_x = ticks(low, high), ticks(0.0, right)
    low, high, right = min(low, ticks_y[0]), max(high, ticks_y[-1]), max(right, ticks_x[-1])

    def x(value: float) -> str:
        return f"{LEFT + (WIDTH - LEFT - RIGHT) * value / right:.1f}"

    def y(value: float) -> str:
        return f"{HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - low) / (high - low):.1f}"

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title, quote=True)}">']
    for value in ticks_y:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value)}" y2="{y(value)}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value)}" dy=".32em" text-anchor="end">{short(value)}</text>')
    for value in ticks_x:
        parts.append(f'<text x="{x(value)}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{short(value)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{html.escape(unit)}</text>')
    for colour, label, line in lines:
        upper = [f"{x(a)},{y(b + s)}" for a, b, s in zip(line.x, line.mean, line.sd, strict=True)]
        lower = [f"{x(a)},{y(b - s)}" for a, b, s in zip(line.x, line.mean, line.sd, strict=True)]
        middle_of = " ".join(f"{x(a)},{y(b)}" for a, b in zip(line.x, line.mean, strict=True))
        name = f"<title>{html.escape(label)}</title>"
        parts.append(f'<polygon class="band c{colour % 8}" points="{" ".join(upper + lower[::-1])}"/>')
        parts.append(f'<polyline class="curve c{colour % 8}" points="{middle_of}">{name}</polyline>')
    return "".join([*parts, "</svg>"])


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from below ``low`` to above ``high``, about five of them."""
    if not high > low:
        low, high = low - 0.5, low + 0.5
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (step * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * index for index in range(first, last + 1)]


def short(value: float) -> str:
    """A number with as few signs as it needs."""
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.3g}".replace("e+0", "e").replace("e-0", "e-")
    return f"{value:.6g}"
