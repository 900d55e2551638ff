"""One pool of CPU threads for all sessions of the process, where the process is ours to set up."""

from __future__ import annotations

from typing import Any

_pool: list[int] = []  # its size, once it was made: ONNX Runtime makes it once in a process


def uses_pool(onnxruntime: Any, threads: int | None, *, share: bool) -> bool:
    """Whether a new session is to use the process's pool, which is made if `share` asks for it.

    Once there is a pool, ONNX Runtime refuses every session in the process that wants threads of its own: a command
    may ask for one, a library may not. `threads` is the pool's size; the first that is asked for stays.
    """
    if not _pool and share:
        try:
            onnxruntime.set_global_thread_pool_sizes(threads or 0, 1)
        except Exception:  # another library of the process was first, or an onnxruntime without the call
            return False
        _pool.append(threads or 0)
    return bool(_pool)
