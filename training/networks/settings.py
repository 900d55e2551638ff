"""How a network is trained, whatever its architecture."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ...runtime.errors import InputError

LOGIT_SCALES = ("learned", "constant")
SCHEDULES = ("constant", "onecycle")
PRECISIONS = ("auto", "float32", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The settings of the one training loop.

    Attributes
    ----------
    learning_rate, weight_decay : float
        Of AdamW; with a schedule the learning rate is its peak.
    schedule : {"constant", "onecycle"}
        How the learning rate goes over all `epochs`: see :mod:`.schedule`.
    epochs : int
        At most so many passes over the trials.
    patience : int
        Training stops after so many epochs without a lower validation loss; the best epoch's weights are kept.
    batch_size : int
        Trials per step, at least 2.
    validation : float
        Share of the training *pictures* whose trials are held out to decide when to stop, at least two pictures.
    contrastive : float
        Weight w of the contrastive term in the loss, (1 - w) MSE + w InfoNCE, from 0 to below 1.
    logit_scale : {"learned", "constant"}
        Whether the contrastive term's logit scale is learned from CLIP's 1 / 0.07, or stays there, as it does in
        published code that leaves it out of the optimiser.
    precision : {"auto", "float32", "bf16", "fp16"}
        What the network computes in on a GPU; "auto" is bf16 where the GPU has it and fp16 elsewhere. Weights are
        float32. A CPU always computes in float32.
    seed : int
        Of the weights, the held-out pictures, the order of trials and the dropout.
    """

    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    schedule: str = "constant"
    epochs: int = 200
    patience: int = 15
    batch_size: int = 64
    validation: float = 0.1
    contrastive: float = 0.0
    logit_scale: str = "learned"
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        # Of one trial, batch normalisation and the contrastive term have nothing to compare.
        for name, fewest in (("epochs", 1), ("patience", 1), ("batch_size", 2)):
            value = getattr(self, name)
            if type(value) is not int or value < fewest:
                raise InputError(f"{name} is {value!r:.60}, expected a whole number of at least {fewest}")
        if type(self.seed) is not int or not 0 <= self.seed < 1 << 63:
            raise InputError(f"seed is {self.seed!r:.60}, expected a whole number from 0 to 2^63 - 1")
        for name, least in (("learning_rate", sys.float_info.min), ("weight_decay", 0.0)):
            value = getattr(self, name)
            if type(value) not in (int, float) or not least <= value <= 1e6:
                raise InputError(f"{name} is {value!r:.60}, expected a number {'above' if least else 'of at least'} 0")
        if type(self.validation) not in (int, float) or not 0 < self.validation <= 0.5:
            raise InputError(f"validation is {self.validation!r:.60}, expected a share above 0 and at most 0.5")
        if type(self.contrastive) not in (int, float) or not 0 <= self.contrastive < 1:
            raise InputError(f"contrastive is {self.contrastive!r:.60}, expected a weight from 0 to below 1")
        for name, choices in (("schedule", SCHEDULES), ("logit_scale", LOGIT_SCALES), ("precision", PRECISIONS)):
            value = getattr(self, name)
            if value not in choices:
                raise InputError(f"{name} is {value!r:.60}: choose one of {', '.join(choices)}")
