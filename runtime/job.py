"""One run from a checkpoint and responses to a run folder with its report: what ``md-reconstruct run`` does."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from .batch.choose import called, left_out, skip_option
from .batch.identity import check_run_folder, check_same_run, claim_folder
from .batch.places import check_places
from .batch.run import BROKE_OFF, Outcome, run_batch
from .batch.ticker import Ticker
from .data.pictures import Picture
from .data.references import read_picture
from .data.trial_ids import hash_of_ids
from .environment import versions
from .errors import FileError, InputError, check_choice
from .files import sha256_of, write_bytes
from .images import cut_by_squares, png_bytes
from .locks import inside, locked
from .measure import Measured, measure_run, open_extractors
from .metrics.extractors import Features, Given
from .opening import Described, Source, describe_source
from .progress import Phases
from .reconstruct import Reconstructor, ReconstructSettings, Trials, check_request, phases
from .report.page import write_report
from .responses import Responses, open_responses, seen, with_pictures, with_trial_ids
from .screen import screen
from .summary import write_summary

# Pictures of the tiny world go sixteen at a time; one of Stable Diffusion's with gradients fills a large GPU.
SMALL_PICTURE_PX, SMALL_BATCH = 128, 16
DTYPES = ("float32", "bfloat16", "float16")


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
    trial_ids
        A file of the trials' ids; None takes the data folder's, the names of a file's arrays, or the rows.
    stimuli
        A folder of pictures that were seen, named by the trials' ids or in their order; None takes the data folder's
        own, if any.
    stimuli_root
        The folder that holds the pictures of a data folder that only names them; None takes the one that it states.
    skip_trials
        Trials to leave out, by their id, or their row where no id is a number; nothing of them is looked at.
    settings
        Both stages.
    batch_size
        None chooses by the picture's size.
    device
        "auto", or a torch device.
    dtype
        Of PyTorch's networks: a name of `DTYPES`.
    threads
        CPU threads, at most the cores that this process may use; None takes those of the run folder's earlier run,
        else torch's choice for networks in PyTorch, and every core that may be used for a bundle's engines.
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
    trial_ids: Path | None = None
    stimuli: Path | None = None
    stimuli_root: Path | None = None
    skip_trials: tuple[str, ...] = ()
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

    def __post_init__(self) -> None:
        for name in ("batch_size", "threads", "gpu_memory_mib"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InputError(f"{name} is {value!r}: give a whole number of 1 or more")
        check_choice("dtype", self.dtype, DTYPES)
        paths = ("checkpoint", "responses", "out", "trial_ids", "stimuli", "stimuli_root", "engine_cache", "trust_list")
        for name in paths:
            if getattr(self, name) is not None:  # a text, as people give paths in Python
                object.__setattr__(self, name, Path(getattr(self, name)))


def run_job(job: Job, stream: TextIO) -> tuple[Outcome, Path]:
    """Reconstruct, measure and report; the same call resumes a run that was stopped.

    Everything is opened, decoded and checked before the run folder is touched: a mistake leaves nothing behind. What
    is quick to check comes before what takes long to open: the run folder, the checkpoint, responses and stimuli, and
    the networks last.

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
        Anything that the user can fix; see sections of the modules used.
    """
    check_places(job)
    check_run_folder(job.out)
    with ExitStack() as stack:
        work = _prepared(job, stream, stack)
        extractors, missing = _extractors(work)
        if not work.holds_lock:
            stack.enter_context(locked(inside(job.out), job.out))
        claim_folder(job.out, work.identity)
        stream.write(f"computing with {work.source.told}\n")
        for note in work.source.notes:
            stream.write(f"md-reconstruct: {note}\n")
        if work.given.pictures is not None:
            _write_stimuli(job.out, work.given.pictures, work.good, work.source.networks.image_size)
        outcome = _reconstruct(job, work, stream)
        _tell_failures(outcome, work, stream)
        outcome = _measured(job, work, outcome, extractors, missing, stream)
        return outcome, write_report(job.out)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Work:
    """A job whose inputs were all opened and found good, what decides its pictures, and warnings for the user."""

    given: Responses
    responses: NDArray[np.float32]
    skipped: Mapping[int, str]
    warnings: tuple[str, ...]
    source: Source
    batch_size: int
    identity: Mapping[str, Any]
    reconstructor: Reconstructor
    on_step: _Relay
    holds_lock: bool

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
    described = describe_source(job, stack)
    decoder = described.decoder
    given, told = _given(job, described)
    left = left_out(job.skip_trials, len(given.rows), given.trial_ids)
    screened = screen(given.rows, decoder.training, left_out=left)
    responses, warnings = screened.responses, (*told, *screened.warnings)
    for warning in warnings:
        stream.write(f"md-reconstruct: warning: {warning}\n")
    for trial, reason in screened.skipped.items():
        stream.write(f"md-reconstruct: trial {called(trial, given.named)} is skipped: {reason}\n")
    skipped = {**screened.skipped, **left}
    good = [trial for trial in range(len(responses)) if trial not in skipped]
    pictures = given.pictures
    trials = Trials(responses=responses, good=good, ids=given.trial_ids, stimulus_ids=given.stimulus_ids)
    check_request(decoder, trials, job.settings, has_stimuli=pictures is not None)
    cut = None if pictures is None else _check_pictures(pictures, good, given.named)
    early = _early_identity(job, described, given, good, left)
    check_same_run(job.out, early)
    holds_lock = check_run_folder(job.out)
    if holds_lock:  # that another process works there is said before networks load; a new folder is made after that
        stack.enter_context(locked(inside(job.out), job.out))
    if cut is not None:
        stream.write(f"md-reconstruct: warning: {cut}\n")
        warnings = (*warnings, cut)
    source = described.open()
    size, on_step = source.networks.image_size, _Relay()

    def look(trials: Sequence[int]) -> NDArray[np.uint8]:
        return seen([pictures[trial] for trial in trials] if pictures else [], size)

    reconstructor = Reconstructor(
        source.decoder,
        source.networks,
        trials,
        job.settings,
        seen=None if pictures is None else look,
        on_step=on_step,
    )
    batch_size = _batch_size(job, source)
    return _Work(
        given=given,
        responses=responses,
        skipped=skipped,
        warnings=warnings,
        source=source,
        batch_size=batch_size,
        identity=_identity(job, source, early, batch_size=batch_size),
        reconstructor=reconstructor,
        on_step=on_step,
        holds_lock=holds_lock,
    )


def _given(job: Job, described: Described) -> tuple[Responses, list[str]]:
    """The responses, and warnings about them."""
    given = open_responses(job.responses, stimuli_root=job.stimuli_root)
    if given.subject is not None:
        described.decoder.require_subject(given.subject)
    described.decoder.require_layout(given.layout)
    given = given if job.trial_ids is None else with_trial_ids(given, job.trial_ids)
    given = given if job.stimuli is None else with_pictures(given, job.stimuli)
    return given, list(given.warnings)


def _check_pictures(pictures: Sequence[Picture], good: Sequence[int], named: Mapping[int, str]) -> str | None:
    """Decode every stimulus, and keep none, since all of them may not fit the memory; a warning where edges are cut."""

    def decoded() -> Iterator[tuple[str, NDArray[np.uint8]]]:
        for picture in dict.fromkeys(pictures[trial] for trial in good):
            try:
                yield picture.name, read_picture(picture)
            except FileError as error:
                option = skip_option([trial for trial in good if pictures[trial] == picture], named)
                raise FileError(f"{error}; or leave out what it belongs to: {option}") from error

    return cut_by_squares(decoded())


def _batch_size(job: Job, source: Source) -> int:
    most = source.largest_batch
    if most is not None and job.batch_size is not None and job.batch_size > most:
        raise InputError(
            f"the batch size is {job.batch_size}, and the bundle's engines were built for at most {most} trials: give "
            "that, or build engines for more"
        )
    usual = SMALL_BATCH if source.networks.image_size <= SMALL_PICTURE_PX else 1
    return job.batch_size or (usual if most is None else min(usual, most))


def _early_identity(
    job: Job, described: Described, given: Responses, good: Sequence[int], left: Collection[int]
) -> dict[str, Any]:
    """What is known of the run's identity before the networks are opened."""
    settings = asdict(job.settings)
    del settings["checkpointing"]  # the pictures do not depend on it
    settings["refine"] = job.settings.refine.as_dict()
    if left:  # they decide who is in a batch with whom, and which targets are shuffled
        settings["skip_trials"] = sorted(left)
    stimuli = None if given.pictures is None else _hash_pictures([given.pictures[trial] for trial in good])
    return {
        "settings": {**settings, "layer_preset": described.decoder.preset},
        "hashes": {
            **({} if described.hash is None else {"checkpoint": described.hash}),
            "responses": given.hash,
            "trial_ids": hash_of_ids(given.trial_ids),
            "stimuli": stimuli,
        },
        "data": {
            "subject": described.decoder.subject,
            "n_trials": len(given.rows),
            "simulated": given.simulated,
        },
    }


def _identity(job: Job, source: Source, early: Mapping[str, Any], *, batch_size: int) -> dict[str, Any]:
    """Everything that the pictures depend on, as JSON; under "given" and "notes" what they do not depend on."""
    checkpointing = job.settings.checkpointing
    return {
        "settings": {**early["settings"], "batch_size": batch_size, **source.computing},
        "versions": versions(source.libraries),
        "hashes": {**early["hashes"], "checkpoint": source.decoder.hash, "models": source.networks.hash},
        "data": early["data"],
        "given": {"models": job.models or source.networks.name, "clip": job.clip, "checkpointing": checkpointing},
        "notes": list(job.notes),
    }


def _hash_pictures(pictures: Sequence[Picture]) -> str:
    digests = {one: sha256_of(one) if isinstance(one, Path) else one.sha256 for one in set(pictures)}
    return hashlib.sha256("\n".join(digests[one] for one in pictures).encode()).hexdigest()


def _write_stimuli(out: Path, pictures: Sequence[Picture], good: Sequence[int], size: int) -> None:
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
            ticker = Ticker(total, done, phases(job.settings), stream=stream)
        ticker.images(done)

    def on_step(phase: str, step: int, steps: int) -> None:
        if ticker is not None:
            ticker.step(n_now, phase, f"{phase} {step}/{steps}" if steps > 1 else phase)

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


def _tell_failures(outcome: Outcome, work: _Work, stream: TextIO) -> None:
    """Say which trials failed and what to do; a run in which none has a picture has nothing to measure or show.

    Raises
    ------
    InputError
        No trial has a picture.
    """
    named = work.given.named
    if outcome.failed:
        stream.write(f"md-reconstruct: trial(s) {', '.join(called(t, named) for t in outcome.failed)}: {BROKE_OFF}\n")
    if not outcome.lost:
        return
    for trial, reason in sorted(outcome.lost.items()):
        stream.write(f"md-reconstruct: trial {called(trial, named)} has no picture: {reason}\n")
    advice = _advice(str(work.source.computing["dtype"]), sorted(outcome.lost), named)
    if not outcome.trials:
        trial, reason = min(outcome.lost.items())
        raise InputError(
            f"none of {len(outcome.lost)} trials has a picture (trial {called(trial, named)}: {reason}): {advice}"
        )
    stream.write(f"md-reconstruct: the other trials are complete; {advice}\n")


def _advice(dtype: str, trials: Sequence[int], named: Mapping[int, str]) -> str:
    """How to try again: this very command would give the same."""
    wider = {"float16": "--dtype float32", "bfloat16": "--dtype float32", "fp16": "--precision fp32"}
    wider |= {"bf16": "--precision fp32", "int8": "--precision fp32"}
    if dtype in wider:
        return f"the networks overflowed in {dtype}: to try again, give {wider[dtype]} and another --out"
    return (
        f"the networks computed in {dtype}, so these responses or the models are unlike those of the fit: check them; "
        f"to run without them give {skip_option(trials, named)} and another --out"
    )


def _extractors(work: _Work) -> tuple[dict[str, Features], tuple[str, ...]]:
    """What the metrics compare, opened before anything is computed, and a note for each metric that is left out."""
    source, given = work.source, work.given
    if given.pictures is None:
        return {}, ()
    computed = [source.networks.hash, source.computing, versions(source.libraries)]
    return open_extractors(
        Given(
            embed=source.networks.embedding if source.embeds else None,
            embed_identity=json.dumps(computed, sort_keys=True),
            classifier=source.judge,
            captions=[given.captions[trial] for trial in work.good] if given.captions else (),
            device=source.device,
        )
    )


def _measured(
    job: Job,
    work: _Work,
    outcome: Outcome,
    extractors: Mapping[str, Features],
    notes: Sequence[str],
    stream: TextIO,
) -> Outcome:
    """Write summary.json and trials.json; measuring is a phase as the others are."""
    source, given = work.source, work.given
    start = time.perf_counter()
    measured = Measured()
    if extractors:
        ids = work.given.stimulus_ids
        with Phases(stream=stream) as told:
            measured = measure_run(
                job.out,
                work.good,
                extractors,
                stimulus_ids=None if ids is None else [ids[trial] for trial in work.good],
                trial_ids=given.trial_ids,
                seed=job.settings.refine.seed,
                on_progress=partial(told, "measuring pictures"),
            )
    outcome = replace(outcome, seconds={**outcome.seconds, "metrics": time.perf_counter() - start})
    notes = (*(f"Warning: {warning}." for warning in work.warnings), *source.notes, *notes)
    write_summary(
        job.out,
        outcome,
        measured,
        seed=job.settings.refine.seed,
        simulated=given.simulated,
        notes=notes,
        trial_ids=given.named,
    )
    return outcome
