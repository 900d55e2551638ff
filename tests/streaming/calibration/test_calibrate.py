"""Today's statistics in a new checkpoint and bundle: the values by a formula, all hashes right, decoders untouched."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_items import Steps

from minddiffuser.runtime import backends
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.decoders.scale import TrainingStatistics
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.files import sha256_of
from minddiffuser.runtime.signal.chain import open_chain
from minddiffuser.streaming.calibration import trials
from minddiffuser.streaming.calibration.known import Known, read_known
from minddiffuser.streaming.calibration.statistics import PER, Moments, changes, refitted
from minddiffuser.streaming.cli import main
from minddiffuser.streaming.intake.events import Accepted
from minddiffuser.streaming.intake.settings import IntakeSettings
from minddiffuser.streaming.recording.folder import SessionFolder
from minddiffuser.streaming.recording.writer import Writer
from minddiffuser.streaming.records import ClockOffset, Marker, Samples, SignalInfo

pytest.importorskip("onnxruntime")
SFREQ, N_EVENTS = 200.0, 60
SCALE = np.array([30.0, 10.0, 15.0])  # µV; 10 µV in training
EVENTS = [600 + 140 * k for k in range(N_EVENTS)]


@pytest.fixture(scope="module")
def fitted(live_bundle: Path) -> Path:
    """The checkpoint of that bundle."""
    return live_bundle.parent / "checkpoint"


@pytest.fixture(scope="module")
def signal() -> np.ndarray:
    """(3, n) in µV: another scale in each channel than in training."""
    rng = np.random.default_rng(5)
    return rng.standard_normal((3, EVENTS[-1] + 200)) * SCALE[:, None]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, signal: np.ndarray) -> Path:
    """Every third marker is "train/…"; the others are not of today's calibration."""
    folder = tmp_path_factory.mktemp("sessions") / "today"
    about = {"intake": {"events": ["*"], "learn": 1.0}, "accept_filter_mismatch": False}
    made = SessionFolder.create(folder, about)
    channels = tuple(Channel(name=name, type="eeg") for name in ("O1", "Oz", "O2"))
    info = SignalInfo(name="amp", channels=channels, sfreq=SFREQ, units=("uV",) * 3)
    writer = Writer(folder / "signal.xdf", info, started="")
    steps: Steps = [
        (9.0, [ClockOffset(stream=one, at=9.0, offset=0.0, uncertainty=1e-4) for one in ("signal", "markers")])
    ]
    for start in range(0, signal.shape[1], 20):
        now = 10.0 + (start + 20) / SFREQ
        stamps = 10.0 + np.arange(start, min(start + 20, signal.shape[1])) / SFREQ
        block = Samples(stamps=stamps, data=signal[:, start : start + 20], arrived=now)
        marks = [
            Marker(
                ordinal=k,
                stamp=10.0 + sample / SFREQ,
                arrived=now,
                raw=f"{('train', 'new')[k % 3 > 0]}/{k % 7}".encode(),
            )
            for k, sample in enumerate(EVENTS)
            if start <= sample < start + 20
        ]
        steps.append((now, [*marks, block]))
    for now, items in steps:
        writer.add(items, now)
    writer.close(now)
    made.close()
    return folder


@pytest.fixture(scope="module")
def today(session: Path, signal: np.ndarray, fitted: Path) -> np.ndarray:
    """The epochs of all events, (60, 3, 41) float32, by the chain over the whole recording."""
    checkpoint = open_checkpoint(fitted)
    assert checkpoint.layout.channels is not None
    assert checkpoint.layout.signal is not None
    chain = open_chain(checkpoint.layout.signal, checkpoint.layout.channels, SFREQ)
    return chain.epochs(signal * 1e-6, np.array(EVENTS)).data


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Which marker is of which picture; "new/6" is of none."""
    rows = [f"train/{k},cat_{k}.png,train" for k in range(7)] + [f"new/{k},dog_{k}.png,test" for k in range(6)]
    path = tmp_path_factory.mktemp("tables") / "shown.csv"
    path.write_text("\n".join(["event,picture,split", *rows]))
    return path


@pytest.fixture(scope="module")
def calibrated(
    tmp_path_factory: pytest.TempPathFactory, session: Path, fitted: Path, live_bundle: Path, shown: Path
) -> Path:
    out = tmp_path_factory.mktemp("calibrated") / "today"
    words = ["calibrate", str(session), "--checkpoint", str(fitted), "--bundle", str(live_bundle), "--out", str(out)]
    assert main([*words, "--events", "train/*", "--table", str(shown)]) == 0
    return out


def moments(responses: np.ndarray, training: TrainingStatistics) -> Moments:
    made = Moments(training)
    for response in responses:
        made.add(response)
    return made


def by_channel(today: np.ndarray, training: TrainingStatistics) -> tuple[np.ndarray, np.ndarray]:
    """With loops: each channel's z-scores pooled over trials and samples that varied."""
    mean, std = training.mean.astype(float), training.std.astype(float)
    for row in range(len(mean)):
        used = std[row] > 0
        z = (today[:, row, used] - mean[row, used]) / std[row, used]
        mean[row, used] += z.mean() * std[row, used]
        std[row, used] *= z.std()
    return mean, std


def test_the_statistics_are_those_of_the_trials_that_were_named(
    calibrated: Path, today: np.ndarray, fitted: Path, shown: Path
) -> None:
    before, after = open_checkpoint(fitted).training, open_checkpoint(calibrated / "checkpoint").training
    mean, std = by_channel(today[::3], before)
    np.testing.assert_allclose(after.mean, mean, rtol=1e-5, atol=1e-11)
    np.testing.assert_allclose(after.std, std, rtol=1e-5)
    assert (after.std[before.std == 0] == 0).all()
    for row, used in enumerate(before.std > 0):
        z = after.scores(today[::3])[:, row, used]
        assert z.mean() == pytest.approx(0, abs=1e-4)
        assert z.std() == pytest.approx(1, rel=1e-4)
    about = json.loads((calibrated / "calibration.json").read_text())
    assert about["n_trials"] == 20
    assert about["changes"][0]["channel"] == "Oz"
    assert about["table"] == sha256_of(shown)


def test_what_it_says(tmp_path: Path, session: Path, fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["calibrate", str(session), "--checkpoint", str(fitted), "--out", str(tmp_path / "new")]
    assert main([*words, "--trials", "12", "--unchecked"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "fitted on 12 trials of 10 events; what changed most:"
    assert lines[1].startswith("  Oz: mean by ")
    assert lines[-1] == str(tmp_path / "new")
    assert not (tmp_path / "new" / "bundle").exists()


def test_bundle_and_checkpoint_decode_the_same_and_not_as_before(
    calibrated: Path, today: np.ndarray, fitted: Path, live_bundle: Path
) -> None:
    """What today's response gives now is what the response with the same z-scores gave before."""
    before, after = open_checkpoint(fitted), open_checkpoint(calibrated / "checkpoint")
    equivalent = (before.training.mean + before.training.std * after.training.scores(today)).astype(np.float32)
    options = backends.Options(backend="ort", threads=1)
    with backends.open(calibrated / "bundle", options) as new, backends.open(live_bundle, options) as old:
        new.start()
        old.start()
        now, then, plain = new.decode(today), old.decode(equivalent), old.decode(today)
        for name in ("context", "latent", "structure"):
            assert np.array_equal(getattr(now, name), getattr(then, name))
        assert not np.array_equal(now.latent, plain.latent)
        np.testing.assert_allclose(now.latent, after.decoded(today, ["latent"])["latent"], rtol=1e-4, atol=1e-4)
        assert new.hash != old.hash


def test_every_hash_is_right_and_every_engine_the_same(calibrated: Path, live_bundle: Path, fitted: Path) -> None:
    new, old, checkpoint = Bundle.open(calibrated / "bundle"), Bundle.open(live_bundle), open_checkpoint(fitted)
    made = open_checkpoint(calibrated / "checkpoint")  # both compare every file with its SHA-256
    assert new.checkpoint_hash == made.hash != checkpoint.hash == old.checkpoint_hash
    assert new.manifest["lineage"]["calibrated_from"] == old.hash
    assert made.description["provenance"]["calibration"]["source_checkpoint"] == checkpoint.hash
    changed = {name for name in old.files if new.files[name].sha256 != old.files[name].sha256}
    assert changed <= {"arrays.safetensors", "parity.safetensors"}
    assert new.files.keys() == old.files.keys()
    same = {name for name, sha in checkpoint.description["files"].items() if made.description["files"][name] == sha}
    assert same == set(checkpoint.description["files"]) - {"normaliser.safetensors"}


def test_calibrating_again_starts_from_what_the_graphs_have(
    tmp_path: Path, calibrated: Path, session: Path, today: np.ndarray
) -> None:
    words = ["--checkpoint", str(calibrated / "checkpoint"), "--bundle", str(calibrated / "bundle")]
    assert (
        main(
            ["calibrate", str(session), *words, "--events", "train/*", "--unchecked", "--out", str(tmp_path / "again")]
        )
        == 0
    )
    options = backends.Options(backend="ort", threads=1)
    with backends.open(calibrated / "bundle", options) as one, backends.open(tmp_path / "again/bundle", options) as two:
        one.start()
        two.start()
        np.testing.assert_allclose(one.decode(today).latent, two.decode(today).latent, rtol=1e-4, atol=1e-4)


def test_the_pictures_of_the_bundles_reference_stay(calibrated: Path, live_bundle: Path) -> None:
    from safetensors.numpy import load_file

    parity = [load_file(folder / "parity.safetensors") for folder in (live_bundle, calibrated / "bundle")]
    options = backends.Options(backend="ort", threads=1)
    found = []
    for folder, arrays in zip((live_bundle, calibrated / "bundle"), parity, strict=True):
        with backends.open(folder, options) as opened:
            opened.start()
            found.append(opened.decode(arrays["responses"]).latent)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("per", PER)
def test_refitting(rng: np.random.Generator, fitted: Path, per: str) -> None:
    """Against formulas; on responses that are training's own, next to nothing changes."""
    training = open_checkpoint(fitted).training
    own = (training.mean + training.std * rng.standard_normal((400, *training.mean.shape))).astype(np.float32)
    same = refitted(moments(own, training), per)
    used = training.std > 0
    # The deviation of a mean of n is 1 / sqrt(n), of a deviation 1 / sqrt(2 n): five times that.
    n = 400 * (training.mean.shape[1] if per == "channel" else 1)
    assert np.abs((same.mean - training.mean)[used] / training.std[used]).max() < 5 / np.sqrt(n)
    assert np.abs(same.std[used] / training.std[used] - 1).max() < 5 / np.sqrt(2 * n)
    moved = own * np.float32(2.0) + training.std
    other = refitted(moments(moved, training), per)
    np.testing.assert_allclose(other.std[used], 2 * same.std[used], rtol=1e-4)
    if per == "value":
        np.testing.assert_allclose(other.mean[used], moved.mean(axis=0, dtype=float)[used], rtol=1e-4, atol=1e-11)
        np.testing.assert_allclose(other.std[used], moved.std(axis=0, dtype=float)[used], rtol=1e-4)
    assert all(change.scale == pytest.approx(2.0, rel=0.2) for change in changes(training, other))


def test_a_dead_channel_and_too_few_trials_are_refused(rng: np.random.Generator, fitted: Path) -> None:
    training = open_checkpoint(fitted).training
    own = (training.mean + training.std * rng.standard_normal((60, *training.mean.shape))).astype(np.float32)
    own[:, 1] = 0
    for per in PER:
        with pytest.raises(InputError, match="Oz did not vary over today's trials"):
            refitted(moments(own, training), per)
    with pytest.raises(InputError, match="49 trials can be used, and per value at least 50 .* or estimate per channel"):
        refitted(moments(own[:49], training), "value")
    with pytest.raises(InputError, match="9 trials can be used"):
        refitted(moments(own[:9], training), "channel")


def test_a_channel_is_flat_though_its_training_was_not_flat_over_time(rng: np.random.Generator, fitted: Path) -> None:
    """The mean of training has a course of its own in each channel: that is no life in today's."""
    training = open_checkpoint(fitted).training
    course = np.linspace(-1, 1, training.mean.shape[1], dtype=np.float32) * training.std
    lively = TrainingStatistics(mean=training.mean + course, std=training.std, layout=training.layout)
    own = (lively.mean + lively.std * rng.standard_normal((60, *lively.mean.shape))).astype(np.float32)
    own[:, 1] = own[0, 1, :1]
    for per in PER:
        with pytest.raises(InputError, match="Oz did not vary over today's trials"):
            refitted(moments(own, lively), per)


def test_markers_of_other_pictures_are_refused_by_name(
    tmp_path: Path, session: Path, fitted: Path, shown: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Test pictures must not be seen by what is fitted, and of others nobody knows."""
    words = ["calibrate", str(session), "--checkpoint", str(fitted), "--out", str(tmp_path / "new")]
    assert main([*words, "--table", str(shown)]) == 2
    said = capsys.readouterr().err
    assert "35 markers are of test pictures: 'new/" in said
    assert "5 markers are not in shown.csv: 'new/6' (5)" in said
    assert "choose these with --events, or correct the table" in said
    assert not (tmp_path / "new").exists()
    assert main(words) == 2
    assert "one of the arguments --table --unchecked is required" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ("event,picture\ntrain/1,x.png", "has the columns event, picture, and split is missing"),
        ("event,split\ntrain/1,training", "line 2: split is 'training': give train or test"),
        ("event,split\n7,train\n7.0,test", "line 3: the event '7.0' is of a test picture here and of a train picture"),
        ("event,split,file\ntrain/1,train,yesterday", "names no event of the session 'today'"),
    ],
)
def test_a_table_that_says_nothing_is_refused(tmp_path: Path, table: str, error: str) -> None:
    (tmp_path / "shown.csv").write_text(table)
    with pytest.raises((FileError, InputError), match=error):
        read_known(tmp_path / "shown.csv", "today")


def test_rows_of_other_files_say_nothing_of_this_session(tmp_path: Path) -> None:
    rows = ["1,train,yesterday", "1.0,test,today", "2,train,", "3,train,subject/today/signal.xdf"]
    (tmp_path / "shown.csv").write_text("\n".join(["event,split,file", *rows]))
    known = read_known(tmp_path / "shown.csv", "today")
    assert (known.train, known.test) == ({"2", "3"}, {"1"})


def test_trials_are_summed_as_they_come(
    session: Path, fitted: Path, today: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the session, no more than an epoch or two are there at a time; and however many strange markers."""
    checkpoint = open_checkpoint(fitted)
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def many(*_given: Any) -> Iterator[Any]:
        nonlocal most
        for k in range(2000):
            data = today[k % len(today)].copy()
            alive.append(weakref.ref(data))
            event = Accepted(ordinal=k, text=f"{k}", data=data, segment=0, sample=0, times=None)  # type: ignore[arg-type]
            del data
            yield event
            del event
            most = max(most, sum(one() is not None for one in alive[-10:]))

    monkeypatch.setattr(trials, "_events", many)
    given = (session / "signal.xdf", checkpoint.training, fitted, IntakeSettings())
    assert trials.trials_of(*given).moments.n == 2000
    assert most <= 2
    known = Known(path=Path("shown.csv"), train=frozenset(), test=frozenset())
    with pytest.raises(InputError, match=r"1000 markers are not in shown.csv: .*, …, and 1000 more: the normaliser"):
        trials.trials_of(*given, known=known)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda words, _: [*words, "--events", "nothing/*"], "0 trials can be used"),
        (lambda words, _: [*words[:-1], "--table", "nowhere.csv"], "the table nowhere.csv cannot be read"),
        (lambda words, _: [*words[:-2], words[1], words[-1]], "is not a output folder|holds"),
        (lambda words, other: [*words, "--bundle", str(other)], "was made of another checkpoint"),
    ],
)
def test_mistakes_are_said(
    tmp_path: Path,
    session: Path,
    fitted: Path,
    calibrated: Path,
    capsys: pytest.CaptureFixture[str],
    change: Any,
    error: str,
) -> None:
    import re

    words = ["calibrate", str(session), "--checkpoint", str(fitted), "--out", str(tmp_path / "new"), "--unchecked"]
    assert main(change(words, calibrated / "bundle")) == 2
    assert re.search(error, capsys.readouterr().err)
    assert not (tmp_path / "new").exists()


def test_the_exporters_check_verifies_it_as_before(
    calibrated: Path, live_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from minddiffuser.export.cli import main as export

    found = []
    for folder in (live_bundle, calibrated / "bundle"):
        code = export(["check", str(folder), "--threads", "1"])
        said = capsys.readouterr()
        found.append((code, [line.split()[:2] for line in said.out.splitlines()], said.err))
    assert found[0][:2] == found[1][:2]
