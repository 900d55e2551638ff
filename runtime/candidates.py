"""The candidates of the context's second route, as checkpoint.json and manifest.json name them.

The route itself is runtime/decoders/concepts.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .data.json_types import is_label
from .fields import Field

FIELD = "concepts"
"""In checkpoint.json and, below "checkpoint", in manifest.json; and the name of the file of arrays."""
PROTOTYPES = ("text", "images")
_MOST = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The concepts of which one is taken.

    Attributes
    ----------
    names
        At least one, each once; the nearest two or more alike, the first of them is taken.
    prompt
        Of which the context is, with "{}" in the concept's place.
    prototypes
        Where a concept's place in the space of embeddings comes from; a name of `PROTOTYPES`.
    """

    names: tuple[str, ...]
    prompt: str
    prototypes: str

    def as_json(self) -> dict[str, Any]:
        """The number of candidates, and what they are."""
        return {
            "n_candidates": len(self.names),
            "prompt": self.prompt,
            "prototypes": self.prototypes,
            "names": list(self.names),
        }


def candidates_of(field: Field) -> Candidates:
    """Check what a description says of the candidates.

    Raises
    ------
    FileError
        A field is missing or cannot be used.
    """
    items = field.get("names").items(1, _MOST, "names")
    for item in items:
        if not is_label(item.value):
            item.refuse("a name of 1 to 100 printable characters")
    names = tuple(item.value for item in items)
    if len(set(names)) != len(names):
        field.get("names").refuse("each name once")
    if field.get("n_candidates").whole() != len(names):
        field.get("n_candidates").refuse(f"{len(names)}, as there are names")
    prompt = field.get("prompt").text()
    return Candidates(names=names, prompt=prompt, prototypes=field.get("prototypes").choice(PROTOTYPES))
