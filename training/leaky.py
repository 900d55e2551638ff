"""What a fit that leaks on purpose does otherwise than a clean one; :mod:`.leaks` makes it, a fit takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Leaky:
    """A leak inside a fit; a leak that only changes the data has nothing but its name.

    Attributes
    ----------
    name
        The label of the checkpoint.
    decided_by
        JSON of what decides the numbers besides the name, such as a hash of test trials.
    statistics : (mean, std), each (*response_shape) float32, optional
        What the checkpoint normalises responses by when it decodes, in place of those of training.
    fit_network
        In place of the fitters' `fit_together`, with its arguments.
    """

    name: str
    decided_by: Mapping[str, Any] = field(default_factory=dict)
    statistics: tuple[Float32, Float32] | None = None
    fit_network: Callable[..., Any] | None = None

    def describe(self) -> dict[str, Any]:
        """JSON of what decides the numbers."""
        return {"name": self.name, **self.decided_by}
