"""How a checkpoint's training pictures were chosen, where it was not by the data's own split.

``md-train fit --split clusters`` holds out clusters of similar pictures. The checkpoint says which, and which test
pictures lie in them: a run of it, or of its bundle, reconstructs the trials of no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .fields import ABSENT, Field

FIELD = "split"
CLUSTERS = "clusters"
KINDS = (CLUSTERS,)
NOT_HELD_OUT = "its picture lies in no cluster that was held out of training (md-train fit --split clusters)"
_MOST_CLUSTERS, _MOST_PICTURES = 1 << 16, 1 << 20


@dataclass(frozen=True, kw_only=True)
class Split:
    """A split that a fit has made.

    Attributes
    ----------
    kind
        A name of `KINDS`.
    n_clusters
    held_out
        Numbers of the clusters that training has no picture of.
    share
        Of the test pictures, that was asked for.
    seed
    pictures
        SHA-256 of the pixels of each test picture in these clusters.
    """

    kind: str
    n_clusters: int
    held_out: tuple[int, ...]
    share: float
    seed: int
    pictures: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The field as descriptions have it."""
        return {**asdict(self), "held_out": list(self.held_out), "pictures": list(self.pictures)}

    def described(self) -> dict[str, Any]:
        """The same for people and results: the pictures as their number."""
        return {**self.as_json(), "pictures": len(self.pictures)}

    def not_held_out(self, stimulus_ids: Sequence[str]) -> dict[int, str]:
        """Rows of the trials whose pictures were not held out, with the reason; by the ids of their pictures."""
        held = set(self.pictures)
        return {row: NOT_HELD_OUT for row, name in enumerate(stimulus_ids) if name not in held}


def read_split(field: Field) -> Split | None:
    """The split in a description's field; None where it is absent.

    Raises
    ------
    FileError
        It cannot be used.
    """
    if field.value is ABSENT:
        return None
    clusters = field.get("held_out").items(1, _MOST_CLUSTERS, "clusters")
    pictures = field.get("pictures").items(1, _MOST_PICTURES, "pictures")
    return Split(
        kind=field.get("kind").choice(KINDS),
        n_clusters=field.get("n_clusters").whole(2, _MOST_CLUSTERS),
        held_out=tuple(cluster.whole(0, _MOST_CLUSTERS) for cluster in clusters),
        share=field.get("share").number(),
        seed=field.get("seed").whole(0),
        pictures=tuple(picture.sha256() for picture in pictures),
    )
