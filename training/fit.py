"""Data folder and models to checkpoint: features, normalisers, decoders, mask.

Files of the checkpoint are finished one by one, and what takes long block by block, so that a killed fit goes on where
it was. Targets are read in chunks from the features' files; what memory holds is the responses and the weights of one
feature at a time (of the ridge 8 bytes per target and chosen voxel), while selection holds the weights of a block of
dimensions only. A fit holds the lock in its folder; a second one into it is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ..runtime.data.chain_files import copy_files, listed_files
from ..runtime.decoders.checkpoint import open_checkpoint
from ..runtime.decoders.files import DESCRIPTION, file_name, read_description
from ..runtime.errors import FileError, InputError
from ..runtime.features import EMBEDDING
from ..runtime.files import hash_of_json
from ..runtime.locks import inside, locked
from ..runtime.output import check_free, check_place
from ..runtime.progress import unheard
from .checkpoint_folder import NAME as JOURNAL
from .checkpoint_folder import WHAT, CheckpointFolder, advice, check_begun
from .concepts import unit, write_concepts
from .datasets.averaged import Averaged
from .datasets.base import Data, pictures_shown
from .fingerprint import early_key, ingredients_of
from .folds import folds_of
from .normalise import Normaliser, fit_normaliser
from .pieces import Job, description_of
from .regions import OfRegions
from .settings import FitModels, FitSettings, OnProgress, Say, cache_folder
from .training_pictures import write_training_pictures

if TYPE_CHECKING:
    from .features.extract import Features

Array = NDArray[Any]


def fit(
    data: Data,
    models: FitModels,
    out: Path,
    settings: FitSettings,
    *,
    progress: OnProgress | None = None,
    say: Say | None = None,
) -> Path:
    """Fit every decoder on the train split and write a checkpoint folder.

    Parameters
    ----------
    data : Data
        From `open_dataset`; only its train split is looked at.
    models : FitModels
        From `load_models`.
    out : Path
        Absent, empty, or begun by the same fit: then what is finished is kept. A finished checkpoint of the same
        data, models and settings is returned as it is.
    progress : callable, optional
        Receives (phase, done, total).
    say : callable, optional
        Receives single lines that a person should read.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    InputError
        Training trials with NaN, nothing that varies, no captions, too few stimuli for the folds, features that
        nothing can be fitted to, or a decoder that does not take such responses or gives NaN.
    FileError
        `out` belongs to another fit, which may be running, or to something else, or cannot be written.
    """
    out, settings = Path(out), settings.fitted_to(data.layout)
    data = _of_regions(data, settings)
    data = _averaged(data, settings) if settings.average_repetitions else cast(Data, _ReadOnce(data))
    normaliser = check(data, out, settings)
    ingredients = ingredients_of(data, models, settings)
    key = hash_of_json(ingredients)
    if (out / DESCRIPTION).exists():
        return _finished(out, key, data)
    with locked(inside(out), out):
        if (out / DESCRIPTION).exists():  # by another process, since
            return _finished(out, key, data)
        journal = CheckpointFolder(out, key, early_key(data, settings))
        job = Job(data, models, settings, journal, normaliser, progress or unheard, say or unheard)
        _write(job, job.features(out), key, ingredients)
    return out


def fit_key(data: Data, models: FitModels, settings: FitSettings) -> str:
    """SHA-256 of everything that decides the numbers of a fit: equal keys, equal checkpoints of one release."""
    settings = settings.fitted_to(data.layout)
    return hash_of_json(ingredients_of(_averaged(_of_regions(data, settings), settings), models, settings))


class _ReadOnce:
    """A data set whose training trials are in memory: every phase of a fit takes the same, whatever becomes of a file.

    It looks after reading whether the data were changed meanwhile, where the data set does so when it is asked.
    """

    def __init__(self, data: Data) -> None:
        self._data = data
        self._responses, self._stimulus = np.array(data.responses("train")), np.array(data.stimulus("train"))
        data.responses("train")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def responses(self, split: str) -> NDArray[np.float32]:
        return self._responses if split == "train" else self._data.responses(split)

    def stimulus(self, split: str) -> NDArray[np.int64]:
        return self._stimulus if split == "train" else self._data.stimulus(split)


def _write(job: Job, features: Features, key: str, ingredients: Mapping[str, Any]) -> None:
    arrays = _by_target(features, by_concepts=job.settings.concepts is not None)
    shapes = {name: tuple(array.shape[1:]) for name, array in arrays.items()}
    positions = {name: np.arange(prod(shape)) for name, shape in shapes.items()}
    if "context" in positions:
        positions["context"] = positions["context"][shapes["context"][-1] :]  # token 0 (BOS) is not decoded
    job.write_responses()
    job.write_constants(arrays.get("context"))
    route = {} if job.settings.concepts is None else write_concepts(job, job.settings.concepts, arrays["embedding"])
    groups = job.settings.groups(arrays)
    for group in groups:
        if "structure" not in group:
            job.write_decoder(group, arrays, positions)
    mask, correlations = job.write_mask(features)
    (last,) = (group for group in groups if "structure" in group)  # to which the selection says what is decoded
    job.write_decoder(last, arrays, {**positions, "structure": np.flatnonzero(mask)})
    write_training_pictures(job, arrays, {**positions, "structure": np.flatnonzero(mask)})
    job.write_scores(arrays, positions, correlations)
    job.write_curves(groups)
    if listed_files(job.data.layout.signal):
        copy_files(job.data.layout.signal, job.data.signal_folder, job.journal.folder)
    description = description_of(job, shapes, features, key, ingredients)
    job.journal.close(
        DESCRIPTION, description | route | {"shapes": {**description["shapes"], **route.get("shapes", {})}}
    )


def _by_target(features: Features, *, by_concepts: bool) -> dict[str, Array]:
    """What decoders are fitted to: the features, with the embedding in the context's place for its other route."""
    kinds: dict[str, Array] = {"latent": features.latent, "structure": features.structure}
    if by_concepts:
        assert features.embedding is not None  # it was asked for
        kinds = {EMBEDDING: unit(features.embedding), **kinds}
    elif features.context is None:
        raise InputError(_MUTE)
    else:
        kinds = {"context": features.context, **kinds}
    semantic = getattr(features, "semantic", None)
    return kinds if semantic is None else {**kinds, "semantic": semantic}


_MUTE = "the train split has no captions, which the context decoder is fitted to: add them to captions.json"


def check(data: Data, out: Path, settings: FitSettings) -> Normaliser:
    """Refuse what can be refused before models are opened or downloaded; returns the responses' statistics.

    Raises
    ------
    InputError
        As :func:`fit`, where the data alone are to blame.
    FileError
        As :func:`check_out`; or `out` holds a fit of other data or settings.
    """
    settings = settings.fitted_to(data.layout)
    check_out(out, settings)
    data = _averaged(_of_regions(data, settings), settings)
    normaliser = fit_normaliser(data.responses("train"))
    pictures = pictures_shown(data, "train")
    folds_of(pictures, settings.selection.n_folds)
    for name in settings.targets:
        if hasattr(settings.decoder(name), "hold_out"):
            settings.decoder(name).hold_out(pictures)  # type: ignore[attr-defined]
    if settings.concepts is None and len(data.captions("train")) == 0:
        raise InputError(_MUTE)
    about = early_key(data, settings)
    if (out / DESCRIPTION).exists():
        found = read_description(out)["provenance"].get("about")
        if isinstance(found, str) and found != about:
            raise _other(out)
    else:
        check_begun(out, about)
    return normaliser


def _of_regions(data: Data, settings: FitSettings) -> Data:
    """What is fitted to: every voxel, or those of some regions."""
    if settings.regions is None or isinstance(data, OfRegions | Averaged | _ReadOnce):
        return data
    return cast(Data, OfRegions(data, settings.regions))


def _averaged(data: Data, settings: FitSettings) -> Data:
    """What is fitted to: single trials, or each picture's mean over them, in memory."""
    if not settings.average_repetitions or isinstance(data, Averaged):
        return data
    return cast(Data, Averaged(data))


def check_out(out: Path, settings: FitSettings) -> None:
    """Refuse places that cannot be written or that hold something else.

    Raises
    ------
    FileError
        The checkpoint's folder or that of the features.
    """
    if os.path.lexists(out) and not os.path.isdir(out):
        raise FileError(f"{out} is a file, expected a folder to write to: choose another --out")
    check_place(out, f".{DESCRIPTION}.{os.getpid()}.draft", f".{file_name('normaliser')}.{os.getpid()}.draft")
    check_place(cache_folder(out, settings))
    if out.is_dir() and not any((out / name).exists() for name in (DESCRIPTION, JOURNAL)):
        check_free(out, WHAT)


def _finished(out: Path, key: str, data: Data) -> Path:
    if read_description(out)["provenance"].get("key") != key:
        raise _other(out)
    checkpoint = open_checkpoint(out)  # a damaged one is reported, not handed out
    try:  # the key says that responses are the same, number by number
        checkpoint.require_layout(data.layout)
    except InputError as error:
        raise InputError(
            f"{out} holds a checkpoint of these responses under other names ({error}): choose another --out"
        ) from error
    fitted, given = checkpoint.layout.rois, data.layout.rois
    if fitted is not None and given is not None and fitted.keys() != given.keys():  # a run does not mind, the scores do
        named = ", ".join(sorted(fitted.keys() ^ given.keys())[:4])
        raise InputError(f"{out} holds a checkpoint with scores of other rois ({named}): choose another --out")
    return out


def _other(out: Path) -> FileError:
    return FileError(f"{out} holds a checkpoint of other data, models or settings: {advice(out)}")
