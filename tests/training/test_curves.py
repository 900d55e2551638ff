"""Learning curves: what is kept is what comes back, and the drawing shows it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from minddiffuser.runtime.errors import FileError
from minddiffuser.training.curves import Curve, as_part, curves_bytes, figure, from_part, part_name, read_curves

SVG = "{http://www.w3.org/2000/svg}"
CURVES = [
    Curve(
        ["context", "semantic"],
        2,
        None,
        {"train": {"loss": [1.5, 0.75, 0.5]}, "validation": {"loss": [1.25, 0.5, 1.0]}},
    ),
    Curve(
        ["latent"],
        1,
        "the loss became nan in epoch 2, step 3",
        {"train": {"loss": [1.0]}, "validation": {"loss": [2.0]}},
    ),
]


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    assert read_curves(tmp_path) == []
    (tmp_path / "curves.json").write_bytes(curves_bytes(CURVES))
    assert read_curves(tmp_path) == CURVES
    assert [from_part(as_part(curve)) for curve in CURVES] == CURVES
    assert part_name("training", ["context", "semantic"]) == "training-0-3"


def test_damaged_ones_are_named(tmp_path: Path) -> None:
    content = json.loads(curves_bytes(CURVES))
    for changed in ({**content, "networks": [{"epoch": 1}]}, {**content, "version": 9}, {"format": "x"}):
        (tmp_path / "curves.json").write_text(json.dumps(changed))
        with pytest.raises(FileError, match="curves"):
            read_curves(tmp_path)


def test_the_figure_has_a_panel_per_network_with_both_losses_and_the_kept_epoch() -> None:
    root = ElementTree.fromstring(figure(CURVES))
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert "context, semantic" in texts
    assert "latent (the loss became nan in epoch 2, step 3)" in texts
    lines = [
        [tuple(map(float, p.split(","))) for p in line.get("points", "").split()]
        for line in root.iter(f"{SVG}polyline")
    ]
    assert [len(points) for points in lines] == [3, 3, 1, 1]
    train, validation = lines[:2]
    left, middle, right = (x for x, _ in train)
    assert right - middle == pytest.approx(middle - left)
    # Downwards is lower, by the same scale: losses of 0.5 lie at the same height in both.
    assert train[0][1] < train[1][1] < train[2][1] == validation[1][1]
    assert validation[2][1] - train[0][1] == pytest.approx((1.5 - 1.0) / 1.5 * 150, abs=0.11)
    kept = [float(line.get("x1", "")) for line in root.iter(f"{SVG}line")]
    assert kept[0] == middle
