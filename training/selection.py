"""Which structure dimensions can be trusted: Algorithm 1 of the paper.

For each dimension, the correlation between decoded and true values on held-out folds of the training data,
averaged over folds; of each layer, the best k per cent are kept.

Where the reference differs: its selection fits a group lasso whose penalties default to zero, on responses that
were z-scored with the held-out part. Here each fold is decoded by the decoder that stage 2 will use, with the
statistics of that fold's training part, and repetitions of a stimulus never lie on both sides.

Dimensions are fitted and scored a block at a time, so that memory for weights does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import InputError, ShapeError
from ..runtime.progress import unheard
from .checkpoint_folder import Parts
from .decoders.base import Decoder, FittedDecoder, Predictor, predictor, settled
from .decoders.blocks import block_size, blocks
from .folds import folds_of
from .normalise import SampledColumns, TargetColumns, fit_normaliser

Array = NDArray[Any]
Float64 = NDArray[np.float64]
Indices = NDArray[np.integer[Any]]
Progress = Callable[[int, int], None]

# Dimensions whose predictions are compared at once.
_DIMENSIONS_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """Algorithm 1.

    Attributes
    ----------
    percent : float
        How much of each layer is kept, above 0 to 100.
    absolute : bool
        Rank by the absolute correlation of each fold, as the reference does: dimensions that are decoded with
        the wrong sign then count as well decoded. Signed by default.
    n_selected : int, optional
        Voxels (values of a trial) per dimension in the folds' decoders; the decoder's own when not given. As many as
        there are makes the folds share one factorisation, which is many times faster.
    alpha : float or "cv", optional
        Penalty of the folds' decoders; the decoder's own when not given. Two fits keep the same dimensions, so that
        their structure can be compared, where both this and `n_selected` are the same.
    seed : int, optional
        Draws stimuli into folds; contiguous folds when not given.
    """

    percent: float = 25.0
    absolute: bool = False
    n_folds: int = 5
    n_selected: int | None = None
    alpha: float | str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise InputError(f"percent is {self.percent}, expected above 0 and at most 100")
        if self.n_folds < 2:
            raise InputError(f"n_folds is {self.n_folds}, expected at least 2")
        if self.n_selected is not None and self.n_selected < 1:
            raise InputError(f"n_selected is {self.n_selected}, expected at least 1 value of a trial per dimension")


def correlation(a: Float64, b: Float64) -> Float64:
    """Pearson correlation of matching columns of (n, k) arrays; 0 where a column does not vary."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = np.sqrt(np.einsum("nk,nk->k", a, a) * np.einsum("nk,nk->k", b, b))
    r: Float64 = np.divide(np.einsum("nk,nk->k", a, b), norm, out=np.zeros_like(norm), where=norm > 1e-12 * len(a))
    return r


@dataclass(frozen=True)
class Trials:
    """The training trials.

    Attributes
    ----------
    responses : (n_trials, *response_shape)
        Not normalised.
    stimulus : (n_trials,) int
        Row of the features that each trial showed.
    pictures : (n_trials,) int, optional
        The same for all trials that showed the same picture, where there are copies of pictures.
    """

    responses: Array
    stimulus: Indices
    pictures: Indices | None = None

    @property
    def picture(self) -> Indices:
        """What trials are grouped by: copies of a picture count as one."""
        return self.stimulus if self.pictures is None else self.pictures


def mean_over_folds(scores: Float64, settings: SelectionSettings) -> NDArray[np.float32]:
    """What dimensions are ranked by, (n_dimensions,), from correlations (n_folds, n_dimensions)."""
    ranked = np.abs(scores) if settings.absolute else scores
    mean: Float64 = ranked.mean(axis=0)
    return mean.astype(np.float32)


def fold_correlations(
    trials: Trials,
    features: Array,
    decoder: Decoder,
    settings: SelectionSettings,
    *,
    n_threads: int | None = None,
    progress: Progress | None = None,
    parts: Parts | None = None,
) -> Float64:
    """How well each dimension is decoded on each held-out fold.

    Parameters
    ----------
    features : (n_stimuli, n_dimensions)
        May be mapped from a file; a block of dimensions is read at a time.
    decoder : Decoder
        Fitted anew in each fold, to a block of dimensions at a time.
    progress : callable, optional
        Receives (dimensions done, dimensions in all folds).
    parts : Parts, optional
        Keeps the correlations of each block, and has those of blocks that an earlier call finished.

    Returns
    -------
    (n_folds, n_dimensions) float64
        In [-1, 1].

    Notes
    -----
    Memory: one fold's normalised responses, what the decoder needs for them and for one block of dimensions, and
    a few numbers per dimension.
    """
    responses, stimulus = trials.responses, trials.stimulus
    if responses.ndim < 2 or features.ndim != 2 or stimulus.shape != responses.shape[:1]:
        raise ShapeError(
            f"selection got responses {responses.shape}, features {features.shape}, stimulus {stimulus.shape}: "
            "expected (n_trials, *response_shape), (n_stimuli, n_dimensions), (n_trials,)"
        )
    fold = folds_of(trials.picture, settings.n_folds, fold_order(settings))
    size = block_size(decoder, responses.shape)
    spans = [(number, *span) for number in range(settings.n_folds) for span in blocks(features.shape[1], size)]
    scores = np.empty((settings.n_folds, features.shape[1]))
    left = [span for span in spans if not _restore(scores, parts, span)]
    done = scores.size - sum(stop - start for _, start, stop in left)

    report = progress or unheard
    if done > 0:
        report(done, scores.size)
    work, decided = None, decoder
    for number, start, stop in left:
        if work is None or work.number != number:
            work = None  # one fold's responses at a time
            work = HeldOut(number, trials, fold == number)
            decided = work.settled(features, decoder, n_threads)

        def on_progress(n: int, _of: int, before: int = done) -> None:
            report(before + n, scores.size)

        found = work.score(features[:, start:stop], decided, n_threads, on_progress)
        scores[number, start:stop] = found
        if parts is not None:
            parts.keep(_part(number, start), {"score": found})
        done += stop - start
    return scores


def fold_order(settings: SelectionSettings) -> np.random.Generator | None:
    """What draws the stimuli into folds; None for contiguous ones."""
    return None if settings.seed is None else np.random.default_rng(settings.seed)


def _part(number: int, start: int) -> str:
    return f"selection-{number}-{start:08d}"


def _restore(scores: Float64, parts: Parts | None, span: tuple[int, int, int]) -> bool:
    number, start, stop = span
    found = None if parts is None else parts.part(_part(number, start))
    if found is None or found["score"].shape != (stop - start,):
        return False
    scores[number, start:stop] = found["score"]
    return True


class HeldOut:
    """One held-out fold of the trials: its responses, normalised by the others.

    Attributes
    ----------
    number : int
        Of the fold.
    shown, pictures : (n,) int
        Of the held-out trials: row of the features, and what counts as the same picture.
    varies : (n_varying,) int
        Columns of flat responses that vary over the other trials.
    """

    def __init__(self, number: int, trials: Trials, held_out: NDArray[np.bool_]) -> None:
        self.number = number
        self._known, self.shown = trials.stimulus[~held_out], trials.stimulus[held_out]
        self._known_pictures, self.pictures = trials.picture[~held_out], trials.picture[held_out]
        normaliser = fit_normaliser(trials.responses[~held_out])
        self._known_responses, self._responses = (normaliser(trials.responses[rows]) for rows in (~held_out, held_out))
        self.varies = np.flatnonzero(normaliser.std > 0)
        self._asked: Decoder | None = None
        self._direct: Predictor | None = None

    def settled(self, features: Array, decoder: Decoder, n_threads: int | None) -> Decoder:
        """The decoder with what it decides by the trials decided by this fold's other trials, for all blocks."""
        targets = SampledColumns(features, self._known)
        return settled(decoder, self._known_responses, targets, pictures=self._known_pictures, n_threads=n_threads)[0]

    def score(self, block: Array, decoder: Decoder, n_threads: int | None, progress: Progress) -> Float64:
        """Correlations of a block of features (n_stimuli, k), (k,)."""
        known = TargetColumns(block, self._known, np.arange(block.shape[1]))
        hidden = TargetColumns(block, self.shown, np.arange(block.shape[1]), (known.mean, known.std))
        give = self._predictions(known, decoder, n_threads, progress)
        score = np.empty(block.shape[1])
        for start, stop in blocks(len(score), _DIMENSIONS_AT_ONCE):
            score[start:stop] = correlation(give(start, stop), hidden.columns(start, stop))
        return score

    def _predictions(
        self, known: TargetColumns, decoder: Decoder, n_threads: int | None, progress: Progress
    ) -> Callable[[int, int], Float64]:
        """What gives the predictions of some targets; where it makes no weights, progress is that of the asking.

        Numpy's own threads do that, and `n_threads` is of the fit alone.
        """
        if self._asked is not decoder:  # the same for all blocks
            self._asked = decoder
            self._direct = predictor(decoder, self._known_responses, self._responses, n_targets=known.shape[1])
        direct = self._direct
        if direct is None:
            fit = partial(decoder.fit, self._known_responses, known, pictures=self._known_pictures)
            return partial(predicted, fit(n_threads=n_threads, progress=progress), self._responses)

        def give(start: int, stop: int) -> Float64:
            found = _finite(direct.predict(known.columns(start, stop)))
            progress(stop, known.shape[1])
            return found

        return give

    def predict(self, block: Array, decoder: Decoder, values: Indices, n_threads: int | None) -> Float64:
        """Predictions (n, k) of a block of features, from some of a trial's values where responses are flat."""
        flat = self._responses.ndim == 2  # channels and samples stay together
        known, hidden = (rows[:, values] if flat else rows for rows in (self._known_responses, self._responses))
        targets = TargetColumns(block, self._known, np.arange(block.shape[1]))
        decided, _ = settled(decoder, known, targets, pictures=self._known_pictures, n_threads=n_threads)
        direct = predictor(decided, known, hidden, n_targets=block.shape[1])
        if direct is not None:
            return _finite(direct.predict(targets.columns(0, block.shape[1])))
        fitted = decided.fit(known, targets, pictures=self._known_pictures, n_threads=n_threads)
        return predicted(fitted, hidden, 0, block.shape[1])


def predicted(fitted: FittedDecoder, responses: Float64, start: int, stop: int) -> Float64:
    """What a decoder gives for held-out responses, (n, stop - start).

    Raises
    ------
    InputError
        It gives NaN or infinite values.
    """
    return _finite(fitted.predict(responses, start, stop))


def _finite(found: Float64) -> Float64:
    if not np.isfinite(found).all():
        raise InputError(
            "the decoder gave NaN or infinite values for held-out trials: give it a larger penalty, or another decoder"
        )
    return found
