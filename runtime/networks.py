"""The networks of both stages as reconstruction needs them, whatever computes them: PyTorch, or a bundle's engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .refine.settings import RefineSettings
from .schedule import N_NOISE, N_REVERSE, N_STEPS

if TYPE_CHECKING:
    from .bundle import Bundle
    from .engines.open import EngineSet
    from .models.models import Models

Float32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """What stage 1 begins with, for n trials.

    Attributes
    ----------
    latent : (n, 4, h, w) float32
    context : (n, 15, d_text) float32
    uncond_context : (15, d_text) float32
    noise : (n, 4, h, w) float32, or iteration -> one
    guidance_scale, n_steps, n_noise, n_reverse, backprop_steps
        See :class:`~minddiffuser.runtime.generators.diffusion.DiffusionGenerator`.
    """

    latent: Float32
    context: Float32
    uncond_context: Float32
    noise: Float32 | Callable[[int], Float32]
    guidance_scale: float = 5.0
    n_steps: int = N_STEPS
    n_noise: int | None = N_NOISE
    n_reverse: int = N_REVERSE
    backprop_steps: int | None = None

    def arrays(self) -> tuple[Any, ...]:
        return self.latent, self.context, self.uncond_context, self.noise

    def choices(self) -> dict[str, Any]:
        names = ("guidance_scale", "n_steps", "n_noise", "n_reverse", "backprop_steps")
        return {name: getattr(self, name) for name in names}


class Networks(Protocol):
    """The networks of both stages on one device; `name` and `hash` say which weights."""

    name: str
    hash: str
    preset: str
    image_size: int
    latent_shape: tuple[int, int, int]

    @property
    def description(self) -> str:
        """What computes, for people."""
        ...

    def generator(self, start: Start) -> Any:
        """Stage 1 as a generator that also has `stage1_render()`."""
        ...

    def objective(
        self,
        generator: Any,
        target: Float32,
        mask: NDArray[np.bool_],
        settings: RefineSettings,
        semantic_target: Float32 | None,
    ) -> Any:
        """The loss of stage 2 with its gradient, for :func:`~minddiffuser.runtime.refine.loop.refine`."""
        ...

    def features(self, images: Float32, *, semantic: bool) -> tuple[Float32, Float32 | None]:
        """Structure (n, 6, n_tokens, d_vision) and, if asked for, semantic feature (n, d) of images in [0, 1]."""
        ...

    def embedding(self, images: Float32) -> Float32:
        """CLIP embeddings (n, embed_dim) of images in [0, 1]."""
        ...


class TorchNetworks:
    """Networks in PyTorch.

    Parameters
    ----------
    models : Models
    checkpointing : bool
        Of each denoising step; see :class:`~minddiffuser.runtime.generators.diffusion.DiffusionGenerator`.
    """

    def __init__(self, models: Models, *, checkpointing: bool = True) -> None:
        self.models, self._checkpointing = models, checkpointing
        self.name, self.hash, self.preset = models.name, models.hash, models.preset
        self.image_size, self.latent_shape = models.image_size, models.latent_shape

    @property
    def description(self) -> str:
        return f"PyTorch, {self.models.device}, {str(self.models.dtype).removeprefix('torch.')}"

    def generator(self, start: Start) -> Any:
        from .generators.diffusion import DiffusionGenerator

        return DiffusionGenerator(self.models, *start.arrays(), checkpointing=self._checkpointing, **start.choices())

    def objective(
        self,
        generator: Any,
        target: Float32,
        mask: NDArray[np.bool_],
        settings: RefineSettings,
        semantic_target: Float32 | None,
    ) -> Any:
        from .refine.autograd import AutogradObjective

        return AutogradObjective(self.models, generator, target, mask, settings, semantic_target)

    def features(self, images: Float32, *, semantic: bool) -> tuple[Float32, Float32 | None]:
        import torch

        with torch.no_grad():
            structure, token = self.models.structure(torch.from_numpy(images).to(self.models.device), semantic=semantic)
        return structure.float().cpu().numpy(), None if token is None else token.float().cpu().numpy()

    def embedding(self, images: Float32) -> Float32:
        import torch

        with torch.no_grad():
            found: Float32 = (
                self.models.embedding(torch.from_numpy(images).to(self.models.device)).float().cpu().numpy()
            )
        return found


class EngineNetworks:
    """Networks as the engines of a bundle: no PyTorch."""

    def __init__(self, bundle: Bundle, engines: EngineSet) -> None:
        self._bundle, self._engines = bundle, engines
        self.name, self.hash, self.preset = bundle.models_name, bundle.models_hash, bundle.preset
        self.image_size = bundle.image_size
        channels, height, width = bundle.shapes["latent"]
        self.latent_shape = (channels, height, width)

    @property
    def description(self) -> str:
        return str(self._engines["vae_decode"].description)

    def generator(self, start: Start) -> Any:
        from .generators.engines import EngineGenerator

        return EngineGenerator(
            self._engines, self._schedule(), *start.arrays(), loop=self._engines.loop(), **start.choices()
        )

    def objective(
        self,
        generator: Any,
        target: Float32,
        mask: NDArray[np.bool_],
        settings: RefineSettings,
        semantic_target: Float32 | None,
    ) -> Any:
        from .refine.engines import EngineObjective

        return EngineObjective(self._engines, generator, target, mask, settings, semantic_target)

    def features(self, images: Float32, *, semantic: bool) -> tuple[Float32, Float32 | None]:
        found = self._clip(images)
        return found["structure"], found["semantic"] if semantic else None

    def embedding(self, images: Float32) -> Float32:
        return self._clip(images)["embedding"]

    def _clip(self, images: Float32) -> dict[str, Float32]:
        from .engines.ort import as_numpy

        engine, most = self._engines["clip_structure"], self._engines.largest_batch or len(images)
        parts = [engine.run({"image": images[at : at + most]}) for at in range(0, len(images), most)]
        return {name: np.concatenate([as_numpy(part[name]) for part in parts]) for name in engine.outputs}

    def _schedule(self) -> Mapping[str, Any]:
        sampling = self._bundle.manifest["sampling"]
        return {
            "alphas_cumprod": self._bundle.arrays["alphas_cumprod"],
            "steps_offset": sampling["steps_offset"],
            "set_alpha_to_one": sampling["set_alpha_to_one"],
        }
