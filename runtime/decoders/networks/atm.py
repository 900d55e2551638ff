"""`atm`: attention among channels, NICE's convolutions and a projection head; Li et al. 2024 (NeurIPS), EEG and MEG.

ATM-S as published (dongyangli-del/EEG_Image_decode), without what never acts there. Of a checkpoint's one subject there
is one token, which the channels attend to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import InputError
from .settings import WIDEST, check_flag, check_length, check_share, check_whole, sensor_axes

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Config:
    """The architecture's settings, as they stand in checkpoint.json.

    Attributes
    ----------
    heads : int
        Of the attention.
    feed_forward : int
        Width of the feed-forward network after the attention.
    attention_dropout : float
        Share that is dropped in training among the channels' tokens and in the attention.
    filters, kernel, pool, stride, dropout, embedding
        Of the convolutions and the head; see :class:`.nice.Config`.
    reference : bool
        The published form: of the subject's token and the channels it keeps the first n_channels, that is the token
        and all channels but the last (Retrieval/ATMS_retrieval.py, with which the published numbers were made), and it
        holds weights that never act: a linear map and an embedding for each of `n_subjects`, a time embedding, two
        mask tokens and the logit scale. The subject's token is then the one that is shared by all unknown subjects.
    n_subjects : int
        Of the published form alone: 2 in its latest version, 10 before.
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

    def __post_init__(self) -> None:
        check_whole(WIDEST, heads=self.heads, feed_forward=self.feed_forward, n_subjects=self.n_subjects)
        check_whole(WIDEST, filters=self.filters, kernel=self.kernel, pool=self.pool, stride=self.stride)
        if self.embedding is not None:
            check_whole(WIDEST, embedding=self.embedding)
        check_share(dropout=self.dropout, attention_dropout=self.attention_dropout)
        check_flag(reference=self.reference)
        if self.n_subjects != 2 and not self.reference:
            raise InputError(f"n_subjects is {self.n_subjects}, and only the reference form has subjects: leave it out")


def build(config: Config, response_shape: tuple[int, ...], n_outputs: Mapping[str, int]) -> nn.Module:
    """Make the network with fresh weights, from PyTorch's own random numbers; see :func:`..network.build_network`.

    Raises
    ------
    InputError
        The responses are fMRI or too short, or a feature is too wide for a head without `embedding`.
    """
    _check_shape(config, response_shape)
    import torch
    from torch import nn
    from torch.nn import functional

    from .layers import EncoderLayer, Heads, TemporalSpatialConv

    n_channels, n_times = response_shape

    class Atm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(n_times, n_times)  # of each channel's time course, the same for all channels
            self.subject = nn.Parameter(torch.randn(1, 1, n_times))
            self.dropout = nn.Dropout(config.attention_dropout)
            self.encoder = EncoderLayer(
                n_times, config.heads, config.feed_forward, config.attention_dropout, norm_first=False
            )
            self.norm = nn.LayerNorm(n_times)
            self.trunk = TemporalSpatialConv(
                n_channels,
                n_times,
                filters=config.filters,
                kernel=config.kernel,
                pool=config.pool,
                stride=config.stride,
                dropout=config.dropout,
            )
            self.heads = Heads("atm", self.trunk.n_features, n_outputs, config.embedding, config.dropout)
            if config.reference:
                self.unused = _unused(config.n_subjects, n_times)

        def forward(self, scores: Tensor) -> tuple[Tensor, ...]:
            channels = self.embed(scores)
            # The subject's token comes before the channels'; padded, it needs no copy for each trial.
            subject = functional.pad(self.subject, (0, 0, 0, n_channels))
            tokens = functional.pad(channels, (0, 0, 1, 0)) + subject
            tokens = self.norm(self.encoder(self.dropout(tokens)))
            kept = tokens[:, :n_channels] if config.reference else tokens[:, 1:]
            found: tuple[Tensor, ...] = self.heads(self.trunk(kept))
            return found

    return Atm()


def _check_shape(config: Config, response_shape: tuple[int, ...]) -> None:
    """Refuse all but (n_channels, n_times) with samples enough for kernel, pooling and heads."""
    _, n_times = sensor_axes("atm", response_shape)
    check_length("atm", n_times, max(config.kernel + config.pool - 1, config.heads))


def _unused(n_subjects: int, n_times: int) -> nn.Module:
    """The weights that the published form has and that never act."""
    import math

    import torch
    from torch import nn

    module = nn.Module()
    module.subject_linear = nn.ModuleList(nn.Linear(n_times, n_times) for _ in range(n_subjects))
    module.subject_embedding = nn.Embedding(n_subjects, n_times)
    module.time = nn.Linear(4, n_times, bias=False)
    module.masks = nn.ParameterList(torch.randn(1, n_times) for _ in range(2))
    module.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    return module
