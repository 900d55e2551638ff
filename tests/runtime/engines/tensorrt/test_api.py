"""Every name of TensorRT's that the code uses exists in the installed bindings, and is called as they document.

Variables are named by what they hold, in all of the files below: that is how their attributes are found.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

trt = pytest.importorskip("tensorrt_rtx")

ROOT = Path(__file__).parents[4]
# These know nothing of the library: a `builder` there is a plan's description, a `profile` a dict of sizes.
APART = {"identity.py", "settings.py", "build.py", "__init__.py"}
FOUND = {path for pattern in ("runtime/engines/tensorrt/*.py", "export/tensorrt/*.py") for path in ROOT.glob(pattern)}
FILES = sorted(path for path in FOUND if path.name not in APART)
# Methods of a dict, at the end of `__members__`.
DICT = {"items", "values", "get"}
# What a variable of this name, or an attribute `self.name` or `self._name`, holds.
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "problem": "ParserError",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "tensor": "ITensor",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "runtime_config": "IRuntimeConfig",
    "runtime_cache": "IRuntimeCache",
    "refitter": "Refitter",
    "parser_refitter": "OnnxParserRefitter",
}
# TensorRT's own classes that ours derive from, with the methods that it calls.
CALLBACKS = {"ILogger", "IProgressMonitor", "IStreamWriter"}
# In TensorRT, not in TensorRT-RTX. None is needed so far; one that is must stand behind hasattr().
CLASSIC_ONLY: frozenset[str] = frozenset()
# In TensorRT-RTX, not in TensorRT 10 and 11 (looked up in the sources of the bindings, releases 10.7 to 11.1): only
# used behind hasattr(), or where the target is TensorRT-RTX already. With them, what came during release 10.
RTX_ONLY = {
    "get_engine_validity": "hasattr",
    "EngineValidity.INVALID": "after get_engine_validity",
    "EngineInvalidityDiagnostics.__members__": "after get_engine_validity",
    "DynamicShapesKernelSpecializationStrategy.EAGER": "hasattr",
    "CudaGraphStrategy.DISABLED": "after DynamicShapesKernelSpecializationStrategy",
    "dynamic_shapes_kernel_specialization_strategy": "after DynamicShapesKernelSpecializationStrategy",
    "cuda_graph_strategy": "after DynamicShapesKernelSpecializationStrategy",
    "create_runtime_config": "after DynamicShapesKernelSpecializationStrategy",
    "set_execution_context_allocation_strategy": "after DynamicShapesKernelSpecializationStrategy",
    "create_runtime_cache": "after DynamicShapesKernelSpecializationStrategy",
    "deserialize": "after DynamicShapesKernelSpecializationStrategy",
    "set_runtime_cache": "after DynamicShapesKernelSpecializationStrategy",
    "is_stream_capturable": "hasattr",
    "BuilderFlag.REQUIRE_USER_ALLOCATION": "hasattr",
    "ComputeCapability.__members__": "only with compute_capabilities",
    "num_compute_capabilities": "only with compute_capabilities",
    "set_compute_capability": "only with compute_capabilities",
    "build_serialized_network_to_stream": "hasattr",
    "IStreamWriter": "after build_serialized_network_to_stream",
    "IStreamWriter.__init__": "after build_serialized_network_to_stream",
}
# In the bindings of TensorRT 10.7 and of 11.1 alike, looked up in their sources.
CLASSIC = """
    Builder Runtime Refitter OnnxParser OnnxParserRefitter ILogger ILogger.__init__ ILogger.Severity
    ILogger.Severity.ERROR IProgressMonitor IProgressMonitor.__init__ __version__
    TensorIOMode.INPUT TensorIOMode.OUTPUT ExecutionContextAllocationStrategy.USER_MANAGED
    NetworkDefinitionCreationFlag NetworkDefinitionCreationFlag.STRONGLY_TYPED MemoryPoolType.WORKSPACE
    BuilderFlag BuilderFlag.TF32 BuilderFlag.VERSION_COMPATIBLE BuilderFlag.STRIP_PLAN BuilderFlag.REFIT_IDENTICAL
    HardwareCompatibilityLevel.__members__
    create_network create_builder_config create_optimization_profile build_serialized_network logger
    num_inputs num_outputs get_input get_output parse_from_file num_errors get_error
    code desc node node_name node_operator local_function_stack name shape dtype get_dimension_name
    builder_optimization_level set_memory_pool_limit max_aux_streams clear_flag set_flag hardware_compatibility_level
    progress_monitor add_optimization_profile create_timing_cache set_timing_cache serialize set_shape
    deserialize_cuda_engine engine_host_code_allowed create_execution_context device_memory_size_v2 num_io_tensors
    get_tensor_name get_tensor_mode get_tensor_dtype get_tensor_shape is_shape_inference_io get_tensor_profile_shape
    set_input_shape infer_shapes set_tensor_address set_device_memory execute_async_v3
    refit_from_file get_missing_weights refit_cuda_engine
"""


def held(node: ast.expr) -> str | None:
    """The class that a variable or an attribute of ours holds, by its name."""
    if isinstance(node, ast.Name):
        return CLASSES.get(node.id)
    # PlanFile.builder is a description, too.
    return CLASSES.get(node.attr.lstrip("_")) if isinstance(node, ast.Attribute) and node.attr != "builder" else None


def dotted(node: ast.expr) -> list[str]:
    """["trt", "A", "B"] of ``trt.A.B`` and of ``self.trt.A.B``; empty for anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        if node.attr == "trt":
            return ["trt"]
        before = dotted(node.value)
        return [*before, node.attr] if before else []
    return []


def uses() -> Iterator[tuple[str, list[str], ast.Call | None]]:
    """(where, path from the module, the call if it is called) of every use."""
    for path in FILES:
        tree = ast.parse(path.read_text())
        called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr not in DICT]
        inner = {id(node.value) for node in nodes}
        for node in nodes:
            if id(node) in inner and dotted(node)[:1] == ["trt"]:
                continue  # the whole path follows
            where = f"{path.name}:{node.lineno}"
            parts = dotted(node)
            holder = held(node.value)
            if parts[:1] == ["trt"] and len(parts) > 1:
                yield where, parts[1:], called.get(id(node))
            elif holder is not None:
                yield where, [holder, node.attr], called.get(id(node))


USES = list(uses())


def find(parts: list[str]) -> Any:
    found = trt
    for part in parts:
        found = getattr(found, part)
    return found


def signatures(doc: str, name: str) -> list[list[tuple[str, bool]]]:
    """For each overload the arguments after `self`: (name, whether it has to be given)."""
    found = []
    for line in re.findall(rf"^(?:\d+\. )?{name}\(self: [^,)]*(?:, )?(.*)\) ->", doc, re.MULTILINE):
        arguments = re.split(r", (?=\w+: )", line) if line else []
        found.append([(item.split(":")[0], " = " not in item) for item in arguments])
    return found


def fits(call: ast.Call, arguments: list[tuple[str, bool]]) -> bool:
    if any(isinstance(item, ast.Starred) for item in call.args):
        return len(call.args) <= len(arguments)
    names = [name for name, _ in arguments]
    given = names[: len(call.args)] + [str(word.arg) for word in call.keywords]
    enough = all(name in given for name, needed in arguments if needed)
    return len(call.args) <= len(names) and set(given) <= set(names) and enough


def test_the_files_are_found_and_used() -> None:
    assert {"engine.py", "plan.py", "context.py", "network.py", "progress.py"} <= {path.name for path in FILES}
    assert len(USES) > 80
    assert {parts[0] for _, parts, _ in USES} >= set(CLASSES.values())


@pytest.mark.parametrize("parts", sorted({tuple(parts) for _, parts, _ in USES}), ids=".".join)
def test_every_name_exists(parts: tuple[str, ...]) -> None:
    if ".".join(parts) not in CLASSIC_ONLY:
        find(list(parts))


def test_every_call_fits_a_documented_signature() -> None:
    checked, wrong = set(), []
    for where, parts, call in USES:
        target = find(parts)
        if call is None or parts[-1] == "__init__":
            continue
        is_class = isinstance(target, type)
        name = "__init__" if is_class else parts[-1]
        overloads = signatures((target.__init__ if is_class else target).__doc__ or "", name)
        assert overloads, f"{where}: no signature in the documentation of {'.'.join(parts)}"
        checked.add(".".join(parts))
        if not any(fits(call, arguments) for arguments in overloads):
            wrong.append(f"{where}: {ast.unparse(call)} does not fit {overloads}")
    assert wrong == []
    assert len(checked) > 35


@pytest.mark.parametrize(
    ("text", "expected"),
    [("parser.parse_from_file(a)", True), ("parser.parse_from_file(a, b)", False), ("parser.parse_from_file()", False)],
)
def test_a_wrong_call_would_be_found(text: str, expected: bool) -> None:
    call = ast.parse(text).body[0].value  # type: ignore[attr-defined]
    overloads = signatures(trt.OnnxParser.parse_from_file.__doc__, "parse_from_file")
    assert overloads == [[("model", True)]]
    assert fits(call, overloads[0]) is expected


def test_what_tensorrt_calls_has_its_names_and_arguments() -> None:
    seen = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ClassDef) or not node.bases:
                continue
            base = dotted(node.bases[0])
            if base[:1] != ["trt"]:
                continue
            seen.add(base[1])
            for method in (item for item in node.body if isinstance(item, ast.FunctionDef)):
                if method.name == "__init__":
                    assert f"trt.{base[1]}.__init__(self)" in ast.unparse(method), "pybind11 needs it called"
                    continue
                ((*documented,),) = signatures(getattr(trt, base[1]).__dict__[method.name].__doc__, method.name)
                names = [argument.arg for argument in method.args.args[1:]]
                # The writer gets bytes, although its signature tells of a pointer and a size.
                assert names == [name for name, _ in documented] or (base[1], names) == ("IStreamWriter", ["data"])
    assert seen == CALLBACKS


def test_every_name_is_in_tensorrt_too_or_known_to_be_missing_there() -> None:
    there = set(CLASSIC.split())
    unknown = set()
    for where, parts, _ in USES:
        name = ".".join(parts) if parts[0] not in CLASSES.values() or len(parts) == 1 else parts[-1]
        short = parts[-1]
        if not ({name, short} & there or {name, short, parts[0]} & RTX_ONLY.keys()):
            unknown.add(f"{where}: {name}")
    assert unknown == set()


def test_what_only_one_library_has_is_asked_for_first() -> None:
    source = "\n".join(path.read_text() for path in FILES)
    asked = set(re.findall(r'hasattr\([\w.]+, "(\w+)"\)', source))
    guards = {name.split(".")[-1] if how == "hasattr" else how for name, how in RTX_ONLY.items()}
    for guard in guards:
        name = guard.removeprefix("after ")
        if guard == "only with compute_capabilities":
            continue
        name = {"EAGER": "DynamicShapesKernelSpecializationStrategy"}.get(name, name)
        assert name in asked, f"nothing asks for {name}"
    assert all(name.split(".")[-1] in asked for name in CLASSIC_ONLY)
