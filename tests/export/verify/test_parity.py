"""Errors of tensors and pictures by hand, and every way to be out of tolerance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minddiffuser.export.verify.parity import PICTURES, TOLERANCES, Tolerance, compare, deviation, psnr, worst_of
from minddiffuser.runtime.bundle.manifest import PRECISIONS

LOOSE = Tolerance(1e-3, 0.999, "for this test")
EXPECTED = np.array([[1.0, -4.0, 2.0], [0.5, 0.25, 2.0]], np.float32)


def test_figures_by_hand() -> None:
    found = EXPECTED + np.array([[0, 0.04, 0], [0, 0, -0.02]], np.float32)
    measured = deviation(found, EXPECTED)
    assert measured.worst == pytest.approx(0.04 / 4, rel=1e-4)
    assert measured.mean == pytest.approx(0.06 / 6 / 4, rel=1e-4)
    rows = [a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in zip(found, EXPECTED, strict=True)]
    assert measured.cosine == pytest.approx(min(rows), abs=1e-6)


def test_the_worst_of_several() -> None:
    near, far = deviation(EXPECTED * 1.001, EXPECTED), deviation(-EXPECTED, EXPECTED)
    both = worst_of([near, far])
    assert both.worst == pytest.approx(2)
    assert both.cosine == pytest.approx(-1)
    assert both.mean > near.mean


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (np.full_like(EXPECTED, np.nan), EXPECTED),
        (np.full_like(EXPECTED, np.inf), EXPECTED),
        (EXPECTED, np.full_like(EXPECTED, np.nan)),  # nothing agrees with a reference that is no number
        (EXPECTED[:1], EXPECTED),  # would broadcast
        (EXPECTED[:, :1], EXPECTED),
    ],
)
def test_what_cannot_be_compared_is_infinitely_wrong(found: np.ndarray, expected: np.ndarray) -> None:
    measured = deviation(found, expected)
    assert (measured.worst, measured.mean, measured.cosine) == (math.inf, math.inf, -1)
    assert compare({"loss": found}, {"loss": expected}, LOOSE)[1] is not None


def test_zero_agrees_with_zero_only() -> None:
    nothing = np.zeros((2, 3), np.float32)
    assert compare({"slope": nothing}, {"slope": nothing}, LOOSE)[1] is None
    assert deviation(nothing, nothing).cosine == 1
    assert "slope is off by" in str(compare({"slope": nothing + 1e-6}, {"slope": nothing}, LOOSE)[1])


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (np.where(EXPECTED == 2, np.nan, EXPECTED), "latent holds NaN or infinite values"),
        (EXPECTED[:, :2], r"latent has shape \(2, 2\), expected \(2, 3\)"),
        (EXPECTED + 0.005, "latent is off by 0.0013 of its peak, tolerance 0.001"),
        (EXPECTED * [[1], [-1e-9]], "latent is off by"),
    ],
)
def test_each_reason_names_the_tensor(found: np.ndarray, words: str) -> None:
    other = {"loss": np.ones(2, np.float32)}
    measured, reason = compare({**other, "latent": found}, {**other, "latent": EXPECTED}, LOOSE)
    assert measured["loss"].worst == 0
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(reason)


def test_a_small_trial_beside_a_large_one_is_seen_by_its_cosine() -> None:
    """Its error is nothing beside the other's peak."""
    expected = np.array([[1000.0, 0.0], [1e-2, 0.0]], np.float32)
    found = np.array([[1000.0, 0.0], [0.0, 1e-2]], np.float32)
    reason = compare({"slope": found}, {"slope": expected}, LOOSE)[1]
    assert reason == "slope has cosine 0.000000 to its reference, at least 0.999 is needed"


def test_a_missing_tensor_is_reported() -> None:
    assert "loss has shape (0,), expected (2,)" in str(compare({}, {"loss": np.ones(2, np.float32)}, LOOSE)[1])


def test_a_flat_picture_is_reported_whatever_its_error() -> None:
    rng = np.random.default_rng(0)
    expected = (0.5 + 0.02 * rng.standard_normal((2, 3, 8, 8))).astype(np.float32)
    found = expected.copy()
    found[1] = 0.5
    wide = Tolerance(1.0, -1.0, "anything goes")
    assert "image is flat" in str(compare({"image": found}, {"image": expected}, wide)[1])
    assert compare({"structure": found}, {"structure": expected}, wide)[1] is None  # only pictures have to vary
    assert compare({"image": found}, {"image": np.full_like(found, 0.5)}, wide)[1] is None  # the reference is, too


def test_psnr_by_hand() -> None:
    expected = np.zeros((2, 3, 4, 4), np.float32)
    found = expected.copy()
    found[0] += 0.1
    found[1] += 0.01
    assert psnr(found[:1], expected[:1]) == pytest.approx(20, abs=1e-4)
    assert psnr(found[1:], expected[1:]) == pytest.approx(40, abs=1e-4)
    assert psnr(found, expected) == pytest.approx(20, abs=1e-4)  # the worst of them
    assert psnr(expected, expected) == 120
    assert psnr(np.full_like(found, np.nan), expected) == 0


def test_every_precision_has_its_tolerances_and_reasons() -> None:
    assert set(TOLERANCES) == set(PICTURES) == set(PRECISIONS)
    assert TOLERANCES["fp32"].worst <= 1e-4
    for tolerance in (*TOLERANCES.values(), *PICTURES.values()):
        assert len(tolerance.reason) > 20
