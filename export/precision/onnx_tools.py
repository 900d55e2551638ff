"""What every step here asks of a graph: that it is plain, what type each tensor has, and a session to run it in."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from ...runtime.errors import InputError

Array = NDArray[Any]
FLOAT = int(TensorProto.FLOAT)
IN_MEMORY_BYTES = 2**30  # a message above 2 GiB cannot be serialised: beyond half of that, weights go through a file
SMALL_BYTES = 4096  # shape inference needs the values of small constants (shapes, axes), never those of weights


def layer_name(node: NodeProto) -> str:
    """The node's name, or one made of its operator and first output where it has none."""
    return str(node.name) or f"{node.op_type}:{next(filter(None, node.output), '')}"


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators that the graph uses."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def refuse_unusual(model: ModelProto) -> None:
    """Refuse what the steps here do not follow.

    Raises
    ------
    InputError
        The graph has subgraphs, functions of its own, sparse or external weights, or two layers of one name.
    """
    graph = model.graph
    subgraphs = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
    nested = [layer_name(node) for node in graph.node if any(a.type in subgraphs for a in node.attribute)]
    if nested:
        raise InputError(f"the layer {nested[0]!r} holds a subgraph: export the graph without If, Loop and Scan")
    if model.functions:
        raise InputError(f"the graph has functions of its own ({model.functions[0].name}, …): inline them first")
    if graph.sparse_initializer:
        raise InputError("the graph has sparse weights: export them dense")
    for tensor in graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise InputError(f"the weight {tensor.name!r} lies in another file: load the model with its external data")
    twice = [name for name, count in Counter(map(layer_name, graph.node)).items() if count > 1]
    if twice:
        raise InputError(f"two layers are named {twice[0]!r}: give each layer its own name")


def without_weights(model: ModelProto) -> ModelProto:
    """A copy that has everything but the initializers: cheap however large the weights are."""
    bare = ModelProto(
        ir_version=model.ir_version,
        opset_import=model.opset_import,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        metadata_props=model.metadata_props,
    )
    for field in ("name", "doc_string"):
        setattr(bare.graph, field, getattr(model.graph, field))
    for field in ("node", "input", "output", "value_info", "quantization_annotation", "metadata_props"):
        getattr(bare.graph, field).extend(getattr(model.graph, field))
    return bare


def with_constants_as_weights(model: ModelProto) -> ModelProto:
    """A copy in which the numbers of every Constant node are an initializer of the same name."""
    plain = without_weights(model)
    plain.graph.initializer.extend(model.graph.initializer)
    nodes = list(plain.graph.node)
    del plain.graph.node[:]
    for node in nodes:
        array = _constant(node)
        if array is None:
            plain.graph.node.append(node)
        else:
            plain.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
    return plain


def _constant(node: NodeProto) -> Array | None:
    if node.op_type != "Constant" or node.domain:
        return None
    attribute = node.attribute[0]
    if attribute.name == "value":
        return np.asarray(numpy_helper.to_array(attribute.t))
    numbers = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if attribute.name not in numbers:  # text: no number to round
        return None
    return np.asarray(helper.get_attribute_value(attribute), numbers[attribute.name])


def inferred(model: ModelProto) -> ModelProto:
    """The graph with the type and shape of every tensor that ONNX can infer; large weights stand as inputs."""
    bare = without_weights(model)
    given = {value.name for value in bare.graph.input}
    for tensor in model.graph.initializer:
        if size_of(tensor) <= SMALL_BYTES:
            bare.graph.initializer.append(tensor)
        elif tensor.name not in given:
            bare.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return shape_inference.infer_shapes(bare, data_prop=True)


def tensor_types(model: ModelProto) -> dict[str, int]:
    """ONNX's element type of every tensor of the graph (0 where it is no tensor).

    Raises
    ------
    InputError
        The type of a tensor cannot be inferred.
    """
    graph = inferred(model).graph
    types = {value.name: int(value.type.tensor_type.elem_type) for value in graph.value_info}
    types |= {value.name: int(value.type.tensor_type.elem_type) for value in (*graph.input, *graph.output)}
    types |= {tensor.name: int(tensor.data_type) for tensor in model.graph.initializer}
    for node in model.graph.node:
        for name in filter(None, node.output):
            if name not in types:
                raise InputError(
                    f"the type of the tensor {name!r} cannot be inferred (layer {layer_name(node)!r}, operator "
                    f"{node.op_type}): give the graph value_info for it"
                )
    return types


def size_of(tensor: TensorProto) -> int:
    """Bytes of a tensor's numbers."""
    return int(np.prod(tensor.dims, dtype=np.int64)) * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def weights_of(model: ModelProto) -> dict[str, TensorProto]:
    """The initializers by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def raw_tensor(name: str, element: int, array: Array) -> TensorProto:
    """A tensor of ONNX's type `element` whose bytes are those of `array`."""
    return TensorProto(name=name, data_type=element, dims=array.shape, raw_data=np.ascontiguousarray(array).tobytes())


def write_model(model: ModelProto, folder: Path) -> Path:
    """Write a model of any size, its weights in a file beside it, for a library that wants a path."""
    outside = without_weights(model)
    with open(folder / "weights.bin", "wb") as file:
        for tensor in model.graph.initializer:
            if size_of(tensor) <= SMALL_BYTES:
                outside.graph.initializer.append(tensor)
                continue
            data = tensor.raw_data or numpy_helper.to_array(tensor).tobytes()
            entry = TensorProto(
                name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, data_location=TensorProto.EXTERNAL
            )
            for key, value in (("location", "weights.bin"), ("offset", file.tell()), ("length", len(data))):
                entry.external_data.add(key=key, value=str(value))
            file.write(data)
            outside.graph.initializer.append(entry)
    path = folder / "model.onnx"
    path.write_bytes(outside.SerializeToString(deterministic=True))
    return path


@contextmanager
def session_of(model: ModelProto, threads: int, *, as_written: bool = False) -> Iterator[Any]:
    """An ONNX Runtime session on the CPU, for a model of any size.

    Parameters
    ----------
    model : ModelProto
        Its weights are inside.
    threads : int
        How many threads compute.
    as_written : bool
        Run node after node as the graph lists them, nothing fused or moved: a tensor is freed once the nodes behind it
        have used it, so measuring costs no more memory than the largest tensors.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    levels = onnxruntime.GraphOptimizationLevel
    # The level above rearranges layouts, and ends the process on some float16 graphs (CLIP's, onnxruntime 1.32).
    options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED
    if as_written:
        options.graph_optimization_level = levels.ORT_DISABLE_ALL
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    providers = ["CPUExecutionProvider"]
    if sum(map(size_of, model.graph.initializer)) < IN_MEMORY_BYTES:
        yield onnxruntime.InferenceSession(model.SerializeToString(), options, providers)
        return
    with tempfile.TemporaryDirectory(prefix="minddiffuser-") as folder:
        path = write_model(model, Path(folder))
        yield onnxruntime.InferenceSession(str(path), options, providers)
