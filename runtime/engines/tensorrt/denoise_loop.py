"""The whole denoising loop as one CUDA graph: the host queues a single launch for all steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...closing import Closing
from ...errors import InputError, ShapeError
from ..cuda.device import size_bytes
from .context import Session, Shape
from .engine import TrtEngine
from .library import ALIGNMENT, TrtFailure

_INPUTS = ("latent", "step", "context", "uncond_context", "guidance")
_OUTPUT = "next_latent"
_FIXED = ("context", "uncond_context", "guidance")
_Key = tuple[object, ...]
# Each recording holds a context and its buffers: more shapes than this are hardly used in turn.
_MOST = 4


@dataclass(frozen=True, eq=False)
class _Recording:
    """A CUDA graph, and everything that it must find where it was."""

    session: Session
    buffers: Mapping[str, Any]
    graph: Any
    addresses: tuple[int, ...]


class DenoiseLoop(Closing):
    """Guided DDIM over a `denoise` engine, all steps in one CUDA graph.

    The graph is recorded once for each batch size and number of steps, after one run outside of it, and replayed as
    long as every buffer that it saw is where it was; otherwise it is recorded anew. Inputs are copied into buffers of
    the loop's own, and results out of them, so callers' arrays may move.

    Parameters
    ----------
    denoise : TrtEngine
        With inputs latent (batch, 4, h, w), step (3,), context (batch, n_tokens, d_text), uncond_context
        (n_tokens, d_text) and guidance (1,), output next_latent; float32. The loop ends with it: close the loop first.

    Raises
    ------
    InputError
        The engine has other inputs or outputs.
    """

    def __init__(self, denoise: TrtEngine) -> None:
        if set(denoise.inputs) != set(_INPUTS) or set(denoise.outputs) != {_OUTPUT}:
            raise InputError(
                f"the loop needs an engine with inputs {', '.join(_INPUTS)} and output {_OUTPUT}, "
                f"{denoise.name!r} has {', '.join(denoise.inputs)} and {', '.join(denoise.outputs)}"
            )
        self._denoise = denoise
        self._cuda = denoise.cuda
        self._recordings: dict[_Key, _Recording] = {}

    def run(
        self,
        latent: Any,
        coefficients: NDArray[np.float32],
        *,
        context: Any,
        uncond_context: Any,
        guidance: Any,
    ) -> Any:
        """Denoise; queued like :meth:`TrtEngine.run`, without waiting.

        Parameters
        ----------
        latent, context, uncond_context, guidance
            As the engine takes them: arrays of the device, or numpy.
        coefficients : float32 array of shape (n_steps, 3), numpy
            Rows (timestep, latent_scale, noise_scale), first step first.

        Returns
        -------
        array on the device
            The latents of all steps, (n_steps + 1, batch, 4, h, w), the first being `latent` itself. The caller's to
            keep.
        """
        table = _padded(coefficients)
        given = {"latent": latent, "context": context, "uncond_context": uncond_context, "guidance": guidance}
        self._denoise.check({**given, "step": table[0, :3]})
        self._cuda.enter()
        try:
            recording = self._recording(len(table), {name: tuple(map(int, a.shape)) for name, a in given.items()})
            return self._replay(recording, table, given)
        finally:
            self._cuda.leave()

    def close(self) -> None:
        """Free the recordings; the engine stays open."""
        if self._recordings:
            self._cuda.synchronise()
        for recording in self._recordings.values():
            recording.session.close()
        self._recordings.clear()

    def _replay(self, recording: _Recording, table: NDArray[np.float32], given: Mapping[str, Any]) -> Any:
        cuda, buffers = self._cuda, recording.buffers
        latents = buffers["latents"]
        cuda.copy(cuda.row(latents, 0), given["latent"])
        cuda.copy(buffers["table"], table)
        for name in _FIXED:
            cuda.copy(buffers[name], given[name])
        cuda.launch(recording.graph)
        result = cuda.allocate(latents.shape, "float32")
        cuda.copy(result, latents)
        return result

    def _recording(self, n_steps: int, shapes: Mapping[str, Shape]) -> _Recording:
        key: _Key = (n_steps, *shapes.values())
        known = self._recordings.pop(key, None)
        if known is None:
            while len(self._recordings) >= _MOST:
                self._cuda.synchronise()
                self._recordings.pop(next(iter(self._recordings))).session.close()
            buffers = self._new_buffers(n_steps, shapes)
            known = self._record(self._denoise.new_session(), buffers, n_steps)
        elif known.addresses != self._addresses(known.buffers):
            known = self._record(known.session, known.buffers, n_steps)
        self._recordings[key] = known  # the latest comes last
        return known

    def _new_buffers(self, n_steps: int, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        latent = shapes["latent"]
        if size_bytes(latent, "float32") % ALIGNMENT:
            raise ShapeError(
                f"latents of shape {latent} do not fill whole blocks of {ALIGNMENT} bytes: "
                "use pictures whose sides are multiples of 32 pixels"
            )
        buffers = {name: self._cuda.allocate(shapes[name], "float32") for name in _FIXED}
        buffers["latents"] = self._cuda.allocate((n_steps + 1, *latent), "float32")
        buffers["table"] = self._cuda.allocate((n_steps, ALIGNMENT // 4), "float32")
        return buffers

    def _addresses(self, buffers: Mapping[str, Any]) -> tuple[int, ...]:
        arena = self._denoise.arena
        return (*(self._cuda.pointer(buffers[name]) for name in sorted(buffers)), arena.pointer, arena.size)

    def _record(self, session: Session, buffers: Mapping[str, Any], n_steps: int) -> _Recording:
        cuda = self._cuda
        latents = buffers["latents"]
        shapes = {name: tuple(buffers[name].shape) for name in _FIXED}
        session.set_shapes({**shapes, "latent": tuple(latents.shape[1:]), "step": (3,)})
        session.set_addresses({name: cuda.pointer(buffers[name]) for name in _FIXED})
        where = [cuda.pointer(cuda.row(latents, i)) for i in range(n_steps + 1)]
        rows = [cuda.pointer(cuda.row(buffers["table"], i)) for i in range(n_steps)]

        def step(i: int) -> None:
            session.set_addresses({"latent": where[i], "step": rows[i], _OUTPUT: where[i + 1]})
            session.enqueue()

        # TensorRT does what a new shape needs at the first run; a recording must not hold that.
        step(0)
        cuda.synchronise()
        if not session.is_recordable():
            raise TrtFailure(
                f"the plan of {self._denoise.name!r} cannot be recorded in a CUDA graph: "
                "build it again with this release, or run the engine step by step"
            )

        def every_step() -> None:
            for i in range(n_steps):
                step(i)

        return _Recording(session, buffers, cuda.record(every_step), self._addresses(buffers))


def _padded(coefficients: NDArray[np.float32]) -> NDArray[np.float32]:
    """The table with rows of 256 bytes, so that each can be an input of its own."""
    given = np.asarray(coefficients)
    if given.dtype != np.float32 or given.ndim != 2 or given.shape[1] != 3 or len(given) == 0:
        raise ShapeError(
            f"the table of coefficients is {given.dtype} {given.shape}, expected float32 (n_steps, 3), on the host"
        )
    table = np.zeros((len(given), ALIGNMENT // 4), np.float32)
    table[:, :3] = given
    return table
