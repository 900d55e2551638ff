"""A checkpoint and a model folder become a bundle of verified engines: what ``md-export bundle`` does."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..runtime.batch.identity import alone_in
from ..runtime.bundle import Bundle
from ..runtime.bundle_schema import ARRAYS, MANIFEST, PARITY, PRECISIONS, VERSION, sealed
from ..runtime.decode import Checkpoint, open_checkpoint
from ..runtime.engines.base import Specs
from ..runtime.engines.pytorch import TorchEngine
from ..runtime.errors import FileError, InputError, check_choice
from ..runtime.files import read_json, sha256_of, write_json, write_tensors
from ..runtime.models.models import Models
from ..runtime.models.open import load_models
from ..runtime.opening import ENGINE_LIBRARIES, LIBRARIES, TORCH_LIBRARIES, versions
from .gate import Case, Verified, end_to_end, expected_cases, verify_file
from .graphs.base import NETWORK_GRAPHS, NetworkGraph, network_graph
from .graphs.decode import PREFIX, decode_model, decode_specs
from .material import Feeds, Reference, Trials, random_feeds, reference_run, trials_for
from .parity import GateFailure, failed
from .pictures import SEED, engine_pictures
from .store import WeightStore
from .to_onnx import export_network, prepare
from .variants import in_precision

Progress = Callable[[str, int, int], None]
# On the disk in this order, whatever order they were asked for in.
DECODE_TARGETS = ("context", "latent", "structure", "semantic")
SMALL_PICTURE_PX = 128


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What a bundle is to hold.

    Attributes
    ----------
    precisions : tuple of str
        Of every graph that takes it; "fp32" is always there, as the reference on any machine.
    graphs : tuple of str, or None
        None: all.
    n_verify, n_calibrate : int or None
        Trials that engines are verified and calibrated on; None: 4 of small pictures, 1 of large ones.
    threads : int
    keep_failed : Path or None
        A new folder for graphs that are out of tolerance, for inspection; never part of the bundle.

    Raises
    ------
    InputError
        An unknown name.
    """

    precisions: tuple[str, ...] = ("fp32",)
    graphs: tuple[str, ...] | None = None
    n_verify: int | None = None
    n_calibrate: int | None = None
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    keep_failed: Path | None = None

    def __post_init__(self) -> None:
        for precision in self.precisions:
            check_choice("precision", precision, PRECISIONS)
        for graph in self.graphs or ():
            check_choice("graph", graph, (*NETWORK_GRAPHS, *(PREFIX + target for target in DECODE_TARGETS)))
        for name in ("n_verify", "n_calibrate"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise InputError(f"{name} is {count}: give 1 or more trials")

    @property
    def all_precisions(self) -> tuple[str, ...]:
        return tuple(p for p in PRECISIONS if p == "fp32" or p in self.precisions)


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
    _check_out(out)
    opened = load_models(models, clip=clip, preset=fitted.preset)
    fitted.require_models(opened.hash, opened.name)
    with _alone(out), _draft(out) as draft:
        work = _Work(fitted, opened, settings, data, draft, progress or _silent)
        work.run()
        if finish is not None:
            finish(draft)
        Bundle.open(draft)  # what a reader would refuse is never put in place
        _put_in_place(draft, out)
    return Bundle.open(out)


class _Work:
    """One export into a draft folder."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        models: Models,
        settings: ExportSettings,
        data: Path | None,
        draft: Path,
        progress: Progress,
    ) -> None:
        self._checkpoint, self._models, self._settings = checkpoint, models, settings
        self._data, self._draft, self._progress = data, draft, progress
        # The gradients' semantic term wants a target that the checkpoint can decode.
        self._semantic = "semantic" in checkpoint.shapes
        self._entries: dict[str, Any] = {}
        self._parity: dict[str, np.ndarray[Any, Any]] = {}
        self._failures: list[GateFailure] = []

    def run(self) -> None:
        prepare(self._models)
        names = self._names()
        small = self._models.image_size <= SMALL_PICTURE_PX
        n_verify = self._settings.n_verify or (4 if small else 1)
        n_calibrate = self._settings.n_calibrate or (4 if small else 1)
        verify, calibrate = trials_for(self._checkpoint, self._data, (n_verify, n_calibrate))
        graphs = {name: network_graph(name, self._models, semantic=self._semantic) for name in NETWORK_GRAPHS}
        engines = {n: TorchEngine(n, self._models, g.inputs, g.outputs) for n, g in graphs.items()}
        reference, probed = Reference(stage1=np.zeros(0, np.float32)), None
        if any(name in NETWORK_GRAPHS for name in names):  # decoders are compared with the checkpoint alone
            self._progress("running both stages in PyTorch", 0, 2)
            reference = self._reference(engines, verify)
            self._progress("running both stages in PyTorch", 1, 2)
            probed = self._reference(engines, calibrate) if self._settings.all_precisions != ("fp32",) else None
            self._progress("running both stages in PyTorch", 2, 2)
        (self._draft / "engines").mkdir()
        total = len(names)
        with WeightStore(self._draft / "engines") as store:
            for done, name in enumerate(names):
                self._progress("exporting and verifying graphs", done, total)
                if name.startswith(PREFIX):
                    self._decoder(name, verify, calibrate, store)
                else:
                    self._network(graphs[name], engines[name], reference, probed, store)
            self._progress("exporting and verifying graphs", total, total)
        if self._failures:
            raise self._failures[0]
        self._write_arrays()
        if not {"denoise", "vae_decode", "decode_context", "decode_latent"} <= set(names):
            return self._write_manifest({}, verify)
        self._parity |= {"responses": verify.responses, "stage1": reference.stage1}
        self._write_manifest({}, verify)
        self._pictures(reference, verify)

    def _names(self) -> list[str]:
        decoders = [PREFIX + target for target in DECODE_TARGETS if target in self._checkpoint.shapes]
        known = [*decoders, *NETWORK_GRAPHS]
        wanted = known if self._settings.graphs is None else self._settings.graphs
        missing = [name for name in wanted if name not in known]
        if missing:
            raise InputError(f"the checkpoint {self._checkpoint.folder} has no decoder for {', '.join(missing)}")
        return [name for name in known if name in wanted]

    def _reference(self, engines: dict[str, Any], trials: Trials) -> Reference:
        # Of large networks two steps back are enough to see whether gradients agree; all 35 take a quarter of an hour.
        steps = None if self._models.image_size <= SMALL_PICTURE_PX else 2
        return reference_run(
            self._checkpoint, self._models, engines, trials, semantic=self._semantic, backprop_steps=steps
        )

    def _decoder(self, name: str, verify: Trials, calibrate: Trials, store: WeightStore) -> None:
        target = name.removeprefix(PREFIX)
        specs = decode_specs(self._checkpoint, target)
        (random,) = trials_for(self._checkpoint, None, (len(verify),), seed=SEED + 1)
        cases = [
            Case(kind=kind, feeds={"responses": t.responses}, expected={target: np.asarray(getattr(t.decoded, target))})
            for kind, t in (("random", random), ("decoded", verify))
        ]
        self._variants(
            name, [decode_model(self._checkpoint, target)], specs, cases, [{"responses": calibrate.responses}], store
        )

    def _network(
        self,
        graph: NetworkGraph,
        engine: TorchEngine,
        reference: Reference,
        probed: Reference | None,
        store: WeightStore,
    ) -> None:
        # One trial of large pictures: autograd through the decoder at 512 px takes ten gigabytes for each.
        batch = 2 if self._models.image_size <= SMALL_PICTURE_PX else 1
        random = random_feeds(graph, self._checkpoint, batch=batch)
        inputs = {"random": [random], "decoded": reference.feeds[graph.name]}
        cases = expected_cases(engine, inputs)
        batches = probed.feeds[graph.name] if probed is not None else []
        self._variants(
            graph.name, [export_network(graph, self._models)], (graph.inputs, graph.outputs), cases, batches, store
        )

    def _variants(
        self,
        name: str,
        models: list[onnx.ModelProto],
        specs: tuple[Specs, Specs],
        cases: list[Case],
        batches: Sequence[Feeds],
        store: WeightStore,
    ) -> None:
        """Write and verify a graph in each precision; `models` holds its only reference, which is let go in time."""
        variants: list[dict[str, Any]] = []
        for precision in reversed(self._settings.all_precisions):
            converted = in_precision(models, name, precision, batches, threads=self._settings.threads)
            if converted is None:
                continue
            opset = next(entry.version for entry in converted.models[0].opset_import if entry.domain in ("", "ai.onnx"))
            # Weights of gigabytes: what is on the disk need not stay in memory while it is verified.
            path, data = store.write(converted.models.pop(), f"{name}.{precision}")
            found = verify_file(name, path, specs, cases, precision, threads=self._settings.threads)
            if found.reason is not None:
                self._fail(name, precision, path, found)
                continue
            variants.insert(
                0,
                {
                    "target": "onnx",
                    "precision": precision,
                    "file": self._relative(path),
                    "data": [self._relative(file) for file in data],
                    "opset": opset,
                    "batch_sizes": None,
                    "parity": found.parity,
                    "precision_map": converted.exceptions,
                    "builder": {"note": converted.note} if converted.note else {},
                },
            )
        self._entries[name] = {"inputs": _specs(specs[0]), "outputs": _specs(specs[1]), "variants": variants}
        self._keep_parity(name, cases)

    def _fail(self, name: str, precision: str, path: Path, found: Verified) -> None:
        failure = failed(name, precision, str(found.reason))
        kept = self._settings.keep_failed
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
        for key, spread in case.spread.items():
            self._parity[f"{name}/spread/{key}"] = np.array([spread], np.float32)

    def _write_arrays(self) -> None:
        mean, std = self._checkpoint.statistics
        arrays = {
            "uncond_context": self._checkpoint.uncond_context,
            "context_bos": self._checkpoint.context_bos,
            "mask": self._checkpoint.mask,
            "score": self._checkpoint.score,
            "alphas_cumprod": np.array(self._models.alphas_cumprod),
            "mean": mean,
            "std": std,
        }
        write_tensors(self._draft / ARRAYS, arrays)

    def _pictures(self, reference: Reference, verify: Trials) -> None:
        """Compare whole pictures of stage 1, engine by engine, with PyTorch's."""
        import torch

        def embed(images: Any) -> Any:
            with torch.no_grad():
                return self._models.embedding(torch.from_numpy(images)).numpy()

        pictures: dict[str, Any] = {}
        for precision in self._settings.all_precisions:
            self._progress(f"comparing pictures in {precision}", 0, 1)
            found = engine_pictures(self._draft, verify.responses, precision, self._settings.threads)
            if found is None:
                continue
            compared = end_to_end(found, reference.stage1, verify.seen, embed, precision)
            self._progress(f"comparing pictures in {precision}", 1, 1)
            if compared.reason is not None:
                self._keep_pictures(precision, found)
                raise failed("pictures of stage 1", precision, compared.reason)
            pictures[precision] = compared.figures
        self._write_manifest(pictures, verify)

    def _keep_pictures(self, precision: str, found: Any) -> None:
        """Put the graphs of a precision and the pictures that they made where they can be looked at."""
        kept = self._settings.keep_failed
        if kept is None:
            return
        kept.mkdir(parents=True, exist_ok=True)
        write_tensors(kept / f"stage1.{precision}.safetensors", {"image": found})
        for path in (self._draft / "engines").glob(f"*.{precision}.onnx"):
            onnx.save(onnx.load(path), kept / path.name, save_as_external_data=True, location=f"{path.name}.bin")

    def _write_manifest(self, pictures: dict[str, Any], verify: Trials) -> None:
        write_tensors(self._draft / PARITY, self._parity)
        write_json(self._draft / MANIFEST, sealed(self._manifest(pictures, verify)))

    def _manifest(self, pictures: dict[str, Any], verify: Trials) -> dict[str, Any]:
        checkpoint, models = self._checkpoint, self._models
        description = checkpoint.description
        return {
            "format": "minddiffuser-bundle",
            "version": VERSION,
            "versions": versions((*LIBRARIES, *TORCH_LIBRARIES, *ENGINE_LIBRARIES, "onnx", "onnxscript", "onnx-ir")),
            "models": {"name": Path(models.name).name, "hash": models.hash},
            "checkpoint": {
                "hash": checkpoint.hash,
                "subject": checkpoint.subject,
                "modality": checkpoint.modality,
                "decoders": description["decoders"],
                "selection": description["selection"],
                "provenance": description["provenance"],
            },
            "lineage": {
                "source_models": models.hash,
                "source_checkpoint": checkpoint.hash,
                "verified_on": {"trials": len(verify), "origin": verify.origin},
                "precisions": list(self._settings.all_precisions),
            },
            "preset": checkpoint.preset,
            "image_size": checkpoint.image_size,
            "n_voxels": checkpoint.n_voxels,
            "shapes": {name: list(shape) for name, shape in checkpoint.shapes.items()},
            "preprocessing": models.preprocessing.describe(),
            "sampling": {"steps_offset": models.steps_offset, "set_alpha_to_one": models.set_alpha_to_one},
            "files": list_files(self._draft),
            "graphs": self._entries,
            "end_to_end": pictures,
        }

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._draft).as_posix()


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file of a bundle but its manifest, by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {
        path.relative_to(folder).as_posix(): {"sha256": sha256_of(path), "size": path.stat().st_size} for path in paths
    }


def _specs(specs: Specs) -> dict[str, Any]:
    return {name: {"dtype": spec.dtype, "shape": list(spec.shape)} for name, spec in specs.items()}


def _silent(_label: str, _done: int, _total: int) -> None:
    return None


def _check_out(out: Path) -> None:
    """Refuse to replace anything but a bundle: other programs write a manifest.json too."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    manifest = out / MANIFEST
    there = read_json(manifest, "the manifest of what is there") if manifest.is_file() else {}
    if there.get("format") != "minddiffuser-bundle":
        raise FileError(f"{out} is there and is no bundle: give another --out folder")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold a lock beside `out`, so that no two exports write one bundle; it is gone afterwards."""
    lock = out.parent / f".{out.name}.lock"
    with alone_in(lock):
        try:
            yield
        finally:
            shutil.rmtree(lock, ignore_errors=True)


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """A folder beside `out`; an earlier export's leftovers are taken away, and an old bundle set aside is put back."""
    aside = _aside(out)
    if aside.exists() and not out.exists():
        aside.rename(out)
    draft_name = re.compile(rf"\.{re.escape(out.name)}\.\d+\.draft")
    for left in out.parent.iterdir() if out.parent.is_dir() else ():
        if draft_name.fullmatch(left.name):  # of this bundle, and not of one whose name begins so
            shutil.rmtree(left, ignore_errors=True)
    draft = out.parent / f".{out.name}.{os.getpid()}.draft"
    try:
        draft.mkdir(parents=True)
        yield draft
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(
            f"{out} cannot be written ({error.strerror or error}): free some space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _put_in_place(draft: Path, out: Path) -> None:
    aside = _aside(out)
    shutil.rmtree(aside, ignore_errors=True)
    if out.exists():
        out.rename(aside)
    draft.rename(out)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(out: Path) -> Path:
    return out.parent / f".{out.name}.old"
