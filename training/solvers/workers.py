"""Workers for many small linear-algebra problems: ours over the problems, one BLAS thread inside each.

On Linux the workers are forked processes: the wrappers of numpy and scipy hold Python's lock for most of such a
problem, so two threads gain 1.4x where two processes gain 2x. A fork inherits all inputs without a copy, and results
go into :func:`shared_array`. Elsewhere the workers are threads.
"""

from __future__ import annotations

import gc
import math
import mmap
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...runtime.errors import InputError, MindDiffuserError
from ...runtime.progress import unheard

Job = TypeVar("Job")
OnDone = Callable[[int], None]

_CAN_FORK = sys.platform == "linux"


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
    """Run `work` on every job; `on_done` receives, in this thread, what each returned.

    With fewer than two jobs per worker, fewer workers start; a single one is this thread itself. A worker sees what
    existed before the call, and what it changes is lost unless it lies in a :func:`shared_array`. `work` should call
    numpy and scipy only, inside :func:`single_threaded_blas`.

    Raises
    ------
    InputError
        A worker was killed, or ran out of memory, or none can be started.
    MindDiffuserError
        The first of a worker's.

    Notes
    -----
    Any exception, of a job or of `on_done`, ends all workers before it is raised; threads end with the job that they
    are at.
    """
    on_done = on_done or unheard
    n_workers = min(n_workers, len(jobs) // 2)
    if n_workers <= 1:
        for job in jobs:
            on_done(work(job))
        return
    pool = _pool(work, n_workers)
    try:
        with _starting():
            futures = [pool.submit(_do, job) for job in jobs]
        for future in as_completed(futures):
            on_done(future.result())
        pool.shutdown()
    except BaseException as error:
        _end(pool)
        if isinstance(error, MindDiffuserError):  # the worker's own traceback says nothing to a user
            raise error from None
        if isinstance(error, BrokenProcessPool):
            raise InputError(
                "a worker process was killed before its work was done, most likely because memory ran out: "
                "use fewer threads, or close other programs"
            ) from None
        if isinstance(error, MemoryError):
            raise InputError("memory ran out: use fewer threads, or close other programs") from None
        raise


def _pool(work: Callable[[Any], int], n_workers: int) -> Executor:
    if not _CAN_FORK:
        return ThreadPoolExecutor(n_workers, thread_name_prefix="solver", initializer=_begin, initargs=(work,))
    # What the initialiser of a forked worker gets is inherited, not pickled: `work` is a closure over mapped arrays.
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(n_workers, mp_context=context, initializer=_begin, initargs=(work,))


# What a worker does with each job: of one process, or of one thread.
_mine = threading.local()


def _begin(work: Callable[[Any], int]) -> None:
    _mine.work = work
    parent = multiprocessing.parent_process()
    if _CAN_FORK and parent is not None:
        gc.disable()  # the caller's garbage, with its finalizers, is the caller's
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nor is the caller's handler ours to run
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    """No worker outlives a caller that was killed."""
    parent.join()
    os._exit(1)


def _do(job: Any) -> int:
    done: int = _mine.work(job)
    return done


@contextmanager
def _starting() -> Iterator[None]:
    """Ctrl-C waits while workers start, and never reaches them: the caller decides what it ends."""
    if not _CAN_FORK:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns that a lock held by another thread stays locked in the child. The workers compute with
            # numpy and scipy on one BLAS thread, and take none of those.
            warnings.filterwarnings("ignore", r".*multi-threaded, use of fork\(\)", DeprecationWarning)
            yield
    except OSError as error:
        raise InputError(f"worker processes cannot be started ({error.strerror}): use fewer threads") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(pool: Executor) -> None:
    """Leave neither a process nor a zombie behind, whatever the workers are doing."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    for process in processes:  # what Executor.kill_workers does from Python 3.14 on
        process.kill()
    pool.shutdown(cancel_futures=True)  # waits for threads, which cannot be ended: each for the job that it is at
    for process in processes:
        process.join()
