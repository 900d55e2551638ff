"""Under every fault: no wrong epoch, no marker or sample unaccounted for, and epochs again when the fault is over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ramp_source import CHANNEL, SFREQ, ramp_info, ramp_items

from minddiffuser.runtime.signal.chain import Chain, open_chain
from minddiffuser.runtime.signal.filters import design_filter
from minddiffuser.streaming.chaos.faults import SOURCE_FAULTS
from minddiffuser.streaming.chaos.plan import Fault, Timing, drawn
from minddiffuser.streaming.chaos.report import Report, lines
from minddiffuser.streaming.chaos.run import suffer
from minddiffuser.streaming.intake.settings import IntakeSettings
from minddiffuser.streaming.records import ClockOffset, Item, Marker, Notice, Samples
from minddiffuser.streaming.sources.replay import Step

EPOCH = {"name": "epoch", "tmin": -0.2, "tmax": 0.6}
# Nothing is lost by these, and nothing is uncertain: every marker that is accepted without them is accepted.
HARMLESS = {
    "twice",
    "resent",
    "jitter",
    "bursts",
    "late",
    "shuffled",
    "doubled",
    "flood",
    "empty",
    "giant",
    "garbled",
    "drift",
}


def seeds(n: int) -> list[Any]:
    """The first of them in every run; the others are more of the same."""
    return [pytest.param(seed, marks=pytest.mark.slow if seed else ()) for seed in range(n)]


def steps_of(items: Sequence[Item]) -> list[Step]:
    return [Step(now=at(item), items=[item]) for item in items]


def at(item: Item) -> float:
    return item.arrived if isinstance(item, Samples | Marker) else item.at


def chain_of(n_channels: int = 4, *before: dict[str, Any]) -> Chain:
    return open_chain({"steps": [*before, EPOCH]}, ramp_info(n_channels).channels, SFREQ)


def ramp_report(faults: Sequence[Fault], seconds: float = 60.0, chunks: Sequence[int] = (25,)) -> Report:
    steps = steps_of(list(ramp_items(seconds, chunks)))
    return suffer(steps, ramp_info(), chain_of(), IntakeSettings(), faults).report


def one(kind: str, seed: int, start: float = 14.0) -> Fault:
    lasts = SOURCE_FAULTS[kind].lasts
    stop = math.inf if math.isinf(lasts[1]) else start + np.random.default_rng(seed).uniform(*lasts)
    return Fault(kind=kind, start=start, stop=stop, seed=(seed,))


@pytest.mark.parametrize("seed", seeds(3))
@pytest.mark.parametrize("kind", SOURCE_FAULTS)
def test_a_fault_makes_no_wrong_epoch_and_loses_nothing(kind: str, seed: int) -> None:
    report = ramp_report([one(kind, seed)])
    assert (report.wrong, report.unbalanced, report.missed) == ([], [], [])
    assert report.held
    assert report.n_shifted == 0
    assert report.n_undisturbed > 20
    refused = sum(count for state, count in report.states.items() if state != "accepted")
    if kind in HARMLESS:
        assert report.states["accepted"] >= report.n_undisturbed
    elif refused:
        assert report.said or kind in {"foreign", "unmeasured", "misdated"}
    # One clear line, not a thousand.
    assert len(report.said) < 30


@pytest.mark.parametrize("seed", seeds(4))
def test_all_kinds_in_a_row(seed: int) -> None:
    report = ramp_report(list(_until(260.0, drawn(seed, timing=Timing(first=8.0, calm=(2.0, 12.0))))), 280.0)
    assert (report.wrong, report.unbalanced, report.missed) == ([], [], [])
    assert len({fault.kind for fault in report.faults}) > 15
    assert report.states["accepted"] > 20


def _until(seconds: float, faults: Any) -> Any:
    for fault in faults:
        if fault.start >= seconds:
            return
        yield fault


IN_EVERY_RUN = ["reordered", "nan", "outage"]
MORE = [pytest.param(kind, marks=pytest.mark.long) for kind in ("pause", "twice", "restart", "offset", "other-order")]


@pytest.mark.parametrize("kind", [*IN_EVERY_RUN, *MORE])
def test_filters_do_not_carry_a_fault_on(kind: str) -> None:
    """A signal with everything in it, filtered and decimated: to the bit what the undisturbed samples give."""
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((4, 250 * 90)) * 1e-5
    items: list[Item] = []
    for item in ramp_items(90.0, (10,)):
        if isinstance(item, Samples):
            numbers = item.data[0].astype(int)
            item = Samples(stamps=item.stamps, data=noise[:, numbers], arrived=item.arrived)
        items.append(item)
    before = [*design_filter(SFREQ, 1.0, 40.0, causal=True), {"name": "reference", "kind": "average"}]
    chain = open_chain(
        {"steps": [*before, EPOCH, {"name": "baseline", "tmin": None, "tmax": 0.0}, {"name": "decimate", "factor": 2}]},
        ramp_info().channels,
        SFREQ,
    )
    report = suffer(steps_of(items), ramp_info(), chain, IntakeSettings(), [one(kind, 5, start=30.0)]).report
    assert (report.wrong, report.unbalanced, report.missed) == ([], [], [])
    assert report.states["accepted"] > 15


def test_without_faults_nothing_is_refused_but_the_start_and_the_end() -> None:
    report = ramp_report([])
    assert report.held
    assert report.n_exact == report.states["accepted"] == report.n_undisturbed == 28
    assert report.states.get("refused", 0) <= 1


class _Tampered:
    """An intake that gives epochs of other samples, or loses markers: what the check is for."""

    def __init__(self, how: str) -> None:
        from minddiffuser.streaming.chaos import run

        self.real, self.how = run.Intake, how

    def __call__(self, *given: Any, **named: Any) -> Any:
        intake, how = self.real(*given, **named), self.how
        step = intake.step

        def tampered(items: Sequence[Item], now: float) -> Any:
            events = step(items, now)
            for place, event in enumerate(events):
                if getattr(event, "ordinal", None) != 7 or not hasattr(event, "data"):
                    continue
                if how == "shifted":
                    event.data[:] += 3.0  # a ramp three samples later
                elif how == "rows":
                    event.data[:] = event.data[::-1].copy()
                elif how == "lost":
                    del events[place]
                elif how == "twice":
                    return [*events, event]
            return events

        intake.step = tampered
        return intake


@pytest.mark.parametrize(
    ("how", "found"), [("shifted", "wrong"), ("rows", "wrong"), ("lost", "unbalanced"), ("twice", "unbalanced")]
)
def test_a_wrong_intake_is_found_out(how: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minddiffuser.streaming.chaos.run.Intake", _Tampered(how))
    report = ramp_report([one("pause", 0, start=40.0)])
    assert not report.held
    assert any("marker 7" in text for text in getattr(report, found))
    assert list(lines(report))[-1] == "did not hold"


def test_an_epoch_one_sample_beside_is_counted_and_two_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    for n_off, shifted, n_wrong in ((1, 1, 0), (2, 0, 1)):
        items = list(ramp_items(30.0))
        moved = [
            Marker(ordinal=item.ordinal, stamp=item.stamp, arrived=item.arrived, raw=item.raw)
            if isinstance(item, Marker)
            else item
            for item in items
        ]
        report = _with_marker_moved(moved, n_off, monkeypatch)
        assert (report.n_shifted, len(report.wrong)) == (shifted, n_wrong)


def _with_marker_moved(items: Sequence[Item], n_off: int, monkeypatch: pytest.MonkeyPatch) -> Report:
    from minddiffuser.streaming.chaos import run

    real = run.Intake

    def off(*given: Any, **named: Any) -> Any:
        intake = real(*given, **named)
        step = intake.step
        intake.step = lambda taken, now: step([_moved(item, n_off) for item in taken], now)
        return intake

    with monkeypatch.context() as patch:
        patch.setattr(run, "Intake", off)
        return suffer(steps_of(items), ramp_info(), chain_of(), IntakeSettings(), []).report


def _moved(item: Item, n_off: int) -> Item:
    if isinstance(item, Marker) and item.ordinal == 7:
        return Marker(ordinal=7, stamp=item.stamp + n_off / SFREQ, arrived=item.arrived, raw=item.raw)
    return item


def test_the_report_says_what_happened_and_is_json() -> None:
    import json

    report = ramp_report([one("pause", 0)])
    text = "\n".join(lines(report))
    assert "1 faults in 60 s of signal" in text
    assert "at 14.0 s the source sent no samples, for" in text
    assert text.endswith("held")
    assert json.loads(json.dumps(report.as_json()))["held"] is True
    assert CHANNEL == 100_000
    assert isinstance(next(iter(ramp_items(1.0))), ClockOffset)
    assert isinstance(list(ramp_items(1.0))[-1], Notice)
