"""Threads for many small linear-algebra problems: ours over the problems, one each inside BLAS."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Job = TypeVar("Job")


def usable_cpus() -> int:
    """How many CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def single_threaded_blas() -> Iterator[bool]:
    """Keep BLAS to one thread inside; give whether that was possible (it needs threadpoolctl).

    Factorising a few hundred columns on several BLAS threads is slower than on one, and our own threads
    would fight with those of BLAS.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield False
        return
    with threadpool_limits(limits=1, user_api="blas"):
        yield True


def run_jobs(
    work: Callable[[Job], int], jobs: Sequence[Job], n_threads: int, on_done: Callable[[int], None] | None = None
) -> None:
    """Run `work` on every job; `on_done` receives, in this thread, what each returned, in the order of `jobs`.

    The first exception, of a job or of `on_done`, cancels the jobs that have not started and is raised.
    """
    if n_threads == 1 or len(jobs) == 1:
        for job in jobs:
            result = work(job)
            if on_done is not None:
                on_done(result)
        return
    with ThreadPoolExecutor(n_threads, thread_name_prefix="solver") as pool:
        futures = [pool.submit(work, job) for job in jobs]
        try:
            for future in futures:
                result = future.result()
                if on_done is not None:
                    on_done(result)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
