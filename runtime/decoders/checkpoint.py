"""Responses to context, latent, structure and semantic feature, with a checkpoint's decoders and statistics."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.chain_files import FOLDER as SIGNAL_FOLDER
from ..errors import InputError, ShapeError
from ..files import sha256_of
from .base import Array, Decoder, Float32, Stored, open_decoder
from .belonging import Belonging
from .files import (
    DESCRIPTION,
    decoder_part,
    file_name,
    read_description,
    read_layout,
    read_mask,
    read_part,
    verify_files,
)
from .scale import TrainingStatistics
from .screen import screen, sizes


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
        The feature of eq. 6, when the checkpoint has it.
    """

    context: Float32
    latent: Float32
    structure: Float32
    semantic: Float32 | None = None


class Checkpoint(Belonging):
    """Fitted decoders of one subject, opened by :func:`open_checkpoint`.

    Attributes
    ----------
    description : dict
        checkpoint.json as it is.
    image_size : int
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

    what = "checkpoint"

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        self.folder = folder
        self.description = dict(description)
        self.subject, self.preset = description["subject"], description["preset"]
        self.models_name, self.models_hash = description["models"]["name"], description["models"]["hash"]
        self.layout = read_layout(folder, description)
        self.image_size: int = description["image_size"]
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(shape) for name, shape in description["shapes"].items()}
        trial = (np.float32, self.layout.shape)
        normaliser = read_part(folder, "normaliser", {"mean": trial, "std": trial})
        self.training = TrainingStatistics(mean=normaliser["mean"], std=normaliser["std"], layout=self.layout)
        n_tokens, d_text = self.shapes["context"]
        expected = {"context_bos": (np.float32, (d_text,)), "uncond_context": (np.float32, (n_tokens, d_text))}
        constants = read_part(folder, "constants", expected)
        self._context_bos: Float32 = constants["context_bos"]
        self.uncond_context: Float32 = constants["uncond_context"]
        selected = read_mask(folder, self.shapes["structure"], self.preset)
        self.mask: NDArray[np.bool_] = selected["mask"]
        self.score: Float32 = selected["score"]
        self.decoders: dict[str, Decoder] = {}
        for described in description["decoders"]:
            features = described["features"]
            path, shapes = folder / file_name(decoder_part(features)), {name: self.shapes[name] for name in features}
            decoder = open_decoder(Stored(path, described, self.layout.shape, shapes))
            self.decoders |= dict.fromkeys(features, decoder)

    @property
    def signal_folder(self) -> Path:
        """Where the files lie that the layout's signal chain names."""
        return self.folder / SIGNAL_FOLDER

    @cached_property
    def hash(self) -> str:
        """SHA-256 of checkpoint.json, which holds the SHA-256 of every other file."""
        return sha256_of(self.folder / DESCRIPTION)

    @property
    def statistics(self) -> tuple[Float32, Float32]:
        """Mean and deviation of the training responses, of one trial's shape each; deviation 0: it did not vary."""
        return self.training.mean, self.training.std

    @property
    def context_bos(self) -> Float32:
        """(d_text,): token 0 of every context."""
        return self._context_bos

    def prepare(self) -> None:
        """Make everything that decoding needs, which for networks takes PyTorch.

        Raises
        ------
        FileError
            A network's weights are not those of its architecture and config.
        MissingExtra
            There is a network, and no PyTorch.
        """
        for decoder in self.decoders.values():
            decoder.prepare()

    def decode(self, responses: Array, *, screened: bool = False, semantic: bool = True) -> Decoded:
        """Decode good trials.

        Parameters
        ----------
        responses : (n_trials, *response_shape)
            As recorded; the training statistics are applied here.
        screened
            Whether :func:`~minddiffuser.runtime.decoders.screen.screen` has looked at the whole set that they belong
            to; then they are taken as they are.
        semantic
            Whether the feature of eq. 6 is wanted, where there is a decoder of it.

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
        return Decoded(**self._decoded(rows, [name for name in self.decoders if semantic or name != "semantic"]))

    def decode_start(self, responses: Array, *, screened: bool = False) -> tuple[Float32, Float32]:
        """Context and latent of good trials, all that stage 1 needs; see :meth:`decode`."""
        decoded = self._decoded(good_responses(responses, self.training, screened=screened), ("context", "latent"))
        return decoded["context"], decoded["latent"]

    def _decoded(self, responses: Float32, names: Sequence[str]) -> dict[str, Float32]:
        scores = self.training.scores(responses)
        predicted: dict[str, Float32] = {}
        for decoder in {id(self.decoders[name]): self.decoders[name] for name in names}.values():
            predicted |= decoder.predict(scores, names)
        decoded = {name: self.decoders[name].placements[name].place(predicted[name]) for name in names}
        if "context" in decoded:
            decoded["context"][:, 0] = self._context_bos
        return decoded

    def z_scores(self, responses: Array) -> Float32:
        """Z-scores (n_trials, *response_shape) by the training statistics; 0 for what did not vary in training.

        Raises
        ------
        ShapeError
            Wrong rank, width or dtype.
        """
        return self.training.scores(checked(responses, self.layout.shape))


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
    rows = checked(responses, training.mean.shape)
    if screened:
        return rows
    found = screen(rows, training)
    for trial, reason in found.skipped.items():
        raise InputError(f"trial {trial} cannot be decoded ({reason}): leave such trials out")
    for warning in found.warnings:
        warnings.warn(warning, stacklevel=3)  # the line that called decode
    return found.responses


def checked(responses: Array, response_shape: tuple[int, ...]) -> Float32:
    """The responses as float32, of the right shape and kind.

    Raises
    ------
    ShapeError
        They are not.
    """
    if not isinstance(responses, np.ndarray) or responses.dtype.kind not in "fiu":
        given = getattr(responses, "dtype", type(responses).__name__)
        raise ShapeError(f"responses are {given}, expected float32 numbers: convert them with astype('float32')")
    if responses.ndim != 1 + len(response_shape) or len(responses) == 0:
        wanted = ", ".join(map(str, ("n_trials", *response_shape)))
        raise ShapeError(
            f"responses have shape {responses.shape}, expected ({wanted}) with 1 trial or more: "
            "a single trial is responses[None]"
        )
    if responses.shape[1:] != response_shape:
        raise ShapeError(
            f"responses have {sizes(responses.shape[1:])}, the decoders were fitted on {sizes(response_shape)}: "
            "give the same as in training, in the same order"
        )
    with np.errstate(over="ignore"):
        return responses.astype(np.float32)
