"""A graph that is built by hand: constants by one name are one constant, and a network that is put in stays apart."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from minddiffuser.export.graphs.builder import Builder
from minddiffuser.runtime.bundle.graph_specs import TensorSpec
from minddiffuser.runtime.errors import InputError

SPEC = TensorSpec("float32", ("batch", 2))


def network(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    """scores (batch, 2) -> predicted, with a weight that is called as a constant around it may be."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("scores", "predicted")]
    return helper.make_graph(nodes, "n", values[:1], values[1:], [numpy_helper.from_array(np.float32([3, 4]), "mean")])


def test_a_networks_weights_are_not_the_graphs_constants() -> None:
    build = Builder("decode_latent", "latent")
    centred = build.node("Sub", ["responses", build.constant("mean", np.float32([1, 2]))])
    (predicted,) = build.add(network(helper.make_node("Mul", ["scores", "mean"], ["predicted"])), {"scores": centred})
    build.node("Identity", [predicted], output="latent")
    model = build.model({"responses": SPEC}, {"latent": SPEC})
    onnx.checker.check_model(model)
    (found,) = ReferenceEvaluator(model).run(None, {"responses": np.float32([[5, 7]])})
    np.testing.assert_array_equal(found, [[12, 20]])


@pytest.mark.parametrize(
    "other",
    [np.float32([1, 3]), np.float64([1, 2]), np.float32([[1, 2]]), np.int32([1, 2])],
    ids=lambda a: str(a.dtype),
)
def test_one_name_is_one_constant(other: np.ndarray) -> None:
    build = Builder("decode_latent", "latent")
    assert build.constant("mean", np.float32([1, 2])) == build.constant("mean", np.float32([1, 2])) == "latent.mean"
    with pytest.raises(ValueError, match="decode_latent has another constant latent.mean already"):
        build.constant("mean", other)


def test_operators_that_a_bundle_cannot_hold_are_refused() -> None:
    build = Builder("decode_latent", "latent")
    strange = helper.make_node("Gelu", ["scores"], ["predicted"], domain="com.microsoft")
    with pytest.raises(InputError, match=r"needs the operator Gelu of com.microsoft"):
        build.add(network(strange), {"scores": "responses"})
    branch = helper.make_graph([], "b", [], [])
    choice = helper.make_node("If", ["scores"], ["predicted"], then_branch=branch, else_branch=branch)
    with pytest.raises(InputError, match="needs If, which branches or loops"):
        build.add(network(choice), {"scores": "responses"})
