"""Small inline SVG drawings: a loss curve, and differences with their intervals. Colours come from the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from .refiners import RefinerWords
from .words import number_text

Row = tuple[str, float, float | None, float | None]


def loss_curve(loss: Sequence[float], best_step: int | None, title: str, words: RefinerWords) -> str:
    """The loss over a refinement as a line, with a dot at the picture that was kept.

    Parameters
    ----------
    loss
        Finite values; an empty string is drawn for fewer than two.
    best_step
        Index of the loss of the picture that was kept.
    title
        Plain text that a screen reader says instead of the drawing.
    words
        Of the refiner.
    """
    if len(loss) < 2:
        return ""
    width, height, left, top, bottom = 460.0, 96.0, 4.0, 18.0, 17.0
    low, high = min(loss), max(loss)
    if not math.isfinite(high - low):
        return ""
    scale = (height - top - bottom) / (high - low) if high > low else 0.0
    step = (width - 2 * left) / (len(loss) - 1)

    def place(index: int) -> tuple[float, float]:
        return left + index * step, top + (high - loss[index]) * scale

    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, range(len(loss))))
    parts = [
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">',
        f'<line class="axis" x1="{left}" y1="{height - bottom}" x2="{width - left}" y2="{height - bottom}"/>',
        f'<polyline class="line" points="{points}"/>',
        f'<text x="{left}" y="11">loss {short(loss[0])}</text>',
        f'<text x="{left}" y="{height - 3}">0</text>',
        f'<text x="{width - left}" y="{height - 3}" text-anchor="end">{words.length(len(loss))}</text>',
    ]
    if best_step is not None:
        x, y = place(best_step)
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
        text = f"kept {short(loss[best_step])}, {words.point} {best_step}"
        parts.append(f'<text class="value" x="{width - left}" y="11" text-anchor="end">{text}</text>')
    return "".join(parts) + "</svg>"


def intervals(rows: Sequence[Row], title: str) -> str:
    """Differences as marks on one axis with a dotted zero, each with its interval and number.

    Parameters
    ----------
    rows
        (label, difference, low, high); the first row is drawn filled, the others hollow: shape, not colour alone.
    title
        Plain text that a screen reader says instead of the drawing.
    """
    if not rows:
        return ""
    width, left, right, line = 310.0, 98.0, 54.0, 22.0
    height = line * len(rows) + 10
    numbers = [0.0] + [value for row in rows for value in row[1:] if value is not None]
    low, high = min(numbers), max(numbers)
    span = (high - low) or 1.0
    if not math.isfinite(span):
        return ""

    def place(value: float) -> float:
        return left + (value - low) / span * (width - left - right)

    zero = place(0.0)
    parts = [
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">',
        f'<line class="zero" x1="{zero:.1f}" y1="4" x2="{zero:.1f}" y2="{height - 6:.1f}"/>',
    ]
    for index, (label, value, lowest, highest) in enumerate(rows):
        y, main = 5 + line * (index + 0.5), index == 0
        parts.append(f'<text x="0" y="{y + 4:.1f}">{escape(label)}</text>')
        if lowest is not None and highest is not None:
            kind = "span main" if main else "span"
            parts.append(f'<line class="{kind}" x1="{place(lowest):.1f}" y1="{y}" x2="{place(highest):.1f}" y2="{y}"/>')
        x = place(value)
        mark = f'<circle class="dot" cx="{x:.1f}" cy="{y}" r="4.5"/>'
        if not main:
            mark = f'<rect class="hollow" x="{x - 4:.1f}" y="{y - 4}" width="8" height="8"/>'
        parts.append(mark + f'<text class="value" x="{width}" y="{y + 4:.1f}" text-anchor="end">')
        parts.append(f"{number_text(value, signed=True)}</text>")
    return "".join(parts) + "</svg>"


def short(value: float) -> str:
    """A number with three digits and a true minus sign."""
    return f"{value:.3g}".replace("-", "−")
