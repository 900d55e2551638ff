"""Engines on a GPU: of a bundle, or of graphs that are exported here from networks with random weights."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from full_size import random_models, schedule
from gpu import DECODE, ITERATION, LOOP, N_BACK, N_STEPS, STEP, Works, say
from gpu_torch import given_trials, inputs, steps
from trials import Trials

from minddiffuser.export.graphs.base import network_graph
from minddiffuser.runtime.bundle.graph_specs import Specs
from minddiffuser.runtime.engines.base import Engine
from minddiffuser.runtime.engines.ort.engine import OrtSettings, open_ort
from minddiffuser.runtime.errors import MissingExtra
from minddiffuser.runtime.generators.engines import EngineGenerator
from minddiffuser.runtime.refine.engines import EngineObjective
from minddiffuser.runtime.refine.settings import AdamSettings

GRAPHS = ("denoise", "vae_decode", "structure_gradient", "denoise_gradient")
HALVES = {"fp16": "float16", "bf16": "bfloat16"}
Loop = Callable[..., Any]


def with_engines(args: argparse.Namespace, batch: int, stack: ExitStack, backend: str, precision: str) -> Works:
    """All four graphs on one backend; steps in a CUDA graph where the backend is TensorRT."""
    engines, loop = opened(args, batch, stack, backend, precision)
    trials = given_trials(batch)
    given = {**inputs(trials), "step": steps(schedule())[0]}
    start = {"latent": trials.noise, "context": trials.context}
    arrays = (trials.noise, trials.context, trials.uncond_context, trials.noise)
    generator = EngineGenerator(engines, schedule(), *arrays, backprop_steps=N_STEPS, loop=loop)
    return {
        STEP: lambda: {"latent": engines["denoise"].run(given)["next_latent"]},
        LOOP: lambda: {"latent": generator.latents(start)[-1]},
        DECODE: lambda: {"picture": engines["vae_decode"].run({"latent": given["latent"]})["image"]},
        ITERATION: _iteration(engines, trials, loop),
    }


def _iteration(engines: Mapping[str, Engine], trials: Trials, loop: Loop | None) -> Callable[[], Any]:
    made: list[Callable[[], Any]] = []

    def iterate() -> Any:
        if not made:
            generator = EngineGenerator(engines, schedule(), *trials.start(), backprop_steps=N_BACK, loop=loop)
            settings = AdamSettings(backprop_steps=N_BACK)
            objective = EngineObjective(engines, generator, trials.target, trials.mask, settings)
            params = generator.initial()
            made.append(lambda: objective.value_and_gradient(params))
        loss, gradients, image = made[0]()
        return {"picture": image, "loss": loss, "gradient": gradients["latent"]}

    return iterate


def opened(
    args: argparse.Namespace, batch: int, stack: ExitStack, backend: str, precision: str
) -> tuple[Any, Loop | None]:
    """Open the engines, and what runs all steps at once where there is such a thing.

    Raises
    ------
    MindDiffuserError
        A library or a kind of engine is missing; the message says which.
    """
    if args.bundle is not None:
        from minddiffuser.runtime.bundle.open import Bundle
        from minddiffuser.runtime.engines.open import EngineSet, EngineSettings
        from minddiffuser.runtime.engines.trust import Trust

        trust = Trust(everything=True)  # whoever measures a bundle has said so by naming it
        settings = EngineSettings(backend=backend, precision=precision, trust=trust)
        engines = stack.enter_context(EngineSet(Bundle.open(args.bundle), settings, graphs=GRAPHS))
        return engines, engines.loop()
    _check_backend(backend)
    folder = args.graphs or _temporary(stack)
    paths = {name: graph_file(folder, name, precision) for name in GRAPHS}
    if backend.startswith("ort"):
        chosen = OrtSettings(provider="cuda")
        specs = graph_specs()
        return {
            name: stack.enter_context(open_ort(name, path, *specs[name], chosen, precision=precision))
            for name, path in paths.items()
        }, None
    return _plans(paths, backend, precision, batch, stack)


def _check_backend(backend: str) -> None:
    """Refuse what is not installed before minutes are spent on exporting for it."""
    if backend.startswith("ort"):
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise MissingExtra("needs onnxruntime-gpu: this onnxruntime has no CUDAExecutionProvider")
        return
    from minddiffuser.runtime.engines.tensorrt.library import load_library

    load_library(backend)


def _plans(
    paths: Mapping[str, Path], target: str, precision: str, batch: int, stack: ExitStack
) -> tuple[dict[str, Engine], Loop]:
    """Build a plan of each graph for this batch size, and open them on one stream with shared scratch memory."""
    from minddiffuser.export.tensorrt.plan import build_plan
    from minddiffuser.export.tensorrt.settings import TrtSettings
    from minddiffuser.runtime.engines.cuda.open import open_device
    from minddiffuser.runtime.engines.tensorrt.arena import Arena
    from minddiffuser.runtime.engines.tensorrt.denoise_loop import DenoiseLoop
    from minddiffuser.runtime.engines.tensorrt.engine import open_trt
    from minddiffuser.runtime.engines.tensorrt.plan import PlanFile
    from minddiffuser.runtime.engines.trust import Trust

    for_this = ("current",) if target == "tensorrt-rtx" else ()
    settings = TrtSettings(target=target, profile={"batch": (batch, batch, batch)}, compute_capabilities=for_this)
    cuda = open_device()
    stack.callback(cuda.close)
    arena = Arena(cuda)
    stack.callback(arena.release)
    engines: dict[str, Any] = {}
    for name, path in paths.items():
        say(f"building {name} for {target}, batch {batch}")
        plan_path = path.with_suffix(f".{target}.{batch}.plan")
        builder = build_plan(path, plan_path, settings)
        inputs, outputs = graph_specs()[name]
        plan = PlanFile(
            name=name,
            precision=precision,
            path=plan_path,
            builder=builder,
            inputs=inputs,
            outputs=outputs,
            onnx=path,
            trust=Trust(everything=True),  # built just now
        )
        engines[name] = stack.enter_context(open_trt(plan, device=cuda, arena=arena))
    loop = stack.enter_context(DenoiseLoop(engines["denoise"]))

    def run(latent: Any, table: Any, context: Any, uncond_context: Any, guidance: Any) -> list[Any]:
        latents = loop.run(latent, table, context=context, uncond_context=uncond_context, guidance=guidance)
        return [cuda.row(latents, step) for step in range(len(table) + 1)]

    return engines, run


@lru_cache(maxsize=1)
def graph_specs() -> dict[str, tuple[Specs, Specs]]:
    """Inputs and outputs of each graph at full size."""
    models = random_models("meta")
    made = {name: network_graph(name, models, semantic=False) for name in GRAPHS}
    return {name: (graph.inputs, graph.outputs) for name, graph in made.items()}


def graph_file(folder: Path, name: str, precision: str) -> Path:
    """Give `folder`/`precision`/`name`/`name`.onnx, exported if it is not there."""
    path = folder / precision / name / f"{name}.onnx"
    if path.is_file():
        return path
    from minddiffuser.export.onnx.convert import export_network
    from minddiffuser.export.onnx.weights import WeightStore

    say(f"exporting {name} in {precision}")
    models = _on_the_host()
    model = export_network(network_graph(name, models, semantic=False), models)
    if precision != "fp32":
        from minddiffuser.export.precision import to_half

        model = to_half(model, HALVES[precision])
    path.parent.mkdir(parents=True, exist_ok=True)
    with WeightStore(path.parent) as store:  # of its own: the other graphs may be there already
        store.write(model, name)
    return path


@lru_cache(maxsize=1)
def _on_the_host() -> Any:
    from minddiffuser.export.onnx.convert import prepare

    models = random_models("cpu")
    prepare(models)
    return models


def _temporary(stack: ExitStack) -> Path:
    return Path(stack.enter_context(TemporaryDirectory(prefix="gpu-graphs-")))
