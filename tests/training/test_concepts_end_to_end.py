"""The context by way of concepts from an EEG data folder to pictures, by the commands that a person types."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from minddiffuser.export import cli as export
from minddiffuser.runtime import cli as reconstruct
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.data.folder import SplitData, open_data, write_data
from minddiffuser.runtime.data.layout import Channel, ResponseLayout
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.models.open import load_models
from minddiffuser.training import cli as train
from minddiffuser.training.checkpoint_folder import CheckpointFolder

LAYOUT = ResponseLayout(
    modality="eeg",
    shape=(3, 10),
    channels=tuple(Channel(name=name, type="eeg") for name in ("Oz", "O1", "O2")),
    sfreq=100.0,
    tmin=0.0,
    unit="V",
)
# Concept of each picture; "green" and "grey" are shown in the test split alone.
TRAIN = ("red", "blue", "yellow", "light_blue") * 3
TEST = ("green", "red", "grey", "blue")
COLOURS = {
    "red": (220, 30, 30),
    "blue": (30, 30, 200),
    "yellow": (230, 220, 40),
    "light_blue": (120, 170, 240),
    "green": (40, 180, 60),
    "grey": (128, 128, 128),
}
FIT = ["--n-folds", "2", "--percent", "10", "--threads", "1", "--device", "cpu"]
SMALL = ["--n-latent", "6", "--n-structure", "7", "--n-semantic", "4"]


def write_subject(folder: Path, *, concepts: bool = True, captions: bool = True) -> None:
    """Pictures of one colour with some noise, shown twice in training; responses are its colour, mixed."""
    rng = np.random.default_rng(4)
    mixing = rng.standard_normal((3, LAYOUT.n_features))

    def split(names: tuple[str, ...], repetitions: int) -> SplitData:
        pictures = [np.clip(COLOURS[n] + rng.integers(-25, 26, (32, 32, 3)), 0, 255).astype(np.uint8) for n in names]
        stimulus = np.tile(np.arange(len(names)), repetitions)
        colour = np.array([COLOURS[name] for name in names])[stimulus] / 255
        signal = colour @ mixing + 0.05 * rng.standard_normal((len(stimulus), LAYOUT.n_features))
        return SplitData(
            responses=(1e-6 * signal).reshape(-1, *LAYOUT.shape).astype(np.float32),
            stimulus=stimulus,
            images=pictures,
            captions=[[f"a {name} thing"] for name in names] if captions else [["no caption"]] * len(names),
            concepts=names if concepts else None,
        )

    write_data(folder, {"train": split(TRAIN, 2), "test": split(TEST, 2)}, subject="someone", layout=LAYOUT)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, small_world: Path) -> Path:
    """A folder with the subject, a checkpoint of a ridge, and its bundle of decoders."""
    pytest.importorskip("scipy")
    place = tmp_path_factory.mktemp("concepts")
    write_subject(place / "data")
    models = ["--models", str(small_world)]
    fit = ["fit", str(place / "data"), "--out", str(place / "checkpoint"), "--n-embedding", "9", *SMALL, *FIT, *models]
    assert train.main(fit) == 0
    bundle = ["bundle", str(place / "checkpoint"), "--out", str(place / "bundle"), "--data", str(place / "data")]
    bundle += ["--graphs", "decode_context", "decode_latent", "decode_structure", "decode_semantic", "--threads", "1"]
    assert export.main([*bundle, *models]) == 0
    return place


def nearest(folder: Path, embedding: np.ndarray) -> np.ndarray:
    """By brute force, from the file's own numbers, in float64."""
    arrays = {name: array.astype(np.float64) for name, array in load_file(folder / "concepts.safetensors").items()}
    found = []
    for row in embedding.astype(np.float64):
        centred = row - arrays["centre"]
        cosines = [sum(a * b for a, b in zip(one, centred, strict=True)) for one in arrays["embedding"]]
        found.append(max(range(len(cosines)), key=lambda k: (cosines[k], -k)))
    return np.array(found)


def test_the_checkpoint_names_the_candidates_and_holds_their_contexts(place: Path, small_world: Path) -> None:
    checkpoint = open_checkpoint(place / "checkpoint")
    names = ["blue", "green", "grey", "light_blue", "red", "yellow"]
    assert checkpoint.description["concepts"] == {
        "n_candidates": 6,
        "prompt": "a picture of a {}",
        "prototypes": "text",
        "names": names,
    }
    assert "context" not in checkpoint.decoders
    assert checkpoint.shapes.keys() == {"context", "latent", "structure", "semantic"}
    assert checkpoint.route is not None
    models = load_models(str(small_world))
    spoken = [f"a picture of a {name.replace('_', ' ')}" for name in names]
    np.testing.assert_allclose(checkpoint.route.context, models.encode_text(spoken).numpy(), atol=1e-5)
    assert (checkpoint.route.context[:, 0] == checkpoint.context_bos).all()


def test_the_decoder_is_fitted_to_image_embeddings_of_length_1(place: Path, small_world: Path) -> None:
    import torch

    data, models = open_data(place / "data"), load_models(str(small_world))
    pixels = torch.from_numpy(data.images("train")).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        true = models.embedding(pixels).double().numpy()
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    arrays = load_file(place / "checkpoint/embedding.safetensors")
    shown = true[data.stimulus("train")]
    np.testing.assert_allclose(arrays["embedding.mean"], shown.mean(0), atol=1e-5)
    np.testing.assert_allclose(arrays["embedding.std"], shown.std(0), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(load_file(place / "checkpoint/concepts.safetensors")["centre"], shown.mean(0), atol=1e-5)


def test_the_decoded_context_is_that_of_the_nearest_candidate(place: Path) -> None:
    checkpoint, responses = open_checkpoint(place / "checkpoint"), open_data(place / "data").responses("test")
    embedding = checkpoint._decoded(responses, ["embedding"])["embedding"]
    assert checkpoint.route is not None
    expected = checkpoint.route.context[nearest(place / "checkpoint", embedding)]
    decoded = checkpoint.decode(responses)
    np.testing.assert_array_equal(decoded.context, expected)
    np.testing.assert_array_equal(checkpoint.decode_start(responses)[0], expected)
    assert len(np.unique(nearest(place / "checkpoint", embedding))) > 1
    alone = np.concatenate([checkpoint.similarity(row[None]) for row in responses])
    np.testing.assert_array_equal(checkpoint.similarity(responses), alone)


def test_the_bundle_says_the_same(place: Path) -> None:
    checkpoint, bundle = open_checkpoint(place / "checkpoint"), Bundle.open(place / "bundle")
    assert bundle.candidates == checkpoint.candidates
    assert bundle.manifest["checkpoint"]["concepts"]["n_candidates"] == 6
    assert list(bundle.graphs["decode_context"].outputs) == ["context", "similarity"]
    assert checkpoint.route is not None
    np.testing.assert_array_equal(bundle.arrays["concept_context"], checkpoint.route.context)
    assert export.main(["check", str(place / "bundle"), "--threads", "1"]) == 0


@pytest.mark.parametrize("source", [pytest.param("checkpoint", marks=pytest.mark.long), "bundle"])
def test_a_run_says_which_concepts_were_decoded(place: Path, small_world: Path, source: str, tmp_path: Path) -> None:
    data, out = place / "data", tmp_path / "run"
    run = ["run", str(place / source), str(data), "--out", str(out), "--stage", "1", "--threads", "1"]
    run += ["--controls", "none", "--models", str(small_world), "--device", "cpu"]
    assert reconstruct.main([*run, *(["--backend", "pytorch"] if source == "bundle" else [])]) == 0
    checkpoint, folder = open_checkpoint(place / "checkpoint"), open_data(data)
    embedding = checkpoint._decoded(folder.responses("test"), ["embedding"])["embedding"]
    names = np.array(checkpoint.description["concepts"]["names"])
    decoded = names[nearest(place / "checkpoint", embedding)]
    true = np.array(folder.concepts("test"))[folder.stimulus("test")]
    rows = json.loads((out / "trials.json").read_text())
    assert [row["concept"]["decoded"] for row in rows] == decoded.tolist()
    assert [row["concept"]["true"] for row in rows] == true.tolist()
    assert all((row["concept"]["rank"] == 1) is (row["concept"]["decoded"] == row["concept"]["true"]) for row in rows)
    said = json.loads((out / "summary.json").read_text())["concepts"]
    assert (said["n_candidates"], said["n_trials"], said["n_outside"]) == (6, 8, 0)
    assert said["top1"] == pytest.approx(np.mean([np.mean(decoded[true == name] == name) for name in TEST]))
    assert said["chance1"] == pytest.approx(1 / 6)
    assert said["chance5"] == pytest.approx(5 / 6)
    page = (out / "report.html").read_text()
    assert f"concept decoded: {decoded[0]} (nearer" in page


def test_without_pytorch_the_bundle_decodes_the_same(place: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
import numpy as np
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.decoders.bundle import BundleDecoder
from minddiffuser.runtime.engines.open import EngineSet, EngineSettings
bundle = Bundle.open({str(place / "bundle")!r})
with EngineSet(bundle, EngineSettings(backend="ort", threads=1), graphs=["decode_context"]) as engines:
    decoder = BundleDecoder(bundle, engines)
    similarity = decoder.similarity(open_data({str(place / "data")!r}).responses("test"))
    print(",".join(decoder.candidates.names[k] for k in similarity.argmax(axis=1)))
"""
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    checkpoint = open_checkpoint(place / "checkpoint")
    embedding = checkpoint._decoded(open_data(place / "data").responses("test"), ["embedding"])["embedding"]
    names = checkpoint.description["concepts"]["names"]
    assert made.stdout.strip() == ",".join(names[k] for k in nearest(place / "checkpoint", embedding))


def refit(place: Path, out: Path, small_world: Path, *more: str, data: Path | None = None) -> int:
    """Another fit of the same subject; features are kept."""
    fit = ["fit", str(data or place / "data"), "--out", str(out), "--cache", str(place / "features"), *SMALL, *FIT]
    return train.main([*fit, "--models", str(small_world), *more])


def test_a_list_without_the_true_concepts_is_counted(
    place: Path, small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("Light blue\nyellow\nviolet\n")
    assert refit(place, tmp_path / "c", small_world, "--concepts", str(tmp_path / "names.txt")) == 0
    said = capsys.readouterr().err
    assert "2 of 4 train concepts are not among the 3 candidates, such as 'blue'" in said
    assert "4 of 4 test concepts are not among the 3 candidates, such as 'blue'" in said
    checkpoint = open_checkpoint(tmp_path / "c")
    assert checkpoint.candidates is not None
    assert checkpoint.candidates.names == ("Light blue", "yellow", "violet")
    run = ["run", str(tmp_path / "c"), str(place / "data"), "--out", str(tmp_path / "run"), "--stage", "1"]
    run += ["--controls", "none", "--models", str(small_world), "--device", "cpu", "--threads", "1"]
    assert reconstruct.main(run) == 0
    said = json.loads((tmp_path / "run/summary.json").read_text())["concepts"]
    assert (said["n_outside"], said["top1"], said["top5"], said["chance1"]) == (8, 0.0, 0.0, 0.0)
    assert all(row["concept"]["rank"] is None for row in json.loads((tmp_path / "run/trials.json").read_text()))


def test_prototypes_of_pictures(place: Path, small_world: Path, tmp_path: Path) -> None:
    """Each the mean of its pictures' embeddings less that of all, at length 1; by default of training concepts only."""
    assert refit(place, tmp_path / "c", small_world, "--concept-prototypes", "images") == 0
    checkpoint = open_checkpoint(tmp_path / "c")
    assert checkpoint.candidates is not None
    assert checkpoint.candidates.names == ("blue", "light_blue", "red", "yellow")
    raw = np.load(next((place / "features").glob("*/embedding.npy")), allow_pickle=False).astype(np.float64)
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    wanted = np.stack(
        [unit[[k for k, n in enumerate(TRAIN) if n == name]].mean(0) for name in checkpoint.candidates.names]
    )
    wanted -= unit.mean(0)  # every picture was shown equally often
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert checkpoint.route is not None
    np.testing.assert_allclose(checkpoint.route.embedding, wanted, atol=2e-4)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (
            ["--context", "direct", "--concept-prompt", "a {}"],
            "--concept-prompt is for --context concepts: leave out, or give that",
        ),
        (
            ["--context", "direct", "--concept-prompt", "a {}", "--concept-prototypes", "text"],
            "--concept-prompt and --concept-prototypes are for --context concepts",
        ),
        (["--concept-prompt", "a thing"], "the prompt is 'a thing'"),
        (["--n-context", "4"], "--n-context is for a decoder of the context"),
        (["--context", "direct", "--n-embedding", "4"], "--n-embedding is for a decoder of the embedding"),
        (["--decoder-option", "context.alpha=4"], "context.alpha=4 is for a decoder of the context"),
        (["--concepts", "absent.txt"], "absent.txt cannot be read"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(
    place: Path,
    small_world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    reason: str,
) -> None:
    import re

    assert refit(place, tmp_path / "c", small_world, *more) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("md-train:")]
    assert len(lines) == 1
    assert re.search(reason, lines[0])


def test_data_without_concepts(
    place: Path, small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_subject(tmp_path / "plain", concepts=False)
    assert refit(place, tmp_path / "c", small_world, "--context", "concepts", data=tmp_path / "plain") == 2
    assert "the data folder names no concepts" in capsys.readouterr().err
    assert refit(place, tmp_path / "d", small_world, "--n-context", "9", data=tmp_path / "plain") == 0
    direct = open_checkpoint(tmp_path / "d")
    assert direct.candidates is None
    assert direct.route is None


@pytest.mark.parametrize(
    "last", ["concepts", *(pytest.param(name, marks=pytest.mark.long) for name in ("constants", "embedding"))]
)
def test_a_resumed_fit_ends_with_the_same_bytes(
    place: Path, small_world: Path, tmp_path: Path, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bytes_of(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}

    write = CheckpointFolder.write

    def killed(self: CheckpointFolder, name: str, *given: Any) -> None:
        write(self, name, *given)
        if name == f"{last}.safetensors":
            raise KeyboardInterrupt

    out = tmp_path / "again"
    with monkeypatch.context() as patched:
        patched.setattr(CheckpointFolder, "write", killed)
        assert refit(place, out, small_world, "--n-embedding", "9") == 130
    assert (out / f"{last}.safetensors").exists()
    assert not (out / "checkpoint.json").exists()
    assert refit(place, out, small_world, "--n-embedding", "9") == 0
    assert bytes_of(out) == bytes_of(place / "checkpoint")


def test_candidates_without_a_picture_are_refused_before_models(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("red\nviolet\n")
    given = ["--concept-prototypes", "images", "--concepts", str(tmp_path / "names.txt")]
    assert refit(place, tmp_path / "c", tmp_path / "no models", *given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "1 of 2 candidates have no training picture, such as 'violet'" in line


def test_the_fit_does_not_depend_on_what_test_trials_showed(place: Path, small_world: Path, tmp_path: Path) -> None:
    """The list of candidates is taken from the data folder, and which of them a test picture is, is not."""

    def shuffled(split: str) -> Any:
        content = json.loads((tmp_path / "data/concepts.json").read_text())
        content[split] = content[split][1:] + content[split][:1]
        (tmp_path / "data/concepts.json").write_text(json.dumps(content))

    shutil.copytree(place / "data", tmp_path / "data")
    shuffled("test")
    assert refit(place, tmp_path / "c", small_world, "--n-embedding", "9", data=tmp_path / "data") == 0
    for name in ("concepts", "embedding", "latent"):
        written = (tmp_path / f"c/{name}.safetensors").read_bytes()
        assert written == (place / f"checkpoint/{name}.safetensors").read_bytes(), name
