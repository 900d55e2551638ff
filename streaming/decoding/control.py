"""How often the event's own concept is decoded, and the same with the markers shuffled: a control that runs along.

Where a marker names one of the candidates ("cat", "stimulus/cat", '{"concept": "cat"}'), or a table says which one it
is of ("17" is "cat"), its epoch's answer can be right or wrong. The control pairs every epoch with the markers of all
the other epochs: of n epochs, with D_c of them decoded as c and M_c of the markers of c, the share of right answers
over all n (n - 1) pairings is

    (sum_c D_c M_c - number of right answers) / (n (n - 1))

so that it needs no random numbers. A decoder that always says "cat" in a session of cats is as good in the control.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...runtime.data.concepts import alike
from ...runtime.data.event_table import code_of

TOP = (1, 5)
_LONGEST = 1000
_SEPARATORS = re.compile(r"[/:;,=|]")


@dataclass(frozen=True, kw_only=True)
class Score:
    """Shares of right answers among the nearest k candidates, over n epochs whose markers are of one.

    `shuffled` is None for fewer than two epochs. `n_unnamed` are the epochs whose markers are of none.
    """

    k: int
    n: int
    n_unnamed: int = 0
    right: float | None
    shuffled: float | None
    chance: float


class Control:
    """The running count.

    Parameters
    ----------
    names
        Of the candidates.
    events
        Which candidate a marker is of, for markers that name none; see :func:`.concept_table.read_concepts_of`.
    """

    def __init__(self, names: Sequence[str], events: Mapping[str, str] | None = None) -> None:
        self._names, self._events = names, events or {}
        self._place = {alike(name): name for name in reversed(names)}
        self._n = self._n_unnamed = 0
        self._markers: Counter[str] = Counter()
        self._decoded: dict[int, Counter[str]] = {k: Counter() for k in TOP}
        self._right = dict.fromkeys(TOP, 0)

    def concept_of(self, text: str) -> str | None:
        """The candidate that a marker is of, or None."""
        if len(text) <= _LONGEST and (listed := self._events.get(code_of(text))) is not None:
            return listed
        found = (self._place.get(alike(part)) for part in _parts(text))
        return next((name for name in found if name is not None), None)

    def add(self, text: str, nearest: Sequence[str]) -> None:
        """Count an epoch: its marker, and the candidates' names from the nearest one on."""
        concept = self.concept_of(text)
        if concept is None:
            self._n_unnamed += 1
            return
        self._n += 1
        self._markers[concept] += 1
        for k in TOP:
            self._decoded[k].update(nearest[:k])
            self._right[k] += concept in nearest[:k]

    def scores(self) -> tuple[Score, ...]:
        """Of each k of `TOP`."""
        return tuple(self._score(k) for k in TOP)

    def _score(self, k: int) -> Score:
        n, decoded = self._n, self._decoded[k]
        pairs = sum(decoded[name] * count for name, count in self._markers.items()) - self._right[k]
        return Score(
            k=k,
            n=n,
            n_unnamed=self._n_unnamed,
            right=self._right[k] / n if n else None,
            shuffled=pairs / (n * (n - 1)) if n > 1 else None,
            chance=min(1.0, k / len(self._names)),
        )


def _parts(text: str) -> Iterator[str]:
    """The whole text, its parts, and the texts in it where it is a JSON object, each as far as it may be a name."""
    if len(text) > _LONGEST:
        return
    yield text.strip()
    if text.lstrip().startswith("{"):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return
        yield from (value.strip() for value in content.values() if isinstance(value, str))
        return
    yield from (part.strip() for part in _SEPARATORS.split(text))
