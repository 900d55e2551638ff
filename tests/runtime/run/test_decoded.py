from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.metrics.dimension import participation_ratio
from minddiffuser.runtime.report.decoded import decoded_section
from minddiffuser.runtime.run.decoded import decoded_lines, measure_decoded

MASK = np.zeros((6, 3, 4), bool)
MASK[:, 1] = True


class Fake:
    """A backend whose features of a picture are pixels of it, and which decodes responses that hold them."""

    def __init__(self, semantic: bool) -> None:
        shapes = {"structure": MASK.shape, **({"semantic": (10,)} if semantic else {})}
        self.decoder = SimpleNamespace(mask=MASK, shapes=shapes)
        self.blocks: list[int] = []

    def decode(self, responses: np.ndarray, *, semantic: bool) -> Any:
        self.blocks.append(len(responses))
        structure = responses[:, :72].reshape(-1, *MASK.shape)
        return SimpleNamespace(structure=structure, semantic=responses[:, 72:82] if semantic else None)

    def features(self, images: np.ndarray, *, semantic: bool) -> Any:
        flat = images.reshape(len(images), -1).astype(np.float32)
        return flat[:, :72].reshape(-1, *MASK.shape), flat[:, 72:82] if semantic else None


def world(n: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """What was shown and the responses: those of n trials, a noisy copy of the features."""
    rng = np.random.default_rng(0)
    shown = rng.integers(0, 256, (n, 8, 8, 3)).astype(np.uint8)
    features = shown.transpose(0, 3, 1, 2).reshape(n, -1)[:, :82] / 255
    return shown, (features + noise * rng.normal(size=features.shape)).astype(np.float32)


def measured(
    n: int, noise: float, *, semantic: bool = True, asked: tuple[str, ...] = ("retrieval", "dimension")
) -> Any:
    shown, responses = world(n, noise)
    backend = Fake(semantic)
    found = measure_decoded(asked, backend, responses, range(n), lambda some: shown[list(some)], None, seed=0)
    return (*found, backend, shown, responses)


def test_perfect_features_find_every_stimulus() -> None:
    found, notes, backend, *_ = measured(210, 0.0)
    assert list(found) == ["semantic", "structure"]
    assert notes == ()
    assert max(backend.blocks) == 64
    for feature in found.values():
        assert list(feature["retrieval"]) == [f"top{k}_of_{pool}" for pool in (50, 200, 210) for k in (1, 5)]
        assert {one["value"] for one in feature["retrieval"].values()} == {1.0}
        assert feature["dimension"]["ratio"] == pytest.approx(1)
    assert found["semantic"]["retrieval"]["top5_of_50"]["chance"] == 0.1
    assert (found["semantic"]["n_dims"], found["structure"]["n_dims"]) == (10, int(MASK.sum()))


def test_noise_makes_it_worse_and_the_ends_are_said() -> None:
    found, notes, _, shown, responses = measured(60, 0.5)
    entry = found["structure"]
    top = entry["retrieval"]
    assert 0.02 < top["top1_of_60"]["value"] < top["top1_of_50"]["value"] < top["top5_of_50"]["value"] < 1
    low, high = top["top1_of_50"]["minus_chance"]["ci95"]
    assert low < top["top1_of_50"]["value"] - 0.02 < high
    inside = responses[:, :72].reshape(-1, *MASK.shape)[:, MASK]
    assert entry["dimension"]["decoded"] == pytest.approx(participation_ratio(inside))
    assert notes == ("retrieval of 200 left out: there are 60 pictures.",)
    lines = decoded_lines(found)
    assert lines[1].startswith("decoded structure feature: top-1 of 50 0.")
    page = decoded_section({"decoded": found})
    assert page.count("<tr>") == 1 + 2 * (4 + 1)
    assert "above chance" in page


def test_what_is_not_asked_or_not_there_is_left_out() -> None:
    found, _, *_ = measured(20, 0.1, semantic=False, asked=("dimension",))
    assert list(found) == ["structure"]
    assert set(found["structure"]) == {"n_dims", "dimension"}
    found, notes, *_ = measured(1, 0.1)
    assert found == {}
    assert "2 different pictures or more" in notes[0]
    assert decoded_section({}) == ""
    assert decoded_section({"decoded": {"structure": {"n_dims": 3}}}) == ""


def test_features_that_collapse_have_no_dimension() -> None:
    shown, responses = world(8, 0.0)
    same = np.repeat(responses[:1], 8, axis=0)
    found, notes = measure_decoded(
        ("dimension",), Fake(True), same, range(8), lambda some: shown[list(some)], None, seed=0
    )
    assert found["structure"]["dimension"] is None
    assert "the decoded ones do not vary" in notes[0]
    broken = responses.copy()
    broken[3, 75] = np.nan
    found, notes = measure_decoded(
        ("retrieval",), Fake(True), broken, range(8), lambda some: shown[list(some)], None, seed=0
    )
    assert list(found) == ["structure"]
    assert "semantic feature left out: it is NaN" in notes[0]
