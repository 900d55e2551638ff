"""NICE, Song et al. 2024 (ICLR), as its published code trains it: Adam, 2e-4, batches of 1,000, 200 epochs.

The best epoch by the validation loss is kept, as there. Its loss is contrastive alone, which leaves the length of an
embedding open; here a hundredth is squared error, which sets it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from .embeddings import head_of, loss_of
from .network import NetworkFitter


@dataclass(frozen=True, kw_only=True)
class Nice(NetworkFitter):
    """NICE settings of one feature; how it is trained: see :class:`~.network.NetworkFitter`.

    Attributes
    ----------
    filters, kernel, pool, stride, dropout, embedding
        Of the architecture; see :class:`minddiffuser.runtime.decoders.networks.nice.Config`. The embedding is 1,024
        wide for a context, latent or structure; a semantic feature is the embedding itself, as in the paper.
    """

    filters: int = 40
    kernel: int = 25
    pool: int = 51
    stride: int = 5
    dropout: float = 0.5
    embedding: int | None = None

    learning_rate: float = 2e-4
    weight_decay: float = 0.0
    batch_size: int = 1000

    fitter: ClassVar[str] = "nice"
    architecture: ClassVar[str] = "nice"
    modalities: ClassVar[tuple[str, ...]] = ("eeg", "meg")

    @classmethod
    def for_feature(cls, feature: str, **options: Any) -> Self:
        """The paper's settings of an embedding; other features are fitted by squared error, from one of 1,024."""
        return cls(**{**head_of(feature), **loss_of(feature, 0.99), **options})
