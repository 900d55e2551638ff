from __future__ import annotations

import itertools
from queue import SimpleQueue
from typing import Any

import numpy as np

from minddiffuser.runtime.backends.base import Backend
from minddiffuser.streaming.decoding.decode import DecodeSettings, EpochDecoder
from minddiffuser.streaming.decoding.worker import DecodeWorker, StandsBeside, WasDecoded, WasNotDecoded


def test_every_epoch_is_decoded_in_its_order_and_a_bad_one_stops_nothing(
    backend: Backend[Any], epochs: np.ndarray
) -> None:
    posted: SimpleQueue[Any] = SimpleQueue()
    ticks = itertools.count()
    epochs[3, 1, 2] = np.nan
    worker = DecodeWorker(EpochDecoder(backend, DecodeSettings(session="s")), posted.put, lambda: float(next(ticks)))
    for row in range(8):
        worker.put(row, "cat", epochs[row])
    worker.close()
    found = [posted.get_nowait() for _ in range(posted.qsize())]
    ends = [one for one in found if not isinstance(one, StandsBeside)]
    numbers = [one.epoch.ordinal if isinstance(one, WasDecoded) else one.ordinal for one in ends]
    assert numbers == list(range(8))
    assert [isinstance(one, WasNotDecoded) for one in ends] == [row == 3 for row in range(8)]
    assert all(one.started < one.done for one in ends)
    assert len(found) - len(ends) == 7
    assert worker.n_waiting == 0


def test_a_control_that_fails_is_said_and_costs_nothing(backend: Backend[Any], epochs: np.ndarray) -> None:
    posted: SimpleQueue[Any] = SimpleQueue()
    decoder = EpochDecoder(backend, DecodeSettings(session="s"))

    def fail(_decoded: Any) -> str | None:
        raise MemoryError("no room")

    decoder.after = fail  # type: ignore[method-assign]
    worker = DecodeWorker(decoder, posted.put, lambda: 0.0)
    worker.put(0, "cat", epochs[0])
    worker.close()
    assert isinstance(posted.get_nowait(), WasDecoded)
    beside = posted.get_nowait()
    assert "the control of marker 0 could not be computed (MemoryError: no room)" in beside.said


def test_a_fault_of_the_program_costs_one_epoch_and_not_those_behind_it(
    backend: Backend[Any], epochs: np.ndarray
) -> None:
    posted: SimpleQueue[Any] = SimpleQueue()
    decoder = EpochDecoder(backend, DecodeSettings(session="s"))
    decode = decoder.decode

    def fail_once(ordinal: int, text: str, epoch: np.ndarray) -> Any:
        if ordinal == 0:
            raise MemoryError("no room")
        return decode(ordinal, text, epoch)

    decoder.decode = fail_once  # type: ignore[method-assign]
    worker = DecodeWorker(decoder, posted.put, lambda: 0.0)
    worker.put(0, "cat", epochs[0])
    worker.put(1, "cat", epochs[1])
    worker.close()
    failed, decoded = posted.get_nowait(), posted.get_nowait()
    assert (failed.ordinal, failed.state) == (0, "refused")
    assert failed.reason == "it could not be decoded (MemoryError: no room)"
    assert decoded.epoch.ordinal == 1
