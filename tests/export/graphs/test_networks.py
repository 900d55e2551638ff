"""Every architecture as a graph: what PyTorch decodes, on ONNX Runtime, in each precision, as a TensorRT-RTX plan."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from kind_checkpoint import SHAPES
from network_settings import TAKES, VOXELS, write_network_checkpoint
from onnx import TensorProto

from minddiffuser.export.graphs.decode import decode_model, decode_specs
from minddiffuser.export.onnx.weights import WeightStore
from minddiffuser.export.precision import variants
from minddiffuser.export.precision.int8 import weights_only
from minddiffuser.export.precision.variants import in_precision
from minddiffuser.export.tensorrt.plan import build_plan
from minddiffuser.export.tensorrt.settings import TrtSettings
from minddiffuser.export.verify.gate import Case, verify_file
from minddiffuser.runtime.decoders.checkpoint import Checkpoint, open_checkpoint
from minddiffuser.runtime.decoders.networks import ARCHITECTURES

Run = Callable[..., dict[str, np.ndarray]]
FEATURES = ("latent", "structure")  # of one trunk
# The MLP sees no shape: one is enough.
CASES = [(name, shape) for name in ARCHITECTURES for shape in TAKES[name][: 1 if name == "mlp" else None]]
SLOW = [("transformer", VOXELS)]  # of one architecture, another shape is the same operators
# A second feature is traced as the first: in every run of the simplest, and of one of which a part is computed before.
TWICE = ("mlp", "brain_module")


class Exported:
    """A checkpoint of one architecture, and the graph of each of its features."""

    def __init__(self, folder: Path, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape = name, shape
        self.checkpoint: Checkpoint = open_checkpoint(write_network_checkpoint(folder, name, shape))
        self._models: dict[str, onnx.ModelProto] = {}

    def model(self, feature: str) -> onnx.ModelProto:
        """The graph of a feature, traced when it is first asked for."""
        if feature not in self._models:
            self._models[feature] = decode_model(self.checkpoint, feature)
        return self._models[feature]

    def responses(self, n: int) -> np.ndarray:
        mean, std = self.checkpoint.statistics
        return (mean + std * np.random.default_rng(n).standard_normal((n, *self.shape))).astype(np.float32)

    def exact(self, responses: np.ndarray, feature: str) -> np.ndarray:
        """The same network in float64, its z-scores and its place in the feature by hand."""
        mean, std = (array.astype(np.float64) for array in self.checkpoint.statistics)
        scores = np.where(std > 0, (responses - mean) / np.where(std > 0, std, 1), 0)
        decoder: Any = self.checkpoint.decoders[feature]
        place = decoder.placements[feature]
        with torch.no_grad():
            outputs = decoder.module.double()(torch.from_numpy(scores))
        decoder.module.float()
        out = np.tile(place.mean.astype(np.float64), (len(responses), 1))
        predicted = outputs[list(decoder.placements).index(feature)].numpy()
        out[:, place.position] += place.std[place.position] * predicted
        return out.reshape(-1, *SHAPES[feature])


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """Of each case one."""
    return functools.cache(lambda *case: Exported(tmp_path_factory.mktemp("networks") / "checkpoint", *case))


def cases(quick: Callable[[str, tuple[int, ...]], bool]) -> dict[str, Any]:
    """All of them, of which some are for every run."""
    params = [pytest.param(case, marks=() if quick(*case) else pytest.mark.slow) for case in CASES]
    return {"params": params, "ids": lambda case: f"{case[0]}-{'x'.join(map(str, case[1]))}"}


@pytest.fixture(scope="module", **cases(lambda *case: case not in SLOW))
def exported(request: pytest.FixtureRequest, export: Callable[..., Exported]) -> Exported:
    return export(*request.param)


@pytest.fixture(scope="module", **cases(lambda name, _shape: name in TWICE))
def exported_twice(request: pytest.FixtureRequest, export: Callable[..., Exported]) -> Exported:
    return export(*request.param)


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    """Float32 sums of at most some thousand terms, through at most ten layers: some twenty units of the largest."""
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * float(np.abs(expected).max()))


def test_the_graph_is_the_network(exported: Exported, run: Run) -> None:
    check_graph(exported, "structure", run)


def test_the_graph_of_another_feature_is_the_network(exported_twice: Exported, run: Run) -> None:
    check_graph(exported_twice, "latent", run)


def check_graph(exported: Exported, feature: str, run: Run) -> None:
    model = exported.model(feature)
    onnx.checker.check_model(model, full_check=True)
    for n in (1, 3):
        given = exported.responses(n)
        found = run(model, {"responses": given})[feature]
        assert_near(found, exported.exact(given, feature))
        assert_near(found, np.asarray(getattr(exported.checkpoint.decode(given), feature)))
        assert np.ptp(found) > 0


def test_trials_do_not_mix(exported: Exported, run: Run) -> None:
    """Neither in the graph, up to rounding, nor in PyTorch, bit by bit."""
    given = exported.responses(3)
    given[2] *= 5
    model = exported.model("structure")
    together = run(model, {"responses": given})["structure"]
    alone = run(model, {"responses": given[:1]})["structure"]
    assert_near(together[:1], alone)
    for feature in FEATURES:
        of_torch = np.asarray(getattr(exported.checkpoint.decode(given), feature))
        np.testing.assert_array_equal(of_torch[:1], getattr(exported.checkpoint.decode(given[:1]), feature))


def test_only_the_batch_is_free(exported: Exported) -> None:
    """No shape is worked out as the graph runs, and nothing that does not depend on the responses is."""
    operators = {node.op_type for node in exported.model("structure").graph.node}
    assert not operators & {"Shape", "Size", "ConstantOfShape", "Range", "If", "Loop", "Cos", "Sin", "Dropout"}


def test_the_trunk_of_two_features_lies_on_the_disk_once(exported_twice: Exported, tmp_path: Path) -> None:
    sizes = []
    for features in (("latent",), ("latent", "structure")):
        folder = tmp_path / str(len(sizes))
        folder.mkdir()
        with WeightStore(folder) as store:
            for feature in features:
                store.write(copy.deepcopy(exported_twice.model(feature)), feature)  # it takes the weights out
        sizes.append(sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".onnx"))
    decoder: Any = exported_twice.checkpoint.decoders["structure"]
    weights = {name: tensor.nbytes for name, tensor in decoder.module.state_dict().items()}
    head = sum(size for name, size in weights.items() if "heads.1." in name)
    placed = sum(np.prod(SHAPES["structure"], dtype=int) * size for size in (4, 4, 4))  # slot, scale, offset
    assert sizes[1] - sizes[0] < head + placed + 4096


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_every_precision_passes_the_gate(
    exported: Exported, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every matrix and every convolution in eight bits, which of real ones only the large are."""
    monkeypatch.setattr(variants, "weights_only", partial(weights_only, smallest=50))
    given, calibration = exported.responses(3), [{"responses": exported.responses(n)} for n in (4, 5)]
    found = in_precision([exported.model("structure")], "decode_structure", precision, calibration, threads=1)
    assert found is not None
    kinds = {tensor.data_type for tensor in found.models[0].graph.initializer}
    assert kinds & {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8}
    path = tmp_path / "structure.onnx"
    onnx.save(found.models[0], path)
    expected = np.asarray(exported.checkpoint.decode(given).structure)
    case = Case(kind="decoded", feeds={"responses": given}, expected={"structure": expected})
    specs = decode_specs(exported.checkpoint, "structure")
    assert verify_file("decode_structure", path, specs, [case], precision, threads=1).reason is None


def test_tensorrt_rtx_builds_a_plan(exported: Exported, tmp_path: Path) -> None:
    """With its real builder, which needs no GPU."""
    pytest.importorskip("tensorrt_rtx")
    settings = TrtSettings(target="tensorrt-rtx", optimization_level=0, profile={"batch": (1, 1, 4)})
    path, plan = tmp_path / "structure.onnx", tmp_path / "plans" / "structure.plan"
    onnx.save(exported.model("structure"), path)
    build_plan(path, plan, settings)
    assert plan.stat().st_size > 1000
