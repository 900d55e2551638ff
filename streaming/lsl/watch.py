"""Silence and staleness: nothing comes, or what comes is old. Each is said once, and once more when it is over."""

from __future__ import annotations

from ...runtime.errors import shown
from ..records import SIGNAL, Notice

# Stamps that lie this far ahead of the local clock, in seconds, cannot be measured ones.
_AHEAD = 0.5
# Beyond this age, in seconds, the sender's stamps are from another clock than LSL's, such as the time of day.
_FOREIGN = 3600.0


class Watch:
    """Over one signal; times are local, and given.

    Parameters
    ----------
    name
        Of the stream, for people.
    silence, stale
        As in `Wanted`, in seconds.
    at
        When it began.
    """

    def __init__(self, name: str, silence: float, stale: float, at: float) -> None:
        self._name, self._silence, self._stale = shown(name), silence, stale
        self._last = at
        self.silent = self._late = self._wrong = False

    @property
    def last(self) -> float:
        """When something came last."""
        return self._last

    def came(self, at: float, newest: float | None) -> list[Notice]:
        """Samples came; `newest` is the local time of the last one, None while the clock offset is unknown."""
        said = []
        if self.silent:
            said.append(self._notice("recovered", at, f"{self._name} sends again, after {at - self._last:.1f} s"))
        self._last, self.silent = at, False
        if newest is not None:
            said += self._aged(at, at - newest)
        return said

    def nothing(self, at: float) -> list[Notice]:
        """Nothing came until `at`."""
        if self.silent or at - self._last < self._silence:
            return []
        self.silent = True
        return [self._notice("silent", at, f"{self._name} has sent nothing for {at - self._last:.1f} s")]

    def _aged(self, at: float, age: float) -> list[Notice]:
        wrong = age < -_AHEAD or age > _FOREIGN
        late = not wrong and age > self._stale
        said = []
        if wrong and not self._wrong:
            side = "old" if age > 0 else "ahead of this machine's clock"
            said.append(
                self._notice(
                    "clock",
                    at,
                    f"the stamps of {self._name} are {abs(age):.1f} s {side}: they are not on the clock of LSL, and "
                    "markers of another stream will not fit them",
                )
            )
        elif late and not self._late:
            said.append(
                self._notice("stale", at, f"what {self._name} sends is {age:.1f} s old: it arrives late, not lost")
            )
        elif self._late and not late and not wrong:
            said.append(self._notice("recovered", at, f"{self._name} is on time again, {age * 1e3:.0f} ms old"))
        self._late, self._wrong = late, wrong
        return said

    def _notice(self, kind: str, at: float, text: str) -> Notice:
        return Notice(kind=kind, stream=SIGNAL, at=at, text=text)
