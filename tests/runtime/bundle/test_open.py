"""Bundles: what a good one gives; every way a bad one is refused, in one sentence and without leaving its folder."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from safetensors.numpy import save_file

from minddiffuser.runtime.bundle.graph_specs import TensorSpec
from minddiffuser.runtime.bundle.manifest import GRAPHS, NAME, SUFFIXES, TARGETS, Noise, sealed
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.errors import FileError, InputError, MindDiffuserError
from minddiffuser.runtime.sampling import Sampling

_spec = importlib.util.spec_from_file_location("small_bundle", Path(__file__).parents[2] / "small_bundle.py")
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)

Edit = Callable[[dict[str, Any]], None]
EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ONNX = "engines/denoise.fp32.onnx"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small.write_small_bundle(tmp_path / "bundle")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose files nobody changes for longer than one example."""
    return small.write_small_bundle(tmp_path_factory.mktemp("shared") / "bundle")


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def edit(folder: Path, change: Edit) -> None:
    content = manifest_of(folder)
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def relist(folder: Path, *names: str) -> None:
    """Give the manifest the present size and hash of files."""

    def change(content: dict[str, Any]) -> None:
        for name in names:
            data = (folder / name).read_bytes()
            content["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}

    edit(folder, change)


def use(folder: Path, *, verify: bool = True) -> Bundle:
    """Everything that reads of a bundle."""
    bundle = Bundle.open(folder, verify=verify)
    assert bundle.arrays
    assert bundle.size_bytes
    return bundle


# --- good bundles ---


def test_a_good_bundle(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert bundle.hash == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert bundle.manifest == manifest_of(folder)
    assert (bundle.version, bundle.models_name, bundle.models_hash) == (2, "small", "ab" * 32)
    assert (bundle.checkpoint_hash, bundle.subject, bundle.layout.modality) == ("cd" * 32, "someone", "fmri")
    assert (bundle.preset, bundle.image_size, bundle.layout.shape) == ("reference", 16, (12,))
    assert bundle.shapes == small.SHAPES
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert bundle.size_bytes == sum(path.stat().st_size for path in files)
    assert bundle.path("parity.safetensors") == folder / "parity.safetensors"
    assert list(bundle.graphs) == ["decode_context", "denoise"]
    denoise = bundle.graphs["denoise"]
    assert denoise.inputs == {"latent": TensorSpec("float32", ("batch", 4, 2, 2))}
    assert list(denoise.outputs) == ["next_latent"]
    plain, plan = denoise.variants
    assert (plain.graph, plain.target, plain.precision, plain.opset) == ("denoise", "onnx", "fp32", 20)
    assert (plain.file, plain.data) == (folder / ONNX, (folder / "engines/weights.fp32.bin",))
    assert (plain.batch_sizes, plan.batch_sizes) == (None, (1, 4))
    assert (plan.file, plan.data, plan.precision) == (folder / small.PLAN, (), "fp16")
    assert plan.parity["tolerance"] == 1e-4
    assert plan.precision_map[0]["rule"] == "range"
    assert plan.builder == {"compute_capability": "8.9"}


def test_operations_of_graphs(tmp_path: Path) -> None:
    def counted(content: dict[str, Any]) -> None:
        content["graphs"]["denoise"]["flops"] = 1_596_063_744_000  # of Stable Diffusion 1.4

    bundle = Bundle.open(small.write_small_bundle(tmp_path / "bundle", edit=counted))
    assert bundle.flops("denoise") == {"denoise": 1_596_063_744_000}
    assert bundle.graphs["decode_context"].flops is None
    with pytest.raises(FileError, match="lacks the graph vae_decode: export it with them"):
        bundle.flops("denoise", "vae_decode")


def test_a_bundle_from_before_operations_were_counted_still_opens(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert bundle.graphs["denoise"].flops is None
    with pytest.raises(InputError, match="was exported before the cost of its graphs was counted: export it again"):
        bundle.flops("denoise")


@pytest.mark.parametrize("flops", [0, -1, True, 1.5, "many", None, [1], 1 << 61])
def test_operations_that_are_no_count(folder: Path, flops: Any) -> None:
    edit(folder, lambda content: content["graphs"]["denoise"].update(flops=flops))
    with pytest.raises(FileError, match=r"'graphs.denoise.flops' is .*, expected a whole number from 1 to"):
        Bundle.open(folder)


def test_arrays(folder: Path) -> None:
    bundle, expected = Bundle.open(folder), small.small_arrays()
    assert set(bundle.arrays) == set(expected)
    for name, array in expected.items():
        assert bundle.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(bundle.arrays[name], array)


def test_onnx_runtime_runs_its_graphs(folder: Path, rng: np.random.Generator) -> None:
    import onnxruntime

    bundle = Bundle.open(folder)
    responses, latent = rng.standard_normal((2, 12)).astype(np.float32), np.ones((2, 4, 2, 2), np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    expected = {
        "decode_context": (responses, (responses @ small.WEIGHT).reshape(2, 15, 4)),
        "denoise": (latent, latent * small.SCALE),
    }
    for name, (given_, wanted) in expected.items():
        graph = bundle.graphs[name]
        session = onnxruntime.InferenceSession(graph.variants[0].file, options, providers=["CPUExecutionProvider"])
        (out,) = session.run(list(graph.outputs), {next(iter(graph.inputs)): given_})
        np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)


def test_without_the_optional_shape_and_through_a_link_to_the_whole_folder(folder: Path) -> None:
    edit(folder, lambda content: content["shapes"].pop("semantic"))
    link = folder.with_name("link")
    link.symlink_to(folder)
    bundle = Bundle.open(str(link))
    assert bundle.folder == folder
    assert list(bundle.shapes) == ["context", "latent", "structure"]


def test_unknown_fields_graphs_and_files_are_left_alone(folder: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["new"] = {"deep": [None, True, 1.5]}
        content["checkpoint"]["new"] = content["graphs"]["denoise"]["new"] = 1
        content["shapes"]["new"] = "anything"
        content["graphs"]["of_a_plugin"] = copy.deepcopy(content["graphs"]["denoise"])

    edit(folder, change)
    (folder / "engines" / "left.over").write_bytes(b"x")
    os.mkfifo(folder / "engines" / "pipe")
    bundle = use(folder)
    assert bundle.shapes == small.SHAPES
    assert bundle.graphs["of_a_plugin"].variants[0].graph == "of_a_plugin"


def test_require(folder: Path) -> None:
    bundle = Bundle.open(folder)
    bundle.require()
    bundle.require("denoise", "decode_context")
    message = "lacks the graphs vae_decode, clip_structure: .*--graphs decode_context denoise vae_decode clip_structure"
    with pytest.raises(FileError, match=message):
        bundle.require("vae_decode", "denoise", "clip_structure")
    with pytest.raises(FileError, match="holds no engines/other.bin"):
        bundle.path("engines/other.bin")


def test_what_writers_use_is_what_readers_accept() -> None:
    assert all(NAME.fullmatch(name) for name in GRAPHS)
    assert set(TARGETS) == {"onnx", "tensorrt", "tensorrt-rtx", "ort-tensorrt"}


def test_opening_loads_no_library(folder: Path) -> None:
    heavy = ("torch", "onnx", "onnxruntime", "google.protobuf", "safetensors", "tensorrt")
    code = (
        "import sys; from minddiffuser.runtime.bundle.open import Bundle; Bundle.open(sys.argv[1]); "
        f"print(*[name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# --- the manifest as a file ---


def test_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="absent is not a folder: give the folder that md-export bundle wrote"):
        Bundle.open(tmp_path / "absent")
    with pytest.raises(FileError, match=r"is not a bundle \(it has no manifest.json\): give the folder"):
        Bundle.open(tmp_path)
    (tmp_path / "checkpoint.json").write_text("{}")
    with pytest.raises(FileError, match="it is a checkpoint, make a bundle of it with md-export bundle"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Expecting value"),
        (b"[1, 2]", "not an object"),
        (b'{"a": NaN}', "it holds NaN"),
        (b'{"a": -Infinity}', "it holds -Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "limit"),
        (b'{"a": {"b": 1, "c": 2, "b": 1}}', "the name 'b' occurs twice"),
        (b'{"a": "\xff"}', "utf-8"),
        ('{"a": 1}'.encode("utf-16"), "utf-8"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        (b'{"a":' + b"[" * 100_000, "recursion"),
        (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "at most 64 levels"),
        (b'{"format": "minddiffuser-checkpoint", "version": 1}', "is not a MindDiffuser bundle .*checkpoint"),
        (b'{"format": ["\\ud800"], "version": 1}', r"format \['\\ud800'\]"),
        (b"{}", "format none"),
        (b'{"format": "minddiffuser-bundle"}', "'version' is missing, expected a whole number"),
        (b'{"format": "minddiffuser-bundle", "version": true}', "'version' is True"),
        (b'{"format": "minddiffuser-bundle", "version": 1}', "'version' is 1, expected version 2"),
        (b'{"format": "minddiffuser-bundle", "version": 3}', "newer release .*upgrade"),
    ],
)
def test_manifests_that_cannot_be_read(data: bytes, reason: str, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(data)
    with pytest.raises(FileError, match=reason):
        Bundle.open(folder)


def test_a_manifest_is_not_parsed_if_it_is_too_large(folder: Path) -> None:
    with open(folder / "manifest.json", "r+b") as file:
        file.truncate((1 << 24) + 1)
    with pytest.raises(FileError, match="larger than a manifest can be"):
        Bundle.open(folder)


# --- its fields ---


def denoise(content: dict[str, Any], number: int = 0) -> dict[str, Any]:
    return content["graphs"]["denoise"]["variants"][number]


def put(*path: str | int, value: Any) -> Edit:
    def change(content: Any) -> None:
        for part in path[:-1]:
            content = content[part]
        content[path[-1]] = value

    return change


D = ("graphs", "denoise")
V = (*D, "variants", 0)
BAD_FIELDS: dict[str, tuple[Edit, str]] = {
    "no files": (lambda c: c.pop("files"), "'files' is missing, expected an object"),
    "no arrays": (lambda c: c["files"].pop("arrays.safetensors"), "expected arrays.safetensors among the files"),
    "lists itself": (put("files", "manifest.json", value={"sha256": "0" * 64, "size": 1}), "not manifest.json itself"),
    "hash": (put("models", "hash", value="AB" * 32), "'models.hash' is 'ABAB.*64 hexadecimal digits"),
    "hash's type": (put("checkpoint", "hash", value=[1]), r"'checkpoint.hash' is \[1\]"),
    "file's hash": (put("files", ONNX, "sha256", value="0" * 63), "files.engines/denoise.fp32.onnx.sha256"),
    "file's size": (put("files", ONNX, "size", value=-1), "size' is -1, expected a whole number from 0"),
    "name": (put("models", "name", value=""), "'models.name' is '', expected a text"),
    "escape": (put("checkpoint", "subject", value="\x1b[2J"), r"'checkpoint.subject' is '\\x1b\[2J', .*printable"),
    "surrogate": (put("preset", value="\ud800"), r"'preset' is '\\ud800'"),
    "long": (put("checkpoint", "subject", value="x" * 100_000), r"is 'x{76}\.\.\., expected"),
    "decoders": (put("checkpoint", "decoders", value={}), r"'checkpoint.decoders' is \{\}, expected a list"),
    "image size": (put("image_size", value=16.0), "'image_size' is 16.0, expected a whole number"),
    "voxels": (put("layout", "response_shape", value=[True]), r"response_shape is \[True\]"),
    "huge": (put("image_size", value=2**31), "'image_size' is 2147483648"),
    "steps": (put("sampling", "steps_offset", value=None), "'sampling.steps_offset' is None"),
    "alpha": (put("sampling", "set_alpha_to_one", value=1), "'sampling.set_alpha_to_one' is 1, expected true or false"),
    "guidance": (put("sampling", "guidance_scale", value="5"), "'sampling.guidance_scale' is '5', expected a number"),
    "no guidance": (lambda c: c["sampling"].pop("guidance_scale"), "'sampling.guidance_scale' is missing"),
    "grid": (put("sampling", "n_steps", value=True), "'sampling.n_steps' is True, expected a whole number"),
    "noise": (put("sampling", "n_noise", value=50), "field 'sampling': n_noise is 50: choose a step from 0 to n_ste"),
    "reverse": (put("sampling", "n_reverse", value=51), "field 'sampling': n_reverse is 51"),
    "rank": (put("shapes", "latent", value=[4, 2]), r"'shapes.latent' is \[4, 2\], expected a list of 3 whole numbers"),
    "no shape": (lambda c: c["shapes"].pop("context"), "'shapes.context' is missing"),
    "semantic": (put("shapes", "semantic", value=[0]), r"'shapes.semantic\[0\]' is 0"),
    "lineage": (put("lineage", value="x"), "'lineage' is 'x', expected an object"),
    "no outputs": (lambda c: c["graphs"]["denoise"].pop("outputs"), "'graphs.denoise.outputs' is missing"),
    "graph's name": (put("graphs", "a/b", value={}), "'graphs' is 'a/b', expected graphs, each by a plain name"),
    "graphs": (lambda c: put("graphs", value={f"g{i}": {} for i in range(65)})(c), "expected at most 64 graphs"),
    "tensor": (put(*D, "inputs", "__import__('os')", value={}), "graphs.denoise.inputs.*each by a plain name"),
    "dtype": (put(*D, "inputs", "latent", "dtype", value="object"), "dtype' is 'object', expected one of bfloat16"),
    "dtype's type": (put(*D, "inputs", "latent", "dtype", value={}), "dtype' is {}, expected one of"),
    "zero": (put(*D, "inputs", "latent", "shape", value=["n", 0]), r"shape\[1\]' is 0"),
    "code": (put(*D, "inputs", "latent", "shape", value=["n*2"]), r"'n\*2', expected a positive whole number or a"),
    "deep": (put(*D, "outputs", "next_latent", "shape", value=[1] * 9), "expected a list of 0 to 8 sizes"),
    "no variants": (put(*D, "variants", value=[]), r"variants' is \[\], expected a list of 1 to 64"),
    "variant": (put(*V, value=3), r"variants\[0\]' is 3, expected an object"),
    "target": (put(*V, "target", value="cuda"), r"'cuda', expected one of onnx, ort-tensorrt, tensorrt, tensorrt-rtx"),
    "target's type": (put(*V, "target", value=["onnx"]), r"\['onnx'\], expected one of"),
    "precision": (put(*V, "precision", value="fp8"), "precision' is 'fp8', expected one of bf16, fp16, fp32, int8"),
    "suffix": (put(*V, "file", value="engines/weights.fp32.bin"), "expected a name that ends with .onnx"),
    "no file": (lambda c: denoise(c).pop("file"), r"variants\[0\].file' is missing"),
    "unlisted": (put(*V, "file", value="engines/x.onnx"), "'engines/x.onnx', expected a file that 'files' lists"),
    "data": (put(*V, "data", value="engines/weights.fp32.bin"), "expected a list"),
    "unlisted data": (put(*V, "data", value=["engines/x.bin"]), r"data\[0\]' is 'engines/x.bin'"),
    "opset": (put(*V, "opset", value="20"), "opset' is '20'"),
    "batches": (put(*V, "batch_sizes", value=[4, 1]), r"\[4, 1\], expected sizes from the smallest"),
    "no batch": (put(*V, "batch_sizes", value=[]), r"batch_sizes' is \[\]"),
    "parity": (put(*V, "parity", value=None), "parity' is None, expected an object"),
    "map": (put(*V, "precision_map", value=[1]), r"precision_map\[0\]' is 1, expected an object"),
    "builder": (put(*V, "builder", value=[]), "builder' is "),
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_bad_fields(name: str, folder: Path) -> None:
    change, reason = BAD_FIELDS[name]
    edit(folder, change)
    with pytest.raises(FileError, match=reason) as caught:
        Bundle.open(folder)
    message = str(caught.value)
    assert message.endswith("export it again, or ask for a whole copy")
    assert len(message) < 400 + len(str(folder))
    assert message.isprintable()


@pytest.mark.parametrize("field", ["files", "file", "data"])
@pytest.mark.parametrize(
    "path",
    [
        "../outside.onnx",
        "engines/../../outside.onnx",
        "engines/./denoise.fp32.onnx",
        "engines//denoise.fp32.onnx",
        "/etc/passwd.onnx",
        "engines\\denoise.fp32.onnx",
        "C:/x.onnx",
        "C:x.onnx",
        "engines/",
        "..",
        "",
        "x\0.onnx",
        "~/x.onnx",
        "-x.onnx",
        "engines/denoise.fp32.onnx\n",
        "a/" * 9 + "x.onnx",
        "x" * 300 + ".onnx",
    ],
)
def test_paths_stay_inside(path: str, field: str, folder: Path) -> None:
    (folder.parent / "outside.onnx").write_bytes(b"x")

    def change(content: dict[str, Any]) -> None:
        if field == "files":
            content["files"][path] = {"sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}
        else:
            denoise(content)[field] = path if field == "file" else [path]

    edit(folder, change)
    with pytest.raises(FileError, match=r"expected (files, each by )?a plain path inside the bundle"):
        Bundle.open(folder)


# --- its files ---


@pytest.mark.parametrize("name", [ONNX, "arrays.safetensors", "parity.safetensors", "engines/weights.fp32.bin"])
def test_missing_cut_and_changed_files(name: str, folder: Path) -> None:
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(FileError, match=f"{path.name} has {len(data) - 1} bytes, the manifest says {len(data)}"):
        Bundle.open(folder, verify=False)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(FileError, match=f"{path.name} is damaged or was changed"):
        Bundle.open(folder)
    path.unlink()
    with pytest.raises(FileError, match=f"lacks {name}: export it again, or ask for a whole copy"):
        Bundle.open(folder)


def test_sizes_are_compared_before_anything_is_read(folder: Path) -> None:
    (folder / "arrays.safetensors").write_bytes(bytes((folder / "arrays.safetensors").stat().st_size))
    (folder / small.PLAN).write_bytes(b"")
    with pytest.raises(FileError, match="plan has 0 bytes"):
        Bundle.open(folder)


def test_without_verifying_no_hash_is_compared(folder: Path) -> None:
    path = folder / small.PLAN
    path.write_bytes(bytes(path.stat().st_size))
    Bundle.open(folder, verify=False)
    with pytest.raises(FileError, match="SHA-256 differs"):
        Bundle.open(folder)


@pytest.mark.parametrize("name", ["manifest.json", "arrays.safetensors", ONNX, "engines", "engines/tensorrt-rtx"])
@pytest.mark.parametrize("inside", [False, True])
def test_links_are_refused(name: str, inside: bool, folder: Path) -> None:
    """Wherever they lead: to the very same bytes, outside the folder or inside."""
    kept = (folder if inside else folder.parent) / "kept"
    (folder / name).rename(kept)
    (folder / name).symlink_to(kept)
    with pytest.raises(FileError, match=f"{name} is a link, and a bundle holds plain files only: .*cp -rL"):
        Bundle.open(folder)


@pytest.mark.parametrize("name", ["manifest.json", "arrays.safetensors", small.PLAN])
def test_pipes_and_folders_are_refused_not_opened(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(FileError, match="is not a plain file"):
        Bundle.open(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(FileError, match="is not a plain file"):
        Bundle.open(folder)


def test_a_file_in_a_folder_s_place(folder: Path) -> None:
    shutil.rmtree(folder / "engines")
    (folder / "engines").write_bytes(b"")
    with pytest.raises(FileError, match="lacks engines/"):
        Bundle.open(folder)


def test_arrays_are_not_read_through_a_later_link(folder: Path) -> None:
    bundle, path = Bundle.open(folder), folder / "arrays.safetensors"
    path.rename(folder.parent / "kept")
    path.symlink_to(folder.parent / "kept")
    with pytest.raises(FileError, match="is a link"):
        _ = bundle.arrays


def test_a_file_that_may_not_be_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.lstat

    def lstat(path: Any) -> os.stat_result:
        if Path(path).name == "engines":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "lstat", lstat)
    with pytest.raises(FileError, match=r"engines cannot be read \(Permission denied\): check its permissions"):
        Bundle.open(folder)


# --- weights of ONNX graphs ---


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../outside.bin", "other.bin", "sub/weights.fp32.bin", "*/_ORT_MEM_ADDR_/*", ""]
)
def test_weights_from_elsewhere_are_refused(location: str, folder: Path) -> None:
    for name in ("other.bin", "../outside.bin"):
        (folder / "engines" / name).write_bytes(bytes(4000))
    tensor = small.external_tensor("scale", small.SCALE, location=location)
    graph = helper.make_graph([helper.make_node("Mul", ["latent", "scale"], ["y"])], "g", [], [], [tensor])
    (folder / ONNX).write_bytes(helper.make_model(graph).SerializeToString())
    relist(folder, ONNX, "engines/other.bin")  # listed, but not among this variant's data
    with pytest.raises(FileError, match="takes weights from .*made to read other files of yours") as caught:
        Bundle.open(folder)
    assert ascii(location) in str(caught.value)


def test_weights_of_another_folder_are_refused(folder: Path) -> None:
    """A listed file of the same name elsewhere is not the one that ONNX Runtime would read."""
    shutil.copy(folder / "engines" / small.DATA, folder / small.DATA)
    edit(folder, put(*V, "data", value=[small.DATA]))
    relist(folder, small.DATA)
    with pytest.raises(FileError, match="takes weights from 'weights.fp32.bin'"):
        Bundle.open(folder)


@pytest.mark.parametrize("target", [name for name, suffix in SUFFIXES.items() if suffix == ".onnx"])
def test_every_target_that_runs_onnx_is_looked_through(target: str, folder: Path) -> None:
    edit(folder, put(*V, "target", value=target))
    Bundle.open(folder)
    edit(folder, put(*V, "data", value=[]))
    with pytest.raises(FileError, match="takes weights from"):
        Bundle.open(folder)


def test_a_damaged_graph_with_the_right_hash(folder: Path) -> None:
    (folder / ONNX).write_bytes(b"\x3a\x7f not a graph")
    relist(folder, ONNX)
    with pytest.raises(FileError, match="is no ONNX file, or is damaged"):
        Bundle.open(folder)


# --- arrays ---


def _changed(name: str, change: Callable[[np.ndarray], np.ndarray | None]) -> dict[str, np.ndarray]:
    arrays = small.small_arrays()
    made = change(arrays.pop(name).copy())
    return arrays if made is None else {**arrays, name: np.ascontiguousarray(made)}


def _with(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
    array[index] = value
    return array


BAD_ARRAYS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray | None], str]] = {
    "missing": ("mean", lambda _: None, "array 'mean' is missing, expected float32"),
    "dtype": ("std", lambda a: a.astype(np.float64), r"'std' is float64 \(12,\), expected float32 \(12,\)"),
    "width": ("mean", lambda a: a[:-1], r"'mean' is float32 \(11,\)"),
    "context": ("uncond_context", lambda a: a[:-1], r"\(14, 4\), expected float32 \(15, 4\)"),
    "bos": ("context_bos", lambda a: a[None], r"\(1, 4\), expected float32 \(4,\)"),
    "mask": ("mask", lambda a: a.astype(np.uint8), r"'mask' is uint8 \(6, 3, 5\), expected bool"),
    "score": ("score", lambda a: a[:5], r"'score' is float32 \(5, 3, 5\)"),
    "nan": ("score", lambda a: _with(a, (2, 1, 0), np.nan), "'score' holds NaN"),
    "infinite": ("std", lambda a: _with(a, 3, np.inf), "'std' holds NaN or infinite"),
    "negative": ("std", lambda a: _with(a, 3, -1e-3), "'std' holds negative"),
    "rising": ("alphas_cumprod", lambda a: a[::-1], "'alphas_cumprod' does not fall"),
    "flat": ("alphas_cumprod", lambda a: _with(a, 7, a[6]), "'alphas_cumprod' does not fall"),
    "above one": ("alphas_cumprod", lambda a: _with(a, 0, 1.01), "'alphas_cumprod' does not fall"),
    "zero": ("alphas_cumprod", lambda a: _with(a, -1, 0.0), "'alphas_cumprod' does not fall"),
    "none": ("alphas_cumprod", lambda a: a[:0], "'alphas_cumprod' does not fall"),
    "rank": ("alphas_cumprod", lambda a: a[None], r"\(1, 1000\), expected float64 \(any,\)"),
    "half": ("alphas_cumprod", lambda a: a.astype(np.float32), "'alphas_cumprod' is float32"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(case: str, folder: Path) -> None:
    name, change, message = BAD_ARRAYS[case]
    save_file(_changed(name, change), folder / "arrays.safetensors")
    relist(folder, "arrays.safetensors")
    bundle = Bundle.open(folder)
    with pytest.raises(FileError, match=message):
        _ = bundle.arrays


BAD_BUILT_IN: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "alone": ({"built_in_mean": np.zeros(12, np.float32)}, "array 'built_in_std' is missing"),
    "negative": (
        {"built_in_mean": np.zeros(12, np.float32), "built_in_std": np.full(12, -1, np.float32)},
        "'built_in_std' holds negative",
    ),
    "shape": (
        {"built_in_mean": np.zeros(11, np.float32), "built_in_std": np.ones(12, np.float32)},
        r"'built_in_mean' is float32 \(11,\)",
    ),
}


@pytest.mark.parametrize("case", BAD_BUILT_IN)
def test_bad_statistics_of_the_graphs(case: str, folder: Path) -> None:
    """Of a bundle whose statistics were fitted again; they come in pairs."""
    arrays, message = BAD_BUILT_IN[case]
    save_file({**small.small_arrays(), **arrays}, folder / "arrays.safetensors")
    relist(folder, "arrays.safetensors")
    with pytest.raises(FileError, match=message):
        _ = Bundle.open(folder).arrays


# --- damage and malice at random ---

_opened: list[list[str]] = []


def _record(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and _opened and isinstance(args[0], str | bytes | os.PathLike):
        _opened[-1].append(os.fsdecode(args[0]))


sys.addaudithook(_record)  # it cannot be taken away again, but records nothing outside `watched`


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Fail if any file outside `folder` is opened."""
    opened: list[str] = []
    _opened.append(opened)
    try:
        yield
    finally:
        _opened.pop()
    strays = [name for name in opened if not Path(os.path.realpath(name)).is_relative_to(folder)]
    assert not strays, strays


def attempt(folder: Path, *, verify: bool = True) -> Bundle | None:
    """Open and use a bundle under watch: None if it is refused as it should."""
    import safetensors.numpy  # noqa: F401  (its own files are not the bundle's)

    with watched(folder):
        try:
            return use(folder, verify=verify)
        except MindDiffuserError as error:
            assert "\n" not in str(error)  # noqa: PT017
            return None


@contextmanager
def replaced(path: Path, data: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def test_the_watch_sees_a_stray(folder: Path) -> None:
    (folder.parent / "outside").write_text("x")
    (folder / "link").symlink_to(folder.parent / "outside")
    for path in (folder.parent / "outside", folder / "link", folder / ".." / "outside"):
        with pytest.raises(AssertionError, match="outside|link"), watched(folder):
            os.close(os.open(path, os.O_RDONLY))
    with watched(folder):
        (folder / "manifest.json").read_bytes()
    assert attempt(folder) is not None


FILES = ["manifest.json", "arrays.safetensors", "parity.safetensors", ONNX, f"engines/{small.DATA}", small.PLAN]


@EXAMPLES
@given(name=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(name: str, where: float, bit: int, shared: Path) -> None:
    data = bytearray((shared / name).read_bytes())
    data[int(where * len(data))] ^= 1 << bit
    with replaced(shared / name, bytes(data)):
        bundle = attempt(shared)
    assert bundle is None or name == "manifest.json"


@EXAMPLES
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_sealed_manifest_changes_no_value(where: float, bit: int, shared: Path) -> None:
    plain = manifest_of(shared)
    data = bytearray(json.dumps(sealed(plain)).encode())
    data[int(where * len(data))] ^= 1 << bit
    with replaced(shared / "manifest.json", bytes(data)):
        bundle = attempt(shared)
    # Only the name of the seal itself can change unnoticed, and that is no value.
    assert bundle is None or {key: bundle.manifest[key] for key in plain} == plain


def test_every_bit_of_a_seal_counts(folder: Path) -> None:
    plain = manifest_of(folder)
    path = folder / "manifest.json"
    path.write_text(json.dumps(sealed(sealed({**plain, "lineage": {1: (2.5, "é")}})), indent=4))
    assert Bundle.open(folder).manifest["lineage"] == {"1": [2.5, "é"]}
    path.write_text(path.read_text().replace("2.5", "2.50001"))
    with pytest.raises(FileError, match="its seal does not match"):
        Bundle.open(folder)
    for seal in (None, [], "0" * 64):
        path.write_text(json.dumps({**plain, "seal": seal}))
        with pytest.raises(FileError, match="its seal does not match"):
            Bundle.open(folder)


@EXAMPLES
@given(
    name=st.sampled_from(["arrays.safetensors", ONNX]), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7)
)
def test_unverified_damage_is_one_sentence_or_harmless(name: str, where: float, bit: int, shared: Path) -> None:
    """Headers come first in both files: most of the flips are aimed there."""
    data = bytearray((shared / name).read_bytes())
    data[int(where**4 * len(data))] ^= 1 << bit
    with replaced(shared / name, bytes(data)):
        attempt(shared, verify=False)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["../x", "/etc/passwd", ONNX, "manifest.json", "engines", ".", "n", "onnx", "a" * 64, "\ud800"])
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
)


@EXAMPLES
@given(data=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_manifest_is_one_sentence(data: bytes, shared: Path) -> None:
    with replaced(shared / "manifest.json", data):
        assert attempt(shared) is None


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield from places(child, (*path, key))


@settings(EXAMPLES, max_examples=250)
@given(data=st.data())
def test_a_mutated_manifest_is_one_sentence_or_harmless(data: st.DataObject, shared: Path) -> None:
    content = manifest_of(shared)
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(list(places(content))))
        holder = content
        for part in way:
            holder = holder[part]
        action = data.draw(st.sampled_from(["delete", "replace", "insert", "move"]))
        if action == "delete":
            del holder[last]
        elif action == "replace":
            holder[last] = data.draw(JSON)
        elif action == "move":
            source = content
            for part in data.draw(st.sampled_from(list(places(content)))):
                source = source[part]
            holder[last] = copy.deepcopy(source)
        elif isinstance(holder, list):
            holder.insert(int(last), data.draw(JSON))
        else:
            holder[data.draw(st.text(max_size=6) | st.sampled_from(["../x", "/x", "file"]))] = data.draw(JSON)
        if not content:
            break
    if data.draw(st.booleans()):
        try:
            content = sealed(content)
        except ValueError:  # NaN, which a writer refuses
            return
    with replaced(shared / "manifest.json", json.dumps(content).encode()):
        attempt(shared)


def test_the_layout_of_the_responses_is_checked(tmp_path: Path) -> None:
    n_voxels = small.N_VOXELS

    def bundle(name: str, **fields: Any) -> Bundle:
        def edit(content: dict[str, Any]) -> None:
            content["layout"] |= fields

        return Bundle.open(small.write_small_bundle(tmp_path / name, edit=edit))

    assert bundle("none").layout.rois is None
    rois = {"V2": [5, n_voxels], "V1": [0, 5]}
    assert bundle("some", rois=rois).layout.rois == {"V1": (0, 5), "V2": (5, n_voxels)}
    for number, rois in enumerate(({"V1": [0, n_voxels + 1]}, {"V1": "all"}, {"\x1b[2J" * 99: [0]})):
        with pytest.raises(FileError, match="roi") as caught:
            bundle(f"bad{number}", rois=rois)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 600


def test_sampling_and_noise_are_those_of_the_manifest(tmp_path: Path) -> None:
    chosen = Sampling(guidance_scale=2.0, n_steps=20, n_noise=None, n_reverse=12)

    def edit(content: dict[str, Any]) -> None:
        content["sampling"] = {**asdict(chosen), "steps_offset": 0, "set_alpha_to_one": True}

    bundle = Bundle.open(small.write_small_bundle(tmp_path / "bundle", edit=edit))
    assert (bundle.sampling, bundle.noise) == (chosen, Noise(steps_offset=0, set_alpha_to_one=True))
    assert Bundle.open(small.write_small_bundle(tmp_path / "plain")).sampling == Sampling()
