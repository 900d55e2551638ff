"""Which metrics to compute: names, and names of groups."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from ..errors import InputError
from . import METRICS
from .base import Metric

DEFAULT = "default"
ALL = "all"
# The columns of most published tables, in their order.
STANDARD = ("pixcorr", "ssim", "alexnet2", "alexnet5", "inception", "clip_vit_l14", "effnet", "swav")
GROUPS: dict[str, tuple[str, ...]] = {"standard": STANDARD}


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
    names = (DEFAULT,) if asked is None else asked.split(",") if isinstance(asked, str) else asked
    found = dict.fromkeys(name for given in names for name in _members(given.strip()))
    if not found:
        raise InputError(f"no metric is named: give names such as {', '.join(STANDARD[:3])}, or a group")
    return tuple(METRICS[name] for name in found)


def _members(name: str) -> tuple[str, ...]:
    if name == ALL:
        return tuple(METRICS)
    if name == DEFAULT:
        return tuple(metric.name for metric in METRICS.values() if metric.default)
    if name in GROUPS:
        return GROUPS[name]
    if name in METRICS:
        return (name,)
    groups = (DEFAULT, *GROUPS, ALL)
    near = get_close_matches(name, (*METRICS, *groups), n=1)
    meant = f"did you mean {near[0]}? There are" if near else "choose among"
    raise InputError(f"metric {name!r} is unknown: {meant} {', '.join(METRICS)}; or a group: {', '.join(groups)}")
