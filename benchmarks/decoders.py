"""Decoding as each contestant does it: our numpy decoders, a bundle's graphs, one dense matrix product."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tables import Job

from minddiffuser.runtime.decoders.belonging import Decoded
from minddiffuser.runtime.decoders.bundle import BundleDecoder
from minddiffuser.runtime.decoders.checkpoint import Checkpoint, open_checkpoint
from minddiffuser.runtime.decoders.linear import Linear
from minddiffuser.runtime.engines.open import EngineSet
from minddiffuser.runtime.errors import InputError

NUMPY, GRAPHS, DENSE = "minddiffuser, numpy", "minddiffuser, ONNX Runtime", "dense product, PyTorch"
DECODE = "decoders, a trial"
# A dense weight above this is not made: the paper's subjects would need gigabytes.
MOST_BYTES = 2 << 30


def decoder_job(folder: Path, engines: EngineSet, n: int) -> Job:
    """All targets of n trials, drawn from the training statistics.

    Raises
    ------
    InputError
        The bundle was made from another checkpoint.
    """
    checkpoint = open_checkpoint(folder)
    if engines.bundle.checkpoint_hash != checkpoint.hash:
        raise InputError(f"the bundle {engines.bundle.folder} was not made from the checkpoint {folder}: give that one")
    mean, std = checkpoint.statistics
    noise = np.random.default_rng(0).standard_normal((n, *checkpoint.layout.shape), dtype=np.float32)
    responses = mean + std * noise
    bundle = BundleDecoder(engines.bundle, engines)
    contestants: dict[str, Callable[[], Any]] = {
        NUMPY: lambda: {"decoded": _flat(checkpoint.decode(responses, screened=True))},
        GRAPHS: lambda: {"decoded": _flat(bundle.decode(responses, screened=True))},
    }
    if _dense_bytes(checkpoint) <= MOST_BYTES:
        product = dense(checkpoint)
        contestants[DENSE] = lambda: {"decoded": product(responses)}
    return Job(name=DECODE, batch=n, contestants=contestants, parts=n)


def dense(checkpoint: Checkpoint) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Every target as one matrix with zeros where a voxel was not selected."""
    weights, offsets, n_values = [], [], checkpoint.layout.n_features
    for name, shape in checkpoint.shapes.items():
        decoder = checkpoint.decoders[name]
        if not isinstance(decoder, Linear):
            raise InputError(f"the decoder of {name} is no linear one, which alone is a matrix: fit it with the ridge")
        place = decoder.placement
        scale = place.std[place.position]
        weight = np.zeros((place.mean.size, n_values), np.float32)
        offset = place.mean.copy()
        rows = np.zeros((len(scale), n_values), np.float32)
        np.put_along_axis(rows, decoder.index.astype(np.intp), decoder.weight * scale[:, None], axis=1)
        weight[place.position] = rows
        offset[place.position] += decoder.bias * scale
        if name == "context":
            weight[: shape[1]], offset[: shape[1]] = 0, checkpoint.context_bos
        weights.append(weight)
        offsets.append(offset)
    matrix, constant = torch.from_numpy(np.concatenate(weights).T.copy()), torch.from_numpy(np.concatenate(offsets))

    def product(responses: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = checkpoint.training.scores(responses).reshape(len(responses), -1)
        found: NDArray[np.float32] = torch.addmm(constant, torch.from_numpy(rows), matrix).numpy()
        return found

    return product


def _dense_bytes(checkpoint: Checkpoint) -> int:
    return 4 * checkpoint.layout.n_features * sum(int(np.prod(shape)) for shape in checkpoint.shapes.values())


def _flat(decoded: Decoded) -> NDArray[np.float32]:
    """Targets side by side, (n, sum of sizes), in the order of a checkpoint's shapes."""
    arrays = (decoded.context, decoded.latent, decoded.structure, decoded.semantic)
    return np.concatenate([a.reshape(len(a), -1) for a in arrays if a is not None], axis=1)
