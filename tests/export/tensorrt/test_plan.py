"""TensorRT plans from ONNX files, built by the real TensorRT-RTX builder, which needs no GPU."""

import errno
import hashlib
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from minddiffuser.export.tensorrt import plan as to_trt
from minddiffuser.export.tensorrt.cache import cache_file, load_cache, save_cache
from minddiffuser.export.tensorrt.plan import build_plan, configure
from minddiffuser.export.tensorrt.progress import BuildCancelled, NestedPhases, Watch
from minddiffuser.export.tensorrt.settings import TrtSettings
from minddiffuser.runtime.engines.cuda.gpu import Gpu
from minddiffuser.runtime.engines.tensorrt.identity import check_plan
from minddiffuser.runtime.engines.tensorrt.library import TrtFailure, messages_of
from minddiffuser.runtime.errors import FileError, InputError, MissingExtra

trt = pytest.importorskip("tensorrt_rtx")
resource = pytest.importorskip("resource")  # limits of a process, which Windows has not

A100 = Gpu(0, "NVIDIA A100-SXM4-80GB", "8.0", "13.0")
RTX = TrtSettings(target="tensorrt-rtx")


def write_model(path: Path, *, external: bool = False, extra: Any = None, free: str = "batch") -> Path:
    """x (batch, 4, 8, 8) -> convolution -> ReLU -> matrix product -> y (batch, 16)."""
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.standard_normal((8, 4, 3, 3), dtype=np.float32),
        "matrix": rng.standard_normal((512, 16), dtype=np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Flatten", ["r"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "matrix"], ["m" if extra else "y"], name="product"),
        *([extra] if extra else []),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [free, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [free, 16])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("strange", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    if external:
        onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    else:
        onnx.save(model, path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "small.onnx")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "tensorrt-rtx" / "small.fp32.plan"


@pytest.fixture
def classic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """TensorRT-RTX in the place of TensorRT, whose bindings have the same shape, and an A100 that is not there."""
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(to_trt, "find_gpu", lambda: A100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its timing cache does nothing any more
        yield


def is_a_plan(path: Path) -> bool:
    """TensorRT-RTX's own opinion of a file's header; without a GPU it cannot say more."""
    _, diagnostics = trt.Runtime(messages_of(trt)).get_engine_validity(path.read_bytes())
    return not diagnostics & trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE.value


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("external", [False, True])
def test_a_plan_is_built_and_described(tmp_path: Path, plan: Path, external: bool) -> None:
    model = write_model(tmp_path / "small.onnx", external=external)
    identity = build_plan(
        model, plan, TrtSettings(target="tensorrt-rtx", optimization_level=1, profile={"batch": (1, 4, 9)})
    )
    assert is_a_plan(plan)
    junk = tmp_path / "junk"
    junk.write_bytes(b"x" * 500)
    assert not is_a_plan(junk)
    assert [path.name for path in plan.parent.iterdir()] == [plan.name]
    assert identity["target"] == "tensorrt-rtx"
    assert identity["library"] == trt.__version__
    assert identity["gpu"] is None
    assert identity["compute_capability"] is None
    assert identity["options"]["optimization_level"] == 1
    data = {"weights.bin": sha256(tmp_path / "weights.bin")} if external else {}
    assert identity["graph"] == {"sha256": sha256(model), "data": data}
    reported = identity["profile"]["inputs"]["x"]
    assert reported["shape"] == ["batch", 4, 8, 8]
    assert [reported[end] for end in ("min", "opt", "max")] == [[n, 4, 8, 8] for n in (1, 4, 9)]
    assert identity["profile"]["outputs"]["y"]["dtype"] == "float32"
    here = {"target": "tensorrt-rtx", "library": trt.__version__, "gpu": "GeForce", "platform": "any"}
    assert check_plan(identity, {**here, "compute_capability": "8.9"}) is None
    assert "7.5" in str(check_plan(identity, {**here, "compute_capability": "7.5"}))


def test_known_hashes_are_not_computed_again(tmp_path: Path, plan: Path) -> None:
    model = write_model(tmp_path / "small.onnx", external=True)
    identity = build_plan(model, plan, RTX, hashes={"weights.bin": "known", "other.bin": "not used"})
    assert identity["graph"] == {"sha256": sha256(model), "data": {"weights.bin": "known"}}


def test_a_graph_of_fixed_shape_needs_no_profile(tmp_path: Path, plan: Path) -> None:
    model = write_model(tmp_path / "small.onnx", free=2)  # type: ignore[arg-type]
    reported = build_plan(model, plan, TrtSettings(target="tensorrt-rtx", profile={}))["profile"]["inputs"]["x"]
    assert reported["shape"] == reported["min"] == reported["max"] == [2, 4, 8, 8]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (
            helper.make_node("Strange", ["m"], ["y"], name="the_strange_one", domain="strange"),
            ["the_strange_one", "Strange"],
        ),
        (helper.make_node("Det", ["m"], ["y"], name="a_determinant"), ["a_determinant", "Det", "unsupported node"]),
    ],
)
def test_a_graph_that_the_parser_refuses_names_node_operator_and_reason(
    tmp_path: Path, plan: Path, node: Any, words: list[str]
) -> None:
    model = write_model(tmp_path / "small.onnx", extra=node)
    with pytest.raises(InputError, match="refuses") as caught:
        build_plan(model, plan, RTX)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)
    assert not plan.exists()


def test_files_that_are_missing_damaged_or_elsewhere(tmp_path: Path, plan: Path) -> None:
    with pytest.raises(FileError, match=r"absent\.onnx"):
        build_plan(tmp_path / "absent.onnx", plan, RTX)
    (tmp_path / "junk.onnx").write_bytes(b"\xff" * 300)
    with pytest.raises(FileError, match=r"junk\.onnx"):
        build_plan(tmp_path / "junk.onnx", plan, RTX)
    model = write_model(tmp_path / "small.onnx", external=True)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(FileError, match=r"weights\.bin"):
        build_plan(model, plan, RTX)
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "weights.bin").write_bytes(b"secret")
    moved = onnx.load(model, load_external_data=False)
    for tensor in moved.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../weights.bin"
    (inside / "small.onnx").write_bytes(moved.SerializeToString())
    with pytest.raises(FileError, match="outside its folder"):
        build_plan(inside / "small.onnx", plan, RTX)


def test_progress_rises_to_its_end(model: Path, plan: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    build_plan(model, plan, RTX, progress=lambda *reported: seen.append(reported))
    done = [reported[1] for reported in seen]
    assert {(label, total) for label, _, total in seen} == {("building small.fp32.plan", 1000)}
    assert done == sorted(set(done))
    assert done[-1] == 1000
    assert len([part for part in done if 0 < part < 1000]) > 5


def test_nested_phases_fill_up_and_never_go_back() -> None:
    fraction = NestedPhases("long")
    fraction.start("all", None, 2)
    fraction.start("first", "all", 4)
    fraction.step("first")
    assert fraction.done == pytest.approx(0.05 * (1 / 4) / 2 / 2)
    fraction.step("first")
    fraction.finish("first")  # half of the first step of two
    assert fraction.done == pytest.approx(0.05 / 4)
    fraction.start("second", "all", 1)
    assert fraction.done == pytest.approx(0.05 / 4)
    fraction.step("all")
    assert fraction.done == pytest.approx(0.05 / 2)
    fraction.start("unknown parent", "never began", 2)
    fraction.step("unknown parent")
    fraction.step("no such phase")
    fraction.finish("no such phase")
    assert fraction.done == pytest.approx(0.05 / 2)
    fraction.start("long", "all", 2)
    fraction.start("inside", "long", 5)
    fraction.step("inside")
    # A fifth of half of the first of two steps; the same of half of the second step of the whole.
    assert fraction.done == pytest.approx(0.05 * (1 + 0.05 / 2) / 2 + 0.95 * (1 / 5) / 2 / 2)
    before = fraction.done
    fraction.finish("inside")
    assert fraction.done > before
    fraction.finish("long")
    assert 0.95 < fraction.done < 1
    fraction.step("all")
    assert fraction.done == pytest.approx(1)


@pytest.mark.parametrize("stop_after", [1, 20])
def test_a_cancelled_build_leaves_what_was_there(model: Path, plan: Path, stop_after: int) -> None:
    plan.parent.mkdir()
    plan.write_bytes(b"the plan before")
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) >= stop_after

    with pytest.raises(BuildCancelled, match=r"small\.fp32\.plan"):
        build_plan(model, plan, RTX, cancelled=cancelled)
    assert plan.read_bytes() == b"the plan before"
    assert [path.name for path in plan.parent.iterdir()] == [plan.name]
    assert len(asked) < stop_after + 5


@pytest.mark.parametrize("where", ["stepped", "started"])
def test_ctrl_c_ends_the_build_and_is_raised(
    model: Path, plan: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    real, before = getattr(Watch, where), signal.getsignal(signal.SIGINT)

    def interrupted(watch: Watch, *reported: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return real(watch, *reported)

    monkeypatch.setattr(Watch, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_plan(model, plan, RTX)
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is before
    assert list(plan.parent.iterdir()) == []
    build_plan(model, plan, RTX)
    assert is_a_plan(plan)


def test_an_error_in_a_callback_is_not_swallowed(model: Path, plan: Path) -> None:
    def broken(label: str, done: int, total: int) -> None:
        raise BrokenPipeError(errno.EPIPE, "nobody reads this")

    with pytest.raises(FileError, match="nobody reads this"):
        build_plan(model, plan, RTX, progress=broken)

    def wrong(label: str, done: int, total: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build_plan(model, plan, RTX, progress=wrong)
    assert not plan.exists()


def test_a_full_disk_leaves_what_was_there(model: Path, plan: Path) -> None:
    plan.parent.mkdir()
    plan.write_bytes(b"the plan before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # a file may not grow beyond that
    try:
        with pytest.raises(FileError, match="cannot be written"):
            build_plan(model, plan, RTX)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert plan.read_bytes() == b"the plan before"
    assert [path.name for path in plan.parent.iterdir()] == [plan.name]


def test_a_release_without_streams_writes_the_same_plan(
    model: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_plan(model, plan, RTX)
    streamed = plan.read_bytes()

    class Older:
        def __init__(self, builder: Any) -> None:
            self.build_serialized_network = builder.build_serialized_network

    real = to_trt._write
    monkeypatch.setattr(to_trt, "_write", lambda trt, builder, *rest: real(trt, Older(builder), *rest))
    build_plan(model, plan, RTX)
    assert plan.read_bytes() == streamed


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target": "onnx"}, "tensorrt, tensorrt-rtx"),
        ({"target": "tensorrt", "optimization_level": 6}, "0 to 5"),
        ({"target": "tensorrt", "optimization_level": True}, "0 to 5"),
        ({"target": "tensorrt", "workspace_bytes": 0}, "workspace_bytes"),
        ({"target": "tensorrt", "max_aux_streams": -1}, "max_aux_streams"),
        ({"target": "tensorrt", "hardware_compatibility": "all"}, "ampere_plus"),
        ({"target": "tensorrt", "refit": "full"}, "none, strip"),
        ({"target": "tensorrt", "compute_capabilities": ("8.6",)}, "hardware_compatibility"),
        ({"target": "tensorrt-rtx", "timing_cache": Path("cache")}, "measures no kernels"),
        ({"target": "tensorrt-rtx", "hardware_compatibility": "ampere_plus"}, "compute_capabilities"),
        ({"target": "tensorrt-rtx", "version_compatible": True}, "own release"),
        ({"target": "tensorrt-rtx", "compute_capabilities": ("sm86",)}, "like 8.6"),
        ({"target": "tensorrt-rtx", "compute_capabilities": ("8.6", "8.6")}, "once"),
        ({"target": "tensorrt-rtx", "compute_capabilities": ("8.6", "current")}, "by itself"),
        ({"target": "tensorrt-rtx", "profile": {"batch": (2, 1, 4)}}, "rising"),
        ({"target": "tensorrt-rtx", "profile": {"batch": (0, 1, 4)}}, "from 1"),
        ({"target": "tensorrt-rtx", "profile": {"batch": (1, 4)}}, "min, opt, max"),
        ({"target": "tensorrt-rtx", "profile": {"batch": (1, 2.0, 4)}}, "whole"),
    ],
)
def test_settings_that_cannot_be_built_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TrtSettings(**settings)


def test_a_free_dimension_without_sizes_is_named(tmp_path: Path, plan: Path) -> None:
    model = write_model(tmp_path / "small.onnx", free="n_pictures")
    with pytest.raises(InputError, match=r"'x'.*'n_pictures'.*batch"):
        build_plan(model, plan, RTX)
    sizes = {"n_pictures": (1, 2, 3)}
    build_plan(model, plan, TrtSettings(target="tensorrt-rtx", profile=sizes))
    assert is_a_plan(plan)


def test_compute_capabilities_reach_the_builder(model: Path, plan: Path) -> None:
    identity = build_plan(model, plan, TrtSettings(target="tensorrt-rtx", compute_capabilities=("8.6", "8.9")))
    assert identity["options"]["compute_capabilities"] == ["8.6", "8.9"]
    assert is_a_plan(plan)
    config = configure(trt, trt.Builder(messages_of(trt)), TrtSettings(target="tensorrt-rtx"))
    assert config.num_compute_capabilities == 0
    settings = TrtSettings(target="tensorrt-rtx", compute_capabilities=("12.0", "8.9"))
    config = configure(trt, trt.Builder(messages_of(trt)), settings)
    found = [config.get_compute_capability(i) for i in range(config.num_compute_capabilities)]
    assert found == [trt.ComputeCapability.SM120, trt.ComputeCapability.SM89]


@pytest.mark.parametrize(
    ("capabilities", "error", "words"),
    [
        (("9.9",), InputError, r"9\.9 is not known .* 8\.6, 8\.9"),
        (("current",), InputError, "none was found"),
        # Turing has no float32 products in TensorRT-RTX: the builder's own words come through.
        (("7.5",), TrtFailure, "Turing"),
    ],
)
def test_compute_capabilities_that_cannot_be_built(
    model: Path, plan: Path, capabilities: tuple[str, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        build_plan(model, plan, TrtSettings(target="tensorrt-rtx", compute_capabilities=capabilities))
    assert "/_src" not in str(caught.value)
    assert not plan.exists()


def test_too_little_workspace_says_so(model: Path, plan: Path) -> None:
    with pytest.raises(TrtFailure, match="give more workspace_bytes"):
        build_plan(model, plan, TrtSettings(target="tensorrt-rtx", workspace_bytes=1))


def test_no_memory_says_so(model: Path, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def starved(*given: Any) -> Any:
        messages_of(trt).errors.append("[E] Error Code 2: OutOfMemory (Requested size was 8 bytes. In x at y.cpp:1)")
        return False, None

    monkeypatch.setattr(to_trt, "_write", starved)
    with pytest.raises(TrtFailure, match=r"ran out of memory .*Requested size was 8 bytes\."):
        build_plan(model, plan, RTX)

    def exhausted(*given: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(to_trt, "_write", exhausted)
    with pytest.raises(TrtFailure, match="smaller batch"):
        build_plan(model, plan, RTX)
    assert not plan.exists()


@pytest.mark.parametrize(("target", "extra"), [("tensorrt", "gpu"), ("tensorrt-rtx", "rtx")])
def test_a_missing_library_names_its_extra(
    model: Path, plan: Path, monkeypatch: pytest.MonkeyPatch, target: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, target.replace("-", "_"), None)
    with pytest.raises(MissingExtra, match=rf"minddiffuser\[{extra}\]"):
        build_plan(model, plan, TrtSettings(target=target))


@pytest.mark.usefixtures("classic")
def test_tensorrt_without_a_gpu_is_one_sentence(model: Path, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_trt, "find_gpu", lambda: None)
    with pytest.raises(InputError, match="built on the GPU that it is for"):
        build_plan(model, plan, TrtSettings(target="tensorrt"))


@pytest.mark.usefixtures("classic")
def test_tensorrt_describes_its_gpu_and_keeps_its_timings(model: Path, plan: Path, tmp_path: Path) -> None:
    settings = TrtSettings(
        target="tensorrt", timing_cache=tmp_path / "cache", hardware_compatibility="same_compute_capability"
    )
    for _ in range(2):  # the second one reads the cache of the first
        identity = build_plan(model, plan, settings)
    assert (identity["gpu"], identity["compute_capability"], identity["cuda"]) == (A100.name, "8.0", "13.0")
    assert identity["options"]["timing_cache"] is True
    kept = [path.name for path in (tmp_path / "cache").iterdir()]
    assert kept == [f"NVIDIA_A100_SXM4_80GB-sm8.0-tensorrt{trt.__version__}.timing"]


@pytest.mark.usefixtures("classic")
def test_ampere_plus_needs_ampere(model: Path, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_trt, "find_gpu", lambda: Gpu(0, "NVIDIA T4", "7.5", "13.0"))
    with pytest.raises(InputError, match=r"T4 has 7\.5"):
        build_plan(model, plan, TrtSettings(target="tensorrt", hardware_compatibility="ampere_plus"))


def test_settings_reach_the_configuration() -> None:
    def flag(config: Any, name: str) -> bool:
        return bool(config.get_flag(getattr(trt.BuilderFlag, name)))

    builder = trt.Builder(messages_of(trt))
    plain = configure(trt, builder, TrtSettings(target="tensorrt-rtx"))
    assert not flag(plain, "TF32")
    assert not flag(plain, "STRIP_PLAN")
    assert flag(plain, "REQUIRE_USER_ALLOCATION")
    assert plain.builder_optimization_level == 3
    set_ = configure(
        trt,
        builder,
        TrtSettings(
            target="tensorrt",
            optimization_level=5,
            workspace_bytes=1 << 28,
            max_aux_streams=0,
            tf32=True,
            refit="strip",
            version_compatible=True,
        ),
    )
    assert set_.builder_optimization_level == 5
    assert set_.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 1 << 28
    assert set_.max_aux_streams == 0
    assert all(flag(set_, name) for name in ("TF32", "STRIP_PLAN", "REFIT_IDENTICAL", "VERSION_COMPATIBLE"))


class FakeConfig:
    """A configuration that takes some timing caches and not others."""

    def __init__(self, accepted: tuple[bytes, ...]) -> None:
        self.accepted = accepted

    def create_timing_cache(self, content: bytes) -> Any:
        return None if content == b"damaged" else FakeCache(content)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        return not ignore_mismatch and cache.content in self.accepted


class FakeCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"+"


@pytest.mark.parametrize(
    ("stored", "accepted", "loaded"),
    [(None, (b"",), b""), (b"mine", (b"mine", b""), b"mine"), (b"alien", (b"",), b""), (b"damaged", (b"",), b"")],
)
def test_a_timing_cache_that_does_not_fit_is_begun_anew(
    tmp_path: Path, stored: bytes | None, accepted: tuple[bytes, ...], loaded: bytes
) -> None:
    path = cache_file(tmp_path / "timings", A100, "11.1.0")
    if stored is not None:
        path.parent.mkdir()
        path.write_bytes(stored)
    cache = load_cache(FakeConfig(accepted), path)
    assert cache.content == loaded
    save_cache(cache, path)
    assert path.read_bytes() == loaded + b"+"


def test_timings_of_another_gpu_or_release_are_another_file(tmp_path: Path) -> None:
    others = [(A100, "11.1.0"), (A100, "11.1.1"), (Gpu(0, "NVIDIA H200", "9.0", None), "11.1.0")]
    assert len({cache_file(tmp_path, gpu, version) for gpu, version in others}) == 3
    with pytest.raises(InputError, match="leave timing_cache out"):
        load_cache(FakeConfig(()), tmp_path / "none")
