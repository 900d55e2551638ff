"""Small inline SVG drawings: a loss curve, and differences with their intervals. Colours come from the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One row of a ladder.

    Attributes
    ----------
    label
    value
        None where the row is missing.
    interval, wider : (low, high), optional
        The interval over pictures, and the one over seeds too.
    form
        "result" is a filled dot, "end" a bar (floor and ceiling), "rung" a hollow square.
    """

    label: str
    value: float | None
    interval: tuple[float, float] | None = None
    wider: tuple[float, float] | None = None
    form: str = "rung"


def span_of(marks: Iterable[Mark]) -> tuple[float, float] | None:
    """The smallest axis that holds every mark with its intervals; None where there is none."""
    numbers = [number for mark in marks if mark.value is not None for number in _numbers(mark)]
    return (min(numbers), max(numbers)) if numbers and math.isfinite(sum(numbers)) else None


def ladder(marks: Sequence[Mark], span: tuple[float, float], title: str, *, lower_is_better: bool = False) -> str:
    """Rungs below each other on one axis, better to the right, with dotted lines at floor and ceiling.

    Parameters
    ----------
    marks
        From the floor to the ceiling.
    span
        The ends of the axis, lowest first; drawings that are to be compared have the same.
    title
        Plain text that a screen reader says instead of the drawing.
    lower_is_better
        Whether the axis runs from high to low.
    """
    width, left, right, line, top = 330.0, 137.0, 44.0, 22.0, 4.0
    bottom = top + line * len(marks)
    height = bottom + 17
    low, high = reversed(span) if lower_is_better else span
    scale = (width - left - right) / ((high - low) or 1.0)

    def place(value: float) -> float:
        return left + (value - low) * scale

    parts = [
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">',
        f'<line class="axis" x1="{left}" y1="{bottom:.1f}" x2="{width - right}" y2="{bottom:.1f}"/>',
        f'<text x="{left}" y="{height - 4:.1f}">{number_text(low)}</text>',
        f'<text x="{width - right}" y="{height - 4:.1f}" text-anchor="end">{number_text(high)} · better →</text>',
    ]
    for mark in marks:
        if mark.form == "end" and mark.value is not None:
            x = place(mark.value)
            parts.append(f'<line class="zero" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom:.1f}"/>')
    for index, mark in enumerate(marks):
        parts.append(_rung(mark, top + line * (index + 0.5), place, width))
    return "".join(parts) + "</svg>"


def _rung(mark: Mark, y: float, place: Callable[[float], float], width: float) -> str:
    main = " main" if mark.form == "result" else ""
    parts = [f'<text class="name{main}" x="0" y="{y + 4:.1f}">{escape(mark.label)}</text>']
    if mark.value is None:
        return "".join(parts) + f'<text class="none" x="{width}" y="{y + 4:.1f}" text-anchor="end">missing</text>'
    for kind, bounds in (("wider", mark.wider), ("span" + main, mark.interval)):
        if bounds is not None:
            ends = sorted(map(place, bounds))
            parts.append(f'<line class="{kind}" x1="{ends[0]:.1f}" y1="{y}" x2="{ends[1]:.1f}" y2="{y}"/>')
    x = place(mark.value)
    drawn = {
        "result": f'<circle class="dot" cx="{x:.1f}" cy="{y}" r="5"/>',
        "end": f'<rect class="end" x="{x - 1.75:.1f}" y="{y - 6}" width="3.5" height="12"/>',
    }.get(mark.form, f'<rect class="hollow" x="{x - 4:.1f}" y="{y - 4}" width="8" height="8"/>')
    number = f'<text class="value{main}" x="{width}" y="{y + 4:.1f}" text-anchor="end">{number_text(mark.value)}</text>'
    return "".join(parts) + drawn + number


def _numbers(mark: Mark) -> list[float]:
    assert mark.value is not None
    return [mark.value, *(mark.interval or ()), *(mark.wider or ())]


def short(value: float) -> str:
    """A number with three digits and a true minus sign."""
    return f"{value:.3g}".replace("-", "−")
