"""What a backend is: everything that a run computes with, and what a person may choose of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..candidates import Candidates
from ..data.layout import ResponseLayout
from ..decoders.belonging import Decoded
from ..decoders.scale import TrainingStatistics
from ..environment import usable_cores
from ..errors import InputError, check_choice
from ..generators.base import A, Float32, Generator, Sampler
from ..refine.base import Objective
from ..refine.costs import Costs
from ..refine.settings import AdamSettings
from ..refine.weights import StructuralWeights
from ..sampling import Sampling
from ..split import Split
from ..training_pictures import TrainingPictures

DTYPES = ("float32", "bfloat16", "float16")
CHECKPOINTING = ("auto", "on", "off")
Noise = Float32 | Callable[[int], Float32]
"""(n, 4, h, w) float32, or iteration -> one."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a run will ask of a backend, so that of a bundle no other graph is opened.

    Attributes
    ----------
    refine
        Stage 2: a decoded structure and its gradient.
    steps_back
        Gradients through denoising steps.
    semantic
        The semantic term of eq. 6.
    features
        Structure of given pictures, for the oracle control.
    nearest
        Every decoded feature, for the control "nearest".
    """

    refine: bool = True
    steps_back: bool = True
    semantic: bool = False
    features: bool = False
    nearest: bool = False


@dataclass(frozen=True, kw_only=True)
class Options:
    """What computes, as a person chooses it.

    Attributes
    ----------
    models, clip
        See :func:`~minddiffuser.runtime.models.open.load_models`; None: the tiny world, or the bundle's own.
    device
        Of PyTorch: "auto", or a torch device.
    dtype
        Of PyTorch's networks: a name of `DTYPES`.
    checkpointing
        Of PyTorch: "off" keeps every denoising step's activations for the gradient: memory grows with the batch and
        with the steps that gradients go through (3.4 GB measured for 16 trials of the tiny world, 64 px, all 35 steps).
        "on" computes them again, which takes a third longer and gives the same pictures. "auto" keeps them for pictures
        of up to 128 px.
    backend, precision, memory
        Of a bundle; see :class:`~minddiffuser.runtime.engines.open.EngineSettings`. Its networks in PyTorch are the
        backend "pytorch".
    threads
        CPU threads, at most the cores that this process may use; None takes `earlier_threads`, else torch's choice for
        networks in PyTorch, and every core that may be used for a bundle's engines.
    share_threads
        Of a bundle's engines; for a process that runs nothing else.
    gpu_memory_mib, engine_cache
        Of a bundle's engines on a GPU: the most memory of each graph (ONNX Runtime), and where TensorRT-RTX keeps what
        it compiles.
    trust_plans, trust_list
        Whether the user trusts every plan of the bundle, and the file that lists those that were trusted before; see
        :mod:`~minddiffuser.runtime.engines.trust`.
    earlier_backend, earlier_threads
        Of the run that is resumed: what is not given is taken from it where it still runs here, since the pictures'
        last bits depend on it.
    needs
        What will be asked.

    Raises
    ------
    InputError
        A value outside its range.
    """

    models: str | None = None
    clip: str | None = None
    device: str = "auto"
    dtype: str = "float32"
    checkpointing: str = "auto"
    backend: str | None = None
    precision: str | None = None
    memory: str | None = None
    threads: int | None = None
    share_threads: bool = False
    gpu_memory_mib: int | None = None
    engine_cache: Path | None = None
    trust_plans: bool = False
    trust_list: Path | None = None
    earlier_backend: str | None = None
    earlier_threads: int | None = None
    needs: Needs = field(default_factory=Needs)

    def __post_init__(self) -> None:
        for name in ("threads", "gpu_memory_mib"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InputError(f"{name} is {value!r}: give a whole number of 1 or more")
        n_cores = usable_cores()
        if self.threads is not None and self.threads > n_cores:
            raise InputError(
                f"threads is {self.threads} and this process may use {n_cores} core{'s' * (n_cores > 1)}: "
                f"give at most {n_cores}"
            )
        check_choice("dtype", self.dtype, DTYPES)
        check_choice("checkpointing", self.checkpointing, CHECKPOINTING)
        for name in ("engine_cache", "trust_list"):
            if getattr(self, name) is not None:  # a text, as people give paths in Python
                object.__setattr__(self, name, Path(getattr(self, name)))

    def of_engines(self) -> list[str]:
        """Give the command's options that choose among a bundle's engines, besides their backend."""
        values = {
            "--precision": self.precision,
            "--memory": self.memory,
            "--gpu-memory": self.gpu_memory_mib,
            "--engine-cache": self.engine_cache,
            "--trust-plans": self.trust_plans,
        }
        return [name for name, value in values.items() if value not in (None, False)]

    def of_torch(self) -> list[str]:
        """Give the command's options that choose networks in PyTorch."""
        given = {
            "--models": self.models is not None,
            "--clip": self.clip is not None,
            "--device": self.device != "auto",
            "--dtype": self.dtype != "float32",
        }
        return [name for name, there in given.items() if there]

    def cpu_threads(self, default: int | None = None) -> int:
        """How many threads to compute with: those asked for, the earlier run's, or `default` as far as there are."""
        n_cores = usable_cores()
        return self.threads or self.earlier_threads or min(default or n_cores, n_cores)


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """What stage 1 begins with: context (n, 15, d_text) and latent (n, 4, h, w), float32."""

    context: Float32
    latent: Float32


class Decoder(Protocol):
    """The decoders of one subject, whatever computes them: a checkpoint's own, or a bundle's graphs."""

    @property
    def folder(self) -> Path: ...

    @property
    def subject(self) -> str: ...

    @property
    def preset(self) -> str:
        """Which layers the structure is made of."""
        ...

    @property
    def models_name(self) -> str: ...

    @property
    def models_hash(self) -> str:
        """Of the networks that the decoders were fitted for."""
        ...

    @property
    def leaks(self) -> tuple[str, ...]:
        """Those that the decoders were fitted with on purpose; see :mod:`~..leaks`."""
        ...

    @property
    def split(self) -> Split | None:
        """How the training pictures were chosen, where it was not by the data's own split."""
        ...

    @property
    def image_size(self) -> int:
        """Side of a picture in pixels."""
        ...

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one trial's "context", "latent", "structure" and perhaps "semantic"."""
        ...

    @property
    def hash(self) -> str:
        """SHA-256 of everything in the folder that the pictures depend on."""
        ...

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Which structure dimensions are trusted, (6, n_tokens, d_vision)."""
        ...

    @property
    def uncond_context(self) -> Float32:
        """The context of the empty caption, (15, d_text)."""
        ...

    @property
    def training(self) -> TrainingStatistics:
        """Of the responses that the decoders were fitted on."""
        ...

    @property
    def training_pictures(self) -> TrainingPictures | None:
        """The table of the training pictures; None where it was made before there was one."""
        ...

    def decode(self, responses: NDArray[Any], *, screened: bool = False, semantic: bool = True) -> Decoded: ...

    def decode_start(self, responses: NDArray[Any], *, screened: bool = False) -> tuple[Float32, Float32]: ...

    @property
    def candidates(self) -> Candidates | None:
        """The concepts by way of which the context is found; None where it is decoded directly."""
        ...

    def similarity(self, responses: NDArray[Any], *, screened: bool = False) -> Float32:
        """Of each trial to each candidate, (n, n_candidates); there must be candidates."""
        ...

    def trust(self, percent: float) -> None:
        """Trust only the best of each structural layer; see :meth:`~..decoders.belonging.Belonging.trust`."""
        ...

    def require_subject(self, subject: str) -> None: ...

    def require_models(self, models_hash: str, name: str) -> None: ...

    def require_layout(self, layout: ResponseLayout | None) -> None: ...

    def require_preset(self, preset: str) -> None: ...


class Backend(Protocol[A]):
    """Everything that a run computes with; its arrays are numpy's or PyTorch's.

    `decoder`, `hash` and `latent_shape` are known at once. All else opens the networks when it is first asked for, and
    :meth:`start` does so in time: what does not run here is said before anything is computed.
    """

    @property
    def decoder(self) -> Decoder:
        """What decodes, with the checks of responses that belong to it."""
        ...

    @property
    def hash(self) -> str | None:
        """Of everything in the folder that the pictures depend on; None where only :meth:`start` settles that."""
        ...

    @property
    def latent_shape(self) -> tuple[int, int, int]: ...

    def start(self) -> None:
        """Open everything that is needed.

        Raises
        ------
        MindDiffuserError
            It does not open, or the networks are not those of the decoder.
        """
        ...

    @property
    def description(self) -> str:
        """What computes, for people."""
        ...

    @property
    def chosen(self) -> str:
        """The same with the reason, where there was a choice."""
        ...

    @property
    def models_name(self) -> str: ...

    @property
    def models_hash(self) -> str: ...

    @property
    def computing(self) -> Mapping[str, Any]:
        """What the pictures' last bits depend on besides the files: backend, device, dtype, threads, the GPU's name."""
        ...

    @property
    def libraries(self) -> tuple[str, ...]:
        """Names of the libraries whose versions matter to the pictures."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of it, such as libraries of other versions than at the fit."""
        ...

    @property
    def classifier(self) -> Path | None:
        """Folder of the classifier of concepts that belongs to the models, if any."""
        ...

    @property
    def locator(self) -> Path | None:
        """Folder of the locator of things that belongs to the models, if any."""
        ...

    @property
    def device(self) -> str:
        """The torch device for that classifier."""
        ...

    @property
    def largest_batch(self) -> int | None:
        """The most trials that can be computed together; None: any number."""
        ...

    @property
    def embeds(self) -> bool:
        """Whether there is :meth:`embedding`, for the metric that compares pictures by CLIP."""
        ...

    @property
    def costs(self) -> Costs:
        """What each call costs, per trial, in UNet forward passes.

        Raises
        ------
        InputError
            The bundle was exported before operations were counted.
        FileError
            The bundle lacks a graph of stage 2.
        """
        ...

    def decode(self, responses: Float32, *, semantic: bool = True) -> Decoded:
        """Decode responses that were screened with the whole set that they belong to; nothing is checked again.

        Parameters
        ----------
        responses : (n, *response_shape) float32
        semantic
            Whether the target of eq. 6 is wanted, where there is a decoder of it.
        """
        ...

    def decode_start(self, responses: Float32) -> Start:
        """Decode what stage 1 needs and nothing else; see :meth:`decode`."""
        ...

    def generator(
        self,
        decoded: Start | Decoded,
        noise: Noise,
        sampling: Sampling | None = None,
        *,
        backprop_steps: int | None = None,
    ) -> Sampler[A]:
        """Make the generator of n trials' pictures.

        Parameters
        ----------
        decoded
            Its context and latent are taken.
        noise
            One per trial. A function gives new noise at each rendering.
        sampling
            None: the published setting, or the one that the bundle was verified with.
        backprop_steps
            See :class:`~minddiffuser.runtime.generators.diffusion.DiffusionGenerator`.
        """
        ...

    def objective(
        self,
        generator: Generator[A],
        target: Float32,
        settings: AdamSettings,
        semantic_target: Float32 | None = None,
    ) -> Objective[A]:
        """Give the loss of stage 2 with its gradient, for :func:`~minddiffuser.runtime.refine.adam.minimise`.

        Parameters
        ----------
        generator
            Of this backend.
        target : (n, 6, n_tokens, d_vision)
        settings
        semantic_target : (n, d_vision), optional
        """
        ...

    def structural(
        self, x0: A, target: Float32, weights: StructuralWeights, semantic: tuple[Float32, float] | None = None
    ) -> tuple[A, A, A]:
        """Compare clean latents with a decoded structure (eq. 5), and differentiate each trial's own loss.

        Parameters
        ----------
        x0 : (n, 4, h, w)
            Clean latents in the generator's own scale, as :meth:`~minddiffuser.runtime.generators.base.Sampler.predict`
            gives them.
        target : (n, 6, n_tokens, d_vision)
            Finite where the weights are above 0.
        weights
            Of dimensions and layers.
        semantic : (n, d) and a weight, optional
            Target and lambda of eq. 6.

        Returns
        -------
        loss : (n,)
        gradient : (n, 4, h, w)
            Of each trial's loss with respect to its latent.
        image : (n, 3, H, W) in [0, 1]
            All float32, wider where the networks are. Rows do not depend on each other; engines take them in batches
            of the largest size that they were built for.

        Raises
        ------
        ShapeError
            Another number of latents than of targets, or shapes that are not the models'.
        InputError
            The target is not finite where it counts, or there is no graph of the semantic term.
        """
        ...

    def features(self, images: Float32, *, semantic: bool) -> tuple[Float32, Float32 | None]:
        """Structure (n, 6, n_tokens, d_vision) and, if asked for, semantic feature (n, d) of images in [0, 1]."""
        ...

    def embedding(self, images: Float32) -> Float32:
        """CLIP embeddings (n, embed_dim) of images in [0, 1]."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
