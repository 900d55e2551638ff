"""One run from a checkpoint and responses to a run folder with its report: what ``md-reconstruct run`` does."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

from .batch.identity import alone_in, claim_folder
from .batch.run import BatchResult, Outcome, Reconstruct, run_batch
from .batch.ticker import Ticker
from .controls import CONTROLS
from .errors import MissingExtra
from .files import read_json, sha256_of
from .images import write_png
from .reconstruct import Reconstructor, ReconstructSettings
from .report.page import write_report
from .responses import Responses, open_responses, screen, seen, with_pictures
from .summary import Measures, caption_labels, clip_embedding, measure_run, write_summary

if TYPE_CHECKING:
    from .decode import Checkpoint
    from .models.models import Models

LIBRARIES = ("minddiffuser", "torch", "diffusers", "transformers", "open_clip_torch", "numpy", "pillow", "safetensors")
# Pictures of the tiny world go sixteen at a time; one of Stable Diffusion's with gradients fills a large GPU.
SMALL_PICTURE_PX, SMALL_BATCH = 128, 16


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to reconstruct, with what, into which folder.

    Attributes
    ----------
    checkpoint, responses, out
        Folders and files as a person gives them.
    models, clip
        See :func:`~minddiffuser.runtime.models.open.load_models`.
    stimuli
        A folder of pictures that were seen, in the trials' order; None takes the data folder's own, if any.
    settings
        Both stages.
    batch_size
        None chooses by the picture's size.
    device
        "auto", or a torch device.
    threads
        CPU threads; None takes those of the run folder's earlier run, else torch's choice.
    notes
        Lines for the report.
    """

    checkpoint: Path
    responses: Path
    out: Path
    models: str = "tiny"
    clip: str | None = None
    stimuli: Path | None = None
    settings: ReconstructSettings = field(default_factory=ReconstructSettings)
    batch_size: int | None = None
    device: str = "auto"
    dtype: str = "float32"
    threads: int | None = None
    notes: tuple[str, ...] = ()


def run_job(job: Job, stream: TextIO) -> tuple[Outcome, Path]:
    """Reconstruct, measure and report; the same call resumes a run that was stopped.

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
    from .decode import check_responses, open_checkpoint

    _needs_torch()
    checkpoint = open_checkpoint(job.checkpoint)
    given = _given(job, checkpoint)
    responses, skipped = screen(given.rows, checkpoint.n_voxels)
    skipped = dict(check_responses(checkpoint, responses)) | skipped
    for trial, reason in sorted(skipped.items()):
        stream.write(f"md-reconstruct: trial {trial} is skipped: {reason}\n")
    models, threads = _open_models(job, checkpoint)
    batch_size = job.batch_size or (SMALL_BATCH if models.image_size <= SMALL_PICTURE_PX else 1)
    identity = _identity(job, checkpoint, models, given, batch_size=batch_size, threads=threads)
    good = [trial for trial in range(len(responses)) if trial not in skipped]
    # Every mistake is found before the folder is claimed: the mended command is then a first run, not another one's.
    ticking = _Ticking(job.settings, stream)
    reconstructor = _reconstructor(job, checkpoint, models, given, responses, good, ticking)
    _check_pictures(given, good, models.image_size)
    with alone_in(job.out):
        claim_folder(job.out, identity)
        if given.pictures is not None:
            _write_stimuli(job.out, given.pictures, good, models.image_size)
    try:
        outcome = run_batch(
            job.out,
            responses,
            ticking.around(reconstructor),
            identity,
            batch_size=batch_size,
            skipped=skipped,
            on_progress=ticking.images,
        )
    finally:
        ticking.close()
    outcome = _measured(job, models, given, outcome)
    return outcome, write_report(job.out)


def _needs_torch() -> None:
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra("reconstruction needs torch: pip install 'minddiffuser[torch]'") from error


def _given(job: Job, checkpoint: Checkpoint) -> Responses:
    given = open_responses(job.responses)
    if given.subject is not None:
        checkpoint.require_subject(given.subject)
    return given if job.stimuli is None else with_pictures(given, job.stimuli)


def _open_models(job: Job, checkpoint: Checkpoint) -> tuple[Models, int]:
    """The networks on their device, and the number of CPU threads, which the pictures' last bits depend on."""
    import torch

    from .models.open import load_models

    threads = job.threads or _earlier_threads(job.out) or torch.get_num_threads()
    torch.set_num_threads(threads)
    device = choose_device(job.device)
    if device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS gives other bits from run to run
        torch.use_deterministic_algorithms(True, warn_only=True)
    models = load_models(job.models, clip=job.clip, preset=checkpoint.preset, device=device, dtype=job.dtype)
    return models, threads


def choose_device(name: str) -> str:
    """`name`, or for "auto" the fastest that this machine has."""
    import torch

    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _earlier_threads(out: Path) -> int | None:
    path = out / "settings.json"
    if not path.exists():
        return None
    settings = read_json(path, "the run's settings").get("settings")
    threads = settings.get("threads") if isinstance(settings, dict) else None
    return threads if isinstance(threads, int) and threads > 0 else None


def _identity(
    job: Job, checkpoint: Checkpoint, models: Models, given: Responses, *, batch_size: int, threads: int
) -> dict[str, Any]:
    """Everything that the pictures depend on, as JSON."""
    settings = asdict(job.settings)
    settings["refine"] = job.settings.refine.as_dict()
    stimuli = None if given.pictures is None else _hash_pictures(given.pictures)
    return {
        "settings": {
            "models": job.models,
            "clip": job.clip,
            **settings,
            "layer_preset": checkpoint.preset,
            "batch_size": batch_size,
            "device": str(models.device),
            "dtype": job.dtype,
            "threads": threads,
        },
        "versions": versions(),
        "hashes": {
            "checkpoint": checkpoint.hash,
            "models": models.hash,
            "responses": given.hash,
            "stimuli": stimuli,
        },
        "data": {"subject": checkpoint.subject, "n_trials": len(given.rows), "simulated": given.simulated},
        "notes": list(job.notes),
    }


def versions() -> dict[str, str]:
    """Versions of the libraries that pictures depend on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _hash_pictures(pictures: Sequence[Path]) -> str:
    digests = {path: sha256_of(path) for path in set(pictures)}
    return hashlib.sha256("\n".join(digests[path] for path in pictures).encode()).hexdigest()


def _write_stimuli(out: Path, pictures: Sequence[Path], good: Sequence[int], size: int) -> None:
    """Write what was seen at the pictures' size; a picture that cannot be decoded is found before anything is run."""
    for trial in good:
        path = out / "stimuli" / f"{trial:06d}.png"
        if not path.exists():
            write_png(path, seen([pictures[trial]], size)[0])


def _reconstructor(
    job: Job,
    checkpoint: Checkpoint,
    models: Models,
    given: Responses,
    responses: NDArray[np.float32],
    good: Sequence[int],
    ticking: _Ticking,
) -> Reconstructor:
    def look(trials: Sequence[int]) -> NDArray[np.uint8]:
        return seen([given.pictures[trial] for trial in trials] if given.pictures else [], models.image_size)

    refinement = job.settings.refine
    if job.settings.stage == 2:
        refinement.optimised(("latent",) if refinement.backprop_steps == 0 else ("latent", "context"))
    return Reconstructor(
        checkpoint,
        models,
        responses,
        good,
        job.settings,
        seen=None if given.pictures is None else look,
        on_step=ticking.step,
    )


def _check_pictures(given: Responses, good: Sequence[int], size: int) -> None:
    """Decode what was seen once, and keep nothing: the one that cannot be decoded is named now."""
    for path in dict.fromkeys(given.pictures[trial] for trial in good) if given.pictures is not None else ():
        seen([path], size)


class _Ticking:
    """The run's line on standard error, from the first batch on."""

    def __init__(self, settings: ReconstructSettings, stream: TextIO) -> None:
        self._renderings, self._stream = _renderings(settings), stream
        self._ticker: Ticker | None = None
        self._n_now = 0

    def images(self, done: int, total: int) -> None:
        if self._ticker is None:
            self._ticker = Ticker(total, done, self._renderings, stream=self._stream)
        self._ticker.images(done)

    def step(self, phase: str, step: int, steps: int) -> None:
        if self._ticker is not None:
            self._ticker.step(self._n_now, f"{phase} {step}/{steps}")

    def around(self, reconstructor: Reconstructor) -> Reconstruct:
        """The reconstructor, with the number of trials at hand noted for the line."""

        def one_batch(trials: Sequence[int], rows: NDArray[np.float32]) -> BatchResult:
            self._n_now = len(trials)
            return reconstructor(trials, rows)

        return one_batch

    def close(self) -> None:
        if self._ticker is not None:
            self._ticker.close()


def _renderings(settings: ReconstructSettings) -> int:
    """How often a picture is rendered: once in stage 1, and steps + 1 times in each refinement."""
    if settings.stage == 1:
        return 1
    return 1 + (settings.refine.steps + 1) * (1 + len(CONTROLS[settings.controls]))


def _measured(job: Job, models: Models, given: Responses, outcome: Outcome) -> Outcome:
    """Write summary.json and trials.json; measuring is a phase as the others are."""
    start = time.perf_counter()
    has_stimuli = given.pictures is not None
    measures = _measures(models, given, outcome.trials) if has_stimuli else Measures()
    values = measure_run(job.out, outcome, measures) if has_stimuli else {}
    outcome = replace(outcome, seconds={**outcome.seconds, "metrics": time.perf_counter() - start})
    write_summary(job.out, outcome, values, seed=job.settings.refine.seed)
    return outcome


def _measures(models: Models, given: Responses, trials: Sequence[int]) -> Measures:
    """CLIP of the run's models; the judge beside them, where there is one and captions say what was seen."""
    folder = models.folder / "judge" if models.folder is not None else None
    if folder is None or not given.captions or not folder.is_dir():
        return Measures(embed=clip_embedding(models))
    from .metrics.judge import open_judge

    judge = open_judge(folder, str(models.device))
    labels = caption_labels([given.captions[trial] for trial in trials], judge.labels["concept"])
    if labels is None:
        return Measures(embed=clip_embedding(models))
    return Measures(embed=clip_embedding(models), classify=lambda images: judge.predict(images)[:, 0], labels=labels)
