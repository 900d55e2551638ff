"""Gradients of a small network as ONNX graphs: against autograd at any batch, and against finite differences."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn

from minddiffuser.export.graphs.vjp import vjp
from minddiffuser.export.onnx.convert import export_network, prepare
from minddiffuser.export.onnx.network_graph import NetworkGraph
from minddiffuser.export.onnx.tracing import example_inputs, trace
from minddiffuser.runtime.bundle.graph_specs import BATCH, float32

BATCHES = (1, 3, 7)
Run = Callable[..., dict[str, np.ndarray]]


class Decoder(nn.Module):
    """Convolutions with stride 1 and 2, group normalisation, attention over pixels, nearest enlargement."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(4, 24, 3, padding=1)
        self.norm = nn.GroupNorm(2, 24)
        self.middle = nn.Conv2d(24, 24, 3, padding=1)
        self.down = nn.Conv2d(24, 24, 3, stride=2, padding=1)
        self.leave = nn.Conv2d(24, 3, 3, padding=1)
        self.q, self.k, self.v = (nn.Linear(24, 24) for _ in range(3))

    def forward(self, latent: Tensor) -> Tensor:
        x = self.down(self.middle(F.silu(self.norm(self.enter(latent)))))
        n, channels, rows, columns = x.shape
        pixels = x.reshape(n, channels, rows * columns).transpose(1, 2)
        heads = [part(pixels).reshape(n, rows * columns, 2, 12).transpose(1, 2) for part in (self.q, self.k, self.v)]
        seen = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(n, rows * columns, channels)
        x = x + seen.transpose(1, 2).reshape(n, channels, rows, columns)
        return torch.sigmoid(self.leave(F.interpolate(x, scale_factor=2.0, mode="nearest")))


class Viewer(nn.Module):
    """Patches to tokens with one of their own before them, layer normalisation, one token chosen, the others cut."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, stride=4, bias=False)
        self.first = nn.Parameter(torch.randn(12))
        self.norm = nn.LayerNorm(12)
        self.mlp = nn.Linear(12, 12)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.patch(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(image.shape[0], 1, -1), tokens], 1)
        tokens = tokens + F.gelu(self.mlp(self.norm(tokens)))
        return tokens[:, 0], tokens[:, 1:]


class Networks:
    """What tracing needs of models."""

    name = "toy"

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.vae, self.clip, self.unet = Decoder().eval(), Viewer().eval(), nn.Linear(6, 6)


INPUTS = {"latent": float32(BATCH, 4, 8, 8), "target": float32(BATCH, 4, 12), "weight": float32(1)}
OUTPUTS = {"loss": float32(BATCH), "slope": float32(BATCH, 4, 8, 8)}


def loss_of(models: Any, latent: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    first, rest = models.clip(models.vae(latent))
    return ((rest - target) ** 2).mean((1, 2)) + weight * first.pow(3).sum(1)


def gradient_graph(models: Any) -> NetworkGraph:
    def backward(loss: Callable[..., Any]) -> Callable[..., Any]:
        def gradient(latent: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
            value, pull_back = vjp(lambda z: loss(z, target, weight), latent)
            (slope,) = pull_back(torch.ones_like(value))
            return value, slope

        return gradient

    return NetworkGraph(
        name="toy_gradient",
        inputs=INPUTS,
        outputs=OUTPUTS,
        forward=lambda latent, target, weight: loss_of(models, latent, target, weight),
        forward_inputs=tuple(INPUTS),
        backward=backward,
    )


@pytest.fixture(scope="module")
def models() -> Any:
    made: Any = Networks()
    prepare(made)
    return made


@pytest.fixture(scope="module")
def exported(models: Any) -> ModelProto:
    return export_network(gradient_graph(models), models)


def feeds(batch: int, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {name: [batch if size == BATCH else size for size in spec.shape] for name, spec in INPUTS.items()}
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("batch", BATCHES)
def test_the_gradient_is_autograds(batch: int, models: Any, exported: ModelProto, run: Run) -> None:
    given = feeds(batch)
    latent = torch.from_numpy(given["latent"]).requires_grad_()
    loss = loss_of(models, latent, torch.from_numpy(given["target"]), torch.from_numpy(given["weight"]))
    (slope,) = torch.autograd.grad(loss.sum(), latent)
    found = run(exported, given)
    np.testing.assert_allclose(found["loss"], loss.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(found["slope"], slope.numpy(), rtol=0, atol=1e-5 * float(slope.abs().max()))


def test_the_gradient_is_the_limit_of_differences(exported: ModelProto, run: Run) -> None:
    """Central differences of the graph's own loss along random directions, two trials at once."""
    given = feeds(2)
    slope = run(exported, given)["slope"].astype(np.float64)
    rng = np.random.default_rng(2)
    for _ in range(4):
        direction = rng.standard_normal(given["latent"].shape)
        direction /= np.sqrt((direction**2).sum((1, 2, 3), keepdims=True))
        expected = (slope * direction).sum((1, 2, 3))
        step = 0.03
        moved = [
            run(exported, {**given, "latent": (given["latent"] + sign * step * direction).astype(np.float32)})["loss"]
            for sign in (1, -1)
        ]
        found = (moved[0].astype(np.float64) - moved[1]) / (2 * step)
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.01 * np.sqrt((slope**2).sum((1, 2, 3))).max())


def test_what_is_in_the_graph(exported: ModelProto, models: Any) -> None:
    onnx.checker.check_model(exported, full_check=True)
    operators = {node.op_type for node in exported.graph.node}
    assert not {op for op in operators if op.startswith("Scatter")}
    assert not operators & {"Loop", "If", "Scan", "SequenceInsert", "RandomNormalLike", "Dropout"}
    assert "Conv" in operators
    transposed = [node for node in exported.graph.node if node.op_type == "ConvTranspose"]
    assert len(transposed) == 2  # back through the two with a stride; the others go back as convolutions
    assert {node.domain for node in exported.graph.node} == {""}
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*exported.graph.input, *exported.graph.output)
    }
    assert shapes == {name: list(spec.shape) for name, spec in {**INPUTS, **OUTPUTS}.items()}


def test_weights_are_held_once(exported: ModelProto, models: Any) -> None:
    """A convolution and its backward pass use the same kernel (5,184 numbers), turned as it runs."""
    kernel = models.vae.middle.weight.detach().numpy()
    same = [
        tensor.name
        for tensor in exported.graph.initializer
        if sorted(tensor.dims) == sorted(kernel.shape)
        and np.isclose(np.sort(numpy_helper.to_array(tensor).ravel()), np.sort(kernel.ravel())).all()
    ]
    assert same == ["vae.middle.weight"]


@pytest.mark.parametrize("batch", BATCHES)
def test_a_forward_graph_is_its_function(batch: int, models: Any, forward: ModelProto, run: Run) -> None:
    latent = feeds(batch)["latent"]
    found = run(forward, {"latent": latent})
    with torch.no_grad():
        image = models.vae(torch.from_numpy(latent))
        expected = dict(zip(("first", "rest"), models.clip(image), strict=True), image=image)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array.numpy(), rtol=0, atol=1e-5 * float(array.abs().max()))


def forward_graph(models: Any) -> NetworkGraph:
    def both(latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image = models.vae(latent)
        return (*models.clip(image), image)

    return NetworkGraph(
        name="toy",
        inputs={"latent": INPUTS["latent"]},
        outputs={"first": float32(BATCH, 12), "rest": float32(BATCH, 4, 12), "image": float32(BATCH, 3, 8, 8)},
        forward=both,
        forward_inputs=("latent",),
    )


@pytest.fixture(scope="module")
def forward(models: Any) -> ModelProto:
    return export_network(forward_graph(models), models)


ELSEWHERE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("here", sys.argv[1])
here = importlib.util.module_from_spec(spec)
sys.modules["here"] = here
spec.loader.exec_module(here)
models = here.Networks()
here.prepare(models)
for graph in (here.forward_graph(models), here.gradient_graph(models)):
    print(here.sha256(here.export_network(graph, models)))
"""


def sha256(model: ModelProto) -> str:
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


@pytest.mark.long
def test_two_processes_write_the_same_bytes(forward: ModelProto, exported: ModelProto, tmp_path: Path) -> None:
    """Another process, in another folder, with other hashes of names."""
    command = [sys.executable, "-c", ELSEWHERE, __file__]
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == [sha256(forward), sha256(exported)]


def test_a_gradient_for_one_number_of_trials_alone_is_refused(models: Any) -> None:
    def fixed(latent: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return loss_of(models, latent * int(latent.shape[0]), target, weight)

    graph = replace(gradient_graph(models), forward=fixed)
    with pytest.raises(NotImplementedError, match="loss for one number of trials alone"):
        trace(graph, models)


def test_example_inputs_are_what_the_graph_takes(models: Any) -> None:
    graph = gradient_graph(models)
    for batch in (1, 4):
        made = example_inputs(graph, batch)
        assert {name: tuple(a.shape) for name, a in made.items()} == {
            name: tuple(batch if size == BATCH else size for size in spec.shape) for name, spec in INPUTS.items()
        }
    again = example_inputs(graph, 4)
    assert all(torch.equal(again[name], array) for name, array in made.items())


def test_attention_is_plain_while_tracing_only(models: Any, exported: ModelProto) -> None:
    assert torch.backends.mha.get_fastpath_enabled()
    assert (F.interpolate.__module__, F.scaled_dot_product_attention.__module__) == (
        "torch.nn.functional",
        "torch._C._nn",
    )
    assert torch.backends.cuda.flash_sdp_enabled() or torch.backends.cuda.mem_efficient_sdp_enabled()
    assert sum(node.op_type == "Softmax" for node in exported.graph.node) == 1
