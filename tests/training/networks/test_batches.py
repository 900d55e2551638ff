"""Batches are the same trials whether they are held in memory or read when they are needed."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from minddiffuser.training.decoders.mlp import Mlp  # noqa: E402
from minddiffuser.training.networks import batches  # noqa: E402
from minddiffuser.training.networks.batches import open_batches, split  # noqa: E402
from minddiffuser.training.normalise import TargetColumns, ZScored, fit_normaliser  # noqa: E402


def world(rng: np.random.Generator) -> tuple[ZScored, TargetColumns, np.ndarray]:
    """30 trials of 15 pictures, 3 x 4 values; 5 of 9 dimensions are targets."""
    stimulus = rng.permutation(np.tile(np.arange(15), 2))
    responses = (7 + 3 * rng.standard_normal((30, 3, 4))).astype(np.float32)
    features = rng.standard_normal((15, 9)).astype(np.float32)
    targets = TargetColumns(features, stimulus, np.array([0, 2, 3, 7, 8]))
    return ZScored(responses, fit_normaliser(responses)), targets, stimulus


def test_what_is_read_by_the_batch_is_what_is_held(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    responses, targets, pictures = world(rng)
    held = open_batches(responses, {"latent": targets}, pictures, torch.device("cpu"))
    monkeypatch.setattr(batches, "HELD_VALUES", 10)
    read = open_batches(responses, {"latent": targets}, pictures, torch.device("cpu"))
    assert isinstance(held.responses, torch.Tensor)
    assert isinstance(held.targets["latent"], torch.Tensor)
    assert not isinstance(read.responses, torch.Tensor)
    assert not isinstance(read.targets["latent"], torch.Tensor)
    rows = torch.tensor([4, 29, 0, 4])
    for (x, wanted, shown), (x2, wanted2, shown2) in [(held.read(rows), read.read(rows))]:
        assert (x.shape, x.dtype, wanted["latent"].shape) == ((4, 3, 4), torch.float32, (4, 5))
        assert torch.equal(x, x2)
        assert torch.equal(wanted["latent"], wanted2["latent"])
        assert torch.equal(shown, shown2)
        np.testing.assert_array_equal(shown.numpy(), pictures[rows.numpy()])
        np.testing.assert_allclose(wanted["latent"].numpy(), targets.columns(0, 5)[rows.numpy()], rtol=1e-6)


def test_a_training_whose_arrays_are_too_large_gives_the_same(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    responses, targets, pictures = world(rng)
    fitter = Mlp(hidden=8, depth=1, epochs=3, batch_size=7)

    def weights() -> dict[str, np.ndarray]:
        fitted = fitter.fit_together({"latent": fitter}, responses, {"latent": targets}, pictures=pictures)
        return fitted.arrays()

    held = weights()
    monkeypatch.setattr(batches, "HELD_VALUES", 10)
    for name, array in weights().items():
        np.testing.assert_array_equal(array, held[name], err_msg=name)


def test_no_batch_is_one_trial_alone() -> None:
    assert [len(part) for part in split(torch.arange(9), 4)] == [4, 5]
    assert [len(part) for part in split(torch.arange(10), 4)] == [4, 4, 2]
    assert [len(part) for part in split(torch.arange(1), 4)] == [1]
    assert torch.equal(torch.cat(split(torch.arange(9), 4)), torch.arange(9))
