"""What a data folder of schema version 1 must satisfy; each breach is one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError, InputError
from .nan import chunks, find_holes, numbers
from .plain import is_text, is_whole, plain_json

VERSION = 1
SPLITS = ("train", "test")
MODALITIES = ("fmri",)


def check_description(description: Mapping[str, Any], source: str) -> None:
    """Refuse a data.json with missing fields, wrong types, or ROIs that do not tile the voxels."""
    _require(is_text(description.get("subject")), source, "subject", "a name")
    _require(description.get("modality") in MODALITIES, source, "modality", " or ".join(map(repr, MODALITIES)))
    for name in ("n_voxels", "image_size"):
        _require(_is_count(description.get(name)), source, name, "a whole number above 0")
    _require(isinstance(description.get("provenance"), dict), source, "provenance", "an object, at least {}")
    try:
        plain_json(description["provenance"], "provenance")
    except InputError as error:
        raise FileError(f"{error} (in {source})") from None
    splits = description.get("splits")
    _require(isinstance(splits, dict), source, "splits", 'an object with "train" and "test"')
    for split in SPLITS:
        part = splits.get(split) if isinstance(splits, dict) else None
        good = isinstance(part, dict) and _is_count(part.get("n_trials"))
        _require(good, source, f"splits.{split}.n_trials", "a whole number above 0")
    _check_rois(description.get("rois"), description["n_voxels"], source)


def _check_rois(rois: object, n_voxels: int, source: str) -> None:
    if not isinstance(rois, dict) or not rois:
        raise FileError(f"rois in {source} is {rois!r:.60}: give an object of name to [start, stop]")
    expected = 0
    for name, span in rois.items():
        if not (isinstance(span, list | tuple) and len(span) == 2 and all(is_whole(edge) for edge in span)):
            raise FileError(f"roi {name!r:.40} in {source} is {span!r:.60}: give [start, stop] in voxels")
        start, stop = span
        if not is_text(name) or start != expected or stop <= start:
            raise FileError(
                f"roi {name!r:.40} in {source} spans {start!r:.20} to {stop!r:.20}: ROIs are named, follow each other "
                f"from voxel 0 without gap or overlap, and this one must start at {expected!r:.20}"
            )
        expected = stop
    if expected != n_voxels:
        raise FileError(
            f"the rois in {source} end at voxel {expected!r:.20}, n_voxels is {n_voxels!r:.20}: they must agree"
        )


def check_tensors(
    tensors: Mapping[str, NDArray[Any]], source: str, n_trials: int, n_voxels: int, n_stimuli: int | None
) -> None:
    """Refuse arrays of one split whose names, dtypes, shapes or values do not fit the description.

    Responses may be mapped: their values are not looked at. `n_stimuli` None leaves the values of all arrays alone.
    """
    wanted: dict[str, tuple[type, tuple[int, ...]]] = {
        "responses": (np.float32, (n_trials, n_voxels)),
        "stimulus": (np.int64, (n_trials,)),
    }
    if "noise_ceiling" in tensors:
        wanted["noise_ceiling"] = (np.float32, (n_voxels,))
    for name, (dtype, shape) in wanted.items():
        if name not in tensors:
            raise FileError(f"{source} has no array {name!r} (it has {', '.join(sorted(tensors)) or 'none'}): add it")
        array = tensors[name]
        if array.dtype != dtype or array.shape != shape:
            raise FileError(
                f"{name} in {source} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {str(shape):.60} "
                "(n_trials and n_voxels of data.json): write it again"
            )
    if n_stimuli is not None:
        _check_stimulus(tensors["stimulus"], source, n_stimuli)
        _check_ceiling(tensors.get("noise_ceiling"), source)


def _check_stimulus(stimulus: NDArray[np.int64], source: str, n_stimuli: int) -> None:
    outside = np.flatnonzero((stimulus < 0) | (stimulus >= n_stimuli))
    if not len(outside):
        return
    said = f"trial {outside[0]} in {source} showed stimulus {stimulus[outside[0]]}, but there are {n_stimuli} pictures"
    if stimulus.min() == 1 and stimulus.max() == n_stimuli:
        raise FileError(f"{said}, counted from 0: the indices seem to count from 1, subtract 1 from all of them")
    raise FileError(f"{said}, counted from 0: correct the index or add the picture")


def _check_ceiling(ceiling: NDArray[np.float32] | None, source: str) -> None:
    if ceiling is None:
        return
    missing = np.flatnonzero(np.isnan(ceiling))
    if len(missing):
        raise FileError(
            f"noise_ceiling in {source} is NaN in {numbers('voxel', missing)}: give 0 where it could not be computed, "
            "or leave the array out"
        )
    outside = np.flatnonzero((ceiling < 0) | (ceiling > 1))
    if len(outside):
        percent = ceiling.min() >= 0 and 1 < ceiling.max() <= 100
        cure = "divide it by 100" if percent else "bring it to 0 to 1"
        raise FileError(
            f"noise_ceiling in {source} has values outside 0 to 1 (first: {ceiling[outside[0]]:g} in voxel "
            f"{outside[0]}): it is a share of variance, not percent, so {cure}"
        )


def check_values(responses: NDArray[np.float32], split: str, source: str) -> None:
    """Refuse responses with holes that cannot be worked around, and training trials that hold no recording.

    In the test split a trial with NaN is left to the run, which leaves it out and says so; but not if all are so.
    """
    holes = find_holes(responses)
    if holes is not None and len(holes.broken) == holes.n_trials:
        raise FileError(
            f"every trial in {source} is NaN or infinite in more than half of the voxels ({holes.n_trials} trials): "
            "check how the responses were exported"
        )
    if holes is not None and holes.n_trials == 1:
        raise FileError(
            f"the only trial in {source} holds NaN or infinite responses in {numbers('voxel', holes.voxels)}: check "
            "how it was exported, or give another trial"
        )
    if holes is not None and len(holes.empty):
        raise FileError(
            f"{len(holes.empty)} of {holes.n_voxels} voxels in {source} are NaN or infinite in every trial "
            f"(first: voxel {holes.empty[0]}): leave these voxels out"
        )
    if holes is not None and (split == "train" or len(holes.trials) == holes.n_trials):
        raise FileError(
            f"{len(holes.trials)} of {holes.n_trials} trials in {source} hold NaN or infinite responses "
            f"(first: trial {holes.trials[0]}): {holes.cure()}"
        )
    if split == "train":
        _check_flat(responses, source)


def _check_flat(responses: NDArray[np.float32], source: str) -> None:
    """A row of equal values is what a recording that broke off is filled with; a run skips such test trials."""
    if responses.shape[1] == 1:
        return
    flat = [
        part.start + np.flatnonzero((responses[part] == responses[part, :1]).all(axis=1))
        for part in chunks(*responses.shape)
    ]
    trials = np.concatenate(flat)
    if len(trials):
        raise FileError(
            f"{numbers('trial', trials)} in {source} hold one value in all voxels ({responses[trials[0], 0]:g}), which "
            "no recording does: leave what was not recorded out"
        )


def constant_voxels(responses: NDArray[np.float32], source: str) -> NDArray[np.intp]:
    """Voxels that never change over the training trials; refused where there is no other."""
    if len(responses) == 1:
        raise FileError(f"{source} has a single trial: decoders need many, give at least some hundred")
    same = np.ones(responses.shape[1], bool)
    for part in chunks(*responses.shape):
        same &= (responses[part] == responses[:1]).all(axis=0)
    if same.all():
        raise FileError(
            f"every voxel in {source} is constant, all {len(responses)} trials are the same: check how they "
            "were exported"
        )
    return np.flatnonzero(same)


def check_captions(captions: object, split: str, source: str) -> None:
    """Refuse captions of one split that are not a list of non-empty lists of non-empty texts."""
    if not isinstance(captions, list):
        raise FileError(f"captions of {split} in {source} are {captions!r:.40}: give one list of captions per picture")
    if captions and all(isinstance(group, str) for group in captions):
        raise FileError(
            f"captions of {split} in {source} are a flat list of texts ({captions[0]!r:.40}, …): give a list per "
            f"picture, even for a single caption, such as [[{captions[0]!r:.40}], …]"
        )
    for index, group in enumerate(captions):
        if not (isinstance(group, list) and group and all(is_text(text) for text in group)):
            raise FileError(
                f"captions of {split} picture {index} in {source} are {group!r:.60}: give a list with at least one "
                "non-empty text"
            )


def _is_count(value: object) -> bool:
    return is_whole(value) and value > 0


def _require(good: object, source: str, name: str, expected: str) -> None:
    if not good:
        raise FileError(f"{name} in {source} is missing or wrong: expected {expected}")
