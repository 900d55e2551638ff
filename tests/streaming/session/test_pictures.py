"""The workers of several devices as one."""

from __future__ import annotations

from typing import Any

import pytest

from minddiffuser.streaming.decoding.decode import DecodeSettings
from minddiffuser.streaming.session import pictures
from minddiffuser.streaming.session.settings import LiveSettings


def test_every_device_knows_of_the_end_before_one_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one would refine a picture that was due long ago while another finishes its own."""
    said: list[tuple[str, int]] = []

    class Worker:
        def __init__(self, *_given: Any, device: int, **_named: Any) -> None:
            self._device = device

        def end(self) -> None:
            said.append(("end", self._device))

        def close(self) -> None:
            said.append(("close", self._device))

    monkeypatch.setattr(pictures, "Painter", Worker)
    backends: list[Any] = [None, None]
    nobody: Any = None
    settings = LiveSettings(decode=DecodeSettings(session="s"))
    made = pictures.Pictures(
        backends, settings, nobody, nobody, nobody, notice=lambda *_given: None, post=lambda _message: None,
        now=lambda: 0.0,
    )  # fmt: skip
    made.close()
    assert said == [("end", 0), ("end", 1), ("close", 0), ("close", 1)]
