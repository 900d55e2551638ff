"""NICE, Song et al. 2024 (ICLR), as its published code trains it: Adam, 2e-4, batches of 1,000, 200 epochs.

The best epoch by the validation loss is kept, as there. Its loss is contrastive alone, which leaves the length of an
embedding open; here a hundredth is squared error, which sets it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from .network import NetworkFitter

# For features that are no embedding: see `embedding` of the architecture.
EMBEDDING = 1024


def projected(feature: str) -> int | None:
    """The width of the projection head for one feature; of one that is an embedding, the feature's own."""
    return None if feature in ("semantic", "embedding") else EMBEDDING


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
        contrastive = 0.99 if feature == "semantic" else 0.0
        return cls(**{"embedding": projected(feature), "contrastive": contrastive, **options})
