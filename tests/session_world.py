"""Sessions over made-up signals, with an acquisition that a thread steps; see tests/streaming/session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minddiffuser.runtime.backends.base import Backend
from minddiffuser.runtime.data.layout import Channel
from minddiffuser.streaming.clock import now
from minddiffuser.streaming.dashboard.messages import Session
from minddiffuser.streaming.decoding.decode import DecodeSettings
from minddiffuser.streaming.intake.settings import IntakeSettings
from minddiffuser.streaming.records import ClockOffset, Item, Marker, Samples, SignalInfo
from minddiffuser.streaming.session.acquisition import Acquisition, AcquisitionSettings
from minddiffuser.streaming.session.live import LiveSession
from minddiffuser.streaming.session.outputs import Outputs
from minddiffuser.streaming.session.settings import LiveSettings
from minddiffuser.streaming.session.stepped import SteppedFeed
from minddiffuser.streaming.sources.base import Wanted
from minddiffuser.streaming.sources.replay import Replay, Step

SFREQ, SIZE = 200.0, 1e-5
CHANNELS = ("Cz", "O1", "Oz", "O2")
EVENTS = ("stim/cat", "stim/dog", "stim/fish", "block/1")


def info(sfreq: float = SFREQ) -> SignalInfo:
    channels = tuple(Channel(name=name, type="eeg") for name in CHANNELS)
    return SignalInfo(name="amplifier", channels=channels, sfreq=sfreq, units=("V",) * len(CHANNELS))


def steps_of(
    seconds: float, events: Sequence[tuple[float, str]], *, seed: int = 0, gap: tuple[float, float] | None = None
) -> list[Step]:
    """A signal of noise in steps of 20 ms with markers at their times; between the times of a gap nothing comes."""
    rng = np.random.default_rng(seed)
    n = round(seconds * SFREQ)
    data, stamps = SIZE * rng.standard_normal((len(CHANNELS), n)), np.arange(n) / SFREQ
    offsets: list[Item] = [
        ClockOffset(stream=stream, at=100.0, offset=100.0, uncertainty=1e-4) for stream in ("signal", "markers")
    ]
    steps, ordinal = [Step(now=100.0, items=offsets)], 0
    for first in range(0, n, 4):
        at, items = 100.0 + (first + 4) / SFREQ, list[Item]()
        if gap is None or not gap[0] <= stamps[first] < gap[1]:
            items.append(Samples(stamps=stamps[first : first + 4], data=data[:, first : first + 4], arrived=at))
        for when, text in events:
            if stamps[first] <= when < stamps[first] + 4 / SFREQ:
                items.append(Marker(ordinal=ordinal, stamp=when, arrived=at, raw=text.encode()))
                ordinal += 1
        steps.append(Step(now=at, items=items))
    return steps


class World:
    """A bundle, and sessions of it over made-up signals."""

    def __init__(self, backend: Backend[Any]) -> None:
        self.backend = backend
        self.said: list[str] = []
        self.out: list[str] = []

    def settings(self, **changes: Any) -> AcquisitionSettings:
        decoder = self.backend.decoder
        assert decoder.training.layout is not None
        found = {
            "source": "replay:made-up",
            "wanted": Wanted(modality="eeg"),
            "layout": decoder.training.layout,
            "training": decoder.training,
            "folder": decoder.folder,
            "intake": IntakeSettings(events=("stim/*",), gap=0.02),
        }
        return AcquisitionSettings(**{**found, **changes})

    def acquisition(self, steps: Sequence[Step], sfreq: float = SFREQ, **changes: Any) -> Acquisition:
        return Acquisition(Replay(info(sfreq), steps, speed=None), self.settings(**changes), now)

    def session(
        self,
        steps: Sequence[Step],
        live: LiveSettings | None = None,
        *,
        before: Callable[[int], None] = lambda _step: None,
        folder: Any = None,
        hub: Any = None,
        outlet: Any = None,
        more: Sequence[Any] = (),
        **changes: Any,
    ) -> LiveSession:
        return LiveSession(
            [self.backend, *more],
            SteppedFeed(self.acquisition(steps, **changes), before),
            live or LiveSettings(decode=DecodeSettings(session="s"), pictures=False),
            Session(bundle="bundle", source="replay:made-up", modality="eeg"),
            Outputs(folder=folder, hub=hub, outlet=outlet, out=self.out.append, say=self.said.append),
            now=now,
        )


def folder_of(path: Path) -> Any:
    from minddiffuser.streaming.recording.folder import SessionFolder

    return SessionFolder.create(path, {}, id="s")
