"""What manifest.json of a bundle may hold: strict JSON, and every field of the wanted type; nothing is evaluated."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..candidates import FIELD as CONCEPTS
from ..candidates import Candidates, candidates_of
from ..data.chain_files import listed_files
from ..data.layout import ResponseLayout
from ..errors import FileError, InputError, shown
from ..features import RANKS, REQUIRED_FEATURES
from ..fields import ABSENT, Field
from ..files import hash_of_json
from ..leaks import FIELD as LEAKS
from ..leaks import read_leaks
from ..sampling import Sampling
from ..split import FIELD as SPLIT
from ..split import Split, read_split
from .graph_specs import TensorSpec

KIND = "bundle"
VERSION = 2
MANIFEST = "manifest.json"
ARRAYS = "arrays.safetensors"
PARITY = "parity.safetensors"
DECODE = "decode_"
"""How the names of decoders' graphs begin; all others are networks'."""
GRAPHS = (
    "decode_context",
    "decode_latent",
    "decode_structure",
    "decode_semantic",
    "denoise",
    "vae_decode",
    "clip_structure",
    "structure_gradient",
    "denoise_gradient",
)
# Target -> how its files' names end: ONNX Runtime chooses the parser by that.
SUFFIXES = {"onnx": ".onnx", "tensorrt": ".plan", "tensorrt-rtx": ".plan", "ort-tensorrt": ".onnx"}
TARGETS = tuple(SUFFIXES)
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
DTYPES = ("bool", "uint8", "int8", "int32", "int64", "float16", "bfloat16", "float32", "float64")
ADVICE = "export it again, or ask for a whole copy"
ORT_CACHE = "engines/ort-tensorrt/"
"""Where a bundle keeps what ONNX Runtime's TensorRT provider has built, in a folder for each graph and precision."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
_PATH = re.compile(rf"(?:{FILE_NAME.pattern}/){{0,7}}{FILE_NAME.pattern}")
_SEAL = "seal"
_DEEPEST = 64
_MOST_FILES, _MOST_GRAPHS, _MOST_TENSORS, _MOST_VARIANTS = 4096, 64, 64, 64
_LARGEST_FILE = 1 << 50
_MOST_FLOPS = 1 << 60


@dataclass(frozen=True)
class Variant:
    """One engine of a graph.

    Attributes
    ----------
    graph : str
        Name of the graph.
    target, precision : str
        Among `TARGETS` and `PRECISIONS`.
    file : Path
        Absolute.
    data : tuple of Path
        Files that `file` takes its weights from, absolute.
    opset : int
        Of the ONNX graph that it is, or that it was built from.
    batch_sizes : tuple of int, or None
        Smallest to largest that it runs; None: any.
    parity, builder : dict
        Errors against PyTorch; what it was built by and for.
    precision_map : list of dict
        Each exception from `precision`, and the number that forced it.
    """

    graph: str
    target: str
    precision: str
    file: Path
    data: tuple[Path, ...]
    opset: int
    batch_sizes: tuple[int, ...] | None
    parity: dict[str, Any]
    precision_map: list[dict[str, Any]]
    builder: dict[str, Any]


def cache_folder(variant: Variant) -> str | None:
    """Where the engines of an "ort-tensorrt" variant lie inside the bundle; None where its description is of no use."""
    given = variant.builder.get("cache")
    if variant.target != "ort-tensorrt" or not isinstance(given, str) or not _PATH.fullmatch(given):
        return None
    own = given.startswith(f"{ORT_CACHE}{variant.graph}.{variant.precision}.") and given.count("/") == 2
    return f"{given}/" if own else None


def native_files(variant: Variant, folder: Path, files: Collection[str]) -> list[str]:
    """The files of a variant that are code for the machine, by their path inside the bundle.

    Parameters
    ----------
    folder
        The bundle's.
    files
        Everything that its manifest lists.
    """
    if variant.target == "ort-tensorrt":
        cache = cache_folder(variant)
        return sorted(name for name in files if cache is not None and name.startswith(cache))
    return [] if variant.target == "onnx" else [variant.file.relative_to(folder).as_posix()]


@dataclass(frozen=True)
class Graph:
    """Inputs and outputs under one name, and the engines that compute it.

    `flops` are the floating-point operations for one trial, in whatever precision; None of decoders, and of networks
    that were exported before operations were counted.
    """

    name: str
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    variants: tuple[Variant, ...]
    flops: int | None = None


@dataclass(frozen=True)
class Listed:
    """A file of the bundle as its manifest describes it: SHA-256 and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Noise:
    """The networks' noise schedule: what stands in the manifest beside ``alphas_cumprod`` in the arrays.

    Attributes
    ----------
    steps_offset : int
    set_alpha_to_one : bool
        As in the model folder's scheduler config.
    """

    steps_offset: int
    set_alpha_to_one: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Contents:
    """The checked fields of a manifest; :class:`.open.Bundle`, which adds the folder, says what each is."""

    models_name: str
    models_hash: str
    checkpoint_hash: str
    subject: str
    layout: ResponseLayout
    preset: str
    image_size: int
    shapes: dict[str, tuple[int, ...]]
    sampling: Sampling
    noise: Noise
    files: dict[str, Listed]
    graphs: dict[str, Graph]
    candidates: Candidates | None = None
    leaks: tuple[str, ...] = ()
    split: Split | None = None


def parse_manifest(data: bytes, path: Path) -> dict[str, Any]:
    """Read strict JSON: UTF-8, no name twice in an object, no NaN, no endless nesting.

    Raises
    ------
    FileError
        It is anything else than that, or a description of another kind or version, or its seal does not fit.
    """
    try:
        content = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_float=_finite, parse_constant=_not_a_number
        )
    except (ValueError, RecursionError) as error:
        raise FileError(f"the bundle's manifest {path} cannot be read ({error}): {ADVICE}") from error
    if not isinstance(content, dict) or _depth_exceeds(content, _DEEPEST):
        raise FileError(f"the bundle's manifest {path} is not an object of at most {_DEEPEST} levels: {ADVICE}")
    _check_kind(Field(path, "", content, ADVICE))
    if _SEAL in content and content[_SEAL] != _digest(content):
        raise FileError(f"{path} was changed or damaged (its seal does not match its content): {ADVICE}")
    return content


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with a digest of its own content, by which a later change of any value is noticed.

    It protects against damage and slips, not against an attacker, who can seal anew.
    """
    plain: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    return {**plain, _SEAL: _digest(plain)}


def _digest(content: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != _SEAL}
    return hash_of_json(rest, (",", ":"))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"the name {shown(name)} occurs twice in one object")
        content[name] = value
    return content


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {shown(text)} is too large")
    return number


def _not_a_number(text: str) -> NoReturn:
    raise ValueError(f"it holds {text}")


def _depth_exceeds(content: object, limit: int) -> bool:
    level = [content]
    for _ in range(limit):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
    return bool(level)


def _check_kind(manifest: Field) -> None:
    given, version = manifest.get("format"), manifest.get("version")
    if given.value != f"minddiffuser-{KIND}":
        stated = "none" if given.value is ABSENT else shown(given.value)
        raise FileError(f"{manifest.path} is not a MindDiffuser {KIND} (format {stated}): check the path")
    if version.whole(0) > VERSION:
        raise FileError(
            f"{manifest.path} was written by a newer release ({KIND} version {version.value}, this one reads version "
            f"{VERSION}): upgrade minddiffuser"
        )
    if version.value < VERSION:
        version.refuse(f"version {VERSION}")


def check_fields(content: Mapping[str, Any], path: Path) -> Contents:
    """Check every field that this release uses; others are left alone.

    Parameters
    ----------
    content : mapping
        As :func:`parse_manifest` gives it.
    path : Path
        Of the manifest; its folder is the bundle's. Nothing is read from there.

    Raises
    ------
    FileError
        A field is missing or cannot be used.
    """
    top = Field(path, "", content, ADVICE)
    for name in ("versions", "lineage", "preprocessing", "end_to_end"):
        top.get(name).object()
    models, checkpoint = top.get("models"), top.get("checkpoint")
    for name in ("selection", "provenance"):
        checkpoint.get(name).object()
    for decoder in checkpoint.get("decoders").items(0, len(RANKS), "decoders"):
        decoder.object()
    files = _files(top.get("files"))
    layout = ResponseLayout.from_json(top.get("layout").object(), f"{path}, field 'layout'", ADVICE)
    for name, digest in listed_files(layout.signal).items():
        if name not in files or files[name].sha256 != digest:
            top.get("files").refuse(f"{name} with the SHA-256 that the signal chain in 'layout' states")
    return Contents(
        models_name=models.get("name").text(),
        models_hash=models.get("hash").sha256(),
        checkpoint_hash=checkpoint.get("hash").sha256(),
        subject=checkpoint.get("subject").text(),
        layout=layout,
        preset=top.get("preset").text(),
        image_size=top.get("image_size").whole(),
        shapes=_shapes(top.get("shapes")),
        sampling=_sampling(top.get("sampling")),
        noise=_noise(top.get("sampling")),
        files=files,
        graphs=_graphs(top.get("graphs"), path.parent, files),
        candidates=candidates_of(checkpoint.get(CONCEPTS)) if CONCEPTS in checkpoint.object() else None,
        leaks=read_leaks(checkpoint.get(LEAKS)),
        split=read_split(checkpoint.get(SPLIT)),
    )


def _sampling(field: Field) -> Sampling:
    n_noise = field.get("n_noise")
    try:
        return Sampling(
            guidance_scale=field.get("guidance_scale").number(),
            n_steps=field.get("n_steps").whole(),
            n_noise=None if n_noise.value is None else n_noise.whole(0),
            n_reverse=field.get("n_reverse").whole(),
        )
    except InputError as error:
        raise FileError(f"{field.path}, field {field.name!r}: {error}; {ADVICE}") from error


def _noise(field: Field) -> Noise:
    if not isinstance(field.get("set_alpha_to_one").value, bool):
        field.get("set_alpha_to_one").refuse("true or false")
    return Noise(field.get("steps_offset").whole(0), field.get("set_alpha_to_one").value)


def _shapes(field: Field) -> dict[str, tuple[int, ...]]:
    needed = [name for name in RANKS if name in REQUIRED_FEATURES or name in field.object()]
    return {name: field.get(name).wholes(RANKS[name], RANKS[name]) for name in needed}


def _files(field: Field) -> dict[str, Listed]:
    listed = {
        name: Listed(file.get("sha256").sha256(), file.get("size").whole(0, _LARGEST_FILE))
        for name, file in field.members(_PATH, _MOST_FILES, "files, each by a plain path inside the bundle").items()
    }
    if ARRAYS not in listed or MANIFEST in listed:
        field.refuse(f"{ARRAYS} among the files, and not {MANIFEST} itself")
    return listed


def _graphs(field: Field, folder: Path, files: Collection[str]) -> dict[str, Graph]:
    graphs = {}
    for name, graph in field.members(NAME, _MOST_GRAPHS, "graphs, each by a plain name").items():
        variants = graph.get("variants").items(1, _MOST_VARIANTS, "variants")
        graphs[name] = Graph(
            name,
            _specs(graph.get("inputs")),
            _specs(graph.get("outputs")),
            tuple(_variant(variant, name, folder, files) for variant in variants),
            _flops(graph.get("flops")),
        )
    return graphs


def _flops(field: Field) -> int | None:
    return None if field.value is ABSENT else field.whole(1, _MOST_FLOPS)


def _specs(field: Field) -> dict[str, TensorSpec]:
    tensors = field.members(NAME, _MOST_TENSORS, "tensors, each by a plain name")
    return {name: _spec(tensor) for name, tensor in tensors.items()}


def _spec(field: Field) -> TensorSpec:
    sizes = field.get("shape").items(0, 8, "sizes")
    shape = tuple(
        size.match(NAME, "a positive whole number or a plain name") if isinstance(size.value, str) else size.whole()
        for size in sizes
    )
    return TensorSpec(field.get("dtype").choice(DTYPES), shape)


def _variant(field: Field, graph: str, folder: Path, files: Collection[str]) -> Variant:
    target = field.get("target").choice(TARGETS)
    file = _listed(field.get("file"), files)
    if not file.endswith(SUFFIXES[target]):
        field.get("file").refuse(f"a name that ends with {SUFFIXES[target]} for the target {target}")
    data = [_listed(item, files) for item in field.get("data").items(0, _MOST_FILES, "files")]
    return Variant(
        graph=graph,
        target=target,
        precision=field.get("precision").choice(PRECISIONS),
        file=folder / file,
        data=tuple(folder / name for name in data),
        opset=field.get("opset").whole(1, 1000),
        batch_sizes=_batch_sizes(field.get("batch_sizes")),
        parity=field.get("parity").object(),
        precision_map=[item.object() for item in field.get("precision_map").items(0, 1 << 16, "objects")],
        builder=field.get("builder").object(),
    )


def _listed(field: Field, files: Collection[str]) -> str:
    path = field.match(_PATH, "a plain path inside the bundle, such as 'engines/denoise.fp32.onnx'")
    if path not in files:
        field.refuse("a file that 'files' lists with its SHA-256")
    return path


def _batch_sizes(field: Field) -> tuple[int, ...] | None:
    if field.value is None:
        return None
    sizes = field.wholes(1, 64)
    if list(sizes) != sorted(sizes):
        field.refuse("sizes from the smallest to the largest")
    return sizes
