"""Nodes and constants of one small graph that is built by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...runtime.bundle.graph_specs import TensorSpec
from ...runtime.errors import InputError
from ..onnx.convert import OPSET

# What the names of an added graph's weights begin with.
_PART = "network"
EXACT = "exact"
"""In the names of nodes, and of their constants, that stay in float32 whatever the precision of the graph."""
_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


class Builder:
    """Collects what becomes the graph `name`; constants are called "<prefix>.<constant>".

    Nodes that are made while `exact` is set stay in float32 in every precision.
    """

    def __init__(self, name: str, prefix: str) -> None:
        self._name, self._prefix = name, prefix
        self.exact = False
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """What the constant is called in the graph; the same may be given again.

        Raises
        ------
        ValueError
            Another one was given under that name.
        """
        name = f"{self._prefix}.{EXACT}.{name}" if self.exact else f"{self._prefix}.{name}"
        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        if self._constants.setdefault(name, tensor) != tensor:
            raise ValueError(f"the graph {self._name} has another constant {name} already: give it another name")
        return name

    def node(self, operator: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        output = output or f"{operator.lower()}_{len(self._nodes)}"
        place = f"{self._name}/{EXACT}" if self.exact else self._name
        name = f"{place}/{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], name=name, **attributes))
        return output

    def add(self, part: onnx.GraphProto, inputs: dict[str, str]) -> list[str]:
        """Put a whole graph in; returns what its outputs are called here.

        Parameters
        ----------
        part
            Of the same operators' versions, with its weights inside.
        inputs
            Its inputs' names -> values that are here.

        Raises
        ------
        InputError
            It holds operators that are not ONNX's own, or that hold graphs themselves.
        """
        names = dict(inputs)
        for tensor in part.initializer:
            # A network's weight may be called as a constant of the graph around it is.
            names[tensor.name] = self.constant(f"{_PART}.{tensor.name}", numpy_helper.to_array(tensor))
        for node in part.node:
            _check_plain(node)
            here = [names[name] if name else "" for name in node.input]
            made = [f"{node.op_type.lower()}_{len(self._nodes)}_{i}" for i in range(len(node.output))]
            names |= dict(zip(node.output, made, strict=True))
            copied = helper.make_node(
                node.op_type, here, made, f"{self._name}/{node.op_type}_{len(self._nodes)}", domain=node.domain
            )
            copied.attribute.extend(node.attribute)
            self._nodes.append(copied)
        return [names[value.name] for value in part.output]

    def model(self, inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec]) -> onnx.ModelProto:
        def infos(specs: dict[str, TensorSpec]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s.shape)) for n, s in specs.items()]

        graph = helper.make_graph(
            self._nodes, self._name, infos(inputs), infos(outputs), list(self._constants.values())
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="minddiffuser")
        model.ir_version = 10
        return model


def is_exact(node: onnx.NodeProto) -> bool:
    """Whether a node of such a graph stays in float32."""
    return f"/{EXACT}/" in node.name


def _check_plain(node: onnx.NodeProto) -> None:
    """Refuse what a graph of standard operators cannot hold, or what would still name values of the other graph."""
    if node.domain not in ("", "ai.onnx"):
        raise InputError(
            f"the network needs the operator {node.op_type} of {node.domain}, and a bundle holds ONNX's own operators "
            "only: build it from other layers"
        )
    if any(attribute.type in _GRAPHS for attribute in node.attribute):
        raise InputError(
            f"the network needs {node.op_type}, which branches or loops, and a decoder's graph is a plain sequence: "
            "build it without conditions that depend on the responses"
        )
