"""What decodes: what it belongs to (a subject, models, layers, a layout of responses), and what it gives."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..candidates import Candidates
from ..data.layout import ResponseLayout
from ..errors import InputError, ShapeError
from ..files import Array
from ..split import Split
from .base import Float32
from .best import best_per_layer
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


class Belonging(ABC):
    """What a checkpoint and a bundle have in common: decoding of good trials, and refusals by name.

    Attributes
    ----------
    what : str
        "checkpoint" or "bundle".
    subject, preset, models_name, models_hash : str
    layout : ResponseLayout
        What one trial's responses are: modality, shape, regions or channels, rate.
    shapes : name to shape
        "context", "latent", "structure" and, when there, "semantic".
    training : TrainingStatistics
        Of the responses that the decoders were fitted on.
    candidates : Candidates or None
        The concepts by way of which the context is found; None where it is decoded directly.
    leaks : tuple of str
        Those that it was fitted with on purpose; see :mod:`.leaks`.
    split : Split or None
        How the training pictures were chosen, where it was not by the data's own split.
    mask, score : (6, n_tokens, d_vision) bool, float32
        Which structure dimensions are trusted; the cross-validated correlation of each.
    """

    what: str
    folder: Path
    subject: str
    preset: str
    models_name: str
    models_hash: str
    layout: ResponseLayout
    shapes: dict[str, tuple[int, ...]]
    training: TrainingStatistics
    candidates: Candidates | None
    leaks: tuple[str, ...]
    split: Split | None
    mask: NDArray[np.bool_]
    score: Float32

    @abstractmethod
    def decoded(self, responses: Float32, names: Collection[str]) -> dict[str, Float32]:
        """Some of the features of good trials (n, *response_shape) float32, each trial as if it came alone."""

    @abstractmethod
    def similarities(self, responses: Float32) -> Float32:
        """Of good trials and of each candidate, as :meth:`similarity` says."""

    @property
    def given(self) -> Collection[str]:
        """The features that there are decoders of."""
        return self.shapes

    def require_models(self, models_hash: str, name: str) -> None:
        """Raise :class:`InputError` unless it was made for these models."""
        if models_hash != self.models_hash:
            raise InputError(
                f"the {self.what} {self.folder} was made for other models ({self.models_name!r}, hash "
                f"{self.models_hash[:12]}) than {name!r} (hash {models_hash[:12]}): give those, or make it again"
            )

    def require_subject(self, subject: str) -> None:
        """Raise :class:`InputError` unless it belongs to this subject."""
        if subject != self.subject:
            raise InputError(
                f"the {self.what} {self.folder} decodes subject {self.subject!r}, the responses are of {subject!r}: "
                f"give that subject's {self.what}"
            )

    def require_layout(self, layout: ResponseLayout | None) -> None:
        """Raise :class:`InputError` unless responses are laid out as in training; None: it is not known."""
        if layout is not None:
            self.layout.require_same(layout, f"the {self.what} {self.folder}")

    def require_preset(self, preset: str) -> None:
        """Raise :class:`InputError` unless structure and mask are of this layer preset."""
        if preset != self.preset:
            raise InputError(
                f"the {self.what} {self.folder} is for the layer preset {self.preset!r}, but {preset!r} was requested: "
                f"load models with preset={self.preset!r}, or fit a checkpoint with md-train fit --layers {preset}"
            )

    def trust(self, percent: float) -> None:
        """Trust only the best `percent` of each structural layer from now on, by their cross-validated correlations.

        Raises
        ------
        InputError
            It is not above 0 and at most 100, or more than what was kept when it was fitted.
        """
        if not 0 < percent <= 100:
            raise InputError(f"percent is {percent}, expected above 0 and at most 100")
        best = best_per_layer(self.score, percent)
        if (best & ~self.mask).any():
            kept = 100 * self.mask.mean()
            raise InputError(
                f"the {self.what} {self.folder} keeps {kept:.3g} % of the structure, {percent:g} % was asked for: give "
                f"at most that, or fit with md-train fit --percent {percent:g}"
            )
        self.mask = best

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
        return Decoded(**self.decoded(rows, [name for name in self.given if semantic or name != "semantic"]))

    def decode_start(self, responses: Array, *, screened: bool = False) -> tuple[Float32, Float32]:
        """Context and latent of good trials, all that stage 1 needs; see :meth:`decode`."""
        decoded = self.decoded(good_responses(responses, self.training, screened=screened), ("context", "latent"))
        return decoded["context"], decoded["latent"]

    def similarity(self, responses: Array, *, screened: bool = False) -> Float32:
        """How near good trials are to each candidate concept; the context is that of the first nearest one.

        Returns
        -------
        (n_trials, n_candidates) float32
            Cosines, in the order of `candidates.names`.

        Raises
        ------
        InputError
            The context is decoded without concepts; or as :meth:`decode`.
        """
        if self.candidates is None:
            raise InputError(
                f"the {self.what} {self.folder} decodes the context directly, not by way of concepts: fit one with "
                "md-train fit --context concepts"
            )
        return self.similarities(good_responses(responses, self.training, screened=screened))


def good_responses(responses: Array, training: TrainingStatistics, *, screened: bool) -> Float32:
    """Responses that may be decoded, float32; see :meth:`Belonging.decode`."""
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
