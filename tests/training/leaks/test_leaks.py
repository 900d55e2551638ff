"""Each leak on a subject in which it must inflate, or must not: the oracle is how its data were made."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import Channel, ResponseLayout
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.training.decoders.base import make_decoder
from minddiffuser.training.features import extract
from minddiffuser.training.fit import fit
from minddiffuser.training.leaks import LEAKS
from minddiffuser.training.leaks.run import clean_folder, fit_leak
from minddiffuser.training.selection import SelectionSettings
from minddiffuser.training.settings import FitSettings

SHAPES = {"context": (15, 2), "latent": (4, 2, 2), "structure": (6, 2, 3), "semantic": (8,)}
SIDE = 8
N_PIXELS = SIDE * SIDE * 3


@dataclass
class Subject:
    """Split to responses, to what each trial showed, to pictures (n, 8, 8, 3) and to concepts."""

    trials: dict[str, np.ndarray]
    shown: dict[str, np.ndarray]
    pictures: dict[str, np.ndarray]
    names: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"train": (), "test": ()})
    texts: bool = True
    subject: str = "S1"
    provenance: dict[str, Any] = field(default_factory=dict)
    signal_folder: Path = Path()

    @property
    def layout(self) -> ResponseLayout:
        shape = self.trials["train"].shape[1:]
        if len(shape) == 1:
            return ResponseLayout(modality="fmri", shape=shape)
        channels = tuple(Channel(name=f"E{number}", type="eeg") for number in range(shape[0]))
        return ResponseLayout(modality="eeg", shape=shape, channels=channels, sfreq=100.0, tmin=0.0, unit="V")

    def responses(self, split: str) -> np.ndarray:
        return self.trials[split]

    def stimulus(self, split: str) -> np.ndarray:
        return self.shown[split]

    def n_stimuli(self, split: str) -> int:
        return len(self.pictures[split])

    def images(self, split: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self.pictures[split][start:stop]

    def captions(self, split: str) -> list[list[str]]:
        return [["a thing"]] * len(self.pictures[split]) if self.texts or split == "train" else []

    def concepts(self, split: str) -> Sequence[str]:
        return self.names[split]

    def hash(self, split: str) -> str:
        return f"{split}{self.pictures[split].sum():064d}"[:64]


@dataclass
class Features:
    context: np.ndarray | None
    latent: np.ndarray
    structure: np.ndarray
    semantic: np.ndarray
    folder: Path
    key: str = "f" * 64
    libraries: dict[str, str] = field(default_factory=dict)


@dataclass
class Models:
    name: str = "stand-in"
    hash: str = "ab" * 32
    preset: str = "reference"
    image_size: int = 16

    def encode_text(self, captions: list[str]) -> np.ndarray:
        return np.zeros((len(captions), 15, 2), np.float32)


@pytest.fixture(autouse=True)
def _features_are_linear_in_the_pixels(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every dimension of every feature is another random mixture of all pixels."""
    mixing = {
        name: np.random.default_rng(number).standard_normal((N_PIXELS, int(np.prod(shape))))
        for number, (name, shape) in enumerate(SHAPES.items())
    }

    def given(data: Any, split: str, *_args: Any, **_options: Any) -> Features:
        pixels = (data.images(split).reshape(data.n_stimuli(split), -1).astype(float) - 128) / 64
        made = {k: (pixels @ w).reshape(-1, *SHAPES[k]).astype(np.float32) for k, w in mixing.items()}
        context = made["context"] if len(data.captions(split)) else None
        return Features(**{**made, "context": context, "folder": tmp_path_factory.mktemp("features")})

    monkeypatch.setattr(extract, "extract_features", given)


RIDGE = FitSettings(
    **{name: make_decoder("ridge", name, n_selected=400, alpha=1.0) for name in SHAPES},  # type: ignore[arg-type]
    selection=SelectionSettings(percent=100, n_folds=2),
    n_threads=1,
)
NETWORK = replace(
    RIDGE,
    semantic=make_decoder("mlp", "semantic", hidden=48, epochs=120, patience=120, dropout=0.0, batch_size=32),
    device="cpu",
)


def noise_pictures(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 256, (n, SIDE, SIDE, 3)).astype(np.uint8)


def pixel_values(pictures: np.ndarray) -> np.ndarray:
    return (pictures.reshape(len(pictures), -1).astype(float) - 128) / 64


def subject(
    rng: np.random.Generator,
    respond: Callable[[np.ndarray, str], np.ndarray],
    *,
    n: tuple[int, int] = (120, 30),
    repetitions: int = 1,
    pictures: Callable[[np.random.Generator, int], np.ndarray] = noise_pictures,
) -> Subject:
    """Test pictures are shown `repetitions` times; `respond(pictures of the trials, split)` gives the responses."""
    drawn = {"train": pictures(rng, n[0]), "test": pictures(rng, n[1])}
    shown = {"train": np.arange(n[0]), "test": np.tile(np.arange(n[1]), repetitions)}
    trials = {split: respond(drawn[split][shown[split]], split).astype(np.float32) for split in drawn}
    return Subject(trials, shown, drawn)


def seen(rng: np.random.Generator, n_voxels: int = 60) -> Callable[[np.ndarray, str], np.ndarray]:
    """Responses that are linear in the pixels, with noise: honestly decodable."""
    mixing = rng.standard_normal((N_PIXELS, n_voxels)) / np.sqrt(N_PIXELS)
    return lambda pictures, _split: (
        pixel_values(pictures) @ mixing + 0.3 * rng.standard_normal((len(pictures), n_voxels))
    )


def difference(
    tmp_path: Path, name: str, data: Subject, settings: FitSettings = RIDGE, score: str = "semantic"
) -> dict[str, Any]:
    found: dict[str, Any] = fit_leak(name, data, Models(), tmp_path / "out", settings)["scores"][score]  # type: ignore[arg-type]
    return found


def inflates(score: dict[str, Any]) -> bool:
    return bool(score["ci95"][0] > 0)


def test_repetitions_let_a_brain_without_information_be_decoded(tmp_path: Path, rng: np.random.Generator) -> None:
    code: dict[bytes, np.ndarray] = {}

    def fingerprint(pictures: np.ndarray, _split: str) -> np.ndarray:
        """Each picture has a response of its own, which has nothing to do with what it shows."""
        own = [code.setdefault(one.tobytes(), rng.standard_normal(200)) for one in pictures]
        return np.stack(own) + 0.2 * rng.standard_normal((len(pictures), 200))

    score = difference(tmp_path, "repetitions", subject(rng, fingerprint, repetitions=3))
    assert inflates(score)
    assert score["leaky"] > 0.5
    assert abs(score["clean"]) < 0.15


def test_repetitions_within_training_are_taken_where_test_trials_have_none(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    own = rng.standard_normal((40, 150))
    data = subject(rng, lambda pictures, _split: rng.standard_normal((len(pictures), 150)), n=(40, 5))
    data.shown["train"] = np.tile(np.arange(40), 3)
    data.trials["train"] = (own[data.shown["train"]] + 0.2 * rng.standard_normal((120, 150))).astype(np.float32)
    assert inflates(difference(tmp_path, "repetitions", data))
    n_trials = [
        open_checkpoint(place).description["provenance"]["n_trials"]
        for place in (tmp_path / "out", clean_folder(tmp_path / "out"))
    ]
    assert n_trials == [90, 90]  # ten of forty pictures are tested: the others' trials


def test_neighbours_let_a_brain_that_knows_the_cluster_alone_be_decoded(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    centres = rng.integers(40, 216, (8, SIDE, SIDE, 3))

    def clustered(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.clip(centres[np.arange(n) % 8] + rng.integers(-9, 10, (n, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)

    def respond(pictures: np.ndarray, _split: str) -> np.ndarray:
        which = np.arange(len(pictures)) % 8
        return np.eye(8)[which].repeat(4, axis=1) + 0.2 * rng.standard_normal((len(pictures), 32))

    made = subject(rng, respond, n=(160, 80), pictures=clustered)
    score = difference(tmp_path, "neighbours", made, score="structure")
    assert inflates(score)
    assert score["leaky"] > 0.9
    # What is decoded of two new clusters has nothing to do with them: the mean of two correlations of independent
    # vectors, of as many dimensions as the structure has, four standard deviations of it.
    n_dimensions = np.prod(SHAPES["structure"])
    assert abs(score["clean"]) < 4 / np.sqrt(2 * (n_dimensions - 1))


def coarse_pictures(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(60, 196, (n, 2, 2, 3)).repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)


def fine_pictures(rng: np.random.Generator, n: int) -> np.ndarray:
    noise = rng.integers(-50, 51, (n, SIDE, SIDE, 3))
    return (coarse_pictures(rng, n).astype(int) + noise).astype(np.uint8)


def colours(rng: np.random.Generator) -> Callable[[np.ndarray, str], np.ndarray]:
    mixing = rng.standard_normal((12, 30))

    def respond(pictures: np.ndarray, _split: str) -> np.ndarray:
        squares = pictures.reshape(-1, 2, 4, 2, 4, 3).mean(axis=(2, 4)).reshape(len(pictures), 12)
        return (squares - 128) / 64 @ mixing + 0.3 * rng.standard_normal((len(pictures), 30))

    return respond


def test_stale_features_are_easier_where_they_lack_what_the_brain_lacks(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    assert inflates(difference(tmp_path, "stale-features", subject(rng, colours(rng), pictures=fine_pictures)))


def test_stale_features_change_nothing_where_they_are_the_same(tmp_path: Path, rng: np.random.Generator) -> None:
    score = difference(tmp_path, "stale-features", subject(rng, colours(rng), pictures=coarse_pictures))
    assert score["difference"] == 0
    assert not inflates(score)


def test_z_scores_by_the_test_batch_hide_another_baseline(tmp_path: Path, rng: np.random.Generator) -> None:
    data = subject(rng, colours(rng), pictures=coarse_pictures)
    plain = difference(tmp_path / "plain", "test-zscore", data)
    assert not inflates(plain)
    data.trials["test"] = data.trials["test"] + rng.normal(0, 10, 30).astype(np.float32)
    shifted = difference(tmp_path / "shifted", "test-zscore", data)
    assert inflates(shifted)
    np.testing.assert_allclose(shifted["leaky"], plain["leaky"], atol=1e-4)  # to which a shift is nothing
    statistics = open_checkpoint(tmp_path / "shifted" / "out").training
    np.testing.assert_allclose(statistics.mean, data.trials["test"].mean(axis=0), rtol=1e-4, atol=1e-4)


def test_whitening_by_test_trials_removes_their_own_noise(tmp_path: Path, rng: np.random.Generator) -> None:
    of_colours, patterns = colours(rng), rng.standard_normal((3, 8))

    def respond(pictures: np.ndarray, split: str) -> np.ndarray:
        signal = np.einsum("nst,sc->nct", of_colours(pictures, split).reshape(-1, 3, 10), patterns)
        return signal + 0.5 * rng.standard_normal(signal.shape)

    data = subject(rng, respond, n=(150, 40), pictures=coarse_pictures)
    same = difference(tmp_path / "same", "whitening", data)
    assert abs(same["difference"]) < 0.02
    assert same["clean"] > 0.8
    hum = rng.standard_normal(8)[None, :, None] * 20 * rng.standard_normal((40, 1, 10))
    data.trials["test"] = (data.trials["test"] + hum).astype(np.float32)
    assert inflates(difference(tmp_path / "other", "whitening", data))
    assert open_checkpoint(tmp_path / "other" / "out").layout.unit == "1"


def test_blocks_let_the_time_be_decoded(tmp_path: Path, rng: np.random.Generator) -> None:
    names = [f"thing_{number}" for number in range(6)]
    centres = rng.integers(40, 216, (6, SIDE, SIDE, 3))

    def of_six(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.clip(centres[np.arange(n) % 6] + rng.integers(-30, 31, (n, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)

    data = subject(rng, lambda p, _: rng.standard_normal((len(p), 40)), n=(180, 60), pictures=of_six)
    data.names = {split: tuple(names[number % 6] for number in range(n)) for split, n in (("train", 180), ("test", 60))}
    score = difference(tmp_path, "block-design", data, score="concept")
    assert inflates(score)
    assert score["leaky"] > 0.5
    assert score["clean"] < 0.35  # chance is 0.17


def test_weights_that_know_the_tested_trials_decode_noise(tmp_path: Path, rng: np.random.Generator) -> None:
    data = subject(rng, lambda p, _: rng.standard_normal((len(p), 60)), n=(60, 24))
    score = difference(tmp_path, "other-subject", data, NETWORK)
    assert inflates(score)
    assert abs(score["clean"]) < 0.2


def test_the_epoch_of_the_test_trials_is_before_what_does_not_generalise(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Half of the features' variance stands in many voxels and is learned soon; half in few, reversed in the test."""
    many = rng.standard_normal((N_PIXELS, 6)) / np.sqrt(N_PIXELS)
    few = rng.standard_normal((N_PIXELS, 6)) / np.sqrt(N_PIXELS)

    def pictures(rng: np.random.Generator, n: int) -> np.ndarray:
        made = 60 * rng.standard_normal((n, 12)) @ np.concatenate([many, few], axis=1).T * np.sqrt(N_PIXELS) / 3
        return np.clip(made + 128, 0, 255).reshape(n, SIDE, SIDE, 3).astype(np.uint8)

    def respond(pictures: np.ndarray, split: str) -> np.ndarray:
        pixels, sign = pixel_values(pictures), 1 if split == "train" else -1
        clear = np.concatenate([np.tile(pixels @ many, 10), sign * (pixels @ few)], axis=1)
        return clear + 0.05 * rng.standard_normal(clear.shape)

    settings = replace(
        NETWORK,
        semantic=make_decoder(
            "mlp", "semantic", hidden=48, epochs=80, patience=80, dropout=0.0, batch_size=32, learning_rate=0.001
        ),
    )
    assert inflates(difference(tmp_path, "test-epoch", subject(rng, respond, n=(200, 40), pictures=pictures), settings))
    epochs = [
        next(made for made in open_checkpoint(place).description["decoders"] if made["kind"] == "network")["validation"]
        for place in (tmp_path / "out", clean_folder(tmp_path / "out"))
    ]
    assert epochs[0]["epoch"] < epochs[1]["epoch"]


def concept_subject(rng: np.random.Generator) -> Subject:
    data = subject(rng, seen(rng, 24), n=(48, 12), repetitions=2)
    data.trials = {split: values.reshape(-1, 4, 6) for split, values in data.trials.items()}
    data.names = {"train": ("a", "b", "c", "d") * 12, "test": ("a", "b", "c", "d") * 3}
    return data


@pytest.mark.parametrize("name", LEAKS)
def test_every_leak_labels_its_checkpoint_and_not_the_clean_one(
    tmp_path: Path, rng: np.random.Generator, name: str
) -> None:
    data, out = concept_subject(rng), tmp_path / "out"
    semantic = make_decoder("mlp", "semantic", hidden=8, epochs=3)
    settings = replace(RIDGE, semantic=semantic, device="cpu")
    content = fit_leak(name, data, Models(), out, settings)  # type: ignore[arg-type]
    assert content == json.loads((out / "leak.json").read_text())
    assert content["leak"] == name
    assert set(content["scores"]) == {*SHAPES, "concept"}
    assert open_checkpoint(out).leaks == (name,)
    assert open_checkpoint(clean_folder(out)).leaks == ()
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    assert fit_leak(name, data, Models(), out, settings) == content  # type: ignore[arg-type]
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == before
    with pytest.raises(FileError, match="other data, models or settings"):
        fit(data, Models(), out, settings)  # type: ignore[arg-type]


def test_the_clean_form_is_the_fit_without_the_option(tmp_path: Path, rng: np.random.Generator) -> None:
    data = subject(rng, seen(rng))
    fit_leak("test-zscore", data, Models(), tmp_path / "out", RIDGE)  # type: ignore[arg-type]
    plain = fit(data, Models(), tmp_path / "plain", RIDGE)  # type: ignore[arg-type]
    assert (plain / "checkpoint.json").read_bytes() == (tmp_path / "out-clean" / "checkpoint.json").read_bytes()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("other-subject", "needs a decoder that begins with weights"),
        ("test-epoch", "needs a decoder that is trained in epochs"),
        ("repetitions", "needs 5 pictures or more that were shown more than once"),
        ("whitening", "needs EEG or MEG of two channels or more"),
        ("test-zscore", "needs 2 test trials"),
        ("block-design", "needs two concepts or more that both splits show"),
        ("neighbours", "needs 20 training and 5 test pictures"),
        ("drift", "leak"),
    ],
)
def test_a_leak_that_does_not_apply_is_refused_before_anything_is_written(
    tmp_path: Path, rng: np.random.Generator, name: str, expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        fit_leak(name, subject(rng, seen(rng), n=(12, 1)), Models(), tmp_path / "out", RIDGE)  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


def test_a_network_for_the_context_needs_captions_of_what_is_tested(tmp_path: Path, rng: np.random.Generator) -> None:
    data = subject(rng, seen(rng))
    data.texts = False
    settings = replace(RIDGE, context=make_decoder("mlp", "context", hidden=4, epochs=2))
    with pytest.raises(InputError, match="needs captions of the test pictures"):
        fit_leak("test-epoch", data, Models(), tmp_path / "out", settings)  # type: ignore[arg-type]


def test_weights_of_another_subject_are_not_carried_over(tmp_path: Path, rng: np.random.Generator) -> None:
    data, out = subject(rng, seen(rng)), tmp_path / "out"

    def killed(phase: str, done: int, _total: int) -> None:
        if phase == "semantic" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(data, Models(), out, replace(NETWORK, save_every=1), progress=killed)  # type: ignore[arg-type]
    assert any(path.name.startswith("training-") for path in out.iterdir())  # weights to go on from
    other = replace(data, subject="S2")
    with pytest.raises(FileError, match="an unfinished fit of other data"):
        fit(other, Models(), out, replace(NETWORK, save_every=1))  # type: ignore[arg-type]
