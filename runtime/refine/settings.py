"""Settings of stage 2, one frozen dataclass for each refiner, and the ones that have a name."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from ..data.json_types import is_number, is_whole
from ..errors import InputError
from ..sampling import Sampling

LAYER_WEIGHTS = ("uniform", "reference")
LOSS_MEANS = ("kept", "all")


@dataclass(frozen=True, kw_only=True)
class RefineSettings(ABC):
    """What every refiner needs: the loss that it goes down (eq. 5 and 6 of the paper), and the start noise.

    Parameters
    ----------
    layer_weights : str or tuple of float
        Weight of each structural layer in the loss: "uniform" is 1 / n_layers each; "reference" is inverse to the
        target's norm, as in the reference code; or one number per layer.
    loss_mean : str
        "kept": a layer's squared error is averaged over the dimensions that its mask keeps. "all": over all, zeros
        included, as in the reference code (with a mask of 25 % a quarter of "kept").
    semantic_weight : float
        Lambda of eq. 6; 0 leaves the semantic term out.
    seed : int
        Of the start noise.

    Raises
    ------
    InputError
        A value outside its range.
    """

    refiner: ClassVar[str]

    layer_weights: str | tuple[float, ...] = "uniform"
    loss_mean: str = "kept"
    semantic_weight: float = 0.0
    seed: int = 42

    def __post_init__(self) -> None:
        by_name = isinstance(self.layer_weights, str)
        _check(
            by_name or (isinstance(self.layer_weights, tuple) and all(is_number(w) for w in self.layer_weights)),
            "layer_weights",
            self.layer_weights,
            "a name or a tuple of finite numbers",
        )
        _check(
            self.layer_weights in LAYER_WEIGHTS
            if isinstance(self.layer_weights, str)
            else len(self.layer_weights) > 0 and min(self.layer_weights) >= 0 and max(self.layer_weights) > 0,
            "layer_weights",
            self.layer_weights,
            "'uniform', 'reference', or one number per layer, not negative and not all zero",
        )
        _check(self.loss_mean in LOSS_MEANS, "loss_mean", self.loss_mean, "'kept' or 'all'")
        _check_number("semantic_weight", self.semantic_weight)
        _check(self.semantic_weight >= 0, "semantic_weight", self.semantic_weight, "0 or a positive number")
        _check_whole("seed", self.seed)
        _check(self.seed >= 0, "seed", self.seed, "0 or a positive whole number")

    @property
    @abstractmethod
    def steps_back(self) -> bool:
        """Whether gradients go through denoising steps."""

    @abstractmethod
    def n_reports(self, sampling: Sampling) -> int:
        """How often a refinement says how far it is, at most, where stage 1 samples as given."""

    def as_dict(self) -> dict[str, Any]:
        """Give the settings as JSON-ready values, with the refiner's name."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"refiner": self.refiner, **values}


@dataclass(frozen=True, kw_only=True)
class AdamSettings(RefineSettings):
    """The paper's stage 2: Adam on the latent and the context that stage 1 begins with.

    Parameters
    ----------
    steps : int
        Adam updates.
    learning_rate : float
        Of Adam, in units of the parameters (latents have unit scale).
    decay : float
        The learning rate of update k, counted from 0, is ``learning_rate * decay ** k``.
    params : tuple of str
        Names of the generator's parameters to optimise; the others stay as they start.
    backprop_steps : int or None
        None: through all denoising steps. K: through the last K, from a cached latent. 0: the final latent alone.
        For pictures of up to 128 px the activations of all these steps are kept: memory grows with them and with the
        batch; see `checkpointing` of :class:`~minddiffuser.runtime.backends.base.Options`.
    patience : int or None
        A trial stops after so many updates in which its best loss did not fall by the share `min_change`.
    min_change : float
    fresh_noise : bool
        New start noise at every iteration, as in the reference code, which makes the loss noisy.

    Raises
    ------
    InputError
        A value outside its range.
    """

    refiner: ClassVar[str] = "adam"

    steps: int = 60
    learning_rate: float = 0.01
    decay: float = 1.0
    params: tuple[str, ...] = ("latent", "context")
    backprop_steps: int | None = None
    patience: int | None = None
    min_change: float = 1e-3
    fresh_noise: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_types()
        _check(self.steps >= 0, "steps", self.steps, "0 or more updates")
        _check(self.learning_rate > 0, "learning_rate", self.learning_rate, "a positive number")
        _check(0 < self.decay <= 1, "decay", self.decay, "a number in (0, 1]; 1 keeps the learning rate")
        _check(
            len(self.params) > 0 and len(set(self.params)) == len(self.params) and all(self.params),
            "params",
            self.params,
            "one or more different parameter names, such as ('latent', 'context')",
        )
        _check(
            self.backprop_steps is None or self.backprop_steps >= 0,
            "backprop_steps",
            self.backprop_steps,
            "0 or more denoising steps, or None for all",
        )
        _check(self.patience is None or self.patience >= 1, "patience", self.patience, "1 or more updates, or None")
        _check(0 <= self.min_change < 1, "min_change", self.min_change, "a share of the loss in [0, 1)")
        _check(
            not (self.fresh_noise and self.backprop_steps is not None),
            "fresh_noise",
            self.fresh_noise,
            "False, or leave backprop_steps out: a cached latent is noised only once",
        )

    @property
    def steps_back(self) -> bool:
        return self.backprop_steps != 0

    def n_reports(self, sampling: Sampling) -> int:
        return self.steps + 1

    def optimised(self, available: Collection[str]) -> tuple[str, ...]:
        """Which of a generator's parameters to optimise.

        With ``backprop_steps=0`` the context no longer acts on the picture, and is left out of `params` silently.

        Raises
        ------
        InputError
            `params` names something that the generator has not, or nothing is left.
        """
        wanted = tuple(name for name in self.params if not (name == "context" and self.backprop_steps == 0))
        unknown = [name for name in wanted if name not in available]
        if unknown or not wanted:
            raise InputError(
                f"params is {self.params}, and this generator has {', '.join(sorted(available))} to optimise: "
                "name one or more of these"
            )
        return wanted

    def _check_types(self) -> None:
        for name in ("steps", "backprop_steps", "patience"):
            if getattr(self, name) is not None or name == "steps":
                _check_whole(name, getattr(self, name))
        for name in ("learning_rate", "decay", "min_change"):
            _check_number(name, getattr(self, name))
        _check(isinstance(self.fresh_noise, bool), "fresh_noise", self.fresh_noise, "True or False")
        _check(
            isinstance(self.params, tuple) and all(isinstance(name, str) for name in self.params),
            "params",
            self.params,
            "a tuple of names",
        )


@dataclass(frozen=True, kw_only=True)
class GuidedSettings(RefineSettings):
    """The structural gradient inside the sampler, from several start noises: see :mod:`.guided` and :mod:`.search`.

    Parameters
    ----------
    semantic_weight : float
        Lambda of eq. 6, of terms that are relative to their targets' sizes: see
        :func:`~minddiffuser.runtime.refine.search.relative_loss`. It is what keeps the meaning.
    start_steps, start_step_size : int and float
        So many steps the decoded latent itself goes down the loss before it is noised, once for all candidates, the
        first of them by `start_step_size` in units of the latent's scale, later ones less.
    step_size : float
        How far each guided step goes, in units of the noise that is left in the latent.
    guided_share : float
        Which share of the denoising steps is guided, from the first one on; the last ones, left to the diffusion
        model alone, clean the picture up.
    finish_steps, finish_step_size : int and float
        So many steps the kept latent goes down the loss after sampling, as at the start, and its best iterate is what
        is returned.
    finish_smoothing : float
        Standard deviation, in pixels of the latent, of the blur that the gradient gets in those steps; 0 leaves it.
    finish_semantic_share : float
        The share of `semantic_weight` that acts in those steps: the picture has its meaning by then.
    candidates : int or None
        Start noises per trial, of which the picture with the lowest loss is kept. None: as many as `budget` or
        `deadline` allow, which a run settles once. A number beside one of those is what was settled: they change
        nothing then.
    n_steps, strength : int and float, or both None
        The sampler's own grid: `strength` of its `n_steps` steps are taken, from the decoded latent with just the noise
        that belongs there (diffusers' words for image to image). None: sampling as in stage 1, from the same noise.
    jacobian : bool
        False leaves out the way back through the UNet, a fifth (engines: a third) of a guided step's cost. From stage
        1's noise that takes most of the effect away; from the default's own start single passes came out alike.
    budget : float or None
        The most that stage 2 of a trial may cost, in UNet forward passes; see :mod:`.costs`. Decoding, stage 1 and the
        controls, each of which costs as much again, are not in it.
    deadline : float or None
        The most seconds that the same may take: turned into candidates once, by a measurement on this machine.

    Raises
    ------
    InputError
        A value outside its range, or values that do not go together.
    """

    refiner: ClassVar[str] = "guided"

    semantic_weight: float = 0.5
    start_steps: int = 20
    start_step_size: float = 0.1
    step_size: float = 0.25
    guided_share: float = 0.6
    finish_steps: int = 25
    finish_step_size: float = 0.1
    finish_smoothing: float = 1.0
    finish_semantic_share: float = 0.4
    candidates: int | None = 6
    n_steps: int | None = 25
    strength: float | None = 0.32
    jacobian: bool = True
    budget: float | None = None
    deadline: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("start_steps", "finish_steps"):
            _check_whole(name, getattr(self, name))
            _check(getattr(self, name) >= 0, name, getattr(self, name), "0 or more steps")
        for name in ("start_step_size", "step_size", "finish_step_size"):
            _check_number(name, getattr(self, name))
            _check(getattr(self, name) >= 0, name, getattr(self, name), "0 or a positive number; 0 moves nothing")
        _check_number("finish_smoothing", self.finish_smoothing)
        _check(
            self.finish_smoothing >= 0, "finish_smoothing", self.finish_smoothing, "0 or a positive number of pixels"
        )
        for name, of in (("guided_share", "the steps"), ("finish_semantic_share", "the semantic weight")):
            _check_number(name, getattr(self, name))
            _check(0 <= getattr(self, name) <= 1, name, getattr(self, name), f"a share of {of}, 0 to 1")
        _check(isinstance(self.jacobian, bool), "jacobian", self.jacobian, "True or False")
        for name in ("candidates", "n_steps"):
            value = getattr(self, name)
            _check(value is None or (is_whole(value) and value >= 1), name, value, "a whole number of 1 or more")
        for name in ("budget", "deadline"):
            value = getattr(self, name)
            _check(value is None or (is_number(value) and value > 0), name, value, "a positive number")
        together = (self.n_steps is None) == (self.strength is None)
        _check(together, "strength", self.strength, "n_steps and strength both, or neither: then stage 1's steps")
        if self.strength is not None:
            good = is_number(self.strength) and 0 < self.strength <= 1
            _check(good, "strength", self.strength, "a share of the grid's steps, above 0 and at most 1")
        limits = [name for name in ("budget", "deadline") if getattr(self, name) is not None]
        _check(
            self.candidates is not None or len(limits) == 1,
            "candidates",
            self.candidates,
            "a whole number, or either a budget or a deadline",
        )

    @property
    def steps_back(self) -> bool:
        return self.jacobian and self.step_size > 0 and self.guided_share > 0

    def n_reports(self, sampling: Sampling) -> int:
        return self.n_start + (self.candidates or 1) * self.sampling(sampling).n_reverse + self.n_finish

    def sampling(self, stage1: Sampling) -> Sampling:
        """How to sample, where stage 1 samples as given."""
        if self.n_steps is None or self.strength is None:
            return stage1
        n_reverse = max(1, math.floor(self.n_steps * self.strength + 0.5))
        return Sampling(guidance_scale=stage1.guidance_scale, n_steps=self.n_steps, n_noise=None, n_reverse=n_reverse)

    @property
    def n_start(self) -> int:
        """How many steps the decoded latent is moved by: none where they would not move it."""
        return self.start_steps if self.start_step_size > 0 else 0

    @property
    def n_finish(self) -> int:
        """How many steps finish a picture: none where they would not move it."""
        return self.finish_steps if self.finish_step_size > 0 else 0

    @property
    def finish_semantic_weight(self) -> float:
        return self.finish_semantic_share * self.semantic_weight

    def n_guided(self, stage1: Sampling) -> int:
        """How many steps are guided: at least one, unless the share or the step size is 0."""
        if self.step_size == 0 or self.guided_share == 0:
            return 0
        return max(1, math.floor(self.guided_share * self.sampling(stage1).n_reverse + 0.5))


def _check(good: bool, name: str, given: object, expected: str) -> None:
    if not good:
        raise InputError(f"refine setting {name} is {given!r}: give {expected}")


def _check_whole(name: str, given: object) -> None:
    _check(is_whole(given), name, given, "a whole number")


def _check_number(name: str, given: object) -> None:
    _check(is_number(given), name, given, "a finite number")


PRESETS: dict[str, RefineSettings] = {
    "default": GuidedSettings(),
    # For live use: one start noise, and so one pass, with fewer steps before and after it.
    "single": GuidedSettings(candidates=1, start_steps=10, finish_steps=10),
    # Spelled out: it stays what was published whatever becomes of the default.
    "paper": AdamSettings(
        steps=60, learning_rate=0.01, decay=1.0, params=("latent", "context"), layer_weights="uniform", seed=42
    ),
    # The published code. It steps its learning rate's schedule before the first update, hence 0.01 * 0.999.
    "reference": AdamSettings(
        steps=300,
        learning_rate=0.01 * 0.999,
        decay=0.999,
        params=("latent",),
        layer_weights="reference",
        loss_mean="all",
        fresh_noise=True,
        seed=42,
    ),
}
