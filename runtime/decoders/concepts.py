"""The context's second route: decode an embedding, take the nearest of a list of concepts, and that concept's context.

So the paper does for EEG and MEG, where a caption's context cannot be decoded directly: first what was seen, among a
list of candidates, then the context of "a picture of a <concept>". The candidates are a setting of the fit. Which of
them is right is looked up nowhere.

checkpoint.json names them (``"concepts"``); concepts.safetensors holds of each its place in the space of CLIP's image
embeddings and its context:

embedding (n_candidates, d)        of length 1
centre (d,)                        what is subtracted from a decoded embedding; candidates have theirs subtracted
context (n_candidates, 15, d_text)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..candidates import Candidates
from ..errors import FileError
from ..files import Expected
from .base import ADVICE, Float32, read_arrays

SIMILARITY = "similarity"
"""What a bundle's graph gives beside the context: (n_candidates,) of each trial."""
# Far below the length of any embedding, far above where float32 has no more numbers.
SHORTEST = np.float32(1e-12)
# Of the length of a unit vector of float32, of at most some thousand dimensions.
_ROUNDING = 1e-3


@dataclass(frozen=True, eq=False, kw_only=True)
class ConceptRoute:
    """From decoded embeddings to contexts.

    Attributes
    ----------
    candidates : Candidates
    embedding : (n_candidates, d) float32
        Of length 1.
    centre : (d,) float32
    context : (n_candidates, 15, d_text) float32
    """

    candidates: Candidates
    embedding: Float32
    centre: Float32
    context: Float32

    def similarity(self, decoded: Float32) -> Float32:
        """Cosine of each decoded embedding (n, d), less the centre, to each candidate's: (n, n_candidates) float32.

        A trial's are the same, bit by bit, whatever other trials come with it.
        """
        rows = []
        for row in decoded:
            centred = row - self.centre
            length = np.maximum(np.sqrt(np.einsum("d,d->", centred, centred)), SHORTEST)
            rows.append(np.einsum("cd,d->c", self.embedding, centred / length))
        return np.stack(rows)

    def contexts(self, similarity: Float32) -> Float32:
        """The context of each trial's nearest candidate, the first of equally near ones: (n, 15, d_text)."""
        taken: Float32 = self.context[similarity.argmax(axis=1)]
        return taken


def open_route(path: Path, candidates: Candidates, width: int, context_shape: tuple[int, ...]) -> ConceptRoute:
    """Read concepts.safetensors.

    Parameters
    ----------
    width
        Of the embedding that is decoded.

    Raises
    ------
    FileError
        It is missing or damaged, or an array is of another shape than the description says.
    """
    n = len(candidates.names)
    expected: Expected = {
        "embedding": (np.float32, (n, width)),
        "centre": (np.float32, (width,)),
        "context": (np.float32, (n, *context_shape)),
    }
    arrays: Mapping[str, Any] = read_arrays(path, "the checkpoint's concepts", expected)
    lengths = np.linalg.norm(arrays["embedding"], axis=1)
    if np.abs(lengths - 1).max() > _ROUNDING:
        raise FileError(f"{path}: array 'embedding' holds a candidate that is not of length 1: {ADVICE}")
    return ConceptRoute(candidates=candidates, **{name: arrays[name] for name in expected})
