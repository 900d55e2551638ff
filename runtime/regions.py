"""Which regions' voxels decoders were fitted to, where not to all: kept in the provenance, and said in a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIELD = "regions"


def regions_note(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """One sentence on the voxels that the decoders use, by a checkpoint's or a bundle's provenance; none: all."""
    found = provenance.get(FIELD)
    if not isinstance(found, Mapping):
        return ()
    parts = [
        f"{word} {', '.join(map(str, names))}"
        for word, names in (("of", found.get("rois")), ("without", found.get("without")))
        if isinstance(names, list) and names
    ]
    return (f"The decoders were fitted to {found.get('n_voxels')} voxels, {' '.join(parts)}: they use no others.",)
