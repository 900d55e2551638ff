"""The two stages for one batch of trials: responses ▶ decoded features ▶ pictures (stage 1) ▶ refined (stage 2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..backends.base import Backend, Decoder, Needs, Noise, Start
from ..decoders.belonging import Decoded
from ..errors import InputError
from ..generators.base import Float32, Sampler
from ..generators.noise import fresh_noise, trial_noise
from ..images import to_float, to_uint8
from ..refine import refine
from ..refine.base import Problem, Refined, Step
from ..refine.settings import PRESETS, AdamSettings, GuidedSettings, RefineSettings
from ..sampling import Sampling
from ..training_pictures import TrainingPictures
from .batches import BatchResult
from .controls import OF_STAGE_2, OF_TRAINING, control_names, controls_text, partners
from .without import check_without

# trials ▶ what they showed, or places in the table of training pictures ▶ these; (n, H, W, 3) uint8
ReadPictures = Callable[[Sequence[int]], NDArray[np.uint8]]
# (phase, step, steps): called after decoding and stage 1, 1 of 1 each, and after each step of a refinement, up to
# steps; controls are phases by their own names
OnStep = Callable[[str, int, int], None]
# (phase, trials, pictures (k, H, W, 3) uint8): what k trials look like after a step of a refinement, so that a live
# view can show a picture growing. Of the refiner guided: pictures of the decoded latent on its way down the loss, the
# clean estimate at each guided step, of one candidate after the other, and the kept picture before each step that
# finishes it
OnFrame = Callable[[str, Sequence[int], NDArray[np.uint8]], None]

D = TypeVar("D", Start, Decoded)

BEFORE_REFINEMENT, REFINEMENT = ("decode", "stage 1"), "stage 2"

_OPTIONAL = ("percent", "without")
_NEEDS_STIMULI = "the oracle control needs the stimuli: give --stimuli, or a data folder that has them"


@dataclass(frozen=True, kw_only=True)
class ReconstructSettings:
    """How both stages run.

    Attributes
    ----------
    stage
        1 or 2: where to stop.
    controls
        Names of `CONTROLS` or of their groups, with commas between them; kept as :func:`.controls.controls_text`
        writes them. Those of stage 2 refine the same stage 1 again, toward other targets.
    refine
        Stage 2; its `seed` is the seed of the start noise too. Candidates beside a budget or a deadline are what was
        settled; a run settles them, and a :class:`Reconstructor` needs it done.
    sampling
        Of both stages.
    percent
        How much of each structural layer is trusted; None: what the checkpoint keeps, which is the most.
    without
        Decoded features that have no part in the pictures; :func:`.ablation.without` makes such settings.

    Raises
    ------
    InputError
        A value outside its range, or values that do not go together.
    """

    stage: int = 2
    controls: str = "none"
    refine: RefineSettings = field(default_factory=lambda: PRESETS["default"])
    sampling: Sampling = field(default_factory=Sampling)
    percent: float | None = None
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.stage not in (1, 2):
            raise InputError(f"stage is {self.stage}: choose 1 or 2")
        names = control_names(self.controls)
        object.__setattr__(self, "controls", controls_text(names))
        of_stage_2 = [name for name in names if name in OF_STAGE_2]
        if self.stage == 1 and of_stage_2:
            raise InputError(
                f"the controls {' and '.join(of_stage_2)} belong to stage 2: leave them out, or ask for stage 2"
            )
        check_without(self.without)
        if self.percent is not None and self.stage == 1:
            raise InputError(f"percent is {self.percent:g}, which belongs to stage 2: leave it out, or ask for stage 2")
        if self.percent is not None and not 0 < self.percent <= 100:
            raise InputError(f"percent is {self.percent}, expected above 0 and at most 100")
        if isinstance(self.refine, AdamSettings):
            n_back, n_reverse = self.refine.backprop_steps, self.sampling.n_reverse
            if n_back is not None and n_back > n_reverse:
                raise InputError(f"backprop_steps is {n_back} of {n_reverse} denoising steps: give at most all")
            if self.stage == 2:
                self.refine.optimised(("latent",) if n_back == 0 else ("latent", "context"))

    def as_dict(self) -> dict[str, Any]:
        """Give the settings as JSON-ready values; what changes nothing is left out, as runs of before had it."""
        values = {**asdict(self), "refine": self.refine.as_dict()}
        return {name: value for name, value in values.items() if name not in _OPTIONAL or value}

    @property
    def control_names(self) -> tuple[str, ...]:
        """The controls one by one, in the order of `CONTROLS`."""
        return control_names(self.controls)

    @property
    def needs(self) -> Needs:
        """What a run with these settings asks of a backend."""
        return Needs(
            refine=self.stage == 2,
            steps_back=self.refine.steps_back,
            semantic=self.refine.semantic_weight > 0,
            features="oracle" in self.control_names,
            nearest="nearest" in self.control_names,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """The trials of a run.

    Attributes
    ----------
    responses : (n_trials, *response_shape) float32
        Of the whole run: a shuffled target is that of another picture's trial.
    good
        Numbers of those whose rows of `responses` are good.
    ids
        One per row, which decide the noise and whose target is shuffled to whom; the rows where not given.
    stimulus_ids
        One per row, the same for trials that showed the same picture; None: each showed another one.
    """

    responses: NDArray[np.float32]
    good: Sequence[int]
    ids: Sequence[str] | None = None
    stimulus_ids: Sequence[str] | None = None

    def id_of(self, trial: int) -> str:
        """The id of a trial."""
        return str(trial) if self.ids is None else self.ids[trial]

    def partners(self, seed: int) -> dict[int, int]:
        """Whose target each good trial is refined toward by the "shuffled" control; see :func:`.controls.partners`."""
        return partners(self.good, seed, self.stimulus_ids, self.ids)


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """What the controls "generator" and "nearest" take of the training pictures.

    Attributes
    ----------
    table : TrainingPictures
    read : places in the table ▶ (n, H, W, 3) uint8, optional
        The control "nearest" needs it.
    """

    table: TrainingPictures
    read: ReadPictures | None = None


@dataclass(frozen=True, eq=False)
class _Batch:
    """What stage 1 has left for stage 2: the decoded features, the generator, and its pictures."""

    decoded: Decoded
    generator: Sampler[Any]
    stage1: Any


class Reconstructor:
    """Both stages of the paper, batch by batch: the `reconstruct` of :func:`.batches.run_batch`.

    Parameters
    ----------
    backend : Backend
    trials : Trials
    settings : ReconstructSettings
    stimuli : trials ▶ (n, H, W, 3) uint8, optional
        What was shown; the "oracle" control needs it.
    training : Training, optional
        The controls "generator" and "nearest" need it.
    rows_at_once : int, optional
        The most pictures that a refiner computes together; None: as many as there are trials in a batch.
    on_step, on_frame : callable, optional
        See `OnStep` and `OnFrame`.

    Raises
    ------
    InputError
        The checkpoint was fitted for other models or layers; the "oracle" control without stimuli, or the "shuffled"
        one with a single picture; a semantic term without a decoder for its target; an empty mask; more steps of a
        refiner's own grid than the networks were trained on.
    """

    def __init__(
        self,
        backend: Backend[Any],
        trials: Trials,
        settings: ReconstructSettings,
        *,
        stimuli: ReadPictures | None = None,
        training: Training | None = None,
        rows_at_once: int | None = None,
        on_step: OnStep | None = None,
        on_frame: OnFrame | None = None,
    ) -> None:
        self._backend, self._trials, self._rows_at_once = backend, trials, rows_at_once
        self._settings, self._stimuli, self._training = settings, stimuli, training
        self._on_step, self._on_frame = on_step, on_frame
        check_request(backend.decoder, trials, settings, has_stimuli=stimuli is not None)
        check_training(settings, training)
        backend.start()
        if settings.stage == 2 and isinstance(settings.refine, GuidedSettings):
            _check_grid(backend, settings.refine.sampling(settings.sampling))
        shuffles = "shuffled" in settings.control_names
        self._partner = trials.partners(settings.refine.seed) if shuffles else {}

    def __call__(self, trials: Sequence[int], rows: NDArray[np.float32]) -> BatchResult:
        """Reconstruct n trials from their responses (n, *response_shape) float32.

        A trial of which some picture is not finite is given as lost: it has no picture at all, so that every kind of
        picture is there for the same trials.
        """
        seconds: dict[str, float] = {}
        lost: dict[int, str] = {}
        with _Stopwatch(seconds, "decode"):
            # Only what the settings need: no engine was started for anything else.
            names = self._settings.control_names
            decoded = self._decoded(rows) if self._settings.stage == 2 or "nearest" in names else None
            start = self._left(self._backend.decode_start(rows)) if decoded is None else decoded
        self._report("decode", 1, 1)
        settings, noise = self._settings, self._noise(trials)
        generator = self._backend.generator(
            start, noise, settings.sampling, backprop_steps=getattr(settings.refine, "backprop_steps", None)
        )
        with _Stopwatch(seconds, "stage1"):
            images = generator.stage1()
        stage1 = _pictures(images, trials, "stage 1", lost)
        self._report("stage 1", 1, 1)
        if len(lost) == len(trials):
            return BatchResult(stage1=stage1, lost=lost, seconds=seconds)
        controls: dict[str, NDArray[np.uint8]] = {}
        stage2: dict[str, Any] = {}
        if self._settings.stage == 2:
            assert decoded is not None
            batch = _Batch(decoded, generator, images)
            stage2 = self._stage2(trials, batch, controls, lost, seconds)
        nearest = self._of_training(trials, noise, decoded, controls, lost, seconds)
        return BatchResult(
            stage1=stage1, **stage2, lost=lost, controls=controls, nearest=nearest or None, seconds=seconds
        )

    def _stage2(
        self,
        trials: Sequence[int],
        batch: _Batch,
        controls: dict[str, NDArray[np.uint8]],
        lost: dict[int, str],
        seconds: dict[str, float],
    ) -> dict[str, Any]:
        """Refine; what a :class:`BatchResult` says of it. Pictures of its controls are added to `controls`."""
        with _Stopwatch(seconds, "stage2"):
            refined = self._refine(REFINEMENT, trials, batch, batch.decoded.structure, batch.decoded.semantic)
        stage2, failed = _pictures(refined.image, trials, "stage 2", lost), refined.failed
        for name in (name for name in self._settings.control_names if name in OF_STAGE_2):
            with _Stopwatch(seconds, name):
                control = self._refine(name, trials, batch, *self._target(name, trials))
            controls[name] = _pictures(control.image, trials, f"the control {name}", lost)
            failed = failed | control.failed
        return {
            "stage2": stage2,
            "loss_curve": refined.loss_curve,
            "best_step": refined.best_step,
            "candidate_losses": refined.candidate_losses,
            "finish_curve": refined.finish_curve,
            "failed": failed,
        }

    def _of_training(
        self,
        trials: Sequence[int],
        noise: Noise,
        decoded: Decoded | None,
        controls: dict[str, NDArray[np.uint8]],
        lost: dict[int, str],
        seconds: dict[str, float],
    ) -> list[dict[str, float]]:
        """Add the controls that are made of the training pictures; which picture is nearest to each trial."""
        found: list[dict[str, float]] = []
        for name in (name for name in self._settings.control_names if name in OF_TRAINING):
            assert self._training is not None  # check_training has refused
            table = self._training.table
            with _Stopwatch(seconds, name):
                if name == "generator":
                    images = self._generator_alone(table, len(trials), noise)
                    controls[name] = _pictures(images, trials, f"the control {name}", lost)
                else:
                    assert decoded is not None
                    assert self._training.read is not None
                    places, similarity = table.nearest(decoded, without=self._settings.without)
                    controls[name] = self._training.read(places.tolist())
                    for trial, value in zip(trials, similarity, strict=True):
                        if not np.isfinite(value):
                            lost.setdefault(trial, "its decoded features hold NaN or infinite values")
                    found = [
                        {} if trial in lost else {"picture": int(number), "similarity": float(value)}
                        for trial, number, value in zip(trials, table.number[places], similarity, strict=True)
                    ]
            self._report(name, 1, 1)
        return found

    def _generator_alone(self, table: TrainingPictures, n: int, noise: Noise) -> Any:
        """Stage 1 with nothing of the brain: its noise and its sampling, and for all trials one context and latent."""
        start = Start(
            context=np.tile(table.typical_context, (n, 1, 1)), latent=np.tile(table.mean_latent, (n, 1, 1, 1))
        )
        return self._backend.generator(start, noise, self._settings.sampling).stage1()

    def _decoded(self, rows: NDArray[np.float32]) -> Decoded:
        wanted = self._settings.refine.semantic_weight > 0 and self._settings.stage == 2
        wanted = wanted or "nearest" in self._settings.control_names
        return self._left(self._backend.decode(rows, semantic=wanted))

    def _left(self, decoded: D) -> D:
        """What is left of decoded features in an ablation; see :mod:`.without`."""
        if "context" in self._settings.without:
            empty = self._backend.decoder.uncond_context
            decoded = replace(decoded, context=np.broadcast_to(empty, decoded.context.shape).astype(np.float32))
        if "latent" in self._settings.without:
            decoded = replace(decoded, latent=np.zeros_like(decoded.latent))
        return decoded

    def _noise(self, trials: Sequence[int]) -> Noise:
        settings = self._settings.refine
        if not getattr(settings, "fresh_noise", False):
            return self._candidate(trials, 0)
        return fresh_noise(settings.seed, [self._trials.id_of(trial) for trial in trials], self._backend.latent_shape)

    def _candidate(self, trials: Sequence[int], candidate: int) -> Float32:
        ids = [self._trials.id_of(trial) for trial in trials]
        return trial_noise(self._settings.refine.seed, ids, self._backend.latent_shape, candidate)

    def _refine(
        self,
        phase: str,
        trials: Sequence[int],
        batch: _Batch,
        structure: NDArray[np.float32],
        semantic: NDArray[np.float32] | None,
    ) -> Refined[Any]:
        decoded = batch.decoded
        problem = Problem(
            backend=self._backend,
            start=lambda rows: Start(context=decoded.context[list(rows)], latent=decoded.latent[list(rows)]),
            noise=lambda candidate: self._candidate(trials, candidate),
            generator=batch.generator,
            stage1=batch.stage1,
            sampling=self._settings.sampling,
            target=structure,
            mask=self._backend.decoder.mask,
            semantic=semantic,
            rows_at_once=self._rows_at_once or len(trials),
        )

        def report(step: Step[Any]) -> None:
            self._report(phase, step.step, step.steps)
            if self._on_frame is not None and step.image is not None:
                shown = [trials[row] for row in step.rows]
                self._on_frame(phase, shown, _pictures(step.image, shown, phase, {}))

        return refine(problem, self._settings.refine, report)

    def _report(self, phase: str, step: int, steps: int) -> None:
        if self._on_step is not None:
            self._on_step(phase, step, steps)

    def _target(self, control: str, trials: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """The structural target of a control, (n, 6, n_tokens, d_vision), and its semantic one, (n, d_vision)."""
        if control == "shuffled":
            partners = self._trials.responses[[self._partner[trial] for trial in trials]]
            decoded = self._decoded(partners)
            return decoded.structure, decoded.semantic
        if self._stimuli is None:
            raise InputError(_NEEDS_STIMULI)
        return self._backend.features(
            to_float(self._stimuli(trials)), semantic=self._settings.refine.semantic_weight > 0
        )


def check_request(
    decoder: Decoder,
    trials: Trials,
    settings: ReconstructSettings,
    *,
    has_stimuli: bool,
) -> None:
    """Refuse what settings, decoders and trials cannot give together: all that is known without the networks.

    Raises
    ------
    InputError
        The "oracle" control without stimuli, or the "shuffled" one with a single picture; a semantic term without a
        decoder for its target; an empty mask.
    """
    if settings.stage == 2:
        _check_targets(decoder, settings.refine)
    controls = settings.control_names
    if "oracle" in controls and not has_stimuli:
        raise InputError(_NEEDS_STIMULI)
    if "shuffled" in controls:
        trials.partners(settings.refine.seed)


def check_training(settings: ReconstructSettings, training: Training | None) -> None:
    """Refuse controls without the training pictures that they are made of."""
    for name in (name for name in settings.control_names if name in OF_TRAINING):
        if training is None or (name == "nearest" and training.read is None):
            raise InputError(f"the control {name} needs the training pictures: give them, or leave it out")
        if name == "nearest" and not set(training.table.tables) - set(settings.without):
            raise InputError("no decoded feature is left to find the nearest picture by: leave the control nearest out")


def _check_targets(decoder: Decoder, settings: RefineSettings) -> None:
    """Refuse what stage 2 would stumble over at its first batch."""
    if settings.semantic_weight > 0 and "semantic" not in decoder.shapes:
        raise InputError(
            f"semantic_weight is {settings.semantic_weight}, and {decoder.folder} has no decoder of "
            "the semantic feature: give semantic_weight=0 (--semantic-weight 0), or a checkpoint that has one"
        )
    if not decoder.mask.any():
        raise InputError(
            f"the mask of {decoder.folder} keeps no structure dimension: fit it with a larger "
            "--percent, or ask for stage 1 alone"
        )


def _check_grid(backend: Backend[Any], sampling: Sampling) -> None:
    """Refuse a grid that the networks do not have, before stage 1 is computed: a generator's table is made at once."""
    start = Start(
        context=np.zeros((1, *backend.decoder.shapes["context"]), np.float32),
        latent=np.zeros((1, *backend.latent_shape), np.float32),
    )
    backend.generator(start, start.latent, sampling)


def _pictures(images: Any, trials: Sequence[int], what: str, lost: dict[int, str]) -> NDArray[np.uint8]:
    """Images (n, 3, H, W) to (n, H, W, 3) uint8; a trial whose picture is not finite is black, and added to `lost`."""
    values = np.array(images if isinstance(images, np.ndarray) else images.detach().float().cpu().numpy())
    for row, trial in enumerate(trials):
        if not np.isfinite(values[row]).all():
            lost.setdefault(trial, f"its picture of {what} holds NaN or infinite values")
            values[row] = 0
    return to_uint8(values)


def phases(settings: ReconstructSettings) -> dict[str, int]:
    """The phases of one picture in their order, as `OnStep` receives them, and the most steps of each."""
    found = dict.fromkeys(BEFORE_REFINEMENT, 1)
    if settings.stage == 2:
        n_steps = settings.refine.n_reports(settings.sampling)
        found |= dict.fromkeys((REFINEMENT, *(name for name in settings.control_names if name in OF_STAGE_2)), n_steps)
    return found | dict.fromkeys((name for name in settings.control_names if name in OF_TRAINING), 1)


class _Stopwatch:
    """Adds the seconds of a block to a dictionary."""

    def __init__(self, seconds: dict[str, float], phase: str) -> None:
        self._seconds, self._phase = seconds, phase

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_error: object) -> None:
        spent = time.perf_counter() - self._start
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + spent
