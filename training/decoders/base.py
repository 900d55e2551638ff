"""What a fitter of decoders is, and the registry of fitters: one file and one line here add another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import ResponseLayout
from ...runtime.errors import InputError, check_choice
from ...runtime.features import TARGETS
from ..solvers.columns import Columns
from . import DECODERS

Array = NDArray[Any]
Progress = Callable[[int, int], None]


class FittedDecoder(Protocol):
    """A decoder with its weights."""

    @property
    def kind(self) -> str:
        """What opens it: a name of runtime/decoders/__init__.py, KINDS."""
        ...

    def predict(self, responses: Array, start: int = 0, stop: int | None = None) -> NDArray[np.float64]:
        """Targets start..stop-1 from normalised responses (n_trials, *response_shape): (n_trials, stop - start)."""
        ...

    def arrays(self) -> dict[str, Array]:
        """What the checkpoint's file holds besides the placement of the feature, as the kind reads it.

        Of "linear": "index" (n_targets, n_selected) int32 into the flattened responses, "weight" of that shape float32,
        "bias" (n_targets,) float32; one that uses every value has n_selected = their number. Of "network": the
        weights, after "network.".
        """
        ...

    def described(self) -> dict[str, Any]:
        """Further JSON for the decoder's entry in checkpoint.json; {} where the kind needs none."""
        ...


class Decoder(Protocol):
    """Settings of a fitter, and the way to fit a decoder of one feature.

    A fitter of linear decoders whose targets do not depend on one another may have
    ``block(n_trials, n_values) -> int | None`` besides: the number of targets from which on preparing for the responses
    costs little (None: all that fit in memory). Large fits then go on block by block after an interruption; without it,
    a feature is fitted in one go.

    A fitter that holds out trials of its own and is too costly to be fitted anew in every fold says so by an attribute
    ``validates_itself = True``. What it fits then has ``held_out`` (n_trials,) bool, the trials that no weight was
    fitted to: the scores are of their predictions, and the selection of structure takes the ridge.

    A fitter that does not take every response, or whose settings depend on their layout (the sensors' positions), has
    ``fitted_to(layout) -> Self``: see :func:`fitted_to`.

    A fitter that decides a setting by the training trials (a penalty by cross-validation) has
    ``settled(responses, targets, *, pictures, n_threads) -> (Self, decision)``: see :func:`settled`. Its `fit` does the
    same where it was not settled before.

    A fitter that predicts other trials for no more than its weights cost, and in less memory, has
    ``predictor(responses, others, *, n_targets) -> Predictor | None``: see :func:`predictor`.
    """

    def fit(
        self,
        responses: Array,
        targets: Columns,
        *,
        pictures: NDArray[np.integer[Any]] | None = None,
        n_threads: int | None = None,
        progress: Progress | None = None,
    ) -> FittedDecoder:
        """Fit to normalised responses (n_trials, *response_shape) and normalised targets (n_trials, n_targets).

        `targets` is no array: read ``targets.columns(start, stop)`` for as many columns at a time as memory allows.
        `pictures` (n_trials,) is the same for trials of one picture: what is held out is held out with all of these
        (None: all differ). `progress` receives (done, of how many), the last time with both the same.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """JSON for the checkpoint: "fitter", its name in DECODERS, and the options that make it again."""
        ...


def validates_itself(decoder: Decoder) -> bool:
    """Whether scores are of trials that the fit held out by itself; see :class:`Decoder`."""
    return bool(getattr(decoder, "validates_itself", False))


def settled(
    decoder: Decoder,
    responses: Array,
    targets: Columns,
    *,
    pictures: NDArray[np.integer[Any]] | None = None,
    n_threads: int | None = None,
) -> tuple[Decoder, dict[str, Any]]:
    """The same fitter with nothing left to decide by the trials, and what was decided, for the checkpoint's entry.

    Asked once for all targets of a feature that is then fitted block by block, so that every block takes the same.
    """
    ask = getattr(decoder, "settled", None)
    return (decoder, {}) if ask is None else ask(responses, targets, pictures=pictures, n_threads=n_threads)


class Predictor(Protocol):
    """What a decoder, fitted to some trials, gives for others."""

    def predict(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predictions (n_others, n) of targets whose normalised values in the fitted trials are y (n_trials, n)."""
        ...


def predictor(decoder: Decoder, responses: Array, others: Array, *, n_targets: int) -> Predictor | None:
    """What gives the predictions of a settled decoder for `others`, where it makes no weights for that.

    Both are normalised, as for :meth:`Decoder.fit`; it holds for all targets, of which there are about `n_targets`.
    None: the decoder has to be fitted.
    """
    ask = getattr(decoder, "predictor", None)
    made: Predictor | None = None if ask is None else ask(responses, others, n_targets=n_targets)
    return made


def fitted_to(decoder: Decoder, layout: ResponseLayout) -> Decoder:
    """The same fitter for responses laid out in this way; asked before anything is computed.

    A fitter's own ``fitted_to`` gives itself with the settings that follow from the layout; given again with the same
    layout it changes nothing.

    Raises
    ------
    InputError
        It does not take such responses: another modality, or a `response_shape` that is too small for it.
    """
    ask = getattr(decoder, "fitted_to", None)
    made: Decoder = decoder if ask is None else ask(layout)
    return made


def options_of(name: str) -> tuple[str, ...]:
    """The options of a registered kind: the fields of its settings.

    Raises
    ------
    InputError
        The name is unknown.
    """
    kind = _kind(name)
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()


def make_decoder(name: str, feature: str, **options: Any) -> Decoder:
    """Make a registered decoder with the defaults for one feature, changed by `options`.

    Raises
    ------
    InputError
        The name, the feature or an option is unknown, or a value cannot be used.
    """
    check_choice("feature", feature, TARGETS)
    kind = _kind(name)
    check_options(name, options)
    try:
        made: Decoder = kind.for_feature(feature, **options)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        raise InputError(f"decoder {name!r} cannot use the options {given} ({error}): give other values") from error
    return made


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a registered kind does not have.

    Raises
    ------
    InputError
        The name or an option is unknown.
    """
    known = options_of(name)
    strange = sorted(set(options) - set(known))
    if strange:
        there = f"its options are {', '.join(known)}" if known else "it has none"
        raise InputError(f"decoder {name!r} has no option {strange[0]!r}: {there}")


def _kind(name: str) -> Any:
    check_choice("decoder", name, DECODERS)
    module, attribute = DECODERS[name]
    return getattr(import_module(f"{__package__}.{module}"), attribute)


def changed(decoder: Decoder, feature: str, **options: Any) -> Decoder:
    """Make the same decoder with other `options`.

    Raises
    ------
    InputError
        This kind of decoder has no such option, or cannot use the value.
    """
    description = decoder.describe()
    return make_decoder(description.pop("fitter"), feature, **{**description, **options})
