"""Data folder and models to checkpoint: features, normalisers, decoders, mask.

Files of the checkpoint are finished one by one, and what takes long block by block, so that a killed fit goes on where
it was. Targets are read in chunks from the features' files; what memory holds is the responses and the weights of one
feature at a time (of the ridge 8 bytes per target and chosen voxel), while selection holds the weights of a block of
dimensions only. A fit holds the lock in its folder; a second one into it is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..runtime.data.chain_files import copy_files, listed_files
from ..runtime.decoders.base import PLACEMENT, check_fitted
from ..runtime.decoders.checkpoint import open_checkpoint
from ..runtime.decoders.files import DESCRIPTION, KIND, VERSION, file_name, read_description
from ..runtime.errors import FileError, InputError, ShapeError
from ..runtime.files import read_tensors
from ..runtime.locks import inside, locked
from ..runtime.output import check_place
from . import scores
from .datasets.base import Data, pictures_shown
from .decoders.base import TARGETS, Decoder, changed, make_decoder, validates_itself
from .decoders.blocks import Block, block_size, blocks, goes_in_blocks
from .journal import NAME as JOURNAL
from .journal import Journal, advice, check_begun, refuse_strangers
from .normalise import Normaliser, TargetColumns, column_statistics, fit_normaliser
from .score_table import figure, remark
from .selection import SelectionSettings, Trials, best_per_layer, fold_correlations, folds_of, mean_over_folds

if TYPE_CHECKING:
    from .features.extract import Features

Array = NDArray[Any]
# (phase, done, total)
OnProgress = Callable[[str, int, int], None]
Say = Callable[[str], None]

FIGURE = "scores.svg"
# Under this name a decoder's file keeps its entry in the checkpoint's list, for a fit that goes on.
ENTRY = "decoder"


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How a checkpoint is fitted; the defaults are the paper's.

    Attributes
    ----------
    context, latent, structure, semantic : Decoder
        One fitter per feature, from :func:`~minddiffuser.training.decoders.base.make_decoder`.
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
        self.selecting()  # options that its decoder does not have are refused now, not after the features

    def selecting(self) -> Decoder:
        """The decoder of the selection's folds: the structure's own, or the ridge where that one validates itself.

        A network would be trained anew in every fold for every block of dimensions.
        """
        decoder = make_decoder("ridge", "structure") if validates_itself(self.structure) else self.structure
        n_selected = self.selection.n_selected
        return decoder if n_selected is None else changed(decoder, "structure", n_selected=n_selected)

    def decoder(self, target: str) -> Decoder:
        """The settings of one feature."""
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
    settings : FitSettings
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
        nothing can be fitted to, or a decoder that gives NaN.
    FileError
        `out` belongs to another fit, which may be running, or to something else, or cannot be written.
    """
    out = Path(out)
    data = cast(Data, _ReadOnce(data))
    normaliser = check(data, out, settings)
    ingredients = _ingredients(data, models, settings)
    key = _hash(ingredients)
    if (out / DESCRIPTION).exists():
        return _finished(out, key, data)
    with locked(inside(out), out):
        if (out / DESCRIPTION).exists():  # by another process, since
            return _finished(out, key, data)
        journal = Journal(out, key, _about(data, settings))
        job = _Job(data, models, settings, journal, normaliser, progress or _silent, say or _unsaid)
        _write(job, job.features(out), key, ingredients)
    return out


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


def _write(job: _Job, features: Features, key: str, ingredients: Mapping[str, Any]) -> None:
    arrays = _by_target(features)
    shapes = {name: tuple(array.shape[1:]) for name, array in arrays.items()}
    positions = {name: np.arange(prod(shape)) for name, shape in shapes.items()}
    positions["context"] = positions["context"][shapes["context"][-1] :]  # token 0 (BOS) is not decoded
    job.write_responses()
    job.write_constants(arrays["context"])
    for name in arrays:
        if name != "structure":
            job.write_target(name, arrays[name], positions[name])
    mask, correlations = job.write_mask(arrays["structure"])
    job.write_target("structure", arrays["structure"], np.flatnonzero(mask))
    job.write_scores(arrays, positions, correlations)
    if listed_files(job.data.layout.signal):
        copy_files(job.data.layout.signal, job.data.signal_folder, job.journal.path(DESCRIPTION).parent)
    job.journal.close(DESCRIPTION, _description(job, shapes, features, key, ingredients))


def _by_target(features: Features) -> dict[str, Array]:
    if features.context is None:
        raise InputError(_MUTE)
    kinds: dict[str, Array] = {"context": features.context, "latent": features.latent, "structure": features.structure}
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
    check_out(out, settings)
    normaliser = fit_normaliser(data.responses("train"))
    folds_of(pictures_shown(data, "train"), settings.selection.n_folds)
    if len(data.captions("train")) == 0:
        raise InputError(_MUTE)
    about = _about(data, settings)
    if (out / DESCRIPTION).exists():
        found = read_description(out)["provenance"].get("about")
        if isinstance(found, str) and found != about:
            raise _other(out)
    else:
        check_begun(out, about)
    return normaliser


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
    check_place(_cache_dir(out, settings))
    if out.is_dir() and not any((out / name).exists() for name in (DESCRIPTION, JOURNAL)):
        refuse_strangers(out)


def _cache_dir(out: Path, settings: FitSettings) -> Path:
    return settings.cache_dir or Path(os.path.realpath(out)).parent / "features"


def _silent(_phase: str, _done: int, _total: int) -> None:
    pass


def _unsaid(_line: str) -> None:
    pass


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _ingredients(data: Data, models: FitModels, settings: FitSettings) -> dict[str, Any]:
    """Everything that decides the numbers: the test split, threads and batch size do not."""
    return {**_own_ingredients(data, settings), "models": models.hash, "preset": models.preset}


def _about(data: Data, settings: FitSettings) -> str:
    """A hash of what decides the numbers and is known before models are opened."""
    return _hash(_own_ingredients(data, settings))


def _own_ingredients(data: Data, settings: FitSettings) -> dict[str, Any]:
    digest = hashlib.sha256()
    for array in (data.responses("train"), data.stimulus("train")):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    digest.update(data.hash("train").encode())
    pictures = pictures_shown(data, "train")
    # Only where it says more than the trials' numbers: a fit that was begun before goes on.
    copies = {} if np.array_equal(pictures, data.stimulus("train")) else {"pictures": pictures.tolist()}
    return {
        **copies,
        "version": VERSION,
        "subject": data.subject,
        "data": digest.hexdigest(),
        "settings": settings.deciding(),
    }


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
    return out


def _other(out: Path) -> FileError:
    return FileError(f"{out} holds a checkpoint of other data, models or settings: {advice(out)}")


@dataclass(frozen=True)
class _Job:
    """One fit: what every step needs. Each `write_…` does nothing when its file is finished."""

    data: Data
    models: FitModels
    settings: FitSettings
    journal: Journal
    normaliser: Normaliser
    progress: OnProgress
    say: Say

    @property
    def stimulus(self) -> NDArray[np.int64]:
        return self.data.stimulus("train")

    def features(self, out: Path) -> Features:
        """Features of the training stimuli, mapped from files."""
        from .features.extract import extract_features

        return extract_features(
            self.data,
            "train",
            self.models,  # type: ignore[arg-type]
            cache_dir=_cache_dir(out, self.settings),
            batch_size=self.settings.batch_size,
            progress=self._phase("features"),
            say=self.say,
        )

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
        """Fit and write the decoder of one feature for the flattened `positions`."""
        if file_name(name) in self.journal.files:
            self.progress(name, len(positions), len(positions))
            return
        flat = features.reshape(len(features), -1)
        targets = TargetColumns(flat, self.stimulus, positions, column_statistics(flat, self.stimulus))
        fit = self._fit_in_blocks if goes_in_blocks(self.settings.decoder(name)) else self._fit_whole
        arrays, entry = fit(name, targets, flat)
        placement = (positions.astype(np.int32), targets.mean, targets.std)
        arrays |= {f"{name}.{key}": array for key, array in zip(PLACEMENT, placement, strict=True)}
        self.journal.write(file_name(name), arrays, {ENTRY: json.dumps({"features": [name], **entry})})

    @property
    def pictures(self) -> NDArray[np.int64]:
        """The same for training trials of the same picture, (n_trials,)."""
        return pictures_shown(self.data, "train")

    def _fit_whole(self, name: str, targets: TargetColumns, features: Array) -> tuple[dict[str, Array], dict[str, Any]]:
        """The arrays of a decoder that is fitted in one go, and its entry in the checkpoint's list."""
        decoder, responses = self.settings.decoder(name), self.normaliser(self.data.responses("train"))
        fitted = decoder.fit(
            responses,
            targets,
            pictures=self.pictures,
            n_threads=self.settings.n_threads,
            progress=self._phase(name),
        )
        arrays, described = fitted.arrays(), fitted.described()
        check_fitted(fitted.kind, arrays, name, targets.shape[1])
        held_out = getattr(fitted, "held_out", None)
        if held_out is not None:
            found = scores.validation_part(
                fitted, responses[held_out], features, self.stimulus[held_out], self.pictures[held_out], name, targets
            )
            self.journal.keep(scores.validation_name(name), found)
            told = described.get("validation", {})
            self.say(_validated(name, told) if told else f"{name}: {int(held_out.sum())} trials held out")
        return dict(arrays), {"kind": fitted.kind, **described}

    def _fit_in_blocks(
        self, name: str, targets: TargetColumns, _features: Array
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """The arrays of a linear decoder; of a large one, block by block, each kept until the file is whole."""
        decoder, n_targets = self.settings.decoder(name), targets.shape[1]
        spans = list(blocks(n_targets, block_size(decoder, self.data.responses("train").shape)))
        parts = {(start, stop): f"{name}-{start:08d}" for start, stop in spans}
        left = [span for span in spans if not self.journal.has(parts[span])]
        done = n_targets - sum(stop - start for start, stop in left)
        if done > 0:
            self.progress(name, done, n_targets)
        responses = self.normaliser(self.data.responses("train")) if left else np.empty((0, 0))
        for start, stop in left:

            def report(n: int, _of: int, before: int = done) -> None:
                self.progress(name, before + n, n_targets)

            block = Block(targets, start, stop)
            fitted = decoder.fit(responses, block, n_threads=self.settings.n_threads, progress=report)
            arrays = fitted.arrays()
            check_fitted("linear", arrays, name, stop - start)  # only linear decoders are fitted in blocks
            if len(spans) == 1:
                return arrays, {"kind": "linear"}
            self.journal.keep(parts[start, stop], arrays)
            done += stop - start
        return self._joined(name, parts), {"kind": "linear"}

    def _joined(self, name: str, parts: Mapping[tuple[int, int], str]) -> dict[str, Array]:
        """The kept blocks as whole arrays."""
        whole: dict[str, Array] = {}
        n_targets = max(stop for _, stop in parts)
        for (start, stop), part in parts.items():
            arrays = self.journal.part(part) or {}
            for key, array in arrays.items():
                made = whole.setdefault(key, np.empty((n_targets, *array.shape[1:]), array.dtype))
                if made.shape[1:] != array.shape[1:]:
                    raise ShapeError(
                        f"the decoder of {name} gave {array.shape[1]} weights per target, and {made.shape[1]} before: "
                        "a fitter with `block` uses as many for each"
                    )
                made[start:stop] = array
        return whole

    def write_mask(self, structure: Array) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Select structure dimensions; returns the mask (6, n_tokens, d_vision) and each fold's correlations."""
        name, settings = file_name("mask"), self.settings
        correlations = fold_correlations(
            Trials(self.data.responses("train"), self.stimulus, self.pictures),
            structure.reshape(len(structure), -1),
            settings.selecting(),
            settings.selection,
            n_threads=settings.n_threads,
            progress=self._phase("selection"),
            parts=self.journal,
        )
        if name in self.journal.files:
            return read_tensors(self.journal.path(name), "the mask")["mask"], correlations
        score = mean_over_folds(correlations, settings.selection).reshape(structure.shape[1:])
        mask = best_per_layer(score, settings.selection.percent)
        self.journal.write(name, {"mask": mask, "score": score}, {"preset": self.models.preset})
        return mask, correlations

    def write_scores(
        self,
        features: Mapping[str, Array],
        positions: Mapping[str, NDArray[np.intp]],
        correlations: NDArray[np.float64],
    ) -> None:
        """Say how well each feature is decoded, for people and for programs."""
        selection, threads = self.settings.selection, self.settings.n_threads
        folded = [name for name in features if not validates_itself(self.settings.decoder(name))]
        sources = scores.Sources(
            responses=self.data.responses("train"),
            stimulus=self.stimulus,
            rois=self.data.layout.rois or {},
            features={name: features[name].reshape(len(features[name]), -1) for name in folded},
            positions={name: positions[name] for name in folded},
            decoders={name: self.settings.decoder(name) for name in folded},
            pictures=self.pictures,
        )
        found = scores.feature_scores(
            sources, selection, n_threads=threads, progress=self._phase("scores"), parts=self.journal
        )
        found |= {name: self._validated(name) for name in features if name not in folded}
        kept = scores.selection_scores(
            correlations, features["structure"].shape[1:], selection, self.settings.selecting().describe()["fitter"]
        )
        made = scores.all_scores({name: found[name] for name in features}, kept, selection.n_folds)
        self.journal.write_bytes(scores.NAME, scores.scores_bytes(made))
        self.journal.write_bytes(FIGURE, figure(made, remark(self.data.provenance)).encode())

    def _validated(self, name: str) -> scores.FeatureScores:
        part = self.journal.part(scores.validation_name(name))
        if part is None:
            folder = self.journal.path(DESCRIPTION).parent
            raise FileError(f"the unfinished fit in {folder} lacks the scores of {name}: delete {folder} and run again")
        return scores.validation_scores(part)


def _validated(name: str, found: Mapping[str, Any]) -> str:
    return (
        f"{name}: validation loss {found['loss']:.3f} of epoch {found['epoch']}, on {found['n_trials']} held-out "
        "trials (1 is the loss of the mean)"
    )


def _to_numpy(values: Any) -> Array:
    """A tensor of any device, or an array, as numpy."""
    if isinstance(values, np.ndarray):
        return values
    array: Array = values.detach().float().cpu().numpy()
    return array


def _description(
    job: _Job, shapes: Mapping[str, tuple[int, ...]], features: Features, key: str, ingredients: Mapping[str, Any]
) -> dict[str, Any]:
    data, models, selection = job.data, job.models, job.settings.selection
    decoders = []
    for name in shapes:
        how = job.settings.decoder(name).describe()
        if "n_selected" in how:
            how["n_selected"] = min(how["n_selected"], data.layout.n_features)
        decoders.append({**json.loads(job.journal.metadata(file_name(name))[ENTRY]), "fit": how})
    return {
        "format": f"minddiffuser-{KIND}",
        "version": VERSION,
        "subject": data.subject,
        "layout": data.layout.as_json(),
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
            "about": _about(data, job.settings),
            "data_hash": ingredients["data"],
            "n_trials": len(job.stimulus),
            "n_stimuli": len(np.unique(job.stimulus)),
            "constant": job.normaliser.constant.tolist(),
            "data": data.provenance,
            "python": platform.python_version(),
            "libraries": job.journal.libraries,
            "features": {"key": features.key, "libraries": features.libraries},
        },
        "files": dict(sorted({**job.journal.files, **listed_files(data.layout.signal)}.items())),
    }
