"""What a person hands to `write_data` of folder.py, brought to the schema's arrays and texts.

What can only mean one thing is converted; everything else is refused with the conversion to make.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError, ShapeError, check_choice
from .json_types import plain_json
from .layout import ResponseLayout, Roi, Rois
from .references import Reference
from .schema import SPLITS, VERSION
from .streamed import Streamed
from .trial_ids import default_trial_ids

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class SplitData:
    """One split to be written.

    Parameters
    ----------
    responses : (n_trials, n_voxels) of fMRI, (n_trials, n_channels, n_times) of EEG and MEG; not normalised, written as
        float32. Whole numbers are taken as they are (NSD's int16 are 300 times per cent signal change): divide them
        first where you want another unit. Or a :class:`~.streamed.Streamed`, whose blocks are made while it is written.
    stimulus : (n_trials,) whole numbers, which picture each trial showed, counted from 0.
    images : n_stimuli pictures, each (image_size, image_size, 3) uint8: an array, or any sequence that makes
        one picture at a time, so that large stimuli need not be held together. Or a list of what
        :func:`~.references.refer` gives: then pictures stay where they lie, of any size.
    captions : captions per picture, a list of texts or a single text each; empty when there are none (the test split
        only).
    noise_ceiling : of one trial's shape, in [0, 1], or None if unknown: the share of a trial's variance that the
        picture explains, the variance of the signal taken over the training pictures.
    trial_ids : one text per trial, all different, or None for split/stimulus/repetition; see :mod:`.trial_ids`.
    concepts : what each picture is of, one name per picture ("aardvark"), or None where that is not known.
    """

    responses: ArrayLike | Streamed
    stimulus: ArrayLike
    images: Sequence[Any] | Array
    captions: Sequence[Sequence[str] | str] | None = ()
    noise_ceiling: ArrayLike | None = None
    trial_ids: Sequence[str] | None = None
    concepts: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One split as it will be written: float32 and int64 `tensors`, `captions` as lists; `images` are made later.

    The tensor "responses" may be a :class:`~.streamed.Streamed`, which is made later too.

    `references` are all of the pictures, where they stay elsewhere.
    """

    tensors: dict[str, Any]
    images: Sequence[Any] | Array
    captions: list[list[str]]
    trial_ids: Sequence[str]
    concepts: Sequence[str]

    @property
    def references(self) -> list[Reference] | None:
        return references_in(self.images)


def parts_of(splits: Mapping[str, SplitData]) -> dict[str, Part]:
    """Both splits in the schema's types.

    Raises
    ------
    InputError
        A split is missing or unknown, or something in it cannot be converted; the message says how to.
    """
    for name in splits:
        check_choice("split", name, SPLITS)
    missing = [name for name in SPLITS if name not in splits]
    if missing:
        raise InputError(f"the {missing[0]} split is missing: give both train and test")
    kinds = {name: _responses(splits[name].responses, name) for name in SPLITS}
    (train, train_type), (test, test_type) = kinds["train"], kinds["test"]
    if (train_type.kind in "iu") != (test_type.kind in "iu"):
        raise InputError(
            f"the train responses are {train_type} and the test responses {test_type}: whole numbers are usually "
            "scaled (NSD's int16 by 300), so bring both splits to one unit and one type"
        )
    return {name: _part(splits[name], responses, name) for name, responses in (("train", train), ("test", test))}


def layout_of(parts: Mapping[str, Part], layout: ResponseLayout | None, rois: Rois | None) -> ResponseLayout:
    """The layout that was given; without one, that of fMRI responses with these rois.

    Raises
    ------
    InputError
        Both were given, or rois are wrong, or responses are no rows of voxels.
    """
    shape = parts["train"].tensors["responses"].shape[1:]
    if layout is not None:
        if rois is not None:
            raise InputError("rois and a layout were both given: a layout has its own rois")
        if not isinstance(layout, ResponseLayout):
            raise InputError(
                f"the layout is a {type(layout).__name__}: give a runtime.data.layout.ResponseLayout "
                "(ResponseLayout.from_json(layout, 'layout') makes one of a dict)"
            )
        return layout
    if len(shape) != 1:
        raise ShapeError(
            f"the responses of train are {parts['train'].tensors['responses'].shape}: expected (n_trials, n_voxels); "
            "of EEG and MEG, give their layout too (runtime.data.layout.ResponseLayout)"
        )
    return ResponseLayout(modality="fmri", shape=shape, rois=None if rois is None else _rois(rois))


def description_of(
    parts: Mapping[str, Part],
    *,
    subject: str,
    layout: ResponseLayout,
    image_size: int | None,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """data.json of these splits; what it says is checked by the schema."""
    return {
        "format": "minddiffuser-data",
        "version": VERSION,
        "subject": subject,
        **layout.as_json(),
        "image_size": _image_size(parts) if image_size is None else image_size,
        "provenance": plain_json(provenance, "provenance"),
        "splits": {name: {"n_trials": len(parts[name].tensors["responses"])} for name in SPLITS},
    }


def _image_size(parts: Mapping[str, Part]) -> int:
    """The side of the pictures, from the first that are given as pixels."""
    for name in SPLITS:
        if parts[name].references is None:
            return int(_first(parts[name].images, name).shape[0])
    raise InputError("the pictures stay where they lie, of any size: give image_size, the side in px of a square")


def picture(image: Any, image_size: int, name: str) -> NDArray[np.uint8]:
    """One picture, (image_size, image_size, 3) uint8.

    Raises
    ------
    ShapeError
        Of another layout, type or size; the message says how to convert it.
    """
    array = np.asarray(image)
    cure = _cure(array, image_size)
    if cure is not None:
        raise ShapeError(f"{name} is {array.dtype} {array.shape}, expected uint8 {(image_size, image_size, 3)}: {cure}")
    return array


def _cure(array: Array, size: int) -> str | None:
    """How a picture becomes what is expected, or None where it is; the layout first, then the type, then the size."""
    if array.dtype.kind not in "uifb":
        return "give arrays of pixels (runtime.images.read_image reads a PNG or JPEG file)"
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 1):
        return "a grey picture, make three equal channels of it: numpy.stack([picture.squeeze()] * 3, axis=-1)"
    if array.ndim != 3:
        return "give one array (height, width, 3) per picture"
    if array.shape[-1] == 4:
        return "drop the fourth channel (transparency): picture[..., :3]"
    if array.shape[-1] != 3:
        first = {1: "grey with its channel first: numpy.stack([picture[0]] * 3, axis=-1)"}
        first |= {3: "its channels come first: picture.transpose(1, 2, 0)"}
        first |= {4: "its channels come first, with transparency: picture[:3].transpose(1, 2, 0)"}
        return first.get(array.shape[0], "give one array (height, width, 3) per picture")
    if array.dtype != np.uint8:
        return _to_uint8(array)
    if 0 in array.shape:
        return "it is empty: give its pixels"
    if array.shape[:2] != (size, size):
        return f"bring all pictures to one square: runtime.images.fit_square(picture, {size})"
    return None


def _to_uint8(array: Array) -> str:
    if array.dtype.kind == "f" and array.size and array.min() >= 0 and array.max() <= 1:
        return "values from 0 to 1 become levels by (picture * 255).round().astype(numpy.uint8)"
    if array.dtype.kind == "f" and array.size and array.min() < 0 and array.min() >= -1 and array.max() <= 1:
        return "values from -1 to 1 become levels by ((picture + 1) * 127.5).round().astype(numpy.uint8)"
    if array.size and array.min() >= 0 and array.max() <= 255:
        return "values from 0 to 255 become levels by picture.round().astype(numpy.uint8)"
    return "bring its values to 0 to 255 and convert: picture.round().astype(numpy.uint8)"


def _first(images: Sequence[Any] | Array, name: str) -> NDArray[np.uint8]:
    """The first picture, whose side is that of all."""
    first = np.asarray(images[0])
    side = min(first.shape[:2]) if first.ndim == 3 and first.shape[-1] == 3 else max(first.shape, default=0)
    return picture(first, side, f"{name} picture 0")


def _part(split: SplitData, responses: NDArray[np.float32] | Streamed, name: str) -> Part:
    stimulus = _stimulus(split.stimulus, name)
    tensors: dict[str, Any] = {"responses": responses, "stimulus": stimulus}
    if split.noise_ceiling is not None:
        tensors["noise_ceiling"] = _numbers(split.noise_ceiling, f"noise_ceiling of {name}").astype(np.float32)
    if not hasattr(split.images, "__len__") or not hasattr(split.images, "__getitem__"):
        raise InputError(f"the pictures of {name} are a {type(split.images).__name__}: give an array or a list")
    if len(split.images) == 0:
        raise InputError(f"the {name} split has no picture: give at least one")
    references = references_in(split.images)
    if references is not None and len(references) < len(split.images):
        raise InputError(f"some pictures of {name} are pixels and some lie elsewhere: give all in one way")
    ids = default_trial_ids(name, stimulus) if split.trial_ids is None else split.trial_ids
    return Part(
        tensors=tensors,
        images=split.images,
        captions=_captions(split.captions, name),
        trial_ids=ids,
        concepts=_concepts(split.concepts, name),
    )


def references_in(images: Sequence[Any] | Array) -> list[Reference] | None:
    """Those pictures of a list that stay where they lie; None where there are none.

    A sequence that makes its pictures one at a time is not asked for any.
    """
    found = [image for image in images if isinstance(image, Reference)] if isinstance(images, list | tuple) else []
    return found or None


def _responses(given: ArrayLike | Streamed, name: str) -> tuple[NDArray[np.float32] | Streamed, np.dtype[Any]]:
    array = given if isinstance(given, Streamed) else _numbers(given, f"responses of {name}")
    if array.ndim < 2:
        raise ShapeError(
            f"the responses of {name} are {array.shape}: expected (n_trials, n_voxels), or (n_trials, n_channels, "
            "n_times)"
        )
    if 0 in array.shape:
        raise ShapeError(f"the responses of {name} are {array.shape}: a split has at least one trial and one value")
    if isinstance(array, Streamed) or array.dtype == np.float32:
        return array, array.dtype
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    lost = int(np.count_nonzero(np.isinf(narrow))) - int(np.count_nonzero(np.isinf(array)))
    if lost:
        raise InputError(
            f"the responses of {name} hold {lost} values beyond float32 (3e38): bring them to a usual unit"
        )
    return narrow, array.dtype


def _stimulus(given: ArrayLike, name: str) -> NDArray[np.int64]:
    array = _numbers(given, f"stimulus of {name}")
    if array.dtype.kind not in "iu":
        raise ShapeError(f"the stimulus of {name} is {array.dtype}: give whole numbers, stimulus.astype(numpy.int64)")
    if array.size and array.max() > np.iinfo(np.int64).max:
        raise InputError(f"the stimulus of {name} counts up to {array.max()}: give the numbers of its pictures")
    return array.astype(np.int64)


def _numbers(given: ArrayLike, what: str) -> Array:
    """A plain array of real numbers; what a mask hides becomes NaN."""
    try:
        masked = np.ma.is_masked(given)
        array = np.ma.filled(np.ma.asarray(given, np.float64), np.nan) if masked else np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ShapeError(f"the {what} cannot be made an array ({error}): give a numpy array") from error
    if array.dtype.kind not in "iuf":
        raise ShapeError(f"the {what} are {array.dtype}: give real numbers, such as float32")
    return array


def _captions(given: Sequence[Sequence[str] | str] | None, name: str) -> list[list[str]]:
    if given is None:
        return []
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise InputError(f"the captions of {name} are {given!r:.40}: give one list of captions per picture")
    # A single text is that picture's only caption; without this, list("cat") would give three captions.
    groups = [[group] if isinstance(group, str) else group for group in given]
    for index, group in enumerate(groups):
        if not hasattr(group, "__iter__"):
            raise InputError(f"the captions of {name} picture {index} are {group!r:.40}: give a list of texts")
    return [[str(text) if isinstance(text, str) else text for text in group] for group in groups]


def _concepts(given: Sequence[str] | None, name: str) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise InputError(f"the concepts of {name} are {given!r:.40}: give a list with one name per picture")
    return tuple(str(text) if isinstance(text, str) else text for text in given)


def _rois(rois: Mapping[str, Any]) -> dict[str, Roi]:
    """Each as the layout has it: a list or tuple is (start, stop); sets, arrays and range objects are voxels."""
    if not isinstance(rois, Mapping):
        raise InputError(f"rois are a {type(rois).__name__}: give name to (start, stop), such as {{'V1': (0, 340)}}")
    found: dict[str, Roi] = {}
    for name, roi in rois.items():
        if not isinstance(name, str):
            raise InputError(f"a roi is named {name!r:.40}: give a text")
        try:
            voxels = [operator.index(voxel) for voxel in roi]
        except TypeError:
            raise InputError(
                f"roi {name!r} is {roi!r:.60}: give (start, stop) in voxels, or a set of voxels, whole numbers"
            ) from None
        # Two numbers of an array are two voxels: only a pair that is written as one is a range.
        found[str(name)] = tuple(voxels) if isinstance(roi, list | tuple) else frozenset(voxels)  # type: ignore[assignment]
    return found
