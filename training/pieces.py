"""The files of a checkpoint, written one by one; each is passed over where it is finished already."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.data.chain_files import listed_files
from ..runtime.data.layout import Rois
from ..runtime.data.voxels import VOXELS, tensors_of
from ..runtime.decoders.base import PLACEMENT, check_fitted
from ..runtime.decoders.best import best_per_layer
from ..runtime.decoders.files import KIND, VERSION, decoder_part, file_name
from ..runtime.environment import versions
from ..runtime.errors import FileError, ShapeError
from ..runtime.files import read_metadata, read_tensors
from ..runtime.leaks import labelled
from ..runtime.regions import FIELD as REGIONS
from ..runtime.split import FIELD as SPLIT
from . import curves, libraries, scores
from .checkpoint_folder import CheckpointFolder
from .curves import Curve, as_part, from_part, part_name
from .datasets.base import Data, pictures_shown
from .decoders.base import FittedDecoder, settled, validates_itself
from .decoders.blocks import Block, block_size, blocks, goes_in_blocks
from .fingerprint import early_key, trials_of
from .kept_selection import kept_or_made
from .networks.loop import Keeping
from .normalise import Normaliser, TargetColumns, ZScored, column_statistics
from .score_table import figure, remark
from .selection import Trials, fold_correlations, mean_over_folds
from .settings import FitModels, FitSettings, OnProgress, Say, cache_folder

if TYPE_CHECKING:
    from .features.extract import Features

Array = NDArray[Any]

FIGURE = "scores.svg"
# Under this name a decoder's file keeps its entry in the checkpoint's list, for a fit that goes on.
ENTRY = "decoder"


@dataclass(frozen=True)
class Job:
    """One fit: what every step needs. Each `write_…` does nothing when its file is finished."""

    data: Data
    models: FitModels
    settings: FitSettings
    journal: CheckpointFolder
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
            cache_dir=cache_folder(out, self.settings),
            batch_size=self.settings.batch_size,
            embedding=self.settings.concepts is not None,
            progress=self._phase("features"),
            say=self.say,
        )

    def _phase(self, name: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(name, done, total)

    def write_responses(self) -> None:
        if file_name("normaliser") not in self.journal.files:
            leak, own = self.settings.leak, (self.normaliser.mean, self.normaliser.std)
            mean, std = own if leak is None or leak.statistics is None else leak.statistics
            self.journal.write(file_name("normaliser"), {"mean": mean, "std": std})
        if self.data.layout.voxels is not None:
            self.journal.write(VOXELS, tensors_of(self.data.layout.voxels))

    def write_constants(self, context: Array | None) -> None:
        """From the contexts of the captions, where these are decoded."""
        if file_name("constants") in self.journal.files:
            return
        uncond = np.asarray(_to_numpy(self.models.encode_text([""]))[0], np.float32)
        # Token 0 attends to itself alone, so it is the same for every caption up to rounding.
        bos = uncond[0] if context is None else np.asarray(context[:, 0], np.float64)[self.stimulus].mean(axis=0)
        arrays = {"context_bos": bos.astype(np.float32), "uncond_context": uncond}
        self.journal.write(file_name("constants"), arrays)

    def write_decoder(
        self, group: tuple[str, ...], features: Mapping[str, Array], positions: Mapping[str, NDArray[np.intp]]
    ) -> None:
        """Fit and write the decoder of one feature or of several, for the flattened `positions` of each."""
        file, label = file_name(decoder_part(group)), ", ".join(group)
        if file in self.journal.files:
            n_dimensions = sum(len(positions[name]) for name in group)
            self.progress(label, n_dimensions, n_dimensions)
            return
        flat = {name: features[name].reshape(len(features[name]), -1) for name in group}
        targets = {
            name: TargetColumns(rows, self.stimulus, positions[name], column_statistics(rows, self.stimulus))
            for name, rows in flat.items()
        }
        first, decoder = group[0], self.settings.decoder(group[0])
        if hasattr(decoder, "fit_together"):
            arrays, entry = self._fit_network(targets, flat)
        elif goes_in_blocks(decoder):
            arrays, entry = self._fit_in_blocks(first, targets[first])
        else:
            arrays, entry = self._fit_whole(first, targets[first], flat[first])
        for name, columns in targets.items():
            placement = (positions[name].astype(np.int32), columns.mean, columns.std)
            arrays |= {f"{name}.{key}": array for key, array in zip(PLACEMENT, placement, strict=True)}
        self.journal.write(file, arrays, {ENTRY: json.dumps({"features": list(group), **entry})})

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
            self._keep_validation(name, fitted, held_out, responses[held_out], features, targets)
            self.say(f"{name}: {int(held_out.sum())} trials held out")
        return dict(arrays), {"kind": fitted.kind, **described}

    def _fit_network(
        self, targets: Mapping[str, TargetColumns], features: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """The arrays of one network for some features and its entry in the list; training goes on where it was."""
        names = tuple(targets)
        fitters: dict[str, Any] = {name: self.settings.decoder(name) for name in names}
        responses = ZScored(self.data.responses("train"), self.normaliser)
        state = part_name("training", names)
        leak = self.settings.leak
        own = fitters[names[0]].fit_together
        fit_together = own if leak is None or leak.fit_network is None else leak.fit_network
        fitted = fit_together(
            fitters,
            responses,
            targets,
            pictures=self.pictures,
            device=self.settings.device,
            keeping=Keeping(
                lambda arrays: self.journal.keep(state, arrays), self.settings.save_every, self.journal.part(state)
            ),
            progress=self._phase(", ".join(names)),
        )
        arrays, described, held_out = fitted.arrays(), fitted.described(), fitted.held_out
        check_fitted(fitted.kind, arrays, " and ".join(names), sum(columns.shape[1] for columns in targets.values()))
        for name in names:
            self._keep_validation(name, fitted.of(name), held_out, responses[held_out], features[name], targets[name])
        stopped = None if fitted.stopped is None else str(fitted.stopped)
        curve = Curve(list(names), fitted.epoch, stopped, fitted.curves)
        self.journal.keep(part_name("curves", names), as_part(curve))
        plain = all(fitter.contrastive == 0 for fitter in fitters.values())
        self.say(_validated(", ".join(names), described["validation"], plain=plain))
        return dict(arrays), {"kind": fitted.kind, **described}

    def _keep_validation(
        self,
        name: str,
        fitted: FittedDecoder,
        held_out: NDArray[np.bool_],
        responses: Array,
        features: Array,
        targets: TargetColumns,
    ) -> None:
        """Keep the scores of a decoder for the trials (n) that it held out, whose normalised responses are given."""
        found = scores.validation_part(
            fitted, responses, features, self.stimulus[held_out], self.pictures[held_out], name, targets
        )
        self.journal.keep(scores.validation_name(name), found)

    def _fit_in_blocks(self, name: str, targets: TargetColumns) -> tuple[dict[str, Array], dict[str, Any]]:
        """The arrays of a linear decoder; of a large one, block by block, each kept until the file is whole."""
        decoder, n_targets = self.settings.decoder(name), targets.shape[1]
        spans = list(blocks(n_targets, block_size(decoder, self.data.responses("train").shape)))
        parts = {(start, stop): f"{name}-{start:08d}" for start, stop in spans}
        left = [span for span in spans if not self.journal.has(parts[span])]
        done = n_targets - sum(stop - start for start, stop in left)
        if done > 0:
            self.progress(name, done, n_targets)
        responses = self.normaliser(self.data.responses("train"))
        # Decided again after an interruption, and the same: of a finished file nothing is asked.
        decoder, decision = settled(
            decoder, responses, targets, pictures=self.pictures, n_threads=self.settings.n_threads
        )
        entry = {"kind": "linear", **decision}
        for start, stop in left:

            def report(n: int, _of: int, before: int = done) -> None:
                self.progress(name, before + n, n_targets)

            block = Block(targets, start, stop)
            fitted = decoder.fit(responses, block, n_threads=self.settings.n_threads, progress=report)
            arrays = fitted.arrays()
            check_fitted("linear", arrays, name, stop - start)  # only linear decoders are fitted in blocks
            if len(spans) == 1:
                return arrays, entry
            self.journal.keep(parts[start, stop], arrays)
            done += stop - start
        return self._joined(name, parts), entry

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

    def write_mask(self, features: Features) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Select structure dimensions; returns the mask (6, n_tokens, d_vision) and each fold's correlations."""
        name, settings, structure = file_name("mask"), self.settings, features.structure
        selecting, progress = settings.selecting(), self._phase("selection")
        flat = structure.reshape(len(structure), -1)
        shape = (settings.selection.n_folds, flat.shape[1])
        correlations = kept_or_made(
            features.folder,
            {
                **trials_of(self.data),
                "features": features.key,
                "decoder": selecting.describe(),
                "folds": [settings.selection.n_folds, settings.selection.seed],
                "libraries": versions(libraries.FIT),
            },
            shape,
            lambda: fold_correlations(
                Trials(self.data.responses("train"), self.stimulus, self.pictures),
                flat,
                selecting,
                settings.selection,
                n_threads=settings.n_threads,
                progress=progress,
                parts=self.journal,
            ),
        )
        progress(correlations.size, correlations.size)
        if name in self.journal.files:
            return read_tensors(self.journal.folder / name, "the mask")["mask"], correlations
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
            rois=self._rois,
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
        made = scores.Scores(selection.n_folds, scores.N_SHUFFLED, {name: found[name] for name in features}, kept)
        self.journal.write_bytes(scores.NAME, scores.scores_bytes(made))
        self.journal.write_bytes(FIGURE, figure(made, remark(self.data.provenance)).encode())

    @property
    def _rois(self) -> Rois:
        """The regions that features are scored from: those that the fit uses."""
        layout, regions = self.data.layout, self.settings.regions
        return (layout.rois or {}) if regions is None else regions.rois_left(layout)

    def write_curves(self, groups: list[tuple[str, ...]]) -> None:
        """Write the losses of every network's training, if any was trained."""
        networks = [group for group in groups if hasattr(self.settings.decoder(group[0]), "fit_together")]
        if networks:
            found = [from_part(self._kept(part_name("curves", group), "curves", group)) for group in networks]
            self.journal.write_bytes(curves.NAME, curves.curves_bytes(found))
            self.journal.write_bytes(curves.FIGURE, curves.figure(found).encode())

    def _validated(self, name: str) -> scores.FeatureScores:
        return scores.validation_scores(self._kept(scores.validation_name(name), "scores", (name,)))

    def _kept(self, part: str, what: str, names: tuple[str, ...]) -> Mapping[str, Array]:
        found = self.journal.part(part)
        if found is None:
            folder, of = self.journal.folder, " and ".join(names)
            raise FileError(f"the unfinished fit in {folder} lacks the {what} of {of}: delete {folder} and run again")
        return found


def _validated(name: str, found: Mapping[str, Any], *, plain: bool) -> str:
    meaning = " (1 is the loss of the mean)" if plain else ""
    line = (
        f"{name}: validation loss {found['loss']:.3f} of epoch {found['epoch']}, on {found['n_trials']} held-out "
        f"trials{meaning}"
    )
    return f"{line}; {found['stopped']}" if "stopped" in found else line


def _to_numpy(values: Any) -> Array:
    """A tensor of any device, or an array, as numpy."""
    if isinstance(values, np.ndarray):
        return values
    array: Array = values.detach().float().cpu().numpy()
    return array


def description_of(
    job: Job, shapes: Mapping[str, tuple[int, ...]], features: Features, key: str, ingredients: Mapping[str, Any]
) -> dict[str, Any]:
    data, models, selection = job.data, job.models, job.settings.selection
    decoders = []
    for group in job.settings.groups(shapes):
        how = job.settings.decoder(group[0]).describe()
        if "n_selected" in how:
            how["n_selected"] = min(how["n_selected"], data.layout.n_features)
        if len(group) > 1:
            how["contrastive"] = {name: job.settings.decoder(name).describe()["contrastive"] for name in group}
        metadata = read_metadata(job.journal.folder / file_name(decoder_part(group)))
        decoders.append({**json.loads(metadata[ENTRY]), "fit": how})
    chosen = job.settings.regions
    used = np.arange(data.layout.n_features) if chosen is None else chosen.voxels(data.layout)
    averaged = {"average_repetitions": True} if job.settings.average_repetitions else {}
    penalty = {} if selection.alpha is None else {"alpha": selection.alpha}
    return {
        "format": f"minddiffuser-{KIND}",
        "version": VERSION,
        "subject": data.subject,
        **labelled([] if job.settings.leak is None else [job.settings.leak.name]),
        **({} if job.settings.split is None else {SPLIT: job.settings.split.as_json()}),
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
            **penalty,
            "seed": selection.seed,
        },
        "provenance": {
            "key": key,
            "about": early_key(data, job.settings),
            "data_hash": ingredients["data"],
            "n_trials": len(job.stimulus),
            **averaged,
            "n_stimuli": len(np.unique(job.stimulus)),
            "constant": np.intersect1d(job.normaliser.constant, used).tolist(),
            **({} if chosen is None else {REGIONS: chosen.describe(data.layout)}),
            "data": data.provenance,
            "python": platform.python_version(),
            "libraries": job.journal.libraries,
            "features": {"key": features.key, "libraries": features.libraries},
        },
        "files": dict(sorted({**job.journal.files, **listed_files(data.layout.signal)}.items())),
    }
