"""Which trials are good, and whether they are on the scale of training: done once, where responses come in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data.nan import find_holes, numbers
from .errors import InputError, ShapeError
from .scale import REFUSE_MEDIAN, TrainingStatistics, check_scale
from .voxel_order import order_warning

Rows = NDArray[Any] | Sequence[NDArray[Any]]
# A value so many standard deviations from training is no response. A voxel that has such values in most trials is taken
# as missing. Of the others, where few of a trial's voxels have such values, these are taken as missing; where more than
# this share have, the trial is an artefact.
MOST_SD = REFUSE_MEDIAN[1]
FEW_VOXELS = 0.05
# Of fewer trials it cannot be told whether they or their voxels are at fault.
_TRIALS_TO_JUDGE_VOXELS = 3
_NAMED = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Screened:
    """Responses that may be decoded.

    Attributes
    ----------
    responses : (n_trials, n_voxels) float32
        Zeros in the rows of bad trials; the mean of training where a value was taken as missing.
    skipped : trial -> what is wrong with it
    warnings : sentences for the user
    """

    responses: NDArray[np.float32]
    skipped: dict[int, str]
    warnings: tuple[str, ...]


def screen(rows: Rows, training: TrainingStatistics, *, left_out: Collection[int] = ()) -> Screened:
    """Separate good trials from bad ones, and refuse responses in other units or normalised otherwise.

    A trial is bad if it has another number of voxels than expected, holds NaN or infinite values, has the same value
    in every voxel, or lies more than `MOST_SD` standard deviations from training in more than `FEW_VOXELS` of those
    voxels that varied in training and do not lie so far away in most trials (a voxel nearly constant in training).
    Every other value that lies so far away, such as a spike, is replaced by the voxel's mean of training, which adds
    nothing to what is decoded, and a warning names the voxels. So the other trials may decide whether a trial is good,
    and never what is decoded from it.

    Parameters
    ----------
    rows
        One array per trial.
    training
        Of the decoders; :attr:`~minddiffuser.runtime.decode.Checkpoint.training`.
    left_out
        Trials that a person leaves out: they are not looked at, and are neither good nor bad.

    Raises
    ------
    ShapeError
        Every trial has the same wrong number of voxels: that is another brain, not a bad trial.
    InputError
        There is no trial, or all are left out, or none is good; or the responses are not on the scale of training, see
        :func:`~.scale.check_scale`.
    """
    n_voxels = len(training.mean)
    if not len(rows):
        raise InputError("the responses hold no trial: check how they were exported")
    trials = [trial for trial in range(len(rows)) if trial not in left_out]
    if not trials:
        raise InputError(f"all {len(rows)} trials are left out: leave fewer of them out")
    widths = {len(rows[trial]) for trial in trials}
    if len(widths) == 1 and widths != {n_voxels}:
        raise ShapeError(
            f"responses have {widths.pop()} voxels, the checkpoint was fitted on {n_voxels}: "
            "give the same subject's responses with the same voxels in the same order"
        )
    responses = np.zeros((len(rows), n_voxels), np.float32)
    skipped: dict[int, str] = {}
    for trial in trials:
        fault = _fault(rows[trial], n_voxels)
        if fault is None:
            responses[trial] = rows[trial]
        else:
            skipped[trial] = fault
    warnings: list[str] = []
    good = [trial for trial in trials if trial not in skipped]
    if good:
        warnings = _check_scores(responses, good, skipped, training)
    looked_at = rows if len(trials) == len(rows) else [rows[trial] for trial in trials]
    cure = _voxels_to_leave_out(looked_at, n_voxels)
    if len(skipped) == len(trials):
        first = min(skipped)
        raise InputError(
            f"none of the {len(trials)} trials can be reconstructed (trial {first}: {skipped[first]}): "
            f"{cure or 'check how the responses were exported'}"
        )
    if cure is not None:
        warnings.append(cure)
    return Screened(responses=responses, skipped=dict(sorted(skipped.items())), warnings=tuple(warnings))


def _fault(row: NDArray[Any], n_voxels: int) -> str | None:
    """What can be wrong with a trial whatever the training responses were."""
    if len(row) != n_voxels:
        return f"it has {len(row)} voxels, expected {n_voxels}"
    with np.errstate(over="ignore"):
        narrow = row.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(narrow))
    if len(bad):
        return f"{len(bad)} of {n_voxels} values are NaN or infinite, in {numbers('voxel', bad)}"
    if n_voxels > 1 and bool((narrow == narrow[0]).all()):
        return f"every voxel is {float(narrow[0]):g}"
    return None


def _voxels_to_leave_out(rows: Rows, n_voxels: int) -> str | None:
    """What a person can do where few voxels hold the NaN of many trials, so that no trial is lost; else None."""
    whole = [row for row in rows if len(row) == n_voxels]
    holes = find_holes(rows if isinstance(rows, np.ndarray) else np.stack(whole)) if whole else None
    n_saved = 0 if holes is None else len(holes.trials) - len(holes.broken)
    if holes is None or n_saved < 2 or not holes.places_cost_less:
        return None
    return (
        f"{n_saved} trials hold NaN or infinite values in {numbers('voxel', holes.places)} only: leave these voxels "
        "out, of the training data too, and fit again, and those trials can be reconstructed"
    )


def _check_scores(
    responses: NDArray[np.float32], good: Sequence[int], skipped: dict[int, str], training: TrainingStatistics
) -> list[str]:
    """Check the good rows by their z-scores: fill `skipped`, replace single values, and return the warnings."""
    varying = np.flatnonzero(training.std > 0)
    scores = training.scores(responses[good])[:, varying]
    if not scores.size:
        return []
    told = [check_scale(scores)]
    far = np.abs(scores) > MOST_SD
    usual = ~_far_in_most(far)
    n_usual = np.count_nonzero(usual)
    replaced = np.zeros(len(varying), bool)
    for row, trial in enumerate(good):
        n_far = np.count_nonzero(far[row] & usual)
        if n_far > FEW_VOXELS * n_usual:
            others = "" if n_usual == len(varying) else " others of its"
            skipped[trial] = (
                f"{n_far} of {n_usual}{others} voxels lie more than {MOST_SD:g} standard deviations from training (the "
                f"furthest {np.abs(scores[row, usual]).max():.2g}): it is an artefact, in other units, or its voxels "
                "are in another order"
            )
            responses[trial] = 0
        elif far[row].any():
            voxels = varying[far[row]]
            responses[trial, voxels] = training.mean[voxels]
            replaced |= far[row]
    kept = [trial for trial in good if trial not in skipped]
    if replaced.any():
        told.append(_told_of_voxels(varying[replaced], len(varying)))
    if kept:
        told.append(order_warning(responses[kept], training))
    return [warning for warning in told if warning is not None]


def _far_in_most(far: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels (n_voxels,) that lie far from training in more than half of the trials, by (n_trials, n_voxels)."""
    if len(far) < _TRIALS_TO_JUDGE_VOXELS:
        return np.zeros(far.shape[1], bool)
    most: NDArray[np.bool_] = 2 * far.sum(axis=0) > len(far)
    return most


def _told_of_voxels(voxels: NDArray[np.intp], n_voxels: int) -> str:
    named = ", ".join(map(str, voxels[:_NAMED].tolist())) + (", …" if len(voxels) > _NAMED else "")
    return (
        f"{len(voxels)} of {n_voxels} voxels ({named}) hold values more than {MOST_SD:g} standard deviations from "
        "training, as voxels do that hardly varied in training, or spikes: such a value is replaced by the voxel's "
        "mean in training, which adds nothing to what is decoded"
    )
