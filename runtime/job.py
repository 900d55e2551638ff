"""One run from a checkpoint and responses to a run folder with its report: what ``md-reconstruct run`` does."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from .batch.identity import alone_in, claim_folder
from .batch.run import Outcome, run_batch
from .batch.ticker import Ticker
from .controls import CONTROLS
from .errors import InputError
from .files import sha256_of, write_bytes
from .images import png_bytes
from .opening import Source, open_source, versions
from .reconstruct import Reconstructor, ReconstructSettings
from .report.page import write_report
from .responses import Responses, open_responses, screen, seen, with_pictures
from .summary import Measures, caption_labels, measure_run, write_summary

# Pictures of the tiny world go sixteen at a time; one of Stable Diffusion's with gradients fills a large GPU.
SMALL_PICTURE_PX, SMALL_BATCH = 128, 16


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to reconstruct, with what, into which folder.

    Attributes
    ----------
    checkpoint, responses, out
        Folders and files as a person gives them; `checkpoint` may be a bundle.
    models, clip
        See :func:`~minddiffuser.runtime.models.open.load_models`; None: the tiny world, or the bundle's own.
    backend, precision, memory
        Of a bundle; see :class:`~minddiffuser.runtime.engines.open.EngineSettings`. Its networks in PyTorch are the
        backend "pytorch".
    gradients
        "autograd" (a checkpoint, or the backend "pytorch") or "engines" (a bundle); None: what there is.
    stimuli
        A folder of pictures that were seen, in the trials' order; None takes the data folder's own, if any.
    settings
        Both stages.
    batch_size
        None chooses by the picture's size.
    device
        "auto", or a torch device.
    threads
        CPU threads, at most the machine's cores; None takes those of the run folder's earlier run, else torch's choice.
    share_threads
        Of a bundle's engines; for a process that runs nothing else.
    gpu_memory_mib, engine_cache
        Of a bundle's engines on a GPU: the most memory of each graph (ONNX Runtime), and where TensorRT-RTX keeps what
        it compiles.
    trust_plans, trust_list
        Whether the user trusts every plan of the bundle, and the file that lists those that were trusted before; see
        :mod:`~minddiffuser.runtime.engines.trust`.
    notes
        Lines for the report.
    """

    checkpoint: Path
    responses: Path
    out: Path
    models: str | None = None
    clip: str | None = None
    backend: str | None = None
    precision: str | None = None
    memory: str | None = None
    gradients: str | None = None
    stimuli: Path | None = None
    settings: ReconstructSettings = field(default_factory=ReconstructSettings)
    batch_size: int | None = None
    device: str = "auto"
    dtype: str = "float32"
    threads: int | None = None
    share_threads: bool = False
    gpu_memory_mib: int | None = None
    engine_cache: Path | None = None
    trust_plans: bool = False
    trust_list: Path | None = None
    notes: tuple[str, ...] = ()


def run_job(job: Job, stream: TextIO) -> tuple[Outcome, Path]:
    """Reconstruct, measure and report; the same call resumes a run that was stopped.

    Everything is opened, decoded and checked before the run folder is touched: a mistake leaves nothing behind.

    Parameters
    ----------
    job
        What to do.
    stream
        Where progress and skipped trials are told.

    Returns
    -------
    The outcome and the path of report.html.

    Raises
    ------
    MindDiffuserError
        Anything that the user can mend; see sections of the modules used.
    """
    with ExitStack() as stack:
        work = _prepared(job, stream, stack)
        stack.enter_context(alone_in(job.out))
        claim_folder(job.out, work.identity)
        stream.write(f"computing with {work.source.told}\n")
        if work.given.pictures is not None:
            _write_stimuli(job.out, work.given.pictures, work.good, work.source.networks.image_size)
        outcome = _reconstruct(job, work, stream)
        if outcome.failed:
            stream.write(
                f"md-reconstruct: a refinement broke off in trial(s) {', '.join(map(str, outcome.failed))}: its loss "
                "became NaN or infinite, and the best picture before that was kept\n"
            )
        outcome = _measured(job, work.source, work.given, outcome)
        return outcome, write_report(job.out)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Work:
    """A job whose inputs were all opened and found good, and what decides its pictures."""

    given: Responses
    responses: NDArray[np.float32]
    skipped: Mapping[int, str]
    source: Source
    batch_size: int
    identity: Mapping[str, Any]
    reconstructor: Reconstructor
    on_step: _Relay

    @property
    def good(self) -> list[int]:
        return [trial for trial in range(len(self.responses)) if trial not in self.skipped]


class _Relay:
    """Passes each iteration on to whoever listens by then: the reconstruction is made before the progress line."""

    to: Callable[[str, int, int], None] | None = None

    def __call__(self, phase: str, step: int, steps: int) -> None:
        if self.to is not None:
            self.to(phase, step, steps)


def _prepared(job: Job, stream: TextIO, stack: ExitStack) -> _Work:
    source = open_source(job, stack)
    decoder = source.decoder
    given = _given(job, source)
    responses, skipped = screen(given.rows, decoder.n_voxels, decoder.scored)
    for trial, reason in sorted(skipped.items()):
        stream.write(f"md-reconstruct: trial {trial} is skipped: {reason}\n")
    good = [trial for trial in range(len(responses)) if trial not in skipped]
    pictures, size, on_step = given.pictures, source.networks.image_size, _Relay()

    def look(trials: Sequence[int]) -> NDArray[np.uint8]:
        return seen([pictures[trial] for trial in trials] if pictures else [], size)

    reconstructor = Reconstructor(
        decoder,
        source.networks,
        responses,
        good,
        job.settings,
        seen=None if pictures is None else look,
        on_step=on_step,
    )
    for path in dict.fromkeys(pictures[trial] for trial in good) if pictures else ():
        seen([path], size)  # decoded and thrown away, since all of them may not fit the memory
    batch_size = _batch_size(job, source)
    return _Work(
        given=given,
        responses=responses,
        skipped=skipped,
        source=source,
        batch_size=batch_size,
        identity=_identity(job, source, given, batch_size=batch_size),
        reconstructor=reconstructor,
        on_step=on_step,
    )


def _given(job: Job, source: Source) -> Responses:
    given = open_responses(job.responses)
    if given.subject is not None:
        source.decoder.require_subject(given.subject)
    return given if job.stimuli is None else with_pictures(given, job.stimuli)


def _batch_size(job: Job, source: Source) -> int:
    most = source.largest_batch
    if most is not None and job.batch_size is not None and job.batch_size > most:
        raise InputError(
            f"the batch size is {job.batch_size}, and the bundle's engines were built for at most {most} trials: give "
            "that, or build engines for more"
        )
    usual = SMALL_BATCH if source.networks.image_size <= SMALL_PICTURE_PX else 1
    return job.batch_size or (usual if most is None else min(usual, most))


def _identity(job: Job, source: Source, given: Responses, *, batch_size: int) -> dict[str, Any]:
    """Everything that the pictures depend on, as JSON; under "given" and "notes" what they do not depend on."""
    settings = asdict(job.settings)
    checkpointing = settings.pop("checkpointing")
    settings["refine"] = job.settings.refine.as_dict()
    stimuli = None if given.pictures is None else _hash_pictures(given.pictures)
    return {
        "settings": {
            **settings,
            "layer_preset": source.decoder.preset,
            "batch_size": batch_size,
            **source.computing,
        },
        "versions": versions(source.libraries),
        "hashes": {
            "checkpoint": source.decoder.hash,
            "models": source.networks.hash,
            "responses": given.hash,
            "stimuli": stimuli,
        },
        "data": {"subject": source.decoder.subject, "n_trials": len(given.rows), "simulated": given.simulated},
        "given": {"models": job.models or source.networks.name, "clip": job.clip, "checkpointing": checkpointing},
        "notes": list(job.notes),
    }


def _hash_pictures(pictures: Sequence[Path]) -> str:
    digests = {path: sha256_of(path) for path in set(pictures)}
    return hashlib.sha256("\n".join(digests[path] for path in pictures).encode()).hexdigest()


def _write_stimuli(out: Path, pictures: Sequence[Path], good: Sequence[int], size: int) -> None:
    """Write what was seen at the pictures' size, where it is not there already."""
    for trial in good:
        path, data = out / "stimuli" / f"{trial:06d}.png", png_bytes(seen([pictures[trial]], size)[0])
        if not path.exists() or path.read_bytes() != data:
            write_bytes(path, data)


def _reconstruct(job: Job, work: _Work, stream: TextIO) -> Outcome:
    ticker: Ticker | None = None
    n_now = 0

    def on_progress(done: int, total: int) -> None:
        nonlocal ticker
        if ticker is None:
            ticker = Ticker(total, done, _renderings(job.settings), stream=stream)
        ticker.images(done)

    def on_step(phase: str, step: int, steps: int) -> None:
        if ticker is not None:
            ticker.step(n_now, f"{phase} {step}/{steps}")

    def one_batch(trials: Sequence[int], rows: NDArray[np.float32]) -> Any:
        nonlocal n_now
        n_now = len(trials)
        return work.reconstructor(trials, rows)

    work.on_step.to = on_step
    try:
        return run_batch(
            job.out,
            work.responses,
            one_batch,
            batch_size=work.batch_size,
            skipped=work.skipped,
            on_progress=on_progress,
        )
    finally:
        if ticker is not None:
            ticker.close()


def _renderings(settings: ReconstructSettings) -> int:
    """How often a picture is rendered: once in stage 1, and steps + 1 times in each refinement."""
    if settings.stage == 1:
        return 1
    return 1 + (settings.refine.steps + 1) * (1 + len(CONTROLS[settings.controls]))


def _measured(job: Job, source: Source, given: Responses, outcome: Outcome) -> Outcome:
    """Write summary.json and trials.json; measuring is a phase as the others are."""
    start = time.perf_counter()
    has_stimuli = given.pictures is not None
    measures, notes = _measures(source, given, outcome.trials) if has_stimuli else (Measures(), ())
    values = measure_run(job.out, outcome, measures) if has_stimuli else {}
    outcome = replace(outcome, seconds={**outcome.seconds, "metrics": time.perf_counter() - start})
    write_summary(job.out, outcome, values, seed=job.settings.refine.seed, notes=notes)
    return outcome


def _measures(source: Source, given: Responses, trials: Sequence[int]) -> tuple[Measures, tuple[str, ...]]:
    """CLIP of the run's networks; the judge beside them, where captions say what was seen, or a note why not."""
    embed = source.networks.embedding if source.embeds else None
    notes = () if source.embeds else ("clip_two_way was left out: the bundle has no graph clip_structure.",)

    def without_concept(reason: str) -> tuple[Measures, tuple[str, ...]]:
        return Measures(embed=embed), (*notes, f"concept_top1 was left out: {reason}.")

    if source.judge is None:
        return without_concept("a judge comes with a model folder (judge/ beside it), and here there is none")
    if not given.captions:
        return without_concept("the seen pictures come without captions that name what they show")
    from .metrics.judge import open_judge

    judge = open_judge(source.judge, source.device)
    labels = caption_labels([given.captions[trial] for trial in trials], judge.labels["concept"])
    if labels is None:
        return without_concept("the captions of some trial name none, or more than one, of the things the judge knows")
    return Measures(embed=embed, classify=lambda images: judge.predict(images)[:, 0], labels=labels), notes
