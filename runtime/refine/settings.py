"""Settings of a refinement as one frozen dataclass, and the published ones by name."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from ..data.json_types import is_number, is_whole
from ..errors import InputError

LAYER_WEIGHTS = ("uniform", "reference")
LOSS_MEANS = ("kept", "all")


@dataclass(frozen=True, kw_only=True)
class RefineSettings:
    """Stage 2 (eq. 5 and 6 of the paper).

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
        batch; see `checkpointing` of :class:`~minddiffuser.runtime.run.reconstruct.ReconstructSettings`.
    layer_weights : str or tuple of float
        Weight of each structural layer in the loss: "uniform" is 1 / n_layers each; "reference" is inverse to the
        target's norm, as in the reference code; or one number per layer.
    loss_mean : str
        "kept": a layer's squared error is averaged over the dimensions that its mask keeps. "all": over all, zeros
        included, as in the reference code (with a mask of 25 % a quarter of "kept").
    semantic_weight : float
        Lambda of eq. 6; 0 leaves the semantic term out.
    patience : int or None
        A trial stops after so many updates in which its best loss did not fall by the share `min_change`.
    min_change : float
    fresh_noise : bool
        New start noise at every iteration, as in the reference code, which makes the loss noisy.
    seed : int
        Of the start noise.

    Raises
    ------
    InputError
        A value outside its range.
    """

    steps: int = 60
    learning_rate: float = 0.01
    decay: float = 1.0
    params: tuple[str, ...] = ("latent", "context")
    backprop_steps: int | None = None
    layer_weights: str | tuple[float, ...] = "uniform"
    loss_mean: str = "kept"
    semantic_weight: float = 0.0
    patience: int | None = None
    min_change: float = 1e-3
    fresh_noise: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
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
        _check(
            self.layer_weights in LAYER_WEIGHTS
            if isinstance(self.layer_weights, str)
            else len(self.layer_weights) > 0 and min(self.layer_weights) >= 0 and max(self.layer_weights) > 0,
            "layer_weights",
            self.layer_weights,
            "'uniform', 'reference', or one number per layer, not negative and not all zero",
        )
        _check(self.loss_mean in LOSS_MEANS, "loss_mean", self.loss_mean, "'kept' or 'all'")
        _check(self.semantic_weight >= 0, "semantic_weight", self.semantic_weight, "0 or a positive number")
        _check(self.patience is None or self.patience >= 1, "patience", self.patience, "1 or more updates, or None")
        _check(0 <= self.min_change < 1, "min_change", self.min_change, "a share of the loss in [0, 1)")
        _check(self.seed >= 0, "seed", self.seed, "0 or a positive whole number")
        _check(
            not (self.fresh_noise and self.backprop_steps is not None),
            "fresh_noise",
            self.fresh_noise,
            "False, or leave backprop_steps out: a cached latent is noised only once",
        )

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

    def as_dict(self) -> dict[str, Any]:
        """Give the settings as JSON-ready values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def _check_types(self) -> None:
        whole = {"steps": self.steps, "seed": self.seed}
        whole |= {n: v for n in ("backprop_steps", "patience") if (v := getattr(self, n)) is not None}
        for name, value in whole.items():
            _check(is_whole(value), name, value, "a whole number")
        for name in ("learning_rate", "decay", "semantic_weight", "min_change"):
            _check(is_number(getattr(self, name)), name, getattr(self, name), "a finite number")
        _check(isinstance(self.fresh_noise, bool), "fresh_noise", self.fresh_noise, "True or False")
        _check(isinstance(self.loss_mean, str), "loss_mean", self.loss_mean, "'kept' or 'all'")
        _check(
            isinstance(self.params, tuple) and all(isinstance(name, str) for name in self.params),
            "params",
            self.params,
            "a tuple of names",
        )
        _check(
            isinstance(self.layer_weights, str)
            or (isinstance(self.layer_weights, tuple) and all(is_number(weight) for weight in self.layer_weights)),
            "layer_weights",
            self.layer_weights,
            "a name or a tuple of finite numbers",
        )


def _check(good: bool, name: str, given: object, expected: str) -> None:
    if not good:
        raise InputError(f"refine setting {name} is {given!r}: give {expected}")


PRESETS: dict[str, RefineSettings] = {
    "default": RefineSettings(),
    # Spelled out: it stays what was published whatever becomes of the default.
    "paper": RefineSettings(
        steps=60, learning_rate=0.01, decay=1.0, params=("latent", "context"), layer_weights="uniform", seed=42
    ),
    # The published code. It steps its learning rate's schedule before the first update, hence 0.01 * 0.999.
    "reference": RefineSettings(
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
