"""A bundle folder: verified engines and arrays with a manifest, as md-export writes it and both stages run from it.

manifest.json        what it was made of and for, every file's SHA-256 and size, graphs and their engines
arrays.safetensors   the constants of decoding, sampling and scoring; see :attr:`Bundle.arrays`
parity.safetensors   inputs and outputs by which the engines can be verified again
engines/             .onnx graphs, .bin weights that they share, and built engines in a folder per target

A bundle may come from a stranger: nothing in it is parsed before paths, sizes, hashes and types are checked. Only files
that the manifest lists are ever opened, whatever else lies in the folder.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .bundle_schema import ADVICE, ARRAYS, MANIFEST, Graph, Listed, Variant, check_fields, parse_manifest, shown
from .errors import FileError
from .files import read_tensors, sha256_of
from .onnx_safety import scan_onnx_external

Array = NDArray[Any]

_MANIFEST_LIMIT = 1 << 24  # bytes
_JUNCTION = 0xA0000003  # IO_REPARSE_TAG_MOUNT_POINT; the module stat has it on Windows only


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle.

    Attributes
    ----------
    folder : Path
        Absolute.
    manifest : dict
        The whole of manifest.json; what is not repeated below is free-form and unchecked but for being an object.
    hash : str
        SHA-256 of manifest.json, and by the hashes in there of the whole bundle.
    version : int
        Of the schema.
    models_name, models_hash, checkpoint_hash : str
        What it was exported from.
    subject, modality, preset : str
        Whose responses it decodes, of what kind; the layer preset of the structure.
    image_size, n_voxels : int
        Side of a picture in pixels; width of the responses.
    rois : dict or None
        Name to (start, stop) in the voxel axis; None where an earlier release kept none.
    shapes : dict
        Of one trial's "context", "latent", "structure" and perhaps "semantic".
    files : dict
        Size and SHA-256 by path inside the bundle.
    graphs : dict
        By name; not every bundle holds every graph, see :meth:`require`.
    """

    folder: Path
    manifest: dict[str, Any]
    hash: str
    version: int
    models_name: str
    models_hash: str
    checkpoint_hash: str
    subject: str
    modality: str
    preset: str
    image_size: int
    n_voxels: int
    shapes: dict[str, tuple[int, ...]]
    files: dict[str, Listed]
    graphs: dict[str, Graph]
    rois: dict[str, tuple[int, int]] | None = None

    @classmethod
    def open(cls, folder: Path | str, *, verify: bool = True) -> Self:
        """Open a bundle and check everything that can be checked without running it.

        Parameters
        ----------
        folder : path
            As ``md-export bundle`` wrote it.
        verify : bool
            Whether to read every file and compare its SHA-256. Everything else is checked in any case.

        Raises
        ------
        FileError
            Missing, damaged, changed, incomplete, of another kind or a newer version, or reaching out of its folder.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileError(f"the bundle {folder} is not a folder: give the folder that md-export bundle wrote")
        folder = folder.resolve()
        data = _read_manifest(folder)
        manifest = parse_manifest(data, folder / MANIFEST)
        contents = check_fields(manifest, folder / MANIFEST)
        _check_files(folder, contents.files, hashes=verify)
        _check_external(variant for graph in contents.graphs.values() for variant in graph.variants)
        digest = hashlib.sha256(data).hexdigest()
        return cls(folder=folder, manifest=manifest, hash=digest, version=manifest["version"], **vars(contents))

    @property
    def size_bytes(self) -> int:
        """Of the files that the manifest lists."""
        return sum(file.size for file in self.files.values())

    def require(self, *graphs: str) -> None:
        """Raise :class:`FileError` unless the bundle holds all these graphs."""
        missing = [name for name in graphs if name not in self.graphs]
        if missing:
            wanted = " ".join(dict.fromkeys((*self.graphs, *missing)))
            raise FileError(
                f"the bundle {self.folder} lacks the graph{'s' * (len(missing) > 1)} {', '.join(missing)}: export it "
                f"with them (md-export bundle … --graphs {wanted})"
            )

    def path(self, name: str) -> Path:
        """Where a listed file lies, by its path inside the bundle; :class:`FileError` if the bundle lacks it."""
        if name not in self.files:
            raise FileError(f"the bundle {self.folder} holds no {name}: {ADVICE}")
        return self.folder / name

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """The constants, read at the first use.

        ``uncond_context`` (15, d_text) and ``context_bos`` (d_text,) float32; ``mask`` bool and ``score`` float32, both
        of the structure's shape; ``alphas_cumprod`` (n_train,) float64, falling within (0, 1]; ``mean`` and ``std``
        (n_voxels,) float32 of the training responses, std 0 marking a voxel that did not vary.

        Raises
        ------
        FileError
            An array is missing, of another dtype or shape than the manifest says, or holds what it cannot.
        """
        path = self.path(ARRAYS)
        _plain_size(self.folder, ARRAYS)
        arrays = read_tensors(path, "the bundle's arrays")
        context, structure = self.shapes["context"], self.shapes["structure"]
        return _check_arrays(
            arrays,
            path,
            {
                "uncond_context": (np.float32, context),
                "context_bos": (np.float32, context[1:]),
                "mask": (np.bool_, structure),
                "score": (np.float32, structure),
                "alphas_cumprod": (np.float64, None),
                "mean": (np.float32, (self.n_voxels,)),
                "std": (np.float32, (self.n_voxels,)),
            },
        )


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST
    if not os.path.lexists(path):
        told = "give the folder that md-export bundle wrote"
        if (folder / "checkpoint.json").exists():
            told = "it is a checkpoint, make a bundle of it with md-export bundle"
        raise FileError(f"the folder {folder} is no bundle (it has no {MANIFEST}): {told}")
    if _plain_size(folder, MANIFEST) > _MANIFEST_LIMIT:
        raise FileError(f"{path} is larger than a manifest can be ({_MANIFEST_LIMIT} bytes): {ADVICE}")
    try:
        with open(path, "rb") as file:
            return file.read(_MANIFEST_LIMIT)
    except OSError as error:
        raise FileError(_cannot_read(path, error)) from error


def _check_files(folder: Path, files: Mapping[str, Listed], *, hashes: bool) -> None:
    """Compare all sizes first: that is fast, and tells of a copy that was cut off."""
    for name, expected in sorted(files.items()):
        size = _plain_size(folder, name)
        if size != expected.size:
            raise FileError(f"{folder / name} has {size} bytes, the manifest says {expected.size}: {ADVICE}")
    for name, expected in sorted(files.items()) if hashes else ():
        if sha256_of(folder / name) != expected.sha256:
            raise FileError(f"{folder / name} is damaged or was changed (its SHA-256 differs): {ADVICE}")


def _plain_size(folder: Path, name: str) -> int:
    """Size of a plain file that no link leads to: neither can it hang when opened, nor lie elsewhere."""
    path = folder
    for part in name.split("/"):
        path = path / part
        try:
            state = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise FileError(f"the bundle {folder} lacks {name}: {ADVICE}") from None
        except OSError as error:
            raise FileError(_cannot_read(path, error)) from error
        if _is_link(state):
            raise FileError(f"{path} is a link, and a bundle holds plain files only: {ADVICE}")
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


def _check_arrays(
    arrays: Mapping[str, Array], path: Path, expected: Mapping[str, tuple[type, tuple[int, ...] | None]]
) -> dict[str, Array]:
    for name, (dtype, shape) in expected.items():
        array = arrays.get(name)
        if array is None or array.dtype != dtype or (array.ndim != 1 if shape is None else array.shape != shape):
            got = "missing" if array is None else f"{array.dtype} {array.shape}"
            wanted = f"{np.dtype(dtype)} {'of one dimension' if shape is None else shape}"
            raise FileError(f"{path}: array {name!r} is {got}, expected {wanted}: {ADVICE}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FileError(f"{path}: array {name!r} holds NaN or infinite values: {ADVICE}")
    alphas = arrays["alphas_cumprod"]
    if not (alphas.size and 0 < alphas[-1] and alphas[0] <= 1 and (np.diff(alphas) < 0).all()):
        raise FileError(f"{path}: array 'alphas_cumprod' does not fall within (0, 1]: {ADVICE}")
    if (arrays["std"] < 0).any():
        raise FileError(f"{path}: array 'std' holds negative values: {ADVICE}")
    return {name: arrays[name] for name in expected}
