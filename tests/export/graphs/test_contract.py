"""What every registered network graph must do, before anything is exported."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from minddiffuser.export.graphs import NETWORK_GRAPHS
from minddiffuser.export.graphs.base import network_graph
from minddiffuser.export.graphs.scaling import unit_scale
from minddiffuser.export.onnx.tracing import example_inputs
from minddiffuser.runtime.backends.reference import NETWORKS, TorchEngine
from minddiffuser.runtime.bundle.graph_specs import BATCH
from minddiffuser.runtime.bundle.manifest import DECODE, GRAPHS
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.models.open import load_models

both = pytest.mark.parametrize("semantic", [False, True], ids=["plain", "semantic"])


@pytest.fixture(scope="module")
def models(small_world: Path) -> Any:
    return load_models(str(small_world))


@pytest.fixture(scope="module")
def exact_models(small_world: Path) -> Any:
    """The same networks in float64, where rounding does not hide what a formula leaves out.

    A float64 sum is off by 1e-16 of its terms. The networks make at most some hundred of that (in float32 they make
    20 units of 6e-8), on any processor and in whatever order it adds up: 1e-12 is 4,500 units. What is left out or
    scaled wrongly shows in the first digits.
    """
    return load_models(str(small_world), dtype="float64")


EXACT = 1e-12


def doubles(feeds: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: array.double() for name, array in feeds.items()}


def evaluate(function: Any, feeds: dict[str, Tensor]) -> tuple[Tensor, ...]:
    found = function(*feeds.values())
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def peak_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def test_the_registers_agree() -> None:
    assert tuple(NETWORK_GRAPHS) == NETWORKS
    assert set(NETWORK_GRAPHS) == {name for name in GRAPHS if not name.startswith(DECODE)}


@both
@pytest.mark.parametrize("name", NETWORK_GRAPHS)
def test_inputs_and_outputs_fit_the_reference_engine(name: str, semantic: bool, models: Any) -> None:
    graph = network_graph(name, models, semantic=semantic)
    assert graph.name == name
    engine = TorchEngine(name, models, graph.inputs, graph.outputs)
    for batch in (1, 2):
        found = engine.run(example_inputs(graph, batch))
        assert list(found) == list(graph.outputs)
        for key, spec in graph.outputs.items():
            assert tuple(found[key].shape) == tuple(batch if size == BATCH else size for size in spec.shape)
            assert str(found[key].dtype) == f"torch.{spec.dtype}"


@both
@pytest.mark.parametrize("name", NETWORK_GRAPHS)
def test_the_function_is_what_the_reference_engine_computes(name: str, semantic: bool, exact_models: Any) -> None:
    """Gradients too: reverse mode of the function against autograd through the networks."""
    graph = network_graph(name, exact_models, semantic=semantic)
    feeds = example_inputs(graph, 2, seed=5)
    expected = TorchEngine(name, exact_models, graph.inputs, graph.outputs).run(feeds)
    found = evaluate(graph.function, doubles(feeds))
    assert len(found) == len(graph.outputs)
    for key, tensor in zip(graph.outputs, found, strict=True):
        assert tensor.dtype == expected[key].dtype == torch.float64
        assert peak_error(tensor.detach(), expected[key]) < EXACT, key


@pytest.mark.parametrize("name", NETWORK_GRAPHS)
def test_the_forward_function_takes_what_it_says(name: str, models: Any) -> None:
    graph = network_graph(name, models, semantic=False)
    assert set(graph.forward_inputs) <= set(graph.inputs)
    taken = [p for p in inspect.signature(graph.forward).parameters.values() if p.default is inspect.Parameter.empty]
    assert len(taken) == len(graph.forward_inputs)
    assert list(graph.inputs)[: len(graph.forward_inputs)] == list(graph.forward_inputs)
    assert (graph.backward is not None) == name.endswith("_gradient")


@pytest.mark.parametrize("name", NETWORK_GRAPHS)
def test_trials_do_not_mix(name: str, exact_models: Any) -> None:
    """Not even in how gradients are scaled: one trial's may be a thousand times another's."""
    graph = network_graph(name, exact_models, semantic=True)
    feeds = doubles(example_inputs(graph, 3, seed=6))
    if "next_gradient" in feeds:
        feeds["next_gradient"] = feeds["next_gradient"] * torch.tensor([1.0, 1e-6, 1e3]).reshape(3, 1, 1, 1)
    together = evaluate(graph.function, feeds)
    for trial in range(3):
        one = {
            key: array[trial : trial + 1] if graph.inputs[key].shape[0] == BATCH else array
            for key, array in feeds.items()
        }
        for whole, alone in zip(together, evaluate(graph.function, one), strict=True):
            assert peak_error(whole[trial].detach(), alone[0].detach()) < EXACT


def test_a_gradient_that_has_vanished_is_zero_and_not_nan(models: Any) -> None:
    graph = network_graph("denoise_gradient", models, semantic=False)
    feeds = example_inputs(graph, 2)
    feeds["next_gradient"][0] = 0
    for found in evaluate(graph.function, feeds):
        assert (found[0] == 0).all()
        assert found[1].isfinite().all()
        assert found[1].abs().max() > 0


@pytest.mark.parametrize("exponent", [-80, -33, 33])
def test_gradients_of_any_size_come_out_in_proportion(exponent: int, models: Any) -> None:
    """To the last bit: a product with a power of two rounds nothing, on any processor."""
    size = 2.0**exponent
    graph = network_graph("denoise_gradient", models, semantic=False)
    feeds = example_inputs(graph, 2)
    plain = evaluate(graph.function, feeds)
    scaled = evaluate(graph.function, {**feeds, "next_gradient": size * feeds["next_gradient"]})
    for one, other in zip(plain, scaled, strict=True):
        assert torch.equal(other / size, one)


def test_the_scale_is_each_trials_largest_magnitude() -> None:
    gradient = torch.tensor([[[1.0, -3.0]], [[0.0, 0.0]], [[2e-9, 1e-9]]])
    torch.testing.assert_close(unit_scale(gradient), torch.tensor([3.0, 1e-30, 2e-9]))


def test_unknown_graphs_are_refused(models: Any) -> None:
    with pytest.raises(InputError, match="graph 'dream' is unknown: choose one of clip_structure, denoise, "):
        network_graph("dream", models, semantic=False)
