"""md-train as a person meets it: one line per mistake, exit codes, help that ends with something to type."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from minddiffuser.runtime.data.folder import SplitData, open_data, write_data
from minddiffuser.runtime.data.references import refer
from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.features import FEATURES
from minddiffuser.training import cli
from minddiffuser.training.checkpoint_folder import CheckpointFolder
from minddiffuser.training.cli import fit_settings, main, parser
from minddiffuser.training.curves import Curve, curves_bytes
from minddiffuser.training.datasets.base import DATASETS
from minddiffuser.training.decoders import DECODERS
from minddiffuser.training.decoders.mlp import Mlp
from minddiffuser.training.scores import FeatureScores, Score, Scores, SelectionScores, scores_bytes
from minddiffuser.training.simulate.brains import BRAINS
from minddiffuser.training.simulate.brains.base import brain_class

COMMANDS = [[], ["simulate"], ["simulate", "fmri"], ["simulate", "eeg"], ["simulate", "meg"], ["fit"], ["world"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_ends_with_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    example = text[text.index("\nexample (offline") :]
    lines = [line.strip() for line in example.splitlines() if line.strip().startswith("md-train")]
    assert len(lines) >= 2
    for line in lines:
        parser().parse_args(line.split()[1:])  # what the help tells works


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["simulate"], "MODALITY"),
        (["simulate", "ecog", "--out", "x"], "invalid choice: 'ecog'"),
        (["simulate", "eeg"], "--out"),
        (["simulate", "eeg", "--out", "x", "--channels", "64"], "invalid choice: 64"),
        (["simulate", "eeg", "--out", "x", "--sfreq", "20"], "sfreq is 20.0: give 50 to 500 Hz"),
        (["simulate", "eeg", "--out", "x", "--soa", "0"], "from picture to picture is 0.0 s"),
        (["simulate", "eeg", "--out", "x", "--strength", "-1"], "strength is -1.0: give a number above 0"),
        (["simulate", "eeg", "--out", "x", "--seed", "-1"], "seed is -1"),
        (["simulate", "eeg", "--out", "x", "--n-test", "0"], "0 test"),
        (["simulate", "meg", "--out", "x", "--train-repetitions", "0"], "train_repetitions is 0"),
        (["simulate", "meg", "--out", "x", "--channels", "17"], "unrecognized arguments: --channels"),
        (["simulate", "meg", "--out", "x", "--format", "nothing"], "invalid choice: 'nothing'"),
        (["simulate", "meg", "--out", "x", "--clip", "a"], "does not read --clip"),
        (["simulate", "fmri"], "--out"),
        (["simulate", "fmri", "--out", "x", "--snr", "loud"], "invalid float value: 'loud'"),
        (["simulate", "fmri", "--out", "x", "--snr", "0"], "snr is 0.0"),
        (["simulate", "fmri", "--out", "x", "--snr", "nan"], "snr is nan"),
        (["simulate", "fmri", "--out", "x", "--repetitions", "4"], "shown 1, 2 or 3 times"),
        (["simulate", "fmri", "--out", "x", "--n-train", "1"], "1 training"),
        (["simulate", "fmri", "--out", "x", "--n-test", "0"], "0 test"),
        (["simulate", "fmri", "--out", "x", "--batch-size", "0"], "'0' is not a whole number from 1 to 1,000,000"),
        (["simulate", "fmri", "--out", "x", "--brain", "jelly"], "invalid choice: 'jelly'"),
        (["simulate", "fmri", "--out", "x", "--colour", "red"], "unrecognized arguments: --colour"),
        (["fit", "nowhere", "--out", "x"], "nowhere does not exist"),
        (["fit", "nowhere", "--out", "x", "--layers", "mine"], "invalid choice: 'mine'"),
        (["fit", "nowhere", "--out", "x", "--preset", "paper"], "--preset of md-train fit is now called --layers"),
        (["fit", "nowhere", "--out", "x", "--decoder-option", "colour=red"], "decoder 'ridge' has no option 'colour'"),
        (["fit", "nowhere", "--out", "x", "--decoder-option", "colour"], "give NAME=VALUE"),
        (["fit", "nowhere", "--out", "x", "--decoder-option", "smell.alpha=2"], "one of context, latent"),
        (["fit", "nowhere", "--out", "x", "--decoder-option", "alpha=soft"], "alpha is 'soft'"),
        (["fit", "nowhere", "--out", "x", "--decoder-option", f"alpha=1{'0' * 400}"], "alpha is 1000"),
        (["fit", "nowhere", "--out", "x", "--decoder-option", f"alpha={'[' * 100_000}"], "alpha is '[[["),
        (["fit", "nowhere", "--out", "x", "--decoder-option", "n_selected=2.5"], "n_selected is 2.5"),
        (["fit", "nowhere", "--out", "x", "--decoder-option", "latent.n_selected=true"], "n_selected is True"),
        (["fit", "nowhere", "--out", "x", "--percent", "0"], "percent is 0.0"),
        (["fit", "nowhere", "--out", "x", "--alpha-latent", "-1"], "alpha is -1.0"),
        (["fit", "nowhere", "--out", "x", "--alpha-latent", "much"], "'much' is no penalty: give a number, or cv"),
        (["fit", "nowhere", "--out", "x", "--alpha-selection", "-1"], "alpha is -1.0"),
        (["fit", "nowhere", "--out", "x", "--n-context", "0"], "'0' is not a whole number from 1 to 1,000,000"),
        (["fit", "nowhere", "--out", "x", "--n-folds", "1"], "n_folds is 1"),
        (["fit", "nowhere", "--out", "x", "--decoder", "dream"], "decoder 'dream' is unknown"),
        (["fit", "nowhere", "--out", "x", "--decoder", "smell=ridge"], "feature 'smell' is unknown"),
        (["fit", "nowhere", "--out", "x", "--decoder", "ridge", "--decoder", "mlp"], "names both ridge and mlp"),
        (["fit", "nowhere", "--out", "x", "--decoder", "mlp:reference"], "'mlp' has no published form of its own"),
        (["fit", "nowhere", "--out", "x", "--shared-trunk"], "a shared trunk needs two features or more"),
        (["fit", "nowhere", "--out", "x", "--save-every", "0"], "'0' is not a whole number from 1 to 1,000,000"),
        (["fit", "nowhere", "--out", "x", "--dataset", "tape"], "data set 'tape' is unknown"),
        (["simulate", "fmri", "--out", "x" * 300, "--brain", "clip", "--models", "nowhere"], "cannot be written"),
        (["simulate", "fmri", "--out", "x", "--models", "nowhere"], "the gabor brain does not read --models here"),
        (["simulate", "fmri", "--out", "x", "--clip", "a", "--device", "cpu"], "does not read --clip and --device"),
        (["simulate", "fmri", "--out", "x", "--stimuli", "y", "--device", "cpu"], "does not read --device here"),
        (["world"], "--out"),
    ],
)
def test_mistakes_are_one_line_and_code_2(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("md-train: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert list(tmp_path.iterdir()) == []


def test_missing_models_and_stimuli(tmp_path: Path, small_world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "data")
    simulate = ["simulate", "fmri", "--brain", "clip", "--out", out]
    assert main([*simulate, "--models", str(tmp_path / "none")]) == 2
    assert "the model folder" in capsys.readouterr().err
    base = [*simulate, "--models", str(small_world), "--n-train", "3", "--device", "cpu"]
    assert main([*base, "--stimuli", str(tmp_path / "none")]) == 2
    assert "picture folder" in capsys.readouterr().err
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"x")
    assert main([*base, "--stimuli", str(tmp_path / "pictures")]) == 2
    printed = capsys.readouterr().err
    assert "a.png cannot be decoded" in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("brain", BRAINS)
def test_simulate_writes_a_data_folder(
    brain: str, tmp_path: Path, small_world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read = {"models": str(small_world), "device": "cpu"}
    names = [name for name in brain_class(brain).reads(own_pictures=False) if name in read]
    options = [word for name in names for word in (f"--{name}", read[name])]

    def simulate(name: str, *more: str) -> int:
        base = ["simulate", "fmri", "--brain", brain, "--out", str(tmp_path / name), *options]
        return main([*base, "--seed", "4", "--n-train", "6", "--n-test", "2", *more])

    assert simulate("data", "--snr", "2", "--repetitions", "2") == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'data'}\n"
    assert "train pictures: 6/6" in printed.err
    assert printed.err.count("median noise ceiling") == 1
    data = open_data(tmp_path / "data")
    assert (data.provenance["brain"], data.provenance["seed"], data.provenance["snr"]) == (brain, 4, 2.0)
    assert data.provenance["n_repetitions"] == {"train": 1, "test": 2}
    assert data.layout.shape == (2000,)
    assert data.layout.rois["LVC"] == (0, 1240)
    assert simulate("data") == 2
    assert "--force" in capsys.readouterr().err
    pictures = data.images("train")
    assert simulate("data", "--force", "--train-repetitions", "2") == 0
    again = open_data(tmp_path / "data")
    assert again.responses("train").shape == (12, 2000)
    np.testing.assert_array_equal(again.images("train"), pictures)


SENSED = ["--n-train", "6", "--n-test", "2", "--seed", "4", "--repetitions", "2", "--train-repetitions", "1"]


@pytest.mark.parametrize(
    ("modality", "options", "shape", "unit"),
    [
        ("eeg", [], (17, 100), "V"),
        ("eeg", ["--channels", "63", "--sfreq", "250", "--soa", "0.4"], (63, 250), "V"),
        pytest.param("meg", ["--zero-phase", "--single-trials"], (271, 201), "T", marks=pytest.mark.long),
    ],
)
def test_simulate_writes_epochs(
    modality: str,
    options: list[str],
    shape: tuple[int, int],
    unit: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("mne")
    out = str(tmp_path / "data")
    assert main(["simulate", modality, "--out", out, *SENSED, *options]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out}\n"
    assert printed.err.count("highest noise ceiling") == 1
    data = open_data(out)
    assert (data.layout.modality, data.layout.shape, data.layout.unit) == (modality, shape, unit)
    assert all(channel.position is not None for channel in data.layout.channels)
    filters = [step for step in data.layout.signal["steps"] if step["name"] == "filter"]
    assert all(step["causal"] is ("--zero-phase" not in options) for step in filters)
    assert data.trial_ids("test")[0] == ("test/0/0" if "--single-trials" in options else "test/0/mean")
    assert len(data.responses("test")) == (4 if "--single-trials" in options else 2)
    assert data.noise_ceiling("train").shape == shape
    assert len(data.concepts("train")) == 6
    soa = data.provenance["settings"]["soa_s"]
    assert soa == (0.4 if "--soa" in options else {"eeg": 0.2, "meg": 1.5}[modality])
    assert main(["simulate", modality, "--out", out, *SENSED]) == 2
    assert "--force" in capsys.readouterr().err


def test_fit_options_reach_the_settings(tmp_path: Path) -> None:
    plain = fit_settings(parser().parse_args(["fit", "data", "--out", "x"]))
    assert (plain.context.n_selected, plain.structure.n_selected, plain.latent.n_selected) == (250, 350, 4000)
    assert (plain.selection.percent, plain.selection.absolute, plain.cache_dir) == (25.0, False, None)
    line = "fit data --out x --n-context 11 --n-latent 12 --n-structure 13 --n-semantic 14 --alpha-latent 2.5"
    line += f" --percent 40 --absolute --n-folds 3 --n-selection 9 --cache {tmp_path} --threads 2 --batch-size 5"
    line += " --alpha-context cv --alpha-selection 30"
    chosen = fit_settings(parser().parse_args(line.split()))
    n_selected = [chosen.decoder(target).n_selected for target in FEATURES]
    assert n_selected == [11, 12, 13, 14]
    assert [chosen.decoder(target).alpha for target in FEATURES] == ["cv", 2.5, 0.15, 0.15]
    assert (plain.selecting().alpha, chosen.selecting().alpha, chosen.selecting().n_selected) == (0.15, 30.0, 9)
    selection = chosen.selection
    assert (selection.percent, selection.absolute, selection.n_folds, selection.n_selected) == (40.0, True, 3, 9)
    assert (chosen.cache_dir, chosen.n_threads, chosen.batch_size) == (tmp_path, 2, 5)


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models take a download or half a minute: whoever opens them before the rest was looked at fails."""
    monkeypatch.setattr(cli, "open_models", lambda *_given: pytest.fail("models were opened"))


def a_subject(folder: Path, n_stimuli: int = 12) -> Path:
    rng = np.random.default_rng(0)
    responses = rng.standard_normal((12, 6)).astype(np.float32)
    split = SplitData(
        responses=responses,
        stimulus=np.arange(12) % n_stimuli,
        images=rng.integers(0, 256, (n_stimuli, 8, 8, 3), dtype=np.uint8),
        captions=[["a cat"]] * n_stimuli,
    )
    rois = {"V1": (0, 6)}
    return write_data(folder, {"train": split, "test": split}, subject="S1", rois=rois).folder


def test_data_and_places_are_looked_at_before_models(
    tmp_path: Path, no_models: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data = a_subject(tmp_path / "data")
    file = tmp_path / "file"
    file.write_text("mine")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    begun = tmp_path / "begun"
    CheckpointFolder(begun, "key", "of other data")
    out = str(tmp_path / "out")
    cases = [
        ([str(data), "--out", str(file)], "is a file"),
        ([str(data), "--out", str(mine)], "holds thesis.tex and is not a checkpoint or an unfinished fit"),
        ([str(data), "--out", str(begun)], "holds an unfinished fit of other data, models or settings"),
        ([str(data), "--out", out, "--cache", str(file)], "cannot be written"),
        ([str(data), "--out", out, "--n-folds", "7"], "12 training stimuli cannot be split into 7 folds"),
        ([str(a_subject(tmp_path / "few", n_stimuli=4)), "--out", out], "4 training stimuli cannot be split"),
    ]
    for argv, message in cases:
        assert main(["fit", *argv]) == 2, argv
        printed = capsys.readouterr().err
        assert message in printed
        assert printed.count("\n") == 1
    assert not Path(out).exists()
    with pytest.raises(pytest.fail.Exception, match="models were opened"):
        main(["fit", str(data), "--out", out])


def test_pictures_that_lie_elsewhere_are_found_by_their_root(
    tmp_path: Path, no_models: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (12, 9, 9, 3), dtype=np.uint8)
    np.save(tmp_path / "old/all.npy", images)
    split = SplitData(
        responses=np.random.default_rng(1).standard_normal((12, 6)),
        stimulus=np.arange(12),
        images=[refer(tmp_path / "old", "all.npy", index=index) for index in range(12)],
        captions=[["a cat"]] * 12,
    )
    write_data(tmp_path / "data", {"train": split, "test": split}, subject="S", rois={"V1": (0, 6)}, image_size=8)
    (tmp_path / "old").rename(tmp_path / "new")
    argv = ["fit", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert main(argv) == 2
    assert "say where they lie with --stimuli-root" in capsys.readouterr().err
    with pytest.raises(pytest.fail.Exception, match="models were opened"):
        main([*argv, "--stimuli-root", str(tmp_path / "new")])


def test_pictures_and_seed_are_looked_at_before_models(
    tmp_path: Path, no_models: None, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"x")
    cases = [
        (["--stimuli", str(tmp_path / "none")], "picture folder"),
        (["--stimuli", str(pictures)], "a.png cannot be decoded"),
        (["--seed", "-1"], "give a seed of at least 0"),
    ]
    for argv, message in cases:
        assert main(["simulate", "fmri", "--brain", "clip", "--out", str(tmp_path / "data"), *argv]) == 2, argv
        printed = capsys.readouterr().err
        assert message in printed
        assert printed.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_a_checkpoint_of_other_data_is_refused_before_models(
    tmp_path: Path, small_checkpoint: Path, no_models: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = a_subject(tmp_path / "data"), tmp_path / "c"
    shutil.copytree(small_checkpoint, out)
    path = out / "checkpoint.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "provenance": {"about": "other data"}}))
    assert main(["fit", str(data), "--out", str(out)]) == 2
    printed = capsys.readouterr().err
    assert (
        "holds a checkpoint of other data, models or settings: choose another --out, or delete that folder" in printed
    )
    (out / "thesis.tex").write_text("years of work")
    assert main(["fit", str(data), "--out", str(out)]) == 2
    assert capsys.readouterr().err.strip().endswith("choose another --out")  # nothing of the person's is to be deleted


def test_lines_and_scores_go_where_they_belong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results to standard output, the path last; what a person should know to standard error."""
    poor = FeatureScores(10, 10, Score(6, 0.01, 0.0, 0.02), {})
    good = FeatureScores(10, 10, Score(6, 0.5, 0.0, 0.02), {})

    def fit(data: Any, models: Any, out: Path, settings: Any, *, progress: Any, say: Any) -> Path:
        progress("features", 1, 2)
        say("captions were cut")
        progress("features", 2, 2)
        out.mkdir()
        scores = Scores(5, 100, {"context": good, "latent": poor}, SelectionScores(0.1, 0.3, 0.2, "ridge"))
        (out / "scores.json").write_bytes(scores_bytes(scores))
        return out

    monkeypatch.setattr(cli, "open_models", lambda *_given: None)
    monkeypatch.setattr("minddiffuser.training.fit.fit", fit)
    out = tmp_path / "c"
    assert main(["fit", str(a_subject(tmp_path / "data")), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == str(out)
    assert "0.500 (0.020)" in printed.out
    assert "0.010 (0.020)*" in printed.out
    assert "md-train: captions were cut\n" in printed.err
    assert "md-train: warning: latent is decoded no better than chance (correlation 0.010" in printed.err
    assert "warning: context" not in printed.err


def test_a_network_that_broke_is_said_and_the_code_is_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint is whole, with the best epoch's weights, and what is wrong with it is said each time."""

    def fit(data: Any, models: Any, out: Path, settings: Any, *, progress: Any, say: Any) -> Path:
        out.mkdir(exist_ok=True)
        stopped = "the loss became nan in epoch 3, step 2"
        curves = [Curve(["context"], 2, stopped, {}), Curve(["latent"], 9, None, {})]
        (out / "curves.json").write_bytes(curves_bytes(curves))
        return out

    monkeypatch.setattr(cli, "open_models", lambda *_given: None)
    monkeypatch.setattr("minddiffuser.training.fit.fit", fit)
    out = str(tmp_path / "c")
    assert main(["fit", str(a_subject(tmp_path / "data")), "--out", out]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == out
    line = "md-train: context: the loss became nan in epoch 3, step 2, so that training ended there; the weights of "
    assert printed.err.splitlines()[-1] == f"{line}epoch 2 are kept; give a smaller learning_rate"


def test_a_decoder_that_does_not_take_the_responses_is_refused_before_models(
    tmp_path: Path, no_models: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @dataclass(frozen=True, kw_only=True)
    class OfSensors(Mlp):
        modalities: ClassVar[tuple[str, ...]] = ("eeg", "meg")
        fitter: ClassVar[str] = "of_sensors"

    module = ModuleType("minddiffuser.training.decoders.of_sensors")
    module.OfSensors = OfSensors  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(DECODERS, "of_sensors", ("of_sensors", "OfSensors"))
    data, out = a_subject(tmp_path / "data"), tmp_path / "out"
    assert main(["fit", str(data), "--out", str(out), "--decoder", "semantic=of_sensors"]) == 2
    assert capsys.readouterr().err == (
        "md-train: decoder 'of_sensors' takes eeg or meg responses, these are fmri of response_shape [6]: give another "
        "--decoder\n"
    )
    assert not out.exists()


def test_another_data_set_is_one_file_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def open_tape(path: Path, *, stimuli_root: Path | None) -> Any:
        raise FileError(f"the tape {path} is torn")

    module = ModuleType("minddiffuser.training.datasets.tape")
    module.open_tape = open_tape  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(DATASETS, "tape", (".tape", "open_tape"))
    assert main(["fit", "mine", "--out", str(tmp_path / "c"), "--dataset", "tape"]) == 2
    assert capsys.readouterr().err == "md-train: the tape mine is torn\n"


def test_world_passes_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    seen: dict[str, Any] = {}

    def make_world(out: Path, **options: Any) -> Path:
        seen.update(out=out, **options)
        options["progress"]("drawing", 1, 2)
        return out

    monkeypatch.setattr("minddiffuser.training.tinyworld.world.make_world", make_world)
    argv = ["world", "--out", str(tmp_path), "--part", "clip", "--part", "classifier", "--effort", "0.1"]
    assert main(argv) == 0
    assert (seen["out"], seen["parts"], seen["effort"], seen["device"]) == (
        tmp_path,
        ["clip", "classifier"],
        0.1,
        "auto",
    )


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (FileError("two\nlines"), 2, "two lines"),
        (MemoryError(), 2, "out of memory: give a smaller --batch-size"),
        (ModuleNotFoundError("no", name="torch"), 2, "this needs torch: pip install 'minddiffuser[train]'"),
    ],
)
def test_what_goes_wrong_inside(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: Any) -> Path:
        raise error

    monkeypatch.setattr(cli, "_fit", fail)
    assert main(["fit", "data", "--out", "x"]) == code
    printed = capsys.readouterr().err
    assert printed.startswith("md-train: ")
    assert message in printed
    assert printed.count("\n") == 1


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: Any) -> Path:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_fit", fail)
    with pytest.raises(ZeroDivisionError):
        main(["fit", "data", "--out", "x"])


def test_help_needs_no_heavy_library() -> None:
    heavy = "torch", "diffusers", "transformers", "open_clip", "scipy", "PIL"
    code = (
        "import sys; from minddiffuser.training.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
