"""What a session shows of itself: the stream's state is that of the signal."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from session_world import info

from minddiffuser.streaming.dashboard import messages
from minddiffuser.streaming.dashboard.hub import Hub
from minddiffuser.streaming.intake.events import IntakeState
from minddiffuser.streaming.session.acquisition import Opened, Stands
from minddiffuser.streaming.session.page import Page

RUNS = IntakeState(
    segment=0, sfreq=200.0, nominal=200.0, sample_age=0.01, offset=0.0, uncertainty=1e-4, n_samples=1000, n_used=1000,
    n_duplicate=0, n_nan=0, n_unusable=0, n_gaps=0, warm_up_left=0.0, n_waiting=0, problem=None,
)  # fmt: skip


def test_dropped_are_all_samples_that_no_epoch_could_hold() -> None:
    """Those that a full queue has lost as much as those that came and cannot be used."""
    hub = Hub()
    client = hub.join(lambda: None)
    assert client is not None
    page = Page(hub, messages.Session(bundle="b", source="s", modality="eeg"), 0.0)
    channels = info().channels
    page.opened(Opened(info=info(), channels=channels, sfreq=200.0, notes=(), warm_up=1.0, delay=0.0, latency=0.0))
    intake = replace(RUNS, n_nan=2, n_unusable=30, n_lost=400, n_duplicate=5000)
    page.stands(Stands(at=2.0, intake=intake, recording=None, n_markers=0), "")
    (stream,) = [one for one in map(json.loads, client.take()) if one["kind"] == "stream"]
    assert (stream["dropped"], stream["duplicates"]) == (432, 5000)


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ([], "running"),
        ([("lost", "markers")], "running"),
        ([("lost", "signal")], "lost"),
        ([("lost", "signal"), ("lost", "markers"), ("recovered", "markers")], "lost"),
        ([("lost", "signal"), ("recovered", "")], "lost"),  # acquisition, which had said nothing, goes on
        ([("lost", "signal"), ("recovered", "signal"), ("silent", "markers")], "running"),
    ],
)
def test_the_state_of_the_stream_is_that_of_the_signal(said: list[tuple[str, str]], state: str) -> None:
    """An amplifier whose markers are back before its signal is not live."""
    hub = Hub()
    client = hub.join(lambda: None)
    assert client is not None
    page = Page(hub, messages.Session(bundle="b", source="s", modality="eeg"), 0.0)
    channels = info().channels
    page.opened(Opened(info=info(), channels=channels, sfreq=200.0, notes=(), warm_up=1.0, delay=0.0, latency=0.0))
    for kind, stream in said:
        page.notice(kind, f"{stream}: {kind}", 1.0, stream)
    page.stands(Stands(at=2.0, intake=RUNS, recording=None, n_markers=0), "")
    shown = [json.loads(text) for text in client.take()]
    assert [one["state"] for one in shown if one["kind"] == "stream"] == [state]
    assert sum(one["kind"] == "notice" for one in shown) == len(said)
