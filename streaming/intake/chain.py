"""The decoder's signal chain, opened for a live source: the training's own, or close to it where that is accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...runtime.data.chain_files import FOLDER
from ...runtime.data.layout import Channel, ResponseLayout
from ...runtime.errors import InputError, shown
from ...runtime.signal.chain import Chain, open_chain
from ...runtime.signal.filters import forward_only
from ..records import SignalInfo

_SAME_RATE = 1e-6
_ACCEPT = "accept other filters than the training's with --accept-filter-mismatch"


@dataclass(frozen=True, kw_only=True, eq=False)
class LiveChain:
    """A chain that runs live, and in `notes` a sentence for each way in which it is not the training's."""

    chain: Chain
    notes: tuple[str, ...]


def live_chain(
    layout: ResponseLayout, info: SignalInfo, *, folder: Path | None = None, accept_filter_mismatch: bool = False
) -> LiveChain:
    """Open a decoder's chain for a source.

    Parameters
    ----------
    layout
        Of the responses that the decoder was fitted on, with the chain that made them.
    info
        The source.
    folder
        The bundle or checkpoint, which holds the files that the chain names.
    accept_filter_mismatch
        Run zero-phase filters forward in time only, and bring another rate to the training's.

    Raises
    ------
    InputError
        The chain is not known, or cannot run on this source; the message says what is different.
    """
    if layout.signal is None or layout.channels is None:
        raise InputError(
            "the decoder does not say by which signal chain its training data were made: fit "
            "it on data of md-train prepare recording, which keep the chain"
        )
    steps: list[dict[str, Any]] = [dict(step) for step in layout.signal["steps"]]
    notes = []
    for index, step in enumerate(steps):
        if step.get("causal") is False:
            if not accept_filter_mismatch:
                raise InputError(
                    f"the step {step['name']!r} of the training's signal chain looks ahead (causal is false), which no "
                    f"live signal can: prepare the training data with --causal and fit again, or {_ACCEPT}"
                )
            steps[index] = forward_only(step) if step["name"] == "filter" else {**step, "causal": True}
            notes.append(f"the step {step['name']!r} runs forward in time only; in training it looked ahead")
    trained = _input_rate(steps, layout)
    if trained is not None and abs(info.sfreq / trained - 1) > _SAME_RATE:
        if not accept_filter_mismatch:
            raise InputError(
                f"the source {shown(info.name)} has {info.sfreq:g} samples a second, and the training data had "
                f"{trained:g}: set the amplifier to {trained:g} Hz, or {_ACCEPT}"
            )
        place = 1 if steps[0]["name"] == "pick" else 0
        steps.insert(place, {"name": "resample", "sfreq": trained, "causal": True})
        notes.append(f"the signal is resampled from {info.sfreq:g} Hz to the training's {trained:g} Hz")
    channels = _input_channels(steps, layout.channels, info)
    chain = open_chain({"steps": steps}, channels, info.sfreq, None if folder is None else folder / FOLDER)
    layout.require_same(replace(chain.layout, signal=None), "the decoder")
    return LiveChain(chain=chain, notes=tuple(notes))


def _input_rate(steps: Sequence[Mapping[str, Any]], layout: ResponseLayout) -> float | None:
    """The rate of the recordings that training data were made from; None where every rate is brought to one."""
    factor = 1
    for step in steps:
        if step["name"] == "filter" and step.get("sfreq") is not None:
            return float(step["sfreq"]) * factor
        if step["name"] == "resample":
            return None
        if step["name"] == "decimate":
            factor *= int(step["factor"])
    return None if layout.sfreq is None else layout.sfreq * factor


def _input_channels(
    steps: Sequence[Mapping[str, Any]], output: Sequence[Channel], info: SignalInfo
) -> tuple[Channel, ...]:
    """The channels that the chain starts with: those that it picks, or the decoder's own."""
    place = next((index for index, step in enumerate(steps) if step["name"] == "pick"), None)
    names = [channel.name for channel in output] if place is None else list(steps[place]["channels"])
    for step in steps[:place]:
        if step["name"] == "reference" and step.get("kind") == "average" and place is not None:
            raise InputError(
                "the training's signal chain references to the mean of all channels of the recording before it picks "
                "some, and does not say which those were: prepare the data again with the channels picked first"
            )
        names += [name for name in step.get("channels", []) if name not in names]
    known = {channel.name: channel for channel in (*info.channels, *output)}
    return tuple(known.get(name, Channel(name=name, type="eeg")) for name in names)
