"""Clusters of similar pictures held out: nothing of them is trained on, and runs reconstruct nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime import cli as reconstruct
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.data.folder import SplitData, open_data, write_data
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.training import cli as train
from minddiffuser.training.clusters import drawn_clusters, kmeans
from minddiffuser.training.concepts import unit
from minddiffuser.training.settings import FitSettings
from minddiffuser.training.split import ClusterSettings, by_clusters, check_split

pytest.importorskip("scipy")
SIDE = 8


def test_kmeans_finds_what_lies_apart() -> None:
    rng = np.random.default_rng(0)
    which = rng.integers(4, size=60)
    centres = np.array([[0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9]])
    found = kmeans(centres[which] + rng.standard_normal((60, 3)), 4, np.random.default_rng(1))
    assert all(len(set(found[which == one])) == 1 for one in range(4))
    assert len(set(found)) == 4


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("jitter", [0.0, 1e-9])
def test_kmeans_of_fewer_different_places_than_clusters(jitter: float) -> None:
    which = np.arange(40) % 3
    places = np.eye(3)[which] + jitter * np.random.default_rng(0).standard_normal((40, 3))
    found = kmeans(places, 8, np.random.default_rng(1))
    assert all(set(found[which == one]).isdisjoint(found[which != one]) for one in range(3))
    assert len(set(kmeans(np.ones((9, 2)), 4, np.random.default_rng(1)))) == 1


@pytest.mark.parametrize("share", [0.1, 0.25, 0.6, 0.99])
def test_clusters_are_drawn_until_the_share_is_reached_and_never_all(share: float) -> None:
    test = np.repeat([0, 1, 2, 5, 9], [8, 1, 4, 3, 4])
    drawn = [drawn_clusters(test, share, np.random.default_rng(seed)) for seed in range(20)]
    for held in drawn:
        assert set(held) < {0, 1, 2, 5, 9}
        reached = np.isin(test, held).mean()
        assert reached >= share or len(held) == 4
    assert len({tuple(held) for held in drawn}) > 1
    assert drawn_clusters(np.zeros(5, int), share, np.random.default_rng(0)) == []


@dataclass
class Pictures:
    """Grey pictures in six levels: what a cluster is is known. Each training picture is shown twice."""

    subject: str = "S1"
    level: dict[str, np.ndarray] = field(
        default_factory=lambda: {"train": np.arange(60) % 6, "test": np.array([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5])}
    )

    def responses(self, split: str) -> np.ndarray:
        return self.level[split][self.stimulus(split)][:, None].astype(np.float32)

    def stimulus(self, split: str) -> np.ndarray:
        return np.tile(np.arange(len(self.level[split])), 2 if split == "train" else 1)

    def n_stimuli(self, split: str) -> int:
        return len(self.level[split])

    def images(self, split: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        shades = 40 * self.level[split][start:stop] + (split == "test")
        return np.stack([np.full((SIDE, SIDE, 3), shade, np.uint8) for shade in shades])

    def hash(self, split: str) -> str:
        return split


class Models:
    hash, image_size, device = "m", SIDE, "cpu"

    def __init__(self) -> None:
        self.looked = 0

    def embedding(self, images: Any) -> Any:
        import torch

        self.looked += len(images)
        angle = images.mean(dim=(1, 2, 3)) * 5
        return torch.stack([torch.cos(angle), torch.sin(angle)], dim=1)


def split_of(tmp_path: Path, models: Any, data: Any, **settings: Any) -> tuple[Any, Any]:
    chosen = ClusterSettings(**{"n_clusters": 6, **settings})
    fit = FitSettings(cache_dir=tmp_path / "features")
    return by_clusters(data, models, tmp_path / "out", fit, chosen, progress=lambda *_: None, say=lambda _: None)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_training_picture_is_of_a_cluster_that_is_held_out(tmp_path: Path, seed: int) -> None:
    data, models = Pictures(), Models()
    held, split = split_of(tmp_path, models, data, seed=seed, held_out=0.3)
    levels = {name: {int(image[0, 0, 0]) // 40 for image in held.images(name)} for name in ("train", "test")}
    assert levels["train"].isdisjoint(levels["test"])
    assert levels["train"] | levels["test"] == set(range(6))
    assert len(levels["test"]) == len(split.held_out) == 2  # of six levels, for three tenths of the test pictures
    # Numbers of its own, and those of the data that it is made from.
    numbers = held.old_numbers("train")
    np.testing.assert_array_equal(held.images("train"), data.images("train")[list(numbers)])
    np.testing.assert_array_equal(held.responses("train")[:, 0], data.level["train"][numbers,][held.stimulus("train")])
    assert len(split.pictures) == 2  # copies count once
    looked = models.looked
    again, same = split_of(tmp_path, models, data, seed=seed, held_out=0.3)
    assert models.looked == looked, "what was stopped goes on with the same clusters"
    assert same == split
    np.testing.assert_array_equal(again.stimulus("train"), held.stimulus("train"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n_clusters": 1}, "--n-clusters is 1"),
        ({"n_clusters": 37}, "at most half as many"),
        ({"held_out": 0.0}, "--held-out is 0"),
        ({"held_out": 1.0}, "--held-out is 1"),
        ({"seed": -1}, "--split-seed is -1"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_split(Pictures(), ClusterSettings(**{"n_clusters": 6, **settings}))  # type: ignore[arg-type]


def test_one_cluster_of_test_pictures_cannot_be_held_out(tmp_path: Path) -> None:
    data = Pictures(level={"train": np.arange(60) % 6, "test": np.full(4, 2)})
    with pytest.raises(InputError, match="lie in one cluster"):
        split_of(tmp_path, Models(), data)


class World:
    """Scenes of the tiny world, without responses."""

    def __init__(self, n_train: int, n_test: int) -> None:
        from minddiffuser.training.tinyworld.draw import draw
        from minddiffuser.training.tinyworld.scenes import scenes

        pictures = np.stack([draw(scene) for scene in scenes(11, n_train + n_test)])
        self._pictures = {"train": pictures[:n_train], "test": pictures[n_train:]}

    def images(self, split: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self._pictures[split][start:stop]

    def n_stimuli(self, split: str) -> int:
        return len(self._pictures[split])

    def stimulus(self, split: str) -> np.ndarray:
        return np.arange(self.n_stimuli(split))

    def responses(self, split: str) -> np.ndarray:
        return np.zeros((self.n_stimuli(split), 1), np.float32)

    def hash(self, split: str) -> str:
        return f"{split} {self.n_stimuli(split)}"


@pytest.mark.long
def test_in_the_tiny_world_the_nearest_training_picture_is_farther(tmp_path: Path) -> None:
    """Than where as many training pictures are left out at random."""
    import torch

    from minddiffuser.runtime.images import fit_square, to_float
    from minddiffuser.runtime.models.open import load_models

    models, data = load_models("tiny"), World(240, 60)
    held, _ = split_of(tmp_path, models, data, n_clusters=10, held_out=0.3)

    def places(pictures: np.ndarray) -> np.ndarray:
        sized = np.stack([fit_square(picture, models.image_size) for picture in pictures])
        with torch.no_grad():
            return unit(models.embedding(torch.from_numpy(to_float(sized))).numpy())

    tested, train = places(held.images("test")), places(data.images("train"))
    kept = np.array(held.old_numbers("train"))
    assert 5 <= len(tested) < 60
    assert len(kept) < 240

    def nearest(numbers: np.ndarray) -> float:
        return float(np.mean(1 - (tested @ train[numbers].T).max(axis=1)))

    rng = np.random.default_rng(0)
    at_random = [nearest(rng.permutation(240)[: len(kept)]) for _ in range(20)]
    assert nearest(kept) > max(at_random)
    assert nearest(kept) > 1.2 * np.mean(at_random)


def write_subject(folder: Path) -> None:
    """Responses are a picture's colour, mixed; colours lie around four places."""
    rng = np.random.default_rng(3)
    mixing, around = rng.standard_normal((3, 20)), np.array([[30, 30, 30], [220, 30, 30], [30, 220, 30], [30, 30, 220]])

    def split(n: int) -> SplitData:
        colours = around[np.arange(n) % 4] + rng.integers(-15, 15, (n, 3))
        signal = (colours - 128) / 64 @ mixing + 0.2 * rng.standard_normal((n, 20))
        return SplitData(
            responses=signal.astype(np.float32),
            stimulus=np.arange(n),
            images=[np.broadcast_to(colour, (32, 32, 3)).astype(np.uint8) for colour in colours],
            captions=[[f"a thing number {number % 7}"] for number in range(n)],
        )

    write_data(folder, {"train": split(40), "test": split(12)}, subject="someone", rois={"V1": (0, 20)})


FIT = "--split clusters --n-clusters 4 --held-out 0.2 --n-folds 2 --percent 10 --threads 1 --device cpu".split()


def test_from_the_split_to_pictures(
    tmp_path: Path,
    small_world: Path,
    toy_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_subject(tmp_path / "data")
    fit = ["fit", "data", "--out", "checkpoint", "--models", str(small_world), *FIT]
    assert train.main(fit) == 0
    assert "clusters are held out: training takes" in capsys.readouterr().err
    data, checkpoint = open_data("data"), open_checkpoint("checkpoint")
    split = checkpoint.split
    assert split is not None
    assert (split.kind, split.n_clusters, split.share, split.seed) == ("clusters", 4, 0.2, 0)
    near = [number for number, name in enumerate(data.picture_ids("test")) if name in split.pictures]
    assert 0 < len(near) < 12
    table = checkpoint.training_pictures
    assert table is not None
    ids = data.picture_ids("train")
    assert [ids[number] for number in table.number] == list(table.pixels)  # numbers of the data folder, not of the fit
    assert len(table.number) < 40
    assert train.main(fit) == 0, "given again, it is found finished"

    fast = "--refiner adam --steps 1 --backprop-steps 1 --batch-size 4 --threads 1".split()
    run = ["run", "checkpoint", "data", "--models", str(small_world), "--device", "cpu", "--out", "run"]
    assert reconstruct.main([*run, *fast, "--stage", "1", "--controls", "nearest"]) == 0
    said = f"{12 - len(near)} of 12 trials are left out: its picture lies in no cluster that was held out"
    assert said in capsys.readouterr().err
    made = sorted(int(path.stem) for path in (tmp_path / "run" / "images" / "stage1").iterdir())
    assert made == near
    evidence = json.loads((tmp_path / "run" / "evidence.json").read_text())
    assert evidence["about"]["split"] == {**split.as_json(), "pictures": len(split.pictures)}
    assert "Split: held-out clusters of similar pictures" in (tmp_path / "run" / "report.html").read_text()

    from toy_bundle import write_toy_bundle

    bundle = write_toy_bundle(tmp_path / "bundle", tmp_path / "checkpoint")
    assert Bundle.open(bundle).split == split
    assert reconstruct.main(["run", "bundle", "data", "--out", "run2", *fast, "--stage", "1"]) == 0
    assert sorted(int(path.stem) for path in (tmp_path / "run2" / "images" / "stage1").iterdir()) == near

    np.save("rows.npy", data.responses("test"))
    assert reconstruct.main([*run[:2], "rows.npy", *run[3:-1], "run3", *fast, "--stage", "1"]) == 0
    assert "is not known" in capsys.readouterr().err
    write_data(
        "others",
        {
            name: SplitData(
                responses=data.responses(name),
                stimulus=data.stimulus(name),
                images=list(255 - data.images(name)),
                captions=[["x"]] * data.n_stimuli(name),
            )
            for name in ("train", "test")
        },
        subject="someone",
        rois={"V1": (0, 20)},
    )
    assert reconstruct.main([*run[:2], "others", *run[3:-1], "run4", *fast, "--stage", "1"]) == 2
    assert "none of the 12 trials showed a picture of the clusters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--held-out", "0.5"], "--held-out belong to --split clusters"),
        (["--split", "clusters", "--allow-leak", "neighbours"], "leave one of them out"),
        (["--split", "clusters", "--n-clusters", "100"], "at most half as many"),
        (["--split", "random"], "random"),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], said: str, tmp_path: Path, small_world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_subject(tmp_path / "data")
    line = ["fit", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--models", str(small_world), *options]
    assert train.main(line) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("edit", [{"pictures": ["x"]}, {"kind": "random"}, {"held_out": []}, {"n_clusters": "4"}])
def test_a_damaged_split_is_one_sentence(small_checkpoint: Path, tmp_path: Path, edit: dict[str, Any]) -> None:
    import shutil

    folder = tmp_path / "checkpoint"
    shutil.copytree(small_checkpoint, folder)
    content = json.loads((folder / "checkpoint.json").read_text())
    good = {"kind": "clusters", "n_clusters": 4, "held_out": [1], "share": 0.2, "seed": 0, "pictures": ["a" * 64]}
    (folder / "checkpoint.json").write_text(json.dumps({**content, "split": good}))
    assert open_checkpoint(folder).split is not None
    (folder / "checkpoint.json").write_text(json.dumps({**content, "split": {**good, **edit}}))
    with pytest.raises(FileError, match="split"):
        open_checkpoint(folder)
