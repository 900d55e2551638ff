"""How well a feature is decoded: against a plain loop, and against chance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.training import scores as module
from minddiffuser.training.decoders.ridge import Ridge
from minddiffuser.training.score_table import figure, table, warnings
from minddiffuser.training.scores import (
    FeatureScores,
    Scores,
    SelectionScores,
    Sources,
    feature_scores,
    null_scores,
    scores_bytes,
    selection_scores,
)
from minddiffuser.training.selection import SelectionSettings

ROIS = {"V1": (0, 12), "LO": (12, 30)}
PICTURE, WORDS = ("latent", "structure", "semantic"), ("context",)


def subject(rng: np.random.Generator, n: int = 120, noise: float = 2.0) -> Sources:
    """Every picture shown twice, with two causes of what is seen and two of what is said; V1 does not know words."""
    look, words = rng.standard_normal((2, n, 2))
    stimulus = np.tile(np.arange(n), 2)
    v1, lo = rng.standard_normal((2, 12)), rng.standard_normal((4, 18))
    clean = np.hstack([look @ v1, np.hstack([look, words]) @ lo])
    features = {name: look @ rng.standard_normal((2, 10)) for name in PICTURE}
    features["context"] = words @ rng.standard_normal((2, 10))
    return Sources(
        responses=(clean[stimulus] + noise * rng.standard_normal((2 * n, 30)) + 5).astype(np.float32),
        stimulus=stimulus,
        rois=ROIS,
        features={name: values.astype(np.float32) for name, values in features.items()},
        positions={name: np.arange(10) for name in features},
        decoders={name: Ridge(n_selected=8) for name in features},
    )


def changed(sources: Sources, **changes: object) -> Sources:
    return Sources(**{**vars(sources), **changes})  # type: ignore[arg-type]


def lines(sources: Sources) -> dict[str, str]:
    """Which features are warned of, with the words."""
    found = feature_scores(sources, SelectionSettings())
    reported = warnings(Scores(5, 100, found, SelectionScores(0.0, 0.0, 0.0, "ridge")))
    return {line.split()[1]: line for line in reported}


def test_a_good_subject_has_no_warning(rng: np.random.Generator) -> None:
    sources = subject(rng)
    assert lines(sources) == {}
    found = feature_scores(sources, SelectionSettings())
    for name, made in found.items():
        assert made.whole.correlation > 0.5
        assert abs(made.whole.shuffled) < 0.05 < made.whole.shuffled_95 < 0.35
        assert list(made.rois) == ["V1", "LO"]
        assert made.rois["LO"].better
        assert made.rois["V1"].better is (name != "context")
        assert (made.whole.n_values, made.rois["V1"].n_values, made.rois["LO"].n_values) == (30, 12, 18)


@pytest.mark.parametrize("shift", [1, -1, 7])
def test_pictures_that_are_off_show_in_what_pictures_give(shift: int, rng: np.random.Generator) -> None:
    sources = subject(rng)
    rolled = {name: np.roll(sources.features[name], shift, axis=0) for name in PICTURE}
    reported = lines(changed(sources, features={**sources.features, **rolled}))
    assert set(reported) == set(PICTURE)
    assert "what each trial showed?" in reported["latent"]


def test_captions_that_are_off_show_in_the_context_alone(rng: np.random.Generator) -> None:
    sources = subject(rng)
    rolled = {"context": np.roll(sources.features["context"], 1, axis=0)}
    reported = lines(changed(sources, features={**sources.features, **rolled}))
    assert set(reported) == {"context"}
    assert "captions in the order of the pictures?" in reported["context"]


def test_trials_that_are_off_show_everywhere(rng: np.random.Generator) -> None:
    sources = subject(rng)
    reported = lines(changed(sources, responses=np.roll(sources.responses, 1, axis=0)))
    assert set(reported) == {*PICTURE, *WORDS}
    assert "belong to the same trials" in reported["latent"]


def test_scores_are_those_of_a_plain_loop(rng: np.random.Generator) -> None:
    sources = subject(rng, n=30)
    found = feature_scores(sources, SelectionSettings(n_folds=3))["latent"]
    values = sources.features["latent"].astype(float)
    for (start, stop), score in (
        ((0, 30), found.whole),
        (ROIS["V1"], found.rois["V1"]),
        (ROIS["LO"], found.rois["LO"]),
    ):
        correlations = []
        for fold in np.array_split(np.arange(30), 3):
            test = np.isin(sources.stimulus, fold)
            known, unseen = sources.responses[~test, start:stop], sources.responses[test, start:stop]
            mean, std = known.astype(float).mean(0), known.astype(float).std(0)
            truth = values[sources.stimulus]
            target = (truth[~test] - truth[~test].mean(0)) / truth[~test].std(0)
            fitted = sources.decoders["latent"].fit((known - mean) / std, Whole(target))
            predicted = fitted.predict((unseen - mean) / std)
            correlations += [np.corrcoef(predicted[:, k], truth[test, k])[0, 1] for k in range(10)]
        assert score.correlation == pytest.approx(np.mean(correlations), abs=1e-5)


class Whole:
    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self.shape = values.shape

    def columns(self, start: int, stop: int) -> np.ndarray:
        return self._values[:, start:stop]


def test_the_null_is_the_correlation_with_other_stimuli(rng: np.random.Generator) -> None:
    """Trials of one stimulus get another one together, however often each was shown."""
    features, shown = rng.standard_normal((9, 4)), np.array([2, 2, 2, 5, 7, 7, 8])
    found = rng.standard_normal((7, 4))
    stimuli = [2, 5, 7, 8]
    shuffled = np.array([[1, 0, 3, 2], [3, 2, 1, 0], [0, 1, 2, 3]])
    expected = []
    for order in shuffled:
        other = {stimulus: features[stimuli[position]] for stimulus, position in zip(stimuli, order, strict=True)}
        truth = np.stack([other[stimulus] for stimulus in shown])
        expected.append(np.mean([np.corrcoef(found[:, k], truth[:, k])[0, 1] for k in range(4)]))
    np.testing.assert_allclose(null_scores(found, features, shown, shuffled), expected, atol=1e-12)


def test_many_dimensions_are_drawn_and_constant_ones_left_out(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_DIMENSIONS", 6)
    sources = subject(rng, n=20)
    sources.features["latent"][:, 3:] = 2.0
    sources.features["semantic"][:] = -1.0
    sources.positions["context"] = np.arange(4, 10)
    sources.features["context"][:, :4] = np.nan  # no position names it, so nobody reads it
    found = feature_scores(sources, SelectionSettings(n_folds=2))
    assert (found["structure"].n_dimensions, found["structure"].n_drawn) == (10, 6)
    assert found["latent"].n_drawn == 3
    assert (found["context"].n_dimensions, found["context"].n_drawn) == (6, 6)
    assert found["semantic"].n_drawn == 0
    reported = lines(sources)
    assert "is the same for every training stimulus" in reported["semantic"]
    assert "constant" in table(Scores(2, 100, found, SelectionScores(0.0, 0.0, 0.0, "ridge")))


def test_a_region_that_never_varies_and_one_region_of_all(rng: np.random.Generator) -> None:
    sources = subject(rng, n=20)
    sources.responses[:, :12] = 3.0
    found = feature_scores(sources, SelectionSettings(n_folds=2))
    assert found["latent"].rois["V1"].correlation == 0
    assert not found["latent"].rois["V1"].better
    whole = feature_scores(changed(sources, rois={"brain": (0, 30)}), SelectionSettings(n_folds=2))
    assert whole["latent"].rois == {}


def test_a_constant_voxel_of_a_region_needs_no_penalty(rng: np.random.Generator) -> None:
    sources = subject(rng, n=40)
    sources.responses[:, 3] = 2.0
    decoders = {name: Ridge(n_selected=30, alpha=0) for name in sources.features}
    found = feature_scores(changed(sources, decoders=decoders), SelectionSettings(n_folds=2))
    rest = np.delete(sources.responses, 3, axis=1)
    without = changed(sources, decoders=decoders, responses=rest, rois={"V1": (0, 11), "LO": (11, 29)})
    expected = feature_scores(without, SelectionSettings(n_folds=2))
    assert found["latent"].rois["V1"].correlation == pytest.approx(expected["latent"].rois["V1"].correlation, abs=1e-6)


class Refusing(Ridge):
    def fit(self, responses: Any, targets: Any, **options: Any) -> Any:
        if responses.shape[1] == self.n_selected:
            raise InputError("not these voxels")
        return super().fit(responses, targets, **options)

    def predictor(self, responses: Any, others: Any, **_options: Any) -> None:
        return None


@pytest.mark.parametrize(("n_voxels", "roi"), [(12, "V1"), (30, "all")])
def test_what_a_decoder_refuses_is_left_open(n_voxels: int, roi: str, rng: np.random.Generator) -> None:
    sources = subject(rng, n=40)
    decoders = {**sources.decoders, "latent": Refusing(n_selected=n_voxels)}
    kept = Memory()
    for _ in range(2):
        found = feature_scores(changed(sources, decoders=decoders), SelectionSettings(n_folds=2), parts=kept)
        made = Scores(2, 100, found, SelectionScores(0.0, 0.0, 0.0, "ridge"))
        rows = {line.split()[0]: line.split() for line in table(made).splitlines() if line.strip()}
        assert rows[roi][2] == "–"
        assert rows["LO"][2] != "–"
        assert ">–</text>" in figure(made)
        assert ("latent could not be scored" in " ".join(warnings(made))) is (roi == "all")
    assert json.loads(scores_bytes(made))["features"]["latent"]["rois"].keys() == {"V1", "LO"} - {roi}


class Memory(dict[str, Mapping[str, np.ndarray]]):
    def part(self, name: str) -> Mapping[str, np.ndarray] | None:
        return self.get(name)

    keep = dict.__setitem__


def test_what_was_kept_is_not_scored_again(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    sources, kept, reported = subject(rng, n=20), Memory(), []
    first = feature_scores(sources, SelectionSettings(n_folds=2), parts=kept)
    assert len(kept) == 8
    kept.pop("scores-1-2")
    again = feature_scores(
        sources, SelectionSettings(n_folds=2), parts=kept, progress=lambda *now: reported.append(now)
    )
    assert again == first
    assert reported == [(21, 24), (24, 24)]


@pytest.mark.parametrize("absolute", [False, True])
def test_kept_dimensions_are_scored_where_they_were_not_chosen(absolute: bool, rng: np.random.Generator) -> None:
    """Noise: what was chosen for its correlation looks good there and nowhere else."""
    scores = 0.1 * rng.standard_normal((5, 6 * 2000))
    made = selection_scores(scores, (6, 2000), SelectionSettings(percent=10, absolute=absolute), "ridge")
    assert made.mean == pytest.approx(scores.mean())
    # The mean of 5 has deviation 0.1 / sqrt(5); the best tenth of a normal lies 1.755 deviations above its mean.
    if not absolute:
        assert made.kept == pytest.approx(1.755 * 0.1 / 5**0.5, rel=0.05)
    assert abs(made.kept_elsewhere) < 4 * 0.1 / (5 * 1200) ** 0.5


def test_the_table_has_a_row_per_region_and_fits_a_terminal(rng: np.random.Generator) -> None:
    found: dict[str, FeatureScores] = feature_scores(subject(rng, n=40), SelectionSettings(n_folds=2))
    text = table(Scores(2, 100, found, SelectionScores(0.125, 0.5, 0.25, "ridge")))
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    for region in ("all", "V1", "LO"):
        cells = rows[region][2:]
        assert len(cells) == 8
        made = found["latent"].whole if region == "all" else found["latent"].rois[region]
        assert cells[0] == f"{made.correlation:.3f}"
        assert cells[1] == f"({made.shuffled_95:.3f}){'' if made.better else '*'}"
    assert "all dimensions 0.125; selected dimensions 0.250" in text
    assert "(0.500 on the folds used to select them" in text
    assert max(map(len, text.splitlines())) <= 100
