"""list, doctor and certify in an LSL of each test's own, as processes; play against what MNE and pyxdf read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import mne
import numpy as np
import pytest
import pyxdf
from lsl_session import settings
from recording_files import noise, write_brainvision, write_xdf

from minddiffuser.streaming.lsl import found
from minddiffuser.streaming.lsl.play import PlayingProcess
from minddiffuser.streaming.lsl.ramp import ramp
from minddiffuser.streaming.records import Item, Marker, Samples
from minddiffuser.streaming.sources import open_source
from minddiffuser.streaming.sources.base import Wanted

PATIENCE = 120.0
COMMAND = [sys.executable, "-m", "minddiffuser.streaming.cli"]
# Recordings that nobody here made lie beside the checkout, where they are.
RECORDINGS = next(
    (folder for parent in Path(__file__).resolve().parents if (folder := parent / "shared" / "recordings").is_dir()),
    None,
)


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE, env=env)


def run_both(*commands: tuple[str, ...]) -> list[subprocess.CompletedProcess[str]]:
    """Several at once, which wait beside each other."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda arguments: run(*arguments), commands))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubles are looked for not quite as long as for a user."""
    monkeypatch.setattr(found, "SETTLE", 0.3)


@pytest.fixture
def own_lsl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of the test have an LSL of their own; this process is not in it."""
    monkeypatch.setenv("LSLAPICFG", settings(tmp_path)["LSLAPICFG"])


@pytest.mark.usefixtures("own_lsl")
def test_list_shows_each_stream_and_its_problems() -> None:
    good = partial(ramp, n_channels=3, name="Good", source_id="good", seconds=600)
    twin = partial(ramp, n_channels=3, name="Twin", source_id="twin", seconds=600, markers=False)
    bare = partial(ramp, n_channels=3, name="Bare", source_id="", seconds=600, markers=False)
    with PlayingProcess(good), PlayingProcess(twin), PlayingProcess(twin), PlayingProcess(bare):
        done, table = run_both(("list", "--json", "--timeout", "5"), ("list", "--timeout", "5"))
    assert done.returncode == 1, done.stderr
    seen = {one["name"]: one for one in json.loads(done.stdout)}
    assert set(seen) == {"Good", "Good-markers", "Twin", "Bare"}
    assert len(json.loads(done.stdout)) == 5
    assert seen["Good"]["problems"] == seen["Good-markers"]["problems"] == []
    assert (seen["Good"]["channels"], seen["Good"]["units"]) == (["E0", "E1", "E2"], ["microvolts"] * 3)
    assert (seen["Good"]["n_channels"], seen["Good"]["sfreq"], seen["Good"]["format"]) == (3, 250.0, "double64")
    assert abs(seen["Good"]["offset"]) <= seen["Good"]["uncertainty"]
    assert "2 streams have its source_id" in seen["Twin"]["problems"][0]
    assert "no source_id" in seen["Bare"]["problems"][0]
    assert table.returncode == 1
    assert table.stdout.startswith("name")
    assert table.stdout.count("problem: ") == 3


@pytest.mark.usefixtures("own_lsl")
def test_list_says_that_nothing_answers() -> None:
    done, as_json = run_both(("list", "--timeout", "0.5"), ("list", "--timeout", "0.5", "--json"))
    assert (done.returncode, done.stderr) == (1, "")
    assert "no streams answer" in done.stdout
    assert json.loads(as_json.stdout) == []


@pytest.mark.usefixtures("own_lsl")
def test_doctor_finds_this_machine_well() -> None:
    done = run("doctor", "--json")
    findings = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    states = {(one["check"], one["state"]) for one in findings}
    assert {("liblsl", "ok"), ("settings", "ok"), ("clock", "ok"), ("loopback", "ok"), ("privacy", "note")} <= states


def test_doctor_says_what_is_missing_where_liblsl_does_not_load(tmp_path: Path) -> None:
    broken = tmp_path / "liblsl.so"
    broken.write_bytes(b"no library")
    done = run("doctor", env={**os.environ, "PYLSL_LIB": str(broken)})
    assert done.returncode == 1
    assert done.stderr == ""
    first = done.stdout.splitlines()[0]
    assert first.split()[:2] == ["FAILED", "liblsl"]
    assert str(broken) in first
    assert "PYLSL_LIB" in first
    assert "loopback" not in done.stdout
    assert "ports" in done.stdout


def test_a_command_without_liblsl_is_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "liblsl.so"
    broken.write_bytes(b"no library")
    done = run("list", env={**os.environ, "PYLSL_LIB": str(broken)})
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("md-stream: pylsl cannot load liblsl")
    assert "md-stream doctor" in line


@pytest.mark.usefixtures("own_lsl")
def test_certify_passes_a_bound_that_all_keep_and_fails_one_that_none_can() -> None:
    small = ("certify", "--channels", "3", "--rate", "250", "--seconds", "1", "--json")
    done, failed = run_both((*small, "--bound", "60000"), (*small, "--bound", "1e-6"))
    figures = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert figures["passed"]
    assert [one["load"]["chunk"] for one in figures["runs"]] == [1, 2]
    for one in figures["runs"]:
        assert one["n_lost"] == 0
        assert 0 < one["p50"] <= one["p95"] <= one["p99"] <= one["most"]
        assert abs(one["offset"]) <= one["uncertainty"]
    assert failed.returncode == 1
    assert "1 sample in 100 is later" in json.loads(failed.stdout)["failures"][0]


class Received:
    """What the source gets of a file that is played, and what `play` has printed."""

    def __init__(self, recording: Path, *options: str) -> None:
        name = f"play-{os.getpid()}-{recording.name}"
        command = [*COMMAND, "play", str(recording), "--name", name, "--source-id", name, *options]
        player = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        modality = "meg" if recording.suffix == ".fif" else "eeg"
        source = open_source(f"lsl:id={name},markers={name}-markers", Wanted(modality=modality, timeout=PATIENCE))
        items: list[Item] = []
        try:
            self.info = source.open()
            end = time.monotonic() + PATIENCE
            # It stays a second after its last sample, or until nobody receives: everything has come by then.
            while player.poll() is None:
                assert time.monotonic() < end
                items += source.poll(0.1)
            items += source.poll(0.1)
        finally:
            source.close()
            player.kill()
        self.out, self.err = player.communicate()
        assert player.returncode == 0, self.err
        samples = [item for item in items if isinstance(item, Samples)]
        self.data = np.concatenate([item.data for item in samples], axis=1)
        self.stamps = np.concatenate([item.stamps for item in samples])
        self.markers = [item for item in items if isinstance(item, Marker)]

    def check_times(self, seconds: np.ndarray) -> None:
        """The stamps are the file's own times, moved to now: to the last places of such sums."""
        np.testing.assert_allclose(
            self.stamps - self.stamps[0], seconds - seconds[0], rtol=0, atol=8 * np.spacing(self.stamps[-1])
        )


MARKS = [(100, "Stimulus/S  7"), (251, "Stimulus/S  9"), (251, "Response/R  1"), (399, "Stimulus/S  7")]


@pytest.mark.parametrize("chunk", ["1", pytest.param("9", marks=pytest.mark.long)])
def test_a_file_is_played_sample_by_sample_as_mne_reads_it(tmp_path: Path, chunk: str) -> None:
    path = write_brainvision(tmp_path, f"one{chunk}", noise(400), 250.0, MARKS)
    raw = mne.io.read_raw(path, verbose="error")
    got = Received(path, "--chunk", chunk)
    np.testing.assert_array_equal(got.data, raw.get_data())
    got.check_times(raw.times)
    assert [channel.name for channel in got.info.channels] == raw.ch_names
    assert (got.info.sfreq, set(got.info.units)) == (250.0, {"V"})
    assert [(marker.text, int(np.argmin(abs(got.stamps - marker.stamp)))) for marker in got.markers] == [
        (text, sample)
        for sample, text in sorted((round(one["onset"] * 250), one["description"]) for one in raw.annotations)
    ]
    assert "400 samples and 4 markers sent" in got.out
    assert f"--source lsl:id={got.info.source_id}" in got.err


def test_an_xdf_file_is_played_with_the_markers_on_the_clock_of_the_signal(tmp_path: Path) -> None:
    data = np.arange(1000.0).reshape(2, 500)
    stamps = 10.0 + np.arange(500) / 250 + 0.3 * (np.arange(500) >= 250)
    path = write_xdf(tmp_path / "one.xdf", data, stamps, 250.0, [(10.4, "a"), (12.004, "b")], offset=5.0)
    got = Received(path, "--markers", "text")
    np.testing.assert_array_equal(got.data, data)
    got.check_times(stamps)
    assert [marker.raw for marker in got.markers] == [b"a", b"b"]
    np.testing.assert_allclose(
        [marker.stamp - got.stamps[0] for marker in got.markers], [0.4, 2.004], rtol=0, atol=1e-9
    )
    assert set(got.info.units) == {"microvolts"}


def test_markers_that_are_no_numbers_are_not_played_as_numbers(tmp_path: Path) -> None:
    path = write_xdf(tmp_path / "one.xdf", np.zeros((1, 50)), np.arange(50) / 250, 250.0, [(0.1, "cat")])
    done = run("play", str(path), "--markers", "number", "--at-once")
    assert done.returncode == 2
    assert "'cat': give --markers text" in done.stderr


@pytest.mark.parametrize(
    ("data", "marker", "options", "words"),
    [
        (1e-5 * np.ones((1, 50)), "7", ("--format", "int16"), "has the value 1e-05, which is no int16"),
        (np.full((1, 50), 40_000.0), "7", ("--format", "int16"), "has the value 40000, which is no int16"),
        (np.zeros((1, 50)), "4294967296", ("--markers", "number"), "is '4294967296': give --markers text"),
    ],
)
def test_what_would_be_sent_as_another_number_is_refused(
    tmp_path: Path, data: np.ndarray, marker: str, options: tuple[str, ...], words: str
) -> None:
    path = write_xdf(tmp_path / "one.xdf", data, np.arange(50) / 250, 250.0, [(0.1, marker)])
    done = run("play", str(path), *options, "--at-once")
    assert done.returncode == 2
    assert words in done.stderr


def test_play_waits_for_somebody_and_ends_with_control_c(tmp_path: Path) -> None:
    path = write_xdf(tmp_path / "one.xdf", np.zeros((1, 50)), np.arange(50) / 250, 250.0, [(0.1, "7")])
    # A test run in the background has Ctrl-C ignored, and its children too.
    hearing = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    hearing += "from minddiffuser.streaming.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", hearing, "play", str(path)]
    player = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert player.stderr is not None
    assert "receive it with" in player.stderr.readline()
    assert "waiting" in player.stderr.readline()
    player.send_signal(signal.SIGINT)
    out, err = player.communicate(timeout=PATIENCE)
    assert player.returncode == 130
    assert out == ""
    assert err.startswith("md-stream: interrupted")


@pytest.mark.skipif(RECORDINGS is None, reason="the recordings of others are not beside this checkout")
@pytest.mark.parametrize(
    "name",
    [
        "test.bdf",
        pytest.param("test_edf_stim_channel.edf", marks=pytest.mark.long),
        pytest.param("test_ctf_comp_raw.fif", marks=pytest.mark.long),
    ],
)
def test_recordings_of_others_are_played_as_mne_reads_them(name: str) -> None:
    assert RECORDINGS is not None
    raw = mne.io.read_raw(RECORDINGS / name, verbose="error")
    got = Received(RECORDINGS / name, "--chunk", "16", "--speed", "8")
    names = [channel.name for channel in got.info.channels]
    assert len(names) > 20
    np.testing.assert_array_equal(got.data, raw.get_data(picks=names))
    got.check_times(raw.times)


@pytest.mark.skipif(RECORDINGS is None, reason="the recordings of others are not beside this checkout")
def test_an_xdf_file_of_others_is_played_as_pyxdf_reads_it() -> None:
    assert RECORDINGS is not None
    got = Received(RECORDINGS / "minimal.xdf")
    streams, _ = pyxdf.load_xdf(RECORDINGS / "minimal.xdf", synchronize_clocks=True, dejitter_timestamps=False)
    signal, markers = sorted(streams, key=lambda one: one["info"]["type"][0].lower() == "marker")
    np.testing.assert_array_equal(got.data, np.asarray(signal["time_series"]).T)
    assert [marker.text for marker in got.markers] == [row[0] for row in markers["time_series"]]
    # pyxdf fits a line through the clock offsets, where we go from one to the next: both of the clocks' measurements.
    apart = np.asarray(markers["time_stamps"]) - signal["time_stamps"][0]
    np.testing.assert_allclose([marker.stamp - got.stamps[0] for marker in got.markers], apart, rtol=0, atol=1e-3)
