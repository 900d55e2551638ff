"""Messages on their way from acquisition to the session."""

from __future__ import annotations

import multiprocessing
import os
import struct
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest

from minddiffuser.streaming.intake.events import REFUSED, Accepted, EpochTimes, Refused
from minddiffuser.streaming.session.acquisition import Arrived, Happened
from minddiffuser.streaming.session.pipe import receive, send, widen

TIMES = EpochTimes(
    marker=1.0, marker_arrived=1.1, epoch_end=1.6, ready=1.61, sample_age=0.01, offset=0.5, uncertainty=1e-4
)


@pytest.fixture
def ends() -> Iterator[tuple[Connection, Connection]]:
    """The reading and the writing end of one pipe."""
    reader, writer = multiprocessing.get_context("spawn").Pipe(duplex=False)
    widen(writer)
    yield reader, writer
    reader.close()
    writer.close()


def through(ends: tuple[Connection, Connection], message: Any) -> Any:
    """What comes out: written by a thread, as a message may be larger than the pipe."""
    reader, writer = ends
    sending = threading.Thread(target=send, args=(writer, message))
    sending.start()
    received = receive(reader)
    sending.join()
    return received


def accepted(ordinal: int, data: Any) -> Accepted:
    return Accepted(ordinal=ordinal, text=f"cat {ordinal}", data=data, segment=0, sample=250, times=TIMES)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_epochs_arrive_bit_by_bit_and_in_their_places(ends: tuple[Connection, Connection], dtype: Any) -> None:
    rng = np.random.default_rng(0)
    large = rng.standard_normal((306, 701)).astype(dtype)
    large[0, :3] = np.nan, np.inf, -0.0
    small = rng.standard_normal((2, 9)).astype(dtype)[:, ::2]  # not one piece of memory
    refused = Refused(ordinal=1, text="dog", state=REFUSED, reason="the epoch touches a break", at=2.0)
    sent = Happened(events=(accepted(0, large), refused, accepted(2, small)))
    received = through(ends, sent)
    assert isinstance(received, Happened)
    first, second, third = received.events
    assert second == refused
    for one, data in ((first, large), (third, small)):
        assert isinstance(one, Accepted)
        assert one.data.dtype == data.dtype
        assert one.data.shape == data.shape
        assert one.data.tobytes() == data.tobytes()
        assert one.times == TIMES
        with pytest.raises(ValueError, match="read-only"):
            one.data[0, 0] = 0
    assert [event.ordinal for event in received.events if isinstance(event, Accepted | Refused)] == [0, 1, 2]
    assert sent.events[0].data is large  # what was sent is still whole


def test_other_messages_arrive_as_they_are(ends: tuple[Connection, Connection]) -> None:
    arrived = Arrived(ordinal=3, text="cat", at=4.5)
    assert through(ends, arrived) == arrived
    assert through(ends, Happened(events=())).events == ()


def test_an_epoch_without_values_arrives(ends: tuple[Connection, Connection]) -> None:
    received = through(ends, Happened(events=(accepted(0, np.empty((3, 0), np.float32)),)))
    assert received.events[0].data.shape == (3, 0)


def test_a_writer_that_is_gone_is_said(ends: tuple[Connection, Connection]) -> None:
    reader, writer = ends
    writer.close()
    with pytest.raises(EOFError):
        receive(reader)


def test_a_writer_that_goes_between_two_epochs_of_a_message_is_said(ends: tuple[Connection, Connection]) -> None:
    reader, writer = ends
    small = np.ones((2, 3), np.float32)
    sent: list[Any] = []

    class Dying:
        """The writing end, which closes before the second epoch."""

        def send(self, message: Any) -> None:
            writer.send(message)

        def send_bytes(self, data: Any) -> None:
            if sent:
                writer.close()
            sent.append(bytes(data))
            writer.send_bytes(data)

    with pytest.raises(OSError, match="closed"):
        send(Dying(), Happened(events=(accepted(0, small), accepted(1, small))))  # type: ignore[arg-type]
    with pytest.raises(EOFError):
        receive(reader)


def test_a_writer_that_is_killed_within_an_epoch_is_said(ends: tuple[Connection, Connection]) -> None:
    reader, writer = ends
    large = np.ones((306, 701), np.float32)
    writer.send((Happened(events=(accepted(0, large[:0, 0]),)), [(large.dtype.str, large.shape)]))
    os.write(writer.fileno(), struct.pack("!i", large.nbytes) + large.tobytes()[:1000])
    writer.close()
    with pytest.raises((EOFError, OSError)):
        receive(reader)


def test_a_reader_that_is_gone_is_said(ends: tuple[Connection, Connection]) -> None:
    reader, writer = ends
    reader.close()
    with pytest.raises(BrokenPipeError):
        send(writer, Happened(events=(accepted(0, np.zeros((306, 701), np.float32)),)))
