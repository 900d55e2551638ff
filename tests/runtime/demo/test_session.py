"""The shipped session's file: one byte per sample, half a scale of error, and what is said of a damaged one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.demo.session import DemoSession, read_session, write_session
from minddiffuser.runtime.errors import FileError

CHANNELS = tuple(Channel(name=name, type="eeg", position=(0.0, 0.01, 0.1)) for name in ("O1", "Oz", "O2"))


def session(n_samples: int = 4000, seed: int = 3) -> DemoSession:
    """Noise with a drift and steep bumps, as blinks make them; one channel is flat."""
    rng = np.random.default_rng(seed)
    data = 1e-5 * rng.standard_normal((3, n_samples)) + 4e-2
    data[0] += np.cumsum(2e-5 * rng.standard_normal(n_samples))
    data[0, 100:130] += 4e-4 * np.hanning(30)
    data[2] = -1e-3
    return DemoSession(
        modality="eeg", channels=CHANNELS, sfreq=200.0, data=data, markers=((10, "picture/1/cup"), (999, "target"))
    )


def test_it_comes_back_within_half_a_step_of_its_scale(tmp_path: Path) -> None:
    given = session()
    write_session(tmp_path, given)
    read = read_session(tmp_path)
    assert (read.modality, read.channels, read.sfreq, read.markers) == ("eeg", CHANNELS, 200.0, given.markers)
    # A byte holds 127 scales; the steepest step of a channel takes 126.
    steepest = np.abs(np.diff(given.data[:2], axis=1)).max(axis=1)
    error = np.abs(read.data - given.data)[:2].max(axis=1)
    assert (error <= 0.5 * steepest / 126 * (1 + 1e-9)).all()
    assert (error >= 0.4 * steepest / 126).all()  # it is coarse, and no finer than that
    np.testing.assert_allclose(read.data[2], given.data[2], rtol=1e-12)
    assert (tmp_path / "signal.safetensors").stat().st_size < given.data.size + 1000


def test_the_error_does_not_grow(tmp_path: Path) -> None:
    """The steps are differences of what was rounded, not rounded differences."""
    given = session(60_000)
    write_session(tmp_path, given)
    error = np.abs(read_session(tmp_path).data - given.data)[0]
    assert error[-1000:].max() < 1.5 * error[:1000].max()


def _edit(**fields: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / "session.json").read_text())
        (folder / "session.json").write_text(json.dumps({**content, **fields}))

    return edit


def _shorter(folder: Path) -> None:
    arrays = load_file(folder / "signal.safetensors")
    save_file({**arrays, "steps": arrays["steps"][:, :-1].copy()}, folder / "signal.safetensors")


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "later version": (_edit(version=2), "version 2"),
    "fmri": (_edit(modality="fmri"), "one of eeg, meg"),
    "no markers": (_edit(markers=None), "expected a list"),
    "marker behind the end": (_edit(markers=[[4000, "x"]]), "a whole number from 0 to 3999"),
    "marker without text": (_edit(markers=[[4]]), "a sample and a text"),
    "markers not in order": (_edit(markers=[[9, "x"], [4, "y"]]), "not in the order of their samples"),
    "channels": (_edit(channels=[]), "channel"),
    "another length": (_shorter, r"expected int8 \(3, 4000\)"),
    "no signal": (lambda folder: (folder / "signal.safetensors").unlink(), "signal"),
    "no description": (lambda folder: (folder / "session.json").unlink(), "session"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_sentence(damage: str, tmp_path: Path) -> None:
    write_session(tmp_path, session())
    edit, said = DAMAGE[damage]
    edit(tmp_path)
    with pytest.raises(FileError, match=said) as caught:
        read_session(tmp_path)
    assert "\n" not in str(caught.value)
