"""A checkpoint and a model folder become a bundle of verified engines: what ``md-export bundle`` does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ...runtime.bundle.manifest import ARRAYS, DECODE, MANIFEST, PARITY, sealed
from ...runtime.bundle.open import Bundle
from ...runtime.data.chain_files import copy_files
from ...runtime.decoders.checkpoint import Checkpoint, open_checkpoint
from ...runtime.engines.here import why_no_provider
from ...runtime.errors import FileError, InputError, MissingExtra
from ...runtime.files import write_json, write_tensors
from ...runtime.leaks import leaks_line
from ...runtime.locks import beside, locked
from ...runtime.models.models import Models
from ...runtime.models.open import load_models
from ...runtime.output import check_output
from ...runtime.progress import unheard
from ...runtime.training_pictures import FILE as TRAINING_PICTURES
from ..memory import give_back
from ..settings import ExportSettings, memory_for
from ..verify.gate import Case, Verified, end_to_end, verify_file
from ..verify.material import Trials
from ..verify.parity import GUIDED_PICTURES, PICTURES, GateFailure, PictureTolerance, failed
from ..verify.pictures import GUIDED, engine_guided_pictures, engine_pictures, lacks_for_guidance
from .describe import describe_checkpoint, describe_format, describe_specs, list_files
from .draft import Draft, DraftGraph, Progress, Written, draft_graphs, draft_trials, graph_names
from .keeping import keep_built
from .placement import check_out, in_place_of
from .reuse import EXPORTER, exporter_code

# (bundle, responses, precision, threads) -> pictures, or None where the precision does not run here
PicturesOf = Callable[[Path, NDArray[np.float32], str, int | None], NDArray[np.float32] | None]
_PICTURE_KINDS = {"stage1": "pictures of stage 1", "guided": "pictures of a guided pass"}
# The folder of failed graphs: its marker says that an export may write there.
KEPT, KEPT_MARKER, KEPT_KIND = "--keep-failed folder", "failed.json", "failed-graphs"


def export_bundle(  # noqa: PLR0913 (what a person gives to the command; all choices have defaults)
    checkpoint: Path,
    out: Path,
    settings: ExportSettings,
    *,
    models: str = "tiny",
    clip: str | None = None,
    data: Path | None = None,
    stimuli_root: Path | None = None,
    force: bool = False,
    finish: Callable[[Path], None] | None = None,
    rebuilt: Collection[str] = (),
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Bundle:
    """Export, verify, and put the bundle in place: whole, or what was there before.

    All arguments are checked before the networks are opened, which may be a download.

    Parameters
    ----------
    checkpoint
        Folder of ``md-train fit``.
    out
        Folder of the bundle, new or empty; with `force` a bundle that is there is replaced at the very end.
    models, clip
        See :func:`~minddiffuser.runtime.models.open.load_models`.
    data, stimuli_root
        See :func:`~..verify.material.trials_for`.
    force
        Replace a bundle. Engines that were built for it are kept where their graphs stay the same.
    finish
        Called with the folder of the whole bundle before it is put in place, to add engines to it.
    rebuilt
        Targets whose engines `finish` adds.
    progress
        Called with what is being done, and how much of it is.
    say
        Receives a line on each warning about `data`, on each field of the model folder that a person should know of,
        and on each engine of the old bundle that is kept, or is not.

    Raises
    ------
    GateFailure
        An engine is out of tolerance; nothing is published.
    MindDiffuserError
        Inputs that cannot be used, or a folder that cannot be written or holds something else.
    """
    out = Path(os.path.realpath(out))  # "." has no name to put a draft beside, and a link would be replaced itself
    fitted = open_checkpoint(checkpoint)
    fitted.prepare()
    graph_names(fitted, settings)
    check_out(out, force=force)
    _check_kept(settings.keep_failed, out)
    _needs_onnxruntime()
    trials = draft_trials(fitted, settings, data, stimuli_root)
    say = say or unheard
    if fitted.leaks:
        say(leaks_line(fitted.leaks))
    for warning in trials[0].warnings:
        say(warning)
    with locked(beside(out), out):  # before the networks, which may be a download
        opened = [load_models(models, clip=clip, preset=fitted.preset)]
        fitted.require_models(opened[0].hash, opened[0].name)
        for note in opened[0].notes:
            say(note)
        with in_place_of(out, force=force) as place:
            report, folder = progress or unheard, place.draft
            draft = _drafted(fitted, opened, settings, trials, folder, report, say)
            give_back()
            _Gate(fitted, draft, settings, folder, report).run()
            if place.old is not None:
                keep_built(place.old, folder, say, out=out, rebuilt=rebuilt)
            if place.unknown is not None:
                say(f"engines built for the existing bundle are not kept: {place.unknown.partition(': ')[0]}")
            if finish is not None:
                finish(folder)
            Bundle.open(folder)  # a bundle that cannot be opened is never put in place
    return Bundle.open(out)


def _check_kept(kept: Path | None, out: Path) -> None:
    if kept is None:
        return
    if kept.resolve().is_relative_to(out):
        raise InputError(f"--keep-failed {kept} lies inside the bundle {out}: give another folder")
    check_output(kept, what=KEPT, marker=KEPT_MARKER, kind=KEPT_KIND)


def _needs_onnxruntime() -> None:
    reason = why_no_provider("ort")
    if reason is not None:
        raise MissingExtra(f"engines are verified with ONNX Runtime: {reason}")


def _drafted(
    checkpoint: Checkpoint,
    models: list[Models],
    settings: ExportSettings,
    trials: Sequence[Trials],
    folder: Path,
    progress: Progress,
    say: Callable[[str], None],
) -> Draft:
    """`models` holds the only reference to the networks, which are gone when this returns."""
    engines = folder / "engines"
    engines.mkdir()
    return draft_graphs(checkpoint, models.pop(), settings, trials=trials, folder=engines, progress=progress, say=say)


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
        if self._checkpoint.route is not None:
            arrays["concept_context"] = self._checkpoint.route.context
        write_tensors(self._folder / ARRAYS, arrays)
        copy_files(self._checkpoint.layout.signal, self._checkpoint.signal_folder, self._folder)
        if self._checkpoint.training_pictures is not None:
            shutil.copyfile(self._checkpoint.folder / TRAINING_PICTURES, self._folder / TRAINING_PICTURES)
        stage1 = self._draft.stage1
        needed = {"denoise", "vae_decode", "decode_context", "decode_latent"}
        if stage1 is None or not needed <= self._entries.keys():
            return self._write_manifest({})
        self._parity |= {"responses": self._draft.trials.responses, "stage1": stage1}
        guided = self._draft.guided
        if guided is not None:
            self._parity["guided"] = guided
        self._write_manifest({})  # pictures are made from the bundle as a reader would open it
        pictures = self._pictures("stage1", engine_pictures, stage1, PICTURES)
        if guided is not None:
            settings = GUIDED.as_dict()
            for precision, found in self._pictures("guided", engine_guided_pictures, guided, GUIDED_PICTURES).items():
                pictures[precision]["guided"] = {**found, "settings": settings}
        else:
            for found in pictures.values():
                found["guided"] = {"reason": lacks_for_guidance(self._entries)}
        self._write_manifest(pictures)

    def _graph(self, graph: DraftGraph) -> None:
        variants, route = [], self._checkpoint.route
        for written in graph.written:
            found = verify_file(
                graph.name,
                written.path,
                graph.specs,
                graph.cases,
                written.precision,
                threads=self._settings.threads,
                memory=memory_for(self._draft.described["image_size"]),
                contexts=None if route is None or graph.name != f"{DECODE}context" else route.context,
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
                    "batch_sizes": None if found.one_row is None else [1],
                    "parity": found.parity | ({} if found.one_row is None else {"one_trial_at_a_time": found.one_row}),
                    "precision_map": written.exceptions,
                    "builder": {"note": written.note} if written.note else {},
                }
            )
        inputs, outputs = graph.specs
        self._entries[graph.name] = {
            "inputs": describe_specs(inputs),
            "outputs": describe_specs(outputs),
            **({} if graph.flops is None else {"flops": graph.flops}),
            "variants": variants,
        }
        self._keep_parity(graph.name, graph.cases)

    def _fail(self, name: str, written: Written, found: Verified) -> None:
        failure = failed(name, written.precision, str(found.reason))
        if self._settings.keep_failed is None:
            raise failure
        record = {"reason": found.reason, "parity": found.parity}
        with _keeping(self._settings.keep_failed):
            self._keep_graph(written.path)
            write_json(self._settings.keep_failed / f"{written.path.name}.json", record)
        written.path.unlink()
        self._failures.append(failure)

    def _keep_graph(self, path: Path) -> None:
        """Save a graph with its weights in the folder of failed graphs, replacing one of an earlier export."""
        kept = self._settings.keep_failed
        assert kept is not None
        if not (kept / KEPT_MARKER).is_file():
            write_json(kept / KEPT_MARKER, {"format": f"minddiffuser-{KEPT_KIND}", "version": 1})
        (kept / f"{path.name}.bin").unlink(missing_ok=True)  # onnx would add to an earlier one
        onnx.save(onnx.load(str(path)), str(kept / path.name), save_as_external_data=True, location=f"{path.name}.bin")

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

    def _pictures(
        self,
        kind: str,
        by_engines: PicturesOf,
        expected: NDArray[np.float32],
        tolerances: Mapping[str, PictureTolerance],
    ) -> dict[str, Any]:
        """Compare whole pictures of one kind, in each precision, with PyTorch's."""
        trials, pictures, what = self._draft.trials, dict[str, Any](), _PICTURE_KINDS[kind]
        for precision in self._settings.all_precisions:
            self._progress(f"comparing {what} in {precision}", 0, 1)
            found = by_engines(self._folder, trials.responses, precision, self._settings.threads)
            if found is None:
                continue
            tolerance = tolerances[precision]
            compared = end_to_end(found, expected, trials.stimuli, self._draft.embed, tolerance, what=what)
            self._progress(f"comparing {what} in {precision}", 1, 1)
            if compared.reason is not None:
                self._keep_pictures(kind, precision, found)
                raise failed(what, precision, compared.reason)
            pictures[precision] = compared.metrics
        return pictures

    def _keep_pictures(self, kind: str, precision: str, found: Any) -> None:
        """Put the graphs of a precision and the pictures that they made where they can be looked at."""
        kept = self._settings.keep_failed
        if kept is None:
            return
        with _keeping(kept):
            for path in (self._folder / "engines").glob(f"*.{precision}.onnx"):
                self._keep_graph(path)
            write_tensors(kept / f"{kind}.{precision}.safetensors", {"image": found})

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
                EXPORTER: exporter_code(),
                "verified_on": {
                    "trials": len(draft.trials),
                    "origin": draft.trials.origin,
                    "warnings": list(draft.trials.warnings),
                },
                "precisions": list(self._settings.all_precisions),
            },
            "files": list_files(self._folder),
            "graphs": self._entries,
            "end_to_end": pictures,
        }
        write_json(self._folder / MANIFEST, sealed(content))

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


@contextmanager
def _keeping(kept: Path) -> Iterator[None]:
    """What cannot be written there is no fault of the bundle's folder."""
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        raise FileError(
            f"a graph is out of tolerance, and the {KEPT} {kept} cannot be written ({error.strerror or error}): free "
            "some space or give another folder"
        ) from error
