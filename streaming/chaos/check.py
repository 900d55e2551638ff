"""Accepted epochs and refused markers against what is true of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...runtime.signal.chain import Chain
from ..intake.events import Accepted, Refused
from .original import F64, Original, epochs_of, reach
from .plan import Fault
from .truth import Truth

# Seconds that the signal may take after a fault, beyond its filters' warm-up: to learn its jitter, to measure clocks.
_RECOVERY = 6.0
# A marker may be one sample off where clocks drift or stamps jitter.
_SHIFTS = (0, 1, -1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Check:
    """What is true of a session: its samples as they were, in V or T too, and what was delivered."""

    original: Original
    signal: F64
    chain: Chain
    truth: Truth

    def wrong(self, accepted: Sequence[Accepted]) -> tuple[list[str], int, int]:
        """Sentences about wrong epochs, and how many are right, and of those how many by the sample beside."""
        delivered = np.zeros(self.original.n_samples + 1, bool)
        delivered[np.concatenate([*self.truth.numbers, np.array([-1])])] = True
        delivered[-1] = False  # where altered ones were counted
        said, n_exact, n_shifted = [], 0, 0
        left = [(one, self.original.sample_at(self.truth.markers[one.ordinal].stamp)) for one in accepted]
        for shift in _SHIFTS:
            right = self._right([(one, event + shift) for one, event in left], delivered)
            n_exact += len(right)
            n_shifted += len(right) if shift else 0
            left = [(one, event) for one, event in left if one.ordinal not in right]
        for one, event in left:
            said.append(
                f"the epoch of marker {one.ordinal} ({one.text!r}, sample {event}) is not what was received "
                f"{reach(self.chain, self.chain.plan.input.sfreq)[0]} samples before it to its end, filtered since "
                f"sample {event - one.sample}"
            )
        return said, n_exact, n_shifted

    def _right(self, accepted: Sequence[tuple[Accepted, int]], delivered: np.ndarray) -> set[int]:
        """Ordinals of those whose epochs, of these events, are what they should be."""
        _, behind = reach(self.chain, self.chain.plan.input.sfreq)
        by_start: dict[int, list[tuple[Accepted, int]]] = defaultdict(list)
        for one, event in accepted:
            start = event - one.sample
            if 0 <= start and delivered[start : event + behind].all():
                by_start[start].append((one, event))
        right = set()
        for start, group in by_start.items():
            expected = epochs_of(self.chain, self.signal, start, sorted({event for _, event in group}))
            right |= {
                one.ordinal for one, event in group if event in expected and np.array_equal(one.data, expected[event])
            }
        return right

    def missed(
        self,
        undisturbed: Sequence[Accepted],
        accepted: Sequence[Accepted],
        refused: Sequence[Refused],
        faults: Sequence[Fault],
        sfreq: float,
    ) -> list[str]:
        """Sentences about markers that would have been accepted, and were not, though no fault was near."""
        before, behind = reach(self.chain, sfreq)
        recovery = round((self.chain.warm_up + _RECOVERY) * sfreq)
        spans = [
            (fault.start * sfreq, (fault.start if math.isinf(fault.stop) else fault.stop) * sfreq) for fault in faults
        ]
        fine = {epoch.ordinal for epoch in undisturbed}
        there = {self.truth.markers[epoch.ordinal].ordinal for epoch in accepted}
        said = []
        for one in refused:
            true = self.truth.markers[one.ordinal]
            if true.ordinal not in fine or true.ordinal in there:
                continue
            event = self.original.sample_at(true.stamp)
            first, last = event - before - recovery, event + behind + round(sfreq)
            if not any(start <= last and stop >= first for start, stop in spans):
                said.append(f"marker {one.ordinal} ({one.text!r}) was refused, and no fault was near: {one.reason}")
        return said
