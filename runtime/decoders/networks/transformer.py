"""`transformer`: attention among patches of voxels, channels or spans of time, for fMRI, EEG and MEG.

The paper replaces its linear decoders by a "3-layer Transformer" (table 7) and says no more about it: three layers are
its, the rest is this project's. LayerNorm comes first in each layer, which trains without a warm-up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import InputError
from .settings import DEEPEST, WIDEST, check_share, check_whole

if TYPE_CHECKING:
    from torch import Tensor, nn

# What a token may be, by the number of axes; the first of each is the default.
_TOKENS = {1: ("voxels",), 2: ("channels", "times")}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The architecture's settings, as they stand in checkpoint.json.

    Attributes
    ----------
    tokens : str or None
        What a token is: "voxels", a patch of neighbours in the voxel axis, with a map of its own to the tokens' width;
        "channels", a channel's time course; "times", all channels in a span of time. None: voxels of fMRI, channels of
        EEG and MEG.
    n_tokens : int
        Voxels and times: the axis is cut into at most so many patches of one size, the last one filled up with zeros.
    width, heads, feed_forward : int
        Dimensions of a token, heads of the attention, dimensions of the feed-forward networks.
    depth : int
        Layers.
    dropout : float
        Share that is dropped in training.
    """

    tokens: str | None = None
    n_tokens: int = 32
    width: int = 256
    heads: int = 8
    feed_forward: int = 512
    depth: int = 3
    dropout: float = 0.25

    def __post_init__(self) -> None:
        kinds = [kind for some in _TOKENS.values() for kind in some]
        if self.tokens is not None and self.tokens not in kinds:
            raise InputError(f"tokens is {self.tokens!r:.60}, expected one of {', '.join(kinds)}")
        check_whole(WIDEST, n_tokens=self.n_tokens, width=self.width, heads=self.heads, feed_forward=self.feed_forward)
        check_whole(DEEPEST, depth=self.depth)
        check_share(dropout=self.dropout)
        if self.width % self.heads:
            raise InputError(f"a width of {self.width} cannot be shared by {self.heads} heads: give a multiple of it")


def build(config: Config, response_shape: tuple[int, ...], n_outputs: Mapping[str, int]) -> nn.Module:
    """Make the network with fresh weights, from PyTorch's own random numbers; see :func:`..network.build_network`.

    Raises
    ------
    InputError
        The responses have no such tokens.
    """
    _check_shape(config, response_shape)
    from torch import nn

    from .layers import EncoderLayer

    kind = config.tokens or _TOKENS[len(response_shape)][0]

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = _channels(config, *response_shape) if kind == "channels" else _patches(config, response_shape)
            self.dropout = nn.Dropout(config.dropout)
            self.layers = nn.Sequential(
                *(
                    EncoderLayer(config.width, config.heads, config.feed_forward, config.dropout, norm_first=True)
                    for _ in range(config.depth)
                )
            )
            self.norm = nn.LayerNorm(config.width)
            self.heads = nn.ModuleList(nn.Linear(config.width, n) for n in n_outputs.values())

        def forward(self, scores: Tensor) -> tuple[Tensor, ...]:
            tokens = self.layers(self.dropout(self.embed(scores)))
            pooled = self.norm(tokens).mean(dim=1)
            return tuple(head(pooled) for head in self.heads)

    return Transformer()


def _check_shape(config: Config, response_shape: tuple[int, ...]) -> None:
    """Refuse responses that have no tokens of the kind that is asked for."""
    kinds = _TOKENS[len(response_shape)]
    if config.tokens is not None and config.tokens not in kinds:
        raise InputError(
            f"a trial of shape {response_shape} has no tokens of {config.tokens}: give {' or '.join(kinds)}"
        )


def _channels(config: Config, n_channels: int, n_times: int) -> nn.Module:
    """(n, n_channels, n_times) to (n, n_channels, width): one map for all, and what is the channel's own."""
    from torch import nn

    from .layers import fresh

    class Channels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(n_times, config.width)
            self.place = fresh(n_channels, config.width)

        def forward(self, scores: Tensor) -> Tensor:
            mapped: Tensor = self.map(scores)
            return mapped + self.place

    return Channels()


def _patches(config: Config, response_shape: tuple[int, ...]) -> nn.Module:
    """(n, [n_channels,] length) to (n, n_tokens, width), patches of the last axis.

    Patches of time have one map; voxels, which are not alike, a map for each patch.
    """
    from torch import nn
    from torch.nn import functional

    from .layers import fresh

    length = response_shape[-1]
    size = -(-length // config.n_tokens)
    n_tokens = -(-length // size)
    n_values = size * (response_shape[0] if len(response_shape) == 2 else 1)
    of_its_own = len(response_shape) == 1

    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = fresh(*([n_tokens] if of_its_own else []), n_values, config.width, deviation=n_values**-0.5)
            self.place = fresh(n_tokens, config.width)

        def forward(self, scores: Tensor) -> Tensor:
            cut = functional.pad(scores, (0, n_tokens * size - length)).unflatten(-1, (n_tokens, size))
            if of_its_own:
                return (cut.unsqueeze(2) @ self.map).squeeze(2) + self.place
            return cut.transpose(1, 2).flatten(2) @ self.map + self.place

    return Patches()
