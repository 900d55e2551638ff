"""What a data folder must satisfy; each breach is one sentence.

Version 2 is described here. Version 1, which knew fMRI alone, is read as version 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError, InputError
from ..files import check_format
from .chain import files_of
from .concepts import CONCEPTS
from .json_types import is_text, is_whole, plain_json
from .layout import ResponseLayout
from .nan import chunks, find_holes, numbers
from .pictures import STIMULI
from .trial_ids import TRIAL_IDS
from .voxels import VOXELS

VERSION = 2
SPLITS = ("train", "test")
# What a data folder holds besides the files of its signal chain.
CONTENT = (
    "data.json",
    "captions.json",
    CONCEPTS,
    TRIAL_IDS,
    STIMULI,
    VOXELS,
    *(f"{split}.safetensors" for split in SPLITS),
    "stimuli",
)
_READ = (1, 2)


def as_version_2(description: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A data.json of any version that is read, as one of version 2.

    Raises
    ------
    FileError
        It is of another format or version.
    """
    version = description.get("version")
    check_format(description, path, "data", version if version in _READ else VERSION)
    if version == VERSION:
        return dict(description)
    return {**description, "version": VERSION, "response_shape": [description.get("n_voxels")]}


def check_description(description: Mapping[str, Any], source: str) -> ResponseLayout:
    """Refuse a data.json of version 2 with missing fields or wrong types; returns the layout of its responses."""
    _require(is_text(description.get("subject")), source, "subject", "a name")
    _require(_is_count(description.get("image_size")), source, "image_size", "a whole number above 0")
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
    layout = ResponseLayout.from_json(description, source)
    taken = [name for name in files_of(layout.signal) if name.lower() in CONTENT]
    if taken:
        raise FileError(
            f"the signal chain in {source} names {taken[0]}, a name that the data folder's own files have: rename the "
            "chain's file"
        )
    return layout


def check_tensors(
    tensors: Mapping[str, NDArray[Any]], source: str, n_trials: int, layout: ResponseLayout, n_stimuli: int | None
) -> None:
    """Refuse arrays of one split whose names, dtypes, shapes or values do not fit the description.

    Responses may be mapped: their values are not looked at. `n_stimuli` None leaves the values of all arrays alone.
    """
    wanted: dict[str, tuple[type, tuple[int, ...]]] = {
        "responses": (np.float32, (n_trials, *layout.shape)),
        "stimulus": (np.int64, (n_trials,)),
    }
    if "noise_ceiling" in tensors:
        wanted["noise_ceiling"] = (np.float32, layout.shape)
    for name, (dtype, shape) in wanted.items():
        if name not in tensors:
            raise FileError(f"{source} has no array {name!r} (it has {', '.join(sorted(tensors)) or 'none'}): add it")
        array = tensors[name]
        if array.dtype != dtype or array.shape != shape:
            raise FileError(
                f"{name} in {source} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {str(shape):.60} "
                "(n_trials and response_shape of data.json): write it again"
            )
    if n_stimuli is not None:
        _check_stimulus(tensors["stimulus"], source, n_stimuli)
        _check_ceiling(tensors.get("noise_ceiling"), source, layout)


def _check_stimulus(stimulus: NDArray[np.int64], source: str, n_stimuli: int) -> None:
    outside = np.flatnonzero((stimulus < 0) | (stimulus >= n_stimuli))
    if not len(outside):
        return
    said = f"trial {outside[0]} in {source} showed stimulus {stimulus[outside[0]]}, but there are {n_stimuli} pictures"
    if stimulus.min() == 1 and stimulus.max() == n_stimuli:
        raise FileError(f"{said}, counted from 0: the indices seem to count from 1, subtract 1 from all of them")
    raise FileError(f"{said}, counted from 0: correct the index or add the picture")


def _check_ceiling(ceiling: NDArray[np.float32] | None, source: str, layout: ResponseLayout) -> None:
    if ceiling is None:
        return
    place = layout.axis
    missing = _places(np.isnan(ceiling))
    if len(missing):
        raise FileError(
            f"noise_ceiling in {source} is NaN in {numbers(place, missing)}: give 0 where it could not be computed, "
            "or leave the array out"
        )
    bad = (ceiling < 0) | (ceiling > 1)
    if bad.any():
        percent = ceiling.min() >= 0 and 1 < ceiling.max() <= 100
        cure = "divide it by 100" if percent else "bring it to 0 to 1"
        raise FileError(
            f"noise_ceiling in {source} has values outside 0 to 1 (first: {ceiling[bad][0]:g} in {place} "
            f"{_places(bad)[0]}): it is a share of variance, not percent, so {cure}"
        )


def _places(bad: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Numbers of the voxels or channels of `bad` (n_places, …) in which anything is true."""
    return np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))


def check_values(responses: NDArray[np.float32], split: str, source: str, place: str) -> None:
    """Refuse responses with holes that cannot be worked around, and training trials that hold no recording.

    In the test split a trial with NaN is left to the run, which leaves it out and says so; but not if all are so.

    Parameters
    ----------
    responses : (n_trials, n_places, …) float32, mapped or in memory.
    place : what a place is: "voxel" or "channel".
    """
    holes = find_holes(responses, place)
    if holes is not None and len(holes.broken) == holes.n_trials:
        raise FileError(
            f"every trial in {source} is NaN or infinite in more than half of the {place}s ({holes.n_trials} trials): "
            "check how the responses were exported"
        )
    if holes is not None and holes.n_trials == 1:
        raise FileError(
            f"the only trial in {source} holds NaN or infinite responses in {numbers(place, holes.places)}: check "
            "how it was exported, or give another trial"
        )
    if holes is not None and len(holes.empty):
        raise FileError(
            f"{len(holes.empty)} of {holes.n_places} {place}s in {source} are NaN or infinite in every trial "
            f"(first: {place} {holes.empty[0]}): leave these {place}s out"
        )
    if holes is not None and (split == "train" or len(holes.trials) == holes.n_trials):
        raise FileError(
            f"{len(holes.trials)} of {holes.n_trials} trials in {source} hold NaN or infinite responses "
            f"(first: trial {holes.trials[0]}): {holes.cure()}"
        )
    if split == "train":
        _check_flat(responses, source, place)


def _check_flat(responses: NDArray[np.float32], source: str, place: str) -> None:
    """A trial of equal values is what an interrupted recording is filled with; a run skips such test trials."""
    rows = responses.reshape(len(responses), -1)
    if rows.shape[1] == 1:
        return
    flat = [part.start + np.flatnonzero((rows[part] == rows[part, :1]).all(axis=1)) for part in chunks(rows.shape)]
    trials = np.concatenate(flat)
    if len(trials):
        raise FileError(
            f"{numbers('trial', trials)} in {source} hold one value in all {place}s ({rows[trials[0], 0]:g}), which "
            "no recording does: leave what was not recorded out"
        )


def constant_places(responses: NDArray[np.float32], source: str, place: str) -> NDArray[np.intp]:
    """Voxels or channels that never change over the training trials; refused where there is no other."""
    if len(responses) == 1:
        raise FileError(f"{source} has a single trial: decoders need many, give at least some hundred")
    changing = np.zeros(responses.shape[1], bool)
    for part in chunks(responses.shape):
        changing[_places((responses[part] != responses[:1]).any(axis=0))] = True
    if not changing.any():
        raise FileError(
            f"every {place} in {source} is constant, all {len(responses)} trials are the same: check how they "
            "were exported"
        )
    return np.flatnonzero(~changing)


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
