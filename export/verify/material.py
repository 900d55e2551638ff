"""What engines are verified and calibrated on: seeded random inputs, and what real decoders give on real responses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.bundle.graph_specs import BATCH
from ...runtime.data.folder import open_data
from ...runtime.decoders.belonging import Decoded
from ...runtime.decoders.checkpoint import Checkpoint
from ...runtime.decoders.screen import screen
from ...runtime.engines.base import Engine
from ...runtime.engines.ort.engine import as_numpy
from ...runtime.errors import InputError
from ...runtime.generators.diffusion import DiffusionGenerator
from ...runtime.generators.engines import EngineGenerator
from ...runtime.images import to_float
from ...runtime.models.models import Models
from ...runtime.refine import autograd
from ...runtime.refine.engines import EngineObjective
from ...runtime.refine.settings import AdamSettings
from ...runtime.refine.weights import StructuralWeights
from ...runtime.sampling import Sampling
from ..onnx.network_graph import NetworkGraph
from .pictures import GUIDED, SEED, guided_pictures, parity_noise

Feeds = dict[str, NDArray[np.float32]]
# Of the 35 denoising steps, those that a step's graphs are verified at: the first, two in between, the last.
STEPS = (0, 12, 24, 34)
# Trials are the clearest of so many times as many, where their contexts are chosen among candidates.
_CHOICE = 4
# This many trials are enough to check the scale of a data folder; a whole one may hold gigabytes.
SCREENED = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """Some trials: responses, what the checkpoint decodes from them, and the stimuli, where they are known.

    Attributes
    ----------
    responses : (n, *response_shape) float32
    stimuli : (n, 3, H, H) float32 in [0, 1], or None
    origin : str
        Where they come from, for the manifest.
    warnings : tuple of str
        Warnings about the data folder that they come from, a sentence each.
    """

    responses: NDArray[np.float32]
    decoded: Decoded
    stimuli: NDArray[np.float32] | None
    origin: str
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.responses)


def trials_for(
    checkpoint: Checkpoint,
    data: Path | None,
    counts: tuple[int, ...],
    *,
    stimuli_root: Path | None = None,
    seed: int = SEED,
) -> list[Trials]:
    """Draw disjoint sets of training trials, `counts` of them each.

    Parameters
    ----------
    data
        The data folder that the checkpoint was fitted on: trials of its *training* split are used, spread over the
        whole of it, and none that a run would skip.
        None draws responses from the training statistics instead, value by value: decoders then give what they give
        on noise of the right size. Where the context is that of the nearest of some concepts, those trials are drawn
        of which it is clearest which is the nearest: rounding of two engines may decide the others otherwise, and
        pictures of two different concepts compare concepts, not engines.
    stimuli_root
        The folder that holds the pictures of a data folder that only names them, where that is another one than it
        states.

    Raises
    ------
    InputError
        The data folder has too few trials, or too few good ones, is another subject's, has other voxels or channels or
        has them in another order, or its responses are not on the scale of those that the checkpoint was fitted on; or
        `stimuli_root` without a data folder.
    """
    if stimuli_root is not None and data is None:
        raise InputError(f"--stimuli-root {stimuli_root} is for the pictures of a data folder: give --data too")
    total, warnings = sum(counts), tuple[str, ...]()
    if data is None:
        mean, std = checkpoint.statistics
        pool = total if checkpoint.route is None else _CHOICE * total
        noise = np.random.default_rng(seed).standard_normal((pool, *mean.shape), dtype=np.float32)
        rows, stimuli, origin = (mean + std * noise).astype(np.float32), None, "drawn from the training statistics"
        rows = rows[_clearest(checkpoint, rows, total)]
    else:
        rows, stimuli, warnings = _from_folder(checkpoint, data, total, stimuli_root)
        origin = "training trials"
    bounds = np.cumsum((0, *counts))
    return [
        Trials(
            responses=rows[start:stop],
            decoded=checkpoint.decode(rows[start:stop], screened=True),  # engines get the same rows
            stimuli=None if stimuli is None else stimuli[start:stop],
            origin=origin,
            warnings=warnings,
        )
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]


def _from_folder(
    checkpoint: Checkpoint, data: Path, total: int, stimuli_root: Path | None
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, tuple[str, ...]]:
    folder = open_data(data, splits=("train",), stimuli_root=stimuli_root)
    checkpoint.require_subject(folder.subject)
    checkpoint.require_layout(folder.layout)
    responses = folder.responses("train")
    if len(responses) < total:
        raise InputError(
            f"the data folder {data} has {len(responses)} training trials, {total} are needed: leave --data out"
        )
    sample = _spread(len(responses), min(len(responses), SCREENED + total))
    screened = screen(responses[sample], checkpoint.training)
    good = np.array([row for row in range(len(sample)) if row not in screened.skipped])
    if len(good) < total:
        row, fault = next(iter(screened.skipped.items()))
        raise InputError(
            f"the data folder {data} has {len(good)} training trials that can be used, {total} are needed (trial "
            f"{sample[row]}: {fault}): leave --data out"
        )
    pool = total if checkpoint.route is None else min(len(good), _CHOICE * total)
    taken = good[_spread(len(good), pool)]
    taken = taken[_clearest(checkpoint, screened.responses[taken], total)]
    stimulus = folder.stimulus("train")[sample[taken]]
    stimuli = np.concatenate([to_float(folder.images("train", int(i), int(i) + 1)) for i in stimulus])
    return screened.responses[taken], stimuli if stimuli.shape[-1] == checkpoint.image_size else None, screened.warnings


def _clearest(checkpoint: Checkpoint, rows: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """`count` of the rows, in their order: those whose nearest concept is nearer than the next one by most."""
    if checkpoint.route is None or len(checkpoint.route.embedding) < 2:
        return np.arange(count)
    nearest = np.sort(checkpoint.similarities(rows), axis=1)
    return np.sort(np.argsort(nearest[:, -2] - nearest[:, -1], kind="stable")[:count])


def _spread(n: int, count: int) -> NDArray[np.intp]:
    """`count` of n indices, evenly spaced."""
    return np.linspace(0, n - 1, count).round().astype(np.intp)


@dataclass(eq=False)
class Reference:
    """The reference run of both stages over some trials, and what each graph was given on the way."""

    stage1: NDArray[np.float32]
    feeds: dict[str, list[Feeds]] = field(default_factory=dict)


def reference_run(
    checkpoint: Checkpoint,
    models: Models,
    engines: dict[str, Engine],
    trials: Trials,
    *,
    semantic: bool,
    backprop_steps: int | None = None,
) -> Reference:
    """Run stage 1 and one backward pass of stage 2, and keep what every graph is given at `STEPS`.

    Parameters
    ----------
    engines
        The reference's, by graph.
    semantic
        Whether gradients know the semantic term.
    backprop_steps
        How many denoising steps the backward pass goes back through; None: all.
    """
    decoded = trials.decoded
    noise = parity_noise(len(trials), models.latent_shape)
    watched = {name: _Watched(engine) for name, engine in engines.items()}
    generator = EngineGenerator(
        watched,
        models,
        decoded.latent,
        decoded.context,
        checkpoint.uncond_context,
        noise,
        backprop_steps=backprop_steps,
    )
    settings = AdamSettings(semantic_weight=0.1 if semantic else 0.0)
    objective = EngineObjective(watched, generator, decoded.structure, checkpoint.mask, settings, decoded.semantic)
    _, _, image = objective.value_and_gradient(generator.initial())
    recorded: dict[str, list[Feeds]] = {name: engine.kept for name, engine in watched.items()}
    recorded["vae_decode"] = [{"latent": recorded["structure_gradient"][0]["latent"]}]
    recorded["clip_structure"] = [{"image": image}]
    for name in ("denoise", "denoise_gradient"):
        count = len(recorded[name])
        recorded[name] = [recorded[name][step] for step in sorted({min(step, count - 1) for step in STEPS})]
    return Reference(stage1=image, feeds=recorded)


def reference_guided(checkpoint: Checkpoint, models: Models, trials: Trials) -> NDArray[np.float32]:
    """Pictures (n, 3, H, H) of a guided pass by autograd, with nothing of what computes on engines."""
    decoded, noise = trials.decoded, parity_noise(len(trials), models.latent_shape)
    start = (decoded.latent, decoded.context, checkpoint.uncond_context, noise)
    sampler = DiffusionGenerator(models, *start, sampling=GUIDED.sampling(Sampling()))

    def structural(x0: Any, target: NDArray[np.float32], weights: StructuralWeights) -> Any:
        return autograd.structural(models, x0, target, weights)

    return as_numpy(guided_pictures(sampler, structural, noise, decoded.structure, checkpoint.mask))


class _Watched:
    """An engine that keeps what it was given."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.inputs = engine.inputs
        self.kept: list[Feeds] = []

    def run(self, feeds: Any) -> dict[str, Any]:
        self.kept.append({name: as_numpy(array).astype(np.float32) for name, array in feeds.items()})
        return self._engine.run(feeds)

    def place(self, array: Any) -> Any:
        return self._engine.place(array)


def random_feeds(graph: NetworkGraph, checkpoint: Checkpoint, *, batch: int = 2, seed: int = 0) -> Feeds:
    """Seeded random inputs of a network graph with the checkpoint's own mask and unconditional context."""
    rng = np.random.default_rng([SEED, seed])
    fixed = {
        "step": np.array([401.0, 1.01, -0.05], np.float32),
        "guidance": np.array([5.0], np.float32),
        "semantic_weight": np.array([0.1], np.float32),
        "mask": checkpoint.mask.astype(np.float32),
        "uncond_context": checkpoint.uncond_context,
    }
    feeds: Feeds = {}
    for name, spec in graph.inputs.items():
        shape = [batch if size == BATCH else int(size) for size in spec.shape]
        drawn = rng.random(shape, np.float32) if name == "image" else rng.standard_normal(shape, np.float32)
        if name == "layer_weights":
            drawn = np.full(shape, 1 / shape[-1], np.float32)
        feeds[name] = fixed.get(name, drawn)
    return feeds
