"""Clusters of similar pictures: k-means over their CLIP features, and which clusters are held out."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_STARTS = 10


def kmeans(
    places: NDArray[np.floating[Any]], n_clusters: int, rng: np.random.Generator, n_starts: int = N_STARTS
) -> NDArray[np.int32]:
    """The cluster of each place (n, d), (n,) int32: the best of several starts by k-means++ (Arthur, 2007).

    There are fewer clusters where there are fewer different places, and where one of the best start runs empty.
    """
    from scipy.cluster.vq import kmeans2

    n_clusters = min(n_clusters, len(np.unique(places, axis=0)))
    centred = np.asarray(places, np.float64)
    centred = centred - centred.mean(axis=0)
    best, found = np.inf, np.zeros(len(centred), np.int32)
    for _ in range(n_starts):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "One of the clusters is empty")
            centres, labels = kmeans2(centred, n_clusters, minit="++", rng=rng)
        spread = float(((centred - centres[labels]) ** 2).sum())
        if spread < best:
            best, found = spread, labels
    return found


def drawn_clusters(test: NDArray[np.integer[Any]], share: float, rng: np.random.Generator) -> list[int]:
    """Clusters to hold out: drawn one by one until a share of the test pictures lies in them, never all of them.

    Only clusters that hold test pictures are drawn, since nothing would be tested on others.

    Parameters
    ----------
    test : (n,)
        The cluster of each test picture.
    share
        Above 0 and below 1.
    rng
    """
    order = rng.permutation(np.unique(test))
    taken: list[int] = []
    for one in order[:-1]:
        taken.append(int(one))
        if np.isin(test, taken).sum() >= share * len(test):
            break
    return sorted(taken)
