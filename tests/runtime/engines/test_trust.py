"""Whose plans may run: a list of the user's, which nothing of a bundle can write."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from minddiffuser.runtime.engines.open import EngineSettings
from minddiffuser.runtime.engines.trust import Trust, read_trusted, trust_list, trust_plans
from minddiffuser.runtime.errors import FileError, InputError

A, B = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("environment", "platform", "expected"),
    [
        ({"XDG_CONFIG_HOME": "/x", "HOME": "/home/me"}, "linux", "/x/minddiffuser/trusted_plans.json"),
        ({"HOME": "/home/me"}, "linux", "/home/me/.config/minddiffuser/trusted_plans.json"),
        ({"XDG_CONFIG_HOME": "", "HOME": "/home/me"}, "darwin", "/home/me/.config/minddiffuser/trusted_plans.json"),
        # The specification: a relative path is invalid and ignored. A bundle's folder must never be taken for it.
        ({"XDG_CONFIG_HOME": "x", "HOME": "/home/me"}, "linux", "/home/me/.config/minddiffuser/trusted_plans.json"),
        ({"APPDATA": "/roaming", "HOME": "/home/me"}, "win32", "/roaming/minddiffuser/trusted_plans.json"),
        ({"HOME": "/home/me"}, "win32", None),
        ({"XDG_CONFIG_HOME": "x", "HOME": "y"}, "linux", None),
        ({}, "linux", None),
    ],
)
def test_where_the_list_lies(environment: Mapping[str, str], platform: str, expected: str | None) -> None:
    assert trust_list(environment, platform) == (None if expected is None else Path(expected))


def test_what_is_added_is_trusted_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "trusted_plans.json"
    assert read_trusted(file) == {}
    assert trust_plans(file, {A: "a plan"}) == 1
    assert trust_plans(file, {A: "another name", B: "b"}) == 1
    assert read_trusted(file) == {A: "a plan", B: "b"}
    trust = Trust(file=file)
    assert trust.allows([A])
    assert trust.allows([A, B])
    assert not trust.allows([A, "c" * 64])
    assert not trust.allows([])  # of no file at all nothing is known
    assert not Trust().allows([A])
    assert Trust(everything=True).allows([])


def test_two_that_add_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "trusted_plans.json"
    start = threading.Barrier(4)

    def add(number: int) -> None:
        start.wait()
        trust_plans(file, {f"{number:064x}": "one"})

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_trusted(file)) == 4


GOOD = {"format": "minddiffuser-trusted-plans", "version": 1, "plans": {A: "a"}}
DAMAGED: dict[str, Any] = {
    "no JSON": "{",
    "no object": "[]",
    "another format": {**GOOD, "format": "minddiffuser-bundle"},
    "newer": {**GOOD, "version": 2},
    "no plans": {"format": GOOD["format"], "version": 1},
    "a list": {**GOOD, "plans": [A]},
    "no hash": {**GOOD, "plans": {"*": "all"}},
    "upper case": {**GOOD, "plans": {"A" * 64: "a"}},
    "a number": {**GOOD, "plans": {A: True}},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_list_trusts_nothing_and_is_not_overwritten(name: str, tmp_path: Path) -> None:
    file = tmp_path / "trusted_plans.json"
    content = DAMAGED[name]
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    before = file.read_bytes()
    for use in (lambda: read_trusted(file), lambda: Trust(file=file).allows([A]), lambda: trust_plans(file, {B: "b"})):
        with pytest.raises(FileError) as caught:
            use()
        assert "\n" not in str(caught.value)
    assert file.read_bytes() == before


def test_without_a_place_for_the_list_it_is_said() -> None:
    with pytest.raises(FileError, match="set HOME, or XDG_CONFIG_HOME to a folder"):
        trust_plans(None, {A: "a"})


def test_trust_in_everything_goes_with_a_backend_by_name() -> None:
    everything = Trust(everything=True)
    with pytest.raises(InputError, match="--trust-plans .* needs an explicit backend"):
        EngineSettings(trust=everything)
    assert EngineSettings(backend="tensorrt", trust=everything).trust.everything
