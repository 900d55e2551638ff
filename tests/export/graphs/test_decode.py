"""Every registered decoder as a graph: the same numbers as the decoder itself and as a checkpoint, weights sparse."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import save_file

from minddiffuser.export.graphs.decode import decode_model, decode_specs
from minddiffuser.export.graphs.decoders import DECODER_GRAPHS
from minddiffuser.export.onnx.weights import WeightStore
from minddiffuser.runtime.decoders import KINDS
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.features import FEATURES
from minddiffuser.training.decoders.base import make_decoder
from minddiffuser.training.normalise import TargetColumns

N_VOXELS, N_FIT, CONSTANT = 300, 60, (0, 17)
SHAPES = {"context": (15, 16), "latent": (4, 4, 4), "structure": (6, 17, 32), "semantic": (32,)}
# Small enough that most voxels are not chosen; what another decoder has no such option for, it fits with its own.
OPTIONS: dict[str, dict[str, Any]] = {"ridge": {"n_selected": 10}, "mlp": {"hidden": 24, "epochs": 2}}
Run = Callable[..., dict[str, np.ndarray]]


class Fitted:
    """A checkpoint of one kind of decoder, and what its decoders say themselves."""

    def __init__(self, name: str, template: Path, folder: Path) -> None:
        rng = np.random.default_rng(3)
        shutil.copytree(template, folder)
        self.folder = folder
        self.mean = rng.standard_normal(N_VOXELS).astype(np.float32)
        self.std = rng.uniform(0.5, 2, N_VOXELS).astype(np.float32)
        self.std[list(CONSTANT)] = 0
        save_file({"mean": self.mean, "std": self.std}, folder / "normaliser.safetensors")
        scores = rng.standard_normal((N_FIT, N_VOXELS))
        scores[:, list(CONSTANT)] = 0
        entries: list[dict[str, Any]] = []
        self.decoders: dict[str, tuple[Any, dict[str, np.ndarray]]] = {}
        for target, shape in SHAPES.items():
            size = math.prod(shape)
            n_predicted = size // 5 if target == "structure" else size  # as a mask leaves it
            position = np.sort(rng.permutation(size)[:n_predicted]).astype(np.int32)
            truth = scores @ rng.standard_normal((N_VOXELS, n_predicted))
            columns = TargetColumns(truth.astype(np.float32), np.arange(N_FIT), np.arange(n_predicted))
            fitted = make_decoder(name, target, **OPTIONS.get(name, {})).fit(scores, columns, n_threads=1)
            arrays = {**fitted.arrays(), "mean": rng.standard_normal(size).astype(np.float32), "position": position}
            arrays["std"] = rng.uniform(0.5, 2, size).astype(np.float32)
            if fitted.kind == "linear":
                constant = np.resize(np.array(CONSTANT, np.int32), (n_predicted, 1))  # chosen, and always 0
                arrays["index"] = np.concatenate([arrays["index"], constant], 1)
                arrays["weight"] = np.concatenate([arrays["weight"], np.ones_like(constant, np.float32)], 1)
            stored = {f"{target}.{k}" if k in ("position", "mean", "std") else k: v for k, v in arrays.items()}
            save_file(stored, folder / f"{target}.safetensors")
            entries.append({"kind": fitted.kind, "features": [target], "fit": {}, **fitted.described()})
            self.decoders[target] = fitted, arrays
        description = json.loads((folder / "checkpoint.json").read_text())
        description |= {"shapes": {n: list(s) for n, s in SHAPES.items()}, "decoders": entries}
        description["layout"] = {"modality": "fmri", "response_shape": [N_VOXELS]}
        description["files"] = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")
        }
        (folder / "checkpoint.json").write_text(json.dumps(description))
        self.checkpoint = open_checkpoint(folder)
        self._models: dict[str, onnx.ModelProto] = {}

    def model(self, target: str) -> onnx.ModelProto:
        """Its graph of a feature, made once; a copy, since a store of weights takes them out."""
        if target not in self._models:
            self._models[target] = decode_model(self.checkpoint, target)
        return copy.deepcopy(self._models[target])

    def by_hand(self, responses: np.ndarray, target: str) -> np.ndarray:
        """Z-scores, the decoder's own prediction, the target's units, in float64; token 0 of a context is constant."""
        decoder, arrays = self.decoders[target]
        varies = self.std > 0
        scores = np.where(varies, (responses - self.mean) / np.where(varies, self.std, 1).astype(np.float64), 0)
        out = np.tile(arrays["mean"].astype(np.float64), (len(responses), 1))
        out[:, arrays["position"]] += arrays["std"][arrays["position"]] * decoder.predict(scores)
        out = out.reshape(len(responses), *SHAPES[target])
        if target == "context":
            out[:, 0] = self.checkpoint.context_bos
        return out


# Of networks one is enough here: test_networks.py has every architecture.
@pytest.fixture(scope="module", params=["ridge", "mlp"])
def fitted(request: pytest.FixtureRequest, small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return Fitted(request.param, small_checkpoint, tmp_path_factory.mktemp("decoders") / request.param)


def responses(n: int) -> np.ndarray:
    return 3 * np.random.default_rng(n).standard_normal((n, N_VOXELS)).astype(np.float32)


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))


def test_every_kind_has_a_graph() -> None:
    assert DECODER_GRAPHS.keys() == KINDS.keys()


def test_every_target_of_a_checkpoint_is_here() -> None:
    assert set(SHAPES) == set(FEATURES)


@pytest.mark.parametrize("target", FEATURES)
def test_the_graph_is_the_decoder(fitted: Fitted, target: str, run: Run) -> None:
    model = fitted.model(target)
    onnx.checker.check_model(model, full_check=True)
    for n in (1, 2, 5):
        given = responses(n)
        found = run(model, {"responses": given})[target]
        assert_near(found, fitted.by_hand(given, target))
        assert_near(found, np.asarray(getattr(fitted.checkpoint.decode(given), target)))


@pytest.mark.parametrize("target", FEATURES)
def test_a_voxel_that_never_varied_counts_for_nothing(fitted: Fitted, target: str, run: Run) -> None:
    model, given = fitted.model(target), responses(2)
    plain = run(model, {"responses": given})[target]
    given[:, list(CONSTANT)] = [[1e6, np.nan], [-1e6, np.inf]]
    np.testing.assert_array_equal(run(model, {"responses": given})[target], plain)


def test_what_is_not_predicted_holds_its_mean(fitted: Fitted, run: Run) -> None:
    arrays = fitted.decoders["structure"][1]
    rest = np.setdiff1d(np.arange(math.prod(SHAPES["structure"])), arrays["position"])
    assert rest.size
    found = run(fitted.model("structure"), {"responses": responses(2)})["structure"].reshape(2, -1)
    np.testing.assert_array_equal(found[:, rest], np.tile(arrays["mean"][rest], (2, 1)))
    assert (found[0, arrays["position"]] != found[1, arrays["position"]]).mean() > 0.99


@pytest.mark.parametrize("target", FEATURES)
def test_trials_do_not_mix(fitted: Fitted, target: str, run: Run) -> None:
    model, given = fitted.model(target), responses(5)
    together = run(model, {"responses": given})[target]
    for trial in range(5):
        assert_near(together[trial], run(model, {"responses": given[trial : trial + 1]})[target][0])


def test_specs_are_the_graphs_own(fitted: Fitted) -> None:
    for target in FEATURES:
        model = fitted.model(target)
        sides = (model.graph.input, model.graph.output)
        for specs, values in zip(decode_specs(fitted.checkpoint, target), sides, strict=True):
            reported = {v.name: tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
            assert reported == {name: spec.shape for name, spec in specs.items()}
            assert {spec.dtype for spec in specs.values()} == {"float32"}
        assert model.graph.name == f"decode_{target}"
        assert all(node.name.startswith(f"decode_{target}/") for node in model.graph.node)


def test_weights_on_the_disk_are_the_decoders_own(fitted: Fitted, tmp_path: Path) -> None:
    """What the decoder stores, and four numbers for each dimension of the feature: of a linear one, sparse weights."""
    with WeightStore(tmp_path) as store:
        for target in FEATURES:
            store.write(fitted.model(target), target)
    stored = sum(path.stat().st_size for path in tmp_path.iterdir())
    held = sum(
        sum(array.nbytes for name, array in arrays.items() if name not in ("position", "mean", "std"))
        for _, arrays in fitted.decoders.values()
    )
    assert stored < held + 4 * 4 * sum(map(math.prod, SHAPES.values())) + 2 * 4 * N_VOXELS + 30_000
    if any(decoder.kind != "linear" for decoder, _ in fitted.decoders.values()):
        return
    dense = 4 * N_VOXELS * sum(len(arrays["bias"]) for _, arrays in fitted.decoders.values())
    if all(arrays["index"].shape[1] * 10 < N_VOXELS for _, arrays in fitted.decoders.values()):
        assert stored < dense / 4


def test_many_weights_are_gathered_in_parts(fitted: Fitted, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds the memory of a trial; here three parts and a rest."""
    from minddiffuser.export.graphs.decoders import linear

    decoder, arrays = fitted.decoders["latent"]
    if decoder.kind != "linear":
        pytest.skip("gathers no weights")
    monkeypatch.setattr(linear, "_WEIGHTS_AT_ONCE", 20 * arrays["index"].shape[1])
    model = decode_model(fitted.checkpoint, "latent")
    shapes = {t.name: list(t.dims)[0] for t in model.graph.initializer if ".weight_" in t.name}
    assert list(shapes.values()) == [20, 20, 20, 4]
    given = responses(2)
    assert_near(run(model, {"responses": given})["latent"], fitted.by_hand(given, "latent"))
