"""What a decoder is, and the register of those there are: one file and one line here add another."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import InputError, check_choice
from ..solvers.ridge import Columns

Array = NDArray[Any]
Progress = Callable[[int, int], None]

# What is decoded from responses; runtime.checkpoint reads a file for each.
TARGETS = ("context", "latent", "structure", "semantic")

# name -> (module in this package, class). The class holds the settings; its `for_target(target, **options)` gives
# the defaults for one target kind, changed by `options`. md-train fit offers each as --decoder; checkpoints need no
# change, because what decoding reads is the same for all (see FittedDecoder.arrays).
DECODERS: dict[str, tuple[str, str]] = {"ridge": ("ridge", "Ridge")}


class FittedDecoder(Protocol):
    """A decoder with its weights."""

    def predict(self, responses: Array, start: int = 0, stop: int | None = None) -> NDArray[np.float64]:
        """Targets start..stop-1 from normalised responses (n_trials, n_voxels): (n_trials, stop - start)."""
        ...

    def arrays(self) -> dict[str, Array]:
        """What a checkpoint stores, and all that decoding uses: a weighted sum over chosen voxels per target.

        "index" (n_targets, n_selected) int32, "weight" (n_targets, n_selected) float32, "bias" (n_targets,)
        float32. Any linear decoder can be written so; one that uses every voxel has n_selected = n_voxels.
        """
        ...


class Decoder(Protocol):
    """Settings of a decoder, and the way to fit it."""

    def fit(
        self,
        responses: Array,
        targets: Array | Columns,
        *,
        n_threads: int | None = None,
        progress: Progress | None = None,
    ) -> FittedDecoder:
        """Fit to normalised responses (n_trials, n_voxels) and normalised targets (n_trials, n_targets)."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON for the checkpoint: "kind", its name in DECODERS, and the options that make it again."""
        ...


def make_decoder(name: str, target: str, **options: Any) -> Decoder:
    """Make a registered decoder with the defaults for one target kind, changed by `options`.

    Raises
    ------
    InputError
        The name, the target or an option is unknown, or a value cannot be used.
    """
    check_choice("decoder", name, DECODERS)
    check_choice("target", target, TARGETS)
    module, attribute = DECODERS[name]
    decoder: Any = getattr(import_module(f"{__package__}.{module}"), attribute)
    try:
        made: Decoder = decoder.for_target(target, **options)
    except TypeError as error:
        raise InputError(f"decoder {name!r} cannot take these options ({error}): see its settings") from error
    return made


def changed(decoder: Decoder, target: str, **options: Any) -> Decoder:
    """Make the same decoder with other `options`.

    Raises
    ------
    InputError
        This kind of decoder has no such option, or cannot use the value.
    """
    description = decoder.describe()
    return make_decoder(description.pop("kind"), target, **{**description, **options})
