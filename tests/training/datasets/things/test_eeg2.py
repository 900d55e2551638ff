"""THINGS-EEG2: raw recordings, both kinds of prepared epochs, the BIDS form; and whatever is given in their place."""

import pickle
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest
from scipy import signal

from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.images import read_image
from minddiffuser.runtime.progress import unheard
from minddiffuser.runtime.signal import published
from minddiffuser.runtime.signal.published import eeg2_chain
from minddiffuser.training.cli import main
from minddiffuser.training.datasets.prepare import PrepareSettings, prepare
from minddiffuser.training.datasets.things import eeg2 as eeg2_module
from minddiffuser.training.datasets.things.eeg2 import open_eeg2
from minddiffuser.training.simulate.base import SensorSubject
from minddiffuser.training.simulate.formats.dictionaries import Later, write_dictionary
from minddiffuser.training.simulate.sensors import POSTERIOR

MEMORY = 10**8
RAW = Path("Raw_data/sub-01")
GIFFORD, NICE = Path("Preprocessed_data/sub-01"), Path("Preprocessed_data_250Hz/sub-01")
TRAINING = "preprocessed_eeg_training.npy"


def made(reader: Any, out: Path, **settings: Any) -> Any:
    return prepare("things-eeg2", reader, out, PrepareSettings(image_size=32, **settings), progress=unheard)[0]


def load(path: Path) -> dict[str, Any]:
    """By numpy's and Python's own readers."""
    content = np.load(path, allow_pickle=True)
    return content if isinstance(content, dict) else content.item()


def copy(eeg2: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(eeg2, tmp_path / "copy"))


def by_mne(path: Path, names: tuple[str, ...], h_freq: float, tmax: float, decim: int) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (n, n_channels, n_times) and event codes of a raw file, by MNE and scipy alone."""
    content = load(path)
    info = mne.create_info(content["ch_names"], content["sfreq"], content["ch_types"])
    raw = mne.io.RawArray(content["raw_eeg_data"], info, verbose="error")
    events = mne.find_events(raw, stim_channel="stim", verbose="error")
    raw.pick(list(names), verbose="error")
    sos = signal.butter(4, [0.1, h_freq], "bandpass", fs=1000.0, output="sos")
    # Shorter than the filter needs to settle, the recording is reflected as a whole.
    raw._data[:] = signal.sosfiltfilt(sos, raw._data, axis=1, padtype="odd", padlen=raw.n_times - 1)
    events = events[events[:, 2] != 99999]
    epochs = mne.Epochs(
        raw, events, tmin=-0.2, tmax=tmax, baseline=(None, 0), decim=decim, preload=True, verbose="error"
    )
    return epochs.get_data(copy=False), epochs.events[:, 2]


@pytest.mark.parametrize(
    ("window", "channels", "h_freq", "tmax", "decim", "skipped"),
    [("gifford", "posterior", 40.0, 0.79, 10, 0), ("nice", "all", 100.0, 0.996, 4, 50)],
)
def test_raw_recordings_become_the_epochs_that_mne_makes(
    eeg2: Path, tmp_path: Path, window: str, channels: str, h_freq: float, tmax: float, decim: int, skipped: int
) -> None:
    reader = open_eeg2(eeg2, subject=1, memory=MEMORY, form="raw", window=window, channels=channels, whiten=False)
    data = made(reader, tmp_path / "out", averages=())
    names = tuple(channel.name for channel in data.layout.channels)
    assert names == (
        POSTERIOR if channels == "posterior" else tuple(load(eeg2 / RAW / "ses-01/raw_eeg_test.npy")["ch_names"])[:-1]
    )
    assert data.layout.unit == "V"
    for split, file in (("train", "training"), ("test", "test")):
        parts = [
            by_mne(eeg2 / RAW / f"ses-{session:02d}/raw_eeg_{file}.npy", names, h_freq, tmax, decim)
            for session in (1, 2, 3, 4)
        ]
        expected = np.concatenate([part[0] for part in parts])[:, :, skipped:]
        np.testing.assert_array_equal(data.stimulus(split), np.concatenate([part[1] for part in parts]) - 1)
        assert data.responses(split).shape == expected.shape
        np.testing.assert_allclose(data.responses(split), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert data.layout.shape == {"gifford": (17, 100), "nice": (63, 250)}[window]
    assert (data.layout.sfreq, data.layout.tmin) == {"gifford": (100.0, -0.2), "nice": (250.0, 0.0)}[window]


def test_the_folder_is_that_of_the_subject_itself(eeg2: Path, eeg_subject: SensorSubject, tmp_path: Path) -> None:
    """Responses by picture content: each original picture's epochs, taken from the subject's own runs."""
    from minddiffuser.runtime.signal.chain import open_chain

    reader = open_eeg2(eeg2, subject=1, memory=MEMORY, form="raw", whiten=False)
    data = made(reader, tmp_path / "out")
    chain = open_chain(data.layout.signal, eeg_subject.channels, 1000.0)
    for split in ("train", "test"):
        originals = np.stack([eeg_subject.pictures[split].images[k] for k in range(data.n_stimuli(split))]).astype(int)
        written = data.images(split).astype(int)
        far = np.abs(originals[:, None] - written[None]).mean(axis=(2, 3, 4))
        same = far.argmin(axis=1)  # JPEG changes pixels by a few levels
        assert sorted(same) == list(range(len(originals)))
        assert far.min(axis=1).max() < 2 < 20 < np.sort(far, axis=1)[:, 1].min()
        sums = np.zeros((len(originals), 17, 100))
        for run in eeg_subject.runs():
            events = [event for event in run.events if event.split == split]
            if events:
                epochs = chain.epochs(run.data, [event.sample for event in events])
                for event, epoch in zip(events, epochs.data, strict=True):
                    sums[event.stimulus] += epoch
        means = sums / eeg_subject.n_repetitions[split]
        found = np.stack([data.responses(split)[data.stimulus(split) == k].mean(axis=0) for k in same])
        np.testing.assert_allclose(found, means, rtol=0, atol=1e-5 * np.abs(means).max())
        concepts = eeg_subject.pictures[split].concepts
        assert [data.concepts(split)[k] for k in same] == list(concepts)
        assert [data.captions(split)[k] for k in same] == [[f"a picture of a {concept}"] for concept in concepts]


def test_memory_decides_about_parts_and_changes_no_bit(eeg2: Path, tmp_path: Path) -> None:
    whole = open_eeg2(eeg2, subject=1, memory=MEMORY, form="raw", window="nice", channels="all", whiten=False)
    parts = open_eeg2(eeg2, subject=1, memory=400_000, form="raw", window="nice", channels="all", whiten=False)
    assert len(parts.pieces) > len(whole.pieces) == 8
    a, b = made(whole, tmp_path / "a"), made(parts, tmp_path / "b", memory=10**6)
    for split in ("train", "test"):
        np.testing.assert_array_equal(a.responses(split), b.responses(split))


def test_whitening_is_fitted_on_training_trials_alone(eeg2: Path, tmp_path: Path) -> None:
    data = made(open_eeg2(eeg2, subject=1, memory=MEMORY, form="raw"), tmp_path / "a")
    plain = made(open_eeg2(eeg2, subject=1, memory=MEMORY, form="raw", whiten=False), tmp_path / "b")
    place = copy(eeg2, tmp_path)
    for session in (1, 2, 3, 4):
        path = place / RAW / f"ses-{session:02d}/raw_eeg_test.npy"
        content = load(path)
        content["raw_eeg_data"][46:63:2] *= 5
        np.save(path, content, allow_pickle=True)
    other = made(open_eeg2(place, subject=1, memory=MEMORY, form="raw"), tmp_path / "c")
    assert data.layout.unit == "1"
    np.testing.assert_array_equal(data.responses("train"), other.responses("train"))
    name = "whitening.safetensors"
    assert (data.folder / name).read_bytes() == (other.folder / name).read_bytes()
    assert not np.array_equal(data.responses("test"), other.responses("test"))
    # The noise covariance of training trials, whitened, is the identity where every trial counts alike.
    trials = plain.responses("train").astype(np.float64)
    within = np.mean([np.cov(trial) for trial in trials], axis=0)
    white = np.mean([np.cov(trial) for trial in data.responses("train").astype(np.float64)], axis=0)
    assert np.linalg.cond(white) < np.linalg.cond(within) / 2
    assert abs(np.trace(white) / 17 - 1) < 0.3
    # What a live system would do: the chain with its file.
    from minddiffuser.runtime.signal.chain import open_chain
    from minddiffuser.training.simulate.sensors import CAP, eeg_sensors

    chain = open_chain(data.layout.signal, eeg_sensors(CAP).channels, 1000.0, data.folder)
    assert chain.layout.as_json() | {"channels": 0} == data.layout.as_json() | {"channels": 0}
    assert not chain.causal
    causal = open_eeg2(eeg2, subject=1, memory=MEMORY, form="raw", causal=True)
    live = made(causal, tmp_path / "d")
    open_chain(live.layout.signal, eeg_sensors(CAP).channels, 1000.0, live.folder).stream()


@pytest.mark.parametrize(("place", "name"), [(GIFFORD, "Gifford et al."), (NICE, "NICE")])
def test_prepared_epochs_are_taken_as_they_are(eeg2: Path, tmp_path: Path, place: Path, name: str) -> None:
    reader = open_eeg2(eeg2 / place.parent, subject=1, memory=10**6)
    assert any(name in note for note in reader.notes)
    assert len(reader.pieces) > 1
    data = made(reader, tmp_path / "out")
    train, test = (load(eeg2 / place / f"preprocessed_eeg_{name}.npy") for name in ("training", "test"))
    singles = train["preprocessed_eeg_data"]
    np.testing.assert_array_equal(data.responses("train"), singles.reshape(-1, *singles.shape[2:]).astype(np.float32))
    np.testing.assert_array_equal(data.stimulus("train"), np.repeat(np.arange(6), 4))
    means = test["preprocessed_eeg_data"].mean(axis=1)
    np.testing.assert_allclose(data.responses("test"), means, rtol=0, atol=1e-6 * np.abs(means).max())
    assert [channel.name for channel in data.layout.channels] == train["ch_names"]
    assert data.layout.unit == "1"
    assert data.layout.signal is None
    assert data.layout.tmin == {GIFFORD: -0.2, NICE: 0.0}[place]
    assert all(channel.position is not None for channel in data.layout.channels)


def test_single_test_trials_and_posterior_channels_of_nice(eeg2: Path, tmp_path: Path) -> None:
    reader = open_eeg2(eeg2 / NICE.parent, subject=1, memory=MEMORY, channels="posterior")
    data = made(reader, tmp_path / "out", averages=())
    assert data.layout.shape == (17, 250)
    assert len(data.responses("test")) == 16
    assert tuple(channel.name for channel in data.layout.channels) == POSTERIOR


def test_one_kind_under_the_others_name_is_noted_and_read(eeg2: Path, tmp_path: Path) -> None:
    place = copy(eeg2, tmp_path)
    shutil.rmtree(place / GIFFORD)
    (place / NICE).rename(place / GIFFORD)
    reader = open_eeg2(place / GIFFORD.parent, subject=1, memory=MEMORY)
    assert "kind of NICE (pickle), recognised by their content: 63 channels, 250 samples" in reader.notes[0]
    assert "first 50 are left out" in reader.notes[1]


def write_brainvision(path: Path, data: np.ndarray, names: list[str]) -> None:
    """A recording in µV, as the amplifier's software writes it."""
    head = ["Brain Vision Data Exchange Header File Version 1.0", "[Common Infos]", f"DataFile={path.stem}.eeg"]
    head += [f"MarkerFile={path.stem}.vmrk", "DataFormat=BINARY", "DataOrientation=MULTIPLEXED"]
    head += [f"NumberOfChannels={len(names)}", "SamplingInterval=1000", "[Binary Infos]", "BinaryFormat=IEEE_FLOAT_32"]
    head += ["[Channel Infos]", *(f"Ch{n}={name},,1,µV" for n, name in enumerate(names, 1))]
    path.write_text("\n".join(head) + "\n", encoding="utf-8")
    marks = ["Brain Vision Data Exchange Marker File, Version 1.0", "[Common Infos]", f"DataFile={path.stem}.eeg"]
    path.with_suffix(".vmrk").write_text("\n".join([*marks, "[Marker Infos]", "Mk1=New Segment,,1,1,0"]) + "\n")
    path.with_suffix(".eeg").write_bytes((data * 1e6).T.astype("<f4").tobytes())


@pytest.fixture
def bids(eeg2: Path, tmp_path: Path) -> Path:
    """The same recordings as NEMAR's nm000232 has them."""
    root = tmp_path / "bids"
    shutil.copytree(eeg2 / "image_set", root / "stimuli")
    rows = ["stimulus_id\ttype\tfilename\tpresent"]
    metadata = load(root / "stimuli/image_metadata.npy")
    for split, digits in (("train", 5), ("test", 3)):
        for number, (concept, file) in enumerate(
            zip(metadata[f"{split}_img_concepts"], metadata[f"{split}_img_files"], strict=True), 1
        ):
            folder = "training_images" if split == "train" else "test_images"
            name = f"stim-{split}{number:0{digits}d}"
            (root / "stimuli" / folder / concept / file).rename(
                root / "stimuli" / folder / concept / f"{name}_image.jpg"
            )
            rows.append(f"{name}\timage\t{folder}/{concept}/{name}_image.jpg\ttrue")
    (root / "stimuli/stimuli.tsv").write_text("\n".join(rows) + "\n")
    for session in (1, 2, 3, 4):
        for split, file in (("train_run-01", "training"), ("test", "test")):
            content = load(eeg2 / RAW / f"ses-{session:02d}/raw_eeg_{file}.npy")
            place = root / f"sub-01/ses-{session:02d}/eeg"
            place.mkdir(parents=True, exist_ok=True)
            name = f"sub-01_ses-{session:02d}_task-{split}"
            data = content["raw_eeg_data"]
            write_brainvision(place / f"{name}_eeg.vhdr", data[:-1], content["ch_names"][:-1])
            lines = ["onset\tduration\tsample\tvalue\ttrial_type\ttot_img_number"]
            for sample in np.flatnonzero(data[-1]):
                code = int(data[-1, sample])
                kind, number = ("target", "n/a") if code == 99999 else ("image", str(code))
                lines.append(f"{sample / 1000}\t0.1\t{sample}\t{sample % 99}\t{kind}\t{number}")
            (place / f"{name}_events.tsv").write_text("\n".join(lines) + "\n")
    return root


def test_the_bids_form_is_the_raw_form(eeg2: Path, bids: Path, tmp_path: Path) -> None:
    raw = made(open_eeg2(eeg2, subject=1, memory=MEMORY, form="raw", whiten=False), tmp_path / "a")
    same = made(open_eeg2(bids, subject=1, memory=10**6, whiten=False), tmp_path / "b")
    for split in ("train", "test"):
        np.testing.assert_array_equal(raw.stimulus(split), same.stimulus(split))
        largest = np.abs(raw.responses(split)).max()
        np.testing.assert_allclose(same.responses(split), raw.responses(split), rtol=0, atol=1e-5 * largest)
        assert raw.concepts(split) == same.concepts(split)
        np.testing.assert_array_equal(raw.images(split), same.images(split))
    assert raw.layout.signal == same.layout.signal


def test_what_is_wrong_with_a_bids_folder_is_said(bids: Path) -> None:
    place = bids / "sub-01/ses-02/eeg"
    table = place / "sub-01_ses-02_task-train_run-01_events.tsv"
    text = table.read_text()
    table.write_text(text.replace("tot_img_number", "number"))
    with pytest.raises(FileError, match="has no column tot_img_number"):
        open_eeg2(bids, subject=1, memory=MEMORY)
    table.write_text("\n".join([*text.splitlines(), "99\t0.1\t99000\t1\timage\t3"]) + "\n")
    with pytest.raises(FileError, match="line 9 of .* is at sample 99000, and the recording has 6400"):
        open_eeg2(bids, subject=1, memory=MEMORY)
    table.write_text("\n".join(line for line in text.splitlines() if "image\t" not in line) + "\n")
    with pytest.raises(FileError, match="showed no picture"):
        open_eeg2(bids, subject=1, memory=MEMORY)
    table.unlink()
    with pytest.raises(FileError, match="table of events is missing"):
        open_eeg2(bids, subject=1, memory=MEMORY)
    (place / "sub-01_ses-02_task-test_eeg.vhdr").unlink()
    with pytest.raises(FileError, match="run 1 of task-test of session 2 is missing"):
        open_eeg2(bids, subject=1, memory=MEMORY)


def change(path: Path, **changed: Any) -> None:
    np.save(path, {**load(path), **changed}, allow_pickle=True)


def scaled(path: Path, key: str, factor: float) -> None:
    content = load(path)
    change(path, **{key: content[key] * factor})


FIRST = RAW / "ses-01/raw_eeg_training.npy"
WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "an fMRI array": (
        lambda place: np.save(place / FIRST, np.zeros((5, 7), np.float32)),
        r"train recording of session 1 .* float32 \(5, 7\), which looks like responses of fMRI",
    ),
    "prepared epochs": (
        lambda place: shutil.copy(place / GIFFORD / TRAINING, place / FIRST),
        "expected a raw recording; it looks like epochs that were made already",
    ),
    "truncated": (
        lambda place: (place / FIRST).write_bytes((place / FIRST).read_bytes()[:-100_000]),
        "train recording of session 1 .* it is truncated, copy it again",
    ),
    "a session missing": (
        lambda place: shutil.rmtree(place / RAW / "ses-03"),
        r"session 3 of sub-01 is missing: .* holds sessions 1-2,4, .* give --sessions 1-2,4",
    ),
    "a file missing": (
        lambda place: (place / RAW / "ses-02/raw_eeg_test.npy").unlink(),
        r"session 2 of sub-01 has no raw_eeg_test\.npy: copy",
    ),
    "transposed": (
        lambda place: change(place / FIRST, raw_eeg_data=load(place / FIRST)["raw_eeg_data"].T.copy()),
        "is it transposed",
    ),
    "no stimulus channel": (
        lambda place: change(place / FIRST, ch_types=["eeg"] * 64),
        "has 0 channels of type stim",
    ),
    "another picture set": (
        lambda place: next((place / "image_set/training_images").glob("*/*_01b.jpg")).unlink(),
        r"train picture \d of image_metadata\.npy, training_images/.* is another picture set or an incomplete one",
    ),
    "fewer pictures": (
        lambda place: [
            (place / "image_set/image_metadata.npy").unlink(),
            next((place / "image_set/training_images").glob("*/*_01b.jpg")).unlink(),
        ],
        "showed picture 6, and the picture set has 5 of this split, counted from 1",
    ),
    "packed pictures": (
        lambda place: [
            shutil.rmtree(place / "image_set/training_images"),
            (place / "image_set/training_images.zip").write_bytes(b"PK"),
        ],
        "pictures are still packed in",
    ),
    "code in the list of the pictures": (
        lambda place: (place / "image_set/image_metadata.npy").write_bytes(pickle.dumps({"train_img_files": print})),
        "names .*print, and only numpy arrays and plain containers are read",
    ),
    "no picture set": (lambda place: shutil.rmtree(place / "image_set"), "pictures of THINGS-EEG2 are not in"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_raw_file_is_named(eeg2: Path, tmp_path: Path, name: str) -> None:
    place = copy(eeg2, tmp_path)
    spoil, said = WRONG[name]
    spoil(place)
    with pytest.raises(FileError, match=said) as caught:
        open_eeg2(place, subject=1, memory=MEMORY, form="raw")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("factor", "said"),
    [(1e6, "looks like µV, multiply by 1e-06"), (1e-9, "looks like T, as of MEG"), (0.0, "holds no signal")],
)
def test_another_unit_is_refused_with_both_figures(
    eeg2: Path, tmp_path: Path, factor: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copy(eeg2, tmp_path)
    content = load(place / FIRST)
    content["raw_eeg_data"][:-1] *= factor
    np.save(place / FIRST, content, allow_pickle=True)
    reader = open_eeg2(place, subject=1, memory=MEMORY, form="raw")
    with pytest.raises(FileError, match=said) as caught:
        reader.read(reader.pieces[0])
    given = ["prepare", "things-eeg2", str(place), "--subject", "1", "--form", "raw", "--image-size", "32"]
    assert main([*given, "--out", str(tmp_path / "data")]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("md-train: ")
    assert said in line
    if factor:
        assert "standard deviation of" in str(caught.value)
        assert "one in V has some 0.00001" in str(caught.value)


def test_sessions_can_be_left_out_on_purpose(eeg2: Path, tmp_path: Path) -> None:
    place = copy(eeg2, tmp_path)
    shutil.rmtree(place / RAW / "ses-03")
    reader = open_eeg2(place, subject=1, memory=MEMORY, form="raw", sessions=[1, 2, 4])
    assert [piece.name for piece in reader.pieces][::2] == ["session01-train", "session02-train", "session04-train"]


def test_another_subject_is_named(eeg2: Path) -> None:
    with pytest.raises(FileError, match="no raw of sub-02 .*; there are sub-01: give"):
        open_eeg2(eeg2, subject=2, memory=MEMORY, form="raw")
    with pytest.raises(FileError, match="is the folder of sub-01, and --subject is 2"):
        open_eeg2(eeg2 / RAW, subject=2, memory=MEMORY)
    assert open_eeg2(eeg2 / RAW, subject=1, memory=MEMORY, images=eeg2 / "image_set").subject == "things-eeg2-sub-01"


def test_packed_recordings_are_named(eeg2: Path, tmp_path: Path) -> None:
    shutil.copytree(eeg2 / "image_set", tmp_path / "image_set")
    (tmp_path / "Raw_data").mkdir()
    (tmp_path / "Raw_data/sub-01.zip").write_bytes(b"PK")
    with pytest.raises(FileError, match=r"still packed in .*sub-01\.zip: unpack it"):
        open_eeg2(tmp_path, subject=1, memory=MEMORY)


@pytest.mark.long
def test_a_long_recording_is_not_held_as_a_whole(eeg2: Path, tmp_path: Path) -> None:
    """Ten minutes of 63 channels are 300 MB in float64; a channel and what its filter takes are some 30 MB."""
    place = copy(eeg2, tmp_path)
    names = load(place / FIRST)["ch_names"]
    rng = np.random.default_rng(0)
    long = write_dictionary(
        place / FIRST,
        {
            "raw_eeg_data": Later((64, 600_000)),
            "ch_names": names,
            "ch_types": ["eeg"] * 63 + ["stim"],
            "sfreq": 1000,
        },
        "np.save",
    )["raw_eeg_data"]
    for row in range(63):
        long[row] = 1e-5 * rng.standard_normal(600_000)
    long[-1, 5000:500_000:5000] = 1 + np.arange(99) % 6
    long.flush()
    del long
    reader = open_eeg2(place, subject=1, memory=20_000_000, form="raw", channels="all")
    tracemalloc.start()
    try:
        block = reader.read(reader.pieces[0])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert block.responses.shape == (99, 63, 100)
    assert peak < 100e6


def test_several_forms_have_to_be_chosen_from(eeg2: Path) -> None:
    with pytest.raises(FileError, match="sub-01 in several forms .*: choose with --form"):
        open_eeg2(eeg2, subject=1, memory=MEMORY)
    with pytest.raises(InputError, match="--causal is for recordings"):
        open_eeg2(eeg2 / GIFFORD.parent, subject=1, memory=MEMORY, causal=True)


def test_the_pictures_of_meg_are_named(eeg2: Path, meg: Path) -> None:
    with pytest.raises(FileError, match="looks like the picture set of THINGS-MEG"):
        open_eeg2(eeg2, subject=1, memory=MEMORY, form="raw", images=meg)


WRONG_EPOCHS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a raw recording": (
        lambda place: shutil.copy(place / FIRST, place / GIFFORD / TRAINING),
        "the train epochs at .* have no preprocessed_eeg_data .* it looks like a raw recording",
    ),
    "one split of each kind": (
        lambda place: shutil.copy(place / NICE / TRAINING, place / GIFFORD / TRAINING),
        "have other channels .* prepared in two ways",
    ),
    "the test file as training": (
        lambda place: shutil.copy(place / GIFFORD / "preprocessed_eeg_test.npy", place / GIFFORD / TRAINING),
        "the train epochs at .* are of 2 pictures, and .* holds 6 train pictures",
    ),
    "µV": (
        lambda place: [
            scaled(place / GIFFORD / f"preprocessed_eeg_{name}.npy", "preprocessed_eeg_data", 1000.0)
            for name in ("training", "test")
        ],
        "standard deviation of .* looks like µV, multiply by 1e-06",
    ),
    "no times": (lambda place: change(place / GIFFORD / TRAINING, times=np.arange(7.0)), "times of the train epochs"),
    "averages": (
        lambda place: change(
            place / GIFFORD / TRAINING,
            preprocessed_eeg_data=load(place / GIFFORD / TRAINING)["preprocessed_eeg_data"].mean(axis=1),
        ),
        r"float64 \(6, 17, 100\) with 17 channel names: expected \(pictures, repetitions, channels, samples\)",
    ),
    "missing": (lambda place: (place / GIFFORD / TRAINING).unlink(), "the file of the train epochs is missing"),
    "code": (
        lambda place: (place / GIFFORD / TRAINING).write_bytes(pickle.dumps({"preprocessed_eeg_data": print})),
        "print, and only numpy arrays and plain containers are read",
    ),
}


@pytest.mark.parametrize("name", WRONG_EPOCHS)
def test_wrong_epochs_are_named(eeg2: Path, tmp_path: Path, name: str) -> None:
    place = copy(eeg2, tmp_path)
    spoil, said = WRONG_EPOCHS[name]
    spoil(place)
    with pytest.raises(FileError, match=said) as caught:
        open_eeg2(place / GIFFORD.parent, subject=1, memory=MEMORY)
    assert "\n" not in str(caught.value)


def test_repetitions_that_were_not_recorded_are_left_out(eeg2: Path, tmp_path: Path) -> None:
    place = copy(eeg2, tmp_path)
    data = load(place / GIFFORD / TRAINING)["preprocessed_eeg_data"]
    data[1, 2:] = 0
    change(place / GIFFORD / TRAINING, preprocessed_eeg_data=data)
    out = made(open_eeg2(place / GIFFORD.parent, subject=1, memory=MEMORY), tmp_path / "out")
    assert np.bincount(out.stimulus("train")).tolist() == [4, 2, 4, 4, 4, 4]


def test_all_channels_of_seventeen_are_refused(eeg2: Path) -> None:
    with pytest.raises(FileError, match="holds 17 channels, the posterior ones"):
        open_eeg2(eeg2 / GIFFORD.parent, subject=1, memory=MEMORY, channels="all")


def test_the_command(eeg2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data"
    given = ["prepare", "things-eeg2", str(eeg2), "--subject", "1", "--image-size", "32", "--out", str(out)]
    assert main([*given, "--form", "raw"]) == 0
    said = capsys.readouterr().out
    assert "left out: 8 (target that the subject answered with a key)" in said
    assert "whitening (MVNN): one matrix for the subject, fitted on 24 training trials" in said
    data = open_data(out)
    assert data.layout.shape == (17, 100)
    assert read_image(data.pictures("train")[0].root / data.pictures("train")[0].path).shape == (32, 32, 3)
    assert main([*given, "--force"]) == 2
    assert "choose with --form" in capsys.readouterr().err


def test_the_command_offers_every_window() -> None:
    assert tuple(published.WINDOWS) == eeg2_module.WINDOWS


def test_the_chain_takes_a_causal_low_pass_that_decimation_allows() -> None:
    for window, causal, top in (
        ("gifford", False, 40),
        ("nice", False, 100),
        ("gifford", True, 35),
        ("nice", True, 87.5),
    ):
        assert eeg2_chain(window, 1000.0, causal=causal)["steps"][0]["h_freq"] == pytest.approx(top)
