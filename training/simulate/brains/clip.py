"""A brain that sees what CLIP sees: early voxels weigh a shallow layer, higher ones captions and the deepest layer.

The voxels of early areas respond to one shallow CLIP layer each through a localised Gaussian receptive field over the
patch grid; higher areas mix semantic features; IPS, and a little of LO, mix both. Stage 2 matches the same layers, so
this brain makes its task easier than a real one.

The functions take arrays, so features of any world do; :class:`ClipBrain` makes them from models and pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ....runtime.errors import InputError, ShapeError
from ....runtime.images import to_float
from ..fmri import F32, Drives, FmriSettings, never_zero
from ..shown import Shown, Squares
from .base import MODEL_OPTIONS, Looked, Report, Sources, Viewer, batches
from .voxels import draw_fields, receptive_fields, sparse_weights

_N_CALIBRATION = 256
_N_NEIGHBOURS = 8


@dataclass(frozen=True, kw_only=True)
class Scales:
    """Centres and spreads of features over some training pictures, which put all channels on one footing.

    CLIP's MLP outputs have a few channels a hundred times as strong as the rest: unscaled, every voxel would
    respond to those alone.
    """

    structure_sd: F32  # (n_layers, d_vision), spread between pictures, pooled over patches
    semantic_mean: F32  # (d_semantic,)
    semantic_sd: F32


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One subject's generative weights. Never written anywhere.

    Parameters
    ----------
    layer : (n_voxels,) int64, the shallow layer that a voxel sees.
    receptive : (n_voxels, n_patches), Gaussian over the patch grid, rows sum to 1.
    channel : (n_voxels, d_vision), random weighting of that layer's channels.
    semantic : (n_voxels, d_semantic), sparse.
    structural : (n_voxels,), share of the signal's variance that is structural.
    """

    layer: NDArray[np.int64]
    receptive: F32
    channel: F32
    semantic: F32
    structural: F32


def measure_scales(structure: F32, semantic: F32) -> Scales:
    """Scales of some hundred training pictures.

    Parameters
    ----------
    structure : (n, n_layers, n_tokens, d_vision).
    semantic : (n, d_semantic).
    """
    _check_features(structure, semantic)
    if len(structure) < 2:
        raise InputError("scales cannot be computed from one picture: give at least 2")
    patches = structure[:, :, 1:]
    return Scales(
        structure_sd=never_zero(np.sqrt(patches.var(axis=0).mean(axis=1))),
        semantic_mean=semantic.mean(axis=0),
        semantic_sd=never_zero(semantic.std(axis=0)),
    )


def draw_weights(
    settings: FmriSettings,
    structure_shape: tuple[int, int, int],
    semantic_groups: tuple[int, ...],
    rng: np.random.Generator,
) -> Weights:
    """Draw a subject.

    Parameters
    ----------
    settings : the areas, and how sparse semantic weights are.
    structure_shape : (n_layers, n_tokens, d_vision), class token first.
    semantic_groups : how many semantic features each source has (words, vision), in their order; every group
        moves a voxel as much as every other, however many features it has.
    rng : the brain's own generator.
    """
    n_layers, n_tokens, d_vision = structure_shape
    side = round((n_tokens - 1) ** 0.5)
    if side * side != n_tokens - 1 or side < 1:
        raise ShapeError(f"structure has {n_tokens} tokens: expected a class token and a square grid of patches")
    layers, fields, shares = [], [], []
    for name, area in settings.areas.items():
        if max(area.layers) >= n_layers:
            raise InputError(f"{name} sees layer {max(area.layers)}, the structure has {n_layers}: change its layers")
        layers.append(rng.choice(area.layers, area.n_voxels))
        spread, centre = draw_fields(rng, area)
        fields.append(receptive_fields(centre, spread, side))
        shares.append(rng.uniform(*area.structural, area.n_voxels))
    n_voxels = settings.n_voxels
    groups = [sparse_weights(rng, n_voxels, n_features, settings.sparsity) for n_features in semantic_groups]
    return Weights(
        layer=np.concatenate(layers),
        receptive=np.concatenate(fields),
        channel=rng.standard_normal((n_voxels, d_vision), dtype=np.float32),
        semantic=np.concatenate(groups, axis=1),
        structural=np.concatenate(shares).astype(np.float32),
    )


def drive(weights: Weights, scales: Scales, structure: F32, semantic: F32) -> Drives:
    """What a batch of pictures does to each voxel.

    Parameters
    ----------
    weights, scales : of the subject and of its training pictures.
    structure : (n, n_layers, n_tokens, d_vision), class token first; it has no place, so no field sees it.
    semantic : (n, d_semantic).

    Returns
    -------
    Drives, (n, n_voxels) float32 each.
    """
    _check_features(structure, semantic)
    n_pictures = len(structure)
    structural = np.zeros((n_pictures, len(weights.layer)), np.float32)
    for layer in np.unique(weights.layer):
        voxels = np.flatnonzero((weights.layer == layer) & (weights.structural > 0))
        channels = weights.channel[voxels] / scales.structure_sd[layer]
        mixed = structure[:, layer, 1:] @ channels.T  # (n, n_patches, n_voxels)
        structural[:, voxels] = np.einsum("npv,vp->nv", mixed, weights.receptive[voxels])
    standardised = (semantic - scales.semantic_mean) / scales.semantic_sd
    return Drives(structural=structural, semantic=(standardised @ weights.semantic.T).astype(np.float32))


def _check_features(structure: F32, semantic: F32) -> None:
    if structure.ndim != 4 or semantic.ndim != 2 or len(structure) != len(semantic) or len(structure) == 0:
        raise ShapeError(
            f"features are {structure.shape} and {semantic.shape}: expected structure (n, n_layers, n_tokens, "
            "d_vision) and semantic (n, d_semantic) of the same pictures"
        )


class ClipBrain:
    """Voxels driven by features of an opened CLIP, and by what its text encoder makes of captions.

    Pictures without captions: what a caption would say is taken from the training pictures that look most alike.
    """

    name: ClassVar[str] = "clip"
    made_of: ClassVar[str] = "the shallow CLIP layers that stage 2 matches, and the text encoder's captions"

    def __init__(self, models: Viewer, batch_size: int = 32) -> None:
        self._models, self._batch_size = models, batch_size

    @classmethod
    def reads(cls, *, own_pictures: bool) -> tuple[str, ...]:
        """All of them."""
        return MODEL_OPTIONS

    @classmethod
    def open(cls, sources: Sources, *, own_pictures: bool) -> ClipBrain:
        """Open the models; pictures without captions need nothing more."""
        return cls(sources.open_models(), sources.batch_size)

    @property
    def image_size(self) -> int:
        """Side of the models' pictures in px."""
        return self._models.image_size

    @property
    def provenance(self) -> dict[str, Any]:
        """Name and hash of the models."""
        return {"models": {"name": self._models.name, "hash": self._models.hash}}

    def look(
        self, train: Shown, test: Shown, settings: FmriSettings, rng: np.random.Generator, report: Report
    ) -> Looked:
        """Draw a subject and let it look at every picture, features streamed."""
        models, batch_size = self._models, self._batch_size
        words = _words(models, train.captions, batch_size)
        first = [_see(models, part) for part in batches(train.images[:_N_CALIBRATION], batch_size)]
        structure, vision = (np.concatenate(parts) for parts in zip(*first, strict=True))
        scales = measure_scales(structure, np.concatenate([words[: len(vision)], vision], axis=1))
        weights = draw_weights(settings, structure.shape[1:], (words.shape[1], vision.shape[1]), rng)
        del first, structure

        def through(shown: Shown, said: F32, phase: str) -> tuple[Drives, F32]:
            parts, visions, done = [], [], 0
            report(phase, done, len(shown.images))
            for batch in batches(shown.images, batch_size):
                structure, vision = _see(models, batch)
                semantic = np.concatenate([said[done : done + len(vision)], vision], axis=1)
                parts.append(drive(weights, scales, structure, semantic))
                visions.append(vision)
                done += len(vision)
                report(phase, done, len(shown.images))
            return Drives.join(parts), np.concatenate(visions)

        train_drives, known = through(train, words, "train pictures")
        if test.captions:
            said = _words(models, test.captions, batch_size)
        else:
            looks = np.concatenate([_see(models, part)[1] for part in batches(test.images, batch_size)])
            said = words_of_neighbours(looks, known, words)
        return Looked(share=weights.structural, train=train_drives, test=through(test, said, "test pictures")[0])


def words_of_neighbours(looks: F32, known: F32, words: F32) -> F32:
    """Text features for pictures without captions: the mean over the most similar training pictures.

    Parameters
    ----------
    looks : (n, d) semantic features of the pictures.
    known : (n_train, d) the same of the training pictures.
    words : (n_train, d_words) their text features.

    Returns
    -------
    (n, d_words) float32, means over the eight nearest by cosine of the standardised features.
    """
    mean, sd = known.mean(axis=0), known.std(axis=0)
    sd = np.where(sd > 0, sd, 1)
    a, b = (looks - mean) / sd, (known - mean) / sd
    alike = a @ b.T / np.maximum(np.linalg.norm(b, axis=1), 1e-12)
    nearest = np.argsort(-alike, axis=1, kind="stable")[:, :_N_NEIGHBOURS]
    said: F32 = words[nearest].mean(axis=1)
    return said


def _see(models: Viewer, images: Squares) -> tuple[F32, F32]:
    """Structure (n, 6, n_tokens, d_vision) and semantic feature (n, d) of some pictures."""
    import torch

    pictures = torch.from_numpy(to_float(np.stack(list(images)))).to(models.device)
    with torch.no_grad():
        structure, semantic = models.structure(pictures, semantic=True)
    return structure.float().cpu().numpy(), semantic.float().cpu().numpy()


def _words(models: Viewer, captions: Sequence[Sequence[str]], batch_size: int) -> F32:
    """Contexts without BOS, flat, averaged over each picture's captions: (n, 14 * d_text)."""
    # Captions repeat (the tiny world has some two thousand): each text is encoded once.
    texts = sorted({text for group in captions for text in group})
    parts = []
    for start in range(0, len(texts), batch_size):
        context = models.encode_text(texts[start : start + batch_size]).float().cpu().numpy()
        parts.append(context[:, 1:].reshape(len(context), -1))
    encoded = np.concatenate(parts)
    row = {text: index for index, text in enumerate(texts)}
    return np.stack([encoded[[row[text] for text in group]].mean(axis=0) for group in captions])
