"""THINGS-MEG: the published epochs, raw runs, the zero-shot split; and whatever is given in their place."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest
from scipy import signal

from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.progress import unheard
from minddiffuser.training.cli import main
from minddiffuser.training.datasets.prepare import PrepareSettings, prepare
from minddiffuser.training.datasets.things.meg import open_meg
from minddiffuser.training.datasets.things.meg_attributes import CATCH, SAME_CONCEPT, showings, trials_from
from minddiffuser.training.simulate.base import SensorSubject

MEMORY = 10**8
EPOCHS = Path("derivatives/preprocessed/preprocessed_P1-epo.fif")
TABLE = Path("sourcedata/sample_attributes_P1.csv")
RUN = Path("sub-BIGMEG1/ses-01/meg/sub-BIGMEG1_ses-01_task-main_run-01_meg.fif")


def made(reader: Any, out: Path, **settings: Any) -> Any:
    return prepare("things-meg", reader, out, PrepareSettings(image_size=32, **settings), progress=unheard)[0]


def copy(meg: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(meg, tmp_path / "copy"))


def rows_of(place: Path) -> list[dict[str, str]]:
    with open(place / TABLE, newline="") as file:
        return list(csv.DictReader(file))


def write_rows(place: Path, rows: list[dict[str, str]]) -> None:
    with open(place / TABLE, "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def changed_epochs(place: Path, change: Callable[[Any], Any]) -> None:
    epochs = mne.read_epochs(place / EPOCHS, verbose="error")
    change(epochs).save(place / EPOCHS, overwrite=True, verbose="error")


def test_published_epochs_are_read_some_at_a_time(meg: Path, tmp_path: Path) -> None:
    data = made(open_meg(meg, subject=1, memory=MEMORY, form="epochs"), tmp_path / "a", averages=())
    parts = open_meg(meg, subject=1, memory=3 * 24 * 10 * 281, form="epochs")
    assert [piece.name for piece in parts.pieces][:2] == ["session01-part01", "session01-part02"]
    same = made(parts, tmp_path / "b", averages=())
    epochs = mne.read_epochs(meg / EPOCHS, preload=True, verbose="error").crop(0, 1.0)
    kinds = [row["trial_type"] for row in rows_of(meg)]
    for split, kind in (("train", "exp"), ("test", "test")):
        expected = epochs.get_data(copy=False)[[own == kind for own in kinds]]
        assert expected.shape[1:] == (10, 201)
        np.testing.assert_array_equal(data.responses(split), expected.astype(np.float32))
        np.testing.assert_array_equal(same.responses(split), data.responses(split))
    assert (data.layout.sfreq, data.layout.tmin, data.layout.unit) == (200.0, 0.0, "1")


def test_raw_runs_become_the_published_epochs(meg: Path, tmp_path: Path) -> None:
    """MNE and scipy make them, timed by the triggers; the prepared file holds the same."""
    data = made(open_meg(meg, subject=1, memory=10**6, form="raw"), tmp_path / "raw", averages=())
    published = made(open_meg(meg, subject=1, memory=MEMORY, form="epochs"), tmp_path / "epochs", averages=())
    rows = rows_of(meg)
    expected = []
    for path in sorted(meg.glob("sub-BIGMEG1/*/meg/*_meg.fif")):
        raw = mne.io.read_raw_fif(path, preload=True, verbose="error")
        events = mne.find_events(raw, stim_channel="UPPT001", verbose="error")
        events = events[events[:, 2] == 64]
        raw.pick("mag", verbose="error")
        sos = signal.butter(4, [0.1, 40.0], "bandpass", fs=1200.0, output="sos")
        raw._data[:] = signal.sosfiltfilt(sos, raw._data, axis=1, padtype="odd", padlen=raw.n_times - 1)
        epochs = mne.Epochs(raw, events, tmin=-0.1, tmax=1.0, baseline=None, preload=True, verbose="error")
        scaled = mne.baseline.rescale(epochs.get_data(), epochs.times, (None, 0), "zscore", verbose="error")
        expected.append(scaled[:, :, 120::6])  # from the event's own sample, at 200 Hz
    stacked = np.concatenate(expected)
    for split, kind in (("train", "exp"), ("test", "test")):
        mine = stacked[[row["trial_type"] == kind for row in rows]]
        largest = np.abs(mine).max()
        np.testing.assert_allclose(data.responses(split), mine, rtol=0, atol=1e-4 * largest)
        np.testing.assert_allclose(published.responses(split), mine, rtol=0, atol=1e-4 * largest)
        np.testing.assert_array_equal(data.stimulus(split), published.stimulus(split))
        assert data.concepts(split) == published.concepts(split)
    assert data.layout.signal is not None
    assert published.layout.signal is None
    # Positions are those of the head, which the recording states.
    place = data.layout.channels[0].position
    assert place is not None
    np.testing.assert_allclose(place, published.layout.channels[0].position, atol=1e-6)


def test_the_folder_is_that_of_the_subject_itself(meg: Path, meg_subject: SensorSubject, tmp_path: Path) -> None:
    from minddiffuser.runtime.signal.chain import open_chain

    data = made(open_meg(meg, subject=1, memory=MEMORY, form="raw"), tmp_path / "out")
    signal_chain = {"steps": [step for step in data.layout.signal["steps"] if step["name"] != "pick"]}
    chain = open_chain(signal_chain, meg_subject.channels, 1200.0)
    for split in ("train", "test"):
        originals = np.stack([meg_subject.pictures[split].images[k] for k in range(data.n_stimuli(split))]).astype(int)
        far = np.abs(originals[:, None] - data.images(split).astype(int)[None]).mean(axis=(2, 3, 4))
        same = far.argmin(axis=1)
        assert sorted(same) == list(range(len(originals)))
        sums = np.zeros((len(originals), 10, 201))
        for run in meg_subject.runs():
            events = [event for event in run.events if event.split == split]
            if events:
                epochs = chain.epochs(run.data, [event.sample for event in events])
                for event, epoch in zip(events, epochs.data, strict=True):
                    sums[event.stimulus] += epoch
        means = sums / meg_subject.n_repetitions[split]
        found = np.stack([data.responses(split)[data.stimulus(split) == k].mean(axis=0) for k in same])
        np.testing.assert_allclose(found, means, rtol=0, atol=1e-4 * np.abs(means).max())
        assert [data.concepts(split)[k] for k in same] == list(meg_subject.pictures[split].concepts)


def trial(kind: str, path: str, code: int | str = 1) -> dict[str, Any]:
    return {"trial_type": kind, "image_path": path, "session_nr": "1", "run_nr": 1.0, "things_image_nr": code}


def test_the_zero_shot_split_goes_by_the_test_pictures_names(tmp_path: Path) -> None:
    """Public code drops the concepts with the fewest pictures: here that would be "axe", which is no test concept."""
    exp = ["axe/axe_01b", "coat_rack/coat_rack_01b", "coat_rack/coat_rack_02s", "bat1/bat1_03n", "bat2/bat2_04s"]
    tested = ["coat_rack_13s", "bat2_14s", "coat_rack_13s"]
    rows = [trial("exp", f"images_meg/{name}.jpg") for name in exp]
    rows += [trial("test", f"images_test_meg/{name}.jpg") for name in tested]
    rows += [trial("catch", "images_catch_meg/catch047.jpg", "nan")]
    for row in rows:
        path = tmp_path / row["image_path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = showings(trials_from(rows, tmp_path / "table.csv"), tmp_path)
    assert [picture.source.path for picture in found.pictures] == [  # type: ignore[union-attr]
        "images_meg/axe/axe_01b.jpg",
        "images_meg/bat1/bat1_03n.jpg",
        "images_test_meg/bat2_14s.jpg",
        "images_test_meg/coat_rack_13s.jpg",
    ]
    assert found.picture.tolist() == [0, -1, -1, 1, -1, 3, 2, 3, -1]
    assert found.dropped(np.arange(9)) == {CATCH: 1, SAME_CONCEPT: 3}
    assert [picture.concept for picture in found.pictures] == ["axe", "bat", "bat", "coat rack"]
    assert [picture.captions for picture in found.pictures][3] == ("a picture of a coat rack",)
    assert "2 concepts of the 2 test pictures" in found.note


def test_pictures_may_lie_in_things_own_folders(meg: Path, tmp_path: Path) -> None:
    root = tmp_path / "object_images"
    for path in (meg / "images_meg").rglob("*.jpg"):
        (root / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path.parent.name)
    for path in (meg / "images_test_meg").glob("*.jpg"):
        concept = path.stem.rpartition("_")[0]
        (root / concept).mkdir(exist_ok=True)
        shutil.copy(path, root / concept)
    here = made(open_meg(meg, subject=1, memory=MEMORY, form="epochs"), tmp_path / "a")
    there = made(open_meg(meg, subject=1, memory=MEMORY, form="epochs", images=root), tmp_path / "b")
    for split in ("train", "test"):
        np.testing.assert_array_equal(here.images(split), there.images(split))


def other_table(place: Path) -> None:
    """That of a subject who saw the same pictures in another order."""
    rows = rows_of(place)
    shown = [row for row in rows if row["trial_type"] == "exp"]
    moved = [dict(row) for row in shown[1:] + shown[:1]]
    for row, other in zip(shown, moved, strict=True):
        row.update({name: other[name] for name in ("image_path", "things_image_nr")})
    write_rows(place, rows)


def without_table(epochs: Any) -> Any:
    epochs.metadata = None
    return epochs


def as_eeg(epochs: Any) -> Any:
    return epochs.set_channel_types(dict.fromkeys(epochs.ch_names, "eeg"), on_unit_change="ignore")


def read_all(place: Path, form: str) -> None:
    reader = open_meg(place, subject=1, memory=MEMORY, form=form)
    for piece in reader.pieces:
        reader.read(piece)


WRONG: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "another subject's table": (
        "epochs",
        other_table,
        "trials of the epochs .* showed other pictures .* another subject",
    ),
    "another subject's table, epochs without one": (
        "epochs",
        lambda place: [other_table(place), changed_epochs(place, without_table)],
        r"of 14 trials of the epochs .* showed other pictures than .* the table is of another subject",
    ),
    "a table cut off": (
        "epochs",
        lambda place: write_rows(place, rows_of(place)[:-3]),
        "are 17 trials, and .* lists 14: they are of different subjects, or one is incomplete",
    ),
    "a line cut off": (
        "epochs",
        lambda place: (place / TABLE).write_text((place / TABLE).read_text()[:-30]),
        "is cut off: copy the file again",
    ),
    "another table": (
        "epochs",
        lambda place: (place / TABLE).write_text("a,b\n1,2\n"),
        "has no column trial_type",
    ),
    "no table at all": (
        "epochs",
        lambda place: [(place / TABLE).unlink(), changed_epochs(place, without_table)],
        r"carry no list of their trials, and there is no sample_attributes_P\*\.csv",
    ),
    "fT": (
        "epochs",
        lambda place: changed_epochs(place, lambda epochs: epochs.apply_function(lambda x: x * 1000)),
        "standard deviation of .* looks like fT, multiply by 1e-15",
    ),
    "truncated": (
        "epochs",
        lambda place: (place / EPOCHS).write_bytes((place / EPOCHS).read_bytes()[:5000]),
        "the epochs at .* cannot be read .*: it is truncated or damaged, copy it again",
    ),
    "epochs of EEG": (
        "epochs",
        lambda place: changed_epochs(place, as_eeg),
        "have no magnetometers",
    ),
    "too short": (
        "epochs",
        lambda place: changed_epochs(place, lambda epochs: epochs.crop(0, 0.5)),
        "go from 0 to 0.5 s: expected 0 to 1 s in them",
    ),
    "the pictures of EEG": (
        "epochs",
        lambda place: [
            shutil.rmtree(place / "images_meg"),
            shutil.rmtree(place / "images_test_meg"),
            (place / "image_set/training_images/00001_aardvark").mkdir(parents=True),
        ],
        "looks like the picture set of THINGS-EEG2",
    ),
    "a picture missing": (
        "epochs",
        lambda place: next((place / "images_test_meg").glob("*.jpg")).unlink(),
        "the picture images_test_meg/.* that a trial showed is not in",
    ),
    "another subject's table of raw runs": (
        "raw",
        lambda place: write_rows(place, rows_of(place)[:2] + rows_of(place)[3:]),
        "has 7 triggers of 64 on UPPT001, and .* lists 6 trials of it",
    ),
    "a run missing": ("raw", lambda place: (place / RUN).unlink(), "run 1 of session 1 is missing in .*: copy it"),
    "a truncated run": (
        "raw",
        lambda place: (place / RUN).write_bytes((place / RUN).read_bytes()[:9000]),
        "run 1 of session 1 at .* cannot be read|triggers of 64",
    ),
    "no table of raw runs": ("raw", lambda place: (place / TABLE).unlink(), "raw recordings need the list"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(meg: Path, tmp_path: Path, name: str) -> None:
    place = copy(meg, tmp_path)
    form, spoil, said = WRONG[name]
    spoil(place)
    with pytest.raises(FileError, match=said) as caught:
        read_all(place, form)
    assert "\n" not in str(caught.value)


def test_volts_in_a_raw_run_are_refused_with_both_figures(meg: Path, tmp_path: Path) -> None:
    place = copy(meg, tmp_path)
    raw = mne.io.read_raw_fif(place / RUN, preload=True, verbose="error")
    raw._data[:10] *= 1e8
    raw.save(place / RUN, overwrite=True, verbose="error")
    reader = open_meg(place, subject=1, memory=MEMORY, form="raw")
    with pytest.raises(FileError, match="standard deviation of .* one in T has some 1e-13: it looks like V, as of EEG"):
        reader.read(reader.pieces[0])


def test_a_known_dropout_is_filled_with_the_median(meg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minddiffuser.training.datasets.things import meg_raw

    monkeypatch.setattr(meg_raw, "DROPOUTS", {(1, 1, 1): 3.0})
    plain = open_meg(meg, subject=1, memory=MEMORY, form="raw")._recording(0)  # type: ignore[attr-defined]
    raw = mne.io.read_raw_fif(meg / RUN, preload=True, verbose="error").pick("mag", verbose="error")
    data = raw.get_data()
    data[:, 3600:3840] = np.median(data, axis=1, keepdims=True)
    np.testing.assert_array_equal(plain.load([0, 3], 0, plain.n_samples), data[[0, 3]])


def test_forms_and_subjects(meg: Path) -> None:
    with pytest.raises(FileError, match="P1 in several forms .*: choose with --form"):
        open_meg(meg, subject=1, memory=MEMORY)
    with pytest.raises(FileError, match="no epochs or recordings of P3 .*; there are P1: give"):
        open_meg(meg, subject=3, memory=MEMORY)
    with pytest.raises(InputError, match="--causal is for recordings"):
        open_meg(meg, subject=1, memory=MEMORY, form="epochs", causal=True)


def test_the_command(meg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data"
    given = ["prepare", "things-meg", str(meg), "--subject", "1", "--image-size", "32", "--form", "raw"]
    assert main([*given, "--out", str(out), "--causal"]) == 0
    said = capsys.readouterr().out
    assert "pictures timed by the triggers of UPPT001" in said
    assert "zero-shot split: 2 concepts of the 2 test pictures" in said
    data = open_data(out)
    assert data.layout.signal["steps"][1]["causal"] is True
    assert len(data.responses("test")) == 2
