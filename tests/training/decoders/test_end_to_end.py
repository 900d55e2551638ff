"""Every fitter from a data folder to pictures, through the commands that a person types, for fMRI and for EEG."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.export import cli as export
from minddiffuser.runtime import cli as reconstruct
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.data.folder import SplitData, write_data
from minddiffuser.runtime.data.layout import Channel, ResponseLayout
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.images import read_image
from minddiffuser.training import cli as train
from minddiffuser.training.decoders import DECODERS

WHITENING, NAMES = b"a matrix", ("Oz", "O1", "O2")
LAYOUTS = {
    "fmri": ResponseLayout(modality="fmri", shape=(30,), rois={"V1": (0, 12), "LO": frozenset({12, 14, 20})}),
    "eeg": ResponseLayout(
        modality="eeg",
        shape=(3, 10),
        channels=tuple(
            Channel(name=name, type="eeg", position=(x, -0.1, 0.01))
            for name, x in zip(NAMES, (0, -0.03, 0.03), strict=True)
        ),
        sfreq=100.0,
        tmin=0.0,
        unit="V",
        signal={"steps": [{"name": "whiten", "file": "w.bin", "sha256": hashlib.sha256(WHITENING).hexdigest()}]},
    ),
}
# Small enough for a test.
_TSCONV = ("filters=4", "kernel=3", "pool=4", "embedding=8")
NETWORKS = {
    "mlp": ("hidden=8", "depth=1"),
    "transformer": ("width=8", "heads=2", "feed_forward=8", "n_tokens=4", "depth=1"),
    "nice": _TSCONV,
    "eegnet": ("filters=2", "spatial=2", "pointwise=4", "separable_kernel=2", "pool_1=2", "pool_2=2"),
    "atm": (*_TSCONV, "heads=2", "feed_forward=8"),
    "brain_module": ("virtual_channels=4", "frequencies=2", "hidden=8", "backbone=8"),
}
OPTIONS = {
    "ridge": ["--n-context", "5", "--n-latent", "6", "--n-structure", "7", "--n-semantic", "4"],
    **{
        name: [f"--decoder-option={option}" for option in (*own, "epochs=3", "validation=0.2")]
        for name, own in NETWORKS.items()
    },
}
OF_SENSORS = ("nice", "eegnet", "atm", "brain_module")
# In every run a ridge takes this way; tests/test_decoders_without_pytorch.py fits and exports a network then.
LONG = ("ridge-fmri", "mlp-fmri")
# The other networks take the same way through the code, and each has its own there.
SLOW = [f"{name}-{modality}" for name in NETWORKS for modality in LAYOUTS]
CASES = [
    pytest.param(
        name,
        modality,
        id=case,
        marks=pytest.mark.long if case in LONG else pytest.mark.slow if case in SLOW else (),
    )
    for name in DECODERS
    for modality in LAYOUTS
    if modality == "eeg" or name not in OF_SENSORS
    for case in [f"{name}-{modality}"]
]


def write_subject(folder: Path, layout: ResponseLayout) -> None:
    """Twelve training pictures, each a colour, shown twice; responses are the colour through a random matrix."""
    rng = np.random.default_rng(4)
    colours = rng.uniform(0, 1, (15, 3))
    mixing = rng.standard_normal((3, layout.n_features))

    def split(numbers: range, repetitions: int) -> SplitData:
        stimulus = np.tile(np.arange(len(numbers)), repetitions)
        signal = colours[numbers][stimulus] @ mixing + 0.1 * rng.standard_normal((len(stimulus), layout.n_features))
        scale = 1e-6 if layout.unit == "V" else 1.0
        return SplitData(
            responses=(scale * signal).reshape(-1, *layout.shape).astype(np.float32),
            stimulus=stimulus,
            images=[np.tile((255 * colours[k]).astype(np.uint8), (32, 32, 1)) for k in numbers],
            captions=[[f"a picture number {k}"] for k in numbers],
        )

    splits = {"train": split(range(12), 2), "test": split(range(12, 15), 1)}
    (folder.parent / "w").write_bytes(WHITENING)
    files = {} if layout.signal is None else {"w.bin": folder.parent / "w"}
    write_data(folder, splits, subject="someone", layout=layout, files=files)


@pytest.mark.parametrize("name", OF_SENSORS)
def test_fmri_is_refused_before_anything_is_computed(
    name: str, tmp_path: Path, small_world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_subject(tmp_path / "data", LAYOUTS["fmri"])
    fit = ["fit", str(tmp_path / "data"), "--out", str(tmp_path / "checkpoint"), "--decoder", name]
    assert train.main([*fit, "--models", str(small_world)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"decoder '{name}' takes eeg or meg responses, these are fmri of response_shape [30]" in line
    assert not (tmp_path / "checkpoint").exists()


def test_sensors_without_positions_are_named(
    tmp_path: Path, small_world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    channels = LAYOUTS["eeg"].channels
    assert channels is not None
    lost = (channels[0], *(replace(channel, position=None) for channel in channels[1:]))
    write_subject(tmp_path / "data", replace(LAYOUTS["eeg"], channels=lost))
    fit = ["fit", str(tmp_path / "data"), "--out", str(tmp_path / "checkpoint"), "--decoder", "brain_module"]
    assert train.main([*fit, "--models", str(small_world)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'brain_module' merges channels by their positions, and 2 of 3 have none (O1, O2): give positions" in line


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_from_a_data_folder_to_pictures(
    name: str,
    modality: str,
    tmp_path: Path,
    small_world: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("scipy")
    monkeypatch.chdir(tmp_path)
    layout, models = LAYOUTS[modality], ["--models", str(small_world)]
    write_subject(tmp_path / "data", layout)
    fit = ["fit", "data", "--out", "checkpoint", "--decoder", name, *OPTIONS.get(name, []), *models]
    fit += ["--n-folds", "2", "--percent", "10", "--threads", "1", "--device", "cpu"]
    assert train.main(fit) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == "checkpoint"
    rows = {line.split()[0]: line.split() for line in printed.out.splitlines() if line.strip()}
    assert rows["all"][1] == "30"
    own = name in NETWORKS
    assert (("V1" in rows) and rows["LO"][1] == "3") is (modality == "fmri" and not own)
    assert ("held out for validation" in " ".join(printed.out.split())) is own
    assert ("structure, as the ridge decodes it" in printed.out) is own
    assert ("validation loss" in printed.err) is own

    checkpoint = open_checkpoint("checkpoint")
    assert checkpoint.layout == layout
    (context, *_), scores = checkpoint.description["decoders"], json.loads(Path("checkpoint/scores.json").read_text())
    assert context["fit"]["fitter"] == name
    n_validation = {made["n_validation"] for made in scores["features"].values()}
    assert n_validation == ({2} if own else {None})  # a fifth of twelve pictures

    graphs = ["decode_context", "decode_latent", "decode_structure", "decode_semantic"]
    graphs = graphs if name == "ridge" else graphs[:2]  # stage 1 needs no more
    bundle = ["bundle", "checkpoint", "--out", "bundle", "--graphs", *graphs, "--data", "data", "--threads", "1"]
    assert export.main([*bundle, *models]) == 0
    assert Bundle.open(tmp_path / "bundle").layout == layout
    if layout.signal is not None:  # so that a live system with nothing but the bundle can repeat the chain
        for opened in (open_checkpoint(tmp_path / "checkpoint"), Bundle.open(tmp_path / "bundle")):
            assert (opened.signal_folder / "w.bin").read_bytes() == WHITENING
    pictures = []
    for source, more in (
        ("checkpoint", []),
        ("bundle", ["--backend", "pytorch"]),
    ):  # the networks are PyTorch's in both
        out = tmp_path / f"run-{source}"
        run = ["run", source, "data", "--out", str(out), "--stage", "1", "--threads", "1", "--controls", "none"]
        run += [*more, *models, "--device", "cpu"]
        assert reconstruct.main(run) == 0, capsys.readouterr().err
        pictures.append(np.stack([read_image(path) for path in sorted((out / "images" / "stage1").iterdir())]))
    assert pictures[0].shape == (3, 32, 32, 3)
    # One grey level of rounding, and one for float32 sums in another order through 35 steps.
    assert np.abs(pictures[0].astype(int) - pictures[1].astype(int)).max() <= 2
    assert np.ptp(pictures[0].astype(int), axis=0).max() > 0


def test_features_with_decoders_of_their_own(
    tmp_path: Path, small_world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """EEG, each picture's two trials averaged: ridges, and one network for context and semantic feature."""
    pytest.importorskip("scipy")
    monkeypatch.chdir(tmp_path)
    models = ["--models", str(small_world), "--threads", "1", "--device", "cpu"]
    write_subject(tmp_path / "data", LAYOUTS["eeg"])
    fit = ["fit", "data", "--out", "checkpoint", "--n-folds", "2", "--percent", "10", "--n-latent", "6", *models]
    fit += ["--decoder", "ridge", "--decoder", "context=mlp", "--decoder", "semantic=mlp", "--shared-trunk"]
    fit += [
        "--average-repetitions",
        "--save-every",
        "1",
        "--decoder-option",
        "semantic.contrastive=0.2",
        *OPTIONS["mlp"],
    ]
    assert train.main(fit) == 0
    printed = capsys.readouterr()
    assert "context, semantic: validation loss" in printed.err
    assert "context, semantic: 3/3 (100 %)" in printed.err
    rows = {line.split()[0]: line.split() for line in printed.out.splitlines() if line.strip()}
    assert rows["context,"][:2] == ["context,", "semantic:"]
    found = {tuple(made["features"]): made for made in open_checkpoint("checkpoint").description["decoders"]}
    assert {features: made["fit"]["fitter"] for features, made in found.items()} == {
        ("context", "semantic"): "mlp",
        ("latent",): "ridge",
        ("structure",): "ridge",
    }
    assert found["context", "semantic"]["validation"]["n_trials"] == 2  # a fifth of twelve, each with one trial
    assert open_checkpoint("checkpoint").description["provenance"]["n_trials"] == 12
    (curve,) = json.loads(Path("checkpoint/curves.json").read_text())["networks"]
    assert curve["losses"]["validation"].keys() == {"loss", "context", "semantic", "semantic.contrastive"}
    assert Path("checkpoint/curves.svg").read_text().startswith("<svg")
    run = ["run", "checkpoint", "data", "--out", "run", "--stage", "1", "--controls", "none", *models]
    assert reconstruct.main(run) == 0, capsys.readouterr().err
    assert len(list((tmp_path / "run" / "images" / "stage1").iterdir())) == 3
