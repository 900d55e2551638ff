"""Recordings that others made: files that nobody here wrote, where they lie beside the checkout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minddiffuser.training.datasets.recording.mne_file import open_mne
from minddiffuser.training.datasets.recording.xdf_file import open_xdf

PLACE = Path(__file__).parents[4].parent / "shared" / "recordings"
pytestmark = pytest.mark.skipif(not PLACE.is_dir(), reason="no folder shared/recordings beside the checkout")


@pytest.mark.parametrize(
    ("name", "n_samples", "sfreq", "types", "mark"),
    [
        ("test.vhdr", 7900, 1000.0, {"eeg", "misc"}, (486, "Stimulus/S253")),
        ("test.bdf", 2048, 2048.0, {"eeg"}, (589, "128")),
        ("test_ctf_comp_raw.fif", 241, 480.0, {"mag", "ref_meg", "misc"}, None),
        ("test_edf_stim_channel.edf", 1228, 128.0, {"eeg"}, None),
    ],
)
def test_files_that_mne_reads(
    name: str, n_samples: int, sfreq: float, types: set[str], mark: tuple[int, str] | None
) -> None:
    recording = open_mne(PLACE / name, trigger=None, montage=None, size=1.0)
    assert recording.segments == ((0, n_samples),)
    assert recording.sfreq == sfreq
    assert {channel.type for channel in recording.channels} == types
    assert recording.marks[:1] == (() if mark is None else (mark,))
    part = recording.read([1, 0], 10, 30)
    assert part.shape == (2, 20)
    np.testing.assert_array_equal(recording.read([0], 0, n_samples)[0, 10:30], part[1])


def test_an_xdf_with_clock_offsets() -> None:
    recording = open_xdf(PLACE / "minimal.xdf", stream=None, unit=1e-6)
    assert recording.segments == ((0, 9),)
    assert recording.marks[1:4] == ((2, "Hello"), (3, "World"), (4, "from"))
    np.testing.assert_allclose(recording.read([0, 2], 0, 2), [[192e-6, 12e-6], [238e-6, 32e-6]])
