"""Kernel times that TensorRT has measured, kept between builds on one kind of GPU."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ...runtime.engines.cuda.gpu import Gpu
from ...runtime.errors import FileError, InputError
from ...runtime.files import write_bytes


def cache_file(folder: Path, gpu: Gpu, version: str) -> Path:
    """The file for a GPU and a release: times of another one would choose the wrong kernels."""
    parts = (gpu.name, f"sm{gpu.compute_capability}", f"tensorrt{version}")
    return folder / ("-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in parts) + ".timing")


def load_cache(config: Any, path: Path) -> Any:
    """Give a builder's configuration the cache in a file, or an empty one. Keep it alive until the build is over."""
    try:
        known = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise FileError(f"the timing cache {path} cannot be read ({error.strerror}): check its permissions") from error
    for content in (known, b""):  # damaged, or of another driver: begin anew
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    raise InputError(f"TensorRT rejects the timing cache at {path}: leave timing_cache out")


def save_cache(cache: Any, path: Path) -> None:
    """Replace a file by what a cache knows now."""
    write_bytes(path, bytes(memoryview(cache.serialize())))
