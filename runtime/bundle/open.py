"""A bundle folder: verified engines and arrays with a manifest, as md-export writes it and both stages run from it.

manifest.json        what it was made of and for, every file's SHA-256 and size, graphs and their engines
arrays.safetensors   the constants of decoding, sampling and metrics; see :attr:`Bundle.arrays`
signal/              the files that the layout's signal chain names, such as a whitening matrix
training_pictures.safetensors
                     what there is to know of the pictures of training; see runtime/training_pictures.py; may be absent
parity.safetensors   inputs and outputs by which the engines can be verified again
engines/             .onnx graphs, .bin weights that they share, and built engines in a folder per target

A bundle may come from an untrusted source: nothing in it is parsed before paths, sizes, hashes and types are checked,
and only files that the manifest lists are ever opened, whatever else lies in the folder. Whether built engines may run,
which are code for the machine, is not decided here: see :mod:`..engines.trust`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from ..data.chain_files import FOLDER as SIGNAL_FOLDER
from ..errors import FileError, InputError, shown
from ..files import Array, check_arrays, hash_of_json, read_tensors, sha256_of
from ..training_pictures import FILE as TRAINING_PICTURES
from ..training_pictures import TrainingPictures, read_training_pictures
from .manifest import (
    ADVICE,
    ARRAYS,
    MANIFEST,
    TARGETS,
    Contents,
    Listed,
    Variant,
    check_fields,
    native_files,
    parse_manifest,
)
from .onnx_safety import scan_onnx_external

B = TypeVar("B", bound="Bundle")

_MANIFEST_LIMIT = 1 << 24  # bytes
# What of a manifest a run does not take: how the engines came about, and which others there are.
_NOT_RUN = frozenset({"graphs", "files", "seal", "versions", "lineage", "end_to_end"})
_JUNCTION = 0xA0000003  # IO_REPARSE_TAG_MOUNT_POINT; the module stat has it on Windows only


@dataclass(frozen=True, kw_only=True, eq=False)
class Bundle(Contents):
    """An opened bundle.

    Attributes
    ----------
    folder : Path
        Absolute.
    manifest : dict
        The whole of manifest.json; what is not repeated below is free-form and unchecked but for being an object.
    hash : str
        SHA-256 of manifest.json, and by the hashes in there of the whole bundle; another one once engines were added.
        See :meth:`content_hash` for what a run depends on.
    version : int
        Of the schema.
    models_name, models_hash, checkpoint_hash : str
        What it was exported from.
    subject, preset : str
        Whose responses it decodes; the layer preset of the structure.
    layout : ResponseLayout
        What one trial's responses are: modality, shape, regions or channels, rate.
    image_size : int
        Side of a picture in pixels.
    shapes : dict
        Of one trial's "context", "latent", "structure" and perhaps "semantic".
    sampling : Sampling
        How its pictures were sampled when it was verified, and are unless a run chooses otherwise.
    noise : Noise
        The networks' noise schedule.
    files : dict
        Size and SHA-256 by path inside the bundle.
    graphs : dict
        By name; not every bundle holds every graph, see :meth:`require`.
    candidates : Candidates or None
        The concepts by way of which the context is found; None where it is decoded directly.
    leaks : tuple of str
        Those that its checkpoint was fitted with on purpose; see :mod:`~minddiffuser.runtime.leaks`.
    split : Split or None
        How its checkpoint's training pictures were chosen, where it was not by the data's own split.
    """

    folder: Path
    manifest: dict[str, Any]
    hash: str
    version: int

    @classmethod
    def open(
        cls, folder: Path | str, *, verify: bool = True, on_damaged: Callable[[str, str], None] | None = None
    ) -> Self:
        """Open a bundle and check everything that can be checked without running it.

        Parameters
        ----------
        folder : path
            As ``md-export bundle`` wrote it.
        verify : bool
            Whether to read every file and compare its SHA-256. Everything else is checked in any case.
        on_damaged : callable or None
            Built engines can be built again: those that are missing or damaged are left out of the bundle, and this is
            called with the path inside the bundle of each, and the reason. None refuses the bundle.

        Raises
        ------
        FileError
            Missing, damaged, changed, incomplete, of another kind or a newer version, or reaching out of its folder.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileError(f"the bundle {folder} is not a folder: give the folder that md-export bundle wrote")
        found = cls.described(folder)
        if on_damaged is not None:
            found = _without_damaged(found, on_damaged, hashes=verify)
        check_files(found.folder, found.files, hashes=verify)
        _check_external(found.variants)
        return found

    @classmethod
    def described(cls, folder: Path) -> Self:
        """A bundle as its manifest describes it, whatever its files are: to see what is lost with it, never to run it.

        Raises
        ------
        FileError
            The manifest is missing, damaged, of another kind or a newer version.
        """
        folder = folder.resolve()
        data = _read_manifest(folder)
        manifest = parse_manifest(data, folder / MANIFEST)
        contents = check_fields(manifest, folder / MANIFEST)
        digest = hashlib.sha256(data).hexdigest()
        return cls(folder=folder, manifest=manifest, hash=digest, version=manifest["version"], **vars(contents))

    @property
    def variants(self) -> list[Variant]:
        """Every engine, graph by graph."""
        return [variant for graph in self.graphs.values() for variant in graph.variants]

    @property
    def size_bytes(self) -> int:
        """Of the files that the manifest lists."""
        return sum(file.size for file in self.files.values())

    @property
    def signal_folder(self) -> Path:
        """Where the files lie that the layout's signal chain names."""
        return self.folder / SIGNAL_FOLDER

    def require(self, *graphs: str) -> None:
        """Raise :class:`FileError` unless the bundle holds all these graphs."""
        missing = [name for name in graphs if name not in self.graphs]
        if missing:
            wanted = " ".join(dict.fromkeys((*self.graphs, *missing)))
            raise FileError(
                f"the bundle {self.folder} lacks the graph{'s' * (len(missing) > 1)} {', '.join(missing)}: export it "
                f"with them (md-export bundle … --graphs {wanted})"
            )

    def flops(self, *graphs: str) -> dict[str, int]:
        """Floating-point operations of these networks' graphs, by name, each for one trial.

        Raises
        ------
        FileError
            The bundle lacks a graph.
        InputError
            It was exported before operations were counted.
        """
        self.require(*graphs)
        found = {name: flops for name in graphs if (flops := self.graphs[name].flops) is not None}
        if len(found) < len(graphs):
            raise InputError(
                f"the bundle {self.folder} was exported before the cost of its graphs was counted: export it again "
                "with md-export bundle"
            )
        return found

    def path(self, name: str) -> Path:
        """Where a listed file lies, by its path inside the bundle; :class:`FileError` if the bundle lacks it."""
        if name not in self.files:
            raise FileError(f"the bundle {self.folder} holds no {name}: {ADVICE}")
        return self.folder / name

    def content_hash(self, files: Iterable[str]) -> str:
        """SHA-256 of what a run takes from the bundle, which stays as it is when engines are added for other machines.

        Parameters
        ----------
        files
            The engines that are used, with their data, by their path inside the bundle; the arrays count in any case.
        """
        taken = {name: content for name, content in self.manifest.items() if name not in _NOT_RUN}
        hashes = {name: self.files[name].sha256 for name in {*files, ARRAYS}}
        return hash_of_json([taken, hashes], (",", ":"))

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """The constants, read at the first use.

        ``uncond_context`` (15, d_text) and ``context_bos`` (d_text,) float32; ``mask`` bool and ``score`` float32, both
        of the structure's shape; ``alphas_cumprod`` (n_train,) float64, falling within (0, 1]; ``mean`` and ``std``
        float32 of the training responses, of one trial's shape, std 0 marking a value that did not vary. Where the
        context is found by way of concepts, ``concept_context`` (n_candidates, 15, d_text) float32, that of each.
        Where the statistics were fitted again after the graphs had been made, ``built_in_mean`` and ``built_in_std``,
        those that the graphs z-score by.

        Raises
        ------
        FileError
            An array is missing, of another dtype or shape than the manifest says, or holds what it cannot.
        """
        path = self.path(ARRAYS)
        _plain_size(self.folder, ARRAYS)
        arrays = read_tensors(path, "the bundle's arrays")
        context, structure = self.shapes["context"], self.shapes["structure"]
        expected = {
            "uncond_context": (np.float32, context),
            "context_bos": (np.float32, context[1:]),
            "mask": (np.bool_, structure),
            "score": (np.float32, structure),
            "alphas_cumprod": (np.float64, (-1,)),
            "mean": (np.float32, self.layout.shape),
            "std": (np.float32, self.layout.shape),
        }
        if self.candidates is not None:
            expected["concept_context"] = (np.float32, (len(self.candidates.names), *context))
        if {"built_in_mean", "built_in_std"} & arrays.keys():
            expected |= dict.fromkeys(("built_in_mean", "built_in_std"), (np.float32, self.layout.shape))
        check_arrays(arrays, path, expected, ADVICE)
        alphas = arrays["alphas_cumprod"]
        if not (alphas.size and 0 < alphas[-1] and alphas[0] <= 1 and (np.diff(alphas) < 0).all()):
            raise FileError(f"{path}: array 'alphas_cumprod' does not fall within (0, 1]: {ADVICE}")
        for name in ("std", "built_in_std"):
            if name in expected and (arrays[name] < 0).any():
                raise FileError(f"{path}: array {name!r} holds negative values: {ADVICE}")
        return {name: arrays[name] for name in expected}

    @cached_property
    def training_pictures(self) -> TrainingPictures | None:
        """The table of the training pictures, read at the first use; None where the bundle has none.

        Raises
        ------
        FileError
            It is damaged, or does not fit the manifest.
        """
        if TRAINING_PICTURES not in self.files:
            return None
        _plain_size(self.folder, TRAINING_PICTURES)
        return read_training_pictures(self.path(TRAINING_PICTURES), self.shapes, ADVICE)


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST
    if not os.path.lexists(path):
        advice = "give the folder that md-export bundle wrote"
        if (folder / "checkpoint.json").exists():
            advice = "it is a checkpoint, make a bundle of it with md-export bundle"
        raise FileError(f"the folder {folder} is not a bundle (it has no {MANIFEST}): {advice}")
    if _plain_size(folder, MANIFEST) > _MANIFEST_LIMIT:
        raise FileError(f"{path} is larger than a manifest can be ({_MANIFEST_LIMIT} bytes): {ADVICE}")
    try:
        with open(path, "rb") as file:
            return file.read(_MANIFEST_LIMIT)
    except OSError as error:
        raise FileError(_cannot_read(path, error)) from error


def _without_damaged(bundle: B, on_damaged: Callable[[str, str], None], *, hashes: bool) -> B:
    """The same without the built engines of which a file is missing or damaged."""
    folder, files = bundle.folder, bundle.files
    damaged: set[str] = set()
    variants = bundle.variants
    for name in sorted({name for variant in variants for name in native_files(variant, folder, files)}):
        try:
            check_files(folder, {name: files[name]}, hashes=hashes)
        except FileError as error:
            damaged.add(name)
            on_damaged(name, str(error))

    def whole(variant: Variant) -> bool:
        return damaged.isdisjoint(native_files(variant, folder, files))

    gone = {n for v in variants if not whole(v) for n in native_files(v, folder, files)}
    return replace(
        bundle,
        files={name: file for name, file in files.items() if name not in gone},
        graphs={
            name: replace(graph, variants=tuple(v for v in graph.variants if whole(v)))
            for name, graph in bundle.graphs.items()
        },
    )


def check_files(folder: Path, files: Mapping[str, Listed], *, hashes: bool) -> None:
    """Raise :class:`FileError` unless these are plain files of the listed sizes and, with `hashes`, the listed SHA-256.

    All sizes are compared first: that is fast, and tells of a copy that was cut off.
    """
    for name, expected in sorted(files.items()):
        size = _plain_size(folder, name)
        if size != expected.size:
            raise FileError(f"{folder / name} has {size} bytes, the manifest says {expected.size}: {_advice(name)}")
    for name, expected in sorted(files.items()) if hashes else ():
        if sha256_of(folder / name) != expected.sha256:
            raise FileError(f"{folder / name} is damaged or was changed (its SHA-256 differs): {_advice(name)}")


def _advice(name: str) -> str:
    """What to do about a file: a built engine can be built again from the bundle itself."""
    target = name.split("/")[1] if name.startswith("engines/") and name.count("/") > 1 else ""
    return f"build it again with md-export build --target {target}, or {ADVICE}" if target in TARGETS else ADVICE


def _plain_size(folder: Path, name: str) -> int:
    """Size of a plain file that no link leads to: neither can it hang when opened, nor lie elsewhere."""
    path = folder
    for part in name.split("/"):
        path = path / part
        try:
            state = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise FileError(f"the bundle {folder} lacks {name}: {_advice(name)}") from None
        except OSError as error:
            raise FileError(_cannot_read(path, error)) from error
        if _is_link(state):
            raise FileError(
                f"{path} is a link, and a bundle holds plain files only: copy it with the files that its links "
                "point to (cp -rL BUNDLE COPY) and give the copy"
            )
    if not stat.S_ISREG(state.st_mode):
        raise FileError(f"{path} is not a plain file: {ADVICE}")
    return state.st_size


def _is_link(state: os.stat_result) -> bool:
    # A junction of Windows leads elsewhere as a link does, but is none to S_ISLNK.
    return stat.S_ISLNK(state.st_mode) or getattr(state, "st_reparse_tag", 0) == _JUNCTION


def _cannot_read(path: Path, error: OSError) -> str:
    return f"{path} cannot be read ({error.strerror}): check its permissions, or {ADVICE}"


def _check_external(variants: Iterable[Variant]) -> None:
    """Refuse an ONNX graph that takes weights from any other file than its variant names."""
    named: dict[Path, frozenset[str]] = {}
    for variant in variants:
        if variant.file.suffix != ".onnx":
            continue
        if variant.file not in named:
            named[variant.file] = scan_onnx_external(variant.file)
        known = {file.name for file in variant.data if file.parent == variant.file.parent}
        for name in sorted(named[variant.file] - known):
            raise FileError(
                f"{variant.file} takes weights from {shown(name)}, expected only files beside it that the manifest "
                f"names for it: it is damaged, or made to read other files of yours; {ADVICE}"
            )
