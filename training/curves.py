"""The losses of every epoch of the networks' training: ``curves.json`` and a drawing, ``curves.svg``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import FileError
from ..runtime.features import TARGETS
from ..runtime.files import check_format, json_bytes, read_json

NAME, FIGURE = "curves.json", "curves.svg"
KIND, VERSION = "curves", 1
_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 260, 150, 60, 80, 80
_COLOURS = {"train": "#999999", "validation": "#31688e"}
_BEST = "#d62728"


@dataclass(frozen=True)
class Curve:
    """The training of one network.

    Attributes
    ----------
    features : which it gives.
    epoch : the one whose weights were kept, from 1.
    stopped : where the loss was no number any more, in words; None where training ended by itself.
    losses : "train" and "validation" to "loss", each feature's mean squared error and, where it has one,
        "<feature>.contrastive", to the mean over the trials of each epoch. Those of training are means over the epoch's
        steps, with dropout, while weights change; those of validation are of the weights after it.
    """

    features: list[str]
    epoch: int
    stopped: str | None
    losses: dict[str, dict[str, list[float]]]


def part_name(kind: str, features: Sequence[str]) -> str:
    """Under which a fit keeps something of the network of these features."""
    return "-".join([kind, *(str(TARGETS.index(feature)) for feature in features)])


def as_part(curve: Curve) -> dict[str, NDArray[Any]]:
    """A curve as arrays, for the journal of an unfinished fit."""
    return {"json": np.frombuffer(json.dumps(asdict(curve)).encode(), np.uint8)}


def from_part(part: Mapping[str, NDArray[Any]]) -> Curve:
    """What :func:`as_part` gave."""
    return Curve(**json.loads(part["json"].tobytes()))


def curves_bytes(curves: Sequence[Curve]) -> bytes:
    """What ``curves.json`` holds, as UTF-8."""
    networks = [asdict(curve) for curve in curves]
    return json_bytes({"format": f"minddiffuser-{KIND}", "version": VERSION, "networks": networks})


def read_curves(folder: Path) -> list[Curve]:
    """The curves of a checkpoint: empty where no decoder is a network.

    Raises
    ------
    FileError
        The file is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return []
    content = read_json(path, "the checkpoint's curves")
    check_format(content, path, KIND, VERSION)
    try:
        return [Curve(**network) for network in content["networks"]]
    except (KeyError, TypeError) as error:
        raise FileError(f"{path} lacks something or was edited ({error}): fit the checkpoint again") from error


def figure(curves: Sequence[Curve]) -> str:
    """Draw the losses as an SVG: one panel per network, both losses by epoch, a mark at the epoch that was kept."""
    width, height = _LEFT + len(curves) * (_WIDTH + _GAP), _TOP + _HEIGHT + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12" role="img">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="10" y="20" font-size="14">Loss by epoch</text>',
        f'<text x="10" y="38"><tspan fill="{_COLOURS["train"]}">training</tspan>, '
        f'<tspan fill="{_COLOURS["validation"]}">validation</tspan>, '
        f'<tspan fill="{_BEST}">the epoch that was kept</tspan></text>',
    ]
    for column, curve in enumerate(curves):
        parts += _panel(curve, _LEFT + column * (_WIDTH + _GAP))
    return "\n".join([*parts, "</svg>", ""])


def _panel(curve: Curve, left: float) -> list[str]:
    found = {part: losses["loss"] for part, losses in curve.losses.items() if losses}
    values = [value for losses in found.values() for value in losses]
    low, high = min([0.0, *values]), max([*values, 1e-9])
    n_epochs = max(map(len, found.values()), default=1)

    def place(epoch: float, value: float) -> tuple[float, float]:
        across = (epoch - 1) / max(1, n_epochs - 1)
        return left + _WIDTH * across, _TOP + _HEIGHT * (1 - (value - low) / (high - low))

    bottom, right = _TOP + _HEIGHT, left + _WIDTH
    title = ", ".join(curve.features) + (f" ({curve.stopped})" if curve.stopped else "")
    x_best = place(curve.epoch, low)[0]
    parts = [
        f'<text x="{left}" y="{_TOP - 14}" font-weight="bold">{escape(title)}</text>',
        f'<path d="M{left} {_TOP} V{bottom} H{right}" fill="none" stroke="#999"/>',
        f'<text x="{left - 6}" y="{_TOP + 8}" text-anchor="end">{_short(high)}</text>',
        f'<text x="{left - 6}" y="{bottom}" text-anchor="end">{_short(low)}</text>',
        f'<text x="{right}" y="{bottom + 18}" text-anchor="end">epoch {n_epochs}</text>',
        f'<line x1="{x_best:.1f}" y1="{_TOP}" x2="{x_best:.1f}" y2="{bottom}" stroke="{_BEST}" stroke-dasharray="4"/>',
    ]
    for part, losses in found.items():
        points = " ".join("{:.1f},{:.1f}".format(*place(epoch, value)) for epoch, value in enumerate(losses, 1))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{_COLOURS[part]}" stroke-width="2"/>')
    return parts


def _short(value: float) -> str:
    return "0" if value == 0 else f"{value:.3g}" if math.isfinite(value) else "–"
