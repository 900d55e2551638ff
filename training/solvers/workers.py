"""Workers for many small linear-algebra problems: ours over the problems, one BLAS thread inside each.

On Linux the workers are forked processes: the wrappers of numpy and scipy hold Python's lock for most of such a
problem, so two threads gain 1.4x where two processes gain 2x. A fork inherits all inputs without a copy; results
go into :func:`shared_array`, and one pipe per worker tells how far it is. Elsewhere the workers are threads.
"""

from __future__ import annotations

import gc
import math
import mmap
import os
import selectors
import signal
import struct
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...runtime.errors import InputError, MindDiffuserError

Job = TypeVar("Job")
OnDone = Callable[[int], None]

_CAN_FORK = hasattr(os, "fork") and sys.platform == "linux"
# What a worker writes: the result of a job, or one of the two below and then text to the end of the pipe.
_NUMBER = struct.Struct("<q")
_REFUSED, _CRASHED = -1, -2


@contextmanager
def single_threaded_blas() -> Iterator[bool]:
    """Keep BLAS to one thread inside; give whether that was possible (it needs threadpoolctl).

    Factorising a few hundred columns on several BLAS threads is slower than on one, and our own workers
    would fight with those of BLAS.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield False
        return
    with threadpool_limits(limits=1, user_api="blas"):
        yield True


def shared_array(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Zeros that a worker of :func:`run_jobs` may write and the caller reads; `shape` without a 0."""
    memory = mmap.mmap(-1, math.prod(shape) * np.dtype(dtype).itemsize)
    return np.frombuffer(memory, dtype).reshape(shape)


def run_jobs(work: Callable[[Job], int], jobs: Sequence[Job], n_workers: int, on_done: OnDone | None = None) -> None:
    """Run `work` on every job; `on_done` receives, in this thread, what each returned (at least 0).

    With fewer than two jobs per worker, fewer workers start; a single one is this thread itself. A worker sees what
    existed before the call, and what it changes is lost unless it lies in a :func:`shared_array`. `work` should call
    numpy and scipy only, inside :func:`single_threaded_blas`.

    Raises
    ------
    InputError
        With the message of the first MindDiffuserError in a worker; or when a worker was killed.

    Notes
    -----
    Any exception, of a job or of `on_done`, ends all workers before it is raised.
    """
    on_done = on_done or _ignore
    n_workers = min(n_workers, len(jobs) // 2)
    if n_workers <= 1:
        for job in jobs:
            on_done(work(job))
    elif _CAN_FORK:
        _run_forked(work, jobs, n_workers, on_done)
    else:
        _run_threads(work, jobs, n_workers, on_done)


def _ignore(_result: int) -> None:
    pass


def _run_threads(work: Callable[[Job], int], jobs: Sequence[Job], n_workers: int, on_done: OnDone) -> None:
    with ThreadPoolExecutor(n_workers, thread_name_prefix="solver") as pool:
        futures = [pool.submit(work, job) for job in jobs]
        try:
            for future in futures:
                on_done(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_forked(work: Callable[[Job], int], jobs: Sequence[Job], n_workers: int, on_done: OnDone) -> None:
    workers: list[_Worker] = []
    try:
        with _signals_held():
            for first in range(n_workers):
                workers.append(_start(work, jobs[first::n_workers], workers))
        _listen(workers, on_done)
    finally:
        with _signals_held():
            for worker in workers:
                worker.end()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Ctrl-C waits, so that no process is forked and not noted, or noted and not ended."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Worker:
    """The caller's side of one process."""

    def __init__(self, pid: int, reader: int, n_jobs: int) -> None:
        self.reader = reader
        self._pid, self._n_jobs, self._n_done = pid, n_jobs, 0
        self._unread = b""
        self._status: int | None = None

    def received(self, data: bytes) -> list[int]:
        """Results that are complete with `data`."""
        self._unread += data
        results = []
        while len(self._unread) >= _NUMBER.size:
            number = _NUMBER.unpack_from(self._unread)[0]
            if number < 0:
                break
            results.append(number)
            self._unread = self._unread[_NUMBER.size :]
        self._n_done += len(results)
        return results

    def closed(self) -> None:
        """The pipe has ended: raise unless the work is done."""
        status = self._reap()
        if len(self._unread) >= _NUMBER.size:
            text = self._unread[_NUMBER.size :].decode(errors="replace")
            if _NUMBER.unpack_from(self._unread)[0] == _REFUSED:
                raise InputError(text)
            raise RuntimeError(f"a worker process failed:\n{text}")
        if self._n_done < self._n_jobs:
            how = f"was killed by signal {-status}" if status < 0 else f"ended with exit code {status}"
            raise InputError(
                f"a worker process {how} before its work was done, most likely because memory ran out: "
                "use fewer threads, or close other programs"
            )

    def end(self) -> None:
        """Leave neither a process nor a zombie nor an open pipe."""
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._reap()
        os.close(self.reader)

    def _reap(self) -> int:
        self._status = 1
        with suppress(ChildProcessError):  # a program that ignores SIGCHLD has its children reaped by the kernel
            self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._status


def _start(work: Callable[[Job], int], jobs: Sequence[Job], others: Sequence[_Worker]) -> _Worker:
    pipe: tuple[int, ...] = ()
    try:
        reader, writer = pipe = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns that a lock held by another thread stays locked in the child. Ours takes none of
            # those: it computes with numpy and scipy on one BLAS thread, writes to its pipe and leaves by _exit.
            warnings.filterwarnings("ignore", r".*multi-threaded, use of fork\(\)", DeprecationWarning)
            pid = os.fork()
    except OSError as error:
        for end in pipe:
            os.close(end)
        raise InputError(f"worker processes cannot be started ({error.strerror}): use fewer threads") from error
    if pid == 0:
        try:
            for other in others:
                os.close(other.reader)
            _serve(work, jobs, writer)
        finally:
            os._exit(1)
    os.close(writer)
    return _Worker(pid, reader, len(jobs))


def _serve(work: Callable[[Job], int], jobs: Sequence[Job], writer: int) -> NoReturn:
    """The whole life of a worker process."""
    # Ctrl-C reaches the whole process group; the caller decides. Its handler of SIGTERM is not ours to run.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    gc.disable()  # the caller's garbage, with its finalizers, is the caller's
    try:
        for job in jobs:
            _write(writer, _NUMBER.pack(work(job)))
    except MindDiffuserError as error:
        _write(writer, _NUMBER.pack(_REFUSED) + str(error).encode())
    except MemoryError:
        os._exit(1)
    except BaseException:
        _write(writer, _NUMBER.pack(_CRASHED) + traceback.format_exc().encode())
    os._exit(0)


def _write(writer: int, data: bytes) -> None:
    while data:
        data = data[os.write(writer, data) :]


def _listen(workers: Sequence[_Worker], on_done: OnDone) -> None:
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.reader, selectors.EVENT_READ, worker)
        while selector.get_map():
            for key, _events in selector.select():
                data = os.read(key.data.reader, 1 << 16)
                for result in key.data.received(data):
                    on_done(result)
                if not data:
                    selector.unregister(key.data.reader)
                    key.data.closed()
