"""A checkpoint and a bundle with another normaliser: every other file is a copy, and every hash is right.

A bundle's graphs have the statistics of the fit built into them, some in engines that were built for one machine. They
stay as they are. Beside the new statistics the bundle keeps those that are built in, and responses are brought from the
one to the other before a graph sees them (:mod:`~minddiffuser.runtime.decoders.bundle`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.bundle.manifest import ARRAYS, MANIFEST, PARITY, sealed
from ...runtime.bundle.open import Bundle
from ...runtime.decoders.checkpoint import Checkpoint, open_checkpoint
from ...runtime.decoders.files import DESCRIPTION, file_name
from ...runtime.decoders.scale import TrainingStatistics
from ...runtime.errors import InputError
from ...runtime.files import read_tensors, sha256_of, write_json, write_tensors

_NORMALISER = file_name("normaliser")


def write_checkpoint(
    checkpoint: Checkpoint, statistics: TrainingStatistics, about: Mapping[str, Any], folder: Path
) -> Checkpoint:
    """Write a checkpoint into a new folder; `about` says where the statistics come from."""
    files = dict(checkpoint.description["files"])
    for name in files:
        if name != _NORMALISER:
            _copy(checkpoint.folder / name, folder / name)
    write_tensors(folder / _NORMALISER, {"mean": statistics.mean, "std": statistics.std})
    files[_NORMALISER] = sha256_of(folder / _NORMALISER)
    provenance = {**checkpoint.description["provenance"], "calibration": dict(about)}
    write_json(folder / DESCRIPTION, {**checkpoint.description, "files": files, "provenance": provenance})
    return open_checkpoint(folder)


def require_bundle_of(bundle: Bundle, checkpoint: Checkpoint) -> None:
    """Refuse a bundle that was made of another checkpoint.

    Raises
    ------
    InputError
        It was.
    """
    if bundle.checkpoint_hash != checkpoint.hash:
        raise InputError(
            f"the bundle {bundle.folder} was made of another checkpoint (hash {bundle.checkpoint_hash[:12]}) than "
            f"{checkpoint.folder} (hash {checkpoint.hash[:12]}): give both of one fit"
        )


def write_bundle(bundle: Bundle, calibrated: Checkpoint, folder: Path) -> Bundle:
    """Write a bundle of a calibrated checkpoint into a new folder."""
    for name in bundle.files:
        if name not in (ARRAYS, PARITY):
            _copy(bundle.folder / name, folder / name)
    arrays = read_tensors(bundle.folder / ARRAYS, "the bundle's arrays")
    before = TrainingStatistics(mean=arrays["mean"], std=arrays["std"])
    built_in = {f"built_in_{name}": arrays.get(f"built_in_{name}", arrays[name]) for name in ("mean", "std")}
    after = calibrated.training
    write_tensors(folder / ARRAYS, {**arrays, **built_in, "mean": after.mean, "std": after.std})
    if PARITY in bundle.files:
        parity = read_tensors(bundle.folder / PARITY, "the bundle's reference")
        if "responses" in parity:  # such as are the same as before for the graphs, so that the pictures are too
            parity["responses"] = (after.mean + after.std * before.scores(parity["responses"])).astype(np.float32)
        write_tensors(folder / PARITY, parity)
    manifest = json.loads(json.dumps(bundle.manifest))
    manifest["checkpoint"] |= {"hash": calibrated.hash, "provenance": calibrated.description["provenance"]}
    manifest["lineage"] |= {"source_checkpoint": calibrated.hash, "calibrated_from": bundle.hash}
    for name in manifest["files"]:
        path = folder / name
        manifest["files"][name] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    write_json(folder / MANIFEST, sealed(manifest))
    return Bundle.open(folder)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
