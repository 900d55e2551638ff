"""The page about the signal chain: its example runs and prints what it says, its tables name every step."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from minddiffuser.runtime.signal.chain import CONTINUOUS, OF_EPOCHS

PAGE = Path(__file__).parents[3] / "docs/signal.md"


def test_the_example_prints_what_the_page_says(readme: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = readme.blocks(PAGE, "python")
    exec(compile(code, str(PAGE), "exec"), {"__name__": "__main__"})
    text = PAGE.read_text(encoding="utf-8")
    said = [" ".join(part.split()) for part in re.findall(r"`([^`]*)`", text[text.index("It prints") :])[:3]]
    assert capsys.readouterr().out.splitlines() == said


def test_the_tables_name_every_step() -> None:
    named = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted([*CONTINUOUS, *OF_EPOCHS])
