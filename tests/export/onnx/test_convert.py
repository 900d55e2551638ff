"""A network as an ONNX file: nothing of this machine in it, names of weights and layers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn

from minddiffuser.export.graphs.base import network_graph
from minddiffuser.export.graphs.vjp import vjp
from minddiffuser.export.onnx import convert as to_onnx
from minddiffuser.export.onnx.convert import OPSET, export_network, prepare
from minddiffuser.export.onnx.network_graph import NetworkGraph
from minddiffuser.export.onnx.weights import WEIGHTS, WeightStore
from minddiffuser.runtime.bundle.graph_specs import BATCH, float32
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.models.open import load_models

Run = Callable[..., dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def models(small_world: Path) -> Any:
    opened = load_models(str(small_world))
    prepare(opened)
    return opened


# Of whoever exports: words that no graph can hold by chance.
USER, HOST = "somebody-who-exports", "a-host-of-his"


@pytest.fixture(scope="module")
def exported(models: Any) -> ModelProto:
    with pytest.MonkeyPatch.context() as here:
        for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOSTNAME"):
            here.setenv(name, HOST if name == "HOSTNAME" else USER)
        here.setattr(socket, "gethostname", lambda: HOST)
        made = export_network(network_graph("vae_decode", models, semantic=False), models)
    return made


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_file_computes_what_the_network_does(batch: int, models: Any, exported: ModelProto, run: Run) -> None:
    latent = torch.randn(batch, *models.latent_shape, generator=torch.Generator().manual_seed(batch))
    with torch.no_grad():
        expected = models.decode_latent(latent).numpy()
    np.testing.assert_allclose(run(exported, {"latent": latent.numpy()})["image"], expected, rtol=0, atol=1e-5)


def test_nothing_of_this_machine_is_in_it(exported: ModelProto, small_world: Path) -> None:
    bare = ModelProto()
    bare.CopyFrom(exported)
    for tensor in bare.graph.initializer:
        tensor.ClearField("raw_data")
    text = str(bare)
    for node in exported.graph.node:  # a slash stands between layer and operator, and nowhere else
        text = text.replace(f'"{node.name}"', f'"{node.name.replace("/", ":")}"')
    for word in ("/", ".py", "File ", "Traceback", "torch", "pkg.", USER, HOST, str(small_world)):
        assert word not in text, word
    assert exported.producer_name == "minddiffuser"
    assert exported.producer_version == ""
    assert not exported.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in exported.graph.node)
    assert not exported.functions


def test_it_is_a_plain_model_of_one_opset(exported: ModelProto) -> None:
    onnx.checker.check_model(exported, full_check=True)
    assert [(entry.domain, entry.version) for entry in exported.opset_import] == [("", OPSET)]
    assert exported.graph.name == "vae_decode"
    for value in (*exported.graph.input, *exported.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        assert first.dim_param == BATCH


def test_weights_have_the_networks_own_names(models: Any, exported: ModelProto) -> None:
    own = {f"vae.{name}": tensor.numpy() for name, tensor in models.vae.state_dict().items()}
    named = 0
    for tensor in exported.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if not tensor.name.startswith("vae."):
            assert array.size <= 64, tensor.name  # shapes and scalars
            continue
        plain, turned = tensor.name.removesuffix("_transposed"), tensor.name.endswith("_transposed")
        np.testing.assert_array_equal(array.T if turned else array, own[plain])
        named += 1
    assert named > 20


def test_nodes_are_named_by_their_layers(exported: ModelProto) -> None:
    names = [node.name for node in exported.graph.node]
    assert len(set(names)) == len(names)
    convolutions = [node for node in exported.graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 5
    for node in convolutions:
        assert node.name == f"{node.input[1].removesuffix('.weight')}/Conv_1"
    layers = {name.rpartition("/")[0] for name in names}
    assert "vae.decoder.mid_block.attentions.0.to_v" in layers
    assert len([name for name in names if name.startswith("vae.")]) > 0.9 * len(names)


class Pair:
    """Three linear layers, each large enough to be kept as it is."""

    name = "pair"

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.unet, self.vae, self.clip = nn.Linear(72, 70), nn.Linear(70, 75), nn.Linear(72, 70)


def pair_graphs(models: Any) -> tuple[NetworkGraph, NetworkGraph]:
    """A layer of a fixed input, as of a time step, and one of the input itself; and the gradient of both."""
    inputs = {"x": float32(BATCH, 72), "time": float32(72)}

    def forward(x: Tensor, time: Tensor) -> Tensor:
        hidden = models.unet(x) * torch.tanh(models.clip(time.unsqueeze(0)))
        return torch.tanh(models.vae(torch.tanh(hidden)))

    def backward(function: Callable[..., Any]) -> Callable[..., Any]:
        def gradient(x: Tensor, time: Tensor, gradient_in: Tensor) -> Tensor:
            _, pull_back = vjp(lambda given: function(given, time), x)
            return pull_back(gradient_in)[0]

        return gradient

    plain = NetworkGraph(
        name="pair",
        inputs=inputs,
        outputs={"y": float32(BATCH, 75)},
        forward=forward,
        forward_inputs=("x", "time"),
    )
    back = NetworkGraph(
        name="pair_gradient",
        inputs={**inputs, "gradient_in": float32(BATCH, 75)},
        outputs={"x_gradient": float32(BATCH, 72)},
        forward=forward,
        forward_inputs=("x", "time"),
        backward=backward,
    )
    return plain, back


def test_a_graph_and_its_gradient_share_their_weights(tmp_path: Path, run: Run) -> None:
    models: Any = Pair()
    prepare(models)
    plain, back = (export_network(graph, models) for graph in pair_graphs(models))
    x, time = torch.randn(3, 72).requires_grad_(), torch.randn(72)
    out = pair_graphs(models)[0].forward(x, time)
    gradient_in = torch.randn(3, 75)
    (expected,) = torch.autograd.grad(out, x, gradient_in)
    feeds = {"x": x.detach().numpy(), "time": time.numpy()}
    with WeightStore(tmp_path) as store:
        first, _ = store.write(plain, "plain")
        second, _ = store.write(back, "back")
    np.testing.assert_allclose(run(first, feeds)["y"], out.detach().numpy(), atol=1e-5)
    found = run(second, {**feeds, "gradient_in": gradient_in.numpy()})["x_gradient"]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    held = sum(
        p.numel() * 4 for layer in (models.unet, models.vae, models.clip) for p in layer.parameters() if p.ndim == 2
    )
    assert (tmp_path / WEIGHTS).stat().st_size < held + 2000


def toy(forward: Callable[..., Any], **outputs: Any) -> NetworkGraph:
    inputs = {"a": float32(BATCH, 5), "b": float32(BATCH, 5)}
    return NetworkGraph(name="toy", inputs=inputs, outputs=outputs, forward=forward, forward_inputs=tuple(inputs))


def test_sums_at_repeated_indices_are_refused() -> None:
    index = torch.tensor([0, 0, 1, 1, 2])

    def scattering(a: Tensor, b: Tensor) -> Tensor:
        return (a + b).scatter_add(1, index.expand(a.shape[0], 5), b)

    models: Any = Pair()
    with pytest.raises(InputError, match=r"the graph toy adds up at repeated indices \(.*Scatter"):
        export_network(toy(scattering, y=float32(BATCH, 5)), models)


def test_two_free_sizes_are_refused() -> None:
    models: Any = Pair()
    with pytest.raises(InputError, match="the graph toy has more than one free size"):
        export_network(toy(lambda a, b: (a + 1, b + 1), y=float32(BATCH, 5), z=float32(BATCH, 5)), models)


def toy_gradient(forward: Callable[..., Any]) -> NetworkGraph:
    def backward(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda a, gradient: vjp(function, a)[1](gradient)[0]

    inputs, outputs = {"a": float32(BATCH, 5), "gradient": float32(BATCH, 5)}, {"a_gradient": float32(BATCH, 5)}
    return NetworkGraph(
        name="toy_gradient", inputs=inputs, outputs=outputs, forward=forward, forward_inputs=("a",), backward=backward
    )


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The graphs that were given to PyTorch's converter, one entry for each time."""
    given: list[str] = []
    whole = to_onnx._through_pytorch

    def counted(graph: NetworkGraph, program: Any) -> Any:
        given.append(graph.name)
        return whole(graph, program)

    monkeypatch.setattr(to_onnx, "_through_pytorch", counted)
    return given


def test_a_forward_operator_that_is_not_known_goes_the_long_way(run: Run, ways: list[str]) -> None:
    """PyTorch's converter knows xlogy only once PyTorch has broken it down."""
    models: Any = Pair()
    made = export_network(toy(lambda a, b: torch.special.xlogy(a, b.abs() + 1), y=float32(BATCH, 5)), models)
    assert ways == ["toy", "toy"]
    a, b = torch.randn(3, 5), torch.randn(3, 5)
    found = run(made, {"a": a.numpy(), "b": b.numpy()})["y"]
    np.testing.assert_allclose(found, (a * torch.log(b.abs() + 1)).numpy(), rtol=1e-5, atol=1e-6)


def test_an_operator_without_a_counterpart_is_named(ways: list[str]) -> None:
    models: Any = Pair()
    said = "the graph {} cannot be exported from pair: PyTorch's converter to ONNX does not know the operator {}"
    with pytest.raises(InputError, match=said.format("toy", r"prims\.lgamma")) as caught:
        export_network(toy(lambda a, b: torch.lgamma(a + b), y=float32(BATCH, 5)), models)
    assert "\n" not in str(caught.value)
    assert ways == ["toy", "toy"]
    with pytest.raises(InputError, match=said.format("toy_gradient", r"\w+\.(lgamma|digamma)")) as caught:
        export_network(toy_gradient(torch.lgamma), models)
    assert "\n" not in str(caught.value)
    assert ways[2:] == ["toy_gradient"]  # there is no long way for a gradient


def test_a_gradient_that_writes_into_its_input_is_one_sentence() -> None:
    models: Any = Pair()
    with pytest.raises(InputError, match="toy_gradient cannot be exported from pair: operator 'aten.bitwise_and_"):
        export_network(toy_gradient(lambda a: torch.cumprod(a, 1)), models)


def test_a_network_whose_gradient_cannot_be_exported_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise NotImplementedError("a slice with step 2")

    graph, models = SimpleNamespace(name="denoise_gradient"), SimpleNamespace(name="odd")
    monkeypatch.setattr(to_onnx, "trace", refuse)
    with pytest.raises(InputError, match="denoise_gradient cannot be exported from odd: a slice with step 2"):
        to_onnx.export_network(graph, models)
