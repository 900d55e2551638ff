"""Scenes to pixels: flat colours, drawn at four times the size and box-filtered, so edges are anti-aliased."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .scenes import COLOURS, IMAGE_SIZE, Scene
from .shapes import SHAPES

OVERSAMPLING = 4
_CANVAS = IMAGE_SIZE * OVERSAMPLING
_Colour = tuple[int, int, int]
_Ink = int | tuple[int, ...]

# Two colours above the horizon (top, bottom) and two below it; None: the first gradient fills the picture.
_GRADIENTS: dict[str, tuple[_Colour, _Colour, _Colour | None, _Colour | None]] = {
    "sky": ((95, 165, 235), (205, 230, 250), None, None),
    "sunset": ((105, 60, 130), (255, 165, 85), (95, 45, 60), (60, 30, 50)),
    "night": ((8, 10, 40), (35, 40, 90), None, None),
    "meadow": ((170, 215, 245), (215, 235, 245), (125, 200, 80), (70, 150, 50)),
    "desert": ((250, 225, 160), (255, 240, 200), (230, 185, 110), (205, 150, 80)),
    "sea": ((180, 220, 240), (220, 240, 245), (40, 130, 180), (15, 70, 130)),
    "snow": ((190, 200, 215), (225, 230, 238), (250, 252, 255), (225, 235, 245)),
    "room": ((225, 205, 185), (215, 190, 165), (150, 105, 75), (115, 75, 50)),
}


def draw(scene: Scene) -> NDArray[np.uint8]:
    """The picture of a scene, (64, 64, 3) uint8 RGB."""
    canvas = _background(scene)
    main = np.array(COLOURS[scene.colour], dtype=np.float64)
    outline = (235, 235, 235) if scene.colour == "black" else (25, 22, 30)
    tones = {"main": main, "dark": main * 0.6, "light": main + (255 - main) * 0.6, "line": np.array(outline)}
    _paint(canvas, scene, outline, {tone: tuple(int(v) for v in colour) for tone, colour in tones.items()})
    return np.asarray(canvas.reduce(OVERSAMPLING))


def draw_background(scene: Scene) -> NDArray[np.uint8]:
    """The picture of a scene without its object, (64, 64, 3) uint8 RGB."""
    return np.asarray(_background(scene).reduce(OVERSAMPLING))


def draw_coverage(scene: Scene) -> NDArray[np.uint8]:
    """How much of each pixel the object covers, its outline included: (64, 64) uint8, 255 where it covers all."""
    canvas = Image.new("L", (_CANVAS, _CANVAS))
    _paint(canvas, scene, 255, dict.fromkeys(("main", "dark", "light", "line"), 255))
    return np.asarray(canvas.reduce(OVERSAMPLING))


def draw_all(many: Iterable[Scene]) -> NDArray[np.uint8]:
    """Pictures of many scenes, (n, 64, 64, 3) uint8."""
    return np.stack([draw(scene) for scene in many])


def _paint(canvas: Image.Image, scene: Scene, outline: _Ink, tones: Mapping[str, _Ink]) -> None:
    """Draw the object: the outline of all its parts first, so that it shows around the whole and not inside."""
    pen = ImageDraw.Draw(canvas)
    parts = [(_place(scene, part.points), tones[part.tone]) for part in SHAPES[scene.concept]]
    width = round(0.05 * scene.size * _CANVAS) + 2
    for points, _ in parts:
        pen.line([*points, points[0], points[1]], fill=outline, width=2 * width, joint="curve")
    for points, colour in parts:
        pen.polygon(points, fill=colour)


def _place(scene: Scene, points: NDArray[np.float64]) -> list[tuple[float, float]]:
    angle = np.deg2rad(scene.tilt_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    flipped = points * (-1.0, 1.0) if scene.mirrored else points
    placed = (np.array([scene.x, scene.y]) + scene.size * flipped @ turn.T) * _CANVAS
    return [(float(px), float(py)) for px, py in placed]


def _background(scene: Scene) -> Image.Image:
    top, middle, below, bottom = _GRADIENTS[scene.background]
    rows = np.empty((_CANVAS, 3))
    horizon = _CANVAS if below is None else round(scene.horizon * _CANVAS)
    rows[:horizon] = np.linspace(top, middle, horizon)
    if below is not None and bottom is not None:
        rows[horizon:] = np.linspace(below, bottom, _CANVAS - horizon)
    column = np.clip(rows * scene.tone, 0, 255).astype(np.uint8)[:, None, :]
    canvas = Image.fromarray(column).resize((_CANVAS, _CANVAS), Image.Resampling.NEAREST)
    _decorate(ImageDraw.Draw(canvas), scene)
    return canvas


def _decorate(pen: ImageDraw.ImageDraw, scene: Scene) -> None:
    """One mark that names the place at a glance, shifted with the horizon so that it is not a constant."""
    side, level, shift = _CANVAS, scene.horizon * _CANVAS, (scene.horizon - 0.45) * 4 * _CANVAS
    if scene.background == "sky":
        for cx, cy in ((0.1, 0.2), (0.65, 0.75)):
            x, y = (cx * side + shift) % side, cy * side
            pen.ellipse((x - 34, y - 13, x + 34, y + 13), fill=(248, 250, 253))
            pen.ellipse((x - 16, y - 24, x + 18, y + 10), fill=(248, 250, 253))
    elif scene.background == "sunset":
        x = (0.2 * side + shift) % side
        pen.pieslice((x - 38, level - 38, x + 38, level + 38), 180, 360, fill=(255, 225, 130))
    elif scene.background == "night":
        for k in range(9):
            x, y = (k * 97 + shift) % side, (k * 61 + 20) % side
            pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=(240, 240, 200))
    elif scene.background == "meadow":
        x = (0.3 * side + shift) % side
        pen.ellipse((x - 75, level - 18, x + 75, level + 40), fill=(125, 200, 80))
    elif scene.background == "desert":
        x = (0.6 * side + shift) % side
        pen.polygon([(x - 60, level + 1), (x, level - 42), (x + 60, level + 1)], fill=(215, 165, 95))
    elif scene.background == "sea":
        for k in range(1, 5):
            y = level + k * k * 5
            pen.line([(0, y), (side, y)], fill=(120, 185, 215), width=3)
    elif scene.background == "snow":
        x = (0.5 * side + shift) % side
        pen.polygon([(x - 80, level + 1), (x, level - 60), (x + 80, level + 1)], fill=(165, 180, 200))
        pen.polygon([(x - 30, level - 37), (x, level - 60), (x + 30, level - 37)], fill=(250, 252, 255))
    elif scene.background == "room":
        x = (0.25 * side + shift) % side
        pen.rectangle((x - 26, level - 100, x + 26, level - 36), fill=(185, 220, 240), outline=(120, 80, 60), width=6)
