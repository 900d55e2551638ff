"""What is opened and closed: by its own `close`, or at the end of a with statement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class Closing(ABC):
    """Base of everything that has to be closed."""

    @abstractmethod
    def close(self) -> None:
        """Free what is held; twice is once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
