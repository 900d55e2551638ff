"""What engines are verified on: disjoint training trials, and what real runs of both stages give each graph."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.export.graphs import NETWORK_GRAPHS
from minddiffuser.export.graphs.base import network_graph
from minddiffuser.export.verify import material
from minddiffuser.export.verify.material import STEPS, random_feeds, reference_guided, reference_run, trials_for
from minddiffuser.export.verify.pictures import GUIDED, guided_pictures
from minddiffuser.runtime.backends.reference import TorchEngine
from minddiffuser.runtime.bundle.graph_specs import BATCH
from minddiffuser.runtime.data.folder import SplitData, open_data, write_data
from minddiffuser.runtime.data.references import refer
from minddiffuser.runtime.decoders.checkpoint import Checkpoint, open_checkpoint
from minddiffuser.runtime.decoders.screen import screen
from minddiffuser.runtime.engines.base import check_feeds
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.generators.diffusion import DiffusionGenerator
from minddiffuser.runtime.generators.engines import EngineGenerator
from minddiffuser.runtime.images import to_float
from minddiffuser.runtime.models.open import load_models
from minddiffuser.runtime.refine.engines import structural
from minddiffuser.runtime.sampling import Sampling

N_VOXELS, N_TRAIN = 24, 12


@pytest.fixture(scope="module")
def checkpoint(small_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(small_checkpoint)


@pytest.fixture(scope="module")
def models(small_world: Path) -> Any:
    return load_models(str(small_world))


def noise_of_row(row: int, shape: tuple[int, ...]) -> np.ndarray:
    """As the parity pictures of every release were made: bundles keep these pictures, not their noise."""
    return np.random.default_rng([42, row]).standard_normal(shape, dtype=np.float32)


def write_folder(
    folder: Path,
    *,
    n_voxels: int = N_VOXELS,
    size: int = 32,
    subject: str = "someone",
    scale: float = 1,
    rois: dict[str, tuple[int, int]] | None = None,
    rows: np.ndarray | None = None,
) -> Path:
    """Every trial with its own number in its first voxel, and a picture of its own; `rows` are the training trials."""
    rng = np.random.default_rng(2)

    def split(n: int, start: int) -> SplitData:
        responses = rng.standard_normal((n, n_voxels), dtype=np.float32)
        responses[:, 0] = start + np.arange(n)
        responses *= scale
        if rows is not None and n == N_TRAIN:
            responses = rows
        return SplitData(
            responses=responses,
            stimulus=np.arange(n)[::-1].copy(),
            images=rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8),
            captions=[["a picture"]] * n,
            noise_ceiling=None,
        )

    splits = {"train": split(N_TRAIN, 0), "test": split(4, 1000)}
    write_data(folder, splits, subject=subject, rois=rois or {"V1": (0, n_voxels)})
    return folder


def test_trials_of_a_folder_are_training_trials_and_disjoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data")
    verify, calibrate = trials_for(checkpoint, folder, (3, 4))
    numbers = [part.responses[:, 0].astype(int).tolist() for part in (verify, calibrate)]
    assert (len(verify), len(calibrate)) == (3, 4)
    assert len(set(sum(numbers, []))) == 7
    assert max(sum(numbers, [])) == N_TRAIN - 1  # spread over the whole split, none of it the test's
    data = open_data(folder)
    for part in (verify, calibrate):
        assert part.origin == "training trials"
        np.testing.assert_array_equal(part.decoded.latent, checkpoint.decode(part.responses).latent)
        assert part.stimuli is not None
        for picture, trial in zip(part.stimuli, part.responses[:, 0].astype(int), strict=True):
            stimulus = N_TRAIN - 1 - trial
            np.testing.assert_array_equal(picture, to_float(data.images("train", stimulus, stimulus + 1))[0])


def test_pictures_of_another_size_are_not_compared_with(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (part,) = trials_for(checkpoint, write_folder(tmp_path / "data", size=16), (2,))
    assert part.stimuli is None


def test_without_a_folder_responses_are_drawn_from_the_statistics(checkpoint: Checkpoint) -> None:
    first, second = trials_for(checkpoint, None, (400, 2))
    again, _ = trials_for(checkpoint, None, (400, 2))
    np.testing.assert_array_equal(first.responses, again.responses)
    mean, std = checkpoint.statistics
    scores = (first.responses - mean) / std
    assert np.abs(scores.mean(0)).max() < 0.25
    assert np.abs(scores.std(0) - 1).max() < 0.15
    assert not (first.responses[:2] == second.responses).any()
    assert (first.stimuli, first.origin) == (None, "drawn from the training statistics")


def test_another_data_folder_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it was fitted on 24 voxels, these have 7; give the same subject"):
        trials_for(checkpoint, write_folder(tmp_path / "other", n_voxels=7), (2,))
    with pytest.raises(InputError, match="has 12 training trials, 13 are needed: leave --data out"):
        trials_for(checkpoint, write_folder(tmp_path / "few"), (9, 4))
    assert len(trials_for(checkpoint, tmp_path / "few", (8, 4))) == 2


@pytest.mark.parametrize("name", NETWORK_GRAPHS)
def test_random_inputs_fit_every_graph(name: str, models: Any, checkpoint: Checkpoint) -> None:
    graph = network_graph(name, models, semantic=True)
    feeds = random_feeds(graph, checkpoint, batch=3)
    assert list(feeds) == list(graph.inputs)
    free = check_feeds(name, graph.inputs, feeds)
    assert free == {BATCH: 3}
    again, other = random_feeds(graph, checkpoint, batch=3), random_feeds(graph, checkpoint, batch=3, seed=1)
    first = next(iter(feeds))
    assert all(np.array_equal(again[key], array) for key, array in feeds.items())
    assert not np.array_equal(other[first], feeds[first])
    if "mask" in feeds:
        np.testing.assert_array_equal(feeds["mask"], checkpoint.mask)
        np.testing.assert_allclose(feeds["layer_weights"].sum(1), 1, rtol=1e-6)
    if "uncond_context" in feeds:
        np.testing.assert_array_equal(feeds["uncond_context"], checkpoint.uncond_context)
    if "image" in feeds:
        assert feeds["image"].min() >= 0
        assert feeds["image"].max() <= 1


@pytest.mark.parametrize("backprop_steps", [None, 2])
def test_the_reference_is_stage_1_and_what_each_graph_was_given(
    models: Any, checkpoint: Checkpoint, backprop_steps: int | None
) -> None:
    (trials,) = trials_for(checkpoint, None, (2,))
    graphs = [network_graph(name, models, semantic=False) for name in NETWORK_GRAPHS]
    engines: Any = {graph.name: TorchEngine(graph.name, models, graph.inputs, graph.outputs) for graph in graphs}
    found = reference_run(checkpoint, models, engines, trials, semantic=False, backprop_steps=backprop_steps)
    decoded = trials.decoded
    generator = DiffusionGenerator(
        models,
        torch.from_numpy(decoded.latent),
        torch.from_numpy(decoded.context),
        torch.from_numpy(checkpoint.uncond_context),
        torch.from_numpy(np.stack([noise_of_row(row, models.latent_shape) for row in range(2)])),
    )
    with torch.no_grad():
        expected = generator.stage1().numpy()
    np.testing.assert_allclose(found.stage1, expected, rtol=0, atol=2e-5)
    assert set(found.feeds) == set(NETWORK_GRAPHS)
    for graph in graphs:
        for feeds in found.feeds[graph.name]:
            assert check_feeds(graph.name, graph.inputs, feeds) == {BATCH: 2}
            assert all(array.dtype == np.float32 for array in feeds.values())
    times = [float(feeds["step"][0]) for feeds in found.feeds["denoise"]]
    assert times == sorted(times, reverse=True)
    assert len(times) == len(STEPS)
    assert len(found.feeds["denoise_gradient"]) == (len(STEPS) if backprop_steps is None else backprop_steps)
    np.testing.assert_array_equal(found.feeds["clip_structure"][0]["image"], found.stage1)
    np.testing.assert_array_equal(
        found.feeds["vae_decode"][0]["latent"], found.feeds["structure_gradient"][0]["latent"]
    )
    for feeds in found.feeds["denoise_gradient"]:
        assert np.abs(feeds["next_gradient"]).max() > 0


def test_the_guided_reference_is_what_engines_without_any_export_give(models: Any, checkpoint: Checkpoint) -> None:
    """By autograd, and by the engines' way over the same networks; guidance is seen, and so is a trial's own target."""
    (trials,) = trials_for(checkpoint, None, (2,))
    graphs = [network_graph(name, models, semantic=False) for name in NETWORK_GRAPHS]
    engines: Any = {graph.name: TorchEngine(graph.name, models, graph.inputs, graph.outputs) for graph in graphs}
    decoded, noise = trials.decoded, np.stack([noise_of_row(row, models.latent_shape) for row in range(2)])
    start = (decoded.latent, decoded.context, checkpoint.uncond_context, noise)
    sampler = EngineGenerator(engines, models, *start, sampling=GUIDED.sampling(Sampling()))

    def loss(x0: Any, target: Any, weights: Any) -> Any:
        return structural(engines["structure_gradient"], x0, target, weights, largest_batch=None)

    found = reference_guided(checkpoint, models, trials)
    by_engines = guided_pictures(sampler, loss, noise, decoded.structure, checkpoint.mask)
    np.testing.assert_allclose(by_engines, found, rtol=0, atol=1e-4)
    other = guided_pictures(sampler, loss, noise, decoded.structure[::-1], checkpoint.mask)
    assert np.abs(other - found).max((1, 2, 3)).min() > 1e-2


def test_the_guided_pass_is_that_of_every_release() -> None:
    """A bundle keeps its pictures alone: other settings, also from a default, would make every older one fail."""
    acts = {
        "layer_weights": "uniform",
        "loss_mean": "kept",
        "semantic_weight": 0.0,
        "start_steps": 0,
        "finish_steps": 0,
        "step_size": 0.1,
        "guided_share": 0.75,
        "candidates": 1,
        "n_steps": 8,
        "strength": 0.5,
        "jacobian": True,
    }
    assert acts.items() <= GUIDED.as_dict().items()
    grid = GUIDED.sampling(Sampling())
    assert (grid.n_reverse, grid.guidance_scale, GUIDED.n_guided(Sampling())) == (4, 5.0, 3)


def test_a_folder_of_another_subject_order_or_unit_is_refused(small_checkpoint: Path, tmp_path: Path) -> None:
    rois = {"V1": (0, 10), "LO": (10, N_VOXELS)}
    own = copy_with_rois(small_checkpoint, tmp_path / "checkpoint", rois)
    assert len(trials_for(own, write_folder(tmp_path / "good", rois=rois), (2,))[0]) == 2
    wrong = {
        "subject 'someone', the responses are of 'else'": {"subject": "else", "rois": rois},
        "roi 'V1' is voxels 0 to 10 there and voxels 14 to 24 here": {"rois": {"LO": (0, 14), "V1": (14, N_VOXELS)}},
        "not on the scale of the training responses": {"rois": rois, "scale": 300},
    }
    for number, (reported, changes) in enumerate(wrong.items()):
        with pytest.raises(InputError, match=reported):
            trials_for(own, write_folder(tmp_path / str(number), **changes), (2,))


def test_trials_that_a_run_would_skip_are_not_used(small_checkpoint: Path, tmp_path: Path) -> None:
    """And what is odd about the others is handed on."""
    checkpoint = open_checkpoint(small_checkpoint)
    mean, std = checkpoint.statistics
    rows = mean + std * np.random.default_rng(3).standard_normal((N_TRAIN, N_VOXELS), dtype=np.float32)
    rows[[0, 6, 11]] *= 1e6  # artefacts, the first and the last among them
    rows[3, 2] = mean[2] + 1e6 * std[2]  # a spike
    folder = write_folder(tmp_path / "data", rows=rows)
    (part,) = trials_for(checkpoint, folder, (9,))
    assert np.abs((part.responses - mean) / std).max() < 10
    assert part.stimuli is not None
    assert any("hold values more than" in warning for warning in part.warnings)
    with pytest.raises(InputError, match=r"has 9 training trials that can be used, 10 are needed .trial 0: 24 of 24"):
        trials_for(checkpoint, folder, (10,))


def test_only_some_trials_of_a_large_split_are_looked_at(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(rows: Any, training: Any) -> Any:
        asked.append(len(rows))
        return screen(rows, training)

    monkeypatch.setattr(material, "SCREENED", 5)
    monkeypatch.setattr(material, "screen", counted)
    trials_for(checkpoint, write_folder(tmp_path / "data"), (2,))
    assert asked == [7]


def copy_with_rois(checkpoint: Path, folder: Path, rois: dict[str, tuple[int, int]]) -> Checkpoint:
    shutil.copytree(checkpoint, folder)
    path = folder / "checkpoint.json"
    content = json.loads(path.read_text())
    content["layout"]["rois"] = {name: list(span) for name, span in rois.items()}
    path.write_text(json.dumps(content))
    return open_checkpoint(folder)


def test_pictures_that_lie_elsewhere_are_found_under_another_root(checkpoint: Checkpoint, tmp_path: Path) -> None:
    plain = write_folder(tmp_path / "plain")
    pictures, splits = tmp_path / "pictures", {}
    for name in ("train", "test"):
        data = open_data(plain)
        shutil.copytree(plain / "stimuli" / name, pictures / name)
        splits[name] = SplitData(
            responses=data.responses(name),
            stimulus=data.stimulus(name),
            images=[refer(pictures, f"{name}/{path.name}") for path in sorted((pictures / name).iterdir())],
            captions=data.captions(name),
        )
    write_data(tmp_path / "named", splits, subject="someone", rois={"V1": (0, N_VOXELS)}, image_size=32)
    pictures.rename(tmp_path / "moved")
    with pytest.raises(FileError, match="pictures"):
        trials_for(checkpoint, tmp_path / "named", (3,))
    (expected,) = trials_for(checkpoint, plain, (3,))
    (found,) = trials_for(checkpoint, tmp_path / "named", (3,), stimuli_root=tmp_path / "moved")
    np.testing.assert_array_equal(found.stimuli, expected.stimuli)
    np.testing.assert_array_equal(found.responses, expected.responses)
    with pytest.raises(InputError, match=r"moved is for the pictures of a data folder: give --data too"):
        trials_for(checkpoint, None, (3,), stimuli_root=tmp_path / "moved")
