"""What is asked of the garbage collector, and that it is put back."""

from __future__ import annotations

import gc
import weakref

import pytest

from minddiffuser.export.memory import give_back, uncollected


class Node:
    def __init__(self) -> None:
        self.itself = self


def test_cycles_are_given_back() -> None:
    with uncollected():
        node = weakref.ref(Node())
        assert not gc.isenabled()
        assert node() is not None
    assert gc.isenabled()
    give_back()
    assert node() is None


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_left_as_it_was(on: bool) -> None:
    (gc.enable if on else gc.disable)()
    try:
        with pytest.raises(KeyError), uncollected():
            raise KeyError
        assert gc.isenabled() == on
    finally:
        gc.enable()
