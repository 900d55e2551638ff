"""A job's inputs, opened and found good before the run folder is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from .. import backends
from ..backends.base import Backend, Decoder
from ..data.pictures import Picture
from ..data.references import read_picture
from ..decoders.screen import screen
from ..errors import FileError, InputError
from ..images import cut_by_squares
from ..leaks import leaks_line
from ..locks import inside, locked
from ..split import NOT_HELD_OUT
from .budget import settle, settled_before
from .choose import called, left_out, skip_option
from .fingerprint import early_identity, whole_identity
from .identity import check_run_folder, check_same_run, earlier_computing
from .job import Job
from .reconstruct import OnFrame, Reconstructor, ReconstructSettings, Trials, check_request
from .responses import Responses, open_responses, read_stimuli, with_pictures, with_trial_ids
from .training import with_training

# Pictures of the tiny world go sixteen at a time; one of Stable Diffusion's with gradients fills a large GPU.
SMALL_PICTURE_PX, SMALL_BATCH = 128, 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """A job whose inputs were all opened and found good, what decides its pictures, and warnings for the user.

    `left_out_controls` are those that were asked for and cannot be made, with the reason.
    """

    settings: ReconstructSettings
    given: Responses
    responses: NDArray[np.float32]
    skipped: Mapping[int, str]
    warnings: tuple[str, ...]
    backend: Backend[Any]
    batch_size: int
    identity: Mapping[str, Any]
    reconstructor: Reconstructor
    on_step: Relay
    holds_lock: bool
    left_out_controls: Mapping[str, str]

    @property
    def good(self) -> list[int]:
        return [trial for trial in range(len(self.responses)) if trial not in self.skipped]


class Relay:
    """Passes each iteration on to whoever listens by then: the reconstruction is made before the progress line."""

    to: Callable[[str, int, int], None] | None = None

    def __call__(self, phase: str, step: int, steps: int) -> None:
        if self.to is not None:
            self.to(phase, step, steps)


def prepared(job: Job, stream: TextIO, stack: ExitStack, on_frame: OnFrame | None = None) -> Work:
    job = replace(job, settings=settled_before(job.settings, job.out))
    earlier_backend, earlier_threads = earlier_computing(job.out)
    options = replace(
        job.options,
        earlier_backend=earlier_backend,
        earlier_threads=earlier_threads,
        needs=job.needs,
    )
    backend = stack.enter_context(backends.open(job.checkpoint, options))
    decoder = backend.decoder
    if job.settings.percent is not None:
        decoder.trust(job.settings.percent)
    given = _given(job, decoder)
    job, training, without = with_training(job, decoder)
    leaky = (leaks_line(decoder.leaks),) if decoder.leaks else ()
    near, said = _not_held_out(decoder, given)
    left = near | left_out(job.skip_trials, len(given.rows), given.trial_ids)
    screened = screen(given.rows, decoder.training, left_out=left)
    missing = [f"the control {name} is left out: {reason}" for name, reason in without.items()]
    responses, warnings = screened.responses, (*leaky, *said, *given.warnings, *screened.warnings, *missing)
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
    early = early_identity(job, backend, given, good, left)
    check_same_run(job.out, early)
    holds_lock = check_run_folder(job.out)
    if holds_lock:  # that another process works there is said before networks load; a new folder is made after that
        stack.enter_context(locked(inside(job.out), job.out))
    if cut is not None:
        stream.write(f"md-reconstruct: warning: {cut}\n")
        warnings = (*warnings, cut)
    backend.start()
    batch_size = _batch_size(job, backend)
    settings = settle(job.settings, backend, responses[good[:batch_size]], rows_at_once=batch_size)
    job = replace(job, settings=settings)
    size, on_step = decoder.image_size, Relay()

    def look(trials: Sequence[int]) -> NDArray[np.uint8]:
        return read_stimuli([pictures[trial] for trial in trials] if pictures else [], size)

    reconstructor = Reconstructor(
        backend,
        trials,
        settings,
        stimuli=None if pictures is None else look,
        training=training,
        rows_at_once=batch_size,
        on_step=on_step,
        on_frame=on_frame,
    )
    return Work(
        settings=settings,
        given=given,
        responses=responses,
        skipped=skipped,
        warnings=warnings,
        backend=backend,
        batch_size=batch_size,
        identity=whole_identity(job, backend, early, batch_size=batch_size),
        reconstructor=reconstructor,
        on_step=on_step,
        holds_lock=holds_lock,
        left_out_controls=without,
    )


def _given(job: Job, decoder: Decoder) -> Responses:
    """The responses, of the subject and in the layout that the decoder was fitted on."""
    given = open_responses(job.responses, stimuli_root=job.stimuli_root)
    if given.subject is not None:
        decoder.require_subject(given.subject)
    decoder.require_layout(given.layout)
    given = given if job.trial_ids is None else with_trial_ids(given, job.trial_ids)
    given = given if job.stimuli is None else with_pictures(given, job.stimuli)
    return given


def _not_held_out(decoder: Decoder, given: Responses) -> tuple[dict[int, str], tuple[str, ...]]:
    """Trials that a fit with a split of its own had near neighbours of, with the reason, and a sentence on them.

    Raises
    ------
    InputError
        All trials are.
    """
    split, n = decoder.split, len(given.rows)
    if split is None:
        return {}, ()
    if given.stimulus_ids is None:
        which = "which of these trials showed pictures of held-out clusters is not known, since their pictures are not"
        return {}, (f"{which}: all are reconstructed; give --stimuli to leave the others out",)
    near = split.not_held_out(given.stimulus_ids)
    if len(near) == n:
        raise InputError(
            f"none of the {n} trials showed a picture of the clusters that {decoder.folder} holds out of training "
            f"({len(split.pictures)} pictures): give the data that it was fitted on, or fit without --split clusters"
        )
    return near, (f"{len(near)} of {n} trials are left out: {NOT_HELD_OUT}",) if near else ()


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
