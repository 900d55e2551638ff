"""A checkpoint and a model folder become a bundle of verified engines: what ``md-export bundle`` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ..runtime.bundle import Bundle
from ..runtime.bundle_schema import ARRAYS, MANIFEST, PARITY, sealed
from ..runtime.decode import Checkpoint, open_checkpoint
from ..runtime.files import write_json, write_tensors
from ..runtime.models.models import Models
from ..runtime.models.open import load_models
from .draft import Draft, DraftGraph, Progress, Written, draft_graphs
from .gate import Case, Verified, end_to_end, verify_file
from .manifest import describe_checkpoint, describe_format, describe_specs, list_files
from .memory import give_back
from .parity import GateFailure, failed
from .pictures import engine_pictures
from .placement import check_out, in_place_of
from .settings import ExportSettings, memory_for


def export_bundle(
    checkpoint: Path,
    out: Path,
    settings: ExportSettings,
    *,
    models: str = "tiny",
    clip: str | None = None,
    data: Path | None = None,
    finish: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Export, verify, and put the bundle in place: whole, or what was there before.

    Parameters
    ----------
    checkpoint
        Folder of ``md-train fit``.
    out
        Folder of the bundle; a bundle that is there is replaced at the very end.
    models, clip
        See :func:`~minddiffuser.runtime.models.open.load_models`.
    data
        See :func:`~.material.trials_for`.
    finish
        Called with the folder of the whole bundle before it is put in place, to add engines to it.
    progress
        Called with what is being done, and how much of it is.

    Raises
    ------
    GateFailure
        An engine is out of tolerance; nothing is published.
    MindDiffuserError
        Inputs that cannot be used, or a folder that cannot be written.
    """
    out = Path(os.path.abspath(out))  # "." has no name to put a draft beside
    fitted = open_checkpoint(checkpoint)
    check_out(out)
    opened = [load_models(models, clip=clip, preset=fitted.preset)]
    fitted.require_models(opened[0].hash, opened[0].name)
    with in_place_of(out) as folder:
        told = progress or _silent
        draft = _drafted(fitted, opened, settings, data, folder, told)
        give_back()
        _Gate(fitted, draft, settings, folder, told).run()
        if finish is not None:
            finish(folder)
        Bundle.open(folder)  # what a reader would refuse is never put in place
    return Bundle.open(out)


def _drafted(
    checkpoint: Checkpoint,
    models: list[Models],
    settings: ExportSettings,
    data: Path | None,
    folder: Path,
    progress: Progress,
) -> Draft:
    """`models` holds the only reference to the networks, which are gone when this returns."""
    engines = folder / "engines"
    engines.mkdir()
    return draft_graphs(checkpoint, models.pop(), settings, data=data, folder=engines, progress=progress)


class _Gate:
    """Verifies a draft, and writes the manifest of what passed."""

    def __init__(
        self, checkpoint: Checkpoint, draft: Draft, settings: ExportSettings, folder: Path, progress: Progress
    ) -> None:
        self._checkpoint, self._draft, self._settings = checkpoint, draft, settings
        self._folder, self._progress = folder, progress
        self._entries: dict[str, Any] = {}
        self._parity: dict[str, NDArray[Any]] = {}
        self._failures: list[GateFailure] = []

    def run(self) -> None:
        graphs = self._draft.graphs
        for done, graph in enumerate(graphs):
            self._progress("verifying engines", done, len(graphs))
            self._graph(graph)
        self._progress("verifying engines", len(graphs), len(graphs))
        if self._failures:
            raise self._failures[0]
        mean, std = self._checkpoint.statistics
        arrays = {
            "uncond_context": self._checkpoint.uncond_context,
            "context_bos": self._checkpoint.context_bos,
            "mask": self._checkpoint.mask,
            "score": self._checkpoint.score,
            "alphas_cumprod": self._draft.alphas_cumprod,
            "mean": mean,
            "std": std,
        }
        write_tensors(self._folder / ARRAYS, arrays)
        stage1 = self._draft.stage1
        needed = {"denoise", "vae_decode", "decode_context", "decode_latent"}
        if stage1 is None or not needed <= self._entries.keys():
            return self._write_manifest({})
        self._parity |= {"responses": self._draft.trials.responses, "stage1": stage1}
        self._write_manifest({})  # pictures are made from the bundle as a reader would open it
        self._write_manifest(self._pictures(stage1))

    def _graph(self, graph: DraftGraph) -> None:
        variants = []
        for written in graph.written:
            found = verify_file(
                graph.name,
                written.path,
                graph.specs,
                graph.cases,
                written.precision,
                threads=self._settings.threads,
                memory=memory_for(self._draft.described["image_size"]),
            )
            if found.reason is not None:
                self._fail(graph.name, written, found)
                continue
            variants.append(
                {
                    "target": "onnx",
                    "precision": written.precision,
                    "file": self._relative(written.path),
                    "data": [self._relative(file) for file in written.data],
                    "opset": written.opset,
                    "batch_sizes": None,
                    "parity": found.parity,
                    "precision_map": written.exceptions,
                    "builder": {"note": written.note} if written.note else {},
                }
            )
        inputs, outputs = graph.specs
        self._entries[graph.name] = {
            "inputs": describe_specs(inputs),
            "outputs": describe_specs(outputs),
            "variants": variants,
        }
        self._keep_parity(graph.name, graph.cases)

    def _fail(self, name: str, written: Written, found: Verified) -> None:
        failure = failed(name, written.precision, str(found.reason))
        kept, path = self._settings.keep_failed, written.path
        if kept is None:
            raise failure
        kept.mkdir(parents=True, exist_ok=True)
        model = onnx.load(str(path))
        (kept / f"{path.name}.bin").unlink(missing_ok=True)  # onnx would add to an earlier one
        onnx.save(model, str(kept / path.name), save_as_external_data=True, location=f"{path.name}.bin")
        write_json(kept / f"{path.name}.json", {"reason": found.reason, "parity": found.parity})
        path.unlink()
        self._failures.append(failure)

    def _keep_parity(self, name: str, cases: Sequence[Case]) -> None:
        """What ``md-export check`` needs to verify the graph on another machine: one real case, or a random one."""
        case = next((case for case in cases if case.kind == "decoded"), cases[0])
        for key, array in case.feeds.items():
            self._parity[f"{name}/in/{key}"] = np.asarray(array, np.float32)
        for key, array in case.expected.items():
            self._parity[f"{name}/out/{key}"] = np.asarray(array, np.float32)
        for precision, tensors in case.spread.items():
            for key, spread in tensors.items():
                most = np.array([spread.jump, spread.turn], np.float32)
                self._parity[f"{name}/spread/{precision}/{key}"] = most.clip(0, 1)

    def _pictures(self, expected: NDArray[np.float32]) -> dict[str, Any]:
        """Compare whole pictures of stage 1, engine by engine, with PyTorch's."""
        trials, pictures = self._draft.trials, dict[str, Any]()
        for precision in self._settings.all_precisions:
            self._progress(f"comparing pictures in {precision}", 0, 1)
            found = engine_pictures(self._folder, trials.responses, precision, self._settings.threads)
            if found is None:
                continue
            compared = end_to_end(found, expected, trials.seen, self._draft.embed, precision)
            self._progress(f"comparing pictures in {precision}", 1, 1)
            if compared.reason is not None:
                self._keep_pictures(precision, found)
                raise failed("pictures of stage 1", precision, compared.reason)
            pictures[precision] = compared.figures
        return pictures

    def _keep_pictures(self, precision: str, found: Any) -> None:
        """Put the graphs of a precision and the pictures that they made where they can be looked at."""
        kept = self._settings.keep_failed
        if kept is None:
            return
        kept.mkdir(parents=True, exist_ok=True)
        write_tensors(kept / f"stage1.{precision}.safetensors", {"image": found})
        for path in (self._folder / "engines").glob(f"*.{precision}.onnx"):
            onnx.save(onnx.load(path), kept / path.name, save_as_external_data=True, location=f"{path.name}.bin")

    def _write_manifest(self, pictures: dict[str, Any]) -> None:
        write_tensors(self._folder / PARITY, self._parity)
        draft, models = self._draft, self._draft.described["models"]
        content = {
            **describe_format(),
            **draft.described,
            **describe_checkpoint(self._checkpoint),
            "lineage": {
                "source_models": models["hash"],
                "source_checkpoint": self._checkpoint.hash,
                "verified_on": {"trials": len(draft.trials), "origin": draft.trials.origin},
                "precisions": list(self._settings.all_precisions),
            },
            "files": list_files(self._folder),
            "graphs": self._entries,
            "end_to_end": pictures,
        }
        write_json(self._folder / MANIFEST, sealed(content))

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


def _silent(_label: str, _done: int, _total: int) -> None:
    return None
