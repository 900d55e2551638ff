"""What a network is trained on: mean squared error of z-scores, and the contrastive loss of CLIP beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

# CLIP's: the scale begins at 1 / 0.07, and does not exceed 100 (Radford et al. 2021, section 2.5).
FIRST_LOG_SCALE, _LARGEST_LOG_SCALE = math.log(1 / 0.07), math.log(100.0)
# The next number of float32 below it: at the bound itself, clamping leaves no gradient.
_BACK_INSIDE = float(np.nextafter(np.float32(_LARGEST_LOG_SCALE), np.float32(0.0)))


def info_nce(found: Tensor, wanted: Tensor, same: Tensor, log_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE: each prediction names its own target among the batch's, and each target its prediction.

    The mean of the cross-entropies along both axes of ``exp(log_scale) * cosine(found, wanted)``. Trials of the same
    picture have the same target, so that each counts in equal shares; where all pictures differ, this is CLIP's loss.

    Parameters
    ----------
    found, wanted : (n, d) float32
        Predictions and targets.
    same : (n, n) bool
        Whether two trials showed the same picture.
    log_scale : () float32
        At most log 100.
    """
    import torch.nn.functional as F

    cosine = F.normalize(found, dim=-1) @ F.normalize(wanted, dim=-1).T
    logits = log_scale.clamp(max=_LARGEST_LOG_SCALE).exp() * cosine
    share = same.float() / same.float().sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, share) + F.cross_entropy(logits.T, share)) / 2


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss of all features of one network: the mean over features of (1 - w) MSE + w InfoNCE.

    Attributes
    ----------
    contrastive : feature to w
        In the order of the network's outputs.
    log_scale : feature to () float32
        Of those whose w is above 0.
    """

    contrastive: Mapping[str, float]
    log_scale: Mapping[str, Tensor]

    def terms(self, found: tuple[Tensor, ...], wanted: Mapping[str, Tensor], pictures: Tensor) -> dict[str, Tensor]:
        """The parts of the loss of a batch: feature to its mean squared error, and "<feature>.contrastive".

        Parameters
        ----------
        found : one (n, n_targets) for each feature
        wanted : feature to (n, n_targets) float32
        pictures : (n,) int64
        """
        terms: dict[str, Tensor] = {}
        for output, (feature, weight) in zip(found, self.contrastive.items(), strict=True):
            output = output.float()  # mixed precision ends here
            terms[feature] = (output - wanted[feature]).square().mean()
            if weight > 0:
                same = pictures[:, None] == pictures[None, :]
                terms[f"{feature}.{CONTRASTIVE}"] = info_nce(output, wanted[feature], same, self.log_scale[feature])
        return terms

    def limit(self) -> None:
        """Bring the scales back inside their bound, after a step of the optimiser.

        What lies beyond it has no gradient, and would stay there.
        """
        for scale in self.log_scale.values():
            scale.data.clamp_(max=_BACK_INSIDE)

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The loss of which `terms` are the parts."""
        import torch

        parts = []
        for feature, weight in self.contrastive.items():
            part = (1 - weight) * terms[feature]
            parts.append(part + weight * terms[f"{feature}.{CONTRASTIVE}"] if weight > 0 else part)
        return torch.stack(parts).mean()


CONTRASTIVE = "contrastive"
