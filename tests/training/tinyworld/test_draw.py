from dataclasses import replace

import numpy as np
import pytest

from minddiffuser.training.tinyworld.draw import OVERSAMPLING, draw, draw_all, draw_background, draw_coverage
from minddiffuser.training.tinyworld.scenes import BACKGROUNDS, COLOURS, CONCEPTS, Scene, scenes
from minddiffuser.training.tinyworld.shapes import SHAPES

SCENE = Scene(
    concept="star",
    colour="red",
    background="night",
    x=0.5,
    y=0.5,
    size=0.3,
    tilt_deg=0,
    mirrored=False,
    horizon=0.5,
    tone=1.0,
)


def centre_of_red(picture: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero((picture[..., 0] > 150) & (picture[..., 1] < 100))
    return columns.mean() / 64, rows.mean() / 64


@pytest.mark.parametrize(("x", "y"), [(0.35, 0.4), (0.65, 0.6)])
def test_the_object_is_where_the_scene_says(x: float, y: float) -> None:
    assert centre_of_red(draw(replace(SCENE, x=x, y=y))) == pytest.approx((x, y), abs=0.03)


@pytest.mark.parametrize("concept", CONCEPTS)
def test_the_layers_make_up_the_picture(concept: str) -> None:
    """Outside the covered pixels the picture is its background; inside it is not, in colours far from it."""
    scene = replace(SCENE, concept=concept, colour="yellow", tilt_deg=10, mirrored=True)
    picture, background, coverage = draw(scene).astype(int), draw_background(scene).astype(int), draw_coverage(scene)
    changed = np.abs(picture - background).max(axis=2)
    assert coverage.dtype == np.uint8
    assert (changed[coverage == 0] == 0).all()
    assert (changed[coverage == 255] > 5).mean() > 0.98  # outlines are nearly as dark as the night
    assert np.array_equal(draw(replace(scene, x=9.0)), draw_background(scene))


def test_size_scales_the_area() -> None:
    area = [(draw(replace(SCENE, size=size))[..., 0] > 150).sum() for size in (0.2, 0.4)]
    assert area[1] / area[0] == pytest.approx(4, rel=0.3)


def test_edges_are_anti_aliased() -> None:
    values = np.unique(draw(replace(SCENE, tilt_deg=10)).reshape(-1, 3), axis=0)
    assert OVERSAMPLING >= 3
    assert len(values) > 100  # a picture without blended edges would have the few colours of its parts and sky


@pytest.mark.parametrize("concept", ["key", "fish"])
def test_mirroring_mirrors(concept: str) -> None:
    plain = replace(SCENE, concept=concept, background="snow", horizon=0.45)
    background = draw(replace(plain, x=9.0)).astype(int)
    left = np.abs(draw(plain).astype(int) - background).sum(2) > 60
    right = np.abs(draw(replace(plain, mirrored=True)).astype(int) - background).sum(2) > 60
    same = (left & right[:, ::-1]).sum() / (left | right[:, ::-1]).sum()
    assert same > 0.9 > (left & right).sum() / (left | right).sum()


def test_tilt_turns_by_the_angle() -> None:
    def angle(tilt: float) -> float:
        rows, columns = np.nonzero(draw(replace(SCENE, concept="rocket", colour="white", tilt_deg=tilt)).min(2) > 90)
        _, vectors = np.linalg.eigh(np.cov(columns, rows))
        return np.rad2deg(np.arctan2(*vectors[:, 1])) % 180

    assert (angle(0) - angle(20)) % 180 == pytest.approx(20, abs=6)


def test_all_words_look_different() -> None:
    for field, names in (("concept", CONCEPTS), ("colour", COLOURS), ("background", BACKGROUNDS)):
        pictures = [draw(replace(SCENE, **{field: name})).astype(float) for name in names]
        for i, first in enumerate(pictures):
            for j, second in enumerate(pictures[:i]):
                assert np.abs(first - second).mean() > 1, (names[i], names[j])


def test_shapes_stay_in_their_square() -> None:
    for name, parts in SHAPES.items():
        points = np.concatenate([part.points for part in parts])
        assert np.abs(points).max() <= 1.05, name
        assert np.ptp(points, axis=0).min() > 0.5, name


def test_drawing_repeats_exactly() -> None:
    first, again = draw_all(scenes(4, 5)), draw_all(scenes(4, 5))
    assert first.shape == (5, 64, 64, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
