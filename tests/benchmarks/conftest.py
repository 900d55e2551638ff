"""Opening a benchmark as a module."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Open a file of benchmarks/ as running it would: with its folder on the path, until the test ends."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for path in FOLDER.glob("*.py"):
        # Set and taken away, so that at the end it is as before: delitem notes nothing of what is not there.
        monkeypatch.setitem(sys.modules, path.stem, ModuleType(path.stem))
        del sys.modules[path.stem]
    return importlib.import_module
