"""How a session decodes and draws."""

from __future__ import annotations

from dataclasses import dataclass

from ...runtime.refine.settings import GuidedSettings
from ...runtime.sampling import Sampling
from ..decoding.decode import DecodeSettings
from ..generation.pace import Pace
from ..generation.plan import Plan, plan_for, whole_plan


@dataclass(frozen=True, kw_only=True)
class LiveSettings:
    """See the module.

    Attributes
    ----------
    decode
        See :class:`~..decoding.decode.DecodeSettings`.
    pictures
        Whether any are drawn.
    refine
        Of stage 2; None: stage 1 alone.
    sampling
        Of stage 1.
    deadline
        Seconds from an epoch's end, or its marker's arrival where that is later, to its picture; None: every picture is
        drawn as the settings say.
    paces
        Of each device, in their order; with a deadline.
    """

    decode: DecodeSettings
    pictures: bool = True
    refine: GuidedSettings | None = None
    sampling: Sampling = Sampling()
    deadline: float | None = None
    paces: tuple[Pace, ...] = ()

    def plan(self, seconds: float | None, device: int = 0) -> Plan:
        """What is done on a device for a picture that has so many seconds left."""
        if seconds is None or not self.paces:
            return whole_plan(self.refine, self.sampling)
        return plan_for(seconds, self.paces[device], self.refine, self.sampling)
