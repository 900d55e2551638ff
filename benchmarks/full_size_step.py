"""One guided step of Stable Diffusion 1.4 with random weights on the CPU: eager, torch.compile, ONNX Runtime.

ONNX Runtime in float32, the rivals' precision, and in the int8 that ``md-export bundle --precision int8`` gives.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
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
from tables import Row, differences
from timing import interleaved, median_ms
from torch import Tensor

from minddiffuser.export.graphs.base import network_graph
from minddiffuser.export.store import WeightStore
from minddiffuser.export.to_onnx import export_network, prepare
from minddiffuser.export.tracing import example_inputs
from minddiffuser.export.variants import in_precision
from minddiffuser.runtime.engines.ort import OrtEngine, OrtSettings, open_ort
from minddiffuser.runtime.engines.pytorch import guided_step
from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.models.open import load_models

EAGER, COMPILED = "PyTorch, eager", "PyTorch, torch.compile"
INT8 = f"{ENGINES}, int8"
FULL_STEP = "SD 1.4, a guided step"

Contestant = tuple[str, Callable[[], Any]]


def full_size_rows(threads: int, repeats: int, *, with_compile: bool, say: Callable[[str], None]) -> list[Row]:
    """Time the contestants one after the other: together they would not fit into 16 GB of memory."""
    flops = count(random_models("meta")).step
    rows: list[Row] = []
    reference: Any = None
    with ExitStack() as stack:
        for name, work in _line_up(threads, with_compile, stack):
            say(f"{FULL_STEP}: {name}")
            ms = median_ms(interleaved({name: work}, repeats)[name])
            output = work()
            reference = output if reference is None else reference
            what = "int8" if name == INT8 else "latent"
            rows.append(
                Row(
                    job=FULL_STEP,
                    batch=1,
                    contestant=name,
                    milliseconds=ms,
                    speedup=rows[0].milliseconds / ms if rows else 1.0,
                    gflops=flops / (ms * 1e6),
                    difference=differences({what: output}, {what: reference}),
                )
            )
            del work  # it holds the weights
    return rows


def _line_up(threads: int, with_compile: bool, stack: ExitStack) -> Iterator[Contestant]:
    """Contestants, each made when the one before is done; PyTorch's weights are gone before the session is opened."""
    models = replace(
        load_models("tiny"),
        unet=random_unet(),
        text_encoder=SimpleNamespace(config=SimpleNamespace(hidden_size=TEXT_WIDTH)),
    )
    graph = network_graph("denoise", models, semantic=False)
    given = example_inputs(graph, batch=1)
    yield EAGER, partial(_step, models, given)
    if with_compile:
        yield COMPILED, partial(_step, replace(models, unet=torch.compile(models.unet, dynamic=False)), given)
        torch._dynamo.reset()
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="full-size-")))
    prepare(models)
    exported = [export_network(graph, models)]
    inputs, outputs = graph.inputs, graph.outputs
    del models, graph
    gc.collect()
    paths = {}
    with WeightStore(folder) as store:
        for precision in ("int8", "fp32"):  # the last one takes the graph
            converted = in_precision(exported, "denoise", precision, [], threads=threads)
            assert converted is not None
            paths[precision], _ = store.write(converted.models.pop(), f"denoise.{precision}")
    feeds = {name: array.numpy() for name, array in given.items()}
    for name, precision in ((ENGINES, "fp32"), (INT8, "int8")):
        with open_ort("denoise", paths[precision], inputs, outputs, OrtSettings(threads=threads)) as engine:
            yield name, partial(_run, engine, feeds)


def _run(engine: OrtEngine, feeds: dict[str, Any]) -> Any:
    return engine.run(feeds)["next_latent"]


def _step(models: Models, given: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return guided_step(models, given)
