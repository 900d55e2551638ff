"""ONNX Runtime's engine on graphs of a line each."""

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from minddiffuser.runtime.bundle.graph_specs import TensorSpec
from minddiffuser.runtime.engines.ort import engine as engine_module
from minddiffuser.runtime.engines.ort.array import OrtArray
from minddiffuser.runtime.engines.ort.engine import OrtEngine, OrtSettings, as_numpy, open_ort
from minddiffuser.runtime.errors import FileError, InputError, MissingExtra, ShapeError

WEIGHT = np.random.default_rng(2).standard_normal((4, 3)).astype(np.float32)
INPUTS = {"x": TensorSpec("float32", ("batch", 4)), "shift": TensorSpec("float32", (3,))}
OUTPUTS = {"y": TensorSpec("float32", ("batch", 3)), "double": TensorSpec("float32", ("batch", 3))}


def write_graph(path: Path) -> Path:
    """``y = x @ WEIGHT + shift`` and ``double = 2 * y``."""
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("Add", ["product", "shift"], ["y"]),
        helper.make_node("Add", ["y", "y"], ["double"]),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, spec.shape) for n, spec in INPUTS.items()]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, spec.shape) for n, spec in OUTPUTS.items()]
    graph = helper.make_graph(nodes, "line", inputs, outputs, [numpy_helper.from_array(WEIGHT, "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_graph(tmp_path / "line.onnx")


@pytest.fixture
def feeds(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "x": rng.standard_normal((2, 4)).astype(np.float32),
        "shift": rng.standard_normal(3).astype(np.float32),
    }


def expected(feeds: dict[str, Any]) -> np.ndarray:
    return np.asarray(feeds["x"], np.float64) @ WEIGHT.astype(np.float64) + np.asarray(feeds["shift"], np.float64)


def near(found: Any, feeds: dict[str, Any], factor: int = 1) -> None:
    """Four products and a shift in float32: ten roundings at most, each by half a unit of the sum of magnitudes."""
    magnitude = np.abs(feeds["x"]) @ np.abs(WEIGHT) + np.abs(feeds["shift"])
    off = np.abs(np.asarray(found, np.float64) - factor * expected(feeds))
    assert (off <= factor * 10 * np.finfo(np.float32).eps / 2 * magnitude).all()


@pytest.mark.parametrize("memory", ["fast", "low"])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_it_runs_the_graph(path: Path, feeds: dict[str, np.ndarray], memory: str, kind: Callable[..., Any]) -> None:
    with open_ort("line", path, INPUTS, OUTPUTS, OrtSettings(memory=memory)) as engine:
        found = engine.run({name: kind(array) for name, array in feeds.items()})
        assert engine.device == "cpu"
        assert engine.description == "ONNX Runtime, CPUExecutionProvider, fp32"
    assert list(found) == ["y", "double"]
    near(found["y"], feeds)
    near(found["double"], feeds, factor=2)


def test_views_are_read_as_they_look(path: Path, rng: np.random.Generator) -> None:
    wide = rng.standard_normal((8, 6)).astype(np.float32)
    given = {"x": wide[::4, 5:1:-1], "shift": wide[0, ::2]}
    with open_ort("line", path, INPUTS, OUTPUTS) as engine:
        near(engine.run(given)["y"], given)


def test_outputs_are_the_callers_to_keep(path: Path, feeds: dict[str, np.ndarray]) -> None:
    with open_ort("line", path, INPUTS, OUTPUTS) as engine:
        first = engine.run(feeds)
        kept = first["y"].copy()
        engine.run({**feeds, "x": feeds["x"] + 1})
        assert (first["y"] == kept).all()


def test_what_does_not_fit_is_refused_before_the_backend(path: Path, feeds: dict[str, np.ndarray]) -> None:
    with open_ort("line", path, INPUTS, OUTPUTS) as engine:
        with pytest.raises(ShapeError, match=r"'x' of the engine 'line' is float32 \(2, 5\)"):
            engine.run({**feeds, "x": np.zeros((2, 5), np.float32)})
        with pytest.raises(InputError, match="lacks shift"):
            engine.run({"x": feeds["x"]})


def test_a_closed_engine_says_so(path: Path, feeds: dict[str, np.ndarray]) -> None:
    engine = open_ort("line", path, INPUTS, OUTPUTS)
    engine.close()
    engine.close()
    with pytest.raises(InputError, match="'line' is closed: open it again"):
        engine.run(feeds)
    with pytest.raises(InputError, match="closed"):
        _ = engine.description


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_the_build_has_not_names_the_extra(path: Path, provider: str) -> None:
    name = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}[provider]
    if name in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has it")
    with pytest.raises(MissingExtra, match=rf"no {name} \(it has .*CPUExecutionProvider.*minddiffuser\[gpu\]"):
        open_ort("line", path, INPUTS, OUTPUTS, OrtSettings(provider=provider))


def test_without_onnxruntime_the_extra_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"pip install 'minddiffuser\[edge\]'"):
        open_ort("line", path, INPUTS, OUTPUTS)


class FakeSession:
    """Stands for a session of a GPU build: remembers how it was opened."""

    opened: dict[str, Any]
    used = ("CPUExecutionProvider",)
    error: Exception | None = None

    def __init__(self, _path: str, *, sess_options: Any, providers: list[Any], disabled_optimizers: Any) -> None:
        type(self).opened = {"options": sess_options, "providers": providers, "disabled": disabled_optimizers}
        if self.error is not None:
            raise self.error

    def get_providers(self) -> list[str]:
        return list(self.used)


@pytest.fixture
def fake_session(monkeypatch: pytest.MonkeyPatch) -> type[FakeSession]:
    class Session(FakeSession):
        pass

    every = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: every)
    monkeypatch.setattr(engine_module, "_lacking", [""])  # nothing is looked for, and no log is silenced
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return Session


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_session_that_fell_back_to_the_cpu_is_refused(
    path: Path, fake_session: type[FakeSession], provider: str
) -> None:
    with pytest.raises(InputError, match="fell back to CPUExecutionProvider: check that the GPU's driver"):
        open_ort("line", path, INPUTS, OUTPUTS, OrtSettings(provider=provider))
    # ONNX Runtime was not invited to choose the CPU; what TensorRT leaves over is CUDA's.
    expected = {"cuda": ["CUDAExecutionProvider"]}
    expected["tensorrt"] = ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    assert [name for name, _ in fake_session.opened["providers"]] == expected[provider]


@pytest.mark.parametrize("provider", ["cpu", "cuda", "tensorrt"])
def test_cudas_libraries_are_looked_for_where_pip_puts_them(
    path: Path,
    fake_session: type[FakeSession],
    provider: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Once in a process; what is not found is said where a session does not start, and not on standard output."""
    looked: list[str] = []
    monkeypatch.setattr(engine_module, "_lacking", [])
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", lambda _level: None)

    def preload() -> None:
        looked.append(provider)
        sys.stdout.write("Failed to load libcudnn.so.9\n")

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
    if provider == "cpu":
        with contextlib.suppress(AttributeError):  # the session is played, and gives nothing
            open_ort("line", path, INPUTS, OUTPUTS, OrtSettings(provider=provider))
    else:
        for _ in range(2):
            with pytest.raises(InputError, match=r"backend ort \(Failed to load libcudnn\.so\.9\)"):
                open_ort("line", path, INPUTS, OUTPUTS, OrtSettings(provider=provider))
    assert looked == ([] if provider == "cpu" else [provider])
    assert capsys.readouterr().out == ""


def test_providers_get_limits_and_the_cache(path: Path, fake_session: type[FakeSession], tmp_path: Path) -> None:
    def options(precision: str = "fp32", **choices: Any) -> dict[str, str]:
        with pytest.raises(InputError, match="fell back"):
            open_ort("line", path, INPUTS, OUTPUTS, OrtSettings(**choices), precision=precision)
        found: dict[str, str] = fake_session.opened["providers"][0][1]
        return found

    # TF32 off takes the tensor cores from float16, too.
    assert options(provider="cuda") == {"device_id": "0", "use_tf32": "0"}
    for half in ("fp16", "bf16"):
        assert options(half, provider="cuda") == {"device_id": "0", "use_tf32": "1"}
    assert options(provider="cuda", memory_limit_bytes=1 << 30)["gpu_mem_limit"] == str(1 << 30)
    tensorrt = options(provider="tensorrt", memory_limit_bytes=1 << 20)
    # Without a folder of the caller's nothing is kept: never beside the graph, in a bundle that was verified.
    assert "trt_engine_cache_enable" not in tensorrt
    assert (tensorrt["trt_fp16_enable"], tensorrt["trt_max_workspace_size"]) == ("0", str(1 << 20))
    cached = options(provider="tensorrt", cache=tmp_path / "mine")
    assert (cached["trt_engine_cache_enable"], cached["trt_engine_cache_path"]) == ("1", str(tmp_path / "mine"))
    # Its files are named by inputs and outputs, which fp32, fp16 and bf16 have in common.
    assert cached["trt_engine_cache_prefix"] == "line.fp32"
    assert not any(name.startswith("trt_profile") for name in cached)


def test_engines_of_tensorrts_provider_are_for_a_range_of_batches(path: Path, fake_session: type[FakeSession]) -> None:
    """Of every input that has a free size, and of no other: or the engine is built anew for another batch."""
    settings = OrtSettings(provider="tensorrt", profile=(1, 2, 8))
    inputs = {
        "latent": TensorSpec("float32", ("batch", 4, 64, 64)),
        "step": TensorSpec("float32", (3,)),
        "context": TensorSpec("float32", ("batch", 15, 768)),
    }
    with pytest.raises(InputError, match="fell back"):
        open_ort("denoise", path, inputs, OUTPUTS, settings, precision="fp16")
    options = fake_session.opened["providers"][0][1]
    assert {name: value for name, value in options.items() if name.startswith("trt_profile")} == {
        "trt_profile_min_shapes": "latent:1x4x64x64,context:1x15x768",
        "trt_profile_opt_shapes": "latent:2x4x64x64,context:2x15x768",
        "trt_profile_max_shapes": "latent:8x4x64x64,context:8x15x768",
    }
    for sizes in ((0, 1, 2), (2, 1, 4), (1, 4, 2)):
        with pytest.raises(InputError, match="rising order"):
            OrtSettings(provider="tensorrt", profile=sizes)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("Failed to allocate memory: out of memory")])
def test_no_memory_is_not_taken_for_a_damaged_file(
    path: Path, fake_session: type[FakeSession], error: Exception
) -> None:
    fake_session.error = error
    with pytest.raises(MemoryError, match="no memory left to open line"):
        open_ort("line", path, INPUTS, OUTPUTS)


def test_a_session_that_gave_heavy_work_to_the_cpu_is_refused(tmp_path: Path) -> None:
    from minddiffuser.runtime.engines.ort.engine import _refuse_fall_back

    a, b = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 2]) for name in "ab")
    nodes = [helper.make_node("MatMul", ["a", "a"], ["c"]), helper.make_node("Neg", ["c"], ["b"])]
    for kept, refused in ((nodes, True), ([helper.make_node("Neg", ["a"], ["b"])], False)):
        model = helper.make_model(helper.make_graph(kept, "g", [a], [b]), opset_imports=[helper.make_opsetid("", 20)])
        model.ir_version = 10
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        if refused:
            with pytest.raises(InputError, match=r"1 operators of the graph g to the CPU \(MatMul\)"):
                _refuse_fall_back(session, "g")
        else:
            _refuse_fall_back(session, "g")


def test_a_graph_that_fails_when_it_runs_is_one_sentence(tmp_path: Path) -> None:
    a, b = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 2]) for name in "ab")
    index = onnx.numpy_helper.from_array(np.array([9]), "i")
    graph = helper.make_graph([helper.make_node("Gather", ["a", "i"], ["b"], axis=0)], "g", [a], [b], [index])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    (tmp_path / "g.onnx").write_bytes(model.SerializeToString())
    specs = {"a": TensorSpec("float32", ("n", 2))}, {"b": TensorSpec("float32", ("n", 2))}
    with open_ort("g", tmp_path / "g.onnx", *specs) as engine, pytest.raises(FileError, match="cannot run the graph g"):
        engine.run({"a": np.zeros((2, 2), np.float32)})


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "absent", "no operator"])
def test_a_file_that_is_no_graph_is_one_sentence(path: Path, damage: str) -> None:
    data = path.read_bytes()
    if damage == "absent":
        path.unlink()
    elif damage == "no operator":
        model = onnx.load_from_string(data)
        model.graph.node[0].op_type = "MatMulOfNobody"
        path.write_bytes(model.SerializeToString())
    else:
        path.write_bytes({"cut": data[: len(data) // 2], "garbage": b"\xff" * 100, "empty": b""}[damage])
    with pytest.raises(FileError, match="cannot open the graph line") as caught:
        open_ort("line", path, INPUTS, OUTPUTS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("export the bundle again")


def other(specs: dict[str, TensorSpec], **changes: TensorSpec | None) -> dict[str, TensorSpec]:
    return {name: spec for name, spec in (specs | changes).items() if spec is not None}


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        (other(INPUTS, shift=None, more=INPUTS["shift"]), OUTPUTS, "has the inputs x float32 (batch, 4), shift"),
        (other(INPUTS, shift=None), OUTPUTS, "inputs"),
        (other(INPUTS, x=TensorSpec("float64", ("batch", 4))), OUTPUTS, "its description says x float64 (batch, 4)"),
        (other(INPUTS, x=TensorSpec("float32", (4,))), OUTPUTS, "says x float32 (4,)"),
        (other(INPUTS, x=TensorSpec("float32", ("batch", 5))), OUTPUTS, "says x float32 (batch, 5)"),
        (INPUTS, other(OUTPUTS, double=None), "has the outputs y float32 (batch, 3), double"),
        (INPUTS, other(OUTPUTS, y=TensorSpec("float16", ("batch", 3))), "says y float16"),
    ],
)
def test_a_graph_that_is_not_what_was_said_is_refused(
    path: Path, inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec], reason: str
) -> None:
    with pytest.raises(FileError) as caught:
        open_ort("line", path, inputs, outputs)
    assert reason in str(caught.value)


def test_a_free_dimension_may_have_another_name(path: Path, feeds: dict[str, np.ndarray]) -> None:
    renamed = other(INPUTS, x=TensorSpec("float32", ("n", 4)))
    with open_ort("line", path, renamed, OUTPUTS) as engine:
        near(engine.run(feeds)["y"], feeds)


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"provider": "rocm"}, "provider 'rocm' is unknown: choose one of cpu, cuda, tensorrt"),
        ({"memory": "tiny"}, "memory 'tiny' is unknown"),
        ({"threads": 0}, "threads is 0"),
        ({"memory_limit_bytes": 0}, "memory_limit_bytes is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(choices: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        OrtSettings(**choices)


class OnDevice(OrtEngine):
    """Takes the way of a GPU's session on the CPU, which is a device to ONNX Runtime's bindings as any other."""

    device = "cpu:0"  # type: ignore[assignment]


@pytest.fixture
def bound(path: Path) -> OnDevice:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return OnDevice(session, "line", INPUTS, OUTPUTS, OrtSettings(provider="cuda"), "fp32")


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_bound_outputs_stay_where_they_are_and_are_inputs_again(
    bound: OnDevice, feeds: dict[str, np.ndarray], kind: Callable[..., Any]
) -> None:
    found = bound.run({name: kind(array) for name, array in feeds.items()})
    assert list(found) == ["y", "double"]
    assert all(isinstance(array, OrtArray) for array in found.values())
    assert (found["y"].dtype, found["y"].shape) == ("float32", (2, 3))
    near(found["y"].numpy(), feeds)
    near(as_numpy(found["double"]), feeds, factor=2)
    # An array in ONNX Runtime's hands is an input as it is, beside one on the host.
    value = onnxruntime.OrtValue.ortvalue_from_numpy(feeds["x"] + 1)
    again = bound.run({"x": OrtArray(value), "shift": feeds["shift"]})
    near(as_numpy(again["y"]), {**feeds, "x": feeds["x"] + 1})
    near(as_numpy(found["y"]), feeds)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_what_was_placed_is_an_input_of_many_runs(
    bound: OnDevice, path: Path, feeds: dict[str, np.ndarray], kind: Callable[..., Any]
) -> None:
    with open_ort("line", path, INPUTS, OUTPUTS) as on_host:
        turned = np.asfortranarray(feeds["x"])
        assert on_host.place(turned).flags.c_contiguous
        for engine in (bound, on_host):
            placed = {name: engine.place(array if engine is on_host else kind(array)) for name, array in feeds.items()}
            for _ in range(2):
                near(as_numpy(engine.run(placed)["y"]), feeds)


def test_bound_inputs_are_checked_too(bound: OnDevice, feeds: dict[str, np.ndarray]) -> None:
    value = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((2, 5), np.float32))
    with pytest.raises(ShapeError, match=r"float32 \(2, 5\), expected float32 \(batch, 4\)"):
        bound.run({"x": OrtArray(value), "shift": feeds["shift"]})


def test_a_tensor_on_the_device_is_read_in_place(feeds: dict[str, np.ndarray]) -> None:
    """A view is copied together first; a tensor that lies as it should is not copied."""
    tensor = torch.from_numpy(feeds["x"])
    for given, same in ((tensor, True), (tensor.T, False)):
        adopted: Any = OrtArray.adopt(given, "cpu", 0)
        assert (adopted._tensor.data_ptr() == given.data_ptr()) == same
        assert adopted._tensor.is_contiguous()
    copied: Any = OrtArray.adopt(feeds["x"], "cpu", 0)
    assert isinstance(copied, OrtArray)
    assert OrtArray.adopt(copied, "cpu", 0) is copied


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int64", "int32", "bool"])
def test_an_ort_array_has_numpys_dtype_and_values(dtype: str) -> None:
    array = np.array([[0, 1, 2], [3, 0, 5]]).astype(dtype)
    held = OrtArray(onnxruntime.OrtValue.ortvalue_from_numpy(array))
    assert (held.dtype, held.shape) == (dtype, (2, 3))
    assert (held.numpy() == array).all()


def test_every_kind_of_output_comes_to_the_host() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    held = OrtArray(onnxruntime.OrtValue.ortvalue_from_numpy(array))
    for given in (array, torch.from_numpy(array), torch.from_numpy(array).requires_grad_(), held, memoryview(array)):
        found = as_numpy(given)
        assert type(found) is np.ndarray
        assert (found == array).all()
    assert as_numpy(array) is array


COUNT = """
import os, sys
from pathlib import Path
from minddiffuser.runtime.engines.base import TensorSpec
from minddiffuser.runtime.engines.ort.engine import OrtSettings, open_ort
shapes = {"x": ("batch", 4), "shift": (3,)}, {"y": ("batch", 3), "double": ("batch", 3)}
inputs, outputs = ({n: TensorSpec("float32", s) for n, s in given.items()} for given in shapes)
import onnxruntime
kept, counts = [], [len(os.listdir("/proc/self/task"))]
for asked in sys.argv[2:]:
    settings = OrtSettings(threads=int(asked[0]), share_threads=asked.endswith("shared"))
    kept.append(open_ort("line", Path(sys.argv[1]), inputs, outputs, settings))
    counts.append(len(os.listdir("/proc/self/task")))
print(*(after - before for before, after in zip(counts, counts[1:])))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
@pytest.mark.parametrize(
    ("asked", "added"),
    [
        # The caller's thread works too: a pool of four is three threads more, once for all sessions.
        (["4 shared"] * 4, [3, 0, 0, 0]),
        # The first size is the pool's, and ONNX Runtime gives nobody threads of his own any more.
        (["3 shared", "5 shared", "5"], [2, 0, 0]),
        (["1 shared", "1 shared"], [0, 0]),
        # Without a pool each session has its own.
        (["4", "4", "3"], [3, 3, 2]),
    ],
)
def test_sessions_share_threads_where_asked_to(path: Path, asked: list[str], added: list[int]) -> None:
    done = subprocess.run([sys.executable, "-c", COUNT, str(path), *asked], capture_output=True, text=True, check=True)
    assert [int(count) for count in done.stdout.split()] == added


# Private memory that three sessions over one file of weights take, in bytes.
MEASURE = """
import gc, re, sys
from pathlib import Path
import numpy as np
from minddiffuser.runtime.engines.base import TensorSpec
from minddiffuser.runtime.engines.ort.engine import OrtSettings, open_ort
spec = {"x": TensorSpec("float32", ("batch", 2048))}, {"y": TensorSpec("float32", ("batch", 2048))}
def private():
    gc.collect()
    # What the system has swapped out is memory all the same.
    return 1024 * sum(map(int, re.findall(r"(?:RssAnon|VmSwap):\\s+(\\d+)", Path("/proc/self/status").read_text())))
import onnxruntime
before = private()
engines = [open_ort("wide", Path(sys.argv[1]), *spec, OrtSettings(memory=sys.argv[2], threads=1)) for _ in range(3)]
for engine in engines:
    engine.run({"x": np.zeros((2, 2048), np.float32)})
print(private() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read in /proc")
@pytest.mark.parametrize("turned", [False, True], ids=["as stored", "transposed"])
def test_low_memory_holds_the_weights_once(tmp_path: Path, turned: bool) -> None:
    """Three sessions over the same 16 MB: each keeps a copy of its own where memory is "fast", none where it is "low".

    A weight that the graph transposes, as backward passes do, is not transposed beforehand.
    """
    weight = np.random.default_rng(0).standard_normal((2048, 2048)).astype(np.float32)
    (tmp_path / "weights.bin").write_bytes(weight.tobytes())
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=weight.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", "offset": 0, "length": weight.nbytes}.items():
        tensor.external_data.add(key=key, value=str(value))
    graph = helper.make_graph(
        [
            *([helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0])] if turned else []),
            helper.make_node("MatMul", ["x", "t" if turned else "w"], ["y"]),
        ],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2048])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2048])],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "wide.onnx").write_bytes(model.SerializeToString())
    taken = {}
    for memory in ("fast", "low"):
        command = [sys.executable, "-c", MEASURE, str(tmp_path / "wide.onnx"), memory]
        taken[memory] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert taken["fast"] > 2.5 * weight.nbytes, taken
    assert taken["low"] < 0.5 * weight.nbytes, taken
