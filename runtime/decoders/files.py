"""The files of a checkpoint folder: what fitting writes and decoding reads.

checkpoint.json         what it was fitted on and for, the layout of the responses, shapes, settings, the list of
                        decoders with the features that each gives, and the SHA-256 of every other file
normaliser              mean, std of one trial's shape, of the training responses; std 0: a value that did not vary
<feature>[-<feature>]   the arrays of one decoder, by its kind: see linear.py and network.py; where the context is found
                        by way of concepts, "embedding" has a decoder in its place
concepts                the candidates of that: see concepts.py; only there
constants               context_bos (d_text,), uncond_context (15, d_text)
voxels                  where the voxels of fMRI lie: see :mod:`~minddiffuser.runtime.data.voxels`; may be absent
signal/                 the files that the layout's signal chain names, such as a whitening matrix
scores.json, .svg       how well each feature is decoded on held-out training trials; may be absent
curves.json, .svg       the losses of every epoch of the networks' training; may be absent
training_pictures       of the pictures of training, for controls: see runtime/training_pictures.py; may be absent
mask                    mask bool and score float32, both of the structure's shape; the layer preset as metadata
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..candidates import FIELD as CONCEPTS
from ..candidates import Candidates, candidates_of
from ..data.chain_files import listed_files
from ..data.layout import ResponseLayout
from ..data.voxels import VOXELS, read_voxels
from ..errors import FileError, InputError
from ..features import EMBEDDING, FEATURES, REQUIRED_FEATURES, TARGET_RANKS, TARGETS
from ..fields import Field
from ..files import Array, Expected, check_format, read_json, read_metadata, sha256_of
from ..leaks import FIELD as LEAKS
from ..leaks import read_leaks
from ..split import FIELD as SPLIT
from ..split import read_split
from ..training_pictures import FILE as TRAINING_PICTURES
from . import KINDS
from .base import ADVICE, read_arrays

KIND = "checkpoint"
VERSION = 2
DESCRIPTION = "checkpoint.json"
# Decoding does not need them: scores and curves are for people, places of voxels for comparing, training pictures for
# controls.
OPTIONAL_FILES = {"scores.json", "scores.svg", "curves.json", "curves.svg", VOXELS, TRAINING_PICTURES}


def file_name(part: str) -> str:
    """The file of "normaliser", "constants", "mask" or a decoder; see :func:`decoder_part`."""
    return f"{part}.safetensors"


def decoder_part(features: Sequence[str]) -> str:
    """The name of a decoder's file, by the features that it gives."""
    return "-".join(features)


def read_description(folder: Path) -> dict[str, Any]:
    """Read and check checkpoint.json.

    Raises
    ------
    FileError
        Missing, damaged, of another kind or version, or with a field that cannot be used.
    """
    if not folder.is_dir():
        raise FileError(
            f"{folder} is not a folder: give the checkpoint that md-train fit wrote, or the bundle of md-export bundle"
        )
    path = folder / DESCRIPTION
    if not path.exists() and (folder / "fit.json").exists():
        raise FileError(f"the checkpoint {folder} is not finished: run the same md-train fit command again")
    content = read_json(path, "the checkpoint's description")
    if content.get("format") == f"minddiffuser-{KIND}" and content.get("version") == 1:
        raise FileError(
            f"{path} has checkpoint version 1, of before the first release, and this one reads version {VERSION}: fit "
            "it again with md-train fit"
        )
    check_format(content, path, KIND, VERSION)
    _check_fields(content, path)
    return content


def _check_fields(content: Mapping[str, Any], path: Path) -> None:
    top = Field(path, "", content, "fit the checkpoint again")
    for field in (top.get("subject"), top.get("preset"), *map(top.get("models").get, ("name", "hash"))):
        field.text()
    top.get("image_size").whole()
    read_leaks(top.get(LEAKS))
    read_split(top.get(SPLIT))
    shapes = top.get("shapes")
    if not set(REQUIRED_FEATURES) <= set(shapes.object()) <= set(TARGETS):
        shapes.refuse("one for each feature")
    for name in shapes.object():
        shapes.get(name).wholes(TARGET_RANKS[name], TARGET_RANKS[name])
    given: list[str] = []
    for decoder in top.get("decoders").items(1, len(FEATURES), "decoders"):
        decoder.get("kind").choice(KINDS)
        given += [name.choice(TARGETS) for name in decoder.get("features").items(1, len(FEATURES), "features")]
        decoder.get("fit").object()
    by_concepts = read_candidates(content, path) is not None
    if by_concepts != (EMBEDDING in shapes.object()):
        top.get(CONCEPTS).refuse("the candidates where there is a shape of 'embedding', and only there")
    if sorted(given) != sorted(set(shapes.object()) - ({"context"} if by_concepts else set())):
        what = "each feature of 'shapes' from exactly one of them"
        top.get("decoders").refuse(f"{what}, and none of context" if by_concepts else what)
    for name in ("selection", "provenance"):
        top.get(name).object()
    files, signal = top.get("files"), listed_files(_layout(content, path).signal)
    needed = {file_name(part) for part in parts(content)} | set(signal)
    if not needed <= set(files.object()) <= needed | OPTIONAL_FILES:
        files.refuse(f"exactly {', '.join(sorted(needed))}")
    for name, digest in signal.items():
        if files.get(name).value != digest:
            files.get(name).refuse("the SHA-256 that the signal chain states")


def parts(content: Mapping[str, Any]) -> list[str]:
    """Every file of a checkpoint besides its description."""
    decoders = (decoder_part(made["features"]) for made in content["decoders"])
    return ["normaliser", "constants", "mask", *decoders, *([CONCEPTS] if CONCEPTS in content else [])]


def read_candidates(content: Mapping[str, Any], path: Path) -> Candidates | None:
    """The concepts by way of which the context is found, by a checkpoint's description; None where there are none.

    Raises
    ------
    FileError
        The field is wrong.
    """
    return candidates_of(Field(path, CONCEPTS, content[CONCEPTS], ADVICE)) if CONCEPTS in content else None


def read_layout(folder: Path, content: Mapping[str, Any]) -> ResponseLayout:
    """What one trial's responses are, by a checkpoint's description and its voxels.safetensors.

    Raises
    ------
    FileError
        The field or the file is missing or wrong.
    """
    layout = _layout(content, folder / DESCRIPTION)
    if VOXELS not in content["files"]:
        return layout
    try:
        return replace(layout, voxels=read_voxels(folder, layout.shape[0]))
    except FileError as error:
        raise FileError(f"{error}: fit the checkpoint again") from error


def _layout(content: Mapping[str, Any], path: Path) -> ResponseLayout:
    return ResponseLayout.from_json(content.get("layout"), f"{path}, field 'layout'", ADVICE)


def verify_files(folder: Path, files: Mapping[str, str]) -> None:
    """Compare every file with its SHA-256.

    Raises
    ------
    FileError
        A file is missing, or its bytes are not those that were written.
    """
    for name, expected in sorted(files.items()):
        path = folder / name
        if not path.is_file():
            raise FileError(f"the checkpoint {folder} lacks {name}: copy the whole folder, or fit it again")
        if sha256_of(path) != expected:
            raise FileError(f"{path} is truncated or was changed (its SHA-256 differs): copy it again, or fit it again")


def read_part(folder: Path, part: str, expected: Expected) -> dict[str, Array]:
    """Read one file; see :func:`~.base.read_arrays`."""
    return read_arrays(folder / file_name(part), f"the checkpoint's {part}", expected)


def read_mask(folder: Path, shape: tuple[int, ...], preset: str) -> dict[str, Array]:
    """Read the mask and refuse one of another layer preset.

    Raises
    ------
    InputError
        The mask was selected on other layers than the checkpoint's decoder.
    """
    arrays = read_part(folder, "mask", {"mask": (np.bool_, shape), "score": (np.float32, shape)})
    stored = read_metadata(folder / file_name("mask")).get("preset")
    if stored != preset:
        raise InputError(
            f"the mask in {folder} was selected on the layer preset {stored!r}, the checkpoint is for {preset!r}: "
            "use the mask that was fitted with the checkpoint"
        )
    return arrays
