from __future__ import annotations

from typing import Any

import pytest
from session_world import World

from minddiffuser.runtime.backends.base import Backend


@pytest.fixture
def world(backend: Backend[Any]) -> World:
    return World(backend)


@pytest.fixture
def markers() -> list[tuple[float, str]]:
    """One in the warm-up, one that is no event, a dozen others, and one too near the end."""
    events = ("stim/cat", "stim/dog", "stim/fish")
    dozen = [(4.0 + number, events[number % 3]) for number in range(12)]
    return [(0.5, "stim/cat"), (3.0, "block/1"), *dozen, (19.9, "stim/dog")]
