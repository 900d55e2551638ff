"""One training loop for every part of the tiny world: AdamW, warm-up and cosine, moving average, resumable.

A part gives its module and a loss of (rng, step); all randomness comes from the step's own generator, so a
run that was killed and resumed draws the same batches as one that was not.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ...runtime.files import replacing

Function = TypeVar("Function", bound=Callable[..., Any])
Loss = Callable[[np.random.Generator, int], tuple[torch.Tensor, dict[str, float]]]


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """`steps` optimiser steps; `learning_rate` is the peak after `warmup` steps; `ema` is the decay per step."""

    steps: int
    learning_rate: float
    warmup: int = 100
    weight_decay: float = 0.01
    ema: float = 0.998
    clip_norm: float = 1.0
    seed: int = 0
    save_every: int = 250
    log_every: int = 50


def train(module: torch.nn.Module, loss: Loss, folder: Path, name: str, settings: LoopSettings) -> None:
    """Train `module` in place and leave the averaged weights in it.

    `folder/name.safetensors` holds weights, average, moments and the step; it is written every
    `save_every` steps and continued from when it is there.
    """
    parameters = {key: value for key, value in module.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay
    )
    average = {key: value.detach().clone() for key, value in parameters.items()}
    kept = module.state_dict().keys()
    buffers = {key: value for key, value in module.named_buffers() if key in kept and value.is_floating_point()}
    state = folder / f"{name}.safetensors"
    first, before = _resume(state, parameters, buffers, average, optimizer) if state.exists() else (0, 0.0)
    started = time.monotonic()
    smooth: dict[str, float] = {}
    for step in range(first, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, settings)
        value, parts = loss(np.random.default_rng([settings.seed, step]), step)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(parameters.values(), settings.clip_norm)
        optimizer.step()
        decay = min(settings.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), list(parameters.values()), 1 - decay)
        for key, term in parts.items():
            smooth[key] = term if key not in smooth else 0.95 * smooth[key] + 0.05 * term
        if (step + 1) % settings.log_every == 0 or step + 1 == settings.steps:
            _report(name, step + 1, first, settings.steps, started, smooth)
        if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
            spent = before + time.monotonic() - started
            _save(state, parameters, buffers, average, optimizer, {"step": step + 1, "seconds": spent})
    with torch.no_grad():
        for key, value in parameters.items():
            value.copy_(average[key])


def scaled(settings: LoopSettings, effort: float) -> LoopSettings:
    """The same training with a share of its steps, for a trial; at least two."""
    return settings if effort == 1 else replace(settings, steps=max(2, round(settings.steps * effort)))


def compiled(function: Function) -> Function:
    """`torch.compile`, where there are a compiler and Python's headers to do it with: a third faster on a CPU."""
    has_compiler = any(shutil.which(name) for name in ("g++", "clang++", "cl"))
    if not has_compiler or not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return function
    return cast(Function, torch.compile(function))


def _schedule(step: int, settings: LoopSettings) -> float:
    warm = min(1.0, (step + 1) / settings.warmup)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / settings.steps)))


def _report(name: str, done: int, first: int, steps: int, started: float, smooth: dict[str, float]) -> None:
    elapsed = time.monotonic() - started
    left = elapsed / (done - first) * (steps - done)
    terms = "  ".join(f"{key} {value:.4f}" for key, value in smooth.items())
    sys.stderr.write(f"{name}: step {done}/{steps}, {left / 60:.1f} min left  {terms}\n")
    sys.stderr.flush()


def _save(
    state: Path,
    parameters: dict[str, torch.nn.Parameter],
    buffers: dict[str, torch.Tensor],
    average: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    progress: dict[str, float],
) -> None:
    tensors = {f"weights/{key}": value.detach().contiguous() for key, value in parameters.items()}
    tensors |= {f"average/{key}": value.contiguous() for key, value in average.items()}
    tensors |= {f"buffer/{key}": value.contiguous() for key, value in buffers.items()}
    for key, value in parameters.items():
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment}/{key}"] = optimizer.state[value][moment].contiguous()
    with replacing(state) as draft:
        save_file(tensors, draft, metadata={"state": json.dumps(progress)})


def reached(state: Path) -> tuple[int, float]:
    """Steps and seconds of a saved training."""
    with safe_open(state, framework="pt") as file:
        content = json.loads(file.metadata()["state"])
    return int(content["step"]), float(content.get("seconds", 0.0))


def _resume(
    state: Path,
    parameters: dict[str, torch.nn.Parameter],
    buffers: dict[str, torch.Tensor],
    average: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
) -> tuple[int, float]:
    """Put a saved training back; the step it had reached and the seconds it had taken."""
    step, seconds = reached(state)
    with safe_open(state, framework="pt") as file:
        with torch.no_grad():
            for key, value in buffers.items():
                value.copy_(file.get_tensor(f"buffer/{key}"))
            for key, value in parameters.items():
                value.copy_(file.get_tensor(f"weights/{key}"))
                average[key].copy_(file.get_tensor(f"average/{key}"))
                optimizer.state[value] = {
                    "step": torch.tensor(float(step)),
                    "exp_avg": file.get_tensor(f"exp_avg/{key}").to(value.device),
                    "exp_avg_sq": file.get_tensor(f"exp_avg_sq/{key}").to(value.device),
                }
    return step, seconds
