"""How a TensorRT plan is built: every choice checked before a builder is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...runtime.data.json_types import is_whole
from ...runtime.engines.tensorrt.identity import HARDWARE_COMPATIBILITY
from ...runtime.engines.tensorrt.library import LIBRARIES
from ...runtime.errors import InputError, check_choice

CURRENT = "current"
REFIT = ("none", "strip")
LEVELS = range(6)
_CAPABILITY = re.compile(r"\d{1,2}\.\d")

Sizes = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class TrtSettings:
    """Settings of :func:`~minddiffuser.export.tensorrt.plan.build_plan`.

    Attributes
    ----------
    target : str
        "tensorrt" (needs the GPU that the plan is for) or "tensorrt-rtx" (builds on any machine).
    optimization_level : int
        0 (quickest build) to 5 (quickest plan).
    workspace_bytes : int or None
        Most GPU memory that one kernel may use; None leaves it to TensorRT.
    timing_cache : Path or None
        Folder of measured kernel times, one file for each GPU and release. TensorRT only. It makes the next build
        quicker, and repeats this one's choices; build without it what you publish.
    hardware_compatibility : str
        TensorRT only: which other GPUs the plan runs on, "none", "ampere_plus" (8.0 and later, slower) or
        "same_compute_capability" (an A100 with 40 GB and one with 80).
    version_compatible : bool
        TensorRT only: the plan also runs in later releases, up to the next major one. It brings machine code then,
        and runs, as every plan, only where it was built or is trusted.
    refit : str
        "strip" leaves the weights out of the plan: they are taken from the ONNX file when it is opened, so that plans
        for several GPUs share them. "none" keeps them in.
    compute_capabilities : tuple of str
        TensorRT-RTX only: GPUs that the plan is for, such as ("8.6", "8.9"), or ("current",) for the one in this
        machine. Empty: 8.0 and later.
    max_aux_streams : int or None
        How many streams one run may use besides its own; None leaves it to TensorRT.
    tf32 : bool
        Let float32 products be computed with 10 bits of mantissa; off, float32 means float32.
    profile : mapping of name to (min, opt, max)
        Sizes of the graph's free dimensions: the smallest and largest that the plan runs, and the one it is quickest
        for.

    Raises
    ------
    InputError
        A value, or a combination, that cannot be built.
    """

    target: str
    optimization_level: int = 3
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    hardware_compatibility: str = "none"
    version_compatible: bool = False
    refit: str = "none"
    compute_capabilities: tuple[str, ...] = ()
    max_aux_streams: int | None = None
    tf32: bool = False
    profile: Mapping[str, Sizes] = field(default_factory=lambda: MappingProxyType({"batch": (1, 1, 16)}))

    def __post_init__(self) -> None:
        check_choice("TensorRT target", self.target, LIBRARIES)
        check_choice("hardware compatibility", self.hardware_compatibility, HARDWARE_COMPATIBILITY)
        check_choice("refit", self.refit, REFIT)
        if not is_whole(self.optimization_level) or self.optimization_level not in LEVELS:
            raise InputError(f"optimization_level is {self.optimization_level!r}: choose 0 to {LEVELS[-1]}")
        _check_least("workspace_bytes", self.workspace_bytes, 1)
        _check_least("max_aux_streams", self.max_aux_streams, 0)
        if self.target == "tensorrt-rtx":
            self._check_rtx()
        elif self.compute_capabilities:
            raise InputError(
                "compute_capabilities are for tensorrt-rtx: tensorrt builds for the GPU in this machine, "
                "and for others with hardware_compatibility"
            )
        for name, sizes in self.profile.items():
            _check_sizes(name, sizes)

    def options(self) -> dict[str, Any]:
        """The choices that are part of a plan's identity, as JSON."""
        chosen = {name: value for name, value in vars(self).items() if name not in ("target", "profile")}
        capabilities = list(self.compute_capabilities)
        return {**chosen, "timing_cache": self.timing_cache is not None, "compute_capabilities": capabilities}

    def _check_rtx(self) -> None:
        if self.timing_cache is not None:
            raise InputError(
                "timing_cache is for tensorrt: tensorrt-rtx measures no kernels while it builds, "
                "and needs no GPU for it; leave it out"
            )
        if self.hardware_compatibility != "none":
            raise InputError(
                f"hardware_compatibility {self.hardware_compatibility!r} is for tensorrt: "
                "tensorrt-rtx covers several GPUs by itself, name them in compute_capabilities"
            )
        if self.version_compatible:
            raise InputError("version_compatible is for tensorrt: a tensorrt-rtx plan runs in its own release only")
        given = self.compute_capabilities
        for item in given:
            if item != CURRENT and not _CAPABILITY.fullmatch(item):
                raise InputError(f"compute capability {item!r} is not valid: write it like 8.6, or {CURRENT!r}")
        if len(set(given)) != len(given) or (CURRENT in given and len(given) > 1):
            raise InputError(
                f"compute_capabilities are {', '.join(given)}: name each once, and {CURRENT!r} only by itself"
            )


def _check_least(name: str, value: int | None, least: int) -> None:
    if value is not None and (not is_whole(value) or value < least):
        raise InputError(f"{name} is {value!r}: give a whole number from {least}, or None")


def _check_sizes(name: str, sizes: Any) -> None:
    whole = isinstance(sizes, tuple) and len(sizes) == 3 and all(map(is_whole, sizes))
    if not whole or not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
        raise InputError(
            f"the profile of {name!r} is {sizes!r}: give (min, opt, max), whole numbers from 1 in rising order"
        )
