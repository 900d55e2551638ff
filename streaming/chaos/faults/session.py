"""Faults of a session's own parts: a decoder that is slow, raises or gives NaN, a disk, a browser that never reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from ....runtime.decoders.belonging import Decoded
from ..parts import Parts
from .base import End

SLOW, RAISES, NAN = "slow-decoder", "raising-decoder", "nan-decoder"
REASONS: Mapping[str, str] = {
    RAISES: "the decoder failed (",
    NAN: "what was decoded holds NaN or infinite values",
}
"""How the reason begins for which a session refuses an epoch that such a fault hits."""

_NO_NUMBERS = (np.nan, np.inf, -np.inf)
# Of bytes that a disk takes before it is full: less than what a second of most signals takes.
_MOST_LEFT = 5000
_ERRORS = (
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    MemoryError(),
    ValueError("operands could not be broadcast together"),
    KeyError("latent"),
    OSError("the engine's file is gone"),
)


def slow_decoder(rng: Generator, parts: Parts) -> End:
    """The epoch that is decoded is not done before the fault's end, and all behind it wait."""
    held = parts.held()

    def wait(decoded: Decoded) -> Decoded:
        held.wait()
        return decoded

    return _decoder(parts, SLOW, wait, held.go)


def raising_decoder(rng: Generator, parts: Parts) -> End:
    """Every epoch makes the decoder raise something."""

    def fail(decoded: Decoded) -> Decoded:
        raise _ERRORS[int(rng.integers(len(_ERRORS)))]

    return _decoder(parts, RAISES, fail)


def nan_decoder(rng: Generator, parts: Parts) -> End:
    """One number of every epoch's features is NaN or infinite."""

    def spoil(decoded: Decoded) -> Decoded:
        name = ("context", "latent", "structure")[int(rng.integers(3))]
        spoilt = getattr(decoded, name).copy()
        spoilt.flat[int(rng.integers(spoilt.size))] = _NO_NUMBERS[int(rng.integers(3))]
        return replace(decoded, **{name: spoilt})

    return _decoder(parts, NAN, spoil)


def _decoder(parts: Parts, kind: str, disturb: object, then: End = lambda: None) -> End:
    before, parts.decoder = parts.decoder, (kind, disturb)  # type: ignore[assignment]

    def end() -> None:
        parts.decoder = before
        then()

    return end


def full_disk(rng: Generator, parts: Parts) -> End:
    """The disk takes a few bytes more, perhaps in the middle of something, and then none until the end."""
    parts.disk.fill(int(rng.integers(_MOST_LEFT)))
    return lambda: None


def hung_disk(rng: Generator, parts: Parts) -> End:
    """The disk does not answer; then it does."""
    held = parts.held()
    parts.disk.hang(held)

    def end() -> None:
        parts.disk.hang(None)
        held.go()

    return end


def silent_page(rng: Generator, parts: Parts) -> End:
    """A browser opens the page, and never reads."""
    return parts.open_page().close
