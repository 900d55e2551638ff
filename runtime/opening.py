"""What a run computes with: a checkpoint and PyTorch models, or a bundle and its engines."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bundle_schema import DECODE, MANIFEST
from .controls import CONTROLS
from .errors import InputError, MissingExtra
from .files import read_json
from .networks import Networks, TorchNetworks
from .reconstruct import keeps_activations

if TYPE_CHECKING:
    from .bundle import Bundle
    from .bundle_decode import BundleDecoder
    from .decode import Checkpoint
    from .job import Job
    from .models.models import Models

LIBRARIES = ("minddiffuser", "numpy", "pillow", "safetensors")
TORCH_LIBRARIES = ("torch", "diffusers", "transformers", "open_clip_torch")
ENGINE_LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx")


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Everything that is opened for a run.

    Attributes
    ----------
    decoder, networks
        What decodes, and what makes pictures.
    computing
        What the pictures' last bits depend on besides the files: backend, device, dtype, threads.
    libraries
        Names of the libraries whose versions matter.
    judge
        Folder of the judge of concepts, or None.
    device
        For the judge.
    told
        One line on what was chosen and why.
    largest_batch
        The most trials that can be computed together, or None.
    embeds
        Whether `networks` can embed pictures, for the metric that compares them by CLIP.
    """

    decoder: Checkpoint | BundleDecoder
    networks: Networks
    computing: dict[str, Any]
    libraries: tuple[str, ...]
    judge: Path | None
    device: str
    told: str
    largest_batch: int | None = None
    embeds: bool = True


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle and no checkpoint."""
    return (folder / MANIFEST).is_file()


def open_source(job: Job, stack: ExitStack) -> Source:
    """Open what a job computes with; `stack` closes it.

    Raises
    ------
    MindDiffuserError
        See :func:`~.decode.open_checkpoint`, :meth:`.bundle.Bundle.open`, :func:`~.models.open.load_models` and
        :class:`~.engines.open.EngineSet`; options that do not belong to the kind of folder.
    """
    bundle = is_bundle(job.checkpoint)
    _check_gradients(job, bundle=bundle)
    return _open_bundle(job, stack) if bundle else _open_checkpoint(job)


def _check_gradients(job: Job, *, bundle: bool) -> None:
    natural = "engines" if bundle and job.backend != "pytorch" else "autograd"
    if job.gradients in (None, natural):
        return
    if job.gradients == "autograd":
        advice = "give --backend pytorch with its --models"
    else:
        advice = "leave --backend pytorch out" if bundle else "make a bundle with md-export bundle, and run that"
    raise InputError(
        f"gradients by {job.gradients} were asked for, and {job.checkpoint} computes them by {natural}: {advice}"
    )


def _open_checkpoint(job: Job) -> Source:
    from .decode import open_checkpoint

    given = _given(job, "backend", "precision", "memory", "trust_plans")
    if given:
        raise InputError(
            f"{job.checkpoint} is a checkpoint, and {', '.join(given)} choose among a bundle's engines: make a bundle "
            "with md-export bundle, or leave them out"
        )
    needs_torch()
    return _torch_source(job, open_checkpoint(job.checkpoint))


def _open_bundle(job: Job, stack: ExitStack) -> Source:
    from .bundle import Bundle
    from .bundle_decode import BundleDecoder
    from .engines.open import EngineSet, EngineSettings
    from .engines.trust import Trust
    from .networks import EngineNetworks

    bundle = Bundle.open(job.checkpoint)
    if job.backend == "pytorch":
        given = _given(job, "precision", "memory", "trust_plans")
        if given:
            raise InputError(
                f"{', '.join(given)} choose among a bundle's engines, and the backend is pytorch: leave them out, or "
                "choose another backend"
            )
        needs_torch()
        settings = EngineSettings(backend="ort", threads=_threads(job, None))
        decoders = [name for name in _needed(job, bundle) if name.startswith(DECODE)]
        engines = stack.enter_context(EngineSet(bundle, settings, graphs=decoders))
        engines.start()
        return _torch_source(job, BundleDecoder(bundle, engines))
    _refuse_torch_options(job)
    threads = _threads(job, None)
    settings = EngineSettings(
        backend=job.backend or "auto",
        precision=job.precision or "auto",
        memory=job.memory or "fast",
        threads=threads,
        share_threads=job.share_threads,
        memory_limit_bytes=None if job.gpu_memory_mib is None else job.gpu_memory_mib << 20,
        cache=job.engine_cache,
        trust=Trust(file=job.trust_list, everything=job.trust_plans),
    )
    engines = stack.enter_context(EngineSet(bundle, settings, graphs=_needed(job, bundle)))
    engines.start()
    networks = EngineNetworks(bundle, engines)
    choice = engines.choice
    return Source(
        decoder=BundleDecoder(bundle, engines),
        networks=networks,
        computing={
            "backend": choice.backend,
            "device": engines["vae_decode"].device,
            "dtype": engines.variant("denoise").precision,
            "threads": threads,
        },
        libraries=(*LIBRARIES, *ENGINE_LIBRARIES),
        judge=None,
        device="cpu",
        told=f"{networks.description} ({choice.reason})",
        largest_batch=engines.largest_batch,
        embeds="clip_structure" in bundle.graphs,
    )


def _given(job: Job, *names: str) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name in names if getattr(job, name) not in (None, False)]


def _needed(job: Job, bundle: Bundle) -> list[str]:
    """The graphs that a run uses: those of its pictures, and the one that measures them, where the bundle has it."""
    graphs = ["decode_context", "decode_latent", "denoise", "vae_decode"]
    if job.settings.stage == 2:
        refine = job.settings.refine
        graphs += ["decode_structure", "structure_gradient"]
        graphs += ["denoise_gradient"] if refine.backprop_steps != 0 else []
        graphs += ["decode_semantic"] if refine.semantic_weight > 0 and "semantic" in bundle.shapes else []
        graphs += ["clip_structure"] if "oracle" in CONTROLS[job.settings.controls] else []
    return list(dict.fromkeys((*graphs, *({"clip_structure"} & bundle.graphs.keys()))))


def _refuse_torch_options(job: Job) -> None:
    given = {"models": job.models is not None, "clip": job.clip is not None, "device": job.device != "auto"}
    given["dtype"] = job.dtype != "float32"
    named = [f"--{name}" for name, there in given.items() if there]
    if named:
        raise InputError(
            f"{job.checkpoint} is a bundle, which has its networks inside, and {', '.join(named)} choose PyTorch's: "
            "leave them out, or give --backend pytorch"
        )


def needs_torch() -> None:
    """Raise :class:`MissingExtra` where PyTorch is not installed."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "reconstruction from a checkpoint needs torch: pip install 'minddiffuser[torch]', or run a bundle"
        ) from error


def _torch_source(job: Job, decoder: Checkpoint | BundleDecoder) -> Source:
    models, threads = _open_models(job, decoder.preset)
    networks = TorchNetworks(models, checkpointing=not keeps_activations(job.settings.checkpointing, models.image_size))
    judge = models.folder / "judge" if models.folder is not None else None
    return Source(
        decoder=decoder,
        networks=networks,
        computing={"backend": "pytorch", "device": str(models.device), "dtype": job.dtype, "threads": threads},
        libraries=(*LIBRARIES, *TORCH_LIBRARIES),
        judge=judge if judge is not None and judge.is_dir() else None,
        device=str(models.device),
        told=networks.description,
    )


def _threads(job: Job, default: int | None) -> int:
    n_cores = os.cpu_count() or 1
    if job.threads is not None and job.threads > n_cores:
        raise InputError(f"threads is {job.threads} and this machine has {n_cores} cores: give at most {n_cores}")
    return job.threads or _earlier_threads(job.out) or default or n_cores


def _open_models(job: Job, preset: str) -> tuple[Models, int]:
    """The networks on their device, and the number of CPU threads, which the pictures' last bits depend on."""
    import torch

    from .models.open import load_models

    threads = _threads(job, torch.get_num_threads())
    torch.set_num_threads(threads)
    device = choose_device(job.device)
    if device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS gives other bits from run to run
        torch.use_deterministic_algorithms(True, warn_only=True)
    models = load_models(job.models or "tiny", clip=job.clip, preset=preset, device=device, dtype=job.dtype)
    return models, threads


def choose_device(name: str) -> str:
    """`name`, or for "auto" the fastest that this machine has."""
    import torch

    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _earlier_threads(out: Path) -> int | None:
    path = out / "settings.json"
    if not path.exists():
        return None
    settings = read_json(path, "the run's settings").get("settings")
    threads = settings.get("threads") if isinstance(settings, dict) else None
    return threads if isinstance(threads, int) and threads > 0 else None


def versions(libraries: Sequence[str]) -> dict[str, str]:
    """Versions of those libraries that are installed."""
    found = {}
    for name in libraries:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
