"""What the process runs on and with."""

import os
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.environment import compare_versions, usable_cores, versions


def test_versions_of_what_is_installed() -> None:
    found = versions(("numpy", "no-such-library-anywhere"))
    assert found == {"numpy": np.__version__}


HERE = {"torch": "2.6.0", "diffusers": "0.31", "numpy": "2.1"}


@pytest.mark.parametrize(
    "before",
    [
        HERE,
        HERE | {"torch": "2.6.0+cu124"},
        HERE | {"numpy": "1.0", "scipy": "0.1"},
        {"diffusers": "0.31"},
        {"torch": None},
        {"torch": "\x1b[2J2.5"},
        {"torch": "2.5\n"},
        {"torch": "2" * 41},
        {"torch": ""},
        {"torch": ["1"]},
        {},
        None,
        [],
        "torch 1.0",
    ],
)
def test_the_same_versions_or_unknown_ones_are_no_difference(before: Any) -> None:
    assert compare_versions(before, HERE, ("torch", "diffusers", "open_clip_torch")) is None


def test_other_versions_are_named_before_and_now() -> None:
    before = {"torch": "2.5.1+cpu", "diffusers": "0.31", "open_clip_torch": "2"}
    assert compare_versions(before, HERE, ("torch", "diffusers")) == (["torch 2.5.1+cpu"], ["torch 2.6.0"])
    assert compare_versions({"torch": "2.60"}, HERE, ("torch",)) == (["torch 2.60"], ["torch 2.6.0"])


def test_cores_that_are_kept_from_the_process_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5}, raising=False)
    assert usable_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() == 64
