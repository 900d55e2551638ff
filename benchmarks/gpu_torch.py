"""PyTorch's contestants on a GPU: eager, torch.compile, and the eager step recorded in a CUDA graph."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from full_size import random_models
from gpu import DECODE, ITERATION, LOOP, N_BACK, STEP, Works
from jobs import by_autograd
from rivals import GUIDANCE, TensorTimestep, compiled
from torch import Tensor
from trials import Trials, draw

from minddiffuser.runtime.backends.reference import guided_step
from minddiffuser.runtime.generators.ddim import ddim_schedule, step_table
from minddiffuser.runtime.models.models import Models

Given = dict[str, Tensor]
DEVICE = "cuda"


def eager(args: argparse.Namespace, batch: int, stack: ExitStack, dtype: str) -> Works:
    """Without compiling; convolutions in channels-last format, attention by PyTorch's fused kernels."""
    models, trials = networks(dtype), given_trials(batch)
    return _works(models, models, trials)


def with_compile(args: argparse.Namespace, batch: int, stack: ExitStack, dtype: str) -> Works:
    """The UNet and the VAE's decoder compiled; CLIP, which is hooked, stays eager."""
    # Weights of its own: the decoder's method is replaced.
    models = compiled(random_models(DEVICE, getattr(torch, dtype)), mode=args.compile_mode)
    return _works(models, replace(models, unet=TensorTimestep(models.unet)), given_trials(batch))


def with_cuda_graph(args: argparse.Namespace, batch: int, stack: ExitStack, dtype: str, kernels: str = "") -> Works:
    """The eager kernels recorded once and replayed, the 35 steps as one recording.

    `kernels` "timed" lets cuDNN choose each convolution's kernel by timing it.
    """
    models, trials = networks(dtype), given_trials(batch)
    given, table = inputs(trials), steps(models)
    with torch.backends.cudnn.flags(enabled=True, benchmark=kernels == "timed"):
        step, loop = _recorded(lambda: _step(models, given, table[0])), _recorded(lambda: _loop(models, given, table))
        decode = _recorded(lambda: _decode(models, given["latent"]))
    return {
        STEP: lambda: {"latent": step()},
        LOOP: lambda: {"latent": loop()},
        DECODE: lambda: {"picture": decode()},
    }


@lru_cache(maxsize=4)
def networks(dtype: str) -> Models:
    """Random networks on the GPU, the same weights for every dtype."""
    return random_models(DEVICE, getattr(torch, dtype))


@lru_cache(maxsize=2)
def given_trials(batch: int) -> Trials:
    """The trials that every contestant is given, whatever computes."""
    return draw(networks("float32"), batch)


def inputs(trials: Trials) -> Given:
    """What a step takes besides its row of the table, on the GPU; the latent is the trials' noise, of unit size."""
    arrays = {"latent": trials.noise, "context": trials.context, "uncond_context": trials.uncond_context}
    given = {name: torch.from_numpy(array).to(DEVICE) for name, array in arrays.items()}
    return {**given, "guidance": torch.tensor([GUIDANCE], device=DEVICE)}


def steps(models: Any) -> Tensor:
    """The sampler's table, (35, 3), on the GPU. Takes networks or their noise schedule."""
    return torch.from_numpy(step_table(ddim_schedule(models))).to(DEVICE)


def _works(models: Models, for_gradients: Models, trials: Trials) -> Works:
    given, table = inputs(trials), steps(models)
    works: dict[str, Callable[[], Any]] = {
        STEP: lambda: {"latent": _step(models, given, table[0])},
        LOOP: lambda: {"latent": _loop(models, given, table)},
        DECODE: lambda: {"picture": _decode(models, given["latent"])},
    }
    iteration: list[Callable[[], Any]] = []

    def iterate() -> Any:
        # Made when first run: its start takes memory, and 31 steps of denoising.
        if not iteration:
            iteration.append(by_autograd(for_gradients, trials, N_BACK, checkpointing=False))
        return iteration[0]()

    return {**works, ITERATION: iterate}


@torch.no_grad()
def _step(models: Models, given: Given, row: Tensor) -> Tensor:
    return guided_step(models, {**given, "step": row})


def _loop(models: Models, given: Given, table: Tensor) -> Tensor:
    latent = given["latent"]
    for row in table:
        latent = _step(models, {**given, "latent": latent}, row)
    return latent


@torch.no_grad()
def _decode(models: Models, latent: Tensor) -> Tensor:
    return models.decode_latent(latent)


def _recorded(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record what `work` queues; calling the result replays it and gives its memory."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # cuBLAS and cuDNN choose kernels and take memory the first time
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = work()

    def replay(_reads: Callable[[], Tensor] = work) -> Tensor:  # whose arrays must stay where they were recorded
        graph.replay()
        return found

    return replay
