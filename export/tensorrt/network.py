"""An ONNX file becomes a TensorRT network, and its free dimensions a profile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...runtime.bundle.onnx_safety import scan_onnx_external
from ...runtime.engines.tensorrt.engine import DTYPES
from ...runtime.errors import FileError, InputError
from ...runtime.files import sha256_of
from .settings import Sizes


def graph_hashes(onnx_path: Path, known: Mapping[str, str]) -> dict[str, Any]:
    """The SHA-256 of a graph and of its data files.

    Parameters
    ----------
    known : mapping of file name to SHA-256
        Those that need not be computed.

    Returns
    -------
    dict
        {"sha256": …, "data": {file name: …}}

    Raises
    ------
    FileError
        A file is missing or damaged, or a data file lies outside the graph's folder.
    """
    names = sorted(scan_onnx_external(onnx_path))
    for name in names:
        if Path(name).name != name:
            raise FileError(
                f"{onnx_path} takes weights from outside its folder ({name!r}): export it again with its data beside it"
            )
    return {
        "sha256": known.get(onnx_path.name) or sha256_of(onnx_path),
        "data": {name: known.get(name) or sha256_of(onnx_path.with_name(name)) for name in names},
    }


def parse_graph(trt: Any, builder: Any, onnx_path: Path, label: str) -> tuple[Any, Any]:
    """Read an ONNX file into a strongly typed network.

    Returns
    -------
    network, parser
        The parser holds the weights: keep it until the plan is built.

    Raises
    ------
    InputError
        The parser refuses the graph: node, operator and reason.
    """
    flags = 0
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):  # from release 11 on it is the only way
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse_from_file(str(onnx_path)):
        problems = [parser.get_error(i) for i in range(parser.num_errors)]
        raise InputError(_refusal(problems, onnx_path, label))
    return network, parser


def _refusal(problems: list[Any], onnx_path: Path, label: str) -> str:
    """One sentence: the first problem that names a node, or the first one."""
    advice = "export the graph with other operators, or another opset"
    if not problems:
        return f"{label} refuses {onnx_path} and gives no reason: {advice}"
    problem = next((one for one in problems if one.node_operator()), problems[0])
    code = problem.code().name.lower().replace("_", " ")
    said = " ".join(problem.desc().split())
    # A failed check without words of its own is reported as its condition.
    why = code if said in ("", "false") else f"{code}: {said}"
    if not problem.node_operator():
        return f"{label} refuses {onnx_path} ({why}): {advice}"
    where = " in ".join([problem.node_name() or f"number {problem.node()}", *problem.local_function_stack()])
    return f"{label} refuses {onnx_path} at node {where!r}, operator {problem.node_operator()} ({why}): {advice}"


def add_profile(builder: Any, config: Any, network: Any, sizes: Mapping[str, Sizes]) -> dict[str, Any]:
    """Add the one optimization profile that a network with free dimensions needs, and describe inputs and outputs.

    Returns
    -------
    dict
        {"inputs": {name: {"dtype", "shape", "min", "opt", "max"}}, "outputs": {name: {"dtype", "shape"}}}, where
        shapes hold the names of free dimensions.

    Raises
    ------
    InputError
        A free dimension has no sizes, or TensorRT refuses them.
    """
    profile = builder.create_optimization_profile()
    inputs: dict[str, Any] = {}
    for tensor in (network.get_input(i) for i in range(network.num_inputs)):
        described = _described(tensor)
        shape = described["shape"]
        unknown = [size for size in shape if isinstance(size, str) and size not in sizes]
        if unknown:
            raise InputError(
                f"input {tensor.name!r} has the free dimension {unknown[0]!r}, and no sizes were given for it: "
                f"add it to the profile, which has {', '.join(sizes) or 'none'}"
            )
        ends = [[sizes[size][end] if isinstance(size, str) else size for size in shape] for end in range(3)]
        inputs[tensor.name] = {**described, **dict(zip(("min", "opt", "max"), ends, strict=True))}
        if any(isinstance(size, str) for size in shape):
            profile.set_shape(tensor.name, *map(tuple, ends))
    free = any(isinstance(size, str) for spec in inputs.values() for size in spec["shape"])
    if free and (not profile or config.add_optimization_profile(profile) < 0):
        raise InputError(f"TensorRT refuses the profile {dict(sizes)}: give other sizes for the free dimensions")
    outputs = {
        tensor.name: _described(tensor) for tensor in (network.get_output(i) for i in range(network.num_outputs))
    }
    return {"inputs": inputs, "outputs": outputs}


def _described(tensor: Any) -> dict[str, Any]:
    """A tensor's dtype and shape, with the names of its free dimensions."""
    named = [
        (tensor.get_dimension_name(axis) or f"{tensor.name}.{axis}") if size < 0 else int(size)
        for axis, size in enumerate(tuple(tensor.shape))
    ]
    return {"dtype": DTYPES.get(tensor.dtype.name, tensor.dtype.name.lower()), "shape": named}
