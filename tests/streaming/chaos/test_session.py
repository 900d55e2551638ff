"""A whole session under faults of its own parts: nothing is mixed up, lost, waited for or left unsaid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ramp_source import SFREQ, ramp_info, ramp_items

from minddiffuser.runtime.errors import MindDiffuserError
from minddiffuser.runtime.signal.chain import open_chain
from minddiffuser.streaming.chaos.faults import SESSION_FAULTS, SOURCE_FAULTS
from minddiffuser.streaming.chaos.plan import Fault, Plan, Timing, drawn, plan
from minddiffuser.streaming.chaos.report import SessionReport
from minddiffuser.streaming.chaos.run import suffer
from minddiffuser.streaming.chaos.session import Given, endure
from minddiffuser.streaming.chaos.silent_page import SilentPage
from minddiffuser.streaming.dashboard.hub import Hub
from minddiffuser.streaming.dashboard.server import DashboardServer
from minddiffuser.streaming.decoding.decode import EpochDecoder
from minddiffuser.streaming.intake.settings import IntakeSettings
from minddiffuser.streaming.recording.writer import Writer
from minddiffuser.streaming.records import Marker, Samples
from minddiffuser.streaming.session.live import LiveSession
from minddiffuser.streaming.sources.replay import Step

EPOCH = {"name": "epoch", "tmin": -0.2, "tmax": 0.6}


def given(seconds: float = 40.0) -> Given:
    steps = [
        Step(now=item.arrived if isinstance(item, Samples | Marker) else item.at, items=[item])
        for item in ramp_items(seconds)
    ]
    chain = open_chain({"steps": [EPOCH]}, ramp_info(4).channels, SFREQ)
    return Given(steps=steps, info=ramp_info(), chain=chain, settings=IntakeSettings(), files=Path())


def run(faults: Plan, seconds: float = 40.0, **settings: Any) -> SessionReport:
    about = given(seconds)
    suffered = suffer(about.steps, about.info, about.chain, about.settings, faults.source)
    assert not suffered.report.wrong
    assert not suffered.report.unbalanced
    return endure(about, faults, suffered, **settings)


def one(kind: str, seed: int = 0) -> Fault:
    shortest, longest = SESSION_FAULTS[kind].lasts
    lasts = shortest if np.isinf(longest) else float(np.random.default_rng(seed).uniform(shortest, longest))
    return Fault(kind=kind, start=14.0, stop=14.0 + lasts, seed=(seed,))


@pytest.mark.parametrize("kind", SESSION_FAULTS)
def test_a_fault_costs_what_it_hits_and_is_said(kind: str) -> None:
    report = run(Plan(session=(one(kind),)))
    assert report.broken == []
    assert [fault.kind for fault in report.faults] == [kind]
    assert sum(report.states.values()) == 18
    costs = kind in ("raising-decoder", "nan-decoder")
    assert (report.failed > 1) == costs
    assert report.states["decoded"] + report.failed == 18
    assert report.recording == ("stopped" if kind == "full-disk" else "whole")
    assert any("the disk is full" in line for line in report.said) == (kind == "full-disk")


@pytest.mark.parametrize("seed", range(2))
def test_faults_of_source_and_session_at_once(seed: int) -> None:
    faults = plan(seed, 70.0, timing=Timing(first=5.0, calm=(0.5, 2.0)))
    report = run(faults, 80.0)
    assert report.broken == []
    assert {fault.kind for fault in report.faults} == set(SESSION_FAULTS)


def test_a_plan_is_the_same_again_and_its_sources_faults_are_those_of_a_live_source() -> None:
    first, again, other = plan(5, 300.0), plan(5, 300.0), plan(6, 300.0)
    assert first == again != other
    alone = drawn(5, tuple(SOURCE_FAULTS))
    assert [next(alone) for _ in first.source] == list(first.source)
    assert {fault.kind for fault in first.session} == set(SESSION_FAULTS)
    assert [fault.start for fault in first.faults] == sorted(fault.start for fault in first.faults)
    assert sum(fault.kind == "full-disk" for fault in first.session) == 1
    assert plan(5, 300.0, ["pause"]).session == ()
    assert plan(5, 300.0, ["nan-decoder"]).source == ()


def _swapped(patch: pytest.MonkeyPatch) -> None:
    """A decoder that gives one epoch's result for another's marker."""
    decode, kept = EpochDecoder.decode, []

    def wrong(self: Any, ordinal: int, text: str, epoch: np.ndarray) -> Any:
        kept.append(epoch)
        return decode(self, ordinal, text, kept[ordinal - 3] if ordinal == 9 else epoch)

    patch.setattr(EpochDecoder, "decode", wrong)


def _lossy(patch: pytest.MonkeyPatch) -> None:
    """A recording from which one block of samples is missing."""
    add, seen = Writer._add_samples, []

    def without(self: Any, item: Samples) -> None:
        seen.append(item)
        add(self, item if len(seen) != 100 else Samples(stamps=item.stamps, data=item.data + 1, arrived=item.arrived))

    patch.setattr(Writer, "_add_samples", without)


def _waiting(patch: pytest.MonkeyPatch) -> None:
    """A session that decodes where it receives."""
    from minddiffuser.streaming.chaos import parts
    from minddiffuser.streaming.decoding.worker import DecodeWorker

    patch.setattr(DecodeWorker, "put", lambda self, *epoch: self._one(*epoch))
    patch.setattr(parts.Held, "__init__", lambda self: _held(self))


def _held(self: Any) -> None:
    import threading

    self._go, self._patience, self.gave_up = threading.Event(), 0.2, False


def _crashing(patch: pytest.MonkeyPatch) -> None:
    def crash(self: Any, was: Any) -> None:
        raise ZeroDivisionError("a fault of the program")

    patch.setattr(LiveSession, "_was_decoded", crash)


def _unsaid(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LiveSession, "_notice", lambda *_given, **_named: None)


@pytest.mark.parametrize(
    ("tamper", "kind", "found"),
    [
        (_swapped, "silent-page", "what was decoded for marker 9 is not its epoch"),
        (_lossy, "silent-page", "the recording is not what came"),
        (_waiting, "slow-decoder", "the session waited for what did not answer"),
        (_crashing, "silent-page", "the session crashed (ZeroDivisionError: a fault of the program)"),
        (_unsaid, "full-disk", "it was not said so"),
    ],
)
def test_a_session_that_does_not_hold_is_found_out(
    tamper: Any, kind: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tamper(monkeypatch)
    report = run(Plan(session=(one(kind),)))
    assert any(found in text for text in report.broken), report.broken


def test_a_session_that_hangs_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    go = threading.Event()
    closed = LiveSession._closed
    monkeypatch.setattr(LiveSession, "_closed", lambda self: (go.wait(60), closed(self))[1])
    report = run(Plan(), 10.0, patience=-8.0)
    assert report.broken == ["the session hangs"]
    go.set()


def test_a_silent_page_is_one_of_the_hubs_and_goes() -> None:
    hub = Hub()
    said: list[str] = []
    with DashboardServer(hub, said=said.append, patience=0.2) as server:
        address = server.address()
        with SilentPage(address):
            _until(lambda: hub.n_clients == 1)
            _until(lambda: _published(hub) and hub.n_clients == 0)  # more than any buffer holds
        assert said == ["a page of the dashboard has not read for 0.2 s and is dropped: reload it to see more"]
        with pytest.raises(MindDiffuserError, match="the page was not opened"):
            SilentPage(address)  # an address lets one in


def test_a_page_that_goes_in_the_middle_of_a_message_leaves_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    with DashboardServer(hub, patience=60.0) as server:
        page = SilentPage(server.address())
        _until(lambda: hub.n_clients == 1)
        for number in range(300):  # more than any buffer holds: the next ones wait in the middle of sending
            _published(hub, number)
        assert hub.n_clients == 1
        page.close()
        _until(lambda: hub.n_clients == 0)
    assert caplog.records == []


def _published(hub: Hub, ordinal: int = 0) -> bool:
    from minddiffuser.streaming.dashboard.messages import Picture

    picture = np.random.default_rng(0).bytes(200_000)
    hub.publish(Picture(ordinal=ordinal, text="", stage=1, frame=1, n_frames=1, png=picture))
    return True


def _until(true: Any) -> None:
    import time

    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_report_is_json(tmp_path: Path) -> None:
    report = run(Plan(session=(one("nan-decoder"),)), 30.0)
    content = json.loads(json.dumps(report.as_json()))
    assert content["faults"] == [str(fault) for fault in report.faults]
    assert content["broken"] == []
