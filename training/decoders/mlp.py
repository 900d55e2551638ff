"""A small network per feature: flattened responses, a few hidden layers, one output per dimension.

Nothing in the papers prescribes it: it is here beside the ridge for responses whose relation to the features is not
linear, and for EEG and MEG, where a trial has many more values than there are trials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .network import NetworkFitter


@dataclass(frozen=True, kw_only=True)
class Mlp(NetworkFitter):
    """MLP settings of one feature; how it is trained: see :class:`~.network.NetworkFitter`.

    Attributes
    ----------
    hidden, depth : int
        Width and number of the hidden layers, each with LayerNorm, GELU and dropout.
    dropout : float
        Share of each hidden layer that is dropped in training.
    """

    hidden: int = 512
    depth: int = 2
    dropout: float = 0.5

    fitter: ClassVar[str] = "mlp"
    architecture: ClassVar[str] = "mlp"
