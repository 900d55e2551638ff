"""Graphs of networks that another bundle holds already are reused instead of being traced again.

Tracing gradients takes most of an export, and its result depends on the networks, the layer preset, the libraries and
the exporter's own code alone. Reused graphs are verified against PyTorch like traced ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import onnx

from ...runtime.bundle.manifest import DECODE
from ...runtime.bundle.open import Bundle
from ...runtime.environment import versions
from ...runtime.files import sha256_of

EXPORTER = "exporter"
"""Field of a manifest's lineage that holds :func:`exporter_code`."""
# What writes a graph: of other versions, it may write another one.
_WRITERS = ("minddiffuser", "torch", "onnx", "onnxscript", "onnx-ir")

# Files and folders of this package whose code decides what a network's graph is; a test follows their imports.
_CODE = ("export/graphs", "export/onnx", "runtime/bundle/graph_specs.py", "runtime/models", "runtime/refine/loss.py",
         "runtime/resampling.py")  # fmt: skip
_PACKAGE = Path(__file__).resolve().parents[2]

Say = Callable[[str], None]


@cache
def exporter_code() -> str:
    """SHA-256 of the code that makes graphs: a corrected graph is traced, whatever bundle holds the older one."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(f"{path.relative_to(_PACKAGE).as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def sources() -> list[Path]:
    """The files of that code."""
    places = [_PACKAGE / name for name in _CODE]
    return [file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]


class Reused:
    """The fp32 graphs of networks in a bundle that were made for these models.

    Parameters
    ----------
    folder
        The bundle; None has no graph.
    models_hash, preset, semantic
        What the graphs must have been made for: the models, the layers of the structure, and whether gradients know
        the semantic term.
    say
        Receives one line where the bundle was made for something else.

    Raises
    ------
    FileError
        The bundle cannot be opened.
    """

    def __init__(self, folder: Path | None, *, models_hash: str, preset: str, semantic: bool, say: Say) -> None:
        self._graphs: dict[str, Path] = {}
        if folder is None:
            return
        bundle = Bundle.open(folder)
        wanted = {"models": models_hash, "layers": preset, "semantic term": semantic, **versions(_WRITERS)}
        wanted["code of the exporter"] = exporter_code()
        held = {name: number for name, number in bundle.manifest["versions"].items() if name in wanted}
        held |= {"models": bundle.models_hash, "layers": bundle.preset, "semantic term": "semantic" in bundle.shapes}
        held["code of the exporter"] = bundle.manifest["lineage"].get(EXPORTER)
        differing = [name for name in wanted if held.get(name) != wanted[name]]
        if differing:
            say(f"no graphs are reused from {folder}, which was made with different {', '.join(differing)}")
            return
        for name, graph in bundle.graphs.items():
            found = [v.file for v in graph.variants if (v.target, v.precision) == ("onnx", "fp32")]
            if found and not name.startswith(DECODE):
                self._graphs[name] = found[0]

    def get(self, name: str) -> onnx.ModelProto | None:
        """The graph with all its weights inside, or None."""
        path = self._graphs.get(name)
        return None if path is None else onnx.load(str(path))
