"""What a tiny picture shows: its words, its geometry, and which combinations are kept from training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .shapes import SHAPES

CONCEPTS: tuple[str, ...] = tuple(SHAPES)
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "orange": (250, 140, 25),
    "yellow": (250, 220, 50),
    "green": (50, 165, 60),
    "cyan": (60, 205, 210),
    "blue": (45, 85, 215),
    "purple": (135, 60, 180),
    "pink": (250, 140, 190),
    "brown": (130, 80, 40),
    "white": (245, 245, 245),
    "gray": (140, 140, 145),
    "black": (35, 35, 40),
}
BACKGROUNDS: tuple[str, ...] = ("sky", "sunset", "night", "meadow", "desert", "sea", "snow", "room")
IMAGE_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One picture, wholly determined.

    `x`, `y` are the object's centre and `size` its half-extent, as fractions of the picture's side;
    `tilt_deg` turns it clockwise; `horizon` (fraction from the top) and `tone` (brightness factor)
    vary the background.
    """

    concept: str
    colour: str
    background: str
    x: float
    y: float
    size: float
    tilt_deg: float
    mirrored: bool
    horizon: float
    tone: float

    @property
    def caption(self) -> str:
        """What is shown, never where: position, size, tilt and mirroring stay out of the words."""
        return f"a {self.colour} {self.concept} in the {self.background}"

    @property
    def labels(self) -> tuple[int, int, int]:
        """Class indices (concept, colour, background)."""
        return CONCEPTS.index(self.concept), list(COLOURS).index(self.colour), BACKGROUNDS.index(self.background)


def is_held_out(concept: int, colour: int, background: int) -> bool:
    """Whether a combination never occurs in training (one in twenty; every single word still does)."""
    return (7 * concept + 3 * colour + 11 * background) % 20 == 0


def sample_scene(rng: np.random.Generator, *, combinations: str = "seen") -> Scene:
    """Draw a scene; `combinations` is "seen", "held-out" or "all" (see :func:`is_held_out`)."""
    while True:
        concept, colour, background = (int(rng.integers(n)) for n in (len(CONCEPTS), len(COLOURS), len(BACKGROUNDS)))
        if combinations == "all" or is_held_out(concept, colour, background) == (combinations == "held-out"):
            break
    size = float(rng.uniform(0.24, 0.42))
    low, high = size * 0.9, 1 - size * 0.9
    return Scene(
        concept=CONCEPTS[concept],
        colour=list(COLOURS)[colour],
        background=BACKGROUNDS[background],
        x=float(rng.uniform(low, high)),
        y=float(rng.uniform(low, high)),
        size=size,
        tilt_deg=float(rng.uniform(-25, 25)),
        mirrored=bool(rng.integers(2)),
        horizon=float(rng.uniform(0.45, 0.7)),
        tone=float(rng.uniform(0.88, 1.08)),
    )


def scenes(seed: int, n_scenes: int, *, combinations: str = "seen") -> Iterator[Scene]:
    """`n_scenes` scenes drawn from one seed."""
    rng = np.random.default_rng(seed)
    return (sample_scene(rng, combinations=combinations) for _ in range(n_scenes))
