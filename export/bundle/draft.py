"""Every graph of a bundle, written and not yet verified, with the reference outputs of PyTorch.

All that needs the networks is done here. Afterwards they are let go: engines of gigabytes are opened in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from ...runtime.backends.flops import without_data
from ...runtime.backends.reference import TorchEngine
from ...runtime.bundle.graph_specs import Specs
from ...runtime.bundle.manifest import DECODE
from ...runtime.decoders.checkpoint import Checkpoint
from ...runtime.decoders.concepts import SIMILARITY
from ...runtime.errors import InputError
from ...runtime.features import FEATURES
from ...runtime.models.models import Models
from ...runtime.sampling import Sampling
from ..graphs import NETWORK_GRAPHS
from ..graphs.base import network_graph
from ..graphs.decode import decode_model, decode_specs
from ..memory import uncollected
from ..onnx.convert import export_network, prepare
from ..onnx.network_graph import NetworkGraph
from ..onnx.weights import WeightStore
from ..precision.variants import HALVES, in_precision
from ..settings import SMALL_PICTURE_PX, ExportSettings
from ..verify.gate import Case, expected_cases
from ..verify.material import Feeds, Reference, Trials, random_feeds, reference_guided, reference_run, trials_for
from ..verify.pictures import SEED, lacks_for_guidance
from ..verify.undecided import undecided
from .describe import describe_models
from .flops import graph_flops
from .reuse import Reused

Progress = Callable[[str, int, int], None]
Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """A graph in one precision on the disk; `exceptions` from the precision, and how it was made."""

    precision: str
    path: Path
    data: list[Path]
    opset: int
    exceptions: list[dict[str, Any]]
    note: str


@dataclass(frozen=True, kw_only=True, eq=False)
class DraftGraph:
    """A graph in every precision that it takes, and the cases that each is verified on.

    `flops` are the operations of a network's graph for one trial; None of a decoder's.
    """

    name: str
    specs: tuple[Specs, Specs]
    cases: list[Case]
    written: list[Written]
    flops: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Draft:
    """What was written, and what is kept of the networks.

    Attributes
    ----------
    trials : Trials
        That engines are verified on.
    stage1 : (n, 3, H, H) float32 in [0, 1], or None
        PyTorch's pictures of them; None where no network graph was asked for.
    guided : (n, 3, H, H) float32 in [0, 1], or None
        Those of a guided pass; None where graphs that it needs were not asked for.
    alphas_cumprod : (n_train_steps,) float64
    described : dict
        Of the networks, for the manifest.
    embed
        Pictures (n, 3, H, H) -> CLIP embeddings (n, d), PyTorch's.
    """

    graphs: list[DraftGraph]
    trials: Trials
    stage1: Array | None
    guided: Array | None
    alphas_cumprod: NDArray[np.float64]
    described: dict[str, Any]
    embed: Callable[[Array], Array]


def draft_graphs(
    checkpoint: Checkpoint,
    models: Models,
    settings: ExportSettings,
    *,
    trials: Sequence[Trials],
    folder: Path,
    progress: Progress,
    say: Callable[[str], None],
) -> Draft:
    """Run the reference, and write every graph that was asked for.

    Parameters
    ----------
    models
        Their weights are put into the memory format of graphs, in place. Whoever holds no other reference to them
        has their memory back.
    trials
        Those to verify on, and those to calibrate on; see :func:`draft_trials`.
    folder
        Where graphs and weights go; it exists.
    say
        Receives a line where no graph can be taken from `settings.graphs_from`.

    Raises
    ------
    InputError
        The checkpoint has no such decoder, or the networks hold what cannot be exported.
    """
    names = graph_names(checkpoint, settings)
    prepare(models)
    clip = replace(models, unet=None, vae=None, text_encoder=None)

    def embed(images: Array) -> Array:
        with torch.no_grad():
            return np.asarray(clip.embedding(torch.from_numpy(images)))

    semantic = "semantic" in checkpoint.shapes
    reused = Reused(settings.graphs_from, models_hash=models.hash, preset=checkpoint.preset, semantic=semantic, say=say)
    work = _Work(checkpoint, models, settings, trials, reused)
    networks = [name for name in names if name in NETWORK_GRAPHS]  # decoders are compared with the checkpoint alone
    reference = work.run_reference(progress) if networks else Reference(stage1=np.zeros(0, np.float32))
    guided = None if lacks_for_guidance(names) else work.run_guided(progress)
    graphs = []
    with WeightStore(folder) as store:
        for done, name in enumerate(names):
            progress("exporting graphs", done, len(names))
            graphs.append(work.network(name, reference, store) if name in networks else work.decoder(name, store))
        progress("exporting graphs", len(names), len(names))
    return Draft(
        graphs=graphs,
        trials=work.verify,
        stage1=reference.stage1 if networks else None,
        guided=guided,
        alphas_cumprod=np.array(models.alphas_cumprod),
        described=describe_models(models, Sampling()),
        embed=embed,
    )


def draft_trials(
    checkpoint: Checkpoint, settings: ExportSettings, data: Path | None, stimuli_root: Path | None = None
) -> list[Trials]:
    """The trials that graphs are verified on, and those that they are calibrated on; needs no networks.

    Raises
    ------
    InputError
        See :func:`~..verify.material.trials_for`.
    """
    few = 4 if checkpoint.image_size <= SMALL_PICTURE_PX else 1
    counts = (settings.n_verify or few, settings.n_calibrate or few)
    return trials_for(checkpoint, data, counts, stimuli_root=stimuli_root)


def graph_names(checkpoint: Checkpoint, settings: ExportSettings) -> list[str]:
    """The graphs that are asked for, in the order of a bundle.

    Raises
    ------
    InputError
        The checkpoint has no such decoder.
    """
    decoders = [DECODE + feature for feature in FEATURES if feature in checkpoint.shapes]
    known = [*decoders, *NETWORK_GRAPHS]
    wanted = known if settings.graphs is None else settings.graphs
    missing = [name for name in wanted if name not in known]
    if missing:
        raise InputError(f"the checkpoint {checkpoint.folder} has no decoder for {', '.join(missing)}")
    return [name for name in known if name in wanted]


class _Work:
    """The reference over some trials, and graphs one by one."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        models: Models,
        settings: ExportSettings,
        trials: Sequence[Trials],
        reused: Reused,
    ) -> None:
        self._reused = reused
        self._checkpoint, self._models, self._settings = checkpoint, models, settings
        # The gradients' semantic term wants a target that the checkpoint can decode.
        self._semantic = "semantic" in checkpoint.shapes
        self._small = models.image_size <= SMALL_PICTURE_PX
        self.verify, self._calibrate = trials
        self._probed: Reference | None = None
        self._graphs = {name: network_graph(name, models, semantic=self._semantic) for name in NETWORK_GRAPHS}
        self._engines = {n: TorchEngine(n, models, g.inputs, g.outputs) for n, g in self._graphs.items()}
        self._bare = without_data(models)

    def run_reference(self, progress: Progress) -> Reference:
        """Both stages over the trials to verify on and, where a precision asks for it, those to calibrate on."""
        label, runs = "running both stages in PyTorch", 1 if self._settings.all_precisions == ("fp32",) else 2
        progress(label, 0, runs)
        reference = self._run(self.verify)
        progress(label, 1, runs)
        if runs > 1:
            self._probed = self._run(self._calibrate)
            progress(label, 2, runs)
        return reference

    def run_guided(self, progress: Progress) -> Array:
        """A guided pass over the trials to verify on."""
        label = "running a guided pass in PyTorch"
        progress(label, 0, 1)
        pictures = reference_guided(self._checkpoint, self._models, self.verify)
        progress(label, 1, 1)
        return pictures

    def _run(self, trials: Trials) -> Reference:
        # Of large networks two steps back are enough to see whether gradients agree; all 35 take a quarter of an hour.
        steps = None if self._small else 2
        return reference_run(
            self._checkpoint, self._models, dict(self._engines), trials, semantic=self._semantic, backprop_steps=steps
        )

    def decoder(self, name: str, store: WeightStore) -> DraftGraph:
        target = name.removeprefix(DECODE)
        (random,) = trials_for(self._checkpoint, None, (len(self.verify),), seed=SEED + 1)
        cases = [
            Case(kind=kind, feeds={"responses": t.responses}, expected=self._decoded(t, target))
            for kind, t in (("random", random), ("decoded", self.verify))
        ]
        specs = decode_specs(self._checkpoint, target)
        batches = [{"responses": self._calibrate.responses}]
        written = self._write(name, [decode_model(self._checkpoint, target)], batches, store)
        return DraftGraph(name=name, specs=specs, cases=cases, written=written)

    def _decoded(self, trials: Trials, target: str) -> dict[str, Array]:
        """What the graph of a target has to give."""
        found = {target: np.asarray(getattr(trials.decoded, target))}
        if target == "context" and self._checkpoint.route is not None:
            found[SIMILARITY] = self._checkpoint.similarities(trials.responses)
        return found

    def network(self, name: str, reference: Reference, store: WeightStore) -> DraftGraph:
        graph: NetworkGraph = self._graphs[name]
        # One trial of large pictures: autograd through the decoder at 512 px takes ten gigabytes for each.
        random = random_feeds(graph, self._checkpoint, batch=2 if self._small else 1)
        precisions = [p for p in self._settings.all_precisions if p in ("fp32", *HALVES)]
        bounds = partial(undecided, self._models, precisions) if name == "structure_gradient" else None
        cases = expected_cases(self._engines[name], {"random": [random], "decoded": reference.feeds[name]}, bounds)
        batches = self._probed.feeds[name] if self._probed is not None else []
        with uncollected() if self._small else nullcontext():  # of large networks the garbage is gigabytes
            there = self._reused.get(name)
            models = [export_network(graph, self._models) if there is None else there]
        written = self._write(name, models, batches, store)
        specs, flops = (graph.inputs, graph.outputs), graph_flops(name, self._bare, semantic=self._semantic)
        return DraftGraph(name=name, specs=specs, cases=cases, written=written, flops=flops)

    def _write(
        self, name: str, models: list[onnx.ModelProto], batches: Sequence[Feeds], store: WeightStore
    ) -> list[Written]:
        """Write a graph in each precision; `models` holds its only reference, which is let go in time."""
        found: list[Written] = []
        for precision in reversed(self._settings.all_precisions):
            converted = in_precision(models, name, precision, batches, threads=self._settings.threads)
            if converted is None:
                continue
            opset = next(entry.version for entry in converted.models[0].opset_import if entry.domain in ("", "ai.onnx"))
            path, data = store.write(converted.models.pop(), f"{name}.{precision}")
            written = Written(
                precision=precision,
                path=path,
                data=data,
                opset=opset,
                exceptions=converted.exceptions,
                note=converted.note,
            )
            found.insert(0, written)
        return found
