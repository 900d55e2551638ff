"""ATM-S, Li et al. 2024 (NeurIPS), as its published code trains it: AdamW, 3e-4, batches of 64, 40 epochs.

A tenth of the loss of a semantic feature is contrastive, as in its training for reconstruction (its training for
retrieval is contrastive alone, with a logit scale that is used without its exponential). Its epoch is chosen on the
test set; here, as everywhere, on held-out training pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from .network import NetworkFitter
from .nice import projected


@dataclass(frozen=True, kw_only=True)
class Atm(NetworkFitter):
    """ATM settings of one feature; how it is trained: see :class:`~.network.NetworkFitter`.

    Attributes
    ----------
    heads, feed_forward, attention_dropout, filters, kernel, pool, stride, dropout, embedding, reference, n_subjects
        Of the architecture; see :class:`minddiffuser.runtime.decoders.networks.atm.Config`. The embedding is 1,024 wide
        for a context, latent or structure; a semantic feature is the embedding itself, as in the paper.
    """

    heads: int = 4
    feed_forward: int = 256
    attention_dropout: float = 0.25
    filters: int = 40
    kernel: int = 25
    pool: int = 51
    stride: int = 5
    dropout: float = 0.5
    embedding: int | None = None
    reference: bool = False
    n_subjects: int = 2

    epochs: int = 40

    fitter: ClassVar[str] = "atm"
    architecture: ClassVar[str] = "atm"
    modalities: ClassVar[tuple[str, ...]] = ("eeg", "meg")

    @classmethod
    def for_feature(cls, feature: str, **options: Any) -> Self:
        """The paper's settings of an embedding; other features are fitted by squared error, from one of 1,024."""
        contrastive = 0.1 if feature == "semantic" else 0.0
        return cls(**{"embedding": projected(feature), "contrastive": contrastive, **options})
