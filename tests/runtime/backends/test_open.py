"""What a run computes with: a checkpoint or a bundle, and options that belong to the other kind."""

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.runtime import backends
from minddiffuser.runtime.backends.base import Backend, Needs, Options
from minddiffuser.runtime.backends.bundle import BundleBackend
from minddiffuser.runtime.backends.torch import TorchBackend
from minddiffuser.runtime.decoders.bundle import BundleDecoder
from minddiffuser.runtime.decoders.checkpoint import Checkpoint
from minddiffuser.runtime.engines.cuda import gpu as cuda_gpu
from minddiffuser.runtime.engines.open import EngineSet
from minddiffuser.runtime.environment import usable_cores
from minddiffuser.runtime.errors import FileError, InputError, MissingExtra
from minddiffuser.runtime.metrics.locator import open_locator
from minddiffuser.runtime.refine.settings import RefineSettings
from minddiffuser.runtime.run.identity import earlier_computing
from minddiffuser.runtime.run.reconstruct import ReconstructSettings

Open = Callable[..., Backend[Any]]
Write = Callable[..., Path]
ONE = ReconstructSettings(stage=1)


@pytest.fixture(autouse=True)
def threads_of_torch() -> Any:
    """A run sets the process's number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def opened() -> Any:
    """Opens a backend for a folder and options; everything is closed after the test."""
    with ExitStack() as stack:

        def run(folder: Path, *, settings: ReconstructSettings | None = None, **options: Any) -> Backend[Any]:
            needs = Needs() if settings is None else settings.needs
            found = stack.enter_context(backends.open(folder, Options(needs=needs, **options)))
            found.start()
            return found

        yield run


@pytest.fixture
def written(small_checkpoint: Path, tmp_path: Path, toy_bundle: Path) -> Write:
    """Writes a toy bundle without some graphs, or with its manifest changed."""

    def write(*leave_out: str, edit: Callable[[dict[str, Any]], object] | None = None) -> Path:
        folder = tmp_path / "bundle"
        if edit is None:
            made: Path = importlib.import_module("toy_bundle").write_toy_bundle(
                folder, small_checkpoint, leave_out=leave_out
            )
            return made
        shutil.copytree(toy_bundle, folder)
        content = json.loads((folder / "manifest.json").read_text())
        edit(content)
        (folder / "manifest.json").write_text(json.dumps(content))
        return folder

    return write


def test_a_checkpoint_is_pytorch(opened: Open, small_checkpoint: Path, small_world: Path) -> None:
    assert not backends.is_bundle(small_checkpoint)
    backend = opened(small_checkpoint, models=str(small_world), device="cpu", threads=1)
    assert isinstance(backend.decoder, Checkpoint)
    assert isinstance(backend, TorchBackend)
    assert backend.computing == {"backend": "pytorch", "device": "cpu", "dtype": "float32", "threads": 1}
    assert "torch" in backend.libraries
    assert (backend.chosen, backend.largest_batch, backend.embeds) == ("PyTorch, cpu, float32", None, True)


def test_a_bundle_is_its_engines(opened: Open, toy_bundle: Path) -> None:
    assert backends.is_bundle(toy_bundle)
    backend = opened(toy_bundle, threads=1)
    assert isinstance(backend.decoder, BundleDecoder)
    assert isinstance(backend, BundleBackend)
    assert backend.computing == {"backend": "ort", "device": "cpu", "dtype": "fp32", "threads": 1}
    assert "onnxruntime" in backend.libraries
    assert "torch" not in backend.libraries
    assert backend.chosen.startswith("ONNX Runtime, CPUExecutionProvider, fp32 (the fastest that runs here; ")
    assert (backend.classifier, backend.largest_batch, backend.embeds) == (None, None, True)
    assert backend.locator is None


def test_a_bundle_of_the_tiny_world_has_the_packages_locator(opened: Open, written: Write) -> None:
    backend = opened(written(edit=lambda content: content["models"].update(name="tiny")), threads=1)
    assert isinstance(backend, BundleBackend)
    assert backend.locator is not None
    open_locator(backend.locator)


def test_a_model_folder_has_its_own_locator_or_none(
    opened: Open, small_checkpoint: Path, small_world: Path, tmp_path: Path
) -> None:
    backend = opened(small_checkpoint, models=str(small_world), device="cpu", threads=1)
    assert (backend.classifier, backend.locator) == (None, None)
    whole = tmp_path / "world"
    shutil.copytree(small_world, whole)
    (whole / "locator").mkdir()
    assert opened(small_checkpoint, models=str(whole), device="cpu", threads=1).locator == whole / "locator"


def test_a_bundle_may_run_on_pytorchs_networks(opened: Open, toy_bundle: Path, small_world: Path) -> None:
    """Its decoders, and the models that it was made of."""
    backend = opened(toy_bundle, backend="pytorch", models=str(small_world), device="cpu", threads=1)
    assert isinstance(backend.decoder, BundleDecoder)
    assert isinstance(backend, TorchBackend)
    assert backend.models_hash == backend.decoder.models_hash
    assert backend.computing["backend"] == "pytorch"
    assert backend.decoder.decode_start(np.zeros((1, 24), np.float32), screened=True)[1].shape == (1, 4, 4, 4)


def test_options_reach_the_engines(opened: Open, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = EngineSet.__init__

    def spy(self: EngineSet, bundle: Any, settings: Any = None, **named: Any) -> None:
        seen.append(settings)
        real(self, bundle, settings, **named)

    monkeypatch.setattr(EngineSet, "__init__", spy)
    backend = opened(toy_bundle, backend="ort", precision="fp32", memory="low", threads=1)
    assert backend.chosen.endswith("(as requested)")
    assert backend.computing["threads"] == 1
    (settings,) = seen
    assert (settings.backend, settings.precision, settings.memory, settings.threads) == ("ort", "fp32", "low", 1)
    assert not settings.share_threads, "only a command may take the process's threads"


def test_engines_are_closed_with_the_backend(toy_bundle: Path) -> None:
    with backends.open(toy_bundle, Options(threads=1)) as backend:
        engine: Any = backend.decoder._engines["decode_latent"]  # type: ignore[attr-defined]
        feeds = {"responses": np.zeros((1, 24), np.float32)}
        engine.run(feeds)
    with pytest.raises(InputError, match="closed"):
        engine.run(feeds)


def test_the_decoder_is_known_before_any_network_opens(
    small_checkpoint: Path, small_world: Path, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's mistake is refused before networks load; what is asked of them opens them."""

    def fail(*_given: object, **_named: object) -> None:
        raise InputError("opened")

    monkeypatch.setattr("minddiffuser.runtime.backends.torch.load_models", fail)
    monkeypatch.setattr(EngineSet, "open", fail)
    for folder, options in ((small_checkpoint, {"models": str(small_world)}), (toy_bundle, {"backend": "ort"})):
        with backends.open(folder, Options(threads=1, **options)) as backend:
            assert backend.decoder.subject == "someone"
            assert backend.latent_shape == (4, 4, 4)
            assert backend.hash == backend.decoder.hash
            for ask in (backend.start, lambda backend=backend: backend.description):
                with pytest.raises(InputError, match="opened"):
                    ask()
    with backends.open(toy_bundle, Options(threads=1)) as backend:
        assert backend.hash is None, "the engines that start may be others"


def test_other_models_than_those_of_the_fit_are_refused(opened: Open, small_checkpoint: Path) -> None:
    with pytest.raises(InputError, match="made for other models"):
        opened(small_checkpoint, models="tiny", device="cpu", threads=1)


REFUSED_OF_A_CHECKPOINT: dict[str, tuple[dict[str, Any], str]] = {
    "backend": ({"backend": "ort"}, "is a checkpoint, and --backend choose among a bundle's engines"),
    "pytorch": ({"backend": "pytorch"}, "--backend"),
    "all": ({"backend": "auto", "precision": "fp16", "memory": "low"}, "--backend, --precision, --memory"),
    "memory": (
        {"gpu_memory_mib": 512, "engine_cache": "cache"},
        "is a checkpoint, and --gpu-memory, --engine-cache choose among",
    ),
}


@pytest.mark.parametrize("name", REFUSED_OF_A_CHECKPOINT)
def test_a_bundles_options_are_refused_of_a_checkpoint(opened: Open, small_checkpoint: Path, name: str) -> None:
    options, message = REFUSED_OF_A_CHECKPOINT[name]
    with pytest.raises(InputError, match=message):
        opened(small_checkpoint, **options)


REFUSED_OF_A_BUNDLE: dict[str, tuple[dict[str, Any], str]] = {
    "models": ({"models": "tiny"}, "is a bundle, which has its networks inside, and --models choose PyTorch's"),
    "clip": ({"clip": "ViT-B-32:openai"}, "--clip"),
    "device": ({"device": "cuda"}, "--device"),
    "dtype": ({"dtype": "float16"}, "--dtype"),
    "several": ({"models": "tiny", "device": "cpu", "backend": "ort"}, "--models, --device"),
    "pytorch with precision": ({"backend": "pytorch", "precision": "fp32"}, "--precision choose.*backend is pytorch"),
    "pytorch with memory": ({"backend": "pytorch", "memory": "low"}, "--memory choose"),
    "pytorch with gpu memory": ({"backend": "pytorch", "gpu_memory_mib": 512}, "--gpu-memory choose"),
    "pytorch with cache": ({"backend": "pytorch", "engine_cache": "cache"}, "--engine-cache choose"),
    "precision": ({"precision": "fp16"}, "in fp32, but fp16 was requested: choose one of these"),
    "backend": ({"backend": "tensorrt"}, "holds engines for onnx, the backend 'tensorrt' needs tensorrt: md-export"),
    "unknown backend": ({"backend": "onnx"}, "backend 'onnx' is unknown"),
    "unknown memory": ({"memory": "none"}, "memory 'none' is unknown"),
    "threads": ({"threads": 99_999}, f"threads is 99999 and this process may use {usable_cores()} core"),
    "threads of pytorch": ({"backend": "pytorch", "threads": 99_999}, "threads is 99999"),
}


@pytest.mark.parametrize("name", REFUSED_OF_A_BUNDLE)
def test_options_that_a_bundle_cannot_follow_are_refused(opened: Open, toy_bundle: Path, name: str) -> None:
    options, message = REFUSED_OF_A_BUNDLE[name]
    with pytest.raises(InputError, match=message) as caught:
        opened(toy_bundle, **options)
    assert "\n" not in str(caught.value)


def test_other_models_than_the_bundles_are_refused_at_the_first_look(
    opened: Open, toy_bundle: Path, small_world: Path
) -> None:
    backend = opened(toy_bundle, backend="pytorch", models=str(small_world), threads=1, device="cpu")
    with pytest.raises(InputError, match="made for other models"):
        backend.decoder.require_models("0" * 64, "other")


STAGE_2 = ReconstructSettings(refine=RefineSettings(backprop_steps=4))
LATENT = ReconstructSettings(refine=RefineSettings(backprop_steps=0))
# graph: settings that need it, settings that do not
NEEDS: dict[str, tuple[ReconstructSettings, ReconstructSettings | None]] = {
    "decode_context": (ONE, None),
    "decode_latent": (ONE, None),
    "denoise": (ONE, None),
    "vae_decode": (ONE, None),
    "decode_structure": (LATENT, ONE),
    "structure_gradient": (LATENT, ONE),
    "denoise_gradient": (STAGE_2, LATENT),
    "clip_structure": (replace(STAGE_2, controls="oracle"), replace(STAGE_2, controls="shuffled")),
}


@pytest.mark.parametrize("graph", NEEDS)
def test_graphs_that_a_run_would_miss_are_named_before_it_begins(opened: Open, written: Write, graph: str) -> None:
    needs, needs_not = NEEDS[graph]
    folder = written(graph)
    with pytest.raises(FileError, match=f"lacks the graph {graph}: export it with them .*--graphs .*{graph}"):
        opened(folder, settings=needs, threads=1)
    if needs_not is not None:
        backend = opened(folder, settings=needs_not, threads=1)
        assert backend.embeds == (graph != "clip_structure")


def test_a_semantic_target_needs_its_decoder(opened: Open, written: Write) -> None:
    """Where the shapes promise one and no graph decodes it."""
    folder = written(edit=lambda content: content["shapes"].update(semantic=[32]))
    assert opened(folder, settings=STAGE_2, threads=1).decoder.shapes["semantic"] == (32,)
    weighed = ReconstructSettings(refine=RefineSettings(semantic_weight=0.1))
    with pytest.raises(FileError, match="lacks the graph decode_semantic"):
        opened(folder, settings=weighed, threads=1)


def test_without_pytorch_the_extra_is_named(
    opened: Open, small_checkpoint: Path, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for folder, options in ((small_checkpoint, {}), (toy_bundle, {"backend": "pytorch"})):
        with pytest.raises(MissingExtra, match=r"minddiffuser\[torch\]"):
            opened(folder, **options)
    assert opened(toy_bundle, threads=1).computing["backend"] == "ort"


def test_threads_of_an_earlier_run_are_kept(opened: Open, toy_bundle: Path, tmp_path: Path) -> None:
    """A resumed run's pictures have the same last bits."""
    assert opened(toy_bundle).computing["threads"] == usable_cores()
    assert opened(toy_bundle, earlier_threads=7).computing["threads"] == 7
    assert opened(toy_bundle, earlier_threads=7, threads=1).computing["threads"] == 1
    assert earlier_computing(tmp_path / "run") == (None, None)
    (tmp_path / "run").mkdir()
    for content, found in (
        ({"settings": {"threads": 7, "backend": "ort"}}, ("ort", 7)),
        ({"settings": {"threads": "many", "backend": ["ort"]}}, (None, None)),
        ({"settings": {"threads": 0}}, (None, None)),
        ({"settings": {"threads": True}}, (None, None)),
        ({}, (None, None)),
    ):
        (tmp_path / "run" / "settings.json").write_text(json.dumps(content))
        assert earlier_computing(tmp_path / "run") == found


def test_auto_takes_the_backend_of_an_earlier_run(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though a faster one runs since then; where the earlier one does not run any more, the fastest that does."""

    monkeypatch.setattr("minddiffuser.runtime.engines.here.why_no_provider", lambda _backend: None)
    monkeypatch.setattr(cuda_gpu, "find_gpu", lambda: cuda_gpu.Gpu(0, "a GPU", "8.0", None))

    def chosen(earlier: str | None, **options: Any) -> str:
        with backends.open(toy_bundle, Options(earlier_backend=earlier, **options)) as found:
            backend: str = found._engines.choice.backend  # type: ignore[attr-defined]
            return backend

    assert (chosen("ort"), chosen("ort", backend="auto")) == ("ort", "ort")
    assert chosen("ort", backend="ort-cuda") == "ort-cuda"
    assert [chosen(earlier) for earlier in ("tensorrt", "pytorch", "nonsense", None)] == ["ort-cuda"] * 4


def test_the_gpu_of_a_device_with_a_number_is_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {0: "first", 1: "second"}

    def probe(index: int = 0) -> cuda_gpu.Gpu:
        return cuda_gpu.Gpu(index, names[index], "8.0", None)

    monkeypatch.setattr(cuda_gpu, "gpu_of_cuda_python", probe)
    monkeypatch.setattr(cuda_gpu, "gpu_of_torch", probe)
    message = {device: cuda_gpu.name_of_gpu(device) for device in ("cpu", "cuda", "cuda:0", "cuda:1")}
    assert message == {"cpu": {}, "cuda": {"gpu": "first"}, "cuda:0": {"gpu": "first"}, "cuda:1": {"gpu": "second"}}


def test_a_folder_that_is_neither_is_refused(opened: Open, tmp_path: Path) -> None:
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(FileError):
            opened(folder)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"threads": 0}, "threads is 0"),
        ({"threads": -1}, "threads is -1"),
        ({"threads": 1.5}, "threads is 1.5"),
        ({"gpu_memory_mib": 0}, "gpu_memory_mib is 0"),
        ({"dtype": "int4"}, "dtype 'int4' is unknown"),
        ({"checkpointing": "maybe"}, "checkpointing 'maybe' is unknown"),
    ],
)
def test_options_that_make_no_sense_are_refused(choice: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Options(**choice)
