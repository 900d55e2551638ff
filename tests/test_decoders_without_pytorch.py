"""Every decoder with every kind of signal that it takes: simulated, fitted, run, exported, and run without PyTorch.

By the commands that a person types, on the tiny world, with networks so small that each case takes a minute or so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.export import cli as export
from minddiffuser.runtime import cli as reconstruct
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.data.layout import MODALITIES
from minddiffuser.runtime.decoders.bundle import BundleDecoder
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.demo.packed import unpack
from minddiffuser.runtime.demo.quick import SHIPPED, WORLD
from minddiffuser.runtime.engines.open import EngineSet, EngineSettings
from minddiffuser.runtime.images import read_image
from minddiffuser.training import cli as train
from minddiffuser.training.decoders import DECODERS
from minddiffuser.training.decoders.base import make_decoder, options_of

SUBJECTS = {
    "fmri": ["--n-train", "24"],
    "eeg": ["--n-train", "24", "--train-repetitions", "2", "--repetitions", "8"],
    "meg": ["--n-train", "24", "--repetitions", "2"],
}
# Those of these options that a decoder has.
SMALL = {
    **{"n_selected": 20, "epochs": 2, "validation": 0.2, "hidden": 16, "depth": 1, "width": 8, "n_tokens": 4},
    **{"heads": 2, "feed_forward": 8, "embedding": 16, "virtual_channels": 8, "frequencies": 4, "backbone": 8},
}
CASES = [
    (name, modality)
    for name in DECODERS
    for modality in getattr(make_decoder(name, "latent"), "modalities", MODALITIES)
]
_WITHOUT_PYTORCH = """
import sys
sys.modules["torch"] = None
from minddiffuser.runtime.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all cases share: the shipped bundle, whose graphs of the networks they take, subjects and features."""
    place = tmp_path_factory.mktemp("decoders")
    unpack(SHIPPED, place / "shipped", WORLD, on_wait=print)
    return place


def subject(place: Path, modality: str) -> Path:
    """Its data folder, simulated once."""
    data = place / modality
    if not data.exists():
        given = ["simulate", modality, "--out", str(data), "--n-test", "2", "--seed", "5", *SUBJECTS[modality]]
        assert train.main(given) == 0
    return data


def fit(data: Path, out: Path, name: str, *more: str) -> None:
    """A small decoder of that name for every feature."""
    options = [f"--decoder-option={option}={value}" for option, value in SMALL.items() if option in options_of(name)]
    given = ["fit", str(data), "--out", str(out), "--decoder", name, *options, "--n-folds", "2", "--percent", "5"]
    given += ["--n-selection", "10", "--cache", str(data.parent / "features"), "--threads", "1", "--device", "cpu"]
    assert train.main([*given, *more]) == 0


def check_decoded(checkpoint: Path, bundle: Path, data: Path) -> None:
    """ONNX Runtime decodes what PyTorch does: float32 sums of up to 54,471 terms in another order."""
    responses, fitted, opened = open_data(data).responses("test"), open_checkpoint(checkpoint), Bundle.open(bundle)
    graphs = [graph for graph in opened.graphs if graph.startswith("decode")]
    with EngineSet(opened, EngineSettings(backend="ort", threads=1), graphs=graphs) as engines:
        decoder = BundleDecoder(opened, engines)
        found, wanted = decoder.decode(responses), fitted.decode(responses)
        if fitted.candidates is not None:
            np.testing.assert_allclose(decoder.similarity(responses), fitted.similarity(responses), atol=1e-4)
    for feature in ("context", "latent", "structure", "semantic"):
        a, b = getattr(found, feature), getattr(wanted, feature)
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max(), err_msg=feature)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "modality"), CASES)
def test_every_decoder_with_its_signals(name: str, modality: str, place: Path, tmp_path: Path) -> None:
    if modality != "fmri":
        pytest.importorskip("mne")
    data, checkpoint, bundle = subject(place, modality), tmp_path / "checkpoint", tmp_path / "bundle"
    fit(data, checkpoint, name)
    made = ["bundle", str(checkpoint), "--out", str(bundle), "--data", str(data), "--verify-trials", "2"]
    assert export.main([*made, "--graphs-from", str(place / "shipped" / "bundle"), "--threads", "1"]) == 0
    check_decoded(checkpoint, bundle, data)

    # Small steps: larger ones enlarge the rounding in which engines and PyTorch differ (docs/engines.md).
    small = ["--start-steps", "0", "--step-size", "0.1", "--finish-step-size", "0.02"]
    quick = ["--candidates", "1", "--n-steps", "4", "--strength", "0.5", "--threads", "1", *small]
    runs = {name: tmp_path / f"run-{name}" for name in ("pytorch", "ort")}
    given = ["run", str(checkpoint), str(data), "--out", str(runs["pytorch"]), "--device", "cpu", *quick]
    assert reconstruct.main(given) == 0
    given = ["run", str(bundle), str(data), "--out", str(runs["ort"]), "--backend", "ort", *quick]
    done = subprocess.run([sys.executable, "-c", _WITHOUT_PYTORCH, *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    rows = {name: json.loads((out / "trials.json").read_text()) for name, out in runs.items()}
    if modality != "fmri":
        assert [row["concept"]["decoded"] for row in rows["ort"]] == [
            row["concept"]["decoded"] for row in rows["pytorch"]
        ]
    for stage in ("stage1", "stage2"):
        pictures = [
            np.stack([read_image(path).astype(float) for path in sorted((out / "images" / stage).iterdir())])
            for out in runs.values()
        ]
        assert pictures[0].shape == (2, 64, 64, 3)
        # Grey levels: rounding may move a few pixels, and not the picture.
        assert np.abs(pictures[0] - pictures[1]).mean() < 1, stage


def test_a_network_for_eeg_by_way_of_concepts(tmp_path: Path, small_world: Path) -> None:
    """The quick one of them: its decoders alone, on a world so small that it costs nothing."""
    pytest.importorskip("mne")
    data, checkpoint, bundle = subject(tmp_path, "eeg"), tmp_path / "checkpoint", tmp_path / "bundle"
    models = ["--models", str(small_world)]
    fit(data, checkpoint, "nice", *models)
    assert open_checkpoint(checkpoint).candidates is not None
    graphs = ["decode_context", "decode_latent", "decode_structure", "decode_semantic"]
    made = ["bundle", str(checkpoint), "--out", str(bundle), "--data", str(data), "--graphs", *graphs, *models]
    assert export.main([*made, "--verify-trials", "2", "--threads", "1"]) == 0
    check_decoded(checkpoint, bundle, data)
