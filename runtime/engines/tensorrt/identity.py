"""What a TensorRT plan was built by and for, and one sentence why it cannot run here."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping
from typing import Any

from ..cuda.gpu import Gpu, find_gpu
from .library import LIBRARIES, library_version

AMPERE = (8, 0)
HARDWARE_COMPATIBILITY = ("none", "ampere_plus", "same_compute_capability")
_CAPABILITY = re.compile(r"(\d{1,3})\.(\d{1,2})")

Json = Mapping[str, Any]


def this_machine(target: str, gpu: Gpu | None = None) -> dict[str, Any]:
    """Gather what a plan is compared with: library, CUDA, GPU and platform of this process.

    Parameters
    ----------
    target : "tensorrt" or "tensorrt-rtx".
    gpu : the GPU to run on; looked for when None.

    Returns
    -------
    dict
        "target", "library" (version), "cuda", "gpu" (name), "compute_capability", "platform"; None for what is not
        there.
    """
    found = find_gpu() if gpu is None else gpu
    return {
        "target": target,
        "library": library_version(target),
        "cuda": found.cuda if found else None,
        "gpu": found.name if found else None,
        "compute_capability": found.compute_capability if found else None,
        "platform": f"{sys.platform}-{platform.machine()}".lower(),
    }


def check_plan(
    builder: Json, here: Json, *, graph_sha256: str | None = None, data: Mapping[str, str] | None = None
) -> str | None:
    """Say in one sentence why a plan cannot run here; None when nothing speaks against it.

    Parameters
    ----------
    builder : the plan's identity, as :func:`~minddiffuser.export.tensorrt.plan.build_plan` returned it.
    here : of :func:`this_machine`.
    graph_sha256, data : the hash of the ONNX file that the plan should come from, and of its data files by name;
        not compared when None.
    """
    missing = _lacks(builder)
    if missing is not None:
        return f"the plan's description has no usable {missing!r}: {_rebuild(here)}"
    for check in (_library, _version, _platform, _gpu):
        fault = check(builder, here)
        if fault is not None:
            return fault
    return _graph(builder, here, graph_sha256, data)


def _lacks(builder: Json) -> str | None:
    """The first field that is missing or of another type; a manifest may come from anywhere."""
    kinds: dict[str, Any] = {
        "target": str,
        "library": str,
        "platform": str,
        "gpu": (str, type(None)),
        "compute_capability": (str, type(None)),
        "options": Mapping,
        "graph": Mapping,
    }
    for name, kind in kinds.items():
        value = builder.get(name, 0)
        if not isinstance(value, kind) or (isinstance(value, str) and not _printable(value)):
            return name
    options, graph = builder["options"], builder["graph"]
    capabilities = options.get("compute_capabilities", [])
    if not isinstance(capabilities, list) or not all(map(_printable, capabilities)):
        return "options.compute_capabilities"
    if options.get("hardware_compatibility", "none") not in HARDWARE_COMPATIBILITY:
        return "options.hardware_compatibility"
    if not isinstance(options.get("version_compatible", False), bool):
        return "options.version_compatible"
    if not isinstance(graph.get("sha256"), str) or not isinstance(graph.get("data", {}), Mapping):
        return "graph"
    return None


def _library(builder: Json, here: Json) -> str | None:
    if builder["target"] not in LIBRARIES:
        return f"the plan is for {builder['target']!r}, which this release does not know: {_rebuild(here)}"
    if builder["target"] != here["target"]:
        built, asked = LIBRARIES[builder["target"]].label, LIBRARIES[here["target"]].label
        return f"the plan is for {built}, and {asked} was requested: open it with the library that built it"
    if here["library"] is None:
        library = LIBRARIES[here["target"]]
        return f"{library.label} does not load here: pip install 'minddiffuser[{library.extra}]'"
    return None


def _version(builder: Json, here: Json) -> str | None:
    built, present = builder["library"], here["library"]
    if built == present:
        return None
    label = LIBRARIES[here["target"]].label
    if not builder["options"].get("version_compatible", False):
        return f"the plan was built by {label} {built}, this machine has {present}: {_rebuild(here)}"
    old, new = _numbers(built), _numbers(present)
    if not old or not new or new < old:
        return (
            f"the version-compatible plan was built by {label} {built} and runs in that or later releases, "
            f"this machine has {present}: {_rebuild(here)}"
        )
    if new[0] > old[0] + 1:
        return (
            f"the version-compatible plan was built by {label} {built} and runs up to release {old[0] + 1}, "
            f"this machine has {present}: {_rebuild(here)}"
        )
    return None


def _platform(builder: Json, here: Json) -> str | None:
    # TensorRT-RTX's plans hold no machine code: they are the same on every system.
    if builder["target"] == "tensorrt-rtx" or builder["platform"] == here["platform"]:
        return None
    return f"the plan was built on {builder['platform']}, this machine is {here['platform']}: {_rebuild(here)}"


def _gpu(builder: Json, here: Json) -> str | None:
    present = _capability(here["compute_capability"])
    if here["gpu"] is None or present is None:
        return "the plan needs a CUDA GPU, and none was found here (through cuda-python or PyTorch): use target 'onnx'"
    covered = _rtx_gpus if builder["target"] == "tensorrt-rtx" else _classic_gpus
    covers = covered(builder, here, present)
    if covers is None:
        return None
    return f"the plan is for {covers}, this machine has {_gpu_words(here)}: {_rebuild(here)}"


def _rtx_gpus(builder: Json, here: Json, present: tuple[int, int]) -> str | None:
    """What a TensorRT-RTX plan covers, in words, if that is not the GPU here."""
    wanted = builder["options"].get("compute_capabilities", [])
    if not wanted:
        return None if present >= AMPERE else "compute capability 8.0 and later"
    if wanted == ["current"]:
        wanted = [builder["compute_capability"] or "unknown"]
    return None if here["compute_capability"] in wanted else f"compute capability {', '.join(wanted)}"


def _classic_gpus(builder: Json, here: Json, present: tuple[int, int]) -> str | None:
    """What a TensorRT plan covers, in words, if that is not the GPU here."""
    compatibility = builder["options"].get("hardware_compatibility", "none")
    same = builder["compute_capability"] == here["compute_capability"]
    if compatibility == "ampere_plus":
        return None if present >= AMPERE else "compute capability 8.0 and later"
    if compatibility == "same_compute_capability":
        return None if same else f"compute capability {builder['compute_capability']}"
    return None if same and builder["gpu"] == here["gpu"] else _gpu_words(builder)


def _graph(builder: Json, here: Json, sha256: str | None, data: Mapping[str, str] | None) -> str | None:
    graph = builder["graph"]
    if sha256 is not None and graph["sha256"] != sha256:
        return f"the plan was built from another version of its ONNX graph: {_rebuild(here)}"
    if data is not None and dict(graph.get("data", {})) != dict(data):
        return f"the plan was built with other weights than its ONNX graph has now: {_rebuild(here)}"
    return None


def _gpu_words(machine: Json) -> str:
    return f"{machine['gpu'] or 'an unknown GPU'} (compute capability {machine['compute_capability']})"


def _rebuild(here: Json) -> str:
    return f"build it here with md-export build BUNDLE --target {here['target']}"


def _printable(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= 200


def _numbers(version: str) -> tuple[int, ...]:
    """(11, 1, 0) of "11.1.0"; empty where a part is no number."""
    parts = version.split(".")
    return tuple(map(int, parts)) if all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts) else ()


def _capability(text: Any) -> tuple[int, int] | None:
    found = _CAPABILITY.fullmatch(text) if isinstance(text, str) else None
    return (int(found[1]), int(found[2])) if found else None
