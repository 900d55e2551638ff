"""The one training loop of every network: AdamW, early stopping on held-out pictures, the best epoch's weights.

Nothing but the validation loss decides when to stop and which epoch's weights are kept; no test trial is ever read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .batches import Batches, split
from .hardware import Hardware
from .loss import Objective
from .schedule import learning_rate
from .settings import TrainingSettings
from .state import Best, Curves, restore, state_of

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

Progress = Callable[[int, int], None]
TRAIN, VALIDATION, LOSS = "train", "validation", "loss"


@dataclass(frozen=True)
class Stopped:
    """Where the loss was no number any more: "nan" or "inf", and the epoch and step, both from 1.

    Without a step it was the validation loss after that epoch.
    """

    loss: str
    epoch: int
    step: int | None

    def __str__(self) -> str:
        where = "at its validation" if self.step is None else f"step {self.step}"
        return f"the loss became {self.loss} in epoch {self.epoch}, {where}"


@dataclass(frozen=True, eq=False)
class Keeping:
    """Where the state of a training is kept after every `every` epochs, and the one that it goes on from.

    `keep` writes the arrays before it returns: training then goes on in them.
    """

    keep: Callable[[Mapping[str, NDArray[Any]]], None]
    every: int
    found: Mapping[str, NDArray[Any]] | None = None


@dataclass(eq=False, kw_only=True)
class Training:
    """One training, from its first epoch or from a kept state to its last."""

    network: nn.Module
    objective: Objective
    batches: Batches
    settings: TrainingSettings
    hardware: Hardware
    epoch: int = 0
    best: Best = field(default_factory=Best)
    curves: Curves = field(default_factory=lambda: {TRAIN: {}, VALIDATION: {}})
    stopped: Stopped | None = None
    optimiser: optim.Optimizer = field(init=False)
    scaler: Any = field(init=False)

    def __post_init__(self) -> None:
        import torch

        learned = [scale for scale in self.objective.log_scale.values() if scale.requires_grad]
        groups: list[dict[str, Any]] = [{"params": list(self.network.parameters())}]
        if learned:
            groups.append({"params": learned, "weight_decay": 0.0})
        settings = self.settings
        # Fused: one pass over the weights instead of a dozen, five times faster on a CPU.
        self.optimiser = torch.optim.AdamW(
            groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.scaler = self.hardware.scaler()

    def run(
        self, known: Tensor, hidden: Tensor, *, keeping: Keeping | None = None, progress: Progress | None = None
    ) -> None:
        """Train until `patience` epochs have brought no lower validation loss, or the loss is no number.

        Parameters
        ----------
        known, hidden : (n,) int64
            The trials to fit to, and those that decide when to stop.
        """
        n_epochs = self.settings.epochs
        if keeping is not None and keeping.found is not None:
            restore(self, keeping.found)
        if progress is not None:
            progress(self.epoch, n_epochs)
        while self.epoch < n_epochs and not self.ended:
            self.stopped = self._train(known) or self._validate(hidden)
            if self.stopped is not None:
                for losses in self.curves[TRAIN].values():
                    del losses[self.epoch :]  # of the epoch that has no validation loss
                return
            self.epoch += 1
            if keeping is not None and self.epoch % keeping.every == 0:
                keeping.keep(state_of(self))
            if progress is not None:
                progress(self.epoch, self.epoch if self.ended else n_epochs)

    @property
    def ended(self) -> bool:
        """Whether nothing became better for as long as patience lasts."""
        return self.epoch - self.best.epoch >= self.settings.patience

    def _train(self, rows: Tensor) -> Stopped | None:
        import torch

        self.network.train()
        order = rows[torch.randperm(len(rows))]
        parts = split(order, self.settings.batch_size)
        found: list[Tensor] = []
        for step, part in enumerate(parts):
            self._set_learning_rate(self.epoch * len(parts) + step, self.settings.epochs * len(parts))
            self.optimiser.zero_grad()
            terms = self._terms(part)
            self.scaler.scale(terms[LOSS]).backward()
            self.scaler.step(self.optimiser)
            self.scaler.update()
            self.objective.limit()
            found.append(torch.stack(list(terms.values())).detach())
        bad = self._note(TRAIN, list(terms), found, parts)
        return None if bad is None else Stopped(bad[0], self.epoch + 1, bad[1] + 1)

    def _validate(self, rows: Tensor) -> Stopped | None:
        import torch

        self.network.eval()
        parts = split(rows, self.settings.batch_size)
        with torch.no_grad():
            terms = [self._terms(part) for part in parts]
        bad = self._note(VALIDATION, list(terms[0]), [torch.stack(list(made.values())) for made in terms], parts)
        if bad is not None:
            return Stopped(bad[0], self.epoch + 1, None)
        loss = self.curves[VALIDATION][LOSS][-1]
        if loss < self.best.loss:
            weights = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
            self.best = Best(weights, self.epoch + 1, loss)
        return None

    def _terms(self, rows: Tensor) -> dict[str, Tensor]:
        """The loss of a batch, and its parts."""
        responses, wanted, pictures = self.batches.read(rows)
        with self.hardware.autocast():
            found = self.network(responses)
        terms = self.objective.terms(found, wanted, pictures)
        return {LOSS: self.objective.total(terms), **terms}

    def _set_learning_rate(self, step: int, n_steps: int) -> None:
        rate = learning_rate(self.settings.schedule, self.settings.learning_rate, step, n_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def _note(self, part: str, names: list[str], found: list[Tensor], rows: list[Tensor]) -> tuple[str, int] | None:
        """Add an epoch's means over trials to the curves; or what the loss became, and in which step."""
        import torch

        values = torch.stack(found).double().cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(values[:, 0]))
        if len(bad) > 0:
            return str(abs(values[bad[0], 0])), int(bad[0])
        share = np.array([len(batch) for batch in rows], np.float64)
        for name, mean in zip(names, share @ values / share.sum(), strict=True):
            self.curves[part].setdefault(name, []).append(float(mean))
        return None
