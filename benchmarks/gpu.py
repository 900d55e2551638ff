"""Stable Diffusion 1.4 and ViT-B/32 at full size, random weights, on a CUDA GPU: milliseconds and share of the floor.

python benchmarks/gpu.py [--batch-size 1] [--only eager-fp16 ort-cuda …] [--graphs FOLDER | --bundle FOLDER]
                         [--compile-mode max-autotune] [--peak-tflops N] [--repeats 7] [--json]

The floor is the time that the products alone take at the GPU's peak rate for 16-bit products; what a contestant
reaches of it is printed as peak. Eager PyTorch needs diffusers and open_clip; engines need onnx and onnxscript to be
exported, which takes minutes (--graphs keeps them for the next run), or a bundle, and their own library. What is not
there is listed, and the rest runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def make_importable() -> None:
    """Let a bare checkout be the package: its root folder is `minddiffuser`, whether or not it was installed."""
    if importlib.util.find_spec("minddiffuser") is not None:
        return
    spec = importlib.util.spec_from_file_location(
        "minddiffuser", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{ROOT} holds no package")
    module = importlib.util.module_from_spec(spec)
    sys.modules["minddiffuser"] = module
    spec.loader.exec_module(module)


STEP, LOOP, DECODE = "a guided step", "35 guided steps", "VAE decoding"
ITERATION = "stage 2, last 4 steps"
N_STEPS, N_BACK = 35, 4
# Operations for one trial, as flops.count gives them for full_size.random_models("meta").
FLOPS = {STEP: 0, LOOP: 0, DECODE: 0, ITERATION: 0}
# Milliseconds at batch 1, for the quickest contestant on a GPU of the H200's class.
GOALS_MS = {LOOP: 300.0, DECODE: 8.0, ITERATION: 250.0}
# Makers' figures for dense 16-bit products, TFLOP/s; the longest name that fits counts.
NOMINAL_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100": 989.0,
    "H100 PCIe": 756.0,
    "A100": 312.0,
    "A800": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10": 125.0,
    "V100": 125.0,
    "T4": 65.0,
    "RTX 5090": 210.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}
# name -> (module beside this one, function, arguments after the setting): one line here adds a contestant.
CONTESTANTS: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "eager-fp16": ("gpu_torch", "eager", ("float16",)),
    "eager-fp32": ("gpu_torch", "eager", ("float32",)),
    "compile-fp16": ("gpu_torch", "with_compile", ("float16",)),
    "cuda-graph-fp16": ("gpu_torch", "with_cuda_graph", ("float16",)),
    "ort-cuda-fp32": ("gpu_engines", "with_engines", ("ort-cuda", "fp32")),
    "ort-cuda-fp16": ("gpu_engines", "with_engines", ("ort-cuda", "fp16")),
    "tensorrt-fp16": ("gpu_engines", "with_engines", ("tensorrt", "fp16")),
    "tensorrt-rtx-fp16": ("gpu_engines", "with_engines", ("tensorrt-rtx", "fp16")),
}
PEAK_SIZE = 8192

Works = Mapping[str, Callable[[], Any]]
