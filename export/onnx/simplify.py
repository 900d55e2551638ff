"""A traced graph without what tracing left in it: shape arithmetic, casts and expansions that change nothing.

A free batch size makes the exporter compute every reshape's target at run time, some thousand nodes of integer
arithmetic in a gradient graph. Everything but the batch is fixed, so one -1 says the same. What runtimes do well by
themselves (fusing, layouts, folding weights) is left to them: folded weights could not be shared between graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

# Constants up to this many elements are folded; weights stay as they are.
_FOLD_ELEMENTS = 4096
_BROADCASTING = {"Add", "Sub", "Mul", "Div", "Where", "Pow", "Min", "Max"}


def simplify(model: ir.Model) -> None:
    """Simplify in place, until nothing changes. The graph computes the same numbers, but for the sign of zero."""
    optimizer.inline(model)
    common.ShapeInferencePass()(model)
    for _ in range(4):
        optimizer.fold_constants(model, input_size_limit=_FOLD_ELEMENTS, output_size_limit=_FOLD_ELEMENTS)
        changed = sum([_sweep(model.graph, rule) for rule in _RULES])
        for tidy in (
            common.IdentityEliminationPass(),
            common.CommonSubexpressionEliminationPass(),
            common.RemoveUnusedNodesPass(),
        ):
            tidy(model)
        if not changed:
            break
    last: Any = common
    for tidy in (last.RemoveUnusedFunctionsPass(), last.RemoveUnusedOpsetsPass()):
        tidy(model)


def _sweep(graph: ir.Graph, rule: Callable[[ir.Graph, ir.Node], bool]) -> int:
    return sum([rule(graph, node) for node in list(graph) if node.graph is not None])


def _same_cast(graph: ir.Graph, node: ir.Node) -> bool:
    """Drop a cast to the type that its input has."""
    source = node.inputs[0] if node.op_type in ("Cast", "CastLike") else None
    if source is None or source.dtype is None:
        return False
    like = node.inputs[1].dtype if node.op_type == "CastLike" and node.inputs[1] is not None else None
    wanted = ir.DataType(node.attributes["to"].as_int()) if node.op_type == "Cast" else like
    if wanted is not None and wanted != source.dtype and node.op_type == "CastLike":
        return _replaced(graph, node, ir.node("Cast", [source], {"to": wanted}))
    return wanted == source.dtype and _passed(node, source)


def _fixed_reshape(graph: ir.Graph, node: ir.Node) -> bool:
    """Give a reshape a constant target with at most one -1; drop it where nothing changes; skip the one before it."""
    if node.op_type != "Reshape":
        return False
    source, out = node.inputs[0], node.outputs[0]
    if source is None or out.shape is None:
        return False
    if _same_shape(source, out):
        return _passed(node, source)
    before, target = source.producer(), _wanted(out)
    skipped = before is not None and before.op_type == "Reshape" and before.inputs[0] is not None
    if target is None or node.inputs[1] is None or (node.inputs[1].const_value is not None and not skipped):
        return False
    if skipped:  # the target is set anew as well: a 0 in it would now copy a size of another shape
        node.replace_input_with(0, before.inputs[0])  # type: ignore[union-attr]
    node.replace_input_with(1, _constant(graph, node, target))
    node.attributes.pop("allowzero", None)
    return True


def _fixed_expand(graph: ir.Graph, node: ir.Node) -> bool:
    """Drop an expansion that changes nothing or that its reader broadcasts by itself; else fix its target."""
    if node.op_type != "Expand":
        return False
    source, out = node.inputs[0], node.outputs[0]
    if source is None or source.shape is None or out.shape is None:
        return False
    if _same_shape(source, out):
        return _passed(node, source)
    readers = [reader for reader, _ in out.uses()]
    if not out.is_graph_output() and readers and all(_broadcasts(reader, out) for reader in readers):
        return _passed(node, source)
    target = _expansion(source.shape, out.shape)
    if target is None or node.inputs[1] is None or node.inputs[1].const_value is not None:
        return False
    node.replace_input_with(1, _constant(graph, node, target))
    return True


def _broadcast_product(graph: ir.Graph, node: ir.Node) -> bool:
    """Let a matrix product read a matrix itself where it reads copies of it, one per trial."""
    if node.op_type != "MatMul":
        return False
    changed = False
    for side in (0, 1):
        value, other = node.inputs[side], node.inputs[1 - side]
        source = _copied(value)
        if source is None or value is None or other is None or other.shape is None or value.shape is None:
            continue
        same_trials = _sizes(other.shape)[:-2] == _sizes(value.shape)[:-2]
        if same_trials and source.shape is not None and len(source.shape.dims) <= len(other.shape.dims):
            node.replace_input_with(side, source)
            changed = True
    return changed


def _copied(value: ir.Value | None) -> ir.Value | None:
    """The matrix that `value` holds copies of along its leading axes, or None."""
    if value is None or value.shape is None:
        return None
    matrix = _sizes(value.shape)[-2:]
    producer = value.producer()
    while producer is not None and producer.op_type == "Reshape":
        before = producer.inputs[0]
        if before is None or before.shape is None or _sizes(before.shape)[-2:] != matrix:
            return None
        producer = before.producer()
    source = producer.inputs[0] if producer is not None and producer.op_type == "Expand" else None
    if source is None or source.shape is None or len(source.shape.dims) < 2:
        return None
    sizes = _sizes(source.shape)
    return source if sizes[-2:] == matrix and all(size == 1 for size in sizes[:-2]) else None


_RULES: tuple[Callable[[ir.Graph, ir.Node], bool], ...] = (
    _same_cast,
    _fixed_reshape,
    _fixed_expand,
    _broadcast_product,
)


def _broadcasts(reader: ir.Node, expanded: ir.Value) -> bool:
    """Whether another operand of an elementwise node has the expanded shape already."""
    others = [value for value in reader.inputs if value is not expanded and value is not None]
    return reader.op_type in _BROADCASTING and any(_same_shape(value, expanded) for value in others)


def _same_shape(a: ir.Value, b: ir.Value) -> bool:
    return a.shape is not None and b.shape is not None and _sizes(a.shape) == _sizes(b.shape)


def _sizes(shape: ir.Shape) -> list[int | str | None]:
    sizes: list[int | str | None] = []
    for size in shape.dims:
        # An unnamed free size equals no other, not even itself.
        sizes.append(size if isinstance(size, int) else size.value if size.value is not None else f"?{id(size)}")
    return sizes


def _wanted(out: ir.Value) -> list[int] | None:
    """A reshape's target, or None where two sizes are free or one is zero."""
    if out.shape is None:
        return None
    sizes = [size if isinstance(size, int) else -1 for size in out.shape.dims]
    return None if sizes.count(-1) > 1 or 0 in sizes else sizes


def _expansion(source: ir.Shape, out: ir.Shape) -> list[int] | None:
    """An expansion's target in fixed sizes: 1 leaves a size of the input as it is."""
    given: Sequence[Any] = [1] * (len(out.dims) - len(source.dims)) + _sizes(source)
    target = []
    for have, want in zip(given, _sizes(out), strict=True):
        if isinstance(want, int):
            target.append(want)
        elif have == want:
            target.append(1)
        else:
            return None
    return target


def _passed(node: ir.Node, value: ir.Value) -> bool:
    """Let the readers of a node read its input; the dead node is tidied away."""
    out = node.outputs[0]
    if out.is_graph_output():
        return False
    used = bool(out.uses())
    ir.convenience.replace_all_uses_with(out, value)
    return used


def _replaced(graph: ir.Graph, node: ir.Node, new: ir.Node) -> bool:
    out = new.outputs[0]
    out.name, out.type, out.shape = node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape
    ir.convenience.replace_nodes_and_values(graph, node, [node], [new], list(node.outputs), [out])
    return True


def _constant(graph: ir.Graph, node: ir.Node, sizes: list[int]) -> ir.Value:
    name = "shape_" + "_".join(str(size).replace("-", "m") for size in sizes)
    if name not in graph.initializers:
        tensor = ir.tensor(np.asarray(sizes, np.int64), name=name)
        value = ir.Value(
            name=name, shape=ir.Shape([len(sizes)]), type=ir.TensorType(ir.DataType.INT64), const_value=tensor
        )
        graph.register_initializer(value)
    return graph.initializers[name]
