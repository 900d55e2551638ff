"""The front between structure and meaning as an SVG drawing, which is readable on a light and on a dark page."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 760.0, 420.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 290.0, 16.0, 50.0
# Settings of the guided refiner along which its marks are joined by a line.
ALONG = ("step_size", "candidates")
_STYLE = (
    "svg{--paper:#fff;--ink:#222;--faint:#bbb;--ours:#0b62a8;--other:#b4530a}"
    "@media(prefers-color-scheme:dark){svg{--paper:#16191d;--ink:#e6e6e6;--faint:#555c66;--ours:#6cb4f0;--other:#f0a060}}"
    "text{font:12px sans-serif;fill:var(--ink)}.paper{fill:var(--paper)}.axis{stroke:var(--ink);stroke-width:1}"
    ".grid{stroke:var(--faint);stroke-width:.6}.zero{stroke:var(--ink);stroke-width:1;stroke-dasharray:2 3}"
    ".ours{stroke:var(--ours);fill:var(--ours)}.other{stroke:var(--other);fill:var(--other)}"
    ".bar{stroke-width:1.2;opacity:.6}.line{fill:none;stroke-width:1.5;stroke-dasharray:5 3}"
    ".number{stroke:none;font-weight:bold}"
)

Interval = tuple[float, float, float]
"""Value, lower and upper end."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One refiner: its label, where it is with the interval in both directions, and its settings as JSON values."""

    label: str
    x: Interval
    y: Interval
    settings: Mapping[str, Any]

    @property
    def is_ours(self) -> bool:
        """Whether steps are guided, and by the gradient through the UNet."""
        given = self.settings
        return given.get("refiner") == "guided" and bool(given.get("jacobian")) and given.get("step_size", 0) > 0


@dataclass(frozen=True)
class _Axis:
    """A linear scale from values to pixels, with round numbers to write at it."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        step = _round_step((self.high - self.low) / 6)
        return [k * step for k in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def front(marks: Sequence[Mark], *, x: str, y: str) -> str:
    """Draw marks with the intervals as bars, numbered, and their names beside the plot.

    Parameters
    ----------
    marks
        One or more.
    x, y
        What the axes are called.
    """
    across = _axis([value for mark in marks for value in mark.x], LEFT, WIDTH - RIGHT)
    down = _axis([value for mark in marks for value in mark.y], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" '
        f'aria-label="{escape(f"{x} against {y}")}"><style>{_STYLE}</style>',
        f'<rect class="paper" width="{WIDTH:.0f}" height="{HEIGHT:.0f}"/>',
        *_frame(across, down, x, y),
    ]
    for line in lines(marks):
        points = " ".join(f"{across(mark.x[0]):.1f},{down(mark.y[0]):.1f}" for mark in line)
        parts.append(f'<polyline class="line ours" style="fill:none" points="{points}"/>')
    for number, mark in enumerate(marks, 1):
        parts += _mark(mark, number, across, down)
        parts.append(_entry(mark, number))
    return "\n".join([*parts, "</svg>"]) + "\n"


def lines(marks: Sequence[Mark]) -> list[list[Mark]]:
    """Marks of the guided refiner that differ in one setting alone, in that setting's order."""
    found = []
    for setting in ALONG:
        alike: dict[str, list[Mark]] = defaultdict(list)
        for mark in marks:
            if mark.is_ours and mark.settings[setting] is not None:
                others = {name: value for name, value in mark.settings.items() if name != setting}
                alike[json.dumps(others, sort_keys=True)].append(mark)
        for group in alike.values():
            if len(group) > 1:
                found.append(sorted(group, key=lambda mark: float(mark.settings[setting])))
    return found


def _frame(across: _Axis, down: _Axis, x: str, y: str) -> list[str]:
    """Grid, zero lines, ticks and titles."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in across.ticks():
        place, kind = across(value), "zero" if value == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{place:.1f}" y1="{TOP}" x2="{place:.1f}" y2="{bottom}"/>')
        parts.append(f'<text x="{place:.1f}" y="{bottom + 16}" text-anchor="middle">{_number(value)}</text>')
    for value in down.ticks():
        place, kind = down(value), "zero" if value == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{LEFT}" y1="{place:.1f}" x2="{right}" y2="{place:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    middle_x, middle_y = (LEFT + right) / 2, (TOP + bottom) / 2
    return [
        *parts,
        f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>',
        f'<line class="axis" x1="{LEFT}" y1="{TOP}" x2="{LEFT}" y2="{bottom}"/>',
        f'<text x="{middle_x:.1f}" y="{HEIGHT - 14}" text-anchor="middle">{escape(x)}</text>',
        f'<text transform="translate(15 {middle_y:.1f}) rotate(-90)" text-anchor="middle">{escape(y)}</text>',
    ]


def _mark(mark: Mark, number: int, across: _Axis, down: _Axis) -> list[str]:
    kind = "ours" if mark.is_ours else "other"
    (x, left, right), (y, low, high) = (map(across, mark.x), map(down, mark.y))
    shape = (
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
        if mark.is_ours
        else f'<rect class="{kind}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    )
    return [
        f'<line class="bar {kind}" x1="{left:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}"/>',
        f'<line class="bar {kind}" x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}"/>',
        shape,
        f'<text class="number" x="{x + 7:.1f}" y="{y - 7:.1f}">{number}</text>',
    ]


def _entry(mark: Mark, number: int) -> str:
    kind = "ours" if mark.is_ours else "other"
    at = TOP + 4 + 19 * number
    left = WIDTH - RIGHT + 22
    return f'<text x="{left}" y="{at}"><tspan class="number {kind}">{number}</tspan> {escape(mark.label)}</text>'


def _axis(values: Sequence[float], start: float, end: float) -> _Axis:
    """With zero in it, and some room at both ends."""
    low, high = min(0.0, *values), max(0.0, *values)
    room = 0.06 * ((high - low) or 1.0)
    return _Axis(low - room, high + room, start, end)


def _round_step(wanted: float) -> float:
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= wanted)


def _number(value: float) -> str:
    return f"{value:+.2f}" if round(value, 9) else "0"
