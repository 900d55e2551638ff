"""Responses to context, latent and structure by a bundle's own decoders."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from ..bundle.manifest import DECODE
from ..bundle.open import Bundle
from ..engines.open import EngineSet
from ..engines.ort.engine import as_numpy
from ..training_pictures import TrainingPictures
from .base import Float32
from .belonging import Belonging
from .concepts import SIMILARITY
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
        self.candidates, self.leaks, self.split = bundle.candidates, bundle.leaks, bundle.split
        arrays = bundle.arrays
        self.mask, self.score = arrays["mask"], arrays["score"]
        self.uncond_context: Float32 = arrays["uncond_context"]
        self.training = TrainingStatistics(mean=arrays["mean"], std=arrays["std"], layout=self.layout)
        self._built_in = (arrays["built_in_mean"], arrays["built_in_std"]) if "built_in_mean" in arrays else None

    @property
    def hash(self) -> str:
        """SHA-256 of what the engines take from the bundle; it is settled once they have started."""
        return self._engines.content_hash

    @property
    def training_pictures(self) -> TrainingPictures | None:
        """See :attr:`.checkpoint.Checkpoint.training_pictures`."""
        return self._bundle.training_pictures

    @property
    def given(self) -> list[str]:
        return [name for name in self.shapes if name != "semantic" or DECODE + name in self._bundle.graphs]

    def decoded(self, responses: Float32, names: Collection[str]) -> dict[str, Float32]:
        """Decode trial by trial: a sum may be taken in another order for another number of them."""
        return {name: self._run(name, name, responses) for name in names}

    def similarities(self, responses: Float32) -> Float32:
        """See :meth:`.belonging.Belonging.similarities`."""
        return self._run("context", SIMILARITY, responses)

    def _run(self, feature: str, output: str, responses: Float32) -> Float32:
        engine = self._engines[DECODE + feature]
        rows = self._as_built_in(responses)
        return np.concatenate([as_numpy(engine.run({"responses": row[None]})[output]) for row in rows])

    def _as_built_in(self, responses: Float32) -> Float32:
        """Responses whose z-scores by the statistics in the graphs are those of `responses` by today's."""
        if self._built_in is None:
            return responses
        mean, std = self._built_in
        return mean + std * self.training.scores(responses)
