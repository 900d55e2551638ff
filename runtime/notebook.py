"""What a notebook needs: open a checkpoint or bundle, reconstruct with a progress bar, save, look.

    import minddiffuser as md

    subject = md.demo()  # it ships with the package; or md.open("checkpoint"), md.open("bundle")
    pictures = subject.reconstruct()
    pictures.save("pictures")
    pictures.grid()

It is the batch command under other names (:mod:`.run.execute`): same screening, same pictures, same metrics.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

from .data.trial_ids import check_trial_ids
from .errors import InputError, ShapeError, check_choice
from .files import read_json
from .images import read_image, write_png
from .run.controls import CONTROLS
from .sampling import SAMPLINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image

    from .refine.settings import RefineSettings
    from .run.job import Job
    from .run.reconstruct import OnFrame

Pictures8 = NDArray[np.uint8]
_KINDS = ("stage1", "stage2", *CONTROLS)
_COLUMNS, _GAP_PX, _SIDE_PX = 8, 4, 128


def open(folder: Path | str) -> Opened:
    """Open a checkpoint of ``md-train fit`` or a bundle of ``md-export bundle``.

    Networks are opened by the first :meth:`Opened.reconstruct`.

    Raises
    ------
    FileError
        It is neither, or damaged.
    """
    from .backends import is_bundle

    folder = Path(folder)
    if is_bundle(folder):
        from .bundle.open import Bundle

        bundle = Bundle.open(folder)
        return Opened(folder, "bundle", bundle.subject, bundle.layout.modality, bundle.shapes)
    from .decoders.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(folder)
    return Opened(folder, "checkpoint", checkpoint.subject, checkpoint.layout.modality, checkpoint.shapes)


def demo() -> Opened:
    """Open the simulated subject that ships with the package, with its test trials; it needs no PyTorch.

    It is written out into the user's cache folder at the first use; where that cannot be written, into a temporary
    folder that lasts as long as the session.

    Raises
    ------
    FileError
        The shipped files are missing or damaged, or neither folder can be written.
    """
    from .demo.quick import open_shipped

    kept = open_shipped(lambda: Path(_temporary().name) / "shipped", _say)
    found = open(kept / "bundle")
    return Opened(found.folder, found.kind, found.subject, found.modality, found.shapes, kept / "data")


def reconstruct(folder: Path | str, responses: Any, **options: Any) -> Reconstructed:
    """Reconstruct pictures from responses: ``open(folder).reconstruct(responses, …)``, see there."""
    return open(folder).reconstruct(responses, **options)


@dataclass(frozen=True)
class Opened:
    """A checkpoint or bundle.

    Attributes
    ----------
    folder
    kind
        "checkpoint" or "bundle".
    subject, modality
        Whose responses it decodes, and of what kind.
    shapes
        Of one trial's features: "context", "latent", "structure" and perhaps "semantic".
    trials
        Responses that came with it, or None.
    """

    folder: Path
    kind: str
    subject: str
    modality: str
    shapes: Mapping[str, tuple[int, ...]]
    trials: Path | None = None

    def reconstruct(
        self,
        responses: Path | str | NDArray[np.floating[Any]] | None = None,
        *,
        out: Path | str | None = None,
        trial_ids: Sequence[str | int] | None = None,
        stage: int = 2,
        stage1: str = "published",
        controls: str = "none",
        progress: bool = True,
        on_frame: OnFrame | None = None,
        **choices: Any,
    ) -> Reconstructed:
        """Reconstruct a picture from each trial.

        Parameters
        ----------
        responses
            A data folder (its test split), an array file, or an array (n_trials, *response_shape) of floats in the
            units of the training data; None: those that came with it.
        out
            A run folder, which keeps everything and is resumed; None: nothing is kept but what is returned.
        trial_ids
            One text or whole number per trial, all different, which decides its noise; None: the rows.
        stage
            1 or 2: where to stop.
        stage1
            How stage 1 samples, a name of :data:`~minddiffuser.runtime.sampling.SAMPLINGS`: "published" or "near".
        controls
            "none", "both", "all", or any of "shuffled", "oracle", "generator" and "nearest" with commas between them.
        progress
            Whether to show how far it is, on standard error.
        on_frame
            Called as ``on_frame(phase, trials, pictures)`` at the steps of stage 2, so that a live view can show the
            picture growing: the phase ("stage 2", or a control's name), the numbers of k trials, and (k, H, W, 3)
            uint8. Of the refiner "guided" these are pictures of the decoded latent on its way down the loss, clean
            estimates at the guided steps, of each candidate in turn, and the kept picture before each step that
            finishes it; of "adam" the pictures at each iteration. It is called between the computations, which wait for
            it.
        choices
            ``preset``, a name of :data:`~minddiffuser.runtime.refine.settings.PRESETS` that stage 2 starts from, and
            ``refiner``, "guided" or "adam" where it is not the preset's; settings of stage 2, which are fields of
            :class:`~minddiffuser.runtime.refine.settings.GuidedSettings`, such as ``candidates``, or of
            :class:`~minddiffuser.runtime.refine.settings.AdamSettings`, such as ``steps``; fields of
            :class:`~minddiffuser.runtime.backends.base.Options`, such as ``models``, ``device``, ``threads`` and
            ``backend``, and of :class:`~minddiffuser.runtime.run.job.Job`, such as ``batch_size``.

        Raises
        ------
        MindDiffuserError
            As ``md-reconstruct run``; its message says what to do.
        """
        from .run.execute import run_job
        from .run.reconstruct import ReconstructSettings

        refine, job_choices = _stage2(choices)
        check_choice("stage1", stage1, tuple(SAMPLINGS))
        settings = ReconstructSettings(stage=stage, controls=controls, refine=refine, sampling=SAMPLINGS[stage1])
        with _temporary_folder() as made:
            given, ids = _on_disk(self.trials if responses is None else responses, trial_ids, Path(made))
            run = Path(made) / "run" if out is None else Path(out)
            job: Job = _job(self.folder, given, run, {**job_choices, "settings": settings, "trial_ids": ids})
            with _stream(progress) as stream:
                outcome, _ = run_job(job, stream, on_frame)
            return _read(run, outcome.trials, {**outcome.skipped, **outcome.lost})


@dataclass(frozen=True, eq=False, kw_only=True)
class Reconstructed:
    """What was reconstructed. A notebook shows it as :meth:`grid`.

    Attributes
    ----------
    trials
        Numbers of the trials that have pictures, n of them.
    left_out
        Number of each other trial, and why.
    pictures
        "stage1", and "stage2" and controls where there are any -> (n, H, W, 3) uint8.
    stimuli
        What the trials showed, the same shape, or None where it is not known.
    metrics
        summary.json of the run: means over trials, paired differences, notes.
    """

    trials: tuple[int, ...]
    left_out: Mapping[int, str]
    pictures: Mapping[str, Pictures8]
    stimuli: Pictures8 | None
    metrics: Mapping[str, Any]

    @property
    def final(self) -> Pictures8:
        """The last stage's pictures, (n, H, W, 3) uint8."""
        return self.pictures.get("stage2", self.pictures["stage1"])

    def save(self, folder: Path | str) -> Path:
        """Write each picture as KIND/TRIAL.png into `folder`, over earlier ones of that name; returns the folder.

        Raises
        ------
        FileError
            A file cannot be written.
        """
        folder = Path(folder)
        for kind, images in self.pictures.items():
            for trial, image in zip(self.trials, images, strict=True):
                write_png(folder / kind / f"{trial:06d}.png", image)
        return folder

    def grid(self, most: int = 16) -> Image:
        """Put the first `most` trials into one picture.

        Below each other: the stimulus where it is known, stage 1, stage 2, and controls.

        Returns
        -------
        A Pillow image, which a notebook shows by itself.
        """
        from PIL.Image import fromarray

        rows = [*([] if self.stimuli is None else [self.stimuli]), *self.pictures.values()]
        n_trials = min(most, len(self.trials))
        blocks = [_block([row[start : min(start + _COLUMNS, n_trials)] for row in rows]) for start in _starts(n_trials)]
        return fromarray(np.concatenate(blocks))

    def _repr_png_(self) -> bytes:
        """The grid for a notebook's cell."""
        from .images import png_bytes

        return png_bytes(np.asarray(self.grid()))

    def __repr__(self) -> str:
        size = "x".join(str(side) for side in self.final.shape[1:3])
        return f"<{len(self.trials)} reconstructed pictures of {size} px: {', '.join(self.pictures)}>"


def _starts(n_trials: int) -> range:
    return range(0, max(n_trials, 1), _COLUMNS)


def _block(rows: Sequence[Pictures8]) -> Pictures8:
    """Rows of pictures below each other with white between; small pictures enlarged by a whole number."""
    scale = max(1, _SIDE_PX // rows[0].shape[1])
    side = rows[0].shape[1] * scale + _GAP_PX
    block = np.full((len(rows) * side + _GAP_PX, _COLUMNS * side + _GAP_PX, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
            top, left = y * side + _GAP_PX, x * side + _GAP_PX
            block[top : top + large.shape[0], left : left + large.shape[1]] = large
    return block


# What a run fills in by itself, and what the arguments of Opened.reconstruct stand for.
_FILLED_IN = {"needs", "earlier_backend", "earlier_threads"}
_ARGUMENTS = {"checkpoint", "responses", "out", "options", "settings", "trial_ids"}


def _stage2(choices: Mapping[str, Any]) -> tuple[RefineSettings, dict[str, Any]]:
    """The settings of stage 2, and what is left for the job."""
    from .backends.base import Options
    from .refine.choose import DEFAULT, chosen, owners
    from .run.job import Job

    of_stage2 = owners()
    of_the_job = {field.name for kind in (Options, Job) for field in fields(kind)} - _FILLED_IN - _ARGUMENTS
    known = {*of_the_job, *of_stage2, "preset", "refiner"}
    unknown = sorted(set(choices) - known)
    if unknown:
        raise InputError(f"unknown option {', '.join(unknown)}: there are {', '.join(sorted(known))}")
    changes = {name: value for name, value in choices.items() if name in of_stage2}
    refine = chosen(choices.get("preset", DEFAULT), choices.get("refiner"), changes)
    return refine, {name: value for name, value in choices.items() if name in of_the_job}


def _job(checkpoint: Path, responses: Path, out: Path, choices: Mapping[str, Any]) -> Job:
    from .backends.base import Options
    from .engines.trust import trust_list
    from .run.job import Job

    names = {field.name for field in fields(Options)}
    computing = {"trust_list": trust_list(os.environ)} | {n: value for n, value in choices.items() if n in names}
    rest = {name: value for name, value in choices.items() if name not in names}
    return Job(checkpoint=checkpoint, responses=responses, out=out, options=Options(**computing), **rest)


def _on_disk(responses: Any, trial_ids: Any, place: Path) -> tuple[Path, Path | None]:
    """The responses as a file, and the file of their ids, if there are any."""
    if responses is None:
        raise InputError("no responses were given: give a data folder, an array file or an array (n_trials, …)")
    if isinstance(responses, str | Path):
        given, n_trials = Path(responses), None
    else:
        array = _array(responses)
        given, n_trials = place / "responses.npy", len(array)
        np.save(given, array, allow_pickle=False)
    if trial_ids is None:
        return given, None
    path, ids = place / "trial_ids.json", _texts(trial_ids)
    if n_trials is not None:
        check_trial_ids(ids, n_trials, "trial_ids")
    path.write_text(json.dumps(ids), encoding="utf-8")
    return given, path


def _array(responses: Any) -> NDArray[Any]:
    try:
        array = np.asarray(responses)
    except ValueError as error:
        raise ShapeError("the responses' rows differ in shape: give one row per trial, (n_trials, …)") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"the responses are {array.dtype}, which are not real numbers: give an array of floats")
    if array.ndim < 2:
        raise ShapeError(f"the responses have shape {array.shape}: give one row per trial, (n_trials, …)")
    return array


def _texts(trial_ids: Any) -> list[str]:
    if isinstance(trial_ids, str | bytes) or not isinstance(trial_ids, Iterable):
        raise InputError(f"trial_ids is {trial_ids!r:.60}: give a sequence with one text or whole number per trial")
    ids = list(trial_ids)
    for one in ids:
        if not isinstance(one, str | int | np.integer) or isinstance(one, bool):
            raise InputError(f"trial_ids holds {one!r:.60}: give one text or whole number per trial")
    return [str(one) for one in ids]


def _temporary_folder() -> TemporaryDirectory[str]:
    # Files that are still mapped cannot be deleted on Windows: what cannot go now is no reason to lose the pictures.
    return TemporaryDirectory(prefix="minddiffuser-", ignore_cleanup_errors=True)


@cache
def _temporary() -> TemporaryDirectory[str]:
    """A folder that lasts as long as this process."""
    return _temporary_folder()


def _read(run: Path, trials: tuple[int, ...], left_out: Mapping[int, str]) -> Reconstructed:
    def all_of(folder: Path) -> Pictures8:
        return np.stack([read_image(folder / f"{trial:06d}.png") for trial in trials])

    return Reconstructed(
        trials=trials,
        left_out=left_out,
        pictures={kind: all_of(run / "images" / kind) for kind in _KINDS if (run / "images" / kind).is_dir()},
        stimuli=all_of(run / "stimuli") if (run / "stimuli").is_dir() else None,
        metrics=read_json(run / "summary.json", "the run's summary"),
    )


class _Live:
    """Standard error of a notebook, which rewrites a line as a terminal does and does not say so."""

    def __init__(self, stream: TextIO) -> None:
        self.write, self.flush = stream.write, stream.flush

    def isatty(self) -> bool:
        return True


@contextmanager
def _stream(progress: bool) -> Iterator[Any]:
    if not progress:
        import io

        yield io.StringIO()
    else:
        yield _Live(sys.stderr) if type(sys.stderr).__module__.startswith("ipykernel") else sys.stderr


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
