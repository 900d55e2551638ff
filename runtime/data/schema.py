"""What a data folder of schema version 1 must satisfy; each breach is one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError

VERSION = 1
SPLITS = ("train", "test")
MODALITIES = ("fmri",)


def check_description(description: Mapping[str, Any], source: str) -> None:
    """Refuse a data.json with missing fields, wrong types, or ROIs that do not tile the voxels."""
    _require(isinstance(description.get("subject"), str) and description["subject"], source, "subject", "a name")
    _require(description.get("modality") in MODALITIES, source, "modality", " or ".join(map(repr, MODALITIES)))
    for name in ("n_voxels", "image_size"):
        _require(_is_count(description.get(name)), source, name, "a whole number above 0")
    _require(isinstance(description.get("provenance"), dict), source, "provenance", "an object, at least {}")
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
        if not (isinstance(span, list | tuple) and len(span) == 2 and all(_is_int(edge) for edge in span)):
            raise FileError(f"roi {name!r} in {source} is {span!r:.60}: give [start, stop] in voxels")
        start, stop = span
        if not name or start != expected or stop <= start:
            raise FileError(
                f"roi {name!r} in {source} spans {start} to {stop}: ROIs are named, follow each other from voxel 0 "
                f"without gap or overlap, and this one must start at {expected}"
            )
        expected = stop
    if expected != n_voxels:
        raise FileError(f"the rois in {source} end at voxel {expected}, n_voxels is {n_voxels}: they must agree")


def check_tensors(
    tensors: Mapping[str, NDArray[Any]], source: str, n_trials: int, n_voxels: int, n_stimuli: int
) -> None:
    """Refuse arrays of one split whose names, dtypes, shapes or values do not fit the description."""
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
                f"{name} in {source} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape} "
                "(n_trials and n_voxels of data.json): write it again"
            )
    stimulus = tensors["stimulus"]
    outside = np.flatnonzero((stimulus < 0) | (stimulus >= n_stimuli))
    if len(outside):
        raise FileError(
            f"trial {outside[0]} in {source} showed stimulus {stimulus[outside[0]]}, but there are {n_stimuli} "
            "pictures, counted from 0: correct the index or add the picture"
        )
    ceiling = tensors.get("noise_ceiling")
    if ceiling is not None and not ((ceiling >= 0) & (ceiling <= 1)).all():
        raise FileError(f"noise_ceiling in {source} has values outside 0 to 1: it is a share of variance, not percent")


def check_finite(responses: NDArray[np.float32], split: str, source: str) -> None:
    """Refuse training responses with NaN, and test responses in which no trial is whole."""
    bad = ~np.isfinite(responses)
    if not bad.any():
        return
    empty = np.flatnonzero(bad.all(axis=0))
    if len(empty):
        raise FileError(
            f"{len(empty)} of {responses.shape[1]} voxels in {source} are NaN in every trial "
            f"(first: voxel {empty[0]}): leave these voxels out"
        )
    trials = np.flatnonzero(bad.any(axis=1))
    if split == "train" or len(trials) == len(responses):
        raise FileError(
            f"{len(trials)} of {len(responses)} trials in {source} hold NaN or infinite responses "
            f"(first: trial {trials[0]}): leave these trials out"
        )


def check_captions(captions: object, split: str, source: str) -> None:
    """Refuse captions of one split that are not a list of non-empty lists of non-empty strings."""
    if not isinstance(captions, list):
        raise FileError(f"captions of {split} in {source} are {captions!r:.40}: give one list of captions per picture")
    for index, group in enumerate(captions):
        if not (isinstance(group, list) and group and all(isinstance(text, str) and text.strip() for text in group)):
            raise FileError(
                f"captions of {split} picture {index} in {source} are {group!r:.60}: give at least one non-empty text"
            )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return _is_int(value) and value > 0  # type: ignore[operator]


def _require(good: object, source: str, name: str, expected: str) -> None:
    if not good:
        raise FileError(f"{name} in {source} is missing or wrong: expected {expected}")
