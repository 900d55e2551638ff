"""On a GPU: each backend, devices and CUDA graphs, stage 2 by autograd and by engines, against the same on the CPU.

Run on a machine with a CUDA GPU: ``pytest -m gpu tests/test_gpu.py``. A backend whose library is not installed, or
that does not support the GPU, is skipped and says why. The bundle is the README's with engines in fp16 beside it;
MINDDIFFUSER_PREPARED names a folder with data/, checkpoint/ and such a bundle/, for a machine that cannot export.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.export import cli as export
from minddiffuser.export.verify.check import BAD, OK, check_bundle
from minddiffuser.export.verify.parity import GUIDED_PICTURES, PICTURES, TOLERANCES, psnr
from minddiffuser.runtime import cli as reconstruct
from minddiffuser.runtime.backends.base import Options, Start
from minddiffuser.runtime.backends.bundle import BundleBackend
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.data.trial_ids import row_ids
from minddiffuser.runtime.engines.cuda.gpu import find_gpu, gpu_of_cuda_python, gpu_of_torch
from minddiffuser.runtime.engines.cuda.open import open_device
from minddiffuser.runtime.engines.here import Machine, why_not_backend
from minddiffuser.runtime.engines.open import EngineSet, EngineSettings
from minddiffuser.runtime.engines.ort.engine import as_numpy
from minddiffuser.runtime.engines.tensorrt.denoise_loop import DenoiseLoop
from minddiffuser.runtime.engines.tensorrt.engine import open_trt
from minddiffuser.runtime.engines.trust import Trust
from minddiffuser.runtime.errors import MindDiffuserError, MissingExtra
from minddiffuser.runtime.generators.noise import trial_noise
from minddiffuser.runtime.images import read_image
from minddiffuser.runtime.refine import refine
from minddiffuser.runtime.refine.base import Problem
from minddiffuser.runtime.refine.settings import AdamSettings, GuidedSettings
from minddiffuser.runtime.refine.weights import StructuralWeights
from minddiffuser.runtime.sampling import Sampling

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(find_gpu() is None, reason="needs a CUDA GPU, and exactly -m gpu")]

PREPARED = "MINDDIFFUSER_PREPARED"
TARGETS = {"ort-cuda": None, "ort-tensorrt": "ort-tensorrt", "tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx"}
ON_GPU = [(backend, precision) for backend in TARGETS for precision in ("fp32", "fp16")]
LIBRARIES = {
    "ort-cuda": "onnxruntime",
    "ort-tensorrt": "tensorrt",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt_rtx",
}
DEVICES = ("torch", "cuda-python")
EVERYTHING = Trust(everything=True)


@pytest.fixture(scope="module")
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/, checkpoint/ and bundle/ in fp32 and fp16; the bundle may be changed."""
    folder = tmp_path_factory.mktemp("gpu")
    if PREPARED in os.environ:
        for name in ("data", "checkpoint", "bundle"):
            shutil.copytree(Path(os.environ[PREPARED]) / name, folder / name)
        return folder
    story = request.getfixturevalue("readme_story").until("bundle")
    for name in ("data", "checkpoint"):
        shutil.copytree(story / name, folder / name)
    more = ["--precision", "fp16", "--graphs-from", str(story / "bundle"), "--verify-trials", "2"]
    given = [str(folder / "checkpoint"), "--models", "tiny", "--data", str(folder / "data")]
    assert export.main(["bundle", *given, "--out", str(folder / "bundle"), *more]) == 0
    return folder


@pytest.fixture(scope="module")
def built(prepared: Path) -> dict[str, str | None]:
    """Why each backend does not run here, or None; what can be built here has been."""
    reasons: dict[str, str | None] = {}
    for backend, target in TARGETS.items():
        if importlib.util.find_spec(LIBRARIES[backend]) is None:
            reasons[backend] = f"{LIBRARIES[backend]} is not installed"
            continue
        if target is not None:
            chosen = ["--compute-capability", "current"] if target == "tensorrt-rtx" else []
            if export.main(["build", str(prepared / "bundle"), "--target", target, *chosen]) != 0:
                reasons[backend] = f"no {target} engine can be built for {find_gpu()}"
                continue
        reasons[backend] = why_not_backend(Bundle.open(prepared / "bundle"), backend, Machine(EVERYTHING))
    return reasons


@pytest.fixture(scope="module")
def bundle(prepared: Path, built: dict[str, str | None]) -> Bundle:
    """The bundle with all engines that could be built."""
    return Bundle.open(prepared / "bundle")


@pytest.fixture(scope="module")
def rows(prepared: Path) -> np.ndarray:
    return open_data(prepared / "data").responses("test")


@pytest.fixture(scope="module")
def on_cpu(bundle: Bundle) -> Iterator[BundleBackend]:
    """What everything here is compared with: ONNX Runtime in float32 on the CPU, itself compared with PyTorch."""
    with EngineSet(bundle, EngineSettings(backend="ort", precision="fp32")) as engines:
        yield BundleBackend(engines)


@pytest.fixture(scope="module")
def decoded(on_cpu: BundleBackend, rows: np.ndarray) -> Any:
    return on_cpu.decoder.decode(rows)


@pytest.fixture
def on_gpu(request: pytest.FixtureRequest, bundle: Bundle, built: dict[str, str | None]) -> Iterator[BundleBackend]:
    """A backend on the GPU, by (name, precision)."""
    backend, precision = request.param
    if built[backend] is not None:
        pytest.skip(f"{backend}: {built[backend]}")
    with EngineSet(bundle, EngineSettings(backend=backend, precision=precision, trust=EVERYTHING)) as engines:
        yield BundleBackend(engines)


def precision_of(backend: BundleBackend) -> str:
    return str(backend.computing["dtype"])


def generator_of(backend: Any, decoded: Any, backprop_steps: int | None = None) -> Any:
    noise = trial_noise(42, row_ids(len(decoded.latent)), backend.latent_shape)
    return backend.generator(decoded, noise, backprop_steps=backprop_steps)


def host(array: Any) -> np.ndarray:
    return np.asarray(array.detach().cpu() if hasattr(array, "detach") else as_numpy(array))


def errors(found: Any, expected: Any) -> float:
    """The largest distance of a row to the reference's, as a share of its length."""
    reference = host(expected).astype(np.float64).reshape(len(expected), -1)
    apart = np.linalg.norm(host(found).astype(np.float64).reshape(len(reference), -1) - reference, axis=1)
    return float((apart / np.linalg.norm(reference, axis=1)).max())


def tolerance(precision: str) -> float:
    """Of a vector's length: the bundle's own for the worst element. A product in TF32 has float16's ten bits."""
    return TOLERANCES["fp16" if precision == "tf32" else precision].worst


# --- devices, and the loop as one CUDA graph -------------------------------------------------------------------------


def device_of(kind: str) -> Any:
    try:
        return open_device(kind)
    except MissingExtra as error:
        pytest.skip(str(error))


@pytest.fixture(params=DEVICES)
def cuda(request: pytest.FixtureRequest) -> Iterator[Any]:
    device = device_of(request.param)
    yield device
    device.close()


def test_both_libraries_see_the_same_gpu() -> None:
    pytest.importorskip("cuda.bindings")
    pytest.importorskip("torch")
    ours, theirs = gpu_of_cuda_python(), gpu_of_torch()
    assert ours is not None
    assert theirs is not None
    assert (ours.name, ours.compute_capability) == (theirs.name, theirs.compute_capability)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool"])
def test_arrays_come_back_as_they_went(cuda: Any, dtype: str) -> None:
    values = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, (3, 5, 7)).astype(dtype)
    array = cuda.adopt(values)
    assert cuda.pointer(array) % 256 == 0
    np.testing.assert_array_equal(cuda.to_numpy(array), values)
    other = cuda.allocate(values.shape, dtype)
    cuda.copy(other, array)
    np.testing.assert_array_equal(cuda.to_numpy(other), values)
    row = cuda.row(other, 1)  # shares the memory, and need not be aligned
    np.testing.assert_array_equal(cuda.to_numpy(row), values[1])
    np.testing.assert_array_equal(cuda.to_numpy(cuda.adopt(row)), values[1])
    turned = values.transpose(2, 0, 1)
    np.testing.assert_array_equal(cuda.to_numpy(cuda.adopt(turned)), turned)


def test_freed_memory_is_used_again(cuda: Any) -> None:
    """A hundred arrays of 256 MiB, one after the other, take no more of the card than one."""
    torch = pytest.importorskip("torch")
    first = cuda.allocate((1 << 26,), "float32")
    del first
    cuda.synchronise()
    before = torch.cuda.mem_get_info()[0]
    for number in range(100):
        array = cuda.allocate((1 << 26,), "float32")
        if number % 20 == 0:
            cuda.copy(array, np.full(1 << 26, number, np.float32))
            assert cuda.to_numpy(array)[-1] == number
        del array
    cuda.synchronise()
    assert before - torch.cuda.mem_get_info()[0] < 10 << 28, "of 100 arrays, more than ten are held"


def test_a_recorded_graph_runs_when_it_is_launched(cuda: Any) -> None:
    source, target = cuda.adopt(np.arange(64, dtype=np.float32)), cuda.adopt(np.zeros(64, np.float32))
    cuda.synchronise()
    graph = cuda.record(lambda: cuda.copy(target, source))
    np.testing.assert_array_equal(cuda.to_numpy(target), np.zeros(64))
    cuda.launch(graph)
    np.testing.assert_array_equal(cuda.to_numpy(target), np.arange(64))
    cuda.copy(source, np.full(64, 7, np.float32))  # it reads what is there then
    cuda.launch(graph)
    np.testing.assert_array_equal(cuda.to_numpy(target), np.full(64, 7))


def test_a_recording_that_fails_leaves_the_device_in_order(cuda: Any) -> None:
    def fails() -> None:
        raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        cuda.record(fails)
    array = cuda.adopt(np.arange(8, dtype=np.float32))
    np.testing.assert_array_equal(cuda.to_numpy(array), np.arange(8))


def test_what_another_stream_computes_is_waited_for(cuda: Any) -> None:
    """A tensor whose value is still being computed when it is adopted."""
    torch = pytest.importorskip("torch")
    for _ in range(5):
        large = torch.rand(4096, 4096, device="cuda")
        large /= large.sum(1, keepdim=True)  # rows that add up to 1, and so do those of its powers
        value = torch.full((64,), -1.0, device="cuda")
        torch.cuda.synchronize()
        for _ in range(20):  # some ten milliseconds of queued work
            large = large @ large
        value.copy_(large[0, :64])
        cuda.enter()
        adopted = cuda.adopt(value)
        copy = cuda.allocate((64,), "float32")
        cuda.copy(copy, adopted)
        cuda.leave()
        found = cuda.to_numpy(copy)
        assert (found > 0).all()
        np.testing.assert_array_equal(found, value.cpu().numpy())


def _fakes() -> Any:
    path = Path(__file__).parent / "runtime" / "engines" / "tensorrt" / "trt_fakes.py"
    spec = importlib.util.spec_from_file_location("trt_fakes_on_gpu", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Memory:
    """GPU memory by its address, for torch."""

    def __init__(self, pointer: int, shape: tuple[int, ...]) -> None:
        self.__cuda_array_interface__ = {"shape": shape, "typestr": "<f4", "data": (pointer, False), "version": 3}


def played_on_gpu(fakes: Any, device: Any) -> Any:
    """A TensorRT that is played, and computes its guided step by kernels on the stream that it is given."""
    import torch

    def at(pointer: int, shape: tuple[int, ...]) -> Any:
        return torch.as_tensor(_Memory(pointer, tuple(shape)), device=device.name)

    class Context(fakes.FakeContext):  # type: ignore[misc]
        def execute_async_v3(self, stream_handle: int) -> bool:
            assert stream_handle == device.stream
            with torch.cuda.stream(torch.cuda.ExternalStream(stream_handle)):
                values = {name: at(self.addresses[name], self.shapes[name]) for name in fakes.INPUTS}
                timestep, keep, scale = values["step"]
                away = values["context"].mean((1, 2)) - values["uncond_context"].mean()
                found = torch.sin(values["latent"] + timestep)
                found = found + values["guidance"][0] * away[:, None, None, None]
                target = at(self.addresses["next_latent"], self.shapes["latent"])
                target.copy_(keep * values["latent"] + scale * found)
            return True

    class Engine(fakes.FakeEngine):  # type: ignore[misc]
        def create_execution_context(self, how: Any) -> Any:
            return Context(self.fake)

    class Runtime(fakes.FakeRuntime):  # type: ignore[misc]
        def deserialize_cuda_engine(self, data: Any) -> Any:
            return Engine(self.fake)

    device.log = []
    played = fakes.Fake(device)
    played.module.Runtime = lambda logger: Runtime(played, rtx=False)
    return played.module


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_the_loop_is_recorded_and_replayed(
    cuda: Any, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the GPU's own memory, streams and CUDA graphs; of TensorRT only the step is played."""
    pytest.importorskip("torch")
    fakes = _fakes()
    monkeypatch.setattr(fakes, "GPU", cuda.gpu)
    monkeypatch.setitem(sys.modules, "tensorrt", played_on_gpu(fakes, cuda))
    rng = np.random.default_rng(batch)
    with open_trt(fakes.plan_file(tmp_path), device=cuda) as engine, DenoiseLoop(engine) as loop:
        for n_steps in (35, 3, 35):
            table = rng.uniform(0.5, 1.0, (n_steps, 3)).astype(np.float32)
            given = fakes.feeds(rng, batch)
            kept = {name: given[name] for name in ("context", "uncond_context", "guidance")}
            found = cuda.to_numpy(loop.run(given["latent"], table, **kept))
            latents = [given["latent"]]
            for row in table:
                latents.append(fakes.guided_step({**given, "latent": latents[-1], "step": row}))
            # One step's rounding, some units of float32, anew in each of 35 steps of size 1.
            np.testing.assert_allclose(found, np.stack(latents), atol=35 * 2**-20)
            step = {**given, "step": table[0]}
            np.testing.assert_allclose(
                cuda.to_numpy(engine.run(step)["next_latent"]), fakes.guided_step(step), atol=2**-20
            )


@pytest.mark.parametrize("kind", DEVICES)
@pytest.mark.parametrize("on_gpu", [p for p in ON_GPU if p[0].startswith("tensorrt")], indirect=True)
def test_the_recorded_loop_is_the_loop_step_by_step(
    on_gpu: BundleBackend, decoded: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minddiffuser.runtime.engines.cuda import open as opening

    chosen = device_of(kind)
    monkeypatch.setattr(opening, "open_device", lambda: chosen)
    recorded = generator_of(on_gpu, decoded)
    plain = generator_of(on_gpu, decoded)
    assert recorded._loop is not None
    plain._loop = None
    first, second = (host(made.latents(made.initial())[-1]) for made in (recorded, plain))
    np.testing.assert_array_equal(first, second)  # the same kernels on the same numbers


# --- engines ---------------------------------------------------------------------------------------------------------


def test_the_bundles_own_check_finds_every_engine_right(prepared: Path, built: dict[str, str | None]) -> None:
    """Against PyTorch's outputs that the bundle brings."""
    lines = check_bundle(prepared / "bundle", trust=EVERYTHING)
    assert [str(line) for line in lines if line.verdict == BAD] == []
    fitting = {target for backend, target in TARGETS.items() if target is not None and built[backend] is None}
    assert {line.target for line in lines if line.verdict == OK} >= {"onnx", *fitting}


@pytest.mark.parametrize("on_gpu", ON_GPU, indirect=True, ids=lambda pair: "-".join(pair))
def test_each_graph_gives_what_the_cpu_gives(on_gpu: BundleBackend, on_cpu: BundleBackend, decoded: Any) -> None:
    precision = precision_of(on_gpu)
    found, expected = (host(generator_of(backend, decoded).stage1()) for backend in (on_gpu, on_cpu))
    assert expected.std() > 0.05
    assert psnr(found, expected) >= PICTURES[precision].psnr
    structure, reference = (backend.features(expected, semantic=False)[0] for backend in (on_gpu, on_cpu))
    assert errors(structure, reference) < tolerance(precision)
    assert on_gpu.computing["gpu"] == find_gpu().name  # type: ignore[union-attr]


@pytest.mark.parametrize("on_gpu", ON_GPU, indirect=True, ids=lambda pair: "-".join(pair))
def test_gradients_by_engines_are_the_cpus(on_gpu: BundleBackend, on_cpu: BundleBackend, decoded: Any) -> None:
    """Stage 2 without PyTorch: the structural gradient, and reverse mode through the last two denoising steps."""
    precision = precision_of(on_gpu)
    weights = StructuralWeights.of_settings(AdamSettings(), decoded.structure, on_cpu.decoder.mask)
    found, expected = (b.structural(decoded.latent, decoded.structure, weights) for b in (on_gpu, on_cpu))
    for ours, theirs in zip(found, expected, strict=True):
        assert errors(ours, theirs) < tolerance(precision)
    settings, results = AdamSettings(backprop_steps=2), []
    for backend in (on_gpu, on_cpu):
        generator = generator_of(on_cpu, decoded, 2), generator_of(backend, decoded, 2)
        objective = backend.objective(generator[1], decoded.structure, settings)
        results.append(objective.value_and_gradient(generator[0].initial()))
    for name, gradient in results[1][1].items():
        assert errors(results[0][1][name], gradient) < tolerance(precision), name


PASS = GuidedSettings(
    candidates=1,
    start_steps=0,
    finish_steps=0,
    n_steps=4,
    strength=0.75,
    guided_share=1.0,
    step_size=0.1,
    semantic_weight=0.0,
)


def guided(backend: Any, decoded: Any) -> np.ndarray:
    """The pictures of a short guided pass, as the export compares them."""

    def noise(candidate: int) -> np.ndarray:
        return trial_noise(42, row_ids(len(decoded.latent)), backend.latent_shape, candidate)

    generator = backend.generator(decoded, noise(0))
    problem = Problem(
        backend=backend,
        start=lambda rows: Start(context=decoded.context[list(rows)], latent=decoded.latent[list(rows)]),
        noise=noise,
        generator=generator,
        stage1=generator.stage1(),
        sampling=Sampling(),
        target=decoded.structure,
        mask=backend.decoder.mask,
        semantic=decoded.semantic,
        rows_at_once=4,
    )
    return host(refine(problem, PASS, lambda _step: None).image)


@pytest.mark.parametrize("on_gpu", ON_GPU, indirect=True, ids=lambda pair: "-".join(pair))
def test_stage_2_by_engines_reaches_the_cpus_picture(
    on_gpu: BundleBackend, on_cpu: BundleBackend, decoded: Any
) -> None:
    found, expected = guided(on_gpu, decoded), guided(on_cpu, decoded)
    assert psnr(found, expected) >= GUIDED_PICTURES[precision_of(on_gpu)].psnr
    assert psnr(expected, host(generator_of(on_cpu, decoded).stage1())) < 30, "guidance changes the pictures"


# --- PyTorch ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["float32", "float16", "bfloat16"])
def by_torch(request: pytest.FixtureRequest, on_cpu: BundleBackend) -> Any:
    pytest.importorskip("diffusers")
    from minddiffuser.runtime.backends.torch import TorchBackend

    return TorchBackend(on_cpu.decoder, Options(device="cuda", dtype=request.param, checkpointing="off"), {})


def kind_of(by_torch: Any) -> str:
    """The precision of its products: on a GPU PyTorch computes convolutions of float32 in TF32 by default."""
    return {"float32": "tf32", "float16": "fp16", "bfloat16": "bf16"}[by_torch.computing["dtype"]]


def test_stage_1_by_pytorch(by_torch: Any, on_cpu: BundleBackend, decoded: Any) -> None:
    found, expected = (host(generator_of(backend, decoded).stage1()) for backend in (by_torch, on_cpu))
    assert psnr(found, expected) >= PICTURES["fp16" if kind_of(by_torch) == "tf32" else kind_of(by_torch)].psnr
    assert by_torch.computing["gpu"] == find_gpu().name  # type: ignore[union-attr]


def test_gradients_by_autograd_are_the_engines(by_torch: Any, on_cpu: BundleBackend, decoded: Any) -> None:
    import torch

    weights = StructuralWeights.of_settings(AdamSettings(), decoded.structure, on_cpu.decoder.mask)
    latent = torch.from_numpy(decoded.latent).cuda()
    found = by_torch.structural(latent, decoded.structure, weights)
    expected = on_cpu.structural(decoded.latent, decoded.structure, weights)
    for ours, theirs in zip(found, expected, strict=True):
        assert errors(ours, theirs) < tolerance(kind_of(by_torch))
    settings, gradients = AdamSettings(backprop_steps=2), []
    start = generator_of(on_cpu, decoded, 2).initial()
    for backend in (by_torch, on_cpu):
        generator = generator_of(backend, decoded, 2)
        generator.initial()
        objective = backend.objective(generator, decoded.structure, settings)
        params = {k: torch.from_numpy(v).cuda() for k, v in start.items()} if backend is by_torch else start
        gradients.append(objective.value_and_gradient(params)[1])
    for name, gradient in gradients[1].items():
        assert errors(gradients[0][name], gradient) < tolerance(kind_of(by_torch)), name


def test_stage_2_by_autograd_reaches_the_engines_picture(by_torch: Any, on_cpu: BundleBackend, decoded: Any) -> None:
    found, expected = guided(by_torch, decoded), guided(on_cpu, decoded)
    assert psnr(found, expected) >= GUIDED_PICTURES["fp16" if kind_of(by_torch) == "tf32" else kind_of(by_torch)].psnr


# --- the commands ----------------------------------------------------------------------------------------------------

QUICK = ["--candidates", "2", "--start-steps", "2", "--n-steps", "4", "--strength", "0.5", "--finish-steps", "2"]


def pictures(run: Path) -> dict[str, np.ndarray]:
    return {str(path.relative_to(run)): read_image(path) for path in sorted((run / "images").rglob("*.png"))}


@pytest.mark.parametrize("backend", TARGETS)
def test_the_run_command_on_each_backend(
    backend: str, prepared: Path, built: dict[str, str | None], tmp_path: Path
) -> None:
    if built[backend] is not None:
        pytest.skip(f"{backend}: {built[backend]}")
    given = [str(prepared / "bundle"), str(prepared / "data"), *QUICK]
    trusted = ["--trust-plans"] if backend != "ort-cuda" else []
    run = ["run", *given, "--out", str(tmp_path / "run"), "--backend", backend, *trusted]
    assert reconstruct.main(run) == 0
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]
    assert settings["backend"] == backend
    assert settings["dtype"] == "fp16", "the narrowest that there is"
    found = pictures(tmp_path / "run")
    assert all(picture.std() > 5 for picture in found.values())
    assert reconstruct.main(run) == 0, "a finished run is not made again, and is no error"


def test_the_run_command_by_pytorch_gives_the_same_again(prepared: Path, tmp_path: Path) -> None:
    """Bit for bit, as on the CPU: on the same GPU with the same release."""
    pytest.importorskip("diffusers")
    for name in ("one", "two"):
        given = [str(prepared / "checkpoint"), str(prepared / "data"), "--models", "tiny", "--device", "cuda", *QUICK]
        assert reconstruct.main(["run", *given, "--out", str(tmp_path / name)]) == 0
    first, second = (pictures(tmp_path / name) for name in ("one", "two"))
    assert first.keys() == second.keys()
    for name, picture in first.items():
        np.testing.assert_array_equal(second[name], picture)


@pytest.mark.parametrize("decoder", ["mlp", "transformer"])
def test_a_network_decoder_is_fitted_on_the_gpu(decoder: str, prepared: Path, tmp_path: Path) -> None:
    """Twice the same decoded latents, bit for bit; and the CPU's, up to another start and order of sums."""
    pytest.importorskip("diffusers")
    pytest.importorskip("tokenizers")
    from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
    from minddiffuser.training import cli as train

    small = ["--n-structure", "20", "--n-selection", "20", "--percent", "5", "--n-folds", "2"]
    small += ["--decoder-option", "latent.epochs=3"]
    made = {}
    for name, device in (("one", "cuda"), ("two", "cuda"), ("cpu", "cpu")):
        given = ["fit", str(prepared / "data"), "--models", "tiny", "--decoder", f"latent={decoder}"]
        code = train.main([*given, "--out", str(tmp_path / name), "--device", device, *small])
        assert code == 0
        made[name] = open_checkpoint(tmp_path / name).decode(open_data(prepared / "data").responses("test"))
    np.testing.assert_array_equal(made["two"].latent, made["one"].latent)
    correlation = np.corrcoef(made["one"].latent.ravel(), made["cpu"].latent.ravel())[0, 1]
    assert correlation > 0.9, "the same network from another device's start"


def test_one_clear_error_for_what_cannot_be_built(prepared: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """TensorRT-RTX has no kernels for GPUs of data centres such as the H100."""
    gpu = find_gpu()
    if importlib.util.find_spec("tensorrt_rtx") is None or gpu is None or gpu.compute_capability != "9.0":
        pytest.skip("needs tensorrt_rtx and a GPU that it does not support")
    code = export.main(
        ["build", str(prepared / "bundle"), "--target", "tensorrt-rtx", "--compute-capability", "current"]
    )
    assert code == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    with pytest.raises(MindDiffuserError):
        EngineSet(Bundle.open(prepared / "bundle"), EngineSettings(backend="tensorrt-rtx", trust=EVERYTHING))
