"""The best-decoded dimensions of each layer, and fewer of them than a checkpoint keeps."""

from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.decoders.best import best_per_layer
from minddiffuser.runtime.decoders.checkpoint import open_checkpoint
from minddiffuser.runtime.errors import InputError


def test_as_many_of_each_layer_as_asked_for(rng: np.random.Generator) -> None:
    score = rng.standard_normal((3, 4, 5)).astype(np.float32)
    mask = best_per_layer(score, 30)
    assert mask.reshape(3, -1).sum(axis=1).tolist() == [6, 6, 6]
    for layer, kept in zip(score, mask, strict=True):
        assert layer[kept].min() > layer[~kept].max()
    assert best_per_layer(score, 0.01).sum() == 3


def test_a_checkpoint_trusts_less_than_it_keeps_and_never_more(small_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(small_checkpoint)
    kept = checkpoint.mask
    # As a fit makes it: what is kept has the highest scores.
    checkpoint.score = np.where(kept, 1 + np.arange(kept.size).reshape(kept.shape) / kept.size, 0).astype(np.float32)
    share = 100 * kept.reshape(len(kept), -1).mean(axis=1).min()
    checkpoint.trust(share / 2)
    assert checkpoint.mask.any()
    assert not (checkpoint.mask & ~kept).any()
    in_layer = kept[0].size
    assert checkpoint.mask.sum() == len(kept) * round(in_layer * share / 200)
    with pytest.raises(InputError, match="was asked for: give at most that"):
        checkpoint.trust(100)
    with pytest.raises(InputError, match="above 0"):
        checkpoint.trust(0)
