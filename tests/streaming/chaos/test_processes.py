"""Real processes on the Lab Streaming Layer that are killed, stopped and cut off; real disks that are full.

No wrong epoch, no marker lost, one line about what happened: `Listener.close` checks the first two.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from chaos_listener import PATIENCE, Listener, amplifier, fresh
from lsl_session import settings
from session_world import steps_of

from minddiffuser.streaming.clock import now
from minddiffuser.streaming.recording.items import read_steps
from minddiffuser.streaming.recording.recorder import Recorder
from minddiffuser.streaming.recording.repair import repair_xdf
from minddiffuser.streaming.records import Marker, Samples

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(sys.platform != "linux", reason="signals, namespaces and tmpfs of Linux"),
]
TESTS = Path(__file__).parents[2]
# A dead source is said within this many seconds.
SOON = 2.0


def namespaces() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "-rnm", "true"], capture_output=True).returncode == 0


needs_namespaces = pytest.mark.skipif(not namespaces(), reason="this machine allows no namespaces")


def test_killed_and_started_again() -> None:
    name = fresh()
    with amplifier(name) as first:
        listener = Listener(name)
        listener.until(listener.more(2))
        lost, killed = listener.heard("lost"), now()
        os.kill(first.process.pid, signal.SIGKILL)
        listener.until(lost)
        assert listener.of("lost")[0][0] - killed < SOON
    with amplifier(name):
        listener.until(listener.more(3))
    listener.close()
    assert any("is back" in text for text in listener.said())


def test_another_rate_then_the_right_one() -> None:
    name = fresh()
    with amplifier(name) as first:
        listener = Listener(name)
        listener.until(listener.more(2))
        os.kill(first.process.pid, signal.SIGKILL)
    n_before = len(listener.accepted)
    with amplifier(name, sfreq=500.0) as second:
        listener.until(listener.heard("changed"))
        listener.listen(3.0)
        assert "500 Hz instead of 250 Hz" in listener.of("changed")[-1][1].text
        assert len(listener.accepted) == n_before
        os.kill(second.process.pid, signal.SIGKILL)
    with amplifier(name):
        listener.until(listener.more(2))
    listener.close()


def test_another_order_of_the_channels() -> None:
    name = fresh()
    with amplifier(name) as first:
        listener = Listener(name)
        listener.until(listener.more(2))
        os.kill(first.process.pid, signal.SIGKILL)
    with amplifier(name, reverse=True):
        listener.until(listener.more(3))
    listener.close()
    assert any("its channels in another order" in text for text in listener.said())


def test_two_with_one_id() -> None:
    name = fresh()
    with amplifier(name) as first:
        listener = Listener(name)
        listener.until(listener.more(2))
        os.kill(first.process.pid, signal.SIGKILL)
    n_before = len(listener.accepted)
    with amplifier(name) as one, amplifier(name):
        listener.until(lambda: any("streams could be it" in text for text in listener.said()))
        listener.listen(2.0)
        assert len(listener.accepted) == n_before
        os.kill(one.process.pid, signal.SIGKILL)
        listener.until(listener.more(2))
    listener.close()


@pytest.mark.parametrize("seconds", [1.0, 5.0, 20.0])
def test_a_stopped_source_is_late_and_loses_nothing(seconds: float) -> None:
    name = fresh()
    with amplifier(name) as player:
        listener = Listener(name)
        listener.until(listener.more(2))
        stopped = now()
        os.kill(player.process.pid, signal.SIGSTOP)
        listener.listen(seconds)
        os.kill(player.process.pid, signal.SIGCONT)
        listener.until(listener.more(4))
        listener.listen(2.0)
    listener.close()
    if seconds > SOON:
        assert listener.of("silent")[0][0] - stopped < SOON
    came = {int(one.text) for one in (*listener.accepted, *listener.refused)}
    assert came == set(range(min(came), max(came) + 1))


@needs_namespaces
@pytest.mark.parametrize("seconds", [4.0, 20.0])
def test_the_network_is_down(seconds: float, tmp_path: Path) -> None:
    command = ["unshare", "-rn", sys.executable, str(TESTS / "chaos_listener.py"), str(seconds)]
    environment = {**settings(tmp_path), "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=2 * PATIENCE)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["said_after"] < SOON
    assert found["missing"] == []


_FULL = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from session_world import info, steps_of
from minddiffuser.streaming.recording.recorder import Recorder
recorder = Recorder(Path({folder!r}), info())
for step in steps_of(600.0, [(float(number), "stim/cat") for number in range(600)]):
    recorder.write(step.items, step.now)
state = recorder.close(step.now)
print(state.on, state.reason)
"""


@needs_namespaces
def test_a_full_disk_ends_the_recording_and_says_so(tmp_path: Path) -> None:
    code = _FULL.format(tests=str(TESTS), folder=str(tmp_path))
    shell = f'mount -t tmpfs -o size=256k tmpfs "{tmp_path}" && exec "$0" -c "$1"'
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", shell, sys.executable, code],
        capture_output=True,
        text=True,
        env=environment,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("False ")
    assert "the disk is full" in done.stdout


def test_md_stream_is_killed_while_it_records(live_bundle: Path, tmp_path: Path) -> None:
    """Session and acquisition at once, in the middle of writing; what is repaired is the beginning of what came."""
    made = tmp_path / "made"
    made.mkdir()
    from session_world import info

    recorder = Recorder(made, info())
    steps = steps_of(120.0, [(3.0 + number, "stim/cat") for number in range(110)])
    for step in steps:
        recorder.write(step.items, step.now)
    recorder.close(steps[-1].now)
    session = tmp_path / "session"
    command = [sys.executable, "-m", "minddiffuser.streaming.cli", "run", str(live_bundle), "--stage", "0"]
    command += ["--source", f"replay:{made / 'signal.xdf'},speed=4", "--record", str(session), "--no-dashboard"]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(5):  # lines about decoded epochs: it is in the middle
        process.stdout.readline()
    end = time.monotonic() + PATIENCE
    while not (session / "signal.xdf").exists() or (session / "signal.xdf").stat().st_size < 20_000:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    repair_xdf(session / "signal.xdf")
    kept = [item for step in read_steps(session / "signal.xdf") for item in step.items]
    samples = np.concatenate([item.data for item in kept if isinstance(item, Samples)], axis=1)
    original = np.concatenate([i.data for s in steps for i in s.items if isinstance(i, Samples)], axis=1)
    assert samples.shape[1] > 200
    np.testing.assert_array_equal(samples, original[:, : samples.shape[1]])
    markers = [item.raw for item in kept if isinstance(item, Marker)]
    assert markers == [b"stim/cat"] * len(markers)


@needs_namespaces
def test_a_session_on_a_full_disk_decodes_on_and_says_so(live_bundle: Path, tmp_path: Path) -> None:
    """All of md-stream run on a file system of 300 kB: one line for each file that stops, all markers decoded."""
    made, disk = tmp_path / "made", tmp_path / "disk"
    made.mkdir()
    disk.mkdir()
    from session_world import info

    recorder = Recorder(made, info())
    steps = steps_of(60.0, [(3.0 + number, "stim/cat") for number in range(50)])
    for step in steps:
        recorder.write(step.items, step.now)
    recorder.close(steps[-1].now)
    command = [sys.executable, "-m", "minddiffuser.streaming.cli", "run", str(live_bundle), "--stage", "0"]
    command += ["--source", f"replay:{made / 'signal.xdf'},speed=8", "--record", str(disk / "s"), "--no-dashboard"]
    shell = f'mount -t tmpfs -o size=300k tmpfs "{disk}" && exec "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", shell, "sh", *command],
        capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the recording has stopped: the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1].startswith("50 markers: 50 decoded")
