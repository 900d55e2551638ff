"""One run from a checkpoint and responses to a run folder with its report: what ``md-reconstruct run`` does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ..data.pictures import Picture
from ..files import write_bytes
from ..images import png_bytes
from ..locks import inside, locked
from ..report.page import write_report
from .batches import Outcome, run_batch
from .failures import tell_failures
from .identity import check_run_folder, claim_folder
from .job import Job
from .places import check_places, places_of_models
from .prepare import Work, prepared
from .reconstruct import OnFrame, phases
from .responses import read_stimuli
from .results import extractors_of, write_results
from .ticker import Ticker


def run_job(job: Job, stream: TextIO, on_frame: OnFrame | None = None) -> tuple[Outcome, Path]:
    """Reconstruct, measure and report; the same call resumes a run that was stopped.

    Everything is opened, decoded and checked before the run folder is touched: a mistake leaves nothing behind. What
    is quick to check comes before what takes long to open: the run folder, the checkpoint, responses and stimuli, and
    the networks last.

    Parameters
    ----------
    job
        What to do.
    stream
        Where progress and skipped trials are reported.
    on_frame
        Called with ``(phase, trials, pictures (k, H, W, 3) uint8)`` as pictures grow; see
        :data:`~minddiffuser.runtime.run.reconstruct.OnFrame`.

    Returns
    -------
    The outcome and the path of report.html.

    Raises
    ------
    MindDiffuserError
        Anything that the user can fix; see sections of the modules used.
    """
    read = {"checkpoint or bundle": job.checkpoint, "data folder": job.responses}
    read |= {} if job.train_data is None else {"folder of the training pictures": job.train_data}
    check_places(
        job.out, read | places_of_models(job.options.models, job.options.clip), (job.stimuli, job.stimuli_root)
    )
    check_run_folder(job.out)
    with ExitStack() as stack:
        work = prepared(job, stream, stack, on_frame)
        extractors, missing = extractors_of(job, work)
        if not work.holds_lock:
            stack.enter_context(locked(inside(job.out), job.out))
        claim_folder(job.out, work.identity)
        stream.write(f"computing with {work.backend.chosen}\n")
        for note in work.backend.notes:
            stream.write(f"md-reconstruct: {note}\n")
        if work.given.pictures is not None:
            _write_stimuli(job.out, work.given.pictures, work.good, work.backend.decoder.image_size)
        outcome = _reconstruct(job, work, stream)
        tell_failures(outcome, work, stream)
        outcome = write_results(job, work, outcome, extractors, missing, stream)
        return outcome, write_report(job.out)


def _write_stimuli(out: Path, pictures: Sequence[Picture], good: Sequence[int], size: int) -> None:
    """Write the stimuli at the pictures' size, where it is not there already."""
    for trial in good:
        path, data = out / "stimuli" / f"{trial:06d}.png", png_bytes(read_stimuli([pictures[trial]], size)[0])
        if not path.exists() or path.read_bytes() != data:
            write_bytes(path, data)


def _reconstruct(job: Job, work: Work, stream: TextIO) -> Outcome:
    ticker: Ticker | None = None
    n_now = 0

    def on_progress(done: int, total: int) -> None:
        nonlocal ticker
        if ticker is None:
            ticker = Ticker(total, done, phases(work.settings), stream=stream)
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
