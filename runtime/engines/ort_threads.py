"""One pool of CPU threads for all sessions of the process."""

from __future__ import annotations

from typing import Any

_asked: list[int] = []  # the pool's size, once it was made; ONNX Runtime makes it once in a process


def shared_pool(onnxruntime: Any, threads: int | None) -> bool:
    """Whether sessions can share a pool of `threads` threads (None: one per physical core), making it if need be.

    Sessions with pools of their own leave threads spinning on each other's cores. The first size asked for in a
    process is the pool's; sessions that ask for another get their own.
    """
    size = threads or 0
    if not _asked:
        try:
            onnxruntime.set_global_thread_pool_sizes(size, 1)
        except Exception:  # another library in the process was first, or an onnxruntime without the call
            _asked.append(-1)
        else:
            _asked.append(size)
    return _asked[0] == size
