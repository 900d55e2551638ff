"""One guided step of Stable Diffusion 1.4 with random weights on the CPU: eager, torch.compile, ONNX Runtime.

ONNX Runtime in float32, the rivals' precision, and in the int8 that ``md-export bundle --precision int8`` gives.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from flops import count
from full_size import TEXT_WIDTH, random_models, random_unet
from jobs import ENGINES
from tables import Job, Outputs, Row, rows_of
from timing import interleaved
from torch import Tensor

from minddiffuser.export.graphs.base import network_graph
from minddiffuser.export.onnx.convert import export_network, prepare
from minddiffuser.export.onnx.network_graph import NetworkGraph
from minddiffuser.export.onnx.tracing import example_inputs
from minddiffuser.export.onnx.weights import WeightStore
from minddiffuser.export.precision.variants import in_precision
from minddiffuser.runtime.backends.reference import guided_step
from minddiffuser.runtime.engines.ort.engine import OrtEngine, OrtSettings, open_ort
from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.models.open import load_models

EAGER, COMPILED = "PyTorch, eager", "PyTorch, torch.compile"
INT8 = f"{ENGINES}, int8"
FULL_STEP = "SD 1.4, a guided step"


def full_size_rows(threads: int, repeats: int, *, with_compile: bool, say: Callable[[str], None]) -> list[Row]:
    """Time the contestants in turn, which takes 20 GB of memory."""
    flops = count(random_models("meta")).step
    models = replace(
        load_models("tiny"),
        unet=random_unet(),
        text_encoder=SimpleNamespace(config=SimpleNamespace(hidden_size=TEXT_WIDTH)),
    )
    graph = network_graph("denoise", models, semantic=False)
    given = example_inputs(graph, batch=1)
    contestants: dict[str, Callable[[], Outputs]] = {EAGER: partial(_step, models, given)}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="full-size-")))
        say(f"{FULL_STEP}: exporting")
        paths = _exported(graph, models, folder, threads)
        models.unet.to(memory_format=torch.channels_last)  # as it was: PyTorch's faster layout
        if with_compile:
            compiled = replace(models, unet=torch.compile(models.unet, dynamic=False))
            contestants[COMPILED] = partial(_step, compiled, given)
        feeds = {name: array.numpy() for name, array in given.items()}
        for name, precision in ((ENGINES, "fp32"), (INT8, "int8")):
            settings = OrtSettings(threads=threads)
            engine = stack.enter_context(open_ort("denoise", paths[precision], graph.inputs, graph.outputs, settings))
            contestants[name] = partial(_run, engine, feeds)
        say(FULL_STEP)
        job = Job(name=FULL_STEP, batch=1, contestants=contestants, flops=flops)
        return rows_of(job, interleaved(contestants, repeats))


def _exported(graph: NetworkGraph, models: Models, folder: Path, threads: int) -> dict[str, Path]:
    """`denoise` on the disk, by precision."""
    prepare(models)
    exported, paths = [export_network(graph, models)], {}
    with WeightStore(folder) as store:
        for precision in ("int8", "fp32"):  # the last one takes the graph
            converted = in_precision(exported, "denoise", precision, [], threads=threads)
            assert converted is not None
            paths[precision], _ = store.write(converted.models.pop(), f"denoise.{precision}")
    return paths


def _run(engine: OrtEngine, feeds: dict[str, Any]) -> Outputs:
    return {"latent": engine.run(feeds)["next_latent"]}


def _step(models: Models, given: dict[str, Tensor]) -> Outputs:
    with torch.no_grad():
        return {"latent": guided_step(models, given)}
