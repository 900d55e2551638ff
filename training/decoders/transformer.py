"""Attention among patches of voxels, channels or spans of time: the paper's "3-layer Transformer".

The paper says no more about it (table 7); its sizes and its training are this project's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .network import NetworkFitter


@dataclass(frozen=True, kw_only=True)
class Transformer(NetworkFitter):
    """Transformer settings of one feature; how it is trained: see :class:`~.network.NetworkFitter`.

    Attributes
    ----------
    tokens, n_tokens, width, heads, feed_forward, depth, dropout
        Of the architecture; see :class:`minddiffuser.runtime.decoders.networks.transformer.Config`.
    """

    tokens: str | None = None
    n_tokens: int = 32
    width: int = 256
    heads: int = 8
    feed_forward: int = 512
    depth: int = 3
    dropout: float = 0.25

    fitter: ClassVar[str] = "transformer"
    architecture: ClassVar[str] = "transformer"
