"""Networks in PyTorch, for the decoders of a checkpoint or of a bundle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..decoders.belonging import Decoded
from ..engines.cuda.gpu import name_of_gpu
from ..engines.open import EngineSet
from ..generators.base import Float32, Generator
from ..generators.diffusion import DiffusionGenerator
from ..models.device import choose_device
from ..models.models import Models
from ..models.open import load_models
from ..refine.autograd import AutogradObjective, structural
from ..refine.costs import Costs
from ..refine.settings import AdamSettings
from ..refine.weights import StructuralWeights
from ..regions import regions_note
from ..sampling import Sampling
from .base import Decoder, Noise, Options, Start
from .common import Common
from .flops import autograd_costs
from .libraries import ONNX_RUNTIME, OURS, TORCH_LIBRARIES, notes_of_torch

# Up to this size all 35 steps' activations fit a laptop's memory (3.4 GB measured for 16 trials of the tiny world), and
# recomputing them costs a third of the time; the gradient is the same either way.
KEEP_ACTIVATIONS_PX = 128


class TorchBackend(Common):
    """See :class:`.base.Backend`.

    Parameters
    ----------
    decoder : Decoder
    options : Options
    provenance : mapping
        Of the decoder's fit; see :func:`.libraries.notes_of_torch`.
    engines : EngineSet, optional
        What the decoder runs on, to be closed with the backend.
    models : Models, optional
        Networks that are open already; None: those that the options name.
    """

    def __init__(
        self,
        decoder: Decoder,
        options: Options,
        provenance: Mapping[str, Any],
        *,
        engines: EngineSet | None = None,
        models: Models | None = None,
    ) -> None:
        self.decoder: Decoder = decoder
        self._options, self._provenance = options, provenance
        self._engines, self._given = engines, models
        self._opened: Models | None = None
        self._threads = options.cpu_threads(torch.get_num_threads())

    @property
    def hash(self) -> str:
        return self.decoder.hash

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.decoder.shapes["latent"]
        return channels, height, width

    def start(self) -> None:
        """See :meth:`.base.Backend.start`."""
        self._open()

    @property
    def models(self) -> Models:
        """The networks, opened at the first use."""
        return self._open()

    def _open(self) -> Models:
        if self._opened is None:
            if self._engines is not None:
                self._engines.start()
            models = self._load() if self._given is None else self._given
            self.decoder.require_models(models.hash, models.name)
            self.decoder.require_preset(models.preset)
            self._opened = models
        return self._opened

    def _load(self) -> Models:
        options = self._options
        torch.set_num_threads(self._threads)
        device = choose_device(options.device)
        if device != "cpu":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS gives other bits from run to run
            torch.use_deterministic_algorithms(True, warn_only=True)
        return load_models(
            options.models or "tiny", clip=options.clip, preset=self.decoder.preset, device=device, dtype=options.dtype
        )

    @property
    def models_name(self) -> str:
        return self.models.name

    @property
    def models_hash(self) -> str:
        return self.models.hash

    @property
    def description(self) -> str:
        return f"PyTorch, {self.models.device}, {str(self.models.dtype).removeprefix('torch.')}"

    @property
    def chosen(self) -> str:
        return self.description

    @property
    def computing(self) -> dict[str, Any]:
        return {
            "backend": "pytorch",
            "device": self.device,
            "dtype": str(self.models.dtype).removeprefix("torch."),
            "threads": self._threads,
            **name_of_gpu(self.device),
        }

    @property
    def libraries(self) -> tuple[str, ...]:
        return (*OURS, *TORCH_LIBRARIES, *(ONNX_RUNTIME if self._engines is not None else ()))

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.models.notes, *regions_note(self._provenance), *notes_of_torch(self._provenance))

    @property
    def classifier(self) -> Path | None:
        return self._beside("classifier")

    @property
    def locator(self) -> Path | None:
        return self._beside("locator")

    def _beside(self, name: str) -> Path | None:
        """A folder of this name in the model folder, if there is one."""
        folder = None if self.models.folder is None else self.models.folder / name
        return folder if folder is not None and folder.is_dir() else None

    @property
    def device(self) -> str:
        return str(self.models.device)

    @property
    def largest_batch(self) -> None:
        return None

    @property
    def embeds(self) -> bool:
        return True

    @cached_property
    def costs(self) -> Costs:
        """See :attr:`.base.Backend.costs`; counted at the first use."""
        return autograd_costs(self.models)

    def generator(
        self,
        decoded: Start | Decoded,
        noise: Noise,
        sampling: Sampling | None = None,
        *,
        backprop_steps: int | None = None,
    ) -> DiffusionGenerator:
        """See :meth:`.base.Backend.generator`."""
        return DiffusionGenerator(
            self.models,
            decoded.latent,
            decoded.context,
            self.decoder.uncond_context,
            noise,
            sampling=sampling,
            backprop_steps=backprop_steps,
            checkpointing=not _keeps_activations(self._options.checkpointing, self.models.image_size),
        )

    def objective(
        self,
        generator: Generator[Tensor],
        target: Float32,
        settings: AdamSettings,
        semantic_target: Float32 | None = None,
    ) -> AutogradObjective:
        """See :meth:`.base.Backend.objective`."""
        return AutogradObjective(self.models, generator, target, self.decoder.mask, settings, semantic_target)

    def structural(
        self,
        x0: Tensor,
        target: Float32,
        weights: StructuralWeights,
        semantic: tuple[Float32, float] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`.base.Backend.structural`."""
        return structural(self.models, x0, target, weights, semantic)

    def features(self, images: Float32, *, semantic: bool) -> tuple[Float32, Float32 | None]:
        """See :meth:`.base.Backend.features`."""
        with torch.no_grad():
            structure, token = self.models.structure(self._tensor(images), semantic=semantic)
        return _numpy(structure), None if token is None else _numpy(token)

    def embedding(self, images: Float32) -> Float32:
        """See :meth:`.base.Backend.embedding`."""
        with torch.no_grad():
            return _numpy(self.models.embedding(self._tensor(images)))

    def _tensor(self, images: Float32) -> Tensor:
        return torch.from_numpy(images).to(self.models.device)

    def close(self) -> None:
        """Close the decoder's engines, if it has any."""
        if self._engines is not None:
            self._engines.close()


def _keeps_activations(checkpointing: str, image_size: int) -> bool:
    """Whether every denoising step's activations are kept for the gradient; see Options."""
    return image_size <= KEEP_ACTIVATIONS_PX if checkpointing == "auto" else checkpointing == "off"


def _numpy(tensor: Tensor) -> Float32:
    found: Float32 = tensor.float().cpu().numpy()
    return found
