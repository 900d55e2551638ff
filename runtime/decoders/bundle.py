"""Responses to context, latent and structure by a bundle's own decoders."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..bundle.manifest import DECODE
from ..bundle.open import Bundle
from ..engines.open import EngineSet
from ..engines.ort.engine import as_numpy
from .base import Array, Float32
from .belonging import Belonging
from .checkpoint import Decoded, good_responses
from .scale import TrainingStatistics


class BundleDecoder(Belonging):
    """What a :class:`~.checkpoint.Checkpoint` is to reconstruction, over a bundle's `decode_*` graphs.

    `hash` stays the same when engines that are not used are added to the bundle.
    """

    what = "bundle"

    def __init__(self, bundle: Bundle, engines: EngineSet) -> None:
        self._bundle, self._engines = bundle, engines
        self.folder = bundle.folder
        self.subject, self.preset = bundle.subject, bundle.preset
        self.models_name, self.models_hash = bundle.models_name, bundle.models_hash
        self.layout, self.image_size, self.shapes = bundle.layout, bundle.image_size, bundle.shapes

    @property
    def hash(self) -> str:
        """SHA-256 of what the engines take from the bundle; it is settled once they have started."""
        return self._engines.content_hash

    @property
    def mask(self) -> NDArray[np.bool_]:
        return self._bundle.arrays["mask"]

    @property
    def uncond_context(self) -> Float32:
        """(15, d_text): the context of the empty caption."""
        return self._bundle.arrays["uncond_context"]

    @cached_property
    def training(self) -> TrainingStatistics:
        """Of the responses that the decoders were fitted on."""
        arrays = self._bundle.arrays
        return TrainingStatistics(mean=arrays["mean"], std=arrays["std"], layout=self.layout)

    def decode(self, responses: Array, *, screened: bool = False, semantic: bool = True) -> Decoded:
        """Decode good trials; see Checkpoint.decode."""
        rows = good_responses(responses, self.training, screened=screened)
        wanted = semantic and DECODE + "semantic" in self._bundle.graphs
        names = [name for name in self.shapes if name != "semantic" or wanted]
        return Decoded(**dict(zip(names, self.decode_only(rows, names), strict=True)))

    def decode_start(self, responses: Array, *, screened: bool = False) -> tuple[Float32, Float32]:
        """Context and latent of good trials, all that stage 1 needs; see Checkpoint.decode_start."""
        rows = good_responses(responses, self.training, screened=screened)
        context, latent = self.decode_only(rows, ("context", "latent"))
        return context, latent

    def decode_only(self, responses: Float32, names: Sequence[str]) -> list[Float32]:
        """Decode some of the targets from good trials (n, *response_shape) float32.

        One by one: a sum may be taken in another order for another number of trials.
        """
        engines = {name: self._engines[DECODE + name] for name in names}
        return [
            np.concatenate([as_numpy(engine.run({"responses": row[None]})[name]) for row in responses])
            for name, engine in engines.items()
        ]
