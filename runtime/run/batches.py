"""Many trials, batch by batch, into a run folder that survives being killed at any moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, ShapeError
from ..files import write_json
from ..images import write_png
from ..journal import Journal, Record
from .grid import batch_grid
from .identity import remove_drafts

Pictures = NDArray[np.uint8]
BROKE_OFF = "refinement diverged: its loss became NaN or infinite, and the best picture before that was kept"


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchResult:
    """What the reconstruction of one batch of n trials gives.

    Attributes
    ----------
    stage1 : (n, H, W, 3) uint8
    stage2 : (n, H, W, 3) uint8, or None where only stage 1 was asked for
    loss_curve : (n_evaluations, n) float64 or None
        See :class:`~minddiffuser.runtime.refine.base.Refined`.
    best_step : (n,) int64 or None
        The row of the curve that belongs to each trial's picture; of no meaning where no loss is finite.
    candidate_losses : (n_candidates, n) float64 or None
        The loss of each candidate's picture, where there were several.
    finish_curve : (n_finish + 1, n) float64 or None
        See :class:`~minddiffuser.runtime.refine.base.Refined`.
    failed : (n,) bool or None
        Of which trials a refinement, of stage 2 or of a control, diverged (the loss became NaN or infinite).
    lost : trial -> reason
        Trials of the batch that have no picture, such as those whose networks overflowed; their rows of the arrays
        above mean nothing.
    controls : name -> (n, H, W, 3) uint8
        Pictures by the names of `CONTROLS`.
    nearest : of each trial the training picture that the control "nearest" shows, as JSON, or None
        Its number in the data's train split (-1: in another), and how similar it is to what was decoded.
    seconds : phase -> seconds
    """

    stage1: Pictures
    stage2: Pictures | None = None
    loss_curve: NDArray[np.float64] | None = None
    best_step: NDArray[np.int64] | None = None
    candidate_losses: NDArray[np.float64] | None = None
    finish_curve: NDArray[np.float64] | None = None
    failed: NDArray[np.bool_] | None = None
    lost: Mapping[int, str] = field(default_factory=dict)
    controls: Mapping[str, Pictures] = field(default_factory=dict)
    nearest: Sequence[Mapping[str, float]] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished run: the trials with pictures, those left out with the reason, and the seconds of each phase.

    `failed` are the trials with pictures whose refinement diverged: their best picture before that was kept.
    `lost` are the trials that were tried and have no picture, with the reason. `nearest` says by trial which training
    picture the control "nearest" shows; see :class:`BatchResult`.
    """

    trials: tuple[int, ...]
    skipped: Mapping[int, str]
    seconds: Mapping[str, float]
    failed: tuple[int, ...] = ()
    lost: Mapping[int, str] = field(default_factory=dict)
    nearest: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    def failures(self) -> list[dict[str, Any]]:
        """What went wrong in single trials, as JSON: for each its trial, the reason, and whether it has a picture."""
        without = [{"trial": trial, "reason": reason, "picture": False} for trial, reason in self.lost.items()]
        kept = [{"trial": trial, "reason": BROKE_OFF, "picture": True} for trial in self.failed]
        return sorted(without + kept, key=lambda entry: entry["trial"])


Reconstruct = Callable[[Sequence[int], NDArray[np.float32]], BatchResult]


def run_batch(
    folder: Path,
    responses: NDArray[np.float32],
    reconstruct: Reconstruct,
    *,
    batch_size: int,
    skipped: Mapping[int, str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Reconstruct every good trial, or the rest of them where an earlier run of the same settings was stopped.

    Each picture is written to a temporary name and renamed; a batch's journal record comes last. A resumed run
    computes the same batches as an unbroken one and ends with the same bytes in every picture. A trial without a
    picture is recorded as that: the run goes on, and a second run knows it.

    Parameters
    ----------
    folder
        The run folder, whose lock the caller holds and whose settings.json the caller has compared; see
        :mod:`~minddiffuser.runtime.run.identity`.
    responses : (n_trials, *response_shape) float32
        Rows of skipped trials are never read.
    reconstruct
        ``reconstruct(trials, rows)`` with the good trials of one batch, n of them, and their responses.
        It must depend on nothing else that changes between runs.
    batch_size
        Trials per batch of the grid.
    skipped
        Bad trials and what is wrong with them.
    on_progress
        Called with the number of finished trials and the number of good ones, at the start and after each batch.

    Raises
    ------
    FileError
        A newer release wrote the journal, or the folder cannot be written.
    InputError
        There is no good trial.
    """
    skipped = dict(skipped or {})
    batches = batch_grid(len(responses), batch_size, skipped)
    total = sum(map(len, batches))
    if total == 0:
        raise InputError(f"none of the {len(responses)} trials can be reconstructed{_first_reason(skipped)}")
    seconds: dict[str, float] = defaultdict(float)
    remove_drafts(folder)
    journal = Journal(folder)
    records = [journal.finished(_name(k), trials=list(trials)) for k, trials in enumerate(batches)]
    done = sum(len(trials) for trials, record in zip(batches, records, strict=True) if record is not None)
    if on_progress is not None:
        on_progress(done, total)
    failed: list[int] = []
    lost: dict[int, str] = {}
    nearest: dict[int, Mapping[str, float]] = {}
    for k, (trials, record) in enumerate(zip(batches, records, strict=True)):
        if not trials:
            continue
        if record is None:
            result = reconstruct(trials, responses[list(trials)])
            record = _one_batch(folder, trials, result, partial(journal.finish, _name(k)))
            done += len(trials)
            if on_progress is not None:
                on_progress(done, total)
        failed += record.content["failed"]
        lost |= {int(trial): reason for trial, reason in record.content["lost"].items()}
        found = record.content.get("nearest")
        nearest |= dict(zip(trials, found, strict=False)) if isinstance(found, list) else {}
        for phase, spent in record.content["seconds"].items():
            seconds[phase] += spent
    made = tuple(trial for trials in batches for trial in trials if trial not in lost)
    return Outcome(
        trials=made, skipped=skipped, seconds=dict(seconds), failed=tuple(failed), lost=lost, nearest=nearest
    )


def _first_reason(skipped: Mapping[int, str]) -> str:
    for trial, reason in sorted(skipped.items()):
        return f" (trial {trial}: {reason}): check how the responses were exported"
    return ": the file holds no trial"


def _name(batch: int) -> str:
    return f"{batch:06d}"


def _one_batch(folder: Path, trials: Sequence[int], result: BatchResult, finish: Callable[..., Record]) -> Record:
    """Write a batch's pictures and curves, then its record; nothing stays of a trial without a picture."""
    files = []
    for kind, pictures in {"stage1": result.stage1, "stage2": result.stage2, **result.controls}.items():
        if pictures is None:
            continue
        if len(pictures) != len(trials):
            raise ShapeError(f"{len(pictures)} {kind} pictures came back for {len(trials)} trials: give one per trial")
        for trial, picture in zip(trials, pictures, strict=True):
            name = f"images/{kind}/{trial:06d}.png"
            if trial in result.lost:
                (folder / name).unlink(missing_ok=True)
                continue
            write_png(folder / name, picture)
            files.append(name)
    broke = [] if result.failed is None else [t for t, off in zip(trials, result.failed, strict=True) if off]
    failed = [trial for trial in broke if trial not in result.lost]
    files += _write_curves(folder, trials, result, failed)
    lost = {str(trial): reason for trial, reason in result.lost.items()}
    more = {} if result.nearest is None else {"nearest": list(result.nearest)}
    return finish(files, trials=list(trials), seconds=dict(result.seconds), failed=failed, lost=lost, **more)


def _write_curves(folder: Path, trials: Sequence[int], result: BatchResult, failed: Sequence[int]) -> list[str]:
    """Write the loss curves and give their names."""
    files: list[str] = []
    if result.loss_curve is None or result.best_step is None:
        return files
    for column, trial in enumerate(trials):
        name = f"curves/{trial:06d}.json"
        if trial in result.lost:
            (folder / name).unlink(missing_ok=True)
            continue
        losses = [float(loss) for loss in result.loss_curve[:, column] if np.isfinite(loss)]
        best = int(result.best_step[column]) if losses else None
        curve: dict[str, Any] = {"trial": trial, "loss": losses, "best_step": best, "failed": trial in failed}
        if result.candidate_losses is not None:
            each = result.candidate_losses[:, column]
            curve["candidates"] = [float(loss) if np.isfinite(loss) else None for loss in each]
        if result.finish_curve is not None:
            curve["finish"] = [float(loss) for loss in result.finish_curve[:, column] if np.isfinite(loss)]
        write_json(folder / name, curve)
        files.append(name)
    return files
