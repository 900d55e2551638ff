"""Steps that look into what was fitted: importance of every value, maps of it, and decoders of short windows.

OUT/DATA/maps/importance/         importance.safetensors: KIND.FEATURE of the shape of one trial's responses
OUT/DATA/maps/KIND-FEATURE.nii.gz volumes, where the voxels' places are known; surface-KIND-FEATURE.png
OUT/DATA/maps/heads-KIND.png      of EEG and MEG, with heads.csv
OUT/DATA/windows/                 one file per window: whether each test trial's picture was found

KIND is "weight" or "pattern", FEATURE "context", "semantic", "structure", "structure-1" ... or "latent".
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.folder import DataFolder
from ...runtime.data.layout import voxels_of
from ...runtime.data.stimuli import stimulus_ids
from ...runtime.decoders.checkpoint import open_checkpoint
from ...runtime.errors import FileError
from ...runtime.features import EMBEDDING
from ...runtime.files import hash_of_json, read_json, read_tensors, write_bytes, write_json, write_tensors
from ..datasets.averaged import Averaged
from ..datasets.base import Data, pictures_shown
from ..interpret.importance import importance, patterns, relative
from ..interpret.windows import STRUCTURE, Split, drawn_dimensions, held_out_peak, window_hits, windows
from ..normalise import fit_normaliser
from .base import Tell
from .steps import Fit, opened_models
from .subject import Subject
from .values import Values, by_picture

KINDS = ("weight", "pattern")
# Dimensions of each feature, and of each layer, that patterns and windows take unless all are asked for.
N_DIMENSIONS = 500
# Middles of the windows that heads are drawn of, in seconds.
MOMENTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
LABELS = {"context": "c", "semantic": "semantic feature", STRUCTURE: "structure", "latent": "z"}
_WHOLE = tuple(LABELS)
_ONE_FOLDER = "maps"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Importance of every value of a response for every feature, and volumes of it."""

    fit: Fit
    n_dimensions: int | None = N_DIMENSIONS
    seed: int = 0
    kind: str = "weights"

    @property
    def folder(self) -> str:
        return f"{_ONE_FOLDER}/importance"

    def describe(self) -> Mapping[str, Any]:
        return {"checkpoint": self.fit.folder, "n_dimensions": self.n_dimensions, "seed": self.seed}

    def make(self, subject: Subject, tell: Tell) -> None:
        checkpoint = open_checkpoint(subject.out / self.fit.folder)
        tell.now("weights", 0.0)
        found = {"weight": importance(checkpoint)}
        tell.now("patterns", 0.2)
        scores = checkpoint.training.scores(np.asarray(subject.data.responses("train"), np.float32))
        found["pattern"] = patterns(checkpoint, scores, n_dimensions=self.n_dimensions, seed=self.seed)
        arrays = {
            f"{kind}.{'context' if name == EMBEDDING else name}": relative(values).astype(np.float32)
            for kind, of_kind in found.items()
            for name, values in of_kind.items()
        }
        if volumes_known(subject):
            tell.now("volumes", 0.9)
            from ..interpret.volumes import write_volume

            for name, values in arrays.items():
                write_volume(map_path(subject, name, ".nii.gz"), values, subject.data.layout.voxels)
        path = subject.out / self.folder / "importance.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, arrays)


@dataclass(frozen=True, kw_only=True)
class Surface:
    """The volumes of whole features, drawn on the cortical surface."""

    surface: str
    kind: str = "maps"

    @property
    def folder(self) -> str:
        return f"{_ONE_FOLDER}/surface-{hash_of_json(self.surface)[:8]}"

    def describe(self) -> Mapping[str, Any]:
        return {"surface": self.surface}

    def make(self, subject: Subject, tell: Tell) -> None:
        from ..interpret.surface import draw_surface
        from ..interpret.volumes import volume

        drawn = [(f"{k}.{name}", values) for k in KINDS for name, values in importance_of(subject, k, _WHOLE).items()]
        for number, (name, values) in enumerate(drawn):
            tell.now(name, number / len(drawn))
            title = f"{subject.label}: {name.replace('.', ' of ')}, times an even spread"
            path = map_path(subject, f"surface-{name}", ".png")
            draw_surface(volume(values, subject.data.layout.voxels), self.surface, path, title=title)


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Importance of channels at several moments, as maps of the head and as numbers."""

    kind: str = "maps"

    @property
    def folder(self) -> str:
        return f"{_ONE_FOLDER}/heads"

    def describe(self) -> Mapping[str, Any]:
        return {"moments": list(MOMENTS)}

    def make(self, subject: Subject, tell: Tell) -> None:
        from ..interpret.topography import draw_maps

        layout = subject.data.layout
        every = windows(layout)
        chosen = sorted({int(np.argmin([abs(one.time - t) for one in every])) for t in MOMENTS})
        parts = [every[number] for number in chosen]
        lines: list[tuple[Any, ...]] = [("kind", "feature", "seconds", "channel", "importance")]
        for number, kind in enumerate(KINDS):
            tell.now(f"heads, {kind}s", number / len(KINDS))
            rows: dict[str, list[tuple[str, NDArray[Any]]]] = {}
            for name, values in importance_of(subject, kind).items():
                if name == STRUCTURE:  # its layers are there
                    continue
                maps = [(one.time, values[:, one.start : one.stop].mean(axis=1)) for one in parts]
                rows[label_of(name)] = [(f"{1000 * time:.0f} ms", value) for time, value in maps]
                names = [channel.name for channel in layout.channels or ()]
                lines += [
                    (kind, name, f"{time:g}", channel, f"{value:.6g}")
                    for time, of_channel in maps
                    for channel, value in zip(names, of_channel, strict=True)
                ]
            draw_maps(rows, layout, heads_path(subject, kind), unit="times an even spread")
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(lines)
        write_bytes(subject.out / _ONE_FOLDER / "heads.csv", out.getvalue().encode())


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Which test pictures are found from each short window of EEG or MEG."""

    n_dimensions: int | None = N_DIMENSIONS
    seed: int = 0
    kind: str = "windows"

    @property
    def folder(self) -> str:
        return "windows"

    def describe(self) -> Mapping[str, Any]:
        return {"n_dimensions": self.n_dimensions, "seed": self.seed}

    def make(self, subject: Subject, tell: Tell) -> None:
        every = windows(subject.data.layout)
        left = [number for number in range(len(every)) if not window_path(subject, number).exists()]
        if not left:
            return
        (subject.out / self.folder).mkdir(parents=True, exist_ok=True)
        train, test, pictures = self._splits(subject, tell)
        for number in left:
            window = every[number]
            tell.now(f"window at {1000 * window.time:.0f} ms, {number + 1} of {len(every)}", number / len(every))
            hits, alphas = window_hits(train, test, window, pictures=pictures)
            tell.log.write(f"window at {window.time:.4f} s: penalties {alphas}\n")
            content = {"time": window.time, "hits": {name: found.tolist() for name, found in hits.items()}}
            write_json(window_path(subject, number), {**content, "alphas": alphas})

    def _splits(self, subject: Subject, tell: Tell) -> tuple[Split, Split, NDArray[np.int64]]:
        from ..features.extract import extract_features

        data, models = cast(Data, Averaged(subject.data)), opened_models(subject.plan)
        normaliser = fit_normaliser(data.responses("train"))
        used = list(subject.trials)
        shown = data.stimulus("test")[used]
        candidates, of_trial = _candidates(subject.data, shown)
        rng = np.random.default_rng(self.seed)
        known: dict[str, NDArray[Any]] = {}
        asked: dict[str, NDArray[Any]] = {}
        made = [
            extract_features(
                data,
                split,
                models,
                cache_dir=subject.cache,
                progress=lambda done, total: tell.now(f"features {done} of {total}", 0.0),
                say=lambda line: print(line, file=tell.log),
            )
            for split in ("train", "test")
        ]
        for name, train_of, test_of in zip(("semantic", STRUCTURE, "latent"), *map(_arrays, made), strict=True):
            n_layers = train_of.shape[1] if name == STRUCTURE else 1
            for layer in range(n_layers):
                a, b = (array[:, layer] if name == STRUCTURE else array for array in (train_of, test_of))
                a, b = (array.reshape(len(array), -1) for array in (a, b))
                limit = a.shape[1] if self.n_dimensions is None else self.n_dimensions
                columns = drawn_dimensions(a, limit, rng)
                label = f"{name} {layer + 1}" if name == STRUCTURE else name
                known[label], asked[label] = np.asarray(a[:, columns]), np.asarray(b[candidates][:, columns])
        train = Split(responses=normaliser(data.responses("train")), stimulus=data.stimulus("train"), features=known)
        test = Split(responses=normaliser(data.responses("test")[used]), stimulus=of_trial, features=asked)
        return train, test, pictures_shown(data, "train")


def label_of(feature: str) -> str:
    """What people call a feature, or a layer such as "structure 2"."""
    name, _, layer = feature.partition(" ")
    return f"structure, layer {layer}" if layer else LABELS[name]


def _arrays(features: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    return features.semantic, features.structure, features.latent


def _candidates(data: DataFolder, shown: NDArray[np.integer[Any]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The stimuli among which a trial's is looked for, copies of a picture once, and of each trial which one it is."""
    pictures = data.pictures("test")
    ids = stimulus_ids([pictures[row] for row in shown])
    names = list(dict.fromkeys(ids))
    first = [int(shown[ids.index(name)]) for name in names]
    return np.array(first, np.intp), np.array([names.index(name) for name in ids], np.intp)


def importance_of(subject: Subject, kind: str, names: tuple[str, ...] | None = None) -> dict[str, NDArray[Any]]:
    """Feature -> importance, of the shape of one trial's responses, in the order of the features."""
    path = subject.out / _ONE_FOLDER / "importance" / "importance.safetensors"
    arrays = read_tensors(path, "the importance of the responses")
    found = {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"{kind}.")}
    order = sorted(found, key=lambda name: (_WHOLE.index(name.partition(" ")[0]), name))
    return {name: found[name] for name in order if names is None or name in names}


def map_path(subject: Subject, name: str, ending: str) -> Path:
    """The file of a map, such as maps/weight-structure-1.nii.gz."""
    return subject.out / _ONE_FOLDER / f"{name.replace('.', '-').replace(' ', '-')}{ending}"


def heads_path(subject: Subject, kind: str) -> Path:
    """The drawing of heads."""
    return subject.out / _ONE_FOLDER / f"heads-{kind}.png"


def window_path(subject: Subject, number: int) -> Path:
    """The file of a window."""
    return subject.out / "windows" / f"{number:03d}.json"


def volumes_known(subject: Subject) -> bool:
    """Whether the places of voxels are known."""
    voxels = subject.data.layout.voxels
    return voxels is not None and voxels.affine is not None


def measure_voxels(subject: Subject) -> Values:
    """Columns "weight.FEATURE" and "pattern.FEATURE" of every voxel, and "in.REGION", 1 for the region's voxels."""
    layout = subject.data.layout
    columns: dict[str, NDArray[np.float64]] = {
        f"{kind}.{name}": np.asarray(np.round(values, 6), np.float64)
        for kind in KINDS
        for name, values in importance_of(subject, kind).items()
    }
    for name, roi in (layout.rois or {}).items():
        inside = np.zeros(layout.shape[0])
        inside[voxels_of(roi)] = 1
        columns[f"in.{name}"] = inside
    return Values(pictures=tuple(f"{subject.label} voxel {n}" for n in range(layout.shape[0])), columns=columns)


def measure_windows(subject: Subject) -> Values:
    """Columns "top1.FEATURE@MILLISECONDS", and "peak.FEATURE" by :func:`..interpret.windows.held_out_peak`."""
    data, used = subject.data, list(subject.trials)
    shown, pictures = data.stimulus("test")[used], data.pictures("test")
    ids = stimulus_ids([pictures[row] for row in shown])
    columns: dict[str, list[float]] = {}
    for number, window in enumerate(windows(data.layout)):
        path = window_path(subject, number)
        content = read_json(path, "a window of the experiment")
        hits = content.get("hits")
        if not isinstance(hits, dict) or any(len(found) != len(ids) for found in hits.values()):
            raise FileError(f"{path} is damaged: delete it and {subject.out / 'done' / 'windows.json'}, and run again")
        columns |= {f"top1.{name}@{1000 * window.time:g}": found for name, found in hits.items()}
    made = by_picture(columns, ids)
    names = dict.fromkeys(name.partition("@")[0].partition(".")[2] for name in columns)
    peaks = {
        f"peak.{name}": held_out_peak(
            np.stack([values for column, values in made.columns.items() if column.startswith(f"top1.{name}@")]),
            np.random.default_rng(0),
        )
        for name in names
    }
    chance = 1 / len(made.pictures)
    return Values(
        pictures=made.pictures,
        columns={**made.columns, **peaks},
        chance={f"{kind}.{name}": chance for kind in ("top1", "peak") for name in names},
    )
