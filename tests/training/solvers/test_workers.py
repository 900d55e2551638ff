"""Workers: every job once, errors as one exception, and never a process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.training.solvers import workers
from minddiffuser.training.solvers.workers import run_jobs, shared_array

needs_fork = pytest.mark.skipif(not workers._CAN_FORK, reason="workers are threads here")
JOBS = range(8)
# Seconds that a worker stays busy unless it is ended: longer than a test may take.
FOR_EVER = 3600


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """By what was started here, not by what the system lists: other tests' threads and processes come and go there."""
    if not workers._CAN_FORK:
        yield
        return
    started: list[int] = []
    fork = os.fork

    def forking() -> int:
        started.append(fork())
        return started[-1]

    monkeypatch.setattr(os, "fork", forking)
    yield
    for process in started:
        with pytest.raises(ChildProcessError):  # neither running nor a zombie
            os.waitpid(process, os.WNOHANG)


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("n_workers", [1, 2, 3, 100])
def test_every_job_runs_once(n_workers: int) -> None:
    fork = workers._CAN_FORK
    count, who = shared_array((8,), np.int32), shared_array((8,), np.int64)

    def work(job: int) -> int:
        count[job] += 1
        who[job] = os.getpid()
        return job

    printed: list[int] = []
    run_jobs(work, JOBS, n_workers, printed.append)
    assert sorted(printed) == list(JOBS)
    assert count.tolist() == [1] * 8
    assert len(set(who)) <= min(n_workers, 4)  # a quick worker may do the work of all
    assert (os.getpid() in who) == (n_workers == 1 or not fork)


def test_few_jobs_stay_in_this_process() -> None:
    seen: list[int] = []
    run_jobs(lambda job: seen.append(job) or 0, range(3), 2)
    assert seen == [0, 1, 2]


@pytest.fixture(params=[pytest.param(True, marks=needs_fork), False], ids=["processes", "threads"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What workers are."""
    monkeypatch.setattr(workers, "_CAN_FORK", request.param)


def failing(error: BaseException) -> Callable[[int], int]:
    def work(job: int) -> int:
        if job == 5:
            raise error
        return 1

    return work


@pytest.mark.usefixtures("kind")
def test_a_mistake_found_by_a_worker_is_one_error() -> None:
    with pytest.raises(ShapeError, match="^targets 3 – 4 are wrong:\nuse others$") as caught:
        run_jobs(failing(ShapeError("targets 3 – 4 are wrong:\nuse others")), JOBS, 2)
    assert caught.value.__cause__ is None


@pytest.mark.usefixtures("kind")
def test_a_crash_in_a_worker_shows_where() -> None:
    with pytest.raises(ZeroDivisionError, match="here") as caught:
        run_jobs(failing(ZeroDivisionError("here")), JOBS, 2)
    shown = "".join(traceback.format_exception(caught.value))  # with what a process sent along
    assert "in work" in shown


@pytest.mark.usefixtures("kind")
def test_a_worker_without_memory_is_an_input_error() -> None:
    """None was killed, so none is said to have been."""
    with pytest.raises(InputError, match="^memory ran out: use fewer threads"):
        run_jobs(failing(MemoryError()), JOBS, 2)


@pytest.mark.usefixtures("kind")
def test_nothing_runs_on_after_an_error() -> None:
    """A busy worker has ended, one way or the other, when the error is raised; what was waiting never starts."""
    done, busy = shared_array((8,), np.int32), shared_array((1,), np.int32)

    def work(job: int) -> int:
        if job == 0:
            while not busy[0]:
                time.sleep(0.001)
            raise ZeroDivisionError
        busy[0] = 1
        time.sleep(0.2)
        done[job] = 1
        return job

    with pytest.raises(ZeroDivisionError):
        run_jobs(work, JOBS, 2)
    left = done.copy()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("solver")]
    time.sleep(0.3)
    np.testing.assert_array_equal(done, left)
    assert done.sum() < 7


@needs_fork
def test_a_killed_worker_is_reported() -> None:
    def work(job: int) -> int:
        if job == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1

    with pytest.raises(InputError, match="was killed .* memory ran out: use fewer threads"):
        run_jobs(work, JOBS, 2)


@needs_fork
def test_an_interrupt_ends_workers_that_are_still_busy() -> None:
    def work(job: int) -> int:
        if job >= 2:
            time.sleep(FOR_EVER)
        return 1

    def stop(_result: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(work, JOBS, 2, stop)


@needs_fork
def test_control_c_while_waiting_ends_the_workers() -> None:
    """Pressed by a worker, as soon as it knows that the caller listens."""
    listens = shared_array((1,), np.int32)

    def work(job: int) -> int:
        if job < 2:
            return 1
        while job == 2 and not listens[0]:
            time.sleep(0.001)
        if job == 2:
            os.kill(os.getppid(), signal.SIGINT)
        time.sleep(FOR_EVER)
        return 1

    def listening(_result: int) -> None:
        listens[0] = 1

    # A test run started in the background has SIGINT ignored; Python then installs no handler of its own.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_jobs(work, JOBS, 2, listening)
    finally:
        signal.signal(signal.SIGINT, before)


# Writes its workers' process ids, and is killed while they are busy.
_CALLER = """
import os, sys, time
from minddiffuser.training.solvers.workers import run_jobs
def work(job):
    os.write(1, f"{os.getpid()}\\n".encode())
    time.sleep(3600)
run_jobs(work, range(8), 2)
"""


@needs_fork
def test_no_worker_outlives_a_caller_that_was_killed() -> None:
    caller = subprocess.Popen([sys.executable, "-c", _CALLER], stdout=subprocess.PIPE)
    assert caller.stdout is not None
    workers = [int(caller.stdout.readline()) for _ in range(2)]
    assert len(set(workers)) == 2
    caller.kill()
    caller.wait()
    assert caller.stdout.read() == b""  # the end of the file: every worker, which has it open too, is gone
    caller.stdout.close()


@needs_fork
def test_no_worker_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(InputError, match=r"cannot be started \(Cannot allocate memory\): use fewer threads"):
        run_jobs(lambda job: 1, JOBS, 2)


@needs_fork
def test_other_threads_cause_no_warning() -> None:
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run_jobs(lambda job: 1, JOBS, 2)
    finally:
        stop.set()
        other.join()
