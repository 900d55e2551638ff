"""Acquisition, step by step: poll the source, record what came, make epochs of it. It runs in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import Channel, ResponseLayout
from ...runtime.decoders.scale import TrainingStatistics
from ...runtime.errors import InputError
from ..intake.chain import live_chain
from ..intake.events import Event, IntakeState, Refused, Said
from ..intake.intake import Intake
from ..intake.settings import IntakeSettings
from ..ledger import MOST_TEXT
from ..recording.disk import Put, put
from ..recording.recorder import Recorder, RecordingState
from ..records import Item, Marker, Notice, Samples, SignalInfo
from ..sources.base import Hurried, Paced, Source, Wanted

# Seconds between two reports of how things stand, and of signal in one preview.
REPORT_S, PREVIEW_S = 0.2, 0.1


@dataclass(frozen=True, kw_only=True)
class AcquisitionSettings:
    """What the process is given.

    Attributes
    ----------
    source
        As ``--source`` gives it.
    wanted
        See :class:`~..sources.base.Wanted`.
    layout, training, folder
        Of the decoder: what its responses are, their statistics (None where they are not known), and its folder, which
        holds the chain's files.
    intake
        See :class:`~..intake.settings.IntakeSettings`.
    accept_filter_mismatch
        Whether filters may be others than the training's.
    record
        The session's folder, or None.
    preview
        Whether the signal is to be shown.
    """

    source: str
    wanted: Wanted
    layout: ResponseLayout
    training: TrainingStatistics | None
    folder: Path
    intake: IntakeSettings = field(default_factory=IntakeSettings)
    accept_filter_mismatch: bool = False
    record: Path | None = None
    preview: bool = False


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The source is there: what it says of itself, the channels and rate of previews, and how the chain runs on it."""

    info: SignalInfo
    channels: tuple[Channel, ...]
    sfreq: float
    notes: tuple[str, ...]
    warm_up: float
    delay: float
    latency: float


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """A marker came; its text is as short as the books keep it."""

    ordinal: int
    text: str
    at: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Happened:
    """What the intake gave, in its order."""

    events: tuple[Event, ...]


@dataclass(frozen=True, kw_only=True)
class Stands:
    """How signal and recording stand at a moment, and how many previews were left out as nobody took them."""

    at: float
    intake: IntakeState
    recording: RecordingState | None
    n_markers: int
    previews_dropped: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Previewed:
    """Samples for display: local times (n,) and the chain's input (n_channels, n) float32 in V or T.

    Of a source with a time of its own they go on at its pace, from the local time when it was opened.
    """

    times: NDArray[np.float64]
    data: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """Nothing more comes. `fault` is "" where the source ended or was ended, `users` whether the user can fix it."""

    n_markers: int
    at: float
    fault: str = ""
    users: bool = True


FromAcquisition = Opened | Arrived | Happened | Stands | Previewed | Stopped


class Acquisition:
    """One session's way from a source to messages; each call takes the time from `now`, and only `poll` waits.

    A source with a time of its own is recorded, and cut into epochs, by that. What is said of it is on the local clock,
    moved by the difference at that moment, so that decoding and drawing can be timed beside it.

    Parameters
    ----------
    source
        Not opened yet.
    settings
    now
        The local clock.
    write
        What hands the recording's bytes to the system.
    """

    def __init__(
        self, source: Source, settings: AcquisitionSettings, now: Callable[[], float], *, write: Put = put
    ) -> None:
        self._source, self._settings, self._clock, self._write = source, settings, now, write
        # Asked once: these questions cost more than the answers.
        self._paced = source if isinstance(source, Paced) else None
        self._hurried = source if isinstance(source, Hurried) else None
        self._intake: Intake | None = None
        self._recorder: Recorder | None = None
        self._reported, self._n_markers = -np.inf, 0
        self._held: list[Samples] = []
        self._shift = self._sfreq = 0.0
        self.ended = False
        self.previews_dropped = 0

    def open(self) -> Opened:
        """Find the source, open the chain for it, begin to record.

        Raises
        ------
        MindDiffuserError
            It is not there, does not fit the decoder, or the file cannot be made.
        """
        settings = self._settings
        info = self._source.open()
        self._shift, self._sfreq = self._behind(self._now()), info.sfreq
        live = live_chain(
            settings.layout,
            info,
            folder=settings.folder,
            accept_filter_mismatch=settings.accept_filter_mismatch,
        )
        self._intake = Intake(live.chain, settings.intake, training=settings.training)
        self._intake.start(info)
        if settings.record is not None:
            self._recorder = Recorder(settings.record, info, write=self._write)
        plan = live.chain.plan.input
        return Opened(
            info=info,
            channels=plan.channels,
            sfreq=plan.sfreq,
            notes=live.notes,
            warm_up=live.chain.warm_up,
            delay=live.chain.delay,
            latency=live.chain.latency,
        )

    def step(self, timeout: float) -> list[FromAcquisition]:
        """Wait for data at most `timeout` seconds, and say what came of them."""
        if self._hurried is not None:
            self._hurried.expect(self._opened.due())
        items = self._source.poll(timeout)
        now = self._now()
        if self._recorder is not None:
            self._recorder.write(items, now)
        found = self._arrived(items, now)
        found += self._given(self._opened.step(items, now), now)
        self.ended = any(isinstance(item, Notice) and item.kind == "ended" for item in items)
        if self._settings.preview:
            found += self._preview(items)
        if now - self._reported >= REPORT_S or self.ended:
            self._reported = now
            found.append(self._stands(now))
        return found

    def close(self, fault: str = "", *, users: bool = True) -> list[FromAcquisition]:
        """Refuse what waits, finish the file, let go of the source. Each is done, and said, whatever fails of it."""
        found: list[FromAcquisition] = []
        now = self._now()

        def refuse() -> None:
            if self._intake is not None:
                found.extend(self._given(self._intake.finish(now), now))

        def finish() -> None:
            if self._recorder is not None:
                self._recorder.close(now)

        def say() -> None:
            if self._intake is not None:
                found.append(self._stands(self._now()))

        for end in (refuse, finish, say, self._source.close):
            try:
                end()
            except Exception as error:
                users = users and bool(fault)
                fault = fault or f"acquisition could not end ({type(error).__name__}: {error})"
        return [*found, Stopped(n_markers=self._n_markers, at=self._clock(), fault=fault, users=users)]

    @property
    def recording(self) -> RecordingState | None:
        """Where the recording stands, if there is one."""
        return None if self._recorder is None else self._recorder.state()

    def _now(self) -> float:
        """The source's own time, or the local clock's."""
        return self._clock() if self._paced is None else self._paced.now

    def _behind(self, now: float) -> float:
        """By how much the local clock is ahead of the source's own time."""
        return 0.0 if self._paced is None else self._clock() - now

    @property
    def _opened(self) -> Intake:
        if self._intake is None:
            raise InputError("the acquisition was not opened: call open() first")
        return self._intake

    def _arrived(self, items: Sequence[Item], now: float) -> list[FromAcquisition]:
        markers = [item for item in items if isinstance(item, Marker)]
        self._n_markers += len(markers)
        behind = self._behind(now)
        # Of a giant marker only the beginning is ever looked at here; the recording has all of it.
        return [
            Arrived(
                ordinal=marker.ordinal,
                text=marker.raw[: 4 * MOST_TEXT + 4].decode("utf-8", "replace")[: MOST_TEXT + 1],
                at=marker.arrived + behind,
            )
            for marker in markers
        ]

    def _given(self, events: Sequence[Event], now: float) -> list[FromAcquisition]:
        behind = self._behind(now)
        moved = tuple(_moved(event, behind) for event in events) if behind else tuple(events)
        return [Happened(events=moved)] if moved else []

    def _stands(self, now: float) -> Stands:
        return Stands(
            at=now + self._behind(now),
            intake=self._opened.state(now),
            recording=self.recording,
            n_markers=self._n_markers,
            previews_dropped=self.previews_dropped,
        )

    def _preview(self, items: Sequence[Item]) -> list[FromAcquisition]:
        """The samples of a tenth of a second together, unless the source is not as it should be."""
        for item in items:
            if isinstance(item, Notice) and item.kind == "changed":
                self._held.clear()
            elif isinstance(item, Samples) and len(item.stamps):
                if self._held and len(item.data) != len(self._held[-1].data):
                    self._held.clear()
                self._held.append(item)
        if sum(len(one.stamps) for one in self._held) < PREVIEW_S * self._sfreq:
            return []
        held, self._held = self._held, []
        state = self._opened.state(held[-1].arrived)
        if state.problem is not None:
            return []
        stamps = np.concatenate([one.stamps for one in held]) + ((state.offset or 0.0) + self._shift)
        data = self._opened.converted(np.concatenate([one.data for one in held], axis=1))
        return [Previewed(times=stamps, data=data.astype(np.float32))]


def _moved(event: Event, seconds: float) -> Event:
    """An event so much later."""
    if isinstance(event, Said):
        return event
    if isinstance(event, Refused):
        return replace(event, at=event.at + seconds)
    times = event.times
    moments = {name: getattr(times, name) + seconds for name in ("marker", "marker_arrived", "epoch_end", "ready")}
    return replace(event, times=replace(times, **moments))
