"""A brain of its own: oriented energies and colours through receptive fields, and labels for meaning; no CLIP, no VAE.

Early voxels follow the models of early visual cortex that fMRI has long been fitted with (Kay et al. 2008; Nishimoto et
al. 2011): the energies of quadrature pairs of oriented filters, pooled over a Gaussian receptive field. The square root
of the pooled energy is the compression of those models; what compresses further is the scanner's (fmri.py). Preferred
spatial frequency falls with the size of the receptive field, as it does in V1 to V3 (Broderick, Simoncelli & Winawer
2022). Beside them stand the picture's three opponent channels through the same field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ....runtime.errors import InputError
from ....runtime.files import sha256_of
from ....runtime.images import to_float
from ...tinyworld.scenes import IMAGE_SIZE
from ..fmri import F32, Drives, FmriSettings, never_zero, standardise
from ..shown import Shown, Squares
from .base import Looked, Report, Sources, batches
from .labels import DIMENSIONS, WORDS, draw_embeddings, label_numbers
from .pyramid import pyramid, pyramid_filters
from .voxels import draw_fields, receptive_fields, sparse_weights

# Bands at 16, 8, 4 and 2 cycles per picture, at 0, 45, 90 and 135 degrees.
N_SCALES, N_ORIENTATIONS = 4, 4
# Pictures are shown on a mid-grey screen, this wide on every side in px: fields at the border see the picture's edge.
_SCREEN = 16
_GREY = 0.5
# Energies and colours are pooled on a grid of this many cells per side, 2 x 2 px each: far below any field's width.
_GRID = 32
_N_CALIBRATION = 256
# Median preferred frequency times the field's standard deviation, in cycles; its spread and the tuning's in octaves.
_CYCLES_PER_FIELD, _FREQUENCY_SPREAD, _FREQUENCY_SD = 0.5, 0.5, 1.0
# A voxel pools many neurons: it prefers an orientation a little (von Mises concentration, of the doubled angle).
_ORIENTATION_KAPPA = (0.5, 2.0)
# What higher voxels are driven by, on average in these proportions (of a Dirichlet distribution): things most.
_MEANING = {"concept": 2.0, "colour": 1.0, "background": 1.0}
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
# Luminance, red-green, blue-yellow.
_OPPONENT = np.array([_LUMA, [1, -1, 0], [-0.5, -0.5, 1]], np.float32)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One subject's generative weights. Never written anywhere.

    Parameters
    ----------
    receptive : (n_voxels, _GRID ** 2), Gaussian over the picture, rows sum to 1.
    bands : (n_voxels, N_SCALES, N_ORIENTATIONS), tuning, each voxel's sum to 1.
    opponent : (n_voxels, 3), weights of luminance, red-green and blue-yellow.
    colour : (n_voxels,), share of the structural variance that is colour.
    structural : (n_voxels,), share of the signal's variance that is structural.
    embeddings : kind of label to (n_labels, DIMENSIONS).
    meaning : kind of label to (n_voxels, DIMENSIONS), sparse; how much the kind drives the voxel is in it.
    """

    receptive: F32
    bands: F32
    opponent: F32
    colour: F32
    structural: F32
    embeddings: Mapping[str, F32]
    meaning: Mapping[str, F32]


@dataclass(frozen=True, kw_only=True)
class Maps:
    """What a batch of pictures holds at every cell of the grid.

    `energy` (n, N_SCALES, N_ORIENTATIONS, _GRID ** 2); `opponent` (n, 3, _GRID ** 2).
    """

    energy: F32
    opponent: F32


class GaborBrain:
    """Voxels driven by a steerable pyramid's energies, local colour and random embeddings of labels.

    Tiny-world pictures bring their labels; a person's own are labelled by the classifier of the model folder, which
    shares nothing with CLIP.
    """

    name: ClassVar[str] = "gabor"
    made_of: ClassVar[str] = "oriented energies and colours in receptive fields, and labels; nothing of CLIP or the VAE"
    image_size = IMAGE_SIZE

    def __init__(self, classifier: Any = None, classifier_hash: str | None = None, batch_size: int = 32) -> None:
        self._classifier, self._classifier_hash, self._batch_size = classifier, classifier_hash, batch_size

    @classmethod
    def reads(cls, *, own_pictures: bool) -> tuple[str, ...]:
        """The model folder, where its classifier is needed."""
        return ("models",) if own_pictures else ()

    @classmethod
    def open(cls, sources: Sources, *, own_pictures: bool) -> GaborBrain:
        """Open the classifier where own pictures need it; models are never opened.

        Raises
        ------
        InputError
            Own pictures, and no classifier in the model folder, or one of another world.
        """
        if not own_pictures:
            return cls(batch_size=sources.batch_size)
        folder = None if sources.model_folder is None else sources.model_folder / "classifier"
        if folder is None or not folder.is_dir():
            raise InputError(
                f"the gabor brain needs labels of your own pictures, and {sources.model_folder or 'these models'} "
                "come without a classifier (classifier/) that gives them: leave out --models, or take --brain clip"
            )
        from ....runtime.metrics.classifier import open_classifier

        classifier = open_classifier(folder)
        for kind, words in WORDS.items():
            foreign = sorted(set(classifier.labels[kind]) - set(words))
            if foreign:
                raise InputError(
                    f"the gabor brain knows the tiny world's labels, and {folder} gives others (as {kind} "
                    f"{foreign[0]!r}): leave out --models, or take --brain clip"
                )
        # The description as well as the weights: its order of labels decides what they mean.
        files = [sha256_of(folder / f"classifier.{kind}") for kind in ("json", "safetensors")]
        return cls(classifier, " ".join(files), sources.batch_size)

    @property
    def provenance(self) -> dict[str, Any]:
        """The hashes of the classifier's description and weights, where one is used."""
        return {} if self._classifier_hash is None else {"classifier": self._classifier_hash}

    def look(
        self, train: Shown, test: Shown, settings: FmriSettings, rng: np.random.Generator, report: Report
    ) -> Looked:
        """Draw a subject and let it look at every picture.

        Raises
        ------
        InputError
            Pictures without labels, and no classifier.
        """
        labels = {split: self._labels(shown) for split, shown in {"train": train, "test": test}.items()}
        weights = draw_weights(settings, rng)
        scales = _measure_scales(train.images[:_N_CALIBRATION], self._batch_size)
        parts: dict[str, tuple[F32, F32]] = {}
        meanings: dict[str, F32] = {}
        for split, shown in {"train": train, "test": test}.items():
            drives, done = [], 0
            report(f"{split} pictures", done, len(shown.images))
            for batch in batches(shown.images, self._batch_size):
                drives.append(drive(weights, scales, maps(np.stack(list(batch)))))
                done += len(batch)
                report(f"{split} pictures", done, len(shown.images))
            energy, colour = (np.concatenate(part) for part in zip(*drives, strict=True))
            parts[split] = energy, colour
            meanings[split] = meaning_of_labels(weights, labels[split])
        energies = standardise({split: energy for split, (energy, _) in parts.items()})
        colours = standardise({split: colour for split, (_, colour) in parts.items()})
        of_energy: F32 = np.sqrt(1 - weights.colour).astype(np.float32)
        of_colour: F32 = np.sqrt(weights.colour).astype(np.float32)
        train_drives, test_drives = (
            Drives(
                structural=of_energy * energies[split] + of_colour * colours[split],
                semantic=meanings[split],
            )
            for split in ("train", "test")
        )
        return Looked(share=weights.structural, train=train_drives, test=test_drives)

    def _labels(self, shown: Shown) -> NDArray[np.int64]:
        if shown.labels is not None:
            return shown.labels
        if self._classifier is None:
            raise InputError(
                "the pictures have no labels and this gabor brain has no classifier: make it with GaborBrain.open(..., "
                "own_pictures=True)"
            )
        rows = [self._classifier.predict(_pixels(batch)) for batch in batches(shown.images, self._batch_size)]
        return label_numbers(np.concatenate(rows), self._classifier.labels)


def draw_weights(settings: FmriSettings, rng: np.random.Generator) -> Weights:
    """Draw a subject of these areas from the brain's own generator."""
    n_voxels = settings.n_voxels
    fields, bands, shares, colours = [], [], [], []
    for area in settings.areas.values():
        spread, centre = draw_fields(rng, area)
        fields.append(receptive_fields(centre, spread, _GRID))
        octaves = _FREQUENCY_SPREAD * rng.standard_normal(area.n_voxels)
        angle = rng.uniform(0, np.pi, area.n_voxels)
        kappa = rng.uniform(*_ORIENTATION_KAPPA, area.n_voxels)
        bands.append(tuning(_CYCLES_PER_FIELD / spread * 2**octaves, angle, kappa))
        shares.append(rng.uniform(*area.structural, area.n_voxels))
        colours.append(rng.uniform(*area.colour, area.n_voxels))
    kinds = rng.dirichlet(list(_MEANING.values()), n_voxels)
    meaning = {
        kind: (np.sqrt(kinds[:, k, None]) * sparse_weights(rng, n_voxels, DIMENSIONS, settings.sparsity))
        for k, kind in enumerate(_MEANING)
    }
    return Weights(
        receptive=np.concatenate(fields),
        bands=np.concatenate(bands),
        opponent=rng.standard_normal((n_voxels, len(_OPPONENT)), dtype=np.float32),
        colour=np.concatenate(colours).astype(np.float32),
        structural=np.concatenate(shares).astype(np.float32),
        embeddings=draw_embeddings(rng),
        meaning={kind: weight.astype(np.float32) for kind, weight in meaning.items()},
    )


def tuning(frequency: NDArray[np.float64], angle: NDArray[np.float64], kappa: NDArray[np.float64]) -> F32:
    """How much a voxel weighs every band: log-Gaussian over spatial frequency, von Mises over orientation.

    Parameters
    ----------
    frequency : (n_voxels,) preferred, in cycles per picture.
    angle : (n_voxels,) preferred direction of the frequency vector, in [0, pi); 0 is vertical stripes.
    kappa : (n_voxels,) concentration; 0 is no preference.

    Returns
    -------
    (n_voxels, N_SCALES, N_ORIENTATIONS) float32; each voxel's weights sum to 1.
    """
    octave = np.log2(frequency)[:, None] - np.log2(IMAGE_SIZE / 2.0 ** (2 + np.arange(N_SCALES)))
    apart = angle[:, None] - np.pi * np.arange(N_ORIENTATIONS) / N_ORIENTATIONS
    scale = np.exp(-0.5 * (octave / _FREQUENCY_SD) ** 2)
    weights = scale[:, :, None] * np.exp(kappa[:, None] * np.cos(2 * apart))[:, None, :]
    tuned: F32 = (weights / weights.sum(axis=(1, 2), keepdims=True)).astype(np.float32)
    return tuned


def maps(images: NDArray[np.uint8]) -> Maps:
    """Energies and opponent channels of pictures, (n, IMAGE_SIZE, IMAGE_SIZE, 3) uint8, on the grid.

    RGB values are taken as they are: their gamma is close to the eye's own compression of light.
    """
    pixels = to_float(images)
    opponent = np.einsum("cd,ndyx->ncyx", _OPPONENT, pixels)
    screen = np.pad(opponent[:, 0] - _GREY, ((0, 0), (_SCREEN, _SCREEN), (_SCREEN, _SCREEN)))
    responses = pyramid(screen, _filters())[..., _SCREEN:-_SCREEN, _SCREEN:-_SCREEN]
    return Maps(energy=_on_grid(responses.real**2 + responses.imag**2), opponent=_on_grid(opponent))


@cache
def _filters() -> NDArray[np.float64]:
    """The pyramid's bands for a picture on its screen; the same for every batch."""
    return pyramid_filters(IMAGE_SIZE + 2 * _SCREEN, N_SCALES, N_ORIENTATIONS)[0]


def drive(weights: Weights, scales: Maps, batch: Maps) -> tuple[F32, F32]:
    """What a batch of pictures does to each voxel: energies and colour, (n, n_voxels) float32 each.

    Parameters
    ----------
    weights : of the subject.
    scales : mean energy and standard deviation of the opponent channels, by which they are divided.
    batch : of the pictures.
    """
    energy, opponent = batch.energy / scales.energy, batch.opponent / scales.opponent
    n_voxels = len(weights.receptive)
    in_fields = (part.reshape(len(part), -1, _GRID**2) @ weights.receptive.T for part in (energy, opponent))
    by_voxel = weights.bands.reshape(n_voxels, -1), weights.opponent
    pooled, colour = (np.einsum("nbv,vb->nv", part, w) for part, w in zip(in_fields, by_voxel, strict=True))
    return np.sqrt(pooled), colour


def meaning_of_labels(weights: Weights, labels: NDArray[np.int64]) -> F32:
    """What labels (n, 3) mean to each voxel, (n, n_voxels) float32."""
    parts = [weights.embeddings[kind][labels[:, k]] @ weights.meaning[kind].T for k, kind in enumerate(WORDS)]
    meant: F32 = np.sum(parts, axis=0, dtype=np.float32)
    return meant


def _measure_scales(images: Squares, batch_size: int) -> Maps:
    """Mean energy of each scale (natural pictures have most at low frequencies) and spread of each opponent channel."""
    many = [maps(np.stack(list(batch))) for batch in batches(images, batch_size)]
    energy = np.concatenate([batch.energy for batch in many]).mean(axis=(0, 2, 3))
    opponent = np.concatenate([batch.opponent for batch in many]).std(axis=(0, 2))
    return Maps(energy=never_zero(energy)[:, None, None], opponent=never_zero(opponent)[:, None])


def _on_grid(arrays: F32) -> F32:
    """Means over the cells of the grid, (..., IMAGE_SIZE, IMAGE_SIZE) to (..., _GRID ** 2)."""
    *first, side, _ = arrays.shape
    cells: F32 = arrays.reshape(*first, _GRID, side // _GRID, _GRID, side // _GRID).mean(axis=(-3, -1))
    return cells.reshape(*first, -1)


def _pixels(images: Squares) -> F32:
    return to_float(np.stack(list(images)))
