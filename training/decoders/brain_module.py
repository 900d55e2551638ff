"""The brain module, Benchetrit et al. 2024 (ICLR): Adam, 3e-4, patience 10; batches of 128 are ours.

The loss of a semantic feature is 0.75 contrastive and 0.25 squared error. Sensors are merged by where they lie, so it
takes recordings whose channels have positions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from ...runtime.data.layout import ResponseLayout
from ...runtime.errors import InputError
from .embeddings import loss_of
from .network import NetworkFitter

_MOST_NAMED = 6


@dataclass(frozen=True, kw_only=True)
class BrainModule(NetworkFitter):
    """Brain module settings of one feature; how it is trained: see :class:`~.network.NetworkFitter`.

    Attributes
    ----------
    positions
        Of the channels, (x, y, z); from the data's layout, whatever is given.
    virtual_channels, frequencies, hidden, depth, kernel, backbone, spatial_dropout
        Of the architecture; see :class:`minddiffuser.runtime.decoders.networks.brain_module.Config`.
    """

    positions: tuple[tuple[float, float, float], ...] = ()
    virtual_channels: int = 270
    frequencies: int = 10
    hidden: int = 320
    depth: int = 4
    kernel: int = 3
    backbone: int = 512
    spatial_dropout: float = 0.2

    weight_decay: float = 0.0
    batch_size: int = 128
    patience: int = 10

    fitter: ClassVar[str] = "brain_module"
    architecture: ClassVar[str] = "brain_module"
    modalities: ClassVar[tuple[str, ...]] = ("eeg", "meg")

    @classmethod
    def for_feature(cls, feature: str, **options: Any) -> Self:
        """The same settings for every feature, but for the loss of an embedding."""
        return cls(**{**loss_of(feature, 0.75), **options})

    def with_layout(self, layout: ResponseLayout) -> Self:
        """Itself with the positions of the layout's channels.

        Raises
        ------
        InputError
            A channel has none.
        """
        channels = layout.channels or ()
        lacking = [channel.name for channel in channels if channel.position is None]
        if lacking:
            named = ", ".join(lacking[:_MOST_NAMED]) + (", …" if len(lacking) > _MOST_NAMED else "")
            raise InputError(
                f"decoder {self.fitter!r} merges channels by their positions, and {len(lacking)} of {len(channels)} "
                f"have none ({named}): give positions in data.json, or another --decoder"
            )
        return replace(self, positions=tuple(channel.position for channel in channels if channel.position is not None))
