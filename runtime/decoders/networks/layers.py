"""Layers that several architectures share; PyTorch is loaded with this file, so it is imported inside `build` alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from .settings import check_projected

# A head as wide as its feature has 2^24 weights at this width.
_WIDEST_HEAD = 4096


class SelfAttention(nn.Module):
    """Softmax attention of tokens (n, n_tokens, width) to one another, several heads, Vaswani et al. 2017, eq. 1.

    A head has ``width // heads`` dimensions, so that all together they may have fewer than the tokens.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        inner = heads * self.head_width
        self.query, self.key, self.value = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        n_tokens = tokens.shape[1]
        split = (-1, n_tokens, self.heads, self.head_width)
        query, key, value = (part(tokens).reshape(split).transpose(1, 2) for part in (self.query, self.key, self.value))
        weights = (query @ key.transpose(2, 3) * self.head_width**-0.5).softmax(-1)
        mixed = self.dropout(weights) @ value
        found: Tensor = self.out(mixed.transpose(1, 2).reshape(-1, n_tokens, self.heads * self.head_width))
        return found


class EncoderLayer(nn.Module):
    """Attention and a feed-forward network with GELU, each added to what it read.

    `norm_first` normalises what each of the two reads (Xiong et al. 2020), else what the addition gives (Vaswani et al.
    2017).
    """

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float, *, norm_first: bool) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.attention = SelfAttention(width, heads, dropout)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, feed_forward), nn.GELU(), nn.Dropout(dropout), nn.Linear(feed_forward, width)
        )
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        if self.norm_first:
            tokens = tokens + self.dropout(self.attention(self.norm_1(tokens)))
            tokens = tokens + self.dropout(self.feed_forward(self.norm_2(tokens)))
            return tokens
        tokens = self.norm_1(tokens + self.dropout(self.attention(tokens)))
        normed: Tensor = self.norm_2(tokens + self.dropout(self.feed_forward(tokens)))
        return normed


class TemporalSpatialConv(nn.Module):
    """NICE's TSConv (Song et al. 2024, table 1): (n, n_channels, n_times) to `n_features` values a trial.

    A convolution in time, average pooling, one over all channels, and one of size 1; 40 filters each in the paper.
    The order of the values is the published code's, time before filter.
    """

    def __init__(
        self, n_channels: int, n_times: int, *, filters: int, kernel: int, pool: int, stride: int, dropout: float
    ) -> None:
        super().__init__()
        self.temporal = nn.Conv2d(1, filters, (1, kernel))
        self.pool = nn.AvgPool2d((1, pool), (1, stride))
        self.norm_1 = nn.BatchNorm2d(filters)
        self.spatial = nn.Conv2d(filters, filters, (n_channels, 1))
        self.norm_2 = nn.BatchNorm2d(filters)
        self.dropout = nn.Dropout(dropout)
        self.point = nn.Conv2d(filters, filters, 1)
        self.n_features = filters * ((n_times - kernel + 1 - pool) // stride + 1)

    def forward(self, signals: Tensor) -> Tensor:
        found = functional.elu(self.norm_1(self.pool(self.temporal(signals.unsqueeze(1)))))
        found = self.dropout(functional.elu(self.norm_2(self.spatial(found))))
        return self.point(found).squeeze(2).transpose(1, 2).flatten(1)


class ProjectionHead(nn.Sequential):
    """A linear map, a residual one behind GELU, and LayerNorm: the head of NICE and ATM."""

    def __init__(self, n_features: int, n_outputs: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(n_features, n_outputs),
            _Residual(nn.Sequential(nn.GELU(), nn.Linear(n_outputs, n_outputs), nn.Dropout(dropout))),
            nn.LayerNorm(n_outputs),
        )


class _Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, values: Tensor) -> Tensor:
        changed: Tensor = self.inner(values)
        return values + changed


class Heads(nn.Module):
    """Values (n, n_features) to each feature, in order.

    Without `embedding` each feature has the papers' projection head, which is then the feature. With it there is one
    projection head of that width, and from it a linear map to each feature: LayerNorm fixes the length of what it
    gives, which a contrastive loss does not see and a regression does, and a head as wide as the feature has its
    width's square of weights.
    """

    def __init__(
        self, name: str, n_features: int, n_outputs: Mapping[str, int], embedding: int | None, dropout: float
    ) -> None:
        super().__init__()
        self.embed: nn.Module = nn.Identity()
        if embedding is None:
            check_projected(name, n_outputs, _WIDEST_HEAD)
            heads: list[nn.Module] = [ProjectionHead(n_features, n, dropout) for n in n_outputs.values()]
        else:
            self.embed = ProjectionHead(n_features, embedding, dropout)
            heads = [nn.Linear(embedding, n) for n in n_outputs.values()]
        self.heads = nn.ModuleList(heads)

    def forward(self, values: Tensor) -> tuple[Tensor, ...]:
        embedded = self.embed(values)
        return tuple(head(embedded) for head in self.heads)


def draw_normal(module: nn.Module, deviation: float = 0.02) -> None:
    """Draw the weights of convolutions and linear maps from N(0, deviation²), of BatchNorm from N(1, deviation²)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.normal_(part.weight, 0.0, deviation)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, deviation)


def fresh(*shape: int, deviation: float = 0.02) -> nn.Parameter:
    """A parameter drawn from N(0, deviation²)."""
    return nn.Parameter(deviation * torch.randn(*shape))
