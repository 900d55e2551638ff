"""The twenty-four things that the tiny world can show, as polygons in unit coordinates.

A shape lives in the square [-1, 1] x [-1, 1], y downwards, and is a list of parts drawn in order.
Ellipses become polygons at once, so that one affine map moves, turns and mirrors everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Tone = Literal["main", "dark", "light", "line"]


@dataclass(frozen=True)
class Part:
    """A filled polygon: `points` (n_points, 2) in unit coordinates, and which tone of the colour fills it."""

    points: NDArray[np.float64]
    tone: Tone = "main"


def polygon(*xy: float, tone: Tone = "main") -> Part:
    return Part(np.array(xy, dtype=np.float64).reshape(-1, 2), tone)


def box(x0: float, y0: float, x1: float, y1: float, tone: Tone = "main") -> Part:
    return polygon(x0, y0, x1, y0, x1, y1, x0, y1, tone=tone)


def disk(x: float, y: float, rx: float, ry: float | None = None, tone: Tone = "main", turn: float = 0.0) -> Part:
    """An ellipse centred at (x, y), turned by `turn` radians."""
    return arc(x, y, rx, rx if ry is None else ry, 0.0, 2 * np.pi, tone=tone, turn=turn)


def arc(
    x: float, y: float, rx: float, ry: float, start: float, stop: float, tone: Tone = "main", turn: float = 0.0
) -> Part:
    """A slice of an ellipse cut by its chord, from angle `start` to `stop` (radians, clockwise on screen)."""
    angle = np.linspace(start, stop, 25)
    px, py = rx * np.cos(angle), ry * np.sin(angle)
    c, s = np.cos(turn), np.sin(turn)
    return Part(np.stack([x + c * px - s * py, y + s * px + c * py], axis=1), tone)


def _star() -> Part:
    angle = -np.pi / 2 + np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return Part(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1))


def _heart() -> Part:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return Part(np.stack([x / 17, y / 17], axis=1))


def _moon() -> Part:
    outer = np.linspace(np.pi * 0.30, np.pi * 1.70, 30)
    inner = np.linspace(np.pi * 1.62, np.pi * 0.38, 30)
    return Part(
        np.concatenate(
            [
                np.stack([0.15 + 0.95 * np.cos(outer), 0.95 * np.sin(outer)], axis=1),
                np.stack([0.50 + 0.80 * np.cos(inner), 0.80 * np.sin(inner)], axis=1),
            ]
        )
    )


SHAPES: dict[str, list[Part]] = {
    "house": [
        box(0.35, -0.85, 0.6, -0.2, "dark"),
        box(-0.7, -0.05, 0.7, 0.9),
        polygon(-0.98, 0.02, 0, -0.95, 0.98, 0.02, tone="dark"),
        box(-0.5, 0.3, -0.1, 0.9, "line"),
        box(0.15, 0.2, 0.5, 0.55, "light"),
    ],
    "tree": [
        box(-0.16, 0.3, 0.16, 0.98, "dark"),
        polygon(-0.8, 0.55, 0, -0.3, 0.8, 0.55),
        polygon(-0.62, 0.1, 0, -0.98, 0.62, 0.1),
    ],
    "fish": [
        polygon(0.4, 0, 0.98, -0.5, 0.85, 0, 0.98, 0.5),
        polygon(-0.2, -0.35, 0.15, -0.75, 0.3, -0.3, tone="dark"),
        disk(-0.2, 0, 0.75, 0.46),
        arc(-0.2, 0, 0.74, 0.45, np.pi * 0.12, np.pi * 0.88, "light"),
        disk(-0.62, -0.12, 0.1, tone="line"),
    ],
    "car": [
        polygon(-0.6, -0.02, -0.35, -0.55, 0.3, -0.55, 0.6, -0.02),
        box(-0.98, -0.05, 0.98, 0.42),
        polygon(-0.42, -0.05, -0.26, -0.42, -0.04, -0.42, -0.04, -0.05, tone="light"),
        polygon(0.06, -0.05, 0.06, -0.42, 0.24, -0.42, 0.42, -0.05, tone="light"),
        disk(-0.52, 0.42, 0.26, tone="line"),
        disk(0.52, 0.42, 0.26, tone="line"),
    ],
    "boat": [
        box(-0.05, -0.95, 0.05, 0.4, "line"),
        polygon(0.1, -0.9, 0.1, 0.22, 0.8, 0.22, tone="light"),
        polygon(-0.1, -0.6, -0.1, 0.22, -0.65, 0.22, tone="light"),
        polygon(-0.98, 0.36, 0.98, 0.36, 0.6, 0.9, -0.6, 0.9),
    ],
    "star": [_star()],
    "heart": [_heart()],
    "moon": [_moon()],
    "cup": [
        disk(0.62, 0.08, 0.36, 0.4),
        disk(0.62, 0.08, 0.17, 0.21, "line"),
        polygon(-0.75, -0.7, 0.6, -0.7, 0.48, 0.8, -0.63, 0.8),
        disk(-0.075, -0.7, 0.68, 0.2, "dark"),
    ],
    "key": [
        box(-0.25, -0.12, 0.98, 0.12),
        box(0.6, 0.1, 0.76, 0.5),
        box(0.3, 0.1, 0.46, 0.4),
        disk(-0.52, 0, 0.46),
        disk(-0.52, 0, 0.2, tone="line"),
    ],
    "flower": [
        *[disk(0.58 * np.cos(a), 0.58 * np.sin(a), 0.4, 0.27, turn=a) for a in np.arange(6) * np.pi / 3],
        disk(0, 0, 0.27, tone="light"),
    ],
    "mushroom": [
        polygon(-0.26, 0, 0.26, 0, 0.36, 0.9, -0.36, 0.9, tone="light"),
        arc(0, 0.1, 0.95, 0.98, np.pi, 2 * np.pi),
        disk(-0.4, -0.25, 0.17, tone="light"),
        disk(0.15, -0.5, 0.17, tone="light"),
        disk(0.5, -0.12, 0.14, tone="light"),
    ],
    "umbrella": [
        box(-0.06, -0.2, 0.06, 0.78, "line"),
        polygon(-0.06, 0.66, 0.34, 0.66, 0.42, 0.8, 0.34, 0.92, -0.06, 0.92, tone="line"),
        polygon(
            *[v for a in np.linspace(np.pi, 2 * np.pi, 21) for v in (0.98 * np.cos(a), 0.05 + 0.95 * np.sin(a))],
            *(0.66, -0.12, 0.33, 0.05, 0, -0.12, -0.33, 0.05, -0.66, -0.12),
        ),
        polygon(-0.33, 0.05, 0, -0.9, 0.33, 0.05, 0, -0.12, tone="dark"),
    ],
    "plane": [
        polygon(-0.1, -0.25, 0.98, 0.3, 0.98, 0.52, 0, 0.25, -0.98, 0.52, -0.98, 0.3),
        polygon(0, 0.55, 0.42, 0.85, 0.42, 0.98, -0.42, 0.98, -0.42, 0.85),
        disk(0, 0, 0.17, 0.98),
        disk(0, -0.62, 0.09, 0.16, "light"),
    ],
    "rocket": [
        polygon(-0.36, 0.2, -0.72, 0.75, -0.36, 0.65, tone="dark"),
        polygon(0.36, 0.2, 0.72, 0.75, 0.36, 0.65, tone="dark"),
        polygon(-0.2, 0.7, 0, 0.98, 0.2, 0.7, tone="light"),
        polygon(0, -0.98, 0.24, -0.62, 0.37, -0.2, 0.37, 0.72, -0.37, 0.72, -0.37, -0.2, -0.24, -0.62),
        disk(0, -0.15, 0.2, tone="light"),
    ],
    "cat": [
        polygon(-0.78, 0.1, -0.8, -0.95, -0.1, -0.45),
        polygon(0.78, 0.1, 0.8, -0.95, 0.1, -0.45),
        disk(0, 0.2, 0.84, 0.72),
        disk(-0.34, 0.05, 0.13, 0.17, "line"),
        disk(0.34, 0.05, 0.13, 0.17, "line"),
        polygon(-0.14, 0.36, 0.14, 0.36, 0, 0.54, tone="line"),
    ],
    "rabbit": [
        disk(-0.3, -0.5, 0.17, 0.5, turn=-0.15),
        disk(0.3, -0.5, 0.17, 0.5, turn=0.15),
        disk(-0.3, -0.5, 0.08, 0.36, "light", turn=-0.15),
        disk(0.3, -0.5, 0.08, 0.36, "light", turn=0.15),
        disk(0, 0.36, 0.6, 0.58),
        disk(-0.24, 0.24, 0.1, tone="line"),
        disk(0.24, 0.24, 0.1, tone="line"),
        disk(0, 0.56, 0.24, 0.16, "light"),
    ],
    "butterfly": [
        disk(-0.52, -0.4, 0.5, 0.4, turn=0.7),
        disk(0.52, -0.4, 0.5, 0.4, turn=-0.7),
        disk(-0.42, 0.45, 0.38, 0.32, "dark", turn=-0.6),
        disk(0.42, 0.45, 0.38, 0.32, "dark", turn=0.6),
        disk(-0.56, -0.42, 0.18, tone="light"),
        disk(0.56, -0.42, 0.18, tone="light"),
        disk(0, 0.05, 0.1, 0.72, "line"),
    ],
    "lamp": [
        box(-0.08, -0.1, 0.08, 0.8, "line"),
        polygon(-0.4, -0.95, 0.4, -0.95, 0.85, 0.05, -0.85, 0.05),
        polygon(-0.5, 0.95, 0.5, 0.95, 0.4, 0.75, -0.4, 0.75, tone="dark"),
    ],
    "chair": [
        box(-0.6, -0.95, -0.34, 0.95),
        box(-0.6, -0.02, 0.66, 0.24),
        box(0.42, 0.1, 0.66, 0.95),
        box(-0.34, -0.02, 0.66, 0.1, "light"),
    ],
    "bottle": [
        box(-0.15, -0.82, 0.15, -0.2),
        box(-0.2, -0.98, 0.2, -0.76, "line"),
        polygon(-0.15, -0.42, 0.15, -0.42, 0.44, -0.05, 0.44, 0.95, -0.44, 0.95, -0.44, -0.05),
        box(-0.44, 0.2, 0.44, 0.65, "light"),
    ],
    "hammer": [
        box(-0.12, -0.5, 0.12, 0.98, "light"),
        polygon(-0.72, -0.9, 0.3, -0.9, 0.85, -0.62, 0.3, -0.4, -0.72, -0.4),
    ],
    "clock": [
        disk(0, 0, 0.95),
        disk(0, 0, 0.7, tone="light"),
        box(-0.07, -0.52, 0.07, 0.07, "line"),
        box(-0.07, -0.07, 0.42, 0.07, "line"),
    ],
    "crown": [
        polygon(-0.9, 0.6, -0.98, -0.55, -0.48, 0, 0, -0.85, 0.48, 0, 0.98, -0.55, 0.9, 0.6),
        box(-0.9, 0.45, 0.9, 0.78, "dark"),
        disk(0, 0.2, 0.13, tone="light"),
        disk(-0.5, 0.25, 0.1, tone="light"),
        disk(0.5, 0.25, 0.1, tone="light"),
    ],
}  # fmt: skip
