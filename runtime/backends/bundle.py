"""A bundle with its engines: everything on numpy arrays, without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.manifest import DECODE
from ..bundle.open import Bundle
from ..decoders.belonging import Decoded
from ..decoders.bundle import BundleDecoder
from ..engines.cuda.gpu import name_of_gpu
from ..engines.here import BACKENDS, Machine, why_not_backend
from ..engines.open import EngineSet, EngineSettings
from ..engines.ort.engine import as_numpy
from ..engines.trust import Trust
from ..errors import InputError
from ..generators.base import Float32, Generator
from ..generators.ddim import NoiseTable
from ..generators.engines import EngineGenerator
from ..models.locate import TINY, TINY_FOLDER
from ..refine.costs import COUNTED_GRAPHS, Costs, engine_costs
from ..refine.engines import EngineObjective, structural
from ..refine.settings import AdamSettings
from ..refine.weights import StructuralWeights
from ..regions import regions_note
from ..sampling import Sampling
from .base import Needs, Noise, Options, Start
from .common import Common
from .libraries import libraries_of, notes_of_bundle

# The graphs of a bundle that every run of a stage needs; stage 2 also those of stage 1.
STAGE_1 = ("decode_context", "decode_latent", "denoise", "vae_decode")
STAGE_2 = ("decode_structure", "structure_gradient", "denoise_gradient")


def open_bundle(folder: Path, options: Options) -> BundleBackend:
    """Open a bundle and choose its engines, which start when they are first used."""
    bundle = Bundle.open(folder)
    given = options.of_torch()
    if given:
        raise InputError(
            f"{folder} is a bundle, which has its networks inside, and {', '.join(given)} choose PyTorch's: "
            "leave them out, or give --backend pytorch"
        )
    trust = Trust(file=options.trust_list, everything=options.trust_plans)
    graphs = needed_graphs(bundle, options.needs)
    earlier = _earlier_backend(bundle, options, trust, graphs)
    settings = EngineSettings(
        backend=earlier or options.backend or "auto",
        precision=options.precision or "auto",
        memory=options.memory or "fast",
        threads=options.cpu_threads(),
        share_threads=options.share_threads,
        memory_limit_bytes=None if options.gpu_memory_mib is None else options.gpu_memory_mib << 20,
        cache=options.engine_cache,
        trust=trust,
    )
    reason = None if earlier is None else "as in the run folder"
    return BundleBackend(EngineSet(bundle, settings, graphs=graphs), reason=reason)


def open_decoders(folder: Path, options: Options) -> tuple[BundleDecoder, EngineSet, dict[str, Any]]:
    """Open a bundle's decoders alone, for networks in PyTorch.

    Returns
    -------
    The decoder, its engines, and what is known of the fit.
    """
    bundle = Bundle.open(folder)
    graphs = [name for name in needed_graphs(bundle, options.needs) if name.startswith(DECODE)]
    engines = EngineSet(bundle, EngineSettings(backend="ort", threads=options.cpu_threads()), graphs=graphs)
    return BundleDecoder(bundle, engines), engines, bundle.manifest["checkpoint"]["provenance"]


def needed_graphs(bundle: Bundle, needs: Needs) -> list[str]:
    """The graphs that a run uses: those of its pictures, and the one that measures them, where the bundle has it."""
    graphs = list(STAGE_1)
    if needs.refine:
        graphs += [name for name in STAGE_2 if name != "denoise_gradient" or needs.steps_back]
        graphs += ["decode_semantic"] if needs.semantic and "semantic" in bundle.shapes else []
    if needs.nearest:
        more = [name for name in ("decode_structure", "decode_semantic") if name not in graphs]
        graphs += [name for name in more if name == "decode_structure" or name in bundle.graphs]
    graphs += ["clip_structure"] if needs.features or "clip_structure" in bundle.graphs else []
    return graphs


def _earlier_backend(bundle: Bundle, options: Options, trust: Trust, graphs: list[str]) -> str | None:
    """For "auto", the backend of the run that is resumed, where it still runs: a resume computes as before."""
    backend = options.earlier_backend
    if options.backend not in (None, "auto") or trust.everything or backend not in BACKENDS:
        return None
    precision = options.precision or "auto"
    reason = why_not_backend(bundle, backend, Machine(trust), precision=precision, graphs=graphs)
    return backend if reason is None else None


class BundleBackend(Common):
    """See :class:`.base.Backend`; closed with its engines.

    Parameters
    ----------
    engines : EngineSet
    reason : str, optional
        Why its backend was chosen, where the set itself does not know.
    """

    def __init__(self, engines: EngineSet, *, reason: str | None = None) -> None:
        self._engines, self._bundle, self._reason = engines, engines.bundle, reason
        self.decoder = BundleDecoder(engines.bundle, engines)
        self._started = False

    @property
    def hash(self) -> str | None:
        # "auto" may have to take another backend, and with it other files, when it starts.
        settled = self._started or self._engines.settings.backend != "auto"
        return self.decoder.hash if settled else None

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        channels, height, width = self._bundle.shapes["latent"]
        return channels, height, width

    @property
    def models_name(self) -> str:
        return self._bundle.models_name

    @property
    def models_hash(self) -> str:
        return self._bundle.models_hash

    def start(self) -> None:
        """See :meth:`.base.Backend.start`."""
        self._engines.start()
        self._started = True

    @property
    def description(self) -> str:
        return str(self._engines["vae_decode"].description)

    @property
    def chosen(self) -> str:
        return f"{self.description} ({self._reason or self._engines.choice.reason})"

    @property
    def computing(self) -> dict[str, Any]:
        device = self._engines["vae_decode"].device
        return {
            "backend": self._engines.choice.backend,
            "device": device,
            "dtype": self._engines.variant("denoise").precision,
            "threads": self._engines.settings.threads,
            **name_of_gpu(device),
        }

    @property
    def libraries(self) -> tuple[str, ...]:
        return libraries_of(self._engines.choice.backend)

    @property
    def notes(self) -> tuple[str, ...]:
        manifest = self._bundle.manifest
        return (*regions_note(manifest["checkpoint"]["provenance"]), *notes_of_bundle(manifest))

    @property
    def classifier(self) -> None:
        return None

    @property
    def locator(self) -> Path | None:
        # It comes with the package and needs numpy alone, so that a bundle of the tiny world has it without PyTorch.
        folder = TINY_FOLDER / "locator"
        return folder if self.models_name == TINY and folder.is_dir() else None

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def largest_batch(self) -> int | None:
        return self._engines.largest_batch

    @property
    def embeds(self) -> bool:
        return "clip_structure" in self._bundle.graphs

    @property
    def costs(self) -> Costs:
        """See :attr:`.base.Backend.costs`."""
        return engine_costs(self._bundle.flops(*COUNTED_GRAPHS))

    def generator(
        self,
        decoded: Start | Decoded,
        noise: Noise,
        sampling: Sampling | None = None,
        *,
        backprop_steps: int | None = None,
    ) -> EngineGenerator:
        """See :meth:`.base.Backend.generator`."""
        noise_of = self._bundle.noise
        trained = NoiseTable(self._bundle.arrays["alphas_cumprod"], noise_of.steps_offset, noise_of.set_alpha_to_one)
        return EngineGenerator(
            self._engines,
            trained,
            decoded.latent,
            decoded.context,
            self.decoder.uncond_context,
            noise,
            sampling=sampling or self._bundle.sampling,
            backprop_steps=backprop_steps,
            loop=self._engines.loop(),
        )

    def objective(
        self,
        generator: Generator[Float32],
        target: Float32,
        settings: AdamSettings,
        semantic_target: Float32 | None = None,
    ) -> EngineObjective:
        """See :meth:`.base.Backend.objective`."""
        if not isinstance(generator, EngineGenerator):
            raise InputError(
                f"a {type(generator).__name__} was given, and a bundle's engines differentiate their own generator "
                "only: make it with backend.generator"
            )
        return EngineObjective(self._engines, generator, target, self.decoder.mask, settings, semantic_target)

    def structural(
        self,
        x0: Float32,
        target: Float32,
        weights: StructuralWeights,
        semantic: tuple[Float32, float] | None = None,
    ) -> tuple[Float32, Float32, Float32]:
        """See :meth:`.base.Backend.structural`."""
        head = self._engines["structure_gradient"]
        return structural(head, x0, target, weights, semantic, largest_batch=self._engines.largest_batch)

    def features(self, images: Float32, *, semantic: bool) -> tuple[Float32, Float32 | None]:
        """See :meth:`.base.Backend.features`."""
        found = self._clip(images)
        return found["structure"], found["semantic"] if semantic else None

    def embedding(self, images: Float32) -> Float32:
        """See :meth:`.base.Backend.embedding`."""
        return self._clip(images)["embedding"]

    def _clip(self, images: Float32) -> dict[str, Float32]:
        engine, most = self._engines["clip_structure"], self._engines.largest_batch or len(images)
        parts = [engine.run({"image": images[at : at + most]}) for at in range(0, len(images), most)]
        return {name: np.concatenate([as_numpy(part[name]) for part in parts]) for name in engine.outputs}

    def close(self) -> None:
        """Close every engine."""
        self._engines.close()
