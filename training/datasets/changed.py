"""A data set like another one but for what a subclass says."""

from __future__ import annotations

from typing import Any

from .base import Data


class Changed:
    """A data set that differs in what a subclass says, and else is the one that it is given."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)
