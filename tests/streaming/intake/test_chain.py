"""The decoder's chain for a source: the training's own, refused where it cannot run, or nearly it where accepted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import signal

from minddiffuser.runtime.data.layout import Channel, ResponseLayout
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.signal.chain import open_chain
from minddiffuser.runtime.signal.filters import design_filter
from minddiffuser.streaming.intake.chain import live_chain
from minddiffuser.streaming.records import SignalInfo

TRAINED = tuple(Channel(name=name, type="eeg") for name in ("Cz", "Oz", "M1", "Pz"))


def layout(*, causal: bool = True, sfreq: float = 500.0) -> ResponseLayout:
    steps = [
        {"name": "pick", "channels": ["Oz", "Pz", "M1"]},
        {"name": "reference", "kind": "channels", "channels": ["M1"]},
        {"name": "pick", "channels": ["Oz", "Pz"]},
        *design_filter(sfreq, 1.0, 40.0, causal=causal),
        {"name": "epoch", "tmin": -0.1, "tmax": 0.4},
        {"name": "decimate", "factor": 4},
    ]
    return open_chain({"steps": steps}, TRAINED, sfreq).layout


def source(names: tuple[str, ...] = ("Pz", "aux", "M1", "Oz"), sfreq: float = 500.0) -> SignalInfo:
    channels = tuple(Channel(name=name, type="eeg") for name in names)
    return SignalInfo(name="amp", channels=channels, sfreq=sfreq, units=("uV",) * len(names))


def test_the_training_s_own_chain_runs_as_it_is() -> None:
    live = live_chain(layout(), source())
    assert [channel.name for channel in live.chain.plan.input.channels] == ["Oz", "Pz", "M1"]
    assert live.chain.signal == layout().signal
    assert live.notes == ()


def test_a_chain_that_looks_ahead_is_refused_unless_that_is_accepted() -> None:
    with pytest.raises(
        InputError, match=r"the step 'filter' of the training's signal chain looks ahead .*accept-filter"
    ):
        live_chain(layout(causal=False), source())
    live = live_chain(layout(causal=False), source(), accept_filter_mismatch=True)
    assert live.chain.causal
    assert live.notes == ("the step 'filter' runs forward in time only; in training it looked ahead",)
    step = next(step for step in live.chain.signal["steps"] if step["name"] == "filter")
    middle = np.sqrt(1.0 * 40.0)
    delays = [
        signal.group_delay((np.array(row[:3]), np.array(row[3:])), [middle], fs=500.0)[1][0] for row in step["sos"]
    ]
    assert live.chain.delay == pytest.approx(sum(delays) / 500.0, abs=1e-6)


@pytest.mark.parametrize("sfreq", [250.0, 1000.0, 512.0])
def test_another_rate_is_refused_unless_that_is_accepted(sfreq: float) -> None:
    with pytest.raises(InputError, match=f"has {sfreq:g} samples a second, and the training data had 500"):
        live_chain(layout(), source(sfreq=sfreq))
    live = live_chain(layout(), source(sfreq=sfreq), accept_filter_mismatch=True)
    assert live.chain.plan.input.sfreq == sfreq
    assert live.chain.output.sfreq == 125.0
    assert live.chain.output.n_times == layout().shape[1]
    assert live.notes == (f"the signal is resampled from {sfreq:g} Hz to the training's 500 Hz",)


def test_a_wave_comes_out_alike_at_another_rate() -> None:
    """10 Hz, recorded at 500 and at 1000 Hz: the same epochs but for the resampling filter's ripple."""
    found = []
    for sfreq in (500.0, 1000.0):
        live = live_chain(layout(), source(sfreq=sfreq), accept_filter_mismatch=True)
        times = np.arange(round(8 * sfreq)) / sfreq
        wave = np.stack([np.sin(2 * np.pi * 10 * times), np.cos(2 * np.pi * 10 * times), 0 * times])
        stream = live.chain.stream(dtype=np.float64)
        stream.mark(round(6 * sfreq), 0)
        stream.push(wave)
        found.append(stream.pop()[0].data)
    np.testing.assert_allclose(found[1], found[0], atol=2e-3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"signal": None}, "does not say by which signal chain its training data were made"),
        (
            {"signal": {"steps": [{"name": "reference", "kind": "average"}, *layout().signal["steps"]]}},  # type: ignore
            "references to the mean of all channels of the recording before it picks",
        ),
        ({"tmin": 0.4}, "the responses differ from those that the decoder was fitted on: tmin is"),
    ],
)
def test_a_chain_that_cannot_be_repeated_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        live_chain(replace(layout(), **changed), source())
