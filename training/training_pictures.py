"""The table of the training pictures that a fit leaves for the controls of its runs.

See :mod:`~minddiffuser.runtime.training_pictures` for what it holds. Features are read in blocks of pictures, each once
but for the latents, of which the mean is taken first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.files import read_tensors
from ..runtime.training_pictures import FEATURES, FILE, WIDTH, Sketch
from .datasets.base import Data, picture_digests, pictures_shown
from .normalise import column_statistics
from .pieces import Job

Array = NDArray[Any]
SEED = 0
"""Of the sketches."""
_AT_ONCE = 64


def write_training_pictures(job: Job, features: Mapping[str, Array], positions: Mapping[str, NDArray[np.intp]]) -> None:
    """Write training_pictures.safetensors, unless it is there.

    Parameters
    ----------
    job : Job
        Its candidates of the context, where there are any, are written.
    features : feature -> (n_stimuli, …)
        What decoders are fitted to.
    positions : feature -> (m,)
        The dimensions of each that are decoded.
    """
    if FILE in job.journal.files:
        return
    # Each picture once, however often it was shown and under however many numbers.
    shown = np.unique(pictures_shown(job.data, "train"))
    arrays: dict[str, Array] = {
        "number": _numbers(job.data, len(features["latent"]))[shown],
        "pixels": _pixels(job.data, shown),
    }
    for name in (name for name in FEATURES if name in features):
        rows = features[name].reshape(len(features[name]), -1)
        mean, std = column_statistics(rows, job.stimulus)
        varying = positions[name][std[positions[name]] > 0]
        if len(varying) == 0:  # such as a structure of which the mask keeps nothing
            continue
        sketch = made_sketch(varying, mean, std, seed=[SEED, FEATURES.index(name)])
        for part in ("position", "mean", "std", "sign"):
            arrays[f"{name}.{part}"] = getattr(sketch, part)
        table = [sketch(block) for _, block in _blocks(rows, shown)]
        arrays[f"{name}.table"] = np.concatenate(table).astype(np.float16)
        job.progress("training pictures", FEATURES.index(name) + 1, len(FEATURES))
    job.progress("training pictures", len(FEATURES), len(FEATURES))
    arrays["typical.context"] = _typical_context(job, features, shown)
    latent = features["latent"]
    total = sum(block.sum(axis=0, dtype=np.float64) for _, block in _blocks(latent, shown))
    arrays["mean.latent"] = (total / len(shown)).astype(np.float32)
    job.journal.write(FILE, arrays)


def made_sketch(position: NDArray[np.intp], mean: Array, std: Array, *, seed: Any) -> Sketch:
    """A sketch of these dimensions of a feature, whose `mean` and `std` are of all its dimensions."""
    rng, sign = np.random.default_rng(seed), np.ones(len(position), np.int8)
    if len(position) > WIDTH:
        position = rng.permutation(position)
        sign = rng.choice(np.array([-1, 1], np.int8), len(position))
    return Sketch(
        position=position.astype(np.int32),
        mean=np.asarray(mean[position], np.float32),
        std=np.asarray(std[position], np.float32),
        sign=sign,
        width=min(len(position), WIDTH),
    )


def medoid(rows: NDArray[np.float64]) -> int:
    """The row of (n, d) that is nearest to the mean of all, the first of equally near ones."""
    return int(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).argmin())


def _typical_context(job: Job, features: Mapping[str, Array], shown: NDArray[np.intp]) -> Array:
    """The medoid of the training pictures' contexts; of the candidates' where the context is found by way of these.

    The mean of contexts is the context of no caption, and a diffusion model draws something washed out from it: a floor
    that is too easy to beat. The medoid is a caption's own.
    """
    if "context" in features:
        contexts = np.asarray(features["context"][shown], np.float64)
    else:
        from ..runtime.candidates import FIELD
        from ..runtime.decoders.files import file_name

        contexts = read_tensors(job.journal.folder / file_name(FIELD), "the concepts")["context"].astype(np.float64)
    typical: Array = contexts[medoid(contexts[:, 1:].reshape(len(contexts), -1))].astype(np.float32)
    if "context" in features:  # token 0 is what decoding gives
        typical[0] = read_tensors(job.journal.folder / "constants.safetensors", "the constants")["context_bos"]
    return typical


def _blocks(rows: Array, shown: NDArray[np.intp]) -> Iterator[tuple[int, Array]]:
    for at in range(0, len(shown), _AT_ONCE):
        yield at, np.asarray(rows[shown[at : at + _AT_ONCE]], np.float32)


def _numbers(data: Data, n_stimuli: int) -> NDArray[np.int32]:
    """Of each stimulus of the train split its number in the data folder's own train split, -1 where it has none."""
    if hasattr(data, "old_numbers"):
        return np.array(data.old_numbers("train"), np.int32)
    return np.arange(n_stimuli, dtype=np.int32)


def _pixels(data: Data, shown: NDArray[np.intp]) -> NDArray[np.uint8]:
    """The SHA-256 of each picture's pixels, (n, 32)."""
    digests = picture_digests(data, "train", shown.tolist())
    return np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(len(digests), 32)
