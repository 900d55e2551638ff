"""One run from a checkpoint and responses to a run folder with its report: what ``md-reconstruct run`` does."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from .. import backends
from ..backends.base import Backend, Decoder, Options
from ..data.pictures import Picture
from ..data.references import read_picture
from ..data.trial_ids import hash_of_ids
from ..decoders.screen import screen
from ..environment import versions
from ..errors import FileError, InputError
from ..files import sha256_of, write_bytes
from ..images import cut_by_squares, png_bytes
from ..locks import inside, locked
from ..metrics.extractors import Features, Given
from ..progress import Phases
from ..report.page import write_report
from ..report.text import metrics_table
from .batches import BROKE_OFF, Outcome, run_batch
from .choose import called, left_out, skip_option
from .identity import check_run_folder, check_same_run, claim_folder, earlier_computing
from .measure import Measured, measure_run, open_extractors
from .places import check_places, places_of_models
from .reconstruct import Reconstructor, ReconstructSettings, Trials, check_request, phases
from .responses import Responses, open_responses, seen, with_pictures, with_trial_ids
from .summary import write_summary
from .ticker import Ticker

# Pictures of the tiny world go sixteen at a time; one of Stable Diffusion's with gradients fills a large GPU.
SMALL_PICTURE_PX, SMALL_BATCH = 128, 16


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to reconstruct, with what, into which folder.

    Attributes
    ----------
    checkpoint, responses, out
        Folders and files as a person gives them; `checkpoint` may be a bundle.
    options
        What computes; see :class:`~minddiffuser.runtime.backends.base.Options`.
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
    notes
        Lines for the report.
    """

    checkpoint: Path
    responses: Path
    out: Path
    options: Options = field(default_factory=Options)
    trial_ids: Path | None = None
    stimuli: Path | None = None
    stimuli_root: Path | None = None
    skip_trials: tuple[str, ...] = ()
    settings: ReconstructSettings = field(default_factory=ReconstructSettings)
    batch_size: int | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        size = self.batch_size
        if size is not None and (not isinstance(size, int) or size < 1):
            raise InputError(f"batch_size is {size!r}: give a whole number of 1 or more")
        for name in ("skip_trials", "notes"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        for name in ("checkpoint", "responses", "out", "trial_ids", "stimuli", "stimuli_root"):
            if getattr(self, name) is not None:  # a text, as people give paths in Python
                object.__setattr__(self, name, Path(getattr(self, name)))


def _texts(name: str, given: Any) -> tuple[str, ...]:
    """Texts as people give them in Python: one alone, or any sequence, of texts or whole numbers."""
    one_by_one = (given,) if isinstance(given, str | int | np.integer) else given
    if not isinstance(one_by_one, Iterable) or isinstance(one_by_one, bytes):
        raise InputError(f"{name} is {given!r:.60}: give texts")
    several = tuple(one_by_one)
    if not all(isinstance(one, str | int | np.integer) and not isinstance(one, bool) for one in several):
        raise InputError(f"{name} is {given!r:.60}: give texts")
    return tuple(str(one) for one in several)


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
    read = {"checkpoint or bundle": job.checkpoint, "data folder": job.responses}
    check_places(
        job.out, read | places_of_models(job.options.models, job.options.clip), (job.stimuli, job.stimuli_root)
    )
    check_run_folder(job.out)
    with ExitStack() as stack:
        work = _prepared(job, stream, stack)
        extractors, missing = _extractors(work)
        if not work.holds_lock:
            stack.enter_context(locked(inside(job.out), job.out))
        claim_folder(job.out, work.identity)
        stream.write(f"computing with {work.backend.chosen}\n")
        for note in work.backend.notes:
            stream.write(f"md-reconstruct: {note}\n")
        if work.given.pictures is not None:
            _write_stimuli(job.out, work.given.pictures, work.good, work.backend.decoder.image_size)
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
    backend: Backend[Any]
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
    earlier_backend, earlier_threads = earlier_computing(job.out)
    options = replace(
        job.options,
        earlier_backend=earlier_backend,
        earlier_threads=earlier_threads,
        needs=job.settings.needs,
    )
    backend = stack.enter_context(backends.open(job.checkpoint, options))
    decoder = backend.decoder
    given, told = _given(job, decoder)
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
    early = _early_identity(job, backend, given, good, left)
    check_same_run(job.out, early)
    holds_lock = check_run_folder(job.out)
    if holds_lock:  # that another process works there is said before networks load; a new folder is made after that
        stack.enter_context(locked(inside(job.out), job.out))
    if cut is not None:
        stream.write(f"md-reconstruct: warning: {cut}\n")
        warnings = (*warnings, cut)
    backend.start()
    size, on_step = decoder.image_size, _Relay()

    def look(trials: Sequence[int]) -> NDArray[np.uint8]:
        return seen([pictures[trial] for trial in trials] if pictures else [], size)

    reconstructor = Reconstructor(
        backend,
        trials,
        job.settings,
        seen=None if pictures is None else look,
        on_step=on_step,
    )
    batch_size = _batch_size(job, backend)
    return _Work(
        given=given,
        responses=responses,
        skipped=skipped,
        warnings=warnings,
        backend=backend,
        batch_size=batch_size,
        identity=_identity(job, backend, early, batch_size=batch_size),
        reconstructor=reconstructor,
        on_step=on_step,
        holds_lock=holds_lock,
    )


def _given(job: Job, decoder: Decoder) -> tuple[Responses, list[str]]:
    """The responses, and warnings about them."""
    given = open_responses(job.responses, stimuli_root=job.stimuli_root)
    if given.subject is not None:
        decoder.require_subject(given.subject)
    decoder.require_layout(given.layout)
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


def _batch_size(job: Job, backend: Backend[Any]) -> int:
    most = backend.largest_batch
    if most is not None and job.batch_size is not None and job.batch_size > most:
        raise InputError(
            f"the batch size is {job.batch_size}, and the bundle's engines were built for at most {most} trials: give "
            "that, or build engines for more"
        )
    usual = SMALL_BATCH if backend.decoder.image_size <= SMALL_PICTURE_PX else 1
    return job.batch_size or (usual if most is None else min(usual, most))


def _early_identity(
    job: Job, backend: Backend[Any], given: Responses, good: Sequence[int], left: Collection[int]
) -> dict[str, Any]:
    """What is known of the run's identity before the networks are opened."""
    settings, decoder = asdict(job.settings), backend.decoder
    settings["refine"] = job.settings.refine.as_dict()
    if left:  # they decide who is in a batch with whom, and which targets are shuffled
        settings["skip_trials"] = sorted(left)
    stimuli = None if given.pictures is None else _hash_pictures([given.pictures[trial] for trial in good])
    return {
        "settings": {**settings, "layer_preset": decoder.preset},
        "hashes": {
            **({} if backend.hash is None else {"checkpoint": backend.hash}),
            "responses": given.hash,
            "trial_ids": hash_of_ids(given.trial_ids),
            "stimuli": stimuli,
        },
        "data": {
            "subject": decoder.subject,
            "n_trials": len(given.rows),
            "simulated": given.simulated,
        },
    }


def _identity(job: Job, backend: Backend[Any], early: Mapping[str, Any], *, batch_size: int) -> dict[str, Any]:
    """Everything that the pictures depend on, as JSON; under "given" and "notes" what they do not depend on."""
    options = job.options
    return {
        "settings": {**early["settings"], "batch_size": batch_size, **backend.computing},
        "versions": versions(backend.libraries),
        "hashes": {**early["hashes"], "checkpoint": backend.hash, "models": backend.models_hash},
        "data": early["data"],
        "given": {
            "models": options.models or backend.models_name,
            "clip": options.clip,
            "checkpointing": options.checkpointing,
        },
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
    advice = _advice(str(work.backend.computing["dtype"]), sorted(outcome.lost), named)
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
    backend, given = work.backend, work.given
    if given.pictures is None:
        return {}, ()
    computed = [backend.models_hash, backend.computing, versions(backend.libraries)]
    return open_extractors(
        Given(
            embed=backend.embedding if backend.embeds else None,
            embed_identity=json.dumps(computed, sort_keys=True),
            classifier=backend.classifier,
            captions=[given.captions[trial] for trial in work.good] if given.captions else (),
            device=backend.device,
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
    backend, given = work.backend, work.given
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
    notes = (*(f"Warning: {warning}." for warning in work.warnings), *backend.notes, *notes)
    summary = write_summary(
        job.out,
        outcome,
        measured,
        seed=job.settings.refine.seed,
        simulated=given.simulated,
        notes=notes,
        trial_ids=given.named,
    )
    stream.write(metrics_table(summary))
    return outcome
