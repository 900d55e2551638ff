"""Silence libraries while models are opened: what matters is checked by us and reported in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers.utils.logging
import transformers.utils.logging


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and loading reports of diffusers and transformers."""
    voices: list[Any] = [diffusers.utils.logging, transformers.utils.logging]  # half of them is untyped
    levels = [voice.get_verbosity() for voice in voices]
    bars = voices[1].is_progress_bar_enabled()
    voices[1].disable_progress_bar()
    for voice in voices:
        voice.set_verbosity(50)  # above errors: diffusers reports one before it raises the same
    try:
        yield
    finally:
        for voice, level in zip(voices, levels, strict=True):
            voice.set_verbosity(level)
        if bars:
            voices[1].enable_progress_bar()


def first_line(error: BaseException) -> str:
    """The first line of an error that says something, and the next where that only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
