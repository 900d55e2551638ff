"""How large every tensor of a graph gets on real inputs, and what storing it in 16 bits would cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from .formats import HALVES, Half, half_of
from .measuring import LARGEST, PER_SESSION, TINY, Bench, Feeds, Tap, measure
from .onnx_tools import FLOAT, inferred, refuse_unusual, tensor_types, weights_of, with_constants_as_weights

Array = NDArray[Any]

# They hand numbers on as they are (and for the last few, new ones every time): nothing can be lost in them that was
# not lost in storing their input, so measuring them again is saved.
HANDS_ON = frozenset(
    "Reshape Transpose Squeeze Unsqueeze Flatten Expand Identity Slice Concat Split Gather GatherElements GatherND "
    "Pad Tile DepthToSpace SpaceToDepth Shape Size ConstantOfShape EyeLike RandomNormal RandomNormalLike RandomUniform "
    "RandomUniformLike Bernoulli Multinomial".split()
)


@dataclass(frozen=True)
class Range:
    """What one float32 tensor held, over all batches.

    Attributes
    ----------
    peak : largest size of a finite element.
    amiss : how many elements were NaN or infinite, already in float32.
    rounding : per precision ("fp16", "bf16"), what storing it costs: ``||x - half(x)|| / ||x||`` over the elements that
        fit into the type (the others are for `peak` to tell).
    carried : per precision, what the layer that makes this tensor loses when only its inputs are stored in the type
        and it computes in float32: ``||y' - y|| / ||y||``. Infinite where y' is not finite although y is. Empty for
        inputs, weights and layers that hand numbers on as they are.
    sum : of a mean's output, the largest size of the sum that is divided: it may be stored on the way, and then in the
        type of the output (ONNX Runtime on CUDA). 0 for all other tensors.
    """

    peak: float
    amiss: int
    rounding: Mapping[str, float]
    carried: Mapping[str, float]
    sum: float = 0.0


def probe(
    model: ModelProto,
    batches: Iterable[Feeds],
    *,
    threads: int,
    precisions: Sequence[str] = tuple(HALVES),
    per_session: int = PER_SESSION,
) -> dict[str, Range]:
    """Measure every float32 tensor of a model: inputs, weights and what each node makes.

    Everything is reduced to scalars inside the graph, so memory is that of a normal run and about seven times its
    largest tensor.

    Parameters
    ----------
    model : ModelProto
        A float32 graph with its weights inside.
    batches : iterable of dict of array
        Real inputs; each is run once per session.
    precisions : sequence of str
        Which of "fp16" and "bf16" to measure losses for.
    per_session : int
        Tensors measured in one session; each further session runs the model once more.

    Returns
    -------
    dict
        Tensor name to :class:`Range`. Tensors that are empty by their shape are left out.

    Raises
    ------
    InputError
        See :func:`onnx_tools.refuse_unusual`; no batch; an unknown precision.
    """
    halves = [half_of(name) for name in precisions]
    refuse_unusual(model)
    model = with_constants_as_weights(model)
    types, empty = tensor_types(model), _empty_tensors(model)

    def real(name: str) -> bool:
        return bool(name) and types[name] == FLOAT and name not in empty

    makers = {name: node for node in model.graph.node for name in node.output if real(name)}
    tensors = [value.name for value in model.graph.input if real(value.name) and value.name not in weights_of(model)]
    tensors += makers
    taps = [_tap(name, makers.get(name), types, halves) for name in tensors]
    read = measure(model, taps, batches, threads=threads, per_session=per_session)
    ranges = {t.name: _range_of_weight(np.asarray(numpy_helper.to_array(t)), halves)
              for t in model.graph.initializer if real(t.name)}  # fmt: skip
    starts = np.cumsum([0, *(tap.count for tap in taps)])
    for name, tap, start in zip(tensors, taps, starts[:-1], strict=True):
        ranges[name] = _range_of(read[:, start : start + tap.count], halves, mean=_is_mean(makers.get(name)))
    return ranges


def _empty_tensors(model: ModelProto) -> set[str]:
    values = inferred(model).graph
    known = {value.name: value.type.tensor_type.shape.dim for value in (*values.value_info, *values.input)}
    empty = {name for name, dims in known.items() if any(d.HasField("dim_value") and d.dim_value == 0 for d in dims)}
    return empty | {tensor.name for tensor in model.graph.initializer if 0 in tensor.dims}


def _tap(name: str, maker: NodeProto | None, types: Mapping[str, int], halves: Sequence[Half]) -> Tap:
    """The scalars of one tensor: peak, amiss, energy, of a mean the sum; per precision the losses (`_range_of`)."""
    computing = maker is not None and maker.op_type not in HANDS_ON and not maker.domain
    again = computing and any(types[given] == FLOAT for given in maker.input if given) if maker else False

    def build(bench: Bench) -> list[str]:
        peak, scale = bench.scale(name)
        energy = bench.energy(bench.node("Div", bench.up_to(name, LARGEST), scale))
        scalars = [peak, bench.amiss(name), energy]
        if maker is not None and _is_mean(maker):
            whole, parts = (bench.cast(bench.node("Size", tensor), FLOAT) for tensor in (maker.input[0], name))
            scalars.append(bench.node("Mul", peak, bench.node("Div", whole, parts)))
        for half in halves:
            fits = bench.up_to(name, half.maximum)
            scalars.append(bench.energy(bench.node("Div", fits, scale)))
            scalars.append(bench.energy(bench.node("Div", _rounding(bench, fits, half), scale)))
            if maker is not None and again:
                scalars += bench.change(name, _made_from_rounded(bench, maker, name, types, half), scale)
        return scalars

    return Tap(name, build, 3 + _is_mean(maker) + len(halves) * (4 if again else 2))


def _is_mean(maker: NodeProto | None) -> bool:
    return maker is not None and maker.op_type == "ReduceMean"


def _rounding(bench: Bench, tensor: str, half: Half) -> str:
    """What is lost of a tensor that fits into the type; exact, since nearby numbers subtract without error."""
    return bench.node("Sub", tensor, bench.cast(bench.cast(tensor, half.element), FLOAT))


def _made_from_rounded(bench: Bench, node: NodeProto, output: str, types: Mapping[str, int], half: Half) -> str:
    """Compute a node once more from inputs that were rounded; returns the name of the output in question."""
    twin = NodeProto()
    twin.CopyFrom(node)
    twin.name = bench.name()
    rounded: dict[str, str] = {}
    for given in filter(None, node.input):
        if types[given] == FLOAT and given not in rounded:
            loss = _rounding(bench, bench.up_to(given, half.maximum), half)
            # What does not fit stays: its magnitude has a rule of its own.
            rounded[given] = bench.node("Sub", given, loss)
    twin.input[:] = [rounded.get(given, given) for given in node.input]
    twin.output[:] = [made and bench.name() for made in node.output]
    bench.nodes.append(twin)
    return str(twin.output[list(node.output).index(output)])


def _range_of(read: Array, halves: Sequence[Half], *, mean: bool) -> Range:
    """Join what each batch (a row) said about one tensor."""
    peak, amiss, energy = read[:, :3].T
    largest_sum = float(read[:, 3].max()) if mean else 0.0
    squares = np.maximum(peak, TINY) ** 2
    per_half = read[:, 3 + mean :].reshape(len(read), len(halves), -1) if halves else read[:, :0]
    rounding, carried = {}, {}
    for index, half in enumerate(halves):
        sums = per_half[:, index]
        rounding[half.precision] = _ratio(sums[:, 1] @ squares, sums[:, 0] @ squares)
        if sums.shape[1] == 4:
            broken = bool(np.any(sums[:, 3] > amiss))
            carried[half.precision] = np.inf if broken else _ratio(sums[:, 2] @ squares, energy @ squares)
    return Range(float(peak.max()), int(amiss.sum()), rounding, carried, largest_sum)


def _ratio(lost: float, whole: float) -> float:
    if lost == 0:
        return 0.0
    return float(np.sqrt(lost / whole)) if whole > 0 else float("inf")


def _range_of_weight(array: Array, halves: Sequence[Half]) -> Range:
    """The same measurements of a constant, which needs no run."""
    finite = np.where(np.isfinite(array), array, 0).ravel()
    peak = float(np.abs(finite).max(initial=0.0))
    rounding = {}
    for half in halves:
        fits = finite[np.abs(finite) <= half.maximum]
        scaled, lost = fits / max(peak, TINY), (fits - fits.astype(half.numpy).astype(np.float32)) / max(peak, TINY)
        rounding[half.precision] = _ratio(float(np.vdot(lost, lost)), float(np.vdot(scaled, scaled)))
    return Range(peak, int(array.size - np.isfinite(array).sum()), rounding, carried={})
