"""What does not belong together between kinds of brain signal: by the commands, each one sentence and no traceback."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nsd_miniature
import numpy as np
import pytest
from safetensors.numpy import save_file
from small_data import write_small_data

from minddiffuser.runtime import cli as reconstruct
from minddiffuser.runtime.data.folder import SplitData, write_data
from minddiffuser.runtime.data.layout import Channel, ResponseLayout
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.training import cli as train

N_VOXELS = 24  # of the small checkpoint
EEG = ResponseLayout(
    modality="eeg",
    shape=(4, 6),
    channels=tuple(Channel(name=name, type="eeg") for name in ("P7", "O1", "Oz", "O2")),
    sfreq=100.0,
    tmin=-0.02,
    unit="V",
    signal={"steps": [{"name": "reference", "kind": "average"}, {"name": "baseline", "tmin": -0.02, "tmax": 0.0}]},
)
FMRI = ResponseLayout(modality="fmri", shape=(N_VOXELS,))
CHANNELS = EEG.channels or ()
SIZE = 1e-5  # V, of EEG


def rows_of(layout: ResponseLayout, n_trials: int = 3) -> np.ndarray:
    size = SIZE if layout.unit == "V" else 1e-13 if layout.unit == "T" else 1.0
    drawn = np.random.default_rng(1).standard_normal((n_trials, *layout.shape))
    return (size * drawn).astype(np.float32)


def data_folder(folder: Path, layout: ResponseLayout) -> Path:
    return write_small_data(folder, rows_of(layout), layout=layout).folder


@pytest.fixture(scope="module")
def eeg_checkpoint(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small checkpoint with its voxels as channels and samples."""
    folder = tmp_path_factory.mktemp("checkpoints") / "eeg"
    shutil.copytree(small_checkpoint, folder)
    scale = np.full(EEG.shape, SIZE, np.float32)
    save_file({"mean": np.zeros(EEG.shape, np.float32), "std": scale}, folder / "normaliser.safetensors")
    content = json.loads((folder / "checkpoint.json").read_text())
    content["layout"] = EEG.as_json()
    content["files"]["normaliser.safetensors"] = hashlib.sha256(
        (folder / "normaliser.safetensors").read_bytes()
    ).hexdigest()
    (folder / "checkpoint.json").write_text(json.dumps(content))
    return folder


def one_sentence(error: str, program: str) -> str:
    """The only line that a command wrote on standard error, without its name."""
    (line,) = error.splitlines()
    assert "Traceback" not in line
    return line.removeprefix(f"{program}: ")


def renamed(old: str, new: str) -> tuple[Channel, ...]:
    return tuple(replace(channel, name=new) if channel.name == old else channel for channel in CHANNELS)


OTHER_LAYOUTS: dict[str, tuple[ResponseLayout, str]] = {
    "fMRI": (FMRI, "it was fitted on eeg, these are fmri"),
    "MEG": (
        replace(EEG, modality="meg", unit="T", channels=tuple(replace(channel, type="mag") for channel in CHANNELS)),
        "it was fitted on eeg, these are meg",
    ),
    "another channel": (
        replace(EEG, channels=renamed("O2", "PO8")),
        r"these lack 'O2' and also have 'PO8' \(channels\)",
    ),
    "a channel less": (replace(EEG, channels=CHANNELS[:3], shape=(3, 6)), r"these lack 'O2' \(channels\)"),
    "another order": (
        replace(EEG, channels=(CHANNELS[1], CHANNELS[0], *CHANNELS[2:])),
        "the channels are in another order, number 0 is 'P7' there and 'O1' here",
    ),
    "another rate": (replace(EEG, sfreq=250.0), "sfreq is 100 Hz there and 250 Hz here"),
    "a later window": (replace(EEG, tmin=0.1), "tmin is -0.02 s there and 0.1 s here"),
    "a longer window": (replace(EEG, shape=(4, 9)), "it was fitted on 6 samples, these have 9"),
    "another unit": (replace(EEG, unit="1"), "unit is V there and 1 here"),
    "another reference": (
        replace(EEG, signal={"steps": [{"name": "reference", "kind": "channels", "channels": ["Oz"]}]}),
        r"of step 0 \('reference'\) of the signal chain is",
    ),
}


def run(checkpoint: Path, responses: Path, out: Path, models: Path) -> list[str]:
    small = ["--stage", "1", "--threads", "1", "--device", "cpu"]
    return ["run", str(checkpoint), str(responses), "--out", str(out), "--models", str(models), *small]


@pytest.mark.parametrize("name", OTHER_LAYOUTS)
def test_responses_of_another_layout(
    name: str, eeg_checkpoint: Path, small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, difference = OTHER_LAYOUTS[name]
    data = data_folder(tmp_path / "data", layout)
    assert reconstruct.main(run(eeg_checkpoint, data, tmp_path / "run", small_world)) == 2
    said = one_sentence(capsys.readouterr().err, "md-reconstruct")
    assert said.startswith(f"the responses differ from those that the checkpoint {eeg_checkpoint} was fitted on: ")
    assert re.search(difference, said)
    assert "give the same subject's responses with the same channels in the same order" in said
    assert not (tmp_path / "run").exists()


def test_eeg_for_an_fmri_checkpoint(
    small_checkpoint: Path, small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_folder(tmp_path / "data", EEG)
    assert reconstruct.main(run(small_checkpoint, data, tmp_path / "run", small_world)) == 2
    assert "it was fitted on fmri, these are eeg" in one_sentence(capsys.readouterr().err, "md-reconstruct")
    assert not (tmp_path / "run").exists()


def test_microvolts_for_volts(
    eeg_checkpoint: Path, small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder that says V."""
    data = write_small_data(tmp_path / "data", 1e6 * rows_of(EEG, 9), layout=EEG).folder
    assert reconstruct.main(run(eeg_checkpoint, data, tmp_path / "run", small_world)) == 2
    *_, said = capsys.readouterr().err.splitlines()
    assert "the responses are not on the scale of the training responses" in said
    assert "µV are" in said


ARRAYS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "fMRI's shape": (
        lambda path: np.save(path, rows_of(FMRI)),
        r"responses have shape \(3, 24\)|24 .*fitted on 4 channels of 6 samples",
    ),
    "transposed": (
        lambda path: np.save(path, rows_of(EEG).transpose(0, 2, 1)),
        "responses have 6 channels of 4 samples, the checkpoint was fitted on 4 channels of 6 samples",
    ),
    "an EEG dictionary of THINGS-EEG2": (
        lambda path: np.save(path, np.array({"preprocessed_eeg_data": rows_of(EEG)}), allow_pickle=True),
        "they hold Python objects .* which are never opened",
    ),
    "one trial without its axis": (lambda path: np.save(path, rows_of(EEG)[0]), "4 channels of 6 samples"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_array_files(
    name: str, eeg_checkpoint: Path, small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, reason = ARRAYS[name]
    path = tmp_path / "responses.npy"
    write(path)
    assert reconstruct.main(run(eeg_checkpoint, path, tmp_path / "run", small_world)) == 2
    assert re.search(reason, one_sentence(capsys.readouterr().err, "md-reconstruct"))
    assert not (tmp_path / "run").exists()


def subject(folder: Path, layout: ResponseLayout, n_pictures: int = 12) -> Path:
    """A data folder to fit to: pictures of one colour, each shown twice, with responses that follow it."""
    rng = np.random.default_rng(4)
    colours = rng.uniform(0, 1, (n_pictures, 3))
    mixing = rng.standard_normal((3, layout.n_features))

    def split(repetitions: int) -> SplitData:
        stimulus = np.tile(np.arange(n_pictures), repetitions)
        signal = colours[stimulus] @ mixing + 0.1 * rng.standard_normal((len(stimulus), layout.n_features))
        size = SIZE if layout.unit == "V" else 1.0
        return SplitData(
            responses=(size * signal).reshape(-1, *layout.shape).astype(np.float32),
            stimulus=stimulus,
            images=[np.tile((255 * colour).astype(np.uint8), (32, 32, 1)) for colour in colours],
            captions=[[f"a picture number {k}"] for k in range(n_pictures)],
        )

    return write_data(folder, {"train": split(2), "test": split(1)}, subject="someone", layout=layout).folder


UNFIT: dict[str, tuple[ResponseLayout, int, list[str], str]] = {
    **{
        f"fMRI for {name}": (
            FMRI,
            12,
            ["--decoder", name],
            rf"decoder '{name}' takes eeg or meg responses, these are fmri of response_shape \[24\]",
        )
        for name in ("nice", "eegnet", "atm", "brain_module")
    },
    **{f"too few samples for {name}": (EEG, 12, ["--decoder", name], r"\b6\b") for name in ("nice", "eegnet", "atm")},
    "no positions": (
        EEG,
        12,
        ["--decoder", "brain_module"],
        "merges channels by their positions, and 4 of 4 have none",
    ),
    "too few pictures to hold some out": (
        EEG,
        3,
        ["--decoder", "mlp", "--n-folds", "2"],
        "3 training pictures are too few for a network, which holds out two or more: give 4"
        "|3 training stimuli cannot be split into 2 folds",
    ),
    "no concepts": (EEG, 12, ["--context", "concepts"], "the data folder names no concepts"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_cannot_be_fitted_is_said_before_models_are_opened(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "open_models", lambda *_given: pytest.fail("models were opened"))
    layout, n_pictures, options, reason = UNFIT[name]
    data = subject(tmp_path / "data", layout, n_pictures)
    assert train.main(["fit", str(data), "--out", str(tmp_path / "checkpoint"), *options]) == 2
    assert re.search(reason, one_sentence(capsys.readouterr().err, "md-train"))
    assert not (tmp_path / "checkpoint").exists()


def test_a_loss_that_is_no_number(small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights that a decay of 10^4 times their size turns over at every step: said with its epoch; the best is kept."""
    data = subject(tmp_path / "data", EEG)
    fit = ["fit", str(data), "--cache", str(tmp_path / "features"), "--models", str(small_world), "--device", "cpu"]
    fit += ["--threads", "1", "--n-folds", "2", "--percent", "10", "--decoder", "context=mlp"]
    fit += [f"--n-{feature}=4" for feature in ("latent", "structure", "semantic")]

    def with_(*options: str) -> list[str]:
        return [f"--decoder-option={option}" for option in ("hidden=8", "depth=1", *options)]

    diverging = with_("learning_rate=100", "weight_decay=100")
    assert train.main([*fit, "--out", str(tmp_path / "kept"), *diverging]) == 1
    *_, said = capsys.readouterr().err.splitlines()
    found = re.fullmatch(
        r"md-train: context: the loss became (?:nan|inf) in epoch (\d+), (?:step \d+|at its validation), so that "
        r"training ended there; the weights of epoch (\d+) are kept; give a smaller learning_rate",
        said,
    )
    assert found is not None, said
    assert 1 <= int(found[2]) < int(found[1])
    assert np.isfinite(open_checkpoint(tmp_path / "kept").decode(rows_of(EEG)).context).all()

    at_once = with_("learning_rate=1000000", "weight_decay=1000000", "batch_size=2")
    assert train.main([*fit, "--out", str(tmp_path / "none"), *at_once]) == 2
    *_, said = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"md-train: the mlp cannot be trained, the loss became (?:nan|inf) in epoch 1, (?:step \d+|at its validation), "
        r"before any epoch was done: give a smaller learning_rate",
        said,
    )
    assert not (tmp_path / "none" / "checkpoint.json").exists()


def first_session(source: Path) -> Path:
    return nsd_miniature.beta_folder(source) / "betas_session01.hdf5"


def as_nan(source: Path) -> None:
    import h5py

    with h5py.File(first_session(source), "r+") as file:
        betas = file["betas"][:]
        del file["betas"]
        file["betas"] = np.full(betas.shape, np.nan, np.float32)


def as_eeg_dictionary(source: Path) -> None:
    with open(first_session(source), "wb") as file:
        np.save(file, np.array({"preprocessed_eeg_data": rows_of(EEG)}), allow_pickle=True)


def with_pictures_from_0(source: Path) -> None:
    from scipy.io import loadmat, savemat

    path = source / "nsddata/experiments/nsd/nsd_expdesign.mat"
    content = loadmat(path)
    names = ("masterordering", "subjectim", "sharedix")
    savemat(path, {name: content[name] - (name == "subjectim") * content[name].min() for name in names})


def with_more_pictures(source: Path) -> None:
    import h5py

    (path,) = source.rglob("nsd_stimuli.hdf5")
    with h5py.File(path, "r+") as file:
        pictures = file["imgBrick"][:]
        del file["imgBrick"]
        file["imgBrick"] = np.concatenate([pictures, pictures[:4]])


NSD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "an EEG dictionary": (as_eeg_dictionary, "is a Python object pickled into a .npy file, as THINGS-EEG2's"),
    "NaN": (as_nan, "session01 is NaN or infinite in all of its 55 trials"),
    "truncated": (
        lambda source: first_session(source).write_bytes(first_session(source).read_bytes()[:-2000]),
        "betas_session01.hdf5 is truncated or damaged",
    ),
    "a web page": (
        lambda source: first_session(source).write_bytes(b"<!doctype html><html>no access</html>"),
        "is a web page, perhaps of a failed download",
    ),
    "pictures counted from 0": (with_pictures_from_0, "they seem to count from 0, add 1"),
    "another set of pictures": (
        with_more_pictures,
        "speaks of 55 pictures and the stimuli are 59: one of the two is of",
    ),
}


@pytest.mark.parametrize("name", NSD)
def test_a_file_that_is_no_session(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for library in ("h5py", "nibabel", "scipy"):
        pytest.importorskip(library)
    spoil, reason = NSD[name]
    nsd_miniature.write(tmp_path / "nsd")
    spoil(tmp_path / "nsd")
    given = ["prepare", "nsd", str(tmp_path / "nsd"), "--subject", "1", "--image-size", "12"]
    assert train.main([*given, "--out", str(tmp_path / "data")]) == 2
    *_, said = capsys.readouterr().err.splitlines()  # progress comes before it
    assert said.startswith("md-train: ")
    assert reason in said
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("data_set", ["nsd", "things-eeg2", "things-meg", "recording"])
def test_a_data_folder_is_no_source(data_set: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What ``prepare`` writes, given to it."""
    data = data_folder(tmp_path / "data", EEG)
    assert train.main(["prepare", data_set, str(data), "--subject", "1", "--out", str(tmp_path / "out")]) == 2
    assert str(data) in one_sentence(capsys.readouterr().err, "md-train")
    assert not (tmp_path / "out").exists()
