"""The dashboard's server under test."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from local_page import WAIT_S, LocalPage

from minddiffuser.streaming.dashboard.hub import Hub

PATIENCE_S = 0.3


def until(true: Callable[[], bool]) -> None:
    """Wait for what must happen."""
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


@dataclass
class Served(LocalPage):
    """A server under test."""

    hub: Hub
    server: Any
    said: list[str] = field(default_factory=list)
