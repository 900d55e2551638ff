"""From the session's threads to every page that looks on: nobody who publishes ever waits for somebody who reads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count

from .messages import Message, encoded


class Shelf:
    """The newest messages, as text: as many of each kind as the kind keeps, one for each ordinal.

    What a page that opens late is given, and what waits for one that reads slowly.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, dict[int, tuple[int, str]]] = {}

    def put(self, message: Message, number: int, text: str) -> None:
        """Keep a message, in the place of an older one where there are too many; `number` counts all messages."""
        kept = self._kinds.setdefault(message.kind, {})
        key = getattr(message, "ordinal", number) if message.keep > 1 else 0
        kept.pop(key, None)
        kept[key] = (number, text)
        if len(kept) > message.keep:
            del kept[next(iter(kept))]

    def copy(self) -> Shelf:
        """Another one with the same messages."""
        other = Shelf()
        other._kinds = {kind: dict(kept) for kind, kept in self._kinds.items()}
        return other

    def take(self) -> list[str]:
        """Everything, in the order in which it was published; nothing is left."""
        messages = sorted(message for kept in self._kinds.values() for message in kept.values())
        self._kinds.clear()
        return [text for _, text in messages]


class Client:
    """One page: what waits for it. `wake` is called from the thread that publishes, and must not wait."""

    def __init__(self, hub: Hub, shelf: Shelf, wake: Callable[[], None]) -> None:
        self._hub, self.shelf, self.wake = hub, shelf, wake

    def take(self) -> list[str]:
        """What was published since the last time, less what newer messages replaced."""
        return self._hub.take(self)

    def leave(self) -> None:
        """Nothing more is kept for it; may be called twice."""
        self._hub.leave(self)


class Hub:
    """Where a session publishes and pages listen.

    Parameters
    ----------
    most_clients
        Pages at a time.
    """

    def __init__(self, *, most_clients: int = 8) -> None:
        self.most_clients = most_clients
        self._lock = threading.Lock()
        self._numbers = count()
        self._latest = Shelf()
        self._clients: list[Client] = []

    @property
    def n_clients(self) -> int:
        """Pages that listen now."""
        return len(self._clients)

    def publish(self, message: Message) -> None:
        """Show a message on every page; from any thread, and without waiting for any of them."""
        text = encoded(message)
        with self._lock:
            number = next(self._numbers)
            self._latest.put(message, number, text)
            clients = list(self._clients)
            for client in clients:
                client.shelf.put(message, number, text)
        for client in clients:
            client.wake()

    def join(self, wake: Callable[[], None]) -> Client | None:
        """A page that listens from now on, and has the newest messages waiting; None where there are too many."""
        with self._lock:
            if len(self._clients) >= self.most_clients:
                return None
            client = Client(self, self._latest.copy(), wake)
            self._clients.append(client)
            return client

    def take(self, client: Client) -> list[str]:
        """See :meth:`Client.take`."""
        with self._lock:
            return client.shelf.take()

    def leave(self, client: Client) -> None:
        """See :meth:`Client.leave`."""
        with self._lock:
            if client in self._clients:
                self._clients.remove(client)
