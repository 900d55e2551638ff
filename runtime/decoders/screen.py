"""Which trials are good, and whether they are on the scale of training: done once, where responses come in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.nan import find_holes, numbers
from ..errors import InputError, ShapeError
from .scale import REFUSE_MEDIAN, TrainingStatistics, check_scale, z_scores
from .voxel_order import order_warning

Rows = NDArray[Any] | Sequence[NDArray[Any]]
# A number so many standard deviations from training is no response. Where it is so in most trials, it is taken as
# missing (in fMRI: a bad voxel). Of the others, where few of a trial's numbers are so, these are taken as missing;
# where more than this share are, the trial is an artefact.
MOST_SD = REFUSE_MEDIAN[1]
FEW = 0.05
# With fewer trials it is unclear whether they or single values are at fault.
_TRIALS_TO_JUDGE_VALUES = 3
_NAMED = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Screened:
    """Responses that may be decoded.

    Attributes
    ----------
    responses : (n_trials, *response_shape) float32
        Zeros in the rows of bad trials; the mean of training where a value was taken as missing.
    skipped : trial -> what is wrong with it
    warnings : sentences for the user
    """

    responses: NDArray[np.float32]
    skipped: dict[int, str]
    warnings: tuple[str, ...]


def screen(rows: Rows, training: TrainingStatistics, *, left_out: Collection[int] = ()) -> Screened:
    """Separate good trials from bad ones, and refuse responses in other units or normalised otherwise.

    A trial is bad if it has another shape than expected, holds NaN or infinite values, is the same number everywhere,
    or lies more than `MOST_SD` standard deviations from training in more than `FEW` of those values that varied in
    training and do not lie so far away in most trials (a voxel nearly constant in training).
    Every other value that lies so far away, such as a spike, is replaced by its mean of training, which adds nothing to
    what is decoded, and a warning says which. So the other trials may decide whether a trial is good, and never what is
    decoded from it.

    Parameters
    ----------
    rows
        One array per trial, each of the layout's shape.
    training
        Of the decoders; :attr:`~minddiffuser.runtime.decoders.checkpoint.Checkpoint.training`.
    left_out
        Trials that a person leaves out: they are not looked at, and are neither good nor bad.

    Raises
    ------
    ShapeError
        Every trial has the same wrong shape: that is another brain or recording, not a bad trial.
    InputError
        There is no trial, or all are left out, or none is good; or the responses are not on the scale of training, see
        :func:`~.scale.check_scale`.
    """
    shape = training.mean.shape
    if not len(rows):
        raise InputError("the responses hold no trial: check how they were exported")
    trials = [trial for trial in range(len(rows)) if trial not in left_out]
    if not trials:
        raise InputError(f"all {len(rows)} trials are left out: leave fewer of them out")
    shapes = {np.shape(rows[trial]) for trial in trials}
    if len(shapes) == 1 and shapes != {shape}:
        (found,) = shapes
        if len(rows) == 1 and len(found) == 1 + len(shape) and found[1:] == shape:
            raise ShapeError(
                f"the only trial has the shape {found}, and one trial is {sizes(shape)}: these are likely the responses"
                f" of {found[0]} trials, so in a .npz or .safetensors file call that array 'responses'"
            )
        raise ShapeError(
            f"responses have {sizes(found)}, the checkpoint was fitted on {sizes(shape)}: "
            f"give the same subject's responses with the same {words(shape)[1]} in the same order"
        )
    responses = np.zeros((len(rows), *shape), np.float32)
    skipped: dict[int, str] = {}
    for trial in trials:
        fault = _fault(rows[trial], training)
        if fault is None:
            responses[trial] = rows[trial]
        else:
            skipped[trial] = fault
    warnings: list[str] = []
    good = [trial for trial in trials if trial not in skipped]
    if good:
        flat = responses.reshape(len(responses), -1)  # a view: what is replaced there is replaced here
        warnings = _check_scores(flat, good, skipped, training)
    looked_at = rows if len(trials) == len(rows) else [rows[trial] for trial in trials]
    cure = _places_to_leave_out(looked_at, shape)
    if len(skipped) == len(trials):
        first = min(skipped)
        raise InputError(
            f"none of the {len(trials)} trials can be reconstructed (trial {first}: {skipped[first]}): "
            f"{cure or 'check how the responses were exported'}"
        )
    if cure is not None:
        warnings.append(cure)
    return Screened(responses=responses, skipped=dict(sorted(skipped.items())), warnings=tuple(warnings))


def screen_trial(row: NDArray[Any], training: TrainingStatistics) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """One trial that comes alone, as a live epoch does, by the same measures as :func:`screen`.

    Parameters
    ----------
    row : (*response_shape)
    training
        Of the decoders.

    Returns
    -------
    response : (*response_shape) float32
        The mean of training where a value was taken as missing.
    warnings : sentences for the user

    Raises
    ------
    InputError
        It is bad, or not on the scale of training; the message is the reason.
    """
    fault = _fault(row, training)
    if fault is not None:
        raise InputError(fault)
    response, skipped = np.array(row, np.float32)[None], dict[int, str]()
    warnings = _check_scores(response.reshape(1, -1), [0], skipped, training)
    if skipped:
        raise InputError(skipped[0])
    return response[0], tuple(warnings)


def words(response_shape: tuple[int, ...]) -> tuple[str, str]:
    """What a number of one trial is called, one and several: a voxel where a trial is a row of them."""
    return ("voxel", "voxels") if len(response_shape) == 1 else ("value", "channels and samples")


def sizes(response_shape: tuple[int, ...]) -> str:
    """A trial's shape in words: "2000 voxels", "17 channels of 120 samples"."""
    if len(response_shape) == 1:
        return f"{response_shape[0]} voxels"
    if len(response_shape) == 2:
        return f"{response_shape[0]} channels of {response_shape[1]} samples"
    return f"the shape {response_shape}"


def _fault(row: NDArray[Any], training: TrainingStatistics) -> str | None:
    """What can be wrong with a trial whatever the training responses were."""
    shape = training.mean.shape
    if np.shape(row) != shape:
        return f"it has {sizes(np.shape(row))}, expected {sizes(shape) if len(shape) > 1 else shape[0]}"
    with np.errstate(over="ignore"):
        narrow = np.ravel(row).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(narrow))
    if len(bad):
        return f"{len(bad)} of {len(narrow)} values are NaN or infinite, in {_places(bad, training)}"
    if len(narrow) > 1 and bool((narrow == narrow[0]).all()):
        return f"every {words(shape)[0]} is {float(narrow[0]):g}"
    return None


def _places(values: NDArray[np.intp], training: TrainingStatistics) -> str:
    """Where values of the flattened responses are: which voxels, or which channels."""
    shape, layout = training.mean.shape, training.layout
    if len(shape) == 1:
        return numbers("voxel", values)
    channels = np.unique(values // shape[1])
    if layout is None or layout.channels is None:
        return numbers("channel", channels)
    named = ", ".join(layout.channels[channel].name for channel in channels[:_NAMED])
    more = ", …" if len(channels) > _NAMED else ""
    return f"channel {named}" if len(channels) == 1 else f"{len(channels)} channels ({named}{more})"


def _places_to_leave_out(rows: Rows, shape: tuple[int, ...]) -> str | None:
    """What a person can do where few voxels or channels hold the NaN of many trials; else None."""
    whole, place = [row for row in rows if np.shape(row) == shape], "voxel" if len(shape) == 1 else "channel"
    holes = find_holes(rows if isinstance(rows, np.ndarray) else np.stack(whole), place) if whole else None
    n_saved = 0 if holes is None else len(holes.trials) - len(holes.broken)
    if holes is None or n_saved < 2 or not holes.places_cost_less:
        return None
    return (
        f"{n_saved} trials hold NaN or infinite values in {numbers(place, holes.places)} only: leave these {place}s "
        "out, of the training data too, and fit again, and those trials can be reconstructed"
    )


def _check_scores(
    responses: NDArray[np.float32], good: Sequence[int], skipped: dict[int, str], training: TrainingStatistics
) -> list[str]:
    """Check the good rows (n_trials, n_values) by their z-scores: fill `skipped`, replace single values, and warn."""
    mean, varying = training.mean.ravel(), np.flatnonzero(training.std > 0)
    scores = z_scores(responses[good], mean, training.std.ravel())[:, varying]
    if not scores.size:
        return []
    found = [check_scale(scores, sensors=training.mean.ndim > 1)]
    far = np.abs(scores) > MOST_SD
    usual = ~_far_in_most(far)
    n_usual = np.count_nonzero(usual)
    replaced = np.zeros(len(varying), bool)
    several = "voxels" if training.mean.ndim == 1 else "values"
    for row, trial in enumerate(good):
        n_far = np.count_nonzero(far[row] & usual)
        if n_far > FEW * n_usual:
            others = "" if n_usual == len(varying) else " others of its"
            skipped[trial] = (
                f"{n_far} of {n_usual}{others} {several} lie more than {MOST_SD:g} standard deviations from training "
                f"(the furthest {np.abs(scores[row, usual]).max():.2g}): it is an artefact, in other units, or its "
                f"{several} are in another order"
            )
            responses[trial] = 0
        elif far[row].any():
            replacing = varying[far[row]]
            responses[trial, replacing] = mean[replacing]
            replaced |= far[row]
    kept = [trial for trial in good if trial not in skipped]
    if replaced.any():
        found.append(_replaced(varying[replaced], len(varying), training))
    if kept:
        found.append(order_warning(responses[kept], training))
    return [warning for warning in found if warning is not None]


def _far_in_most(far: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Values (n_values,) that lie far from training in more than half of the trials, by (n_trials, n_values)."""
    if len(far) < _TRIALS_TO_JUDGE_VALUES:
        return np.zeros(far.shape[1], bool)
    most: NDArray[np.bool_] = 2 * far.sum(axis=0) > len(far)
    return most


def _replaced(values: NDArray[np.intp], n_varying: int, training: TrainingStatistics) -> str:
    if training.mean.ndim == 1:
        named = ", ".join(map(str, values[:_NAMED].tolist())) + (", …" if len(values) > _NAMED else "")
        which, word = f"{len(values)} of {n_varying} voxels ({named})", "voxel"
    else:
        which, word = f"{len(values)} of {n_varying} values, in {_places(values, training)},", "value"
    return (
        f"{which} hold values more than {MOST_SD:g} standard deviations from training, as {word}s do that hardly "
        f"varied in training, or spikes: such a value is replaced by the {word}'s mean in training, which adds nothing "
        "to what is decoded"
    )
