"""``md-train prepare`` as it is typed: on a miniature, against the same subject as a data folder, and its mistakes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.images import pixel_hash
from minddiffuser.training.cli import main
from minddiffuser.training.datasets import READERS
from minddiffuser.training.datasets.reader import data_set

FEW = ["--n-train", "24", "--n-test", "6", "--seed", "7"]


def test_a_miniature_gives_the_data_folder_of_the_same_subject(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    native, miniature, out = (str(tmp_path / name) for name in ("native", "nsd", "data"))
    assert main(["simulate", "fmri", "--out", native, *FEW]) == 0
    assert main(["simulate", "fmri", "--out", miniature, "--format", "nsd", *FEW]) == 0
    capsys.readouterr()
    assert main(["prepare", "nsd", miniature, "--subject", "1", "--image-size", "64", "--out", out]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == out
    assert "train: 24 pictures, each shown once; 24 trials written (means)" in said.out
    assert "test: 6 pictures, each shown 3 times; 6 trials written (means)" in said.out
    assert "reading trials: 42/42 (100 %)" in said.err
    expected, data = open_data(native), open_data(out)
    for split in ("train", "test"):
        known = {pixel_hash(image): number for number, image in enumerate(expected.images(split))}
        order = [known[pixel_hash(image)] for image in data.images(split)]
        assert sorted(order) == list(range(expected.n_stimuli(split)))
        assert data.captions(split) == [expected.captions(split)[number] for number in order]
        rows = np.empty_like(expected.responses(split))
        rows[expected.stimulus(split)] = expected.responses(split)
        np.testing.assert_allclose(data.responses(split), rows[order], atol=0.5 / 300 + 1e-5)
    assert expected.layout.rois is not None
    assert data.layout.rois is not None
    assert expected.layout.rois.items() <= data.layout.rois.items()
    for split in ("train", "test"):
        ceiling, other = expected.noise_ceiling(split), data.noise_ceiling(split)
        assert ceiling is not None
        assert other is not None
        np.testing.assert_allclose(other, ceiling, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nsd", "nowhere", "--subject", "1"], "nowhere is not a folder: give the folder that holds nsddata"),
        (["nsd", ".", "--subject", "1"], "holds no session of betas"),
        (["nsd", ".", "--subject", "0"], "'0' is not a whole number from 1"),
        (["nsd", ".", "--subject", "1", "--memory", "much"], "'much' is not an amount of memory"),
        (["nsd", ".", "--subject", "1", "--sessions", "5-2"], "sessions '5-2' cannot be read"),
        (["moon", ".", "--subject", "1"], "invalid choice: 'moon'"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", *arguments, "--out", "data"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not Path("data").exists()


@pytest.mark.parametrize("name", READERS)
def test_every_data_set_says_what_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prepare", name, "--help"])
    said = capsys.readouterr().out
    assert f"md-train prepare {name} " in said
    assert data_set(name).example in said


def test_a_folder_that_is_there_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert main(["prepare", "nsd", str(tmp_path), "--subject", "1", "--out", str(out)]) == 2
    assert "holds other files and is not a data folder" in capsys.readouterr().err


_KILLED = """
import os, signal, sys
from minddiffuser.training.datasets import prepare
from minddiffuser.training.datasets.nsd.sessions import Sessions
from minddiffuser.training.cli import main

whole, means = Sessions.read, prepare._means

def read(self, piece):
    if piece.name == "session02":
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, piece)

def written(*given):
    yield from means(*given)
    os.kill(os.getpid(), signal.SIGKILL)

where = sys.argv.pop(1)
if where == "reading":
    Sessions.read = read
else:
    prepare._means = written
main(sys.argv[1:])
"""


@pytest.mark.parametrize("where", ["reading", "writing"])
def test_a_command_that_was_killed_goes_on(tmp_path: Path, where: str) -> None:
    import nsd_miniature

    nsd_miniature.write(tmp_path / "nsd")
    arguments = ["prepare", "nsd", str(tmp_path / "nsd"), "--subject", "1", "--image-size", "12"]
    assert main([*arguments, "--out", str(tmp_path / "straight")]) == 0
    again = [*arguments, "--out", str(tmp_path / "data")]
    killed = subprocess.run([sys.executable, "-c", _KILLED, where, *again], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert (tmp_path / "data.work").is_dir()
    assert not (tmp_path / "data").exists()
    assert main(again) == 0
    names = sorted(path.name for path in (tmp_path / "straight").iterdir())
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == names
    for name in names:
        assert (tmp_path / "data" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")) == [
        "data",
        "nsd",
        "straight",
    ]
