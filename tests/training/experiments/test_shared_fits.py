"""Checkpoints of several experiments: made once, linked into each, and never taken for another one's."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minddiffuser.runtime.decoders.files import DESCRIPTION
from minddiffuser.runtime.errors import FileError
from minddiffuser.training import fit as fitting
from minddiffuser.training.experiments import shared_fits, steps
from minddiffuser.training.experiments.base import TAKEN, Tell
from minddiffuser.training.experiments.shared_fits import make_shared, shared_place
from minddiffuser.training.experiments.steps import Fit
from minddiffuser.training.regions import Regions

FILES = (DESCRIPTION, "decoder.safetensors", "signal/whitening.safetensors")


class Making:
    """Writes what a fit leaves, and counts."""

    def __init__(self) -> None:
        self.made: list[Path] = []
        self.checked: list[Path] = []

    def __call__(self, folder: Path) -> None:
        if (folder / DESCRIPTION).exists():
            self.checked.append(folder)
            return
        for name in reversed(FILES):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
        (folder / ".lock").touch()
        self.made.append(folder)


def silent(_line: str) -> None:
    raise AssertionError("there is nobody to wait for")


def contents_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_a_second_experiment_takes_what_the_first_made(tmp_path: Path) -> None:
    make, place = Making(), shared_place(tmp_path / "cache", "a")
    for name, made_here in (("one", True), ("two", False)):
        assert make_shared(place, tmp_path / name / "checkpoints" / "ridge", make, silent) is made_here
        assert contents_of(tmp_path / name / "checkpoints" / "ridge") == {name: name for name in FILES}
    assert (make.made, make.checked) == ([place], [place])
    first, second = (tmp_path / name / "checkpoints" / "ridge" / DESCRIPTION for name in ("one", "two"))
    assert os.path.samefile(first, second)


def test_it_is_copied_where_no_links_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_given: Any) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    place, out = shared_place(tmp_path / "cache", "a"), tmp_path / "ridge"
    make_shared(place, out, Making(), silent)
    assert contents_of(out) == {name: name for name in FILES}
    assert not os.path.samefile(out / DESCRIPTION, place / DESCRIPTION)


def test_what_was_begun_in_the_experiment_is_finished_there(tmp_path: Path) -> None:
    make, out = Making(), tmp_path / "ridge"
    out.mkdir()
    (out / "journal.json").touch()
    make_shared(shared_place(tmp_path / "cache", "a"), out, make, silent)
    assert make.made == [out]
    assert not (tmp_path / "cache").exists()


def test_one_experiment_waits_for_another_that_is_making_it(tmp_path: Path) -> None:
    place, begun, go_on, waits = tmp_path / "cache" / "x", threading.Event(), threading.Event(), threading.Event()
    make = Making()

    def slowly(folder: Path) -> None:
        begun.set()
        assert go_on.wait(60)
        make(folder)

    first = threading.Thread(target=make_shared, args=(place, tmp_path / "one", slowly, silent))
    first.start()
    assert begun.wait(60)
    second = threading.Thread(target=make_shared, args=(place, tmp_path / "two", make, lambda _line: waits.set()))
    second.start()
    assert waits.wait(60)
    assert make.made == []
    go_on.set()
    first.join()
    second.join()
    assert (make.made, make.checked) == ([place], [place])
    assert contents_of(tmp_path / "two") == contents_of(tmp_path / "one")


def test_nothing_is_left_of_a_fit_that_fails(tmp_path: Path) -> None:
    def fails(_folder: Path) -> None:
        raise FileError("the disk is full")

    with pytest.raises(FileError, match="full"):
        make_shared(tmp_path / "cache" / "x", tmp_path / "out" / "ridge", fails, silent)
    assert not (tmp_path / "out").exists()


def test_a_damaged_one_in_the_cache_is_said_to_be_deleted(tmp_path: Path) -> None:
    place = tmp_path / "cache" / "x"

    def refuses(folder: Path) -> None:
        raise FileError(f"{folder} is damaged")

    Making()(place)
    with pytest.raises(FileError, match=f"{place} is damaged; {place} is a cache: delete that folder"):
        make_shared(place, tmp_path / "out" / "ridge", refuses, silent)


def test_other_releases_have_other_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []
    for release in ("0.1.0", "0.2.0"):
        monkeypatch.setattr(shared_fits, "version", lambda release=release: release)
        places.append(shared_place(tmp_path, "a"))
    assert places[0] != places[1]
    assert shared_place(tmp_path, "b") != places[1]


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> Making:
    """In place of a fit: writes files and counts."""
    make = Making()
    monkeypatch.setattr(fitting, "check", lambda *_given: None)
    monkeypatch.setattr(fitting, "fit_key", lambda data, _models, settings: f"{data} {settings}")
    monkeypatch.setattr(fitting, "fit", lambda _data, _models, folder, _settings, **_named: make(folder))
    monkeypatch.setattr(steps, "opened_models", lambda _plan: SimpleNamespace(hash="ab" * 32))
    monkeypatch.setattr(steps, "check_models", lambda *_given: None)
    monkeypatch.setattr(Fit, "settings", lambda self, _subject: self.describe())
    return make


def subject(out: Path, cache: Path | None, data: str = "1") -> Any:
    plan = SimpleNamespace(cache=cache)
    return SimpleNamespace(out=out / "someone", plan=plan, data=data)


def test_fits_share_by_data_models_and_settings(tmp_path: Path, fitted: Making) -> None:
    log, cache = io.StringIO(), tmp_path / "cache"
    tell = Tell(now=lambda *_given: None, log=log)
    without = Fit(name="ridge-without-hvc", regions=Regions(without=("HVC",)))
    kinds = [Fit().make(subject(tmp_path / out, cache), tell) for out in ("rois", "features")]
    assert kinds == [None, TAKEN]
    assert len(fitted.made) == 1
    assert log.getvalue() == f"taken from {fitted.made[0]}\n"
    without.make(subject(tmp_path / "rois", cache), tell)
    Fit(percent=100.0).make(subject(tmp_path / "retention", cache), tell)
    Fit().make(subject(tmp_path / "others", cache, data="2"), tell)
    assert len(set(fitted.made)) == 4
    assert (tmp_path / "rois" / "someone" / "checkpoints" / "ridge-without-hvc" / DESCRIPTION).exists()


def test_without_a_cache_each_has_its_own(tmp_path: Path, fitted: Making) -> None:
    tell = Tell(now=lambda *_given: None, log=io.StringIO())
    for out in ("rois", "features"):
        Fit().make(subject(tmp_path / out, None), tell)
    assert fitted.made == [tmp_path / out / "someone" / "checkpoints" / "ridge" for out in ("rois", "features")]
