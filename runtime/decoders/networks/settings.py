"""What the architectures' settings and the shapes of their responses may be, checked in one way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import InputError

WIDEST, DEEPEST = 1 << 16, 64


def check_whole(most: int, **values: Any) -> None:
    """Refuse settings that are no whole number from 1 to `most`.

    Raises
    ------
    InputError
        One of them is not.
    """
    for name, value in values.items():
        if type(value) is not int or not 1 <= value <= most:
            raise InputError(f"{name} is {value!r:.60}, expected a whole number from 1 to {most}")


def check_share(**values: Any) -> None:
    """Refuse settings that are no share from 0 to below 1.

    Raises
    ------
    InputError
        One of them is not.
    """
    for name, value in values.items():
        if type(value) not in (int, float) or not 0 <= value < 1:
            raise InputError(f"{name} is {value!r:.60}, expected a share from 0 to below 1")


def check_flag(**values: Any) -> None:
    """Refuse settings that are neither true nor false.

    Raises
    ------
    InputError
        One of them is not.
    """
    for name, value in values.items():
        if type(value) is not bool:
            raise InputError(f"{name} is {value!r:.60}, expected true or false")


def sensor_axes(architecture: str, response_shape: tuple[int, ...]) -> tuple[int, int]:
    """The number of channels and of samples of a trial of EEG or MEG.

    Raises
    ------
    InputError
        A trial has another number of axes: it is fMRI.
    """
    if len(response_shape) != 2:
        raise InputError(
            f"the decoder {architecture!r} takes EEG and MEG, (n_channels, n_times), and a trial here has the shape "
            f"{response_shape}: use one that takes fMRI, such as 'transformer' or 'mlp'"
        )
    n_channels, n_times = response_shape
    return n_channels, n_times


def check_length(architecture: str, n_times: int, least: int) -> None:
    """Refuse trials with fewer samples than the kernels need.

    Raises
    ------
    InputError
        There are fewer than `least`.
    """
    if n_times < least:
        raise InputError(
            f"a trial has {n_times} samples, and the decoder {architecture!r} needs at least {least} for its kernels: "
            "give longer epochs, a higher rate, or smaller kernels"
        )


def check_projected(architecture: str, n_outputs: Mapping[str, int], widest: int) -> None:
    """Refuse a projection head, whose weights grow with the square of its outputs, for a wide feature.

    Raises
    ------
    InputError
        A feature has more than `widest` dimensions.
    """
    for feature, n in n_outputs.items():
        if n > widest:
            raise InputError(
                f"the projection head of {architecture!r} would have {n} x {n} weights for {feature}: set embedding, "
                "such as 1024, for a head of that width and a linear map to the feature"
            )
