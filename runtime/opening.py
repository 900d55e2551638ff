"""What a run computes with: a checkpoint and PyTorch models, or a bundle and its engines."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bundle_schema import DECODE, MANIFEST
from .controls import CONTROLS
from .environment import compare_versions, usable_cores, versions
from .errors import InputError, MissingExtra
from .files import read_json
from .networks import Networks, TorchNetworks
from .reconstruct import keeps_activations

if TYPE_CHECKING:
    from .bundle import Bundle
    from .bundle_decode import BundleDecoder
    from .decoders.checkpoint import Checkpoint
    from .engines.open import EngineSet
    from .engines.trust import Trust
    from .job import Job
    from .models.models import Models

# The graphs of a bundle that every run of a stage needs; stage 2 also those of stage 1.
STAGE_1 = ("decode_context", "decode_latent", "denoise", "vae_decode")
STAGE_2 = ("decode_structure", "structure_gradient", "denoise_gradient")
LIBRARIES = ("minddiffuser", "numpy", "pillow", "safetensors")
TORCH_LIBRARIES = ("torch", "diffusers", "transformers", "open_clip_torch")
ENGINE_LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx")
# Those whose version can change a picture. safetensors, which only reads, cannot.
_OURS = ("minddiffuser", "numpy", "pillow")
_ONNX_RUNTIME = ("onnxruntime", "onnxruntime-gpu")
# What a backend computes with; decoders run on ONNX Runtime under every one of them.
_OF_BACKEND = {
    "tensorrt": (*_ONNX_RUNTIME, "tensorrt"),
    "tensorrt-rtx": (*_ONNX_RUNTIME, "tensorrt-rtx"),
    "ort-tensorrt": (*_ONNX_RUNTIME, "tensorrt"),
}
# What a job says about a bundle's engines, besides their backend.
_OF_ENGINES = ("precision", "memory", "gpu_memory_mib", "engine_cache", "trust_plans")
# No machine has more threads than this: a larger number in a run folder is an accident.
_MOST_THREADS = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class Described:
    """What is known of a checkpoint or bundle before any network is opened.

    Attributes
    ----------
    decoder
        Subject, width of the responses, training statistics, shapes; a bundle's engines open when they are used.
    hash
        Of everything in the folder that the pictures depend on; None where that is known only once the engines of a
        bundle have started.
    open
        Opens the rest.
    """

    decoder: Checkpoint | BundleDecoder
    hash: str | None
    open: Callable[[], Source]


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Everything that is opened for a run.

    Attributes
    ----------
    decoder, networks
        What decodes, and what makes pictures.
    computing
        What the pictures' last bits depend on besides the files: backend, device, dtype, threads, and the GPU's name.
    libraries
        Names of the libraries whose versions matter to the pictures.
    judge
        Folder of the classifier of concepts, or None.
    device
        For the classifier.
    told
        One line on what was chosen and why.
    largest_batch
        The most trials that can be computed together, or None.
    embeds
        Whether `networks` can embed pictures, for the metric that compares them by CLIP.
    notes
        What a person should know of them, such as libraries of other versions than at the fit.
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
    notes: tuple[str, ...] = ()


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle and no checkpoint."""
    return (folder / MANIFEST).is_file()


def describe_source(job: Job, stack: ExitStack) -> Described:
    """Read what a job's checkpoint or bundle is, without opening networks; `stack` closes what is opened later.

    Raises
    ------
    MindDiffuserError
        See :func:`~.decode.open_checkpoint`, :meth:`.bundle.Bundle.open` and :func:`~.engines.open.choose_backend`;
        options that do not belong to the kind of folder, or more threads than there are cores.
    """
    bundle = is_bundle(job.checkpoint)
    _check_gradients(job, bundle=bundle)
    _check_threads(job)
    return _describe_bundle(job, stack) if bundle else _describe_checkpoint(job)


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


def _describe_checkpoint(job: Job) -> Described:
    from .decoders.checkpoint import open_checkpoint

    given = _given(job, "backend", *_OF_ENGINES)
    if given:
        raise InputError(
            f"{job.checkpoint} is a checkpoint, and {', '.join(given)} choose among a bundle's engines: make a bundle "
            "with md-export bundle, or leave them out"
        )
    needs_torch()
    decoder = open_checkpoint(job.checkpoint)
    fitted = decoder.description["provenance"]
    return Described(decoder=decoder, hash=decoder.hash, open=lambda: _torch_source(job, decoder, fitted))


def _describe_bundle(job: Job, stack: ExitStack) -> Described:
    from .bundle import Bundle

    bundle = Bundle.open(job.checkpoint)
    return _on_pytorch(job, bundle, stack) if job.backend == "pytorch" else _on_engines(job, bundle, stack)


def _on_pytorch(job: Job, bundle: Bundle, stack: ExitStack) -> Described:
    """A bundle's decoders, and the networks of PyTorch."""
    from .bundle_decode import BundleDecoder
    from .engines.open import EngineSet, EngineSettings

    given = _given(job, *_OF_ENGINES)
    if given:
        raise InputError(
            f"{', '.join(given)} choose among a bundle's engines, and the backend is pytorch: leave them out, or "
            "choose another backend"
        )
    needs_torch()
    settings = EngineSettings(backend="ort", threads=_threads(job, None))
    graphs = [name for name in _needed(job, bundle) if name.startswith(DECODE)]
    engines = stack.enter_context(EngineSet(bundle, settings, graphs=graphs))
    decoder = BundleDecoder(bundle, engines)

    def opened() -> Source:
        engines.start()
        return _torch_source(job, decoder, bundle.manifest["checkpoint"]["provenance"], _ONNX_RUNTIME)

    return Described(decoder=decoder, hash=decoder.hash, open=opened)


def _on_engines(job: Job, bundle: Bundle, stack: ExitStack) -> Described:
    from .bundle_decode import BundleDecoder
    from .engines.open import EngineSet, EngineSettings
    from .engines.trust import Trust

    _refuse_torch_options(job)
    trust = Trust(file=job.trust_list, everything=job.trust_plans)
    earlier = _earlier_backend(job, bundle, trust)
    settings = EngineSettings(
        backend=earlier or job.backend or "auto",
        precision=job.precision or "auto",
        memory=job.memory or "fast",
        threads=_threads(job, None),
        share_threads=job.share_threads,
        memory_limit_bytes=None if job.gpu_memory_mib is None else job.gpu_memory_mib << 20,
        cache=job.engine_cache,
        trust=trust,
    )
    engines = stack.enter_context(EngineSet(bundle, settings, graphs=_needed(job, bundle)))
    decoder = BundleDecoder(bundle, engines)
    # "auto" may have to take another backend, and with it other files, when it starts.
    settled = settings.backend != "auto"
    return Described(
        decoder=decoder,
        hash=decoder.hash if settled else None,
        open=lambda: _engine_source(bundle, engines, None if earlier is None else "as in the run folder"),
    )


def _engine_source(bundle: Bundle, engines: EngineSet, reason: str | None) -> Source:
    from .bundle_decode import BundleDecoder
    from .networks import EngineNetworks

    engines.start()
    networks = EngineNetworks(bundle, engines)
    choice, device = engines.choice, engines["vae_decode"].device
    return Source(
        decoder=BundleDecoder(bundle, engines),
        networks=networks,
        computing={
            "backend": choice.backend,
            "device": device,
            "dtype": engines.variant("denoise").precision,
            "threads": engines.settings.threads,
            **_gpu(device),
        },
        libraries=(*_OURS, *_OF_BACKEND.get(choice.backend, _ONNX_RUNTIME)),
        judge=None,
        device="cpu",
        told=f"{networks.description} ({reason or choice.reason})",
        largest_batch=engines.largest_batch,
        embeds="clip_structure" in bundle.graphs,
        notes=_notes_of_bundle(bundle),
    )


def _gpu(device: str) -> dict[str, str]:
    """The GPU's name, where one computes: another model gives other last bits."""
    if not device.startswith("cuda"):
        return {}
    from .engines.cuda_gpu import find_gpu

    _, _, index = device.partition(":")
    found = find_gpu(int(index)) if index.isdecimal() else find_gpu()
    return {} if found is None else {"gpu": found.name}


def _notes_of_bundle(bundle: Bundle) -> tuple[str, ...]:
    """Libraries of other versions: when the networks were exported than at the fit, and here than at the export."""
    exported = bundle.manifest.get("versions")
    notes = []
    if isinstance(exported, dict):
        libraries = bundle.manifest["checkpoint"]["provenance"].get("libraries")
        at_export = {name: number for name, number in exported.items() if isinstance(number, str)}
        notes += _note(libraries, at_export, TORCH_LIBRARIES, "the decoders were fitted", "the bundle was exported")
        before, now = _one_onnx_runtime(at_export), _one_onnx_runtime(versions(("minddiffuser", *_ONNX_RUNTIME)))
        compared = ("minddiffuser", "onnxruntime")
        notes += _note(before, now, compared, "the bundle was exported and verified", "this runs")
    return tuple(notes)


def _one_onnx_runtime(found: dict[str, str]) -> dict[str, str]:
    """Versions, with that of ONNX Runtime under one name whichever package it comes from."""
    there = [found[name] for name in reversed(_ONNX_RUNTIME) if name in found]
    return {**found, "onnxruntime": there[0]} if there else found


def _note(before: object, now: dict[str, str], libraries: Sequence[str], then: str, here: str) -> list[str]:
    found = compare_versions(before, now, libraries)
    if found is None:
        return []
    return [
        f"Other library versions: {then} with {', '.join(found[0])}, and {here} with {', '.join(found[1])}. Features "
        "may differ in small ways; where the pictures look wrong, install the same versions."
    ]


def _given(job: Job, *names: str) -> list[str]:
    return [
        f"--{name.removesuffix('_mib').replace('_', '-')}" for name in names if getattr(job, name) not in (None, False)
    ]


def _needed(job: Job, bundle: Bundle) -> list[str]:
    """The graphs that a run uses: those of its pictures, and the one that measures them, where the bundle has it."""
    graphs = list(STAGE_1)
    if job.settings.stage == 2:
        refine = job.settings.refine
        graphs += [name for name in STAGE_2 if name != "denoise_gradient" or refine.backprop_steps != 0]
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


def _torch_source(
    job: Job, decoder: Checkpoint | BundleDecoder, provenance: dict[str, Any], also: tuple[str, ...] = ()
) -> Source:
    models, threads = _open_models(job, decoder.preset)
    networks = TorchNetworks(models, checkpointing=not keeps_activations(job.settings.checkpointing, models.image_size))
    compared = ("minddiffuser", *TORCH_LIBRARIES)
    judge = models.folder / "judge" if models.folder is not None else None
    return Source(
        decoder=decoder,
        networks=networks,
        computing={
            "backend": "pytorch",
            "device": str(models.device),
            "dtype": job.dtype,
            "threads": threads,
            **_gpu(str(models.device)),
        },
        libraries=(*_OURS, *TORCH_LIBRARIES, *also),
        judge=judge if judge is not None and judge.is_dir() else None,
        device=str(models.device),
        told=networks.description,
        notes=(
            *models.notes,
            *_note(provenance.get("libraries"), versions(compared), compared, "the decoders were fitted", "this runs"),
        ),
    )


def _check_threads(job: Job) -> None:
    n_cores = usable_cores()
    if job.threads is not None and job.threads > n_cores:
        raise InputError(
            f"threads is {job.threads} and this process may use {n_cores} core{'s' * (n_cores > 1)}: "
            f"give at most {n_cores}"
        )


def _threads(job: Job, default: int | None) -> int:
    n_cores = usable_cores()
    return job.threads or _earlier_threads(job.out) or min(default or n_cores, n_cores)


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
    threads = _earlier(out, "threads")
    good = isinstance(threads, int) and not isinstance(threads, bool) and 0 < threads <= _MOST_THREADS
    return threads if good else None


def _earlier_backend(job: Job, bundle: Bundle, trust: Trust) -> str | None:
    """For "auto", the backend of the run folder's earlier run where it still runs: a resume computes as before."""
    from .engines.here import BACKENDS, Machine, why_not_backend

    backend = _earlier(job.out, "backend")
    if job.backend not in (None, "auto") or trust.everything or not isinstance(backend, str) or backend not in BACKENDS:
        return None
    precision, graphs = job.precision or "auto", _needed(job, bundle)
    reason = why_not_backend(bundle, backend, Machine(trust), precision=precision, graphs=graphs)
    return backend if reason is None else None


def _earlier(out: Path, name: str) -> Any:
    """A setting of the run folder's earlier run; anything may stand there."""
    path = out / "settings.json"
    settings = read_json(path, "the run's settings").get("settings") if path.exists() else None
    return settings.get(name) if isinstance(settings, dict) else None
