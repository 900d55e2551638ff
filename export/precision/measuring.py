"""Measure inside the graph: nodes that reduce a tensor to a few numbers, so that no large tensor ever comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from ...runtime.errors import InputError
from .onnx_tools import FLOAT, raw_tensor, session_of, without_weights

Array = NDArray[Any]
Feeds = dict[str, Array]
LARGEST = float(np.finfo(np.float32).max)
TINY = float(np.float32(1e-30))  # stands for the scale of a tensor that is all zero
PER_SESSION = 400  # tensors measured in one session: more would make the graph slow to open
RESULT = "measured"


class Bench:
    """Makes the nodes that measure; their names are in nobody's way.

    Attributes
    ----------
    nodes : the nodes made since they were last taken.
    weights : constants that they use.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, TensorProto] = {}
        self._count = 0

    def name(self) -> str:
        self._count += 1
        return f"measuring:{self._count}"

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output; returns the output's name."""
        output = self.name()
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def number(self, value: float) -> str:
        """A float32 scalar."""
        name = f"measuring:={value!r}"
        self.weights[name] = raw_tensor(name, FLOAT, np.asarray(value, np.float32))
        return name

    def cast(self, tensor: str, element: int) -> str:
        return self.node("Cast", tensor, to=element)

    def total(self, tensor: str) -> str:
        """The sum of everything in a tensor, as a scalar."""
        return self.node("ReduceSum", tensor, keepdims=0)

    def energy(self, tensor: str) -> str:
        """The sum of squares, as a scalar."""
        return self.node("ReduceSumSquare", tensor, keepdims=0)

    def up_to(self, tensor: str, limit: float) -> str:
        """The tensor with 0 in place of what is larger in size than `limit`, infinite or NaN."""
        small = self.node("LessOrEqual", self.node("Abs", tensor), self.number(limit))
        return self.node("Where", small, tensor, self.number(0.0))

    def scale(self, tensor: str) -> tuple[str, str]:
        """The largest finite size in a tensor, and the same but at least TINY: divided by it, no square overflows."""
        peak = self.node("ReduceMax", self.node("Abs", self.up_to(tensor, LARGEST)), keepdims=0)
        return peak, self.node("Max", peak, self.number(TINY))

    def amiss(self, tensor: str) -> str:
        """How many elements are NaN or infinite, as a scalar."""
        bad = self.node("Not", self.node("LessOrEqual", self.node("Abs", tensor), self.number(LARGEST)))
        return self.total(self.cast(bad, int(TensorProto.INT32)))

    def change(self, before: str, after: str, scale: str) -> tuple[str, str]:
        """Sum of squares of (after - before) / scale where that is finite, and how many elements are not."""
        difference = self.node("Div", self.node("Sub", after, before), scale)
        return self.energy(self.up_to(difference, LARGEST)), self.amiss(difference)


@dataclass(frozen=True)
class Tap:
    """One thing to measure.

    Attributes
    ----------
    tensor : what must be known before the measuring nodes can run: a node's output, or a graph input.
    build : makes the measuring nodes; returns the names of the scalars, always as many as `count`.
    count : how many scalars.
    """

    tensor: str
    build: Callable[[Bench], Sequence[str]]
    count: int


def measure(
    model: ModelProto, taps: Sequence[Tap], batches: Iterable[Feeds], *, threads: int, per_session: int = PER_SESSION
) -> Array:
    """Run a model over real inputs and read what the taps say.

    Parameters
    ----------
    model : ModelProto
        Plain (see :func:`onnx_tools.refuse_unusual`).
    batches : iterable of dict
        Inputs of each run.
    per_session : int
        How many taps share one session; each further session runs the model once more.

    Returns
    -------
    array of shape (n_batches, n_scalars) float64
        The taps' scalars, in their order.

    Raises
    ------
    InputError
        No batch was given.
    """
    runs = list(batches)
    if not runs:
        raise InputError("no batch to measure on was given: give at least one set of inputs")
    if not taps:
        return np.zeros((len(runs), 0))
    parts = []
    for start in range(0, len(taps), per_session):
        with session_of(_with_taps(model, taps[start : start + per_session]), threads, as_written=True) as session:
            parts.append(np.stack([session.run([RESULT], feeds)[0] for feeds in runs]))
    return np.concatenate(parts, axis=1)


def _with_taps(model: ModelProto, taps: Sequence[Tap]) -> ModelProto:
    """The model with its outputs replaced by one vector; each tap's nodes follow the tensor that they look at."""
    bench = Bench()
    at: dict[str, list[Tap]] = {}
    for tap in taps:
        at.setdefault(tap.tensor, []).append(tap)
    scalars: dict[int, list[str]] = {}

    def measure_at(tensors: Iterable[str]) -> list[NodeProto]:
        for tap in (tap for tensor in tensors for tap in at.get(tensor, ())):
            double = [bench.cast(scalar, int(TensorProto.DOUBLE)) for scalar in tap.build(bench)]
            scalars[id(tap)] = [bench.node("Reshape", scalar, _one(bench)) for scalar in double]
        made, bench.nodes = bench.nodes, []
        return made

    probe = without_weights(model)
    nodes = list(probe.graph.node)
    del probe.graph.node[:], probe.graph.output[:], probe.graph.value_info[:]
    # Each measuring node stands right behind what it measures, so that the tensor can be freed as in a normal run.
    ready = [value.name for value in model.graph.input] + [tensor.name for tensor in model.graph.initializer]
    probe.graph.node.extend(measure_at(ready))
    for node in nodes:
        probe.graph.node.append(node)
        probe.graph.node.extend(measure_at(node.output))
    flat = [scalar for tap in taps for scalar in scalars[id(tap)]]
    probe.graph.node.append(helper.make_node("Concat", flat, [RESULT], name=RESULT, axis=0))
    probe.graph.output.append(helper.make_tensor_value_info(RESULT, TensorProto.DOUBLE, [len(flat)]))
    probe.graph.initializer.extend(model.graph.initializer)
    probe.graph.initializer.extend(bench.weights.values())
    return probe


def _one(bench: Bench) -> str:
    name = "measuring:[1]"
    bench.weights[name] = raw_tensor(name, int(TensorProto.INT64), np.asarray([1], np.int64))
    return name
