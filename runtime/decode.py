"""Responses to context, latent and structure, with the decoders and statistics of a checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checkpoint import (
    DESCRIPTION,
    read_description,
    read_mask,
    read_part,
    read_target,
    verify_files,
)
from .errors import InputError, ShapeError
from .files import sha256_of
from .rois import Rois, compare_rois, stored_rois
from .scale import TrainingStatistics
from .screen import screen

Array = NDArray[Any]
Float32 = NDArray[np.float32]

# Weights looked at together: 16 MB of weights, 32 MB of indices.
_WEIGHTS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Decoded:
    """What was decoded from n trials, float32 in the models' own units.

    Attributes
    ----------
    context : (n, 15, d_text)
        Token 0 (BOS) is the constant of the training captions.
    latent : (n, 4, h, w)
    structure : (n, 6, n_tokens, d_vision)
        Dimensions outside the mask hold their training mean.
    semantic : (n, d_vision) or None
        The target of eq. 6, when the checkpoint has it.
    """

    context: Float32
    latent: Float32
    structure: Float32
    semantic: Float32 | None = None


@dataclass(frozen=True)
class _Sparse:
    """One target's decoder: a gather and a weighted sum."""

    shape: tuple[int, ...]
    index: NDArray[np.int32]
    weight: Float32
    bias: Float32
    position: NDArray[np.int32]
    target_mean: Float32
    target_std: Float32

    def __call__(self, scored: Float32) -> Float32:
        """Z-scored responses (n, n_voxels) to the target (n, *shape).

        Trial by trial, so that a trial's result does not depend on which others it came with: a matrix product
        may sum in another order for another number of rows.
        """
        out = np.tile(self.target_mean, (len(scored), 1))
        step = max(1, _WEIGHTS_AT_ONCE // self.index.shape[1])
        for start in range(0, len(self.bias), step):
            part = slice(start, start + step)
            voxels, weight = self.index[part].astype(np.intp), self.weight[part]
            position = self.position[part]
            for trial, row in enumerate(scored):
                predicted = np.einsum("tk,tk->t", np.take(row, voxels), weight) + self.bias[part]
                out[trial, position] += self.target_std[position] * predicted
        return out.reshape(len(scored), *self.shape)


class Checkpoint:
    """Fitted decoders of one subject, opened by :func:`open_checkpoint`.

    Attributes
    ----------
    folder : Path
    description : dict
        checkpoint.json as it is.
    subject, modality, preset, models_hash, models_name : str
    n_voxels, image_size : int
    shapes : name to shape
        "context", "latent", "structure" and, when there, "semantic".
    mask : (6, n_tokens, d_vision) bool
    score : (6, n_tokens, d_vision) float32
        Cross-validated correlation of each structure dimension.
    uncond_context : (15, d_text) float32
        The context of the empty caption.
    training : TrainingStatistics
        Of the responses that the decoders were fitted on.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        self.folder = folder
        self.description = dict(description)
        self.subject: str = description["subject"]
        self.modality: str = description["modality"]
        self.preset: str = description["preset"]
        self.models_name: str = description["models"]["name"]
        self.models_hash: str = description["models"]["hash"]
        self.n_voxels: int = description["n_voxels"]
        self.image_size: int = description["image_size"]
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(shape) for name, shape in description["shapes"].items()}
        voxels = (np.float32, (self.n_voxels,))
        normaliser = read_part(folder, "normaliser", {"mean": voxels, "std": voxels})
        rois = stored_rois(description.get("rois"), self.n_voxels, str(folder / DESCRIPTION))
        self.training = TrainingStatistics(mean=normaliser["mean"], std=normaliser["std"], rois=rois)
        n_tokens, d_text = self.shapes["context"]
        expected = {"context_bos": (np.float32, (d_text,)), "uncond_context": (np.float32, (n_tokens, d_text))}
        constants = read_part(folder, "constants", expected)
        self._context_bos: Float32 = constants["context_bos"]
        self.uncond_context: Float32 = constants["uncond_context"]
        selected = read_mask(folder, self.shapes["structure"], self.preset)
        self.mask: NDArray[np.bool_] = selected["mask"]
        self.score: Float32 = selected["score"]
        self._targets = {
            name: _Sparse(shape, **read_target(folder, name, shape, self.n_voxels))
            for name, shape in self.shapes.items()
        }

    @cached_property
    def hash(self) -> str:
        """SHA-256 of checkpoint.json, which holds the SHA-256 of every other file."""
        return sha256_of(self.folder / DESCRIPTION)

    @property
    def statistics(self) -> tuple[Float32, Float32]:
        """Mean and deviation of the training responses, (n_voxels,) each; deviation 0 marks a constant voxel."""
        return self.training.mean, self.training.std

    @property
    def rois(self) -> Rois | None:
        """Name to (start, stop) in the voxel axis; None where an earlier release kept none."""
        return self.training.rois

    @property
    def context_bos(self) -> Float32:
        """(d_text,): token 0 of every context."""
        return self._context_bos

    @property
    def constant_voxels(self) -> NDArray[np.intp]:
        """Voxels that did not vary in training; they contribute nothing."""
        return np.flatnonzero(self.training.std == 0)

    def decode(self, responses: Array, *, screened: bool = False, semantic: bool = True) -> Decoded:
        """Decode good trials.

        Parameters
        ----------
        responses : (n_trials, n_voxels)
            As recorded; the training statistics are applied here.
        screened
            Whether :func:`~minddiffuser.runtime.screen.screen` has seen the whole set that they belong to; then they
            are taken as they are.
        semantic
            Whether the target of eq. 6 is wanted, where there is a decoder of it.

        Returns
        -------
        Decoded
            Each trial's rows are the same, bit by bit, whatever it is decoded together with.

        Raises
        ------
        ShapeError
            Wrong rank, width or dtype.
        InputError
            A trial is bad, or the responses are not on the scale of training: see the same function, whose warnings
            come through :func:`warnings.warn`.
        """
        rows = good_responses(responses, self.training, screened=screened)
        return Decoded(**self._decoded(rows, [name for name in self._targets if semantic or name != "semantic"]))

    def decode_start(self, responses: Array, *, screened: bool = False) -> tuple[Float32, Float32]:
        """Context and latent of good trials, all that stage 1 needs; see :meth:`decode`."""
        decoded = self._decoded(good_responses(responses, self.training, screened=screened), ("context", "latent"))
        return decoded["context"], decoded["latent"]

    def _decoded(self, responses: Float32, names: Sequence[str]) -> dict[str, Float32]:
        scored = self.training.scores(responses)
        decoded = {name: self._targets[name](scored) for name in names}
        if "context" in decoded:
            decoded["context"][:, 0] = self._context_bos
        return decoded

    def scored(self, responses: Array) -> Float32:
        """Z-scores (n_trials, n_voxels) by the training statistics; 0 for voxels that did not vary in training.

        Raises
        ------
        ShapeError
            Wrong rank, width or dtype.
        """
        return self.training.scores(checked(responses, self.n_voxels))

    def require_models(self, models_hash: str, name: str) -> None:
        """Raise :class:`InputError` unless the checkpoint was fitted for these models."""
        if models_hash != self.models_hash:
            raise InputError(
                f"the checkpoint {self.folder} was fitted for other models ({self.models_name!r}, hash "
                f"{self.models_hash[:12]}) than {name!r} (hash {models_hash[:12]}): give those, or fit it again"
            )

    def require_subject(self, subject: str) -> None:
        """Raise :class:`InputError` unless the checkpoint belongs to this subject."""
        if subject != self.subject:
            raise InputError(
                f"the checkpoint {self.folder} was fitted on subject {self.subject!r}, the responses are of "
                f"{subject!r}: give that subject's checkpoint"
            )

    def require_rois(self, rois: Rois | None) -> str | None:
        """Raise :class:`InputError` unless regions lie where they lay in training; see :func:`~.rois.compare_rois`."""
        return compare_rois(self.rois, rois, f"the checkpoint {self.folder}")

    def require_preset(self, preset: str) -> None:
        """Raise :class:`InputError` unless the mask and the structure decoder are for this layer preset."""
        if preset != self.preset:
            raise InputError(
                f"the checkpoint {self.folder} holds a mask for the layer preset {self.preset!r}, asked for "
                f"{preset!r}: load models with preset={self.preset!r}, or fit one with md-train fit --layers {preset}"
            )


def open_checkpoint(folder: Path | str, *, verify: bool = True) -> Checkpoint:
    """Open and validate a checkpoint folder.

    Parameters
    ----------
    folder : what `md-train fit` wrote.
    verify : whether every file's SHA-256 is compared before it is read.

    Raises
    ------
    FileError
        Missing, unfinished, truncated or changed files, or another kind or version.
    InputError
        The mask in it belongs to another layer preset.
    """
    folder = Path(folder)
    description = read_description(folder)
    if verify:
        verify_files(folder, description["files"])
    return Checkpoint(folder, description)


def good_responses(responses: Array, training: TrainingStatistics, *, screened: bool) -> Float32:
    """Responses that may be decoded, float32; see :meth:`Checkpoint.decode`."""
    rows = checked(responses, len(training.mean))
    if screened:
        return rows
    found = screen(rows, training)
    for trial, reason in found.skipped.items():
        raise InputError(f"trial {trial} cannot be decoded ({reason}): leave such trials out")
    for warning in found.warnings:
        warnings.warn(warning, stacklevel=3)  # the line that called decode
    return found.responses


def checked(responses: Array, n_voxels: int) -> Float32:
    """The responses as float32, of the right rank, width and kind.

    Raises
    ------
    ShapeError
        They are not.
    """
    if not isinstance(responses, np.ndarray) or responses.dtype.kind not in "fiu":
        given = getattr(responses, "dtype", type(responses).__name__)
        raise ShapeError(f"responses are {given}, expected float32 numbers: convert them with astype('float32')")
    if responses.ndim != 2 or len(responses) == 0:
        raise ShapeError(
            f"responses have shape {responses.shape}, expected (n_trials, {n_voxels}) with 1 trial or more: "
            "a single trial is responses[None]"
        )
    if responses.shape[1] != n_voxels:
        raise ShapeError(
            f"responses have {responses.shape[1]} voxels, the decoders were fitted on {n_voxels}: "
            "select the same voxels as in training"
        )
    with np.errstate(over="ignore"):
        return responses.astype(np.float32)
