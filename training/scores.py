"""How well each feature is decoded: correlations on held-out training trials, beside a shuffled null.

For each feature, from the whole responses and, of fMRI, from each region: its decoder is fitted anew without a fold,
and its predictions for that fold are correlated with the true values, dimension by dimension. The score is the mean
over folds and over *all* dimensions, drawn ones where there are many, and not over those that were selected for being
decoded well. Folds are those of the selection: repetitions of a stimulus never lie on both sides.

A decoder that holds out trials by itself (a network) is not fitted anew: its score is that of its predictions for
these trials, from the whole responses, and over the dimensions that it predicts. As the same trials decided when its
training stopped, and of structure which dimensions it predicts, that score is somewhat too good; the table says so.

The null pairs the pictures of a fold at random with one another's predictions, many times. Nothing is fitted for it,
so it costs little; a score that does not exceed what 95 % of the shufflings stay below is no better than chance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.data.layout import Rois, voxels_of
from ..runtime.decoders.best import best_per_layer
from ..runtime.errors import FileError, InputError
from ..runtime.features import TARGETS
from ..runtime.files import check_format, json_bytes, read_json
from ..runtime.progress import unheard
from .checkpoint_folder import Parts
from .decoders.base import Decoder, FittedDecoder
from .folds import folds_of
from .normalise import TargetColumns
from .selection import (
    HeldOut,
    SelectionSettings,
    Trials,
    correlation,
    fold_order,
    mean_over_folds,
    predicted,
)

Array = NDArray[Any]
Float64 = NDArray[np.float64]
Indices = NDArray[np.integer[Any]]
Progress = Callable[[int, int], None]

NAME = "scores.json"
KIND = "scores"
VERSION = 2

# Dimensions per feature: the mean over so many of a distribution of width 0.2 is known to 0.013.
_MOST_DIMENSIONS = 256
# Shufflings, of which 95 of 100 stay below the bound.
N_SHUFFLED, _BOUND = 100, 0.95
_SEED = 0
_FEATURES_AT_ONCE = 1 << 23
_TRIALS_AT_ONCE = 256


@dataclass(frozen=True)
class Score:
    """What is decoded from the whole responses, or from some of them.

    Attributes
    ----------
    n_values : int
        Numbers of a trial that it is decoded from: voxels, or channels times samples.
    correlation : float
        Mean over folds and dimensions.
    shuffled, shuffled_95 : float
        Mean of the same over the shufflings, and what 95 % of them stay below.
    """

    n_values: int
    correlation: float
    shuffled: float
    shuffled_95: float

    @property
    def better(self) -> bool:
        """Whether it exceeds what chance gives."""
        return self.correlation > self.shuffled_95


@dataclass(frozen=True)
class FeatureScores:
    """One feature's scores.

    Attributes
    ----------
    n_dimensions, n_drawn : int
        All that are decoded or may be selected, and those that the scores are means over; 0 drawn where the feature
        is the same for every stimulus.
    whole : Score, optional
        From the whole responses; None where the decoder refused the training part of a fold.
    rois : region to Score
        Without those that the decoder refused.
    n_validation : int, optional
        How many pictures the decoder held out by itself, where the score is of these; None where it is of the folds.
    """

    n_dimensions: int
    n_drawn: int
    whole: Score | None
    rois: dict[str, Score]
    n_validation: int | None = None


@dataclass(frozen=True)
class SelectionScores:
    """How well structure is decoded over all dimensions and over those that were selected.

    Attributes
    ----------
    mean : float
        Over all dimensions.
    kept : float
        Of the kept ones, by the very correlations that they were selected by: too good.
    kept_elsewhere : float
        In each fold, of those that are kept by the other folds' correlations: what to expect of the kept ones.
    fitter : str
        What was fitted in the folds: the structure's own, or the ridge where that one is too costly.
    """

    mean: float
    kept: float
    kept_elsewhere: float
    fitter: str


@dataclass(frozen=True)
class Scores:
    """All of ``scores.json``."""

    n_folds: int
    n_shuffled: int
    features: dict[str, FeatureScores]
    selection: SelectionScores


@dataclass(frozen=True, kw_only=True)
class Sources(Trials):
    """What the scores are computed from: the training trials, and of their features what follows.

    Attributes
    ----------
    rois : region to (start, stop) in the voxel axis, or to a set of voxels
    features : feature to (n_stimuli, n_dimensions)
    positions : feature to (k,) int
        The dimensions that are decoded, or that may be selected.
    decoders : feature to Decoder
    """

    rois: Rois
    features: Mapping[str, Array]
    positions: Mapping[str, NDArray[np.intp]]
    decoders: Mapping[str, Decoder]


def feature_scores(
    sources: Sources,
    settings: SelectionSettings,
    *,
    n_threads: int | None = None,
    progress: Progress | None = None,
    parts: Parts | None = None,
) -> dict[str, FeatureScores]:
    """Score every feature from the whole responses and from each region.

    Parameters
    ----------
    settings : SelectionSettings
        Whose folds are taken.
    progress : callable, optional
        Receives (fits done, fits in all).
    parts : Parts, optional
        Keeps each fold's scores, and has those that an earlier call finished.
    """
    fold = folds_of(sources.picture, settings.n_folds, fold_order(settings))
    drawn = {
        name: _draw(name, features, sources.positions[name], sources.stimulus)[1]
        for name, features in sources.features.items()
    }
    regions = _regions(sources)
    score = np.empty((settings.n_folds, len(drawn), len(regions)))
    null = np.empty((*score.shape, N_SHUFFLED))
    places = [(number, row) for number in range(settings.n_folds) for row in range(len(drawn))]
    where = np.array([list(hashlib.sha256(values.tobytes()).digest()) for _, values in regions], np.uint8)
    left = [place for place in places if not _restore(score[place], null[place], where, parts, place)]
    total, done = score.size, (len(places) - len(left)) * len(regions)
    report = progress or unheard
    report(done, total)
    now: HeldOut | None = None
    for place in left:
        number, row = place
        if now is None or now.number != number:
            now = None  # one fold's responses at a time
            now = HeldOut(number, sources, fold == number)
        name = list(drawn)[row]
        score[place], null[place] = _score_fold(now, drawn[name], sources.decoders[name], regions, n_threads)
        if parts is not None:
            parts.keep(_part(place), {"score": score[place], "null": null[place], "regions": where})
        done += len(regions)
        report(done, total)
    mean, shuffled = score.mean(axis=0), null.mean(axis=0)
    return {
        name: _feature(sources.positions[name], drawn[name], regions, mean[row], shuffled[row])
        for row, name in enumerate(drawn)
    }


def _part(place: tuple[int, int]) -> str:
    return f"scores-{place[0]}-{place[1]}"


def _restore(score: Float64, null: Float64, regions: Array, parts: Parts | None, place: tuple[int, int]) -> bool:
    found = None if parts is None else parts.part(_part(place))
    if found is None or not np.array_equal(
        found["regions"], regions
    ):  # regions do not decide a fit, so they may change
        return False
    score[:], null[:] = found["score"], found["null"]
    return True


def _regions(sources: Sources) -> list[tuple[str, NDArray[np.intp]]]:
    """All values of a trial, and the regions; a region that is all voxels is not scored twice."""
    n_values = sources.responses[0].size
    rois = [(name, voxels_of(roi)) for name, roi in sources.rois.items()]
    return [("", np.arange(n_values)), *((name, voxels) for name, voxels in rois if len(voxels) < n_values)]


def _draw(name: str, features: Array, positions: Indices, stimulus: Indices) -> tuple[Indices, Array]:
    """Which of a feature's `positions` are looked at, and their values (n_stimuli, n_drawn).

    Drawn with a fixed seed among the dimensions that vary over the trials.
    """
    order = np.random.default_rng([_SEED, *name.encode()]).permutation(positions)
    shown = np.unique(stimulus)
    drawn, chosen = np.empty((len(features), 0), features.dtype), order[:0]
    start, size = 0, _MOST_DIMENSIONS
    while start < len(order) and len(chosen) < _MOST_DIMENSIONS:
        columns = order[start : start + size]
        values = _columns(features, columns)
        varies = np.ptp(values[shown], axis=0) > 1e-6 * np.abs(values[shown]).max(axis=0)
        chosen, drawn = np.concatenate([chosen, columns[varies]]), np.concatenate([drawn, values[:, varies]], axis=1)
        start, size = start + size, 2 * size  # features that hardly vary are not read 256 dimensions at a time
    kept = np.argsort(chosen[:_MOST_DIMENSIONS])
    return chosen[kept], drawn[:, kept]


def _columns(features: Array, columns: NDArray[np.intp]) -> Array:
    step = max(1, _FEATURES_AT_ONCE // max(1, features.shape[1]))  # whole rows of the file at a time
    return np.concatenate([features[start : start + step][:, columns] for start in range(0, len(features), step)])


def _score_fold(
    held_out: HeldOut,
    values: Array,
    decoder: Decoder,
    regions: list[tuple[str, NDArray[np.intp]]],
    n_threads: int | None,
) -> tuple[Float64, Float64]:
    """Scores (n_regions,) and nulls (n_regions, n_shuffled) of a feature's drawn dimensions; NaN where refused."""
    score, null = np.zeros(len(regions)), np.zeros((len(regions), N_SHUFFLED))
    shuffled = _shufflings(held_out.number, len(np.unique(held_out.pictures)))
    for number, (_, part) in enumerate(regions):
        # Voxels that do not vary say nothing, and make a decoder without penalty fail.
        varying = np.intersect1d(part, held_out.varies)
        if values.shape[1] == 0 or len(varying) == 0:  # 0 is the score
            continue
        try:
            found = held_out.predict(values, decoder, varying, n_threads)
        except (InputError, ValueError, ArithmeticError):
            # The checkpoint itself is fitted; what cannot be measured must not keep it from being finished.
            score[number], null[number] = np.nan, np.nan
            continue
        score[number] = correlation(found, np.asarray(values[held_out.shown], np.float64)).mean()
        null[number] = null_scores(found, values, held_out.pictures, shuffled)
    return score, null


def validation_name(feature: str) -> str:
    """Under which a fit keeps what :func:`validation_part` gives."""
    return f"validation-{TARGETS.index(feature)}"


def validation_part(
    fitted: FittedDecoder,
    responses: Float64,
    features: Array,
    stimulus: Indices,
    pictures: Indices,
    feature: str,
    targets: TargetColumns,
) -> dict[str, Array]:
    """Compare a decoder's predictions for the trials that it held out with the true values.

    Parameters
    ----------
    fitted
        What was fitted to `targets`.
    responses : (n, *response_shape)
        Of the held-out trials, normalised.
    features : (n_stimuli, n_dimensions)
        Of the feature, of all stimuli.
    stimulus, pictures : (n,) int
        Of the held-out trials.
    feature
        Its name.

    Returns
    -------
    Arrays for :func:`validation_scores`.
    """
    chosen, values = _draw(feature, features, targets.positions, stimulus)
    columns, n_targets = np.searchsorted(targets.positions, chosen), len(targets.positions)
    found = np.concatenate(
        [
            predicted(fitted, responses[start : start + _TRIALS_AT_ONCE], 0, n_targets)[:, columns]
            for start in range(0, len(responses), _TRIALS_AT_ONCE)
        ]
    )
    shown = np.unique(pictures)
    score, null = 0.0, np.zeros(N_SHUFFLED)
    if len(chosen):
        score = float(correlation(found, np.asarray(values[stimulus], np.float64)).mean())
        null = null_scores(found, values, pictures, _shufflings(0, len(shown)))
    sizes = (len(targets.positions), len(chosen), responses[0].size, len(shown))
    return {"score": np.array([score]), "null": null, "sizes": np.array(sizes, np.int64)}


def validation_scores(part: Mapping[str, Array]) -> FeatureScores:
    """The scores of a decoder that held out trials by itself, from :func:`validation_part`."""
    n_dimensions, n_drawn, n_values, n_pictures = part["sizes"].tolist()
    return FeatureScores(n_dimensions, n_drawn, _score(n_values, float(part["score"][0]), part["null"]), {}, n_pictures)


def _shufflings(number: int, n_stimuli: int) -> NDArray[np.intp]:
    """(n_shuffled, n_stimuli): the same orders for every feature and region."""
    rng = np.random.default_rng([_SEED, number])
    return np.stack([rng.permutation(n_stimuli) for _ in range(N_SHUFFLED)])


def null_scores(found: Float64, features: Array, shown: Indices, shuffled: NDArray[np.intp]) -> Float64:
    """Mean correlation of predictions with features of stimuli paired at random, (n_shuffled,).

    Parameters
    ----------
    found : (n_trials, k)
        Predictions for held-out trials.
    features : (n_stimuli, k)
    shown : (n_trials,) int
        Row of `features` that each trial showed.
    shuffled : (n_shuffled, m) int
        Orders of the m stimuli that were shown; all trials of one get the features of the same one.
    """
    stimuli, which, count = np.unique(shown, return_inverse=True, return_counts=True)
    truth = np.asarray(features[stimuli], np.float64)
    truth -= truth.mean(axis=0)
    centred = found - found.mean(axis=0)
    summed = np.zeros_like(truth)  # over the trials of a stimulus
    np.add.at(summed, which, centred)
    norm = np.sqrt(np.einsum("tk,tk->k", centred, centred))
    scores = np.empty(len(shuffled))
    for number, order in enumerate(shuffled):
        other = truth[order]
        mean, square = count @ other, count @ other**2
        size = norm * np.sqrt(np.maximum(square - mean**2 / len(shown), 0))
        product = np.einsum("sk,sk->k", summed, other)
        scores[number] = np.divide(product, size, out=np.zeros_like(size), where=size > 0).mean()
    return scores


def _feature(
    positions: NDArray[np.intp],
    drawn: Array,
    regions: list[tuple[str, NDArray[np.intp]]],
    mean: Float64,
    null: Float64,
) -> FeatureScores:
    made = {
        name: _score(len(values), float(mean[i]), null[i])
        for i, (name, values) in enumerate(regions)
        if np.isfinite(mean[i])
    }
    return FeatureScores(len(positions), drawn.shape[1], made.pop("", None), made)


def _score(n_values: int, correlation: float, null: Float64) -> Score:
    return Score(n_values, correlation, float(null.mean()), float(np.quantile(null, _BOUND)))


def selection_scores(
    scores: Float64, shape: tuple[int, ...], settings: SelectionSettings, fitter: str
) -> SelectionScores:
    """Summarise correlations (n_folds, n_dimensions) of structure of `shape` (n_layers, ...), decoded by `fitter`."""

    def kept(by: Float64) -> NDArray[np.bool_]:
        return best_per_layer(mean_over_folds(by, settings).reshape(shape), settings.percent).ravel()

    elsewhere = [fold[kept(np.delete(scores, number, axis=0))].mean() for number, fold in enumerate(scores)]
    return SelectionScores(
        float(scores.mean()), float(scores[:, kept(scores)].mean()), float(np.mean(elsewhere)), fitter
    )


def read_scores(folder: Path) -> Scores | None:
    """Read the scores of a checkpoint, or None where it has none (fitted by an earlier release).

    Raises
    ------
    FileError
        The file is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return None
    content = read_json(path, "the checkpoint's scores")
    check_format(content, path, KIND, VERSION)
    try:
        features = {name: _read_feature(made) for name, made in content["features"].items()}
        return Scores(content["n_folds"], content["n_shuffled"], features, SelectionScores(**content["selection"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{path} lacks something or was edited ({error}): fit the checkpoint again") from error


def _read_feature(content: Mapping[str, Any]) -> FeatureScores:
    rois = {name: Score(**score) for name, score in content["rois"].items()}
    whole = None if content["whole"] is None else Score(**content["whole"])
    return FeatureScores(content["n_dimensions"], content["n_drawn"], whole, rois, content["n_validation"])


def scores_bytes(scores: Scores) -> bytes:
    """What ``scores.json`` holds, as UTF-8."""
    return json_bytes({"format": f"minddiffuser-{KIND}", "version": VERSION, **asdict(scores)})
