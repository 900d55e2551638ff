"""Pooling and comparing: against plain numpy on values that were made up."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy_experiment import ROWS

from minddiffuser.training.experiments.base import Claim
from minddiffuser.training.experiments.results import Estimate, Results
from minddiffuser.training.experiments.subject import Plan
from minddiffuser.training.experiments.values import Values, by_picture, mean_of


def values(pictures: str, **columns: Any) -> Values:
    made = {name.replace("_", ".", 1): np.array(array, float) for name, array in columns.items()}
    return Values(pictures=tuple(pictures), columns=made)


def results(**by_subject: dict[str, Values]) -> Results:
    subjects: Any = [SimpleNamespace(label=label, modality="fmri") for label in by_subject]
    cells = dict.fromkeys(by_subject, ())
    return Results(asked=ROWS, plan=Plan(), subjects=subjects, cells=cells, values=by_subject)


def test_a_row_is_compared_over_the_pictures_that_both_have(rng: np.random.Generator) -> None:
    a, b = rng.random(30), rng.random(30)
    names = "".join(chr(65 + k) for k in range(30))
    found = results(s={"a": values(names, pixcorr_stage2=a), "b": values(names[:20], pixcorr_stage2=b[:20])})
    compared = found.compared(ROWS[1], "pixcorr", {row.key: row for row in ROWS})
    assert compared is not None
    apart = b[:20] - a[:20]
    assert compared.mean == pytest.approx(apart.mean())
    assert compared.n_pictures == 20
    means = np.random.default_rng(3).choice(apart, (20000, 20)).mean(axis=1)
    assert compared.ci95 == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)


def test_a_picture_counts_once_whoever_saw_it() -> None:
    found = results(
        one={"a": values("xy", ssim_stage2=[1.0, 0.0])},
        two={"a": values("xz", ssim_stage2=[0.0, 0.3])},
    )
    mean = found.estimate(ROWS[0], "ssim")
    assert mean is not None
    assert mean.mean == pytest.approx((0.5 + 0.0 + 0.3) / 3)
    assert mean.n_pictures == 3
    assert mean.ci95 is None  # fewer than five


def test_a_gain_is_in_per_cent_of_stage_1_and_positive_where_it_is_better() -> None:
    before, after = [0.2, 0.4, 0.3, 0.3, 0.3], [0.3, 0.5, 0.3, 0.3, 0.4]
    found = results(
        s={"b": values("vwxyz", pixcorr_stage1=before, pixcorr_stage2=after, place_stage1=before, place_stage2=after)}
    )
    up, down = found.estimate(ROWS[2], "pixcorr"), found.estimate(ROWS[2], "place")
    assert up is not None
    assert down is not None
    assert up.mean == pytest.approx(100 * 0.06 / 0.3)
    assert down.mean == pytest.approx(-100 * 0.06 / 0.3)  # a distance
    assert up.ci95 is not None
    assert down.ci95 == pytest.approx((-up.ci95[1], -up.ci95[0]))


def test_claims_on_other_subjects_are_compared_as_independent_samples(rng: np.random.Generator) -> None:
    a, b = rng.normal(0.0, 1.0, 40), rng.normal(1.0, 2.0, 60)
    found = results(
        one={"a": values("".join(map(chr, range(100, 140))), pixcorr_stage2=a)},
        two={"b": values("".join(map(chr, range(200, 260))), pixcorr_stage2=b)},
    )
    claim = Claim(text="", source="", more=("b", "pixcorr.stage2"), less=("a", "pixcorr.stage2"))
    apart = found.claim(claim)
    assert apart is not None
    assert apart.ci95 is not None
    assert apart.mean == pytest.approx(b.mean() - a.mean())
    error = np.sqrt(a.var() / 40 + b.var() / 60)
    assert (apart.ci95[1] - apart.ci95[0]) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_metrics_that_some_cell_lacks_are_named() -> None:
    both = values("xy", pixcorr_stage2=[1.0, 0.0], ssim_stage2=[1.0, 0.0])
    found = results(s={"a": both, "b": values("xy", pixcorr_stage2=[1.0, 0.0])})
    cells = tuple(SimpleNamespace(name=name, label=f"cell {name}") for name in "abc")
    found = replace(found, cells={"s": cells})
    assert found.left_out == ["SSIM of s, cell b"]
    assert found.missing == ["s: cell c"]


def test_gains_are_compared_in_per_cent_of_stage_1() -> None:
    """Half of a small number is more than a tenth of a large one, though it is the smaller difference."""
    small = values("vwxyz", pixcorr_stage1=[0.010] * 5, pixcorr_stage2=[0.015] * 5)
    large = values("ABCDE", pixcorr_stage1=[0.2] * 5, pixcorr_stage2=[0.22] * 5)
    found = results(one={"a": large}, two={"b": small})
    apart = found.claim(Claim(text="", source="", more=("b", "pixcorr.gain"), less=("a", "pixcorr.gain")))
    assert apart is not None
    assert apart.mean == pytest.approx(40)
    assert apart.clear == 1


def test_gains_per_picture_can_be_claimed() -> None:
    gain = values("vwxyz", pixcorr_stage1=[0.1] * 5, pixcorr_stage2=[0.3] * 5)
    none = values("vwxyz", pixcorr_stage1=[0.3] * 5, pixcorr_stage2=[0.3] * 5)
    found = results(s={"a": none, "b": gain})
    apart = found.claim(Claim(text="", source="", more=("b", "pixcorr.gain"), less=("a", "pixcorr.gain")))
    assert apart is not None
    assert apart.mean == pytest.approx(200)
    assert apart.clear == 1


@pytest.mark.parametrize(
    ("ci95", "clear"), [((0.1, 0.2), 1), ((-0.2, -0.1), -1), ((-0.1, 0.1), 0), (None, 0), ((0.0, 0.1), 0)]
)
def test_a_difference_is_clear_where_its_interval_excludes_0(ci95: Any, clear: int) -> None:
    assert Estimate(mean=0.1, ci95=ci95, n_pictures=9).clear == clear


def test_what_is_not_there_is_not_compared() -> None:
    found = results(s={"a": values("xy", ssim_stage2=[1.0, 0.0])})
    assert found.estimate(ROWS[0], "pixcorr") is None
    assert found.estimate(ROWS[1], "ssim") is None
    assert [row.key for row in found.rows] == ["a"]
    assert found.metrics(found.rows) == ["ssim"]


def test_trials_of_a_picture_and_seeds_are_averaged() -> None:
    made = by_picture({"ssim.stage2": [1.0, 0.0, 0.4]}, ["x", "x", "y"])
    assert made.pictures == ("x", "y")
    assert made.columns["ssim.stage2"].tolist() == [0.5, 0.4]
    other = by_picture({"ssim.stage2": [0.2, 0.7]}, ["y", "x"])
    both = mean_of([made, other])
    assert both.pictures == ("x", "y")
    assert both.columns["ssim.stage2"] == pytest.approx([0.6, 0.3])


def test_chance_is_averaged_over_seeds() -> None:
    first, second = (replace(values("xy", ssim_stage2=[1.0, 0.0]), chance={"ssim": level}) for level in (0.2, 0.4))
    assert mean_of([first, second]).chance == pytest.approx({"ssim": 0.3})
    assert mean_of([first, values("xy", ssim_stage2=[1.0, 0.0])]).chance == {}
