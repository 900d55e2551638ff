"""EEGNet, version 4, as Li et al. 2024 (NeurIPS) train it beside ATM: AdamW, 3e-4, batches of 1,024, 40 epochs.

Their epoch is chosen on the test set; here, as everywhere, on held-out training pictures. A tenth of the loss of a
semantic feature is contrastive, as in ATM's training for reconstruction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from .network import NetworkFitter


@dataclass(frozen=True, kw_only=True)
class EegNet(NetworkFitter):
    """EEGNet settings of one feature; how it is trained: see :class:`~.network.NetworkFitter`.

    Attributes
    ----------
    filters, spatial, pointwise, kernel, separable_kernel, pool_1, pool_2, dropout, max_norm, reference
        Of the architecture; see :class:`minddiffuser.runtime.decoders.networks.eegnet.Config`.
    """

    filters: int = 8
    spatial: int = 20
    pointwise: int = 160
    kernel: int = 4
    separable_kernel: int = 16
    pool_1: int = 4
    pool_2: int = 8
    dropout: float = 0.25
    max_norm: float = 1.0
    reference: bool = False

    epochs: int = 40
    batch_size: int = 1024

    fitter: ClassVar[str] = "eegnet"
    architecture: ClassVar[str] = "eegnet"
    modalities: ClassVar[tuple[str, ...]] = ("eeg", "meg")

    @classmethod
    def for_feature(cls, feature: str, **options: Any) -> Self:
        """The same settings for every feature, but for the loss of an embedding."""
        return cls(**{"contrastive": 0.1 if feature == "semantic" else 0.0, **options})
