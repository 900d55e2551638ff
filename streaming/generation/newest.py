"""A bounded queue that gives the newest first: in a live session an old picture is worth less than a new one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Newest(Generic[T]):
    """What waits to be drawn, at most `capacity` of it; from any thread.

    Parameters
    ----------
    capacity
        1 or more.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: list[T] = []
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: T) -> list[T]:
        """Add one; those, oldest first, that had to make room for it. Once closed, that is the item itself."""
        with self._changed:
            if self._closed:
                return [item]
            self._items.append(item)
            over = len(self._items) - self._capacity
            dropped, self._items = self._items[: max(over, 0)], self._items[max(over, 0) :]
            self._changed.notify()
            return dropped

    def take(self) -> T | None:
        """Wait for one and take the newest; None where the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            return self._items.pop() if self._items else None

    def waits(self, wanted: Callable[[T], bool]) -> bool:
        """Whether one of a kind waits."""
        with self._changed:
            return any(map(wanted, self._items))

    def remove(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take out those of a kind, oldest first."""
        with self._changed:
            gone = [item for item in self._items if unwanted(item)]
            self._items = [item for item in self._items if not unwanted(item)]
            return gone

    def close(self) -> None:
        """Take no more; what waits is still given."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return len(self._items)
