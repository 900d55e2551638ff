"""Dictionaries that are written instruction by instruction are read by everybody's readers."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.training.datasets.restricted import read_published
from minddiffuser.training.simulate.formats.dictionaries import FORMS, Later, write_dictionary


@pytest.mark.parametrize("form", FORMS)
def test_python_and_numpy_read_what_is_written(tmp_path: Path, form: str) -> None:
    values = np.random.default_rng(0).standard_normal((3, 4, 5))
    content = {
        "data": Later((3, 4, 5)),
        "ch_names": ["O1", "Oz"],
        "times": np.linspace(-0.2, 1, 7),
        "sfreq": 1000,
        "lowpass": 0.1,
        "note": "µV",
    }
    path = tmp_path / "folder" / "x.npy"
    filled = write_dictionary(path, content, form)
    assert list(filled) == ["data"]
    filled["data"][:] = values
    filled["data"].flush()
    read = np.load(path, allow_pickle=True).item() if form == "np.save" else pickle.loads(path.read_bytes())
    ours = read_published(path, "the file")
    assert ours.form == form
    for found in (read, ours.content):
        assert list(found) == list(content)
        np.testing.assert_array_equal(found["data"], values)
        np.testing.assert_array_equal(found["times"], content["times"])
        assert found["ch_names"] == ["O1", "Oz"]
        assert (found["sfreq"], found["lowpass"], found["note"]) == (1000, 0.1, "µV")
