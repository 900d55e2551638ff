"""Data folder and models to checkpoint: features, normalisers, decoders, mask.

Files of the checkpoint are finished one by one, so that a killed fit goes on where it was. Targets are read in chunks
from the features' files; what memory holds is the responses and the weights of one target kind at a time, 8 bytes per
target and chosen voxel, while selection holds the weights of a block of dimensions only.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..runtime.checkpoint import DECODER_ARRAYS, DESCRIPTION, KIND, VERSION, file_name, read_description
from ..runtime.data.target import check_place
from ..runtime.decode import open_checkpoint
from ..runtime.errors import FileError, InputError, ShapeError
from ..runtime.files import read_tensors
from .datasets.base import Data
from .decoders.base import TARGETS, Decoder, changed, make_decoder
from .journal import Journal
from .normalise import Normaliser, TargetColumns, column_statistics, fit_normaliser
from .selection import SelectionSettings, best_per_layer, cross_validated_correlation, folds_of

Array = NDArray[Any]
# (phase, done, total)
OnProgress = Callable[[str, int, int], None]

_LIBRARIES = ("minddiffuser", "numpy", "scipy", "torch", "diffusers", "transformers", "open_clip_torch")


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How a checkpoint is fitted; the defaults are the paper's.

    Attributes
    ----------
    context, latent, structure, semantic : Decoder
        One decoder per target kind, from :func:`~minddiffuser.training.decoders.base.make_decoder`.
    selection : SelectionSettings
        Algorithm 1; only selected structure dimensions are fitted and decoded.
    cache_dir : Path, optional
        Where features are kept; "features" beside the checkpoint when not given.
    batch_size : int
        Stimuli per forward pass of the models.
    n_threads : int, optional
        All usable CPUs when not given.
    """

    context: Decoder = field(default_factory=lambda: make_decoder("ridge", "context"))
    latent: Decoder = field(default_factory=lambda: make_decoder("ridge", "latent"))
    structure: Decoder = field(default_factory=lambda: make_decoder("ridge", "structure"))
    semantic: Decoder = field(default_factory=lambda: make_decoder("ridge", "semantic"))
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    cache_dir: Path | None = None
    batch_size: int = 32
    n_threads: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("batch_size", self.batch_size), ("n_threads", self.n_threads)):
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}, expected at least 1")

    def decoder(self, target: str) -> Decoder:
        """The settings of one target kind."""
        decoder: Decoder = getattr(self, target)
        return decoder

    def deciding(self) -> dict[str, Any]:
        """What changes the result, as JSON."""
        kept = {name: self.decoder(name).describe() for name in TARGETS}
        return {**kept, "selection": asdict(self.selection)}


class FitModels(Protocol):
    """What fitting needs of models: :class:`~minddiffuser.runtime.models.models.Models` has it."""

    @property
    def name(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def preset(self) -> str: ...
    @property
    def image_size(self) -> int: ...

    def encode_text(self, captions: list[str]) -> Any:
        """Captions to contexts, tensor (n, 15, d_text)."""
        ...


def fit(data: Data, models: FitModels, out: Path, settings: FitSettings, *, progress: OnProgress | None = None) -> Path:
    """Fit every decoder on the train split and write a checkpoint folder.

    Parameters
    ----------
    data : Data
        From `open_dataset`; only its train split is looked at.
    models : FitModels
        From `load_models`.
    out : Path
        Absent, empty, or begun by the same fit: then finished files are kept. A finished checkpoint of the same
        data, models and settings is returned as it is.
    settings : FitSettings
    progress : callable, optional
        Receives (phase, done, total).

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    InputError
        Training trials with NaN, no voxel that varies, no captions, or too few stimuli for the folds.
    FileError
        `out` belongs to another fit or to something else, or cannot be written.
    """
    out = Path(out)
    check_out(out, settings)
    normaliser = fit_normaliser(data.responses("train"))
    folds_of(data.stimulus("train"), settings.selection.n_folds)  # too few stimuli are refused before hours of work
    ingredients = _ingredients(data, models, settings)
    key = hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()
    if (out / DESCRIPTION).exists():
        return _finished(out, key, data)
    journal = Journal(out, key)
    job = _Job(data, models, settings, journal, normaliser, progress or _silent)
    features = job.features(out)
    shapes = {name: tuple(array.shape[1:]) for name, array in features.items()}
    job.write_responses()
    job.write_constants(features["context"])
    for name in features:
        if name != "structure":
            first = shapes[name][-1] if name == "context" else 0  # token 0 (BOS) is not decoded
            job.write_target(name, features[name], np.arange(first, prod(shapes[name])))
    mask = job.write_mask(features["structure"])
    job.write_target("structure", features["structure"], np.flatnonzero(mask))
    journal.close(DESCRIPTION, _description(job, shapes, key, ingredients))
    return out


def check_out(out: Path, settings: FitSettings) -> None:
    """Refuse places that cannot be written; call it before models are loaded.

    Raises
    ------
    FileError
        The checkpoint's folder or that of the features.
    """
    if os.path.lexists(out) and not os.path.isdir(out):
        raise FileError(f"{out} is a file, expected a folder to write to: choose another --out")
    check_place(out, f".{DESCRIPTION}.{os.getpid()}.draft", f".{file_name('normaliser')}.{os.getpid()}.draft")
    check_place(_cache_dir(out, settings))


def _cache_dir(out: Path, settings: FitSettings) -> Path:
    return settings.cache_dir or Path(os.path.realpath(out)).parent / "features"


def _silent(_phase: str, _done: int, _total: int) -> None:
    pass


def _ingredients(data: Data, models: FitModels, settings: FitSettings) -> dict[str, Any]:
    """Everything that decides the numbers: the test split, threads and batch size do not."""
    digest = hashlib.sha256()
    for array in (data.responses("train"), data.stimulus("train")):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    digest.update(data.hash("train").encode())
    return {
        "version": VERSION,
        "subject": data.subject,
        "data": digest.hexdigest(),
        "models": models.hash,
        "preset": models.preset,
        "settings": settings.deciding(),
    }


def _finished(out: Path, key: str, data: Data) -> Path:
    found = read_description(out)["provenance"].get("key")
    if found != key:
        raise FileError(
            f"{out} holds a checkpoint of other data, models or settings: choose another --out, or delete that folder"
        )
    open_checkpoint(out).require_rois(data.rois)  # a damaged one is reported, not handed out
    return out


@dataclass(frozen=True)
class _Job:
    """One fit: what every step needs. Each `write_…` does nothing when its file is finished."""

    data: Data
    models: FitModels
    settings: FitSettings
    journal: Journal
    normaliser: Normaliser
    progress: OnProgress

    @property
    def stimulus(self) -> NDArray[np.int64]:
        return self.data.stimulus("train")

    def features(self, out: Path) -> dict[str, Array]:
        """Features of the training stimuli by target kind, mapped from files, (n_stimuli, …) float32."""
        from .features.extract import extract_features

        found = extract_features(
            self.data,
            "train",
            self.models,  # type: ignore[arg-type]
            cache_dir=_cache_dir(out, self.settings),
            batch_size=self.settings.batch_size,
            progress=self._phase("features"),
        )
        if found.context is None:
            raise InputError(
                "the train split has no captions, which the context decoder is fitted to: add them to captions.json"
            )
        kinds = {"context": found.context, "latent": found.latent, "structure": found.structure}
        semantic = getattr(found, "semantic", None)
        return kinds if semantic is None else {**kinds, "semantic": semantic}

    def _phase(self, name: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(name, done, total)

    def write_responses(self) -> None:
        if file_name("normaliser") not in self.journal.files:
            arrays = {"mean": self.normaliser.mean, "std": self.normaliser.std}
            self.journal.write(file_name("normaliser"), arrays)

    def write_constants(self, context: Array) -> None:
        if file_name("constants") in self.journal.files:
            return
        # Token 0 attends to itself alone, so it is the same for every caption up to rounding.
        bos = np.asarray(context[:, 0], np.float64)[self.stimulus].mean(axis=0)
        uncond = np.asarray(_to_numpy(self.models.encode_text([""]))[0], np.float32)
        arrays = {"context_bos": bos.astype(np.float32), "uncond_context": uncond}
        self.journal.write(file_name("constants"), arrays)

    def write_target(self, name: str, features: Array, positions: NDArray[np.intp]) -> None:
        """Fit and write the decoder of one target kind for the flattened `positions`."""
        if file_name(name) in self.journal.files:
            self.progress(name, len(positions), len(positions))
            return
        flat = features.reshape(len(features), -1)
        targets = TargetColumns(flat, self.stimulus, positions, column_statistics(flat, self.stimulus))
        fitted = self.settings.decoder(name).fit(
            self.normaliser(self.data.responses("train")),
            targets,
            n_threads=self.settings.n_threads,
            progress=self._phase(name),
        )
        arrays = {
            **_in_layout(name, fitted.arrays(), len(positions)),
            "position": positions.astype(np.int32),
            "target_mean": targets.mean,
            "target_std": targets.std,
        }
        self.journal.write(file_name(name), arrays)

    def write_mask(self, structure: Array) -> NDArray[np.bool_]:
        """Select structure dimensions; returns the mask, (6, n_tokens, d_vision)."""
        name, settings = file_name("mask"), self.settings
        if name in self.journal.files:
            return read_tensors(self.journal.path(name), "the mask")["mask"]
        decoder = settings.structure
        if settings.selection.n_selected is not None:
            decoder = changed(decoder, "structure", n_selected=settings.selection.n_selected)
        score = cross_validated_correlation(
            self.data.responses("train"),
            structure.reshape(len(structure), -1),
            self.stimulus,
            decoder,
            settings.selection,
            n_threads=settings.n_threads,
            progress=self._phase("selection"),
        ).reshape(structure.shape[1:])
        mask = best_per_layer(score, settings.selection.percent)
        self.journal.write(name, {"mask": mask, "score": score}, {"preset": self.models.preset})
        return mask


def _in_layout(name: str, arrays: dict[str, Array], n_targets: int) -> dict[str, Array]:
    """Refuse a decoder whose arrays decoding could not read, before they become a file."""
    shape = arrays["index"].shape if "index" in arrays else ()
    good = (
        arrays.keys() == DECODER_ARRAYS.keys()
        and all(arrays[key].dtype == dtype for key, dtype in DECODER_ARRAYS.items())
        and len(shape) == 2
        and shape == arrays["weight"].shape
        and arrays["bias"].shape == (n_targets,) == shape[:1]
    )
    if not good:
        got = ", ".join(f"{key} {array.dtype} {array.shape}" for key, array in sorted(arrays.items()))
        raise ShapeError(
            f"the decoder of {name} gave {got}: a checkpoint holds index int32 and weight float32 "
            f"({n_targets}, n_selected) and bias float32 ({n_targets},)"
        )
    return arrays


def _to_numpy(values: Any) -> Array:
    """A tensor of any device, or an array, as numpy."""
    if isinstance(values, np.ndarray):
        return values
    array: Array = values.detach().float().cpu().numpy()
    return array


def _description(
    job: _Job, shapes: Mapping[str, tuple[int, ...]], key: str, ingredients: Mapping[str, Any]
) -> dict[str, Any]:
    data, models, selection = job.data, job.models, job.settings.selection
    decoders = {name: job.settings.decoder(name).describe() for name in shapes}
    for decoder in decoders.values():
        if "n_selected" in decoder:
            decoder["n_selected"] = min(decoder["n_selected"], data.n_voxels)
    return {
        "format": f"minddiffuser-{KIND}",
        "version": VERSION,
        "subject": data.subject,
        "modality": data.modality,
        "n_voxels": data.n_voxels,
        "rois": {name: list(span) for name, span in data.rois.items()},
        "preset": models.preset,
        "models": {"name": models.name, "hash": models.hash},
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "image_size": models.image_size,
        "decoders": decoders,
        "selection": {
            "percent": selection.percent,
            "signed": not selection.absolute,
            "n_folds": selection.n_folds,
            "n_selected": selection.n_selected,
            "seed": selection.seed,
        },
        "provenance": {
            "key": key,
            "data_hash": ingredients["data"],
            "n_trials": len(job.stimulus),
            "n_stimuli": len(np.unique(job.stimulus)),
            "constant_voxels": job.normaliser.constant.tolist(),
            "data": data.provenance,
            "python": platform.python_version(),
            "libraries": _versions(),
        },
        "files": dict(sorted(job.journal.files.items())),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
