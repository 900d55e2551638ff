"""The simulated subject: local fields, an honest noise ceiling, repeatable, and its brain kept to itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from minddiffuser.runtime.errors import FileError, InputError, ShapeError
from minddiffuser.runtime.images import png_bytes
from minddiffuser.training.simulate.fmri import (
    AREAS,
    Area,
    Drives,
    FmriSettings,
    draw_brain,
    drive,
    measure_scales,
    receptive_fields,
    simulate_fmri,
)
from minddiffuser.training.simulate.subject import Showing, simulate_subject, words_of_neighbours

SIDE, D_VISION, D_WORDS = 6, 12, 20
SHAPE = (6, SIDE * SIDE + 1, D_VISION)


def features(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    structure = rng.standard_normal((n, *SHAPE), dtype=np.float32)
    structure[..., 3] *= 100  # CLIP has such channels
    return structure, rng.standard_normal((n, D_WORDS + D_VISION), dtype=np.float32)


FEW = {"V1": replace(AREAS["V1"], n_voxels=60), "LO": replace(AREAS["LO"], n_voxels=60)}


def subject(settings: FmriSettings, seed: int, n_train: int = 60, n_test: int = 40) -> Any:
    rng = np.random.default_rng(5)
    train, test = features(rng, n_train), features(rng, n_test)
    scales = measure_scales(*train)
    brain = draw_brain(settings, SHAPE, (D_WORDS, D_VISION), np.random.default_rng(seed))
    drives = {"train": drive(brain, scales, *train), "test": drive(brain, scales, *test)}
    return brain, scales, drives, train, test


def test_areas_are_those_of_the_paper() -> None:
    settings = FmriSettings()
    assert sorted(settings.rois) == sorted("V1 V2 V3 V3ab hV4 VO PHC MT MST LO IPS".split())
    assert settings.n_voxels == 2000
    assert list(settings.rois.values())[-1][1] == 2000
    assert {name: len(voxels) for name, voxels in settings.groups.items()} == {"LVC": 1240, "HVC": 760}
    assert frozenset.union(*settings.groups.values()) == frozenset(range(2000))
    mixed = FmriSettings(areas={name: replace(AREAS[name], n_voxels=2) for name in ("V1", "LO", "V2")})
    assert mixed.groups == {"LVC": {0, 1, 4, 5}, "HVC": {2, 3}}
    early = [AREAS[name] for name in ("V1", "V2", "V3", "V3ab", "hV4")]
    widths = [area.field_sd for area in early]
    assert widths == sorted(widths)
    assert [np.mean(area.layers) for area in early] == sorted(np.mean(area.layers) for area in early)


def test_signal_is_standardised_by_training_pictures() -> None:
    settings = FmriSettings(snr=1e6)  # what is left is signal
    brain, _, drives, *_ = subject(settings, 1)
    shifted = {"train": drives["train"], "test": replace_drives(drives["test"], 3.0)}
    plain, moved = (simulate_fmri(brain, d, settings, np.random.default_rng(0)) for d in (drives, shifted))
    np.testing.assert_allclose(plain["train"].responses.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(plain["train"].responses.std(axis=0), 1, atol=1e-3)
    # The test split's own mean is never taken out.
    assert np.abs(plain["test"].responses.mean(axis=0)).max() > 0.05
    np.testing.assert_array_equal(plain["train"].responses, moved["train"].responses)
    assert np.abs(moved["test"].responses - plain["test"].responses).max() > 0.1


def replace_drives(drives: Drives, shift: float) -> Drives:
    return Drives(structural=drives.structural + shift, semantic=drives.semantic + shift)


@pytest.mark.parametrize("repetitions", [1, 3])
def test_noise_ceiling_is_what_repeated_measurements_show(repetitions: int) -> None:
    """Two runs of the same subject with other noise correlate, over trials, at the stated ceiling."""
    settings = FmriSettings(snr=0.8, test_repetitions=repetitions, areas=FEW)
    brain, _, drives, *_ = subject(settings, 1, n_train=1500, n_test=2)
    drives["test"] = drives["train"]  # signal variance is exactly 1
    run = simulate_fmri(brain, drives, settings, np.random.default_rng(0))["test"]
    sd = noise_sd(settings, np.random.default_rng(0), 120)
    other = np.random.default_rng(99)
    signal = simulate_fmri(brain, drives, replace(settings, snr=1e6), np.random.default_rng(0))["test"].responses
    again = signal + other.standard_normal(signal.shape) * sd / np.sqrt(repetitions)
    a, b = (x - x.mean(axis=0) for x in (run.responses, again))
    reliability = (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    assert abs(np.mean(reliability - run.noise_ceiling)) < 0.005
    assert np.abs(reliability - run.noise_ceiling).max() < 0.12  # 1,500 trials: standard error 0.025
    assert np.corrcoef(reliability, run.noise_ceiling)[0, 1] > 0.9
    assert run.noise_ceiling.std() > 0.05  # voxels differ


def noise_sd(settings: FmriSettings, rng: np.random.Generator, n_voxels: int) -> np.ndarray:
    """From the stated ceiling of one showing, var_noise = 1 / ceiling - 1: the formula turned round."""
    brain, _, drives, *_ = subject(settings, 1)
    ceiling = simulate_fmri(brain, drives, settings, rng)["train"].noise_ceiling
    assert ceiling.shape == (n_voxels,)
    return np.sqrt(1 / ceiling.astype(np.float64) - 1)


def test_ceilings_follow_snr_and_repetitions() -> None:
    settings = FmriSettings(snr=0.5, snr_spread=0.0, test_repetitions=3)
    brain, _, drives, *_ = subject(settings, 1)
    split = simulate_fmri(brain, drives, settings, np.random.default_rng(0))
    np.testing.assert_allclose(split["train"].noise_ceiling, 1 / (1 + 4), rtol=1e-5)
    np.testing.assert_allclose(split["test"].noise_ceiling, 1 / (1 + 4 / 3), rtol=1e-5)


def test_ceilings_refer_to_the_training_pictures_signal() -> None:
    """Test pictures that move voxels half as much: the noise is as stated, their own share of variance is lower."""
    settings = FmriSettings(snr=0.8, compression=0.0, areas=FEW)
    brain, _, drives, *_ = subject(settings, 1, n_train=60, n_test=1500)
    centre = {name: getattr(drives["train"], name).mean(axis=0) for name in ("structural", "semantic")}
    weak = {name: centre[name] + 0.5 * (getattr(drives["test"], name) - centre[name]) for name in centre}
    drives = {"train": drives["train"], "test": Drives(**weak)}
    run = simulate_fmri(brain, drives, settings, np.random.default_rng(0))["test"]
    plain = simulate_fmri(brain, drives, replace(settings, snr=1e9), np.random.default_rng(0))["test"].responses
    noise = (run.responses - plain).var(axis=0)
    np.testing.assert_allclose(1 / (1 + noise), run.noise_ceiling, atol=0.03)
    own = plain.var(axis=0) / (plain.var(axis=0) + noise)
    assert np.mean(run.noise_ceiling - own) > 0.1


def test_training_repetitions_are_trials_of_their_own() -> None:
    settings = FmriSettings(train_repetitions=2)
    brain, _, drives, *_ = subject(settings, 1)
    split = simulate_fmri(brain, drives, settings, np.random.default_rng(0))
    assert split["train"].stimulus.tolist() == [*range(60), *range(60)]
    first, second = split["train"].responses[:60], split["train"].responses[60:]
    between = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    assert 0.4 < between < 0.6  # snr 1: half of the variance is shared
    assert split["test"].stimulus.tolist() == list(range(40))


def test_receptive_fields_are_local_and_normalised() -> None:
    fields = receptive_fields(np.array([[0.25, 0.75], [0.5, 0.5]]), np.array([0.05, 0.3]), 8)
    np.testing.assert_allclose(fields.sum(axis=1), 1, rtol=1e-5)
    # x is the column, y the row: (0.25, 0.75) lies between columns 1 and 2, rows 5 and 6.
    peak = np.argwhere(fields[0].reshape(8, 8) > 0.2)
    assert sorted(map(tuple, peak)) == [(5, 1), (5, 2), (6, 1), (6, 2)]
    assert fields[0].max() > 4 * fields[1].max()
    far = receptive_fields(np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([1e-3, 1e-3]), 8)
    assert np.isfinite(far).all()
    assert far[0].argmax() == 0
    assert far[1].argmax() == 63


def test_a_corner_moves_only_voxels_that_look_there() -> None:
    settings = FmriSettings()
    brain, scales, _, train, _ = subject(settings, 1)
    before = drive(brain, scales, *train)
    structure = train[0].copy()
    patch = 1 + 0 * SIDE + (SIDE - 1)  # the top right corner; token 0 is the class token
    structure[:, :, patch] += 5 * structure[:, :, patch].std()
    moved = np.abs(drive(brain, scales, structure, train[1]).structural - before.structural).max(axis=0)
    moved /= before.structural.std(axis=0).clip(1e-9)
    start, stop = settings.rois["V1"]
    grid = brain.receptive[start:stop].reshape(-1, SIDE, SIDE)
    here = grid[:, 0, -1] > 0.05
    far = grid[:, :3, 3:].sum(axis=(1, 2)) < 1e-4
    assert here.sum() >= 5
    assert far.sum() >= 50
    assert moved[start:stop][here].min() > 0.2
    assert moved[start:stop][far].max() < 1e-2
    v1, hv4 = (np.mean(moved[slice(*settings.rois[name])] > 0.05) for name in ("V1", "hV4"))
    assert v1 < hv4  # wider fields see more of the picture


def test_class_token_and_semantics_leave_early_areas_alone() -> None:
    settings = FmriSettings(snr=1e6)
    brain, scales, drives, train, _ = subject(settings, 1)
    structure, semantic = train[0].copy(), train[1][::-1].copy()
    structure[:, :, 0] = 7
    changed = {"train": drives["train"], "test": drive(brain, scales, structure, semantic)}
    same = {"train": drives["train"], "test": drives["train"]}
    a, b = (simulate_fmri(brain, d, settings, np.random.default_rng(0))["test"].responses for d in (changed, same))
    for name, span in settings.rois.items():
        difference = np.abs(a - b)[:, slice(*span)].mean()
        early = name in ("V1", "V2", "V3", "V3ab", "hV4")
        assert difference < 1e-4 if early else difference > 0.1, name


def test_higher_areas_do_not_see_structure_and_ips_sees_both() -> None:
    settings = FmriSettings(snr=1e6)
    brain, scales, drives, train, _ = subject(settings, 1)
    changed = {"train": drives["train"], "test": drive(brain, scales, train[0][::-1], train[1])}
    same = {"train": drives["train"], "test": drives["train"]}
    a, b = (simulate_fmri(brain, d, settings, np.random.default_rng(0))["test"].responses for d in (changed, same))
    for name in ("VO", "PHC", "MT", "MST"):
        assert np.abs(a - b)[:, slice(*settings.rois[name])].max() < 1e-3
    for name in ("LO", "IPS"):
        assert 0.1 < np.abs(a - b)[:, slice(*settings.rois[name])].mean() < 1.0


def test_strong_channels_do_not_drown_the_rest() -> None:
    settings = FmriSettings()
    brain, scales, _, train, _ = subject(settings, 1)
    without = train[0].copy()
    without[..., 3] = without[..., 3].mean()
    a, b = (drive(brain, scales, x, train[1]).structural[:, :340] for x in (train[0], without))
    kept = [np.corrcoef(a[:, v], b[:, v])[0, 1] for v in range(340)]
    assert np.median(kept) > 0.9


def test_structure_can_be_decoded_linearly() -> None:
    """With smooth features of low rank, as pictures have, ridge on single trials finds them again."""
    rng = np.random.default_rng(2)
    n, rank = 600, 20
    latent = rng.standard_normal((n, rank), dtype=np.float32)
    structure = (latent @ rng.standard_normal((rank, int(np.prod(SHAPE))), dtype=np.float32)).reshape(n, *SHAPE)
    semantic = latent @ rng.standard_normal((rank, D_WORDS + D_VISION), dtype=np.float32)
    fewer = {name: replace(area, n_voxels=area.n_voxels // 4) for name, area in AREAS.items()}
    settings = FmriSettings(areas=fewer)
    brain = draw_brain(settings, SHAPE, (D_WORDS, D_VISION), rng)
    scales = measure_scales(structure[:256], semantic[:256])
    parts = drive(brain, scales, structure, semantic)
    drives = {
        "train": Drives(structural=parts.structural[:500], semantic=parts.semantic[:500]),
        "test": Drives(structural=parts.structural[500:], semantic=parts.semantic[500:]),
    }
    split = simulate_fmri(brain, drives, settings, rng)
    x, y = split["train"].responses, structure[:500].reshape(500, -1)[:, ::50]
    weights = np.linalg.solve(x.T @ x + 500 * np.eye(settings.n_voxels), x.T @ y)
    predicted, truth = split["test"].responses @ weights, structure[500:].reshape(100, -1)[:, ::50]
    r = [np.corrcoef(predicted[:, k], truth[:, k])[0, 1] for k in range(truth.shape[1])]
    assert np.median(r) > 0.8


def test_same_seed_same_subject_other_seed_another() -> None:
    settings = FmriSettings()
    one, two, three = (subject(settings, seed)[0] for seed in (1, 1, 2))
    for name in ("layer", "receptive", "channel", "semantic", "structural"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        assert (getattr(one, name) != getattr(three, name)).any()
    _, _, drives, *_ = subject(settings, 1)
    a, b, c = (simulate_fmri(one, drives, settings, np.random.default_rng(s))["test"].responses for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).all(axis=0).all()


@pytest.mark.parametrize(
    "change",
    [
        {"snr": 0.0},
        {"snr": float("nan")},
        {"snr_spread": -1.0},
        {"test_repetitions": 4},
        {"train_repetitions": 0},
        {"compression": -0.1},
        {"sparsity": 0.0},
        {"areas": {}},
    ],
)
def test_settings_refuse(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        FmriSettings(**change)


def test_wrong_features_are_refused(rng: np.random.Generator) -> None:
    structure, semantic = features(rng, 3)
    with pytest.raises(ShapeError, match="n_tokens"):
        measure_scales(structure[0], semantic)
    with pytest.raises(ShapeError, match="same pictures"):
        measure_scales(structure, semantic[:2])
    with pytest.raises(InputError, match="at least 2"):
        measure_scales(structure[:1], semantic[:1])
    with pytest.raises(ShapeError, match="square grid"):
        draw_brain(FmriSettings(), (6, 7, 4), (5, 4), rng)
    with pytest.raises(InputError, match="V9 sees layer 6"):
        draw_brain(FmriSettings(areas={"V9": Area(n_voxels=2, layers=(6,))}), SHAPE, (5, 4), rng)


# ---- the whole subject, with models that cost nothing ---------------------------------------------------------------


class FakeModels:
    """Mean colours of a 4 x 4 grid as structure, hashed words as context."""

    name, hash, image_size, device = "fake", "0" * 64, 16, torch.device("cpu")

    def __init__(self) -> None:
        self.largest_batch = 0

    def encode_text(self, captions: Any) -> torch.Tensor:
        out = torch.zeros(len(captions), 15, 8)
        for row, text in enumerate(captions):
            for position, word in enumerate(text.split()[:14]):
                out[row, position + 1, sum(word.encode()) % 8] = 1
        return out

    def structure(self, image: torch.Tensor, *, semantic: bool = False) -> Any:
        self.largest_batch = max(self.largest_batch, len(image))
        assert image.shape[1:] == (3, 16, 16)
        assert image.dtype == torch.float32
        patches = torch.nn.functional.adaptive_avg_pool2d(image, 4).flatten(2).transpose(1, 2)
        tokens = torch.cat([patches.mean(1, keepdim=True), patches], dim=1)
        layers = torch.stack([tokens * (k + 1) for k in range(6)], dim=1)
        return layers, image.mean((2, 3)) if semantic else None


SMALL = FmriSettings(areas={"V1": Area(n_voxels=9, layers=(0,), structural=(1, 1)), "LO": Area(n_voxels=5)})


def make(out: Path, seed: int = 3, *, models: Any = None, settings: FmriSettings = SMALL, **showing: Any) -> Any:
    shown = Showing(**{"n_train": 11, "n_test": 3, **showing})
    return simulate_subject(out, models or FakeModels(), settings, shown, seed=seed, batch_size=4)


def test_subject_folder(tmp_path: Path) -> None:
    models = FakeModels()
    data = make(tmp_path / "data", models=models)
    assert models.largest_batch <= 4
    assert data.responses("train").shape == (11, 14)
    assert data.layout.rois == {"V1": (0, 9), "LO": (9, 14), "LVC": (0, 9), "HVC": (9, 14)}
    assert data.images("test").shape == (3, 16, 16, 3)
    assert all(len(group) == 1 and group[0].startswith("a ") for group in data.captions("train"))
    assert data.provenance["models"] == {"name": "fake", "hash": "0" * 64}
    assert (data.provenance["seed"], data.provenance["snr"]) == (3, 1.0)
    assert data.subject == "simulated-3"
    # Test trials average three showings, training trials are one each; no id names the subject.
    assert data.trial_ids("test") == ("test/0/mean", "test/1/mean", "test/2/mean")
    assert data.trial_ids("train") == tuple(f"train/{k}/0" for k in range(11))
    assert make(tmp_path / "other", seed=4).trial_ids("test") == data.trial_ids("test")


def test_subject_repeats_and_seeds_differ(tmp_path: Path) -> None:
    one, two, three = (make(tmp_path / name, seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert one.data_hash == two.data_hash
    assert one.hash("train") != three.hash("train")
    assert (one.images("train") != three.images("train")).any()
    assert not {path.tobytes() for path in one.images("train")} & {path.tobytes() for path in one.images("test")}


def test_weights_are_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def spy(*args: Any) -> Any:
        drawn.append(draw_brain(*args))
        return drawn[-1]

    monkeypatch.setattr("minddiffuser.training.simulate.subject.draw_brain", spy)
    make(tmp_path / "data")
    files = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    names = {path.name for path in files if path.suffix != ".png"}
    assert names == {"data.json", "captions.json", "trial_ids.json", "train.safetensors", "test.safetensors"}
    for name in ("train", "test"):
        arrays = load_file(tmp_path / "data" / f"{name}.safetensors")
        assert set(arrays) == {"responses", "stimulus", "noise_ceiling"}
    (brain,) = drawn
    for weights in (brain.channel, brain.semantic, brain.receptive):
        row = np.ascontiguousarray(weights[0]).tobytes()
        assert not any(row in content for content in files.values())


def test_own_pictures_of_any_size_and_mode(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = tmp_path / "drawings"
    folder.mkdir()
    Image.new("L", (300, 20), 90).save(folder / "a.jpg")
    Image.new("RGBA", (5, 9), (200, 0, 0, 100)).save(folder / "b.PNG")
    (folder / "c.png").write_bytes(png_bytes(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    data = make(tmp_path / "data", stimuli=folder)
    assert data.images("test").shape == (3, 16, 16, 3)
    assert data.responses("test").shape == (3, 14)
    assert np.isfinite(data.responses("test")).all()
    assert data.captions("test") == []
    assert data.provenance["stimuli"]["test"] == ["a.jpg", "b.PNG", "c.png"]
    # What becomes of them is said, and their names stay with them.
    assert data.provenance["stimuli"]["note"].startswith("a.jpg (300 x 20 px), b.PNG (5 x 9 px) are not square: ")
    assert [name.split("/")[1] for name in data.trial_ids("test")] == ["a.jpg", "b.PNG", "c.png"]
    # The training half of the subject does not depend on what is tested.
    np.testing.assert_array_equal(data.responses("train"), make(tmp_path / "plain").responses("train"))


def test_undecodable_picture_is_named_before_the_work(tmp_path: Path) -> None:
    folder = tmp_path / "drawings"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no")
    models = FakeModels()
    with pytest.raises(FileError, match=r"a\.png cannot be decoded"):
        make(tmp_path / "data", models=models, stimuli=folder)
    assert models.largest_batch == 0
    assert not (tmp_path / "data").exists()


def test_counts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 training"):
        Showing(n_train=1)
    with pytest.raises(InputError, match="seed is -1"):
        make(tmp_path / "data", seed=-1)


def test_words_come_from_pictures_that_look_alike(rng: np.random.Generator) -> None:
    seen = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0) + 0.01 * rng.standard_normal((30, 3), dtype=np.float32)
    words = np.repeat(np.array([[1, 0], [0, 1], [2, 2]], np.float32), 10, axis=0)
    said = words_of_neighbours(np.array([[0, 1, 0], [0, 0, 1]], np.float32), seen, words)
    np.testing.assert_allclose(said, [[0, 1], [2, 2]])


def test_small_world_end_to_end(tmp_path: Path, small_world: Path) -> None:
    from minddiffuser.runtime.models.open import load_models

    reports: list[tuple[str, int, int]] = []
    data = simulate_subject(
        tmp_path / "data",
        load_models(str(small_world)),
        FmriSettings(),
        Showing(n_train=12, n_test=4),
        seed=1,
        progress=lambda phase, done, total: reports.append((phase, done, total)),
    )
    assert data.responses("train").shape == (12, 2000)
    assert data.image_size == 32
    assert np.abs(data.responses("train")).max() < 20
    assert len(data.constant_places) == 0
    assert reports == [
        ("train pictures", 0, 12),
        ("train pictures", 12, 12),
        ("test pictures", 0, 4),
        ("test pictures", 4, 4),
    ]
