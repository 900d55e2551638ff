"""The engine over a plan, on a TensorRT and a GPU that are played: what it tells them, and that it believes nothing."""

import dataclasses
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.bundle.graph_specs import TensorSpec
from minddiffuser.runtime.engines.tensorrt.arena import Arena
from minddiffuser.runtime.engines.tensorrt.engine import TrtEngine, open_trt
from minddiffuser.runtime.engines.tensorrt.library import LIBRARIES, TrtFailure, load_library
from minddiffuser.runtime.engines.trust import Trust, trust_plans
from minddiffuser.runtime.errors import FileError, InputError, MissingExtra, ShapeError


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    if not hasattr(module, "Fake"):
        spec.loader.exec_module(module)
    return module


fakes = _load("trt_fakes")


@pytest.fixture
def device() -> Any:
    return fakes.FakeDevice()


@pytest.fixture
def fake(device: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    played = fakes.Fake(device)
    monkeypatch.setitem(sys.modules, "tensorrt", played.module)
    return played


@pytest.fixture
def rtx(device: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    played = fakes.Fake(device, rtx=True)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", played.module)
    return played


@pytest.fixture
def opened(fake: Any, device: Any, tmp_path: Path) -> TrtEngine:
    return open_trt(fakes.plan_file(tmp_path), device=device)


def test_a_run_computes_from_every_input(opened: TrtEngine, device: Any, rng: np.random.Generator) -> None:
    for batch in (2, 3, 2):
        given = fakes.feeds(rng, batch)
        found = opened.run(given)["next_latent"]
        np.testing.assert_array_equal(device.to_numpy(found), fakes.guided_step(given))
    assert opened.device == "cuda:0"
    assert opened.description == "TensorRT 11.1.0.106, fp16, NVIDIA A100-SXM4-80GB"


def test_outputs_are_the_callers_to_keep(fake: Any, device: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    given, other = fakes.feeds(rng), fakes.feeds(rng)
    opened = open_trt(fakes.plan_file(tmp_path), device=device)
    first = opened.run(given)["next_latent"]
    opened.run(other)
    np.testing.assert_array_equal(first.value, fakes.guided_step(given))


def test_shapes_and_addresses_are_told_only_when_they_change(
    fake: Any, device: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    opened = open_trt(fakes.plan_file(tmp_path), device=device)
    given = {name: device.adopt(array) for name, array in fakes.feeds(rng).items()}
    opened.run(given)
    assert sorted(name for name, _ in device.named("address")) == sorted([*given, "next_latent"])
    assert len(device.named("shape")) == len(given)
    device.log.clear()
    found = opened.run(given)["next_latent"]
    assert device.named("shape") == device.named("scratch") == []
    assert device.named("address") == [("next_latent", found.pointer)]  # new each time: the caller's to keep
    moved = {**given, "context": device.adopt(np.array(given["context"].value))}
    opened.run(moved)
    assert {name for name, _ in device.named("address")} == {"context", "next_latent"}
    device.log.clear()
    opened.run({name: device.adopt(array) for name, array in fakes.feeds(rng, 4).items()})
    assert {name for name, _ in device.named("shape")} == {"latent", "context"}


def test_what_was_placed_is_not_copied_again(opened: TrtEngine, device: Any, rng: np.random.Generator) -> None:
    given = fakes.feeds(rng)
    placed = {name: opened.place(array) for name, array in given.items()}
    device.log.clear()
    for _ in range(2):
        found = opened.run(placed)["next_latent"]
        np.testing.assert_array_equal(device.to_numpy(found), fakes.guided_step(given))
    assert device.named("allocate") == [(given["latent"].shape,)] * 2  # the outputs
    assert device.named("copy") == []


def test_no_run_waits_and_each_is_ordered_with_its_caller(
    opened: TrtEngine, device: Any, rng: np.random.Generator
) -> None:
    device.log.clear()
    for _ in range(3):
        opened.run(fakes.feeds(rng))
    assert device.count("synchronise") == 0
    order = [entry[0] for entry in device.log if entry[0] in ("enter", "enqueue", "leave")]
    assert order == ["enter", "enqueue", "leave"] * 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("set_input_shape", "take an input 'latent' of shape"),
        ("infer_shapes", "find the shapes of context"),
        ("set_tensor_address", "use the memory of"),
        ("execute_async_v3", "could not run 'denoise'"),
    ],
)
def test_every_refusal_in_a_run_is_raised(
    opened: TrtEngine, fake: Any, device: Any, rng: np.random.Generator, call: str, words: str
) -> None:
    fake.fails.add(call)
    with pytest.raises(TrtFailure, match=words) as caught:
        opened.run(fakes.feeds(rng))
    assert f"(API Usage Error: no {call} today.)" in str(caught.value)
    assert device.count("enter") == device.count("leave")
    fake.fails.clear()
    given = fakes.feeds(rng)
    np.testing.assert_array_equal(opened.run(given)["next_latent"].value, fakes.guided_step(given))


def test_shapes_that_were_refused_are_told_again(
    opened: TrtEngine, fake: Any, device: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = fakes.feeds(rng)
    opened.run(given)

    def broken(context: Any) -> list[str]:
        raise RuntimeError("infer_shapes error code: -1")

    with monkeypatch.context() as patched:
        patched.setattr(fakes.FakeContext, "infer_shapes", broken)
        with pytest.raises(TrtFailure, match="could not find the shapes in 'denoise'"):
            opened.run(fakes.feeds(rng, 3))
    device.log.clear()
    given = fakes.feeds(rng, 3)
    np.testing.assert_array_equal(opened.run(given)["next_latent"].value, fakes.guided_step(given))
    assert {name for name, _ in device.named("shape")} == set(given)


@pytest.mark.parametrize("call", ["deserialize_cuda_engine", "create_execution_context"])
def test_every_refusal_while_opening_is_raised(fake: Any, device: Any, tmp_path: Path, call: str) -> None:
    fake.fails.add(call)
    with pytest.raises(TrtFailure, match=f"TensorRT 11.1.0.106 could not .*denoise.*no {call} today"):
        open_trt(fakes.plan_file(tmp_path), device=device)


def test_memory_that_runs_out_says_what_to_do(
    opened: TrtEngine, fake: Any, device: Any, rng: np.random.Generator
) -> None:
    fake.fails.add("execute_async_v3")
    fake.ok = lambda name: (
        name != "execute_async_v3" or fake.module.heard.log(1, "Cuda Runtime (out of memory)") or False
    )
    with pytest.raises(TrtFailure, match="smaller batch"):
        opened.run(fakes.feeds(rng))


def test_inputs_that_do_not_fit_never_reach_tensorrt(opened: TrtEngine, device: Any, rng: np.random.Generator) -> None:
    given = fakes.feeds(rng)
    device.log.clear()
    with pytest.raises(ShapeError, match="batch is 5, the plan of 'denoise' covers 1 to 4"):
        opened.run(fakes.feeds(rng, 5))
    with pytest.raises(ShapeError, match="float64"):
        opened.run({**given, "context": given["context"].astype(np.float64)})
    with pytest.raises(InputError, match="lacks step"):
        opened.run({name: array for name, array in given.items() if name != "step"})
    assert device.log == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtypes": {"latent": "HALF"}}, "'latent' float16"),
        ({"dtypes": {"latent": "FP8"}}, "'latent' None"),
        ({"host_tensors": {"step"}}, "computes a shape from 'step'"),
        ({"extra_tensors": ["mystery"]}, "'mystery'"),
    ],
)
def test_a_plan_that_is_not_what_its_description_says(
    fake: Any, device: Any, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    for name, value in change.items():
        setattr(fake, name, value)
    with pytest.raises(FileError, match=words):
        open_trt(fakes.plan_file(tmp_path), device=device)


def test_a_description_with_other_tensors(fake: Any, device: Any, tmp_path: Path) -> None:
    plan = fakes.plan_file(tmp_path)
    more = {**fakes.INPUTS, "noise": TensorSpec("float32", (1,))}
    with pytest.raises(FileError, match="has no noise"):
        open_trt(dataclasses.replace(plan, inputs=more), device=device)
    other = {**fakes.INPUTS, "step": TensorSpec("float32", (4,))}
    with pytest.raises(FileError, match=r"'step' float32 \(3,\).*float32 \(4,\)"):
        open_trt(dataclasses.replace(plan, inputs=other), device=device)


def test_a_plan_that_does_not_fit_is_refused_before_it_is_read(fake: Any, device: Any, tmp_path: Path) -> None:
    plan = fakes.plan_file(tmp_path)
    plan.path.unlink()
    for change, words in (
        ({"library": "10.9.0"}, "was built by TensorRT 10.9.0"),
        ({"gpu": "NVIDIA H200", "compute_capability": "9.0"}, "H200"),
        ({"graph": None}, "graph"),
    ):
        with pytest.raises(FileError, match=words):
            open_trt(dataclasses.replace(plan, builder={**plan.builder, **change}), device=device)
    stale = dataclasses.replace(plan, hashes={"denoise.onnx": "another"})
    with pytest.raises(FileError, match="another version of its ONNX graph"):
        open_trt(stale, device=device)
    with pytest.raises(FileError, match="cannot be read"):
        open_trt(plan, device=device)
    assert device.count("deserialize") == 0
    plan.path.touch()
    with pytest.raises(FileError, match="cannot be read"):
        open_trt(plan, device=device)


def test_engines_share_the_largest_scratch_memory(
    fake: Any, device: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    arena = Arena(device)
    fake.scratch_bytes = 3000
    small = open_trt(fakes.plan_file(tmp_path), device=device, arena=arena)
    small.run(fakes.feeds(rng))
    assert device.named("scratch") == [(arena.pointer, 3072)]
    before = arena.pointer
    fake.scratch_bytes = 9000
    large = open_trt(fakes.plan_file(tmp_path), device=device, arena=arena)
    assert (arena.size, arena.pointer == before) == (9216, False)
    given = fakes.feeds(rng)
    device.log.clear()
    for one in (small, large, small):
        np.testing.assert_array_equal(one.run(given)["next_latent"].value, fakes.guided_step(given))
    assert device.named("scratch") == [(arena.pointer, 9216)] * 2
    arena.reserve(100)
    assert arena.size == 9216
    with pytest.raises(InputError, match="another device"):
        open_trt(fakes.plan_file(tmp_path), device=fakes.FakeDevice(), arena=arena)


def test_a_plan_runs_only_where_its_user_trusts_it(fake: Any, device: Any, tmp_path: Path) -> None:
    """Whatever its manifest says: who wrote the plan wrote that too. Nothing of it reaches the library before."""
    listed = Trust(file=tmp_path / "config" / "trusted_plans.json")
    strangers = [Trust(), listed]
    for options in ({}, {"version_compatible": True}):
        for trust in strangers:
            with pytest.raises(FileError, match="is not trusted: if you trust who made it, md-export trust BUNDLE"):
                open_trt(fakes.plan_file(tmp_path, trust=trust, **options), device=device)
    assert device.count("deserialize") == 0
    trust_plans(listed.file, {fakes.plan_file(tmp_path).sha256 or "": "denoise"})
    open_trt(fakes.plan_file(tmp_path, trust=listed), device=device)
    open_trt(fakes.plan_file(tmp_path, trust=listed, version_compatible=True), device=device)
    open_trt(fakes.plan_file(tmp_path), device=device)
    assert device.named("deserialize") == [(b"plan", False), (b"plan", True), (b"plan", False)]


def test_a_plan_that_was_changed_since_it_was_checked_does_not_run(fake: Any, device: Any, tmp_path: Path) -> None:
    for trust in (Trust(everything=True), Trust(file=tmp_path / "trusted_plans.json")):
        plan = dataclasses.replace(fakes.plan_file(tmp_path, trust=trust), sha256="0" * 64)
        with pytest.raises(FileError, match="is not the file that its manifest names"):
            open_trt(plan, device=device)
    plan = fakes.plan_file(tmp_path, trust=Trust(file=tmp_path / "trusted_plans.json"))
    trust_plans(plan.trust.file, {plan.sha256 or "": "denoise"})
    plan.path.write_bytes(b"evil")
    with pytest.raises(FileError, match="is not trusted"):
        open_trt(dataclasses.replace(plan, sha256=None), device=device)
    assert device.count("deserialize") == 0


def test_a_stripped_plan_takes_its_weights_from_its_own_graph(fake: Any, device: Any, tmp_path: Path) -> None:
    plan = fakes.plan_file(tmp_path, refit="strip")
    open_trt(plan, device=device)
    assert device.named("refit") == [(str(tmp_path / "denoise.onnx"),)]
    open_trt(fakes.plan_file(tmp_path), device=device)
    assert device.count("refit") == 1
    fake.missing_weights = ["kernel"]
    with pytest.raises(TrtFailure, match="'kernel'"):
        open_trt(plan, device=device)
    fake.missing_weights = []
    for call, words in (("refit_from_file", "problem 0"), ("refit_cuda_engine", "fill in the weights of 'denoise'")):
        fake.fails = {call}
        with pytest.raises(TrtFailure, match=words):
            open_trt(plan, device=device)
    fake.fails = set()
    device.log.clear()
    (tmp_path / "weights.bin").write_bytes(b"other weights")
    with pytest.raises(FileError, match=r"weights\.bin is not what the stripped plan"):
        open_trt(plan, device=device)
    graph = {"sha256": plan.builder["graph"]["sha256"], "data": {"../secret": "0" * 64}}
    with pytest.raises(FileError, match="outside its folder"):
        open_trt(dataclasses.replace(plan, builder={**plan.builder, "graph": graph}), device=device)
    plan.onnx.unlink()
    with pytest.raises(FileError, match="holds no weights"):
        open_trt(plan, device=device)
    assert device.count("refit") == 0


def test_rtx_compiles_everything_at_once_and_keeps_it_for_next_time(
    rtx: Any, device: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    plan, cache = fakes.plan_file(tmp_path, "tensorrt-rtx"), tmp_path / "cache"
    with open_trt(plan, device=device, cache_folder=cache) as opened:
        given = fakes.feeds(rng)
        np.testing.assert_array_equal(opened.run(given)["next_latent"].value, fakes.guided_step(given))
    (config,) = device.named("context")[0]
    strategy = config.dynamic_shapes_kernel_specialization_strategy
    assert (strategy, config.cuda_graph_strategy, config.strategy) == ("eager", "disabled", 2)
    (kept,) = cache.iterdir()
    assert kept.read_bytes() == b"kernels"
    assert "A100" in kept.name
    assert "1.7.1.116" in kept.name
    assert device.count("cache") == 0
    open_trt(plan, device=device, cache_folder=cache).close()
    assert device.named("cache") == [(b"kernels",)]
    open_trt(plan, device=device).close()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".rtxcache"] == []
    cache_file = tmp_path / "a file, no folder"
    cache_file.touch()
    open_trt(plan, device=device, cache_folder=cache_file).close()  # what cannot be kept is no error


def test_rtx_is_asked_about_the_header_first(rtx: Any, device: Any, tmp_path: Path) -> None:
    rtx.diagnostics = 3
    with pytest.raises(FileError, match=r"version mismatch, unsupported cc.*md-export build"):
        open_trt(fakes.plan_file(tmp_path, "tensorrt-rtx"), device=device)
    assert device.count("deserialize") == 0


def test_closing_waits_once_and_twice_is_once(opened: TrtEngine, device: Any) -> None:
    device.log.clear()
    opened.close()
    opened.close()
    assert device.log == [("synchronise",)]


@pytest.mark.parametrize("target", LIBRARIES)
def test_a_library_that_is_missing_or_broken_names_its_extra(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = LIBRARIES[target]
    monkeypatch.setitem(sys.modules, library.module, None)
    with pytest.raises(MissingExtra, match=rf"minddiffuser\[{library.extra}\]"):
        load_library(target)

    def broken(name: str) -> Any:
        raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(MissingExtra, match=r"libcudart\.so\.13"):
        load_library(target)
    with pytest.raises(InputError, match="tensorrt, tensorrt-rtx"):
        load_library("onnx")
