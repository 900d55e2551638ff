"""Which metrics to compute: names, and names of groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from ..errors import InputError
from . import METRICS
from .base import Metric

DEFAULT = "default"
ALL = "all"
# The columns of most published tables, in their order.
STANDARD = ("pixcorr", "ssim", "alexnet2", "alexnet5", "inception", "clip_vit_l14", "effnet", "swav")
# The standard columns as three publications computed them; see docs/metrics.md for what decides that.
GROUPS: dict[str, tuple[str, ...]] = {
    "standard": STANDARD,
    "mindeye1": tuple(f"{name}_aliased" for name in STANDARD),
    "mindeye2": STANDARD,
    "brain_diffuser": (
        "pixcorr_pil425",
        "ssim_columns_pil425",
        "alexnet2_pil224",
        "alexnet5_pil224",
        "inception_pil224",
        "clip_vit_l14_pil224",
        "effnet_v1_pil224",
        "swav_pil224",
    ),
}
# Of decoded features and not of pictures: a run computes them, which has both.
DECODED = {
    "retrieval": "how often the stimulus is the nearest, or among the five nearest, of 50 and 200 by what is decoded",
    "dimension": "in how many directions decoded features vary, and true ones",
}


@dataclass(frozen=True)
class Selection:
    """What was asked for: metrics of pictures, and names of `DECODED`."""

    metrics: tuple[Metric, ...]
    decoded: tuple[str, ...]


def select_for_run(asked: str | Sequence[str] | None = None) -> Selection:
    """What a run is asked for: as :func:`select`, and measures of decoded features among the names.

    "all" has those too, and "decoded" is a group of them.

    Raises
    ------
    InputError
        As :func:`select`.
    """
    names = _names(asked)
    decoded = {name for given in names for name in ((*DECODED,) if given in (ALL, "decoded") else (given,))}
    pictures = [name for name in names if name not in DECODED and name != "decoded"]
    return Selection(
        select(pictures) if pictures or not names else (), tuple(name for name in DECODED if name in decoded)
    )


def select(asked: str | Sequence[str] | None = None) -> tuple[Metric, ...]:
    """The metrics that a person asks for, each once, in the order in which they were named.

    Parameters
    ----------
    asked
        Names of metrics and of groups, as a list or separated by commas: "default" is what is computed where nobody
        asks, "all" every metric there is, the others are keys of `GROUPS`. None is "default".

    Raises
    ------
    InputError
        A name that is neither a metric's nor a group's, or no name at all.
    """
    found = dict.fromkeys(name for given in _names(asked) for name in _members(given))
    if not found:
        raise InputError(f"no metric is named: give names such as {', '.join(STANDARD[:3])}, or a group")
    return tuple(METRICS[name] for name in found)


def _names(asked: str | Sequence[str] | None) -> list[str]:
    names = (DEFAULT,) if asked is None else asked.split(",") if isinstance(asked, str) else asked
    return [name.strip() for name in names]


def _members(name: str) -> tuple[str, ...]:
    if name == ALL:
        return tuple(METRICS)
    if name == DEFAULT:
        return tuple(metric.name for metric in METRICS.values() if metric.default)
    if name in GROUPS:
        return GROUPS[name]
    if name in METRICS:
        return (name,)
    if name in DECODED:
        raise InputError(f"{name!r} is of decoded features, not of pictures: md-reconstruct run computes it")
    groups = (DEFAULT, *GROUPS, ALL)
    near = get_close_matches(name, (*METRICS, *groups), n=1)
    meant = f"did you mean {near[0]}? There are" if near else "choose among"
    raise InputError(f"metric {name!r} is unknown: {meant} {', '.join(METRICS)}; or a group: {', '.join(groups)}")
