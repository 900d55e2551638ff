"""One run from a checkpoint and responses to a run folder with its report: what ``md-reconstruct run`` does."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

from .batch.identity import alone_in, claim_folder
from .batch.run import Outcome, run_batch
from .batch.ticker import Ticker
from .controls import CONTROLS
from .errors import InputError, MissingExtra
from .files import read_json, sha256_of, write_bytes
from .images import png_bytes
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
        CPU threads, at most the machine's cores; None takes those of the run folder's earlier run, else torch's choice.
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
    work = _prepared(job, stream)
    with alone_in(job.out):
        claim_folder(job.out, work.identity)
        if work.given.pictures is not None:
            _write_stimuli(job.out, work.given.pictures, work.good, work.models.image_size)
        outcome = _reconstruct(job, work, stream)
        if outcome.failed:
            stream.write(
                f"md-reconstruct: a refinement broke off in trial(s) {', '.join(map(str, outcome.failed))}: its loss "
                "became NaN or infinite, and the best picture before that was kept\n"
            )
        outcome = _measured(job, work.models, work.given, outcome)
        return outcome, write_report(job.out)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Work:
    """A job whose inputs were all opened and found good, and what decides its pictures."""

    given: Responses
    responses: NDArray[np.float32]
    skipped: Mapping[int, str]
    models: Models
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


def _prepared(job: Job, stream: TextIO) -> _Work:
    from .decode import open_checkpoint

    _needs_torch()
    checkpoint = open_checkpoint(job.checkpoint)
    given = _given(job, checkpoint)
    responses, skipped = screen(given.rows, checkpoint.n_voxels, checkpoint.scored)
    for trial, reason in sorted(skipped.items()):
        stream.write(f"md-reconstruct: trial {trial} is skipped: {reason}\n")
    models, threads = _open_models(job, checkpoint)
    good = [trial for trial in range(len(responses)) if trial not in skipped]
    pictures, size, on_step = given.pictures, models.image_size, _Relay()

    def look(trials: Sequence[int]) -> NDArray[np.uint8]:
        return seen([pictures[trial] for trial in trials] if pictures else [], size)

    reconstructor = Reconstructor(
        checkpoint, models, responses, good, job.settings, seen=None if pictures is None else look, on_step=on_step
    )
    for path in dict.fromkeys(pictures[trial] for trial in good) if pictures else ():
        seen([path], size)  # decoded and thrown away, since all of them may not fit the memory
    batch_size = job.batch_size or (SMALL_BATCH if size <= SMALL_PICTURE_PX else 1)
    return _Work(
        given=given,
        responses=responses,
        skipped=skipped,
        models=models,
        batch_size=batch_size,
        identity=_identity(job, checkpoint, models, given, batch_size=batch_size, threads=threads),
        reconstructor=reconstructor,
        on_step=on_step,
    )


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

    n_cores = os.cpu_count() or 1
    if job.threads is not None and job.threads > n_cores:
        raise InputError(f"threads is {job.threads} and this machine has {n_cores} cores: give at most {n_cores}")
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
    """Everything that the pictures depend on, as JSON; under "given" and "notes" what they do not depend on."""
    settings = asdict(job.settings)
    checkpointing = settings.pop("checkpointing")
    settings["refine"] = job.settings.refine.as_dict()
    stimuli = None if given.pictures is None else _hash_pictures(given.pictures)
    return {
        "settings": {
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
        "given": {"models": job.models, "clip": job.clip, "checkpointing": checkpointing},
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


def _measured(job: Job, models: Models, given: Responses, outcome: Outcome) -> Outcome:
    """Write summary.json and trials.json; measuring is a phase as the others are."""
    start = time.perf_counter()
    has_stimuli = given.pictures is not None
    measures, notes = _measures(models, given, outcome.trials) if has_stimuli else (Measures(), ())
    values = measure_run(job.out, outcome, measures) if has_stimuli else {}
    outcome = replace(outcome, seconds={**outcome.seconds, "metrics": time.perf_counter() - start})
    write_summary(job.out, outcome, values, seed=job.settings.refine.seed, notes=notes)
    return outcome


def _measures(models: Models, given: Responses, trials: Sequence[int]) -> tuple[Measures, tuple[str, ...]]:
    """CLIP of the run's models; the judge beside them, where captions say what was seen, or a note why not."""

    def without_concept(reason: str) -> tuple[Measures, tuple[str, ...]]:
        return Measures(embed=clip_embedding(models)), (f"concept_top1 was left out: {reason}.",)

    folder = models.folder / "judge" if models.folder is not None else None
    if folder is None or not folder.is_dir():
        return without_concept("the models come without a judge (a folder judge/ beside theirs)")
    if not given.captions:
        return without_concept("the seen pictures come without captions that name what they show")
    from .metrics.judge import open_judge

    judge = open_judge(folder, str(models.device))
    labels = caption_labels([given.captions[trial] for trial in trials], judge.labels["concept"])
    if labels is None:
        return without_concept("the captions of some trial name none, or more than one, of the things the judge knows")
    embed = clip_embedding(models)
    return Measures(embed=embed, classify=lambda images: judge.predict(images)[:, 0], labels=labels), ()
