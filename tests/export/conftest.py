"""Small ONNX models from a few rows of text, ONNX Runtime by itself, and bundles that a test may spoil."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from filelock import FileLock
from onnx import ModelProto, TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

from minddiffuser.export.bundle.assemble import export_bundle
from minddiffuser.export.cli import main
from minddiffuser.export.settings import ExportSettings
from minddiffuser.runtime.bundle.manifest import sealed

Arrays = Mapping[str, np.ndarray]
Build = Callable[..., ModelProto]
Run = Callable[[Any, Arrays], dict[str, np.ndarray]]


def build_model(
    nodes: Sequence[tuple[Any, ...]],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    weights: Arrays | None = None,
    *,
    types: Mapping[str, int] | None = None,
) -> ModelProto:
    """A model of (operator, "inputs", "outputs"[, attributes]) rows; what `types` does not name is float32."""
    made = [
        helper.make_node(operator, given.split(), out.split(), name=f"{operator}_{number}", **(rest[0] if rest else {}))
        for number, (operator, given, out, *rest) in enumerate(nodes)
    ]

    def infos(shapes: Mapping[str, Sequence[int | str]]) -> list[Any]:
        kinds = types or {}
        return [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), s) for n, s in shapes.items()]

    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(made, "graph", infos(inputs), infos(outputs), tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run_onnx(model: Any, feeds: Arrays) -> dict[str, np.ndarray]:
    """Run a model, or the file at a path, as it is: without ONNX Runtime's own optimiser."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    source = model.SerializeToString() if isinstance(model, ModelProto) else str(model)
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


@pytest.fixture(scope="session")
def build() -> Build:
    return build_model


@pytest.fixture(scope="session")
def build_rows() -> Build:
    """The same, where a folder has a `build` of its own."""
    return build_model


@pytest.fixture(scope="session")
def run() -> Run:
    return run_onnx


@pytest.fixture(scope="session")
def run_file() -> Run:
    """The same, where a folder has a `run` of its own."""
    return run_onnx


@pytest.fixture(scope="session")
def decoder_bundle(small_checkpoint: Path, small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two decoders, which md-export's own code makes in a second. Not to be changed: copy it."""
    settings = ExportSettings(graphs=("decode_context", "decode_structure"), n_verify=2, threads=1)
    out = tmp_path_factory.mktemp("bundles") / "decoders"
    folder: Path = export_bundle(small_checkpoint, out, settings, models=str(small_world)).folder
    return folder


@pytest.fixture(scope="session")
def traced_bundle(small_checkpoint: Path, small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with one traced network, made once for all workers. Not to be changed: copy it."""
    shared = "PYTEST_XDIST_WORKER" in os.environ
    place = tmp_path_factory.getbasetemp().parent if shared else tmp_path_factory.mktemp("bundles")
    settings = ExportSettings(graphs=("vae_decode", "decode_latent"), threads=1)
    with FileLock(place / "traced.lock"):
        if not (place / "traced").exists():
            export_bundle(small_checkpoint, place / "traced", settings, models=str(small_world))
    return place / "traced"


@pytest.fixture
def copied(decoder_bundle: Path, tmp_path: Path) -> Path:
    """A copy of `decoder_bundle` that a test may spoil."""
    return Path(shutil.copytree(decoder_bundle, tmp_path / "bundle"))


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest as someone would who knows what he does: it lists the files as they are, and is sealed."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    for name, entry in content["files"].items():
        data = (folder / name).read_bytes()
        entry.update(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    edit(content)
    path.write_text(json.dumps(sealed(content)))


@pytest.fixture(scope="session")
def reseal() -> Callable[..., None]:
    return edit_manifest


@pytest.fixture(scope="session")
def edit_parity() -> Callable[..., None]:
    """Change the bundle's reference outputs, and seal it again."""

    def run(folder: Path, edit: Callable[[dict[str, np.ndarray]], Any]) -> None:
        arrays = load_file(folder / "parity.safetensors")
        edit(arrays)
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "parity.safetensors")
        edit_manifest(folder, lambda content: None)

    return run


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[int, list[str], list[str]]]:
    """Run md-export in this process: exit code, lines on standard output, lines on standard error.

    Its list of trusted plans is a new one.
    """
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))

    def run(*arguments: object) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    return run
