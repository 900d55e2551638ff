"""The GPU benchmark without a GPU: its floor, its table, and what it does about contestants that cannot run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from minddiffuser.export.graphs.base import network_graph
from minddiffuser.runtime.backends.flops import flops_of
from minddiffuser.runtime.backends.reference import TorchEngine
from minddiffuser.runtime.errors import MissingExtra
from minddiffuser.runtime.generators.diffusion import DiffusionGenerator
from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.models.open import load_models

FOLDER = Path(__file__).parents[2] / "benchmarks"
Load = Callable[[str], ModuleType]


@pytest.fixture
def shapes(load: Load) -> Models:
    """Stable Diffusion 1.4 and ViT-B/32 without data."""
    made: Models = load("full_size").random_models("meta")
    return made


def test_operations_at_full_size(shapes: Models) -> None:
    """GFLOP of the published architectures, counted apart from this code: 803.3, 2514.5 and 8.82."""
    latent, picture = torch.empty(1, 4, 64, 64, device="meta"), torch.empty(1, 3, 224, 224, device="meta")
    text = torch.empty(1, 77, 768, device="meta")
    with torch.no_grad():
        unet = flops_of(lambda: shapes.unet(latent, torch.empty((), device="meta"), encoder_hidden_states=text))
        decode = flops_of(lambda: shapes.vae.decode(latent))
        clip = flops_of(lambda: shapes.clip(picture))
    assert unet / 1e9 == pytest.approx(803.3, rel=0.01)
    assert decode / 1e9 == pytest.approx(2514.5, rel=0.01)
    assert clip / 1e9 == pytest.approx(8.82, rel=0.01)
    n_weights = {name: sum(p.numel() for p in getattr(shapes, name).parameters()) for name in ("unet", "vae", "clip")}
    assert n_weights == {"unet": 859_520_964, "vae": 83_653_863, "clip": 87_849_216}


@pytest.mark.long
def test_the_floor_counts_what_the_networks_do(load: Load, shapes: Models) -> None:
    gpu, counts = load("gpu"), load("flops").count(shapes)
    assert gpu.FLOPS == {
        gpu.STEP: counts.step,
        gpu.LOOP: 35 * counts.step,
        gpu.DECODE: counts.decode,
        gpu.ITERATION: counts.iteration(4),
    }


def test_floor_and_peak(load: Load) -> None:
    gpu = load("gpu")
    assert gpu.floor_ms(gpu.LOOP, 1, 788.0) == pytest.approx(71.4, rel=0.01)
    assert gpu.floor_ms(gpu.DECODE, 2, 312.0) == pytest.approx(2 * 8.06, rel=0.01)
    names = {
        "NVIDIA A100-SXM4-80GB": 312.0,
        "NVIDIA H200": 989.0,
        "NVIDIA H100 80GB HBM3": 989.0,
        "NVIDIA H100 PCIe": 756.0,
        "NVIDIA L40S": 362.0,
        "NVIDIA L4": 121.0,
        "GeForce GTX 1080": None,
    }
    assert {name: gpu.nominal_tflops(name) for name in names} == names


def test_what_cannot_run_is_reported_and_the_rest_runs(load: Load) -> None:
    gpu = load("gpu")
    called: list[str] = []

    def fail(error: Exception) -> Any:
        raise error

    def build(name: str) -> dict[str, Callable[[], Any]]:
        if name == "tensorrt-fp16":
            fail(MissingExtra("this needs tensorrt: pip install it"))
        if name == "ort-cuda-fp16":
            fail(ModuleNotFoundError("No module named 'onnx'", name="onnx"))
        works: dict[str, Callable[[], Any]] = {gpu.STEP: lambda: called.append(name)}
        if name == "eager-fp32":
            works[gpu.ITERATION] = lambda: fail(MemoryError())
        return works

    names = ["eager-fp16", "eager-fp32", "tensorrt-fp16", "ort-cuda-fp16"]
    works, not_run = gpu.line_up(names, build, lambda error: isinstance(error, MemoryError))
    assert called == ["eager-fp16", "eager-fp32"]
    assert {name: list(runs) for name, runs in works.items()} == {"eager-fp16": [gpu.STEP], "eager-fp32": [gpu.STEP]}
    assert not_run == {
        f"eager-fp32, {gpu.ITERATION}": "needs more GPU memory",
        "tensorrt-fp16": "this needs tensorrt: pip install it",
        "ort-cuda-fp16": "needs onnx",
    }


@pytest.mark.long
def test_contestants_do_the_same_work(load: Load, small_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager networks and engines, on the CPU and over the small world."""
    gpu, eager, engines = load("gpu"), load("gpu_torch"), load("gpu_engines")
    models = load_models(str(small_world))
    graphs = {name: network_graph(name, models, semantic=False) for name in engines.GRAPHS}
    opened = {name: TorchEngine(name, models, graph.inputs, graph.outputs) for name, graph in graphs.items()}
    trials = load("trials").draw(models, 2)
    for module in (eager, engines):
        monkeypatch.setattr(module, "given_trials", lambda _batch: trials)
    monkeypatch.setattr(eager, "DEVICE", "cpu")
    monkeypatch.setattr(eager, "networks", lambda _dtype: models)
    monkeypatch.setattr(engines, "opened", lambda *_given: (opened, None))
    args = gpu.parser().parse_args([])
    with ExitStack() as stack:
        theirs = eager.eager(args, 2, stack, "float32")
        ours = engines.with_engines(args, 2, stack, "ort-cuda", "fp32")
        assert list(theirs) == list(ours) == list(gpu.FLOPS)
        for job, work in theirs.items():
            far = load("tables").differences(ours[job](), work())
            assert max(far.values()) < 1e-3, job
        start = DiffusionGenerator(
            models, trials.noise, trials.context, trials.uncond_context, trials.noise, backprop_steps=35
        )
        loop = theirs[gpu.LOOP]()["latent"]
        whole = start.render({"latent": torch.from_numpy(trials.noise), "context": torch.from_numpy(trials.context)})
        assert torch.allclose(models.decode_latent(loop), whole, atol=1e-4)


def test_every_contestant_has_its_function(load: Load) -> None:
    gpu = load("gpu")
    for module, function, given in gpu.CONTESTANTS.values():
        assert callable(getattr(load(module), function))
        assert all(isinstance(value, str) for value in given)


def found(load: Load) -> dict[str, Any]:
    gpu, row = load("gpu"), load("tables").Row
    rows = [
        row(job=job, batch=1, contestant=name, milliseconds=ms, speedup=1.0, gflops=247_250.0, difference={})
        for job, name, ms in (
            (gpu.LOOP, "eager-fp16", 620.0),
            (gpu.LOOP, "tensorrt-fp16", 280.0),
            (gpu.DECODE, "eager-fp16", 20.0),
        )
    ]
    return {
        "gpu": "NVIDIA H200",
        "versions": {"torch": "2.9", "cuda": "13.0"},
        "repeats": 7,
        "peak_tflops": {"used": 989.0, "nominal": 989.0, "measured": 790.0},
        "floor_ms": {job: gpu.floor_ms(job, 1, 989.0) for job in gpu.FLOPS},
        "rows": [asdict(row) for row in rows],
        "goals": gpu.goals(rows),
        "not_run": {"tensorrt-rtx-fp16, batch 1": "needs tensorrt_rtx"},
    }


def test_goals_take_the_quickest(load: Load) -> None:
    gpu = load("gpu")
    verdicts = {goal["goal"]: (goal["contestant"], goal["met"]) for goal in found(load)["goals"]}
    assert verdicts == {
        f"{gpu.LOOP} under 300 ms": ("tensorrt-fp16", True),
        f"{gpu.DECODE} under 8 ms": ("eager-fp16", False),
    }


def test_table(load: Load) -> None:
    gpu = load("gpu")
    content = found(load)
    printed = gpu.text(json.loads(json.dumps(content)))
    assert "NVIDIA H200, torch 2.9, CUDA 13.0" in printed
    assert "989 TFLOP/s (nominal 989, measured with a float16 product of 8192 x 8192: 790)" in printed
    assert "not run: tensorrt-rtx-fp16, batch 1: needs tensorrt_rtx" in printed
    assert sum(" 25%" in line for line in printed.splitlines()) == 3
    assert [line.split()[0] for line in printed.splitlines()[-2:]] == ["met", "MISSED"]


def test_without_a_gpu_one_sentence(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = load("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--json"])
    assert gpu.main() == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert "needs a CUDA GPU" in printed.err


def test_a_bare_checkout_is_the_package() -> None:
    program = f"""
import importlib.util, sys
sys.path.insert(0, {str(FOLDER)!r})
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
assert importlib.util.find_spec("minddiffuser") is None
import gpu
gpu.make_importable()
from minddiffuser.runtime.sampling import Sampling
assert Sampling.n_reverse == gpu.N_STEPS
"""
    ran = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False, cwd="/")
    assert ran.returncode == 0, ran.stderr
