"""Sessions with their acquisition in a process of its own, and the command itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest

from minddiffuser.runtime.backends.base import Options
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.streaming.intake.settings import IntakeSettings
from minddiffuser.streaming.recording.opened import open_session
from minddiffuser.streaming.session import run
from minddiffuser.streaming.session.pipe import receive
from minddiffuser.streaming.session.run import Request, run_session

SECONDS, SFREQ, SIZE = 30, 200.0, 1e-5
ENDLESS = 1800.0


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a minute of noise with twenty events, and three markers that are none."""
    path = tmp_path_factory.mktemp("recordings") / "noise_raw.fif"
    rng = np.random.default_rng(3)
    info = mne.create_info(["O1", "Oz", "O2", "Cz"], SFREQ, "eeg", verbose="error")
    raw = mne.io.RawArray(SIZE * rng.standard_normal((4, round(SECONDS * SFREQ))), info, verbose="error")
    names = [f"stim/{name}" for name in ("cat", "dog", "fish", "sea lion")]
    onsets = [*(6.0 + number for number in range(20)), 5.5, 15.5, 25.5]
    texts = [*(names[number % 4] for number in range(20)), *["block"] * 3]
    raw.set_annotations(mne.Annotations(onsets, 0, texts))
    raw.save(path, verbose="error")
    return path


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six events, then nothing for so long that no test is there when it ends, on whatever machine, and one more."""
    path = tmp_path_factory.mktemp("recordings") / "endless_raw.fif"
    info = mne.create_info(["O1", "Oz", "O2", "Cz"], SFREQ, "eeg", verbose="error")
    noise = SIZE * np.random.default_rng(4).standard_normal((4, round(ENDLESS * SFREQ)))
    raw = mne.io.RawArray(noise, info, verbose="error")
    onsets = [*(6.0 + number for number in range(6)), ENDLESS - 10]
    raw.set_annotations(mne.Annotations(onsets, 0, ["stim/cat"] * len(onsets)))
    raw.save(path, verbose="error")
    return path


def request(bundle: Path, recording: Path, **changes: Any) -> Request:
    asked: dict[str, Any] = {
        "bundle": bundle,
        "source": f"replay:{recording},speed=max",
        "intake": IntakeSettings(events=("stim/*",)),
        "options": Options(backend="ort", threads=1),
        "stage": 0,
        "dashboard": False,
    }
    return Request(**{**asked, **changes})


def test_a_session_from_the_source_to_its_folder(live_bundle: Path, recording: Path, tmp_path: Path) -> None:
    out: list[str] = []
    said: list[str] = []
    folder = tmp_path / "session"
    ended = run_session(request(live_bundle, recording, stage=1, record=folder), out=out.append, say=said.append)
    assert not ended.fault
    assert ended.totals.states == {"decoded": 20, "rejected": 0, "refused": 0, "skipped": 3, "pending": 0}
    assert ended.totals.balanced
    assert len([line for line in out if line.startswith("marker ")]) == 20
    session = open_session(folder)
    assert session.about["about"]["bundle"]["folder"] == str(live_bundle)
    assert session.about["ended"]["states"] == ended.totals.states
    pictures = [line for line in session.results() if line["kind"] == "picture"]
    assert len(pictures) == 2 * ended.totals.pictures["drawn"]
    assert all((folder / line["file"]).is_file() for line in pictures)
    assert (folder / "signal.xdf").stat().st_size > SECONDS * SFREQ * 4 * 4
    assert {path.stat().st_mode & 0o077 for path in folder.rglob("*") if path.name != ".lock"} == {0}


@pytest.mark.long
def test_the_source_is_received_while_engines_are_measured(
    live_bundle: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes before they are ready waits: a measurement that waits for the recording to begin is no deadlock."""
    folder, began = tmp_path / "session", []

    def wait(*_given: Any) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and not began:
            time.sleep(0.01)
            began.extend([True] * (folder / "signal.xdf").exists())

    monkeypatch.setattr(run, "warm_up", wait)
    ended = run_session(request(live_bundle, recording, stage=1, record=folder))
    assert began
    assert ended.totals.states == {"decoded": 20, "rejected": 0, "refused": 0, "skipped": 3, "pending": 0}


def test_a_deadline_measures_first_and_says_what_it_allows(live_bundle: Path, recording: Path) -> None:
    said: list[str] = []
    ended = run_session(request(live_bundle, recording, stage=2, deadline=30.0), say=said.append)
    assert ended.totals.balanced
    assert ended.totals.pictures["drawn"] > 0
    assert any(line.startswith("within 30 s this machine makes stage 1 in 35 steps") for line in said)
    assert any("goes by the structure alone" in line for line in said)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("replay:nowhere.xdf", "nowhere.xdf does not exist"),
        ("serial:port", "give one of lsl:…, replay:…"),
    ],
)
def test_a_source_that_is_not_there_is_one_sentence(live_bundle: Path, source: str, message: str) -> None:
    ended = run_session(request(live_bundle, Path(), source=source))
    assert message in ended.fault
    assert ended.users


def test_a_table_of_concepts_that_cannot_be_used_is_said_before_anything_is_received(
    live_bundle: Path, recording: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileError, match="nowhere.csv cannot be read"):
        run_session(request(live_bundle, recording, concepts=tmp_path / "nowhere.csv", record=tmp_path / "session"))
    assert not (tmp_path / "session").exists()


def test_a_bundle_of_fmri_is_refused(toy_bundle: Path, recording: Path) -> None:
    with pytest.raises(InputError, match="decodes fMRI, and md-stream receives EEG and MEG"):
        run_session(request(toy_bundle, recording))


def test_missing_channels_are_refused_by_name(live_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "two_raw.fif"
    info = mne.create_info(["O1", "Oz"], SFREQ, "eeg", verbose="error")
    mne.io.RawArray(np.zeros((2, 2000)), info, verbose="error").save(path, verbose="error")
    ended = run_session(request(live_bundle, path))
    assert "O2" in ended.fault
    assert ended.users


def test_a_killed_acquisition_is_said_and_the_books_are_closed(
    live_bundle: Path, endless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minddiffuser.streaming.session import run as module

    class Mortal(module.AcquisitionProcess):
        """Killed when the first decoded epoch is there."""

        kept: Any = None

        def start(self, post: Any) -> None:
            Mortal.kept = self
            super().start(post)

    monkeypatch.setattr(module, "AcquisitionProcess", Mortal)

    def out(line: str) -> None:
        if line.startswith("marker ") and Mortal.kept is not None:
            os.kill(Mortal.kept.pid, signal.SIGKILL)
            Mortal.kept = None

    said: list[str] = []
    source = f"replay:{endless},speed=4"
    ended = run_session(request(live_bundle, endless, source=source, record=tmp_path / "s"), out=out, say=said.append)
    assert not ended.users
    assert ended.fault == (
        f"the acquisition process has died (exit code -9): md-stream repair {tmp_path / 's'} finishes its file"
    )
    assert ended.totals.balanced
    assert ended.totals.states["pending"] == 0
    assert 0 < ended.totals.states["decoded"] < 7
    assert open_session(tmp_path / "s").about["state"] == "finished"


@pytest.fixture
def settings(live_bundle: Path) -> Any:
    """What acquisition is given for a source of the bundle's."""
    from minddiffuser.runtime import backends
    from minddiffuser.streaming.session.acquisition import AcquisitionSettings
    from minddiffuser.streaming.sources.base import Wanted

    with backends.open(live_bundle, Options(backend="ort", threads=1)) as backend:
        decoder = backend.decoder
    assert decoder.training.layout is not None

    def of(source: str, **changes: Any) -> AcquisitionSettings:
        return AcquisitionSettings(
            source=source, wanted=Wanted(modality="eeg"), layout=decoder.training.layout,
            training=decoder.training, folder=decoder.folder, **changes,
        )  # fmt: skip

    return of


def test_a_process_that_was_never_started_ends_by_itself(settings: Any) -> None:
    from minddiffuser.streaming.session.process import AcquisitionProcess

    feed = AcquisitionProcess(settings("replay:nowhere.xdf"))
    feed.close(patience=120.0)
    assert feed.exit_code == 0


def test_a_process_to_which_nobody_listens_ends_with_its_file(
    settings: Any, endless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that fails while it opens its engines has never taken what waits in the pipe, which is full."""
    from minddiffuser.streaming.recording.folder import SessionFolder
    from minddiffuser.streaming.recording.items import read_end
    from minddiffuser.streaming.session import pipe, process

    monkeypatch.setattr(pipe, "_PIPE_BYTES", 4096)
    folder = SessionFolder.create(tmp_path / "s", {})
    feed = process.AcquisitionProcess(settings(f"replay:{endless},speed=max", record=folder.path, preview=True))
    feed.prepare()
    end = time.monotonic() + 120
    while not (folder.path / "signal.xdf").exists() or (folder.path / "signal.xdf").stat().st_size < 100_000:
        assert time.monotonic() < end
        time.sleep(0.01)
    feed.close(patience=120.0)
    assert feed.exit_code == 0
    assert read_end(folder.path / "signal.xdf") is not None
    folder.close()


def test_a_session_that_cannot_take_a_message_hears_that_and_waits_for_no_more(settings: Any, endless: Path) -> None:
    from minddiffuser.streaming.session.acquisition import Opened, Stopped
    from minddiffuser.streaming.session.process import AcquisitionProcess

    heard, over = [], threading.Event()

    def post(message: Any) -> None:
        if isinstance(message, Opened):
            raise OSError("no room")
        heard.append(message)
        over.set()

    feed = AcquisitionProcess(settings(f"replay:{endless}"))
    feed.start(post)
    assert over.wait(120)
    feed.close(patience=120.0)
    assert feed.exit_code == 0
    (stopped,) = heard
    assert isinstance(stopped, Stopped)
    assert (stopped.fault, stopped.users) == ("what acquisition said could not be taken (OSError: no room)", False)


def test_a_source_that_is_still_looked_for_is_given_up_when_the_session_ends(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for as long as --timeout says; Ctrl-C does not wait for that, and nobody calls it a fault."""
    import multiprocessing

    from minddiffuser.streaming.session import process

    here, there = multiprocessing.Pipe(duplex=False)
    orders, order = multiprocessing.Pipe(duplex=False)

    class Sought:
        """Not there; while it is looked for, the session ends."""

        def __init__(self, wanted: Any) -> None:
            self._wanted = wanted

        def open(self) -> Any:
            assert not self._wanted.stopped()
            order.send("stop")
            end = time.monotonic() + 60
            while not self._wanted.stopped():
                assert time.monotonic() < end
                time.sleep(0.01)
            raise InputError("there are no streams")

        def close(self) -> None:
            pass

    monkeypatch.setattr(process, "open_source", lambda _text, wanted: Sought(wanted))
    monkeypatch.setattr(process.signal, "signal", lambda *_given: None)
    patience: list[float] = []
    monkeypatch.setattr(process.sys, "setswitchinterval", patience.append)
    order.send("go")
    process.acquire(settings("lsl:name=nowhere"), there, orders)
    stopped = receive(here)
    assert (stopped.n_markers, stopped.fault) == (0, "")
    assert max(patience) < sys.getswitchinterval()  # its threads hand over sooner than Python's own would
    with pytest.raises(EOFError):
        here.recv()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "minddiffuser.streaming.cli", "run", *arguments]


def test_the_command_ends_at_ctrl_c_with_130_and_whole_files(live_bundle: Path, endless: Path, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    process = subprocess.Popen(
        command(
            str(live_bundle), "--source", f"replay:{endless},speed=4", "--events", "stim/*", "--record", str(folder),
            "--no-dashboard", "--backend", "ort", "--threads", "1", "--stage", "1",
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first.startswith("marker ")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all processes
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.rstrip().endswith("interrupted: the session was closed, its files are whole")
    session = open_session(folder)
    assert session.about["state"] == "finished"
    assert session.about["ended"]["balanced"]
    *_, totals = session.ledger()
    assert totals["totals"]["states"]["pending"] == 0
    assert totals["totals"]["received"] == json.loads(json.dumps(session.about["ended"]["received"]))
    assert out.splitlines()[-1].startswith(f"{totals['totals']['received']} marker")
    import pyxdf

    streams, _ = pyxdf.load_xdf(folder / "signal.xdf")
    assert sum(len(stream["time_stamps"]) for stream in streams) > 0


def test_a_process_that_is_killed_before_it_was_asked_for_anything_holds_nobody(settings: Any, recording: Path) -> None:
    from minddiffuser.streaming.session.process import AcquisitionProcess

    feed = AcquisitionProcess(settings(f"replay:{recording}"))
    assert feed.pid is not None
    os.kill(feed.pid, signal.SIGKILL)
    heard: list[Any] = []
    feed.start(heard.append)
    feed.stop()
    feed.close()
    assert ["died" in message.fault for message in heard] == [True]


def test_several_devices_are_of_pytorch_and_named_once(live_bundle: Path, recording: Path) -> None:
    with pytest.raises(InputError, match="2 devices are given, and a bundle's engines run on one"):
        run_session(request(live_bundle, recording, devices=("cuda:0", "cuda:1")))
    with pytest.raises(InputError, match="the devices are cpu, cpu: name each once"):
        request(live_bundle, recording, devices=("cpu", "cpu"))
