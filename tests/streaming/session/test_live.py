"""Whole sessions, with an acquisition that a thread steps: what becomes of each marker, and where it is written."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from session_world import EVENTS, World, folder_of, info, steps_of

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.images import pixel_hash, read_image
from minddiffuser.runtime.refine.settings import GuidedSettings
from minddiffuser.runtime.sampling import Sampling
from minddiffuser.streaming.dashboard.hub import Hub
from minddiffuser.streaming.dashboard.messages import Session
from minddiffuser.streaming.decoding.decode import DecodeSettings
from minddiffuser.streaming.generation.draw import Enough, Frame, draw
from minddiffuser.streaming.generation.plan import Plan
from minddiffuser.streaming.recording.opened import open_session
from minddiffuser.streaming.records import MARKERS, SIGNAL, Notice, Samples
from minddiffuser.streaming.session.acquisition import Previewed
from minddiffuser.streaming.session.page import Page
from minddiffuser.streaming.session.settings import LiveSettings
from minddiffuser.streaming.sources.replay import Step

SHORT = Sampling(n_steps=6, n_noise=None, n_reverse=2)
REFINE = GuidedSettings(candidates=1, start_steps=1, finish_steps=1, n_steps=6, strength=0.32, semantic_weight=0.0)
DECODE = DecodeSettings(session="s", semantic=False)


def last_lines(path: Path) -> dict[int, dict[str, Any]]:
    return {line["ordinal"]: line for line in open_session(path).ledger() if "ordinal" in line}


def test_every_marker_ends_in_one_state_and_the_file_says_the_same(
    world: World, markers: list[tuple[float, str]], tmp_path: Path
) -> None:
    ended = world.session(steps_of(20, markers), folder=folder_of(tmp_path / "s")).run()
    assert ended.totals.balanced
    assert ended.totals.received == 15
    assert ended.totals.states == {"decoded": 12, "rejected": 0, "refused": 2, "skipped": 1, "pending": 0}
    lines = last_lines(tmp_path / "s")
    assert [lines[number]["state"] for number in range(15)] == ["refused", "skipped", *["decoded"] * 12, "refused"]
    assert "settle" in lines[0]["reason"] or "warm" in lines[0]["reason"]
    assert "ended" in lines[14]["reason"]
    *_, totals = open_session(tmp_path / "s").ledger()
    assert totals["totals"]["states"] == ended.totals.states
    assert totals["totals"]["balanced"]
    for line in (lines[number] for number in range(2, 14)):
        at = line["moments"]
        assert at["marker"] <= at["arrived"] <= at["ready"] <= at["decode_start"] <= at["decoded"]
        # The epoch's last sample is 0.3 s behind its marker, here on the sample itself.
        assert at["epoch_end"] - at["marker"] == pytest.approx(0.3, abs=0.006)
        assert line["uncertainty"] == pytest.approx(2e-4)
    results = [line for line in open_session(tmp_path / "s").results() if line["kind"] == "decoded"]
    assert [line["ordinal"] for line in results] == list(range(2, 14))


def test_what_is_decoded_does_not_depend_on_how_the_session_went(
    world: World, markers: list[tuple[float, str]], tmp_path: Path
) -> None:
    hashes = []
    for name in ("a", "b"):
        world.session(steps_of(20, markers), folder=folder_of(tmp_path / name)).run()
        hashes.append([line["hashes"] for line in open_session(tmp_path / name).results()])
    assert hashes[0] == hashes[1]


def test_pictures_are_written_and_can_be_made_again(
    world: World, markers: list[tuple[float, str]], tmp_path: Path
) -> None:
    live = LiveSettings(decode=DECODE, refine=REFINE, sampling=SHORT)
    ended = world.session(steps_of(20, markers), live, folder=folder_of(tmp_path / "s")).run()
    assert ended.totals.balanced
    assert ended.totals.pictures["drawn"] > 0
    assert sum(ended.totals.pictures.values()) == 12
    session = open_session(tmp_path / "s")
    lines = list(session.results())
    plans = {line["ordinal"]: line for line in lines if line["kind"] == "plan"}
    # What was decoded comes from the same signal, cut by the intake alone.
    epochs = {}
    acquisition = world.acquisition(steps_of(20, markers))
    acquisition.open()
    while not acquisition.ended:
        for message in acquisition.step(0.0):
            for event in getattr(message, "events", ()):
                if hasattr(event, "data"):
                    epochs[event.ordinal] = event.data
    pictures = [line for line in lines if line["kind"] == "picture"]
    assert {line["when"] for line in pictures} == {"stage1", "due"}
    for line in pictures[:8]:
        written = read_image(tmp_path / "s" / line["file"])
        assert pixel_hash(written) == line["pixels_sha256"]
        features = world.backend.decode(epochs[line["ordinal"]][None], semantic=False)

        def until(frame: Frame, n_frames: int = line["n_frames"]) -> None:
            if frame.number == n_frames:
                raise Enough

        plan = plans[line["ordinal"]]
        again = draw(world.backend, features, plan["trial_id"], Plan.from_json(plan), 42, until)
        np.testing.assert_array_equal(again.image, written)


def test_repetitions_are_averaged(world: World, markers: list[tuple[float, str]], tmp_path: Path) -> None:
    live = LiveSettings(decode=DecodeSettings(session="s", average=True), pictures=False)
    world.session(steps_of(20, markers), live, folder=folder_of(tmp_path / "s")).run()
    lines = list(open_session(tmp_path / "s").results())
    assert [line["n_averaged"] for line in lines] == [1 + number // 3 for number in range(12)]
    assert {line["trial_id"] for line in lines} == {f"s/mean/{text}" for text in EVENTS[:3]}


def test_a_gap_refuses_what_touches_it_and_is_said_once(world: World, markers: list[tuple[float, str]]) -> None:
    ended = world.session(steps_of(20, markers, gap=(8.1, 9.6))).run()
    assert ended.totals.balanced
    # Events at 4, 5, 6, 7 are before it; at 8 and 9 they touch it; then the filters settle anew.
    assert ended.totals.states["decoded"] < 10
    assert ended.totals.states["decoded"] >= 4
    assert len([text for text in world.said if "1.5" in text]) == 1


def test_ctrl_c_closes_the_books(world: World, markers: list[tuple[float, str]], tmp_path: Path) -> None:
    reached = threading.Event()

    def before(step: int) -> None:
        if step == 500:  # at 10 s
            reached.set()
            session.interrupt()

    session = world.session(steps_of(20, markers), before=before, folder=folder_of(tmp_path / "s"))
    ended = session.run()
    assert reached.is_set()
    assert ended.interrupted
    assert ended.totals.balanced
    assert ended.totals.states["pending"] == 0
    assert 0 < ended.totals.received < 15
    assert open_session(tmp_path / "s").about["state"] == "finished"
    assert open_session(tmp_path / "s").about["ended"]["reason"] == "the session was interrupted"


def test_a_source_that_breaks_ends_the_session_with_its_reason(world: World, markers: list[tuple[float, str]]) -> None:
    def before(step: int) -> None:
        if step == 400:
            raise FileError("the cable was pulled")

    ended = world.session(steps_of(20, markers), before=before).run()
    assert ended.fault == "the cable was pulled"
    assert ended.totals.balanced
    assert ended.totals.states["decoded"] == 4
    assert not any("the cable was pulled" in text for text in world.said)  # it is the command's last line


def test_an_artefact_and_a_decoder_that_fails_cost_their_own_markers(
    world: World, markers: list[tuple[float, str]], tmp_path: Path
) -> None:
    steps = steps_of(20, markers)
    for step in steps:
        for item in step.items:
            if isinstance(item, Samples) and item.stamps[0] <= 6.1 < item.stamps[-1] + 0.005:
                item.data[2] += 1e-3  # Oz, in the epoch of marker 4
    backend = world.backend

    class Failing:
        """Its fifth epoch raises, its seventh holds NaN."""

        decoder, n = backend.decoder, 0

        def decode(self, responses: np.ndarray, *, semantic: bool = True) -> Any:
            self.n += 1
            decoded = backend.decode(responses, semantic=semantic)
            if self.n == 5:
                raise RuntimeError("out of memory, as it were")
            if self.n == 7:
                decoded.structure[0, 0, 0, 0] = np.nan
            return decoded

    world.backend = Failing()  # type: ignore[assignment]
    ended = world.session(steps, folder=folder_of(tmp_path / "s")).run()
    assert ended.totals.balanced
    assert ended.totals.states == {"decoded": 9, "rejected": 1, "refused": 4, "skipped": 1, "pending": 0}
    lines = last_lines(tmp_path / "s")
    assert lines[4]["state"] == "rejected"
    assert "Oz" in lines[4]["reason"]
    failed = [line["reason"] for line in lines.values() if "decode" in line.get("reason", "")]
    assert failed == [
        "the decoder failed (RuntimeError: out of memory, as it were)",
        "what was decoded holds NaN or infinite values (structure)",
    ]


def test_an_acquisition_that_hangs_is_said_and_its_return_too(world: World, markers: list[tuple[float, str]]) -> None:
    def heard(text: str) -> bool:
        return any(text in line for line in world.said)

    def before(step: int) -> None:
        for _ in range(6000 if step == 400 else 0):
            if heard("acquisition has said nothing for 2 s"):
                return
            threading.Event().wait(0.01)

    ended = world.session(steps_of(20, markers), before=before).run()
    assert heard("acquisition has said nothing for 2 s")
    assert heard("acquisition goes on")
    assert ended.totals.states["decoded"] == 12


def test_a_source_of_another_rate_is_refused_before_anything_is_received(
    world: World, markers: list[tuple[float, str]]
) -> None:
    ended = world.session(steps_of(20, markers), sfreq=250.0).run()
    assert "250" in ended.fault
    assert "200" in ended.fault
    assert ended.totals.received == 0


def test_the_recording_can_be_run_again(world: World, markers: list[tuple[float, str]], tmp_path: Path) -> None:
    """The signal file of a session is a source that gives the same epochs."""
    from minddiffuser.streaming.sources import open_source

    first = world.session(steps_of(20, markers), folder=folder_of(tmp_path / "a"), record=tmp_path / "a").run()
    source = open_source(f"replay:{tmp_path / 'a' / 'signal.xdf'},speed=max", world.settings().wanted)
    from minddiffuser.streaming.clock import now
    from minddiffuser.streaming.session.acquisition import Acquisition

    again = world.session(steps_of(1, []), folder=folder_of(tmp_path / "b"))
    again._feed._acquisition = Acquisition(source, world.settings(), now)  # type: ignore[attr-defined]
    second = again.run()
    assert second.totals.states == first.totals.states
    hashes = [
        [line["hashes"] for line in open_session(tmp_path / name).results() if line["kind"] == "decoded"]
        for name in "ab"
    ]
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 12


def test_the_page_is_told_everything(world: World, markers: list[tuple[float, str]]) -> None:
    hub = Hub()
    client = hub.join(lambda: None)
    assert client is not None
    live = LiveSettings(decode=DECODE, refine=REFINE, sampling=SHORT)
    world.session(steps_of(20, markers), live, hub=hub, preview=True).run()
    import json

    found = [json.loads(text) for text in client.take()]
    kinds = {message["kind"] for message in found}
    assert {"session", "stream", "montage", "signal", "quality", "marker", "decoded", "picture"} <= kinds
    assert {"latency", "ledger", "notice"} <= kinds
    books = [message for message in found if message["kind"] == "ledger"][-1]
    assert books["received"] == 15
    assert sum(books["totals"].values()) == 15
    decoded = [message for message in found if message["kind"] == "decoded"][-1]
    assert decoded["ordinal"] == 13
    assert sum(concept["score"] for concept in decoded["top"]) == pytest.approx(1.0)
    assert decoded["control"]["n"] == 3 or decoded["control"]["n"] > 3
    assert next(message for message in found if message["kind"] == "session")["ended"] == "the session has ended"


def test_a_source_that_comes_back_with_more_channels_or_earlier_stamps_is_still_shown(world: World) -> None:
    before, behind = steps_of(2, []), steps_of(2, [])
    about = info()
    more = replace(
        about, channels=(*about.channels, Channel(name="extra", type="eeg")), units=(*about.units, about.units[0])
    )
    end = before[-1].now
    steps = [*before, Step(now=end, items=[Notice(kind="changed", stream=SIGNAL, at=end, text="more", info=more)])]
    for step in behind:
        items = [
            replace(item, data=np.concatenate([item.data, item.data[:1]]), stamps=item.stamps - 1000.0)
            for item in step.items
            if isinstance(item, Samples)
        ]
        steps.append(Step(now=end + step.now - behind[0].now, items=items))
    acquisition = world.acquisition(steps, preview=True)
    acquisition.open()
    shown = []
    while not acquisition.ended:
        shown += [message.data for message in acquisition.step(0.0) if isinstance(message, Previewed)]
    assert 3.8 < sum(data.shape[1] for data in shown) / about.sfreq <= 4.0


def test_what_happens_to_the_markers_stream_is_not_said_of_the_signal_s() -> None:
    hub = Hub()
    client = hub.join(lambda: None)
    assert client is not None
    page = Page(hub, Session(bundle="b", source="s", modality="eeg"), 0.0)
    for stream, kind, trouble in (
        (SIGNAL, "lost", "lost"),
        (MARKERS, "lost", "lost"),
        (MARKERS, "recovered", "lost"),
        (SIGNAL, "recovered", None),
        (MARKERS, "lost", None),
    ):
        page.notice(kind, "", 1.0, stream)
        assert page.trouble == trouble


def test_results_go_to_an_outlet(world: World, markers: list[tuple[float, str]]) -> None:
    sent: list[tuple[int, float]] = []

    class Kept:
        def push(self, decoded: Any, latency: float, at: float) -> None:
            sent.append((decoded.ordinal, latency))

    world.session(steps_of(20, markers), outlet=Kept()).run()
    assert [ordinal for ordinal, _ in sent] == list(range(2, 14))
    assert all(latency > 0 for _, latency in sent)


def test_each_device_draws_by_itself(world: World, markers: list[tuple[float, str]], tmp_path: Path) -> None:
    """One is held up in its first picture; all others are drawn by the other device, and the line says which."""
    live = LiveSettings(decode=DECODE, refine=None, sampling=SHORT)
    backend, go, held = world.backend, threading.Event(), threading.Event()

    class Other:
        """The same, but for whoever draws here first."""

        decoder, latent_shape = backend.decoder, backend.latent_shape

        def generator(self, *given: Any, **named: Any) -> Any:
            held.set()
            assert go.wait(60)
            return backend.generator(*given, **named)

    session = world.session(steps_of(20, markers), live, folder=folder_of(tmp_path / "s"), more=[Other()])
    last = session._pictures._last_picture
    n_drawn = []

    def count(message: Any) -> None:
        n_drawn.append(message.ordinal)
        if held.is_set() and len(n_drawn) >= 3:
            go.set()
        last(message)

    session._pictures._last_picture = count  # type: ignore[method-assign]
    ended = session.run()
    assert ended.totals.balanced
    assert ended.totals.pictures["drawn"] == len(n_drawn) >= 4
    plans = [line for line in open_session(tmp_path / "s").results() if line["kind"] == "plan"]
    assert {line["device"] for line in plans} == {0, 1}
    assert sum(line["device"] == 1 for line in plans) < len(plans) - 1


def test_the_page_and_the_books_do_not_wait_for_a_disk_that_hangs(
    world: World, markers: list[tuple[float, str]], tmp_path: Path
) -> None:
    from minddiffuser.streaming.recording.folder import SessionFolder
    from minddiffuser.streaming.recording.folder_queue import FolderQueue

    go = threading.Event()

    def hang(file: int, data: memoryview) -> int:
        go.wait()
        return len(data)

    folder = SessionFolder.create(tmp_path / "s", {}, id="s", write=hang, on_stop=world.said.append)
    ended = world.session(steps_of(20, markers), folder=FolderQueue(folder, patience=0.05)).run()
    assert ended.totals.balanced
    assert ended.totals.states["decoded"] == 12
    assert any("the disk has not answered" in line for line in world.said)
    go.set()


def test_a_fault_of_the_intake_costs_nothing_of_the_recording(
    world: World, markers: list[tuple[float, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it cannot even end: the file is finished, with all that came."""
    from minddiffuser.streaming.intake.intake import Intake
    from minddiffuser.streaming.recording.items import read_end, read_steps

    def fail(*_given: Any) -> Any:
        raise ZeroDivisionError("a fault of the program")

    step = Intake.step
    monkeypatch.setattr(Intake, "finish", fail)
    monkeypatch.setattr(Intake, "step", lambda self, items, now: fail() if now > 108 else step(self, items, now))
    steps = steps_of(20, markers)
    folder = folder_of(tmp_path / "s")
    ended = world.session(steps, folder=folder, record=folder.path).run()
    assert ended.fault == "acquisition failed (ZeroDivisionError: a fault of the program)"
    assert not ended.users
    assert ended.totals.balanced
    assert ended.totals.states["pending"] == 0
    found = [item for one in read_steps(folder.path / "signal.xdf") for item in one.items]
    came = [item for one in steps for item in one.items if one.now <= 108.03]
    assert len(found) == len(came)
    assert read_end(folder.path / "signal.xdf") is not None
