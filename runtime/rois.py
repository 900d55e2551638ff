"""Where regions lie in the voxel axis: what a checkpoint keeps of it, and whether responses agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import FileError, InputError, shown

Rois = Mapping[str, tuple[int, int]]


def stored_rois(content: Any, n_voxels: int, where: str) -> dict[str, tuple[int, int]] | None:
    """The rois of a checkpoint or bundle, {name: [start, stop]}, checked and in the order of their voxels.

    Parameters
    ----------
    content
        The field as read from JSON; None where an earlier release kept none.

    Raises
    ------
    FileError
        They are anything else, or do not follow one another from voxel 0 to `n_voxels`.
    """
    if content is None:
        return None
    expected = "an object of names, each with [start, stop], one after another from voxel 0 to the last"
    if not isinstance(content, dict) or not all(map(_is_span, content.values())):
        raise FileError(f"{where}: field 'rois' is {shown(content)}, expected {expected}: make it again")
    rois = {name: (span[0], span[1]) for name, span in sorted(content.items(), key=lambda item: item[1])}
    edges = [0, *(stop for _, stop in rois.values())]
    if [start for start, _ in rois.values()] != edges[:-1] or edges[-1] != n_voxels or "" in rois:
        raise FileError(f"{where}: field 'rois' is {shown(content)}, expected {expected} of {n_voxels}: make it again")
    return rois


def _is_span(span: object) -> bool:
    if not isinstance(span, list) or len(span) != 2:
        return False
    return all(isinstance(edge, int) and not isinstance(edge, bool) for edge in span) and 0 <= span[0] < span[1]


def compare_rois(fitted: Rois | None, given: Rois | None, what: str) -> str | None:
    """Refuse responses whose regions are others, or lie elsewhere in the voxel axis, than those of training.

    Parameters
    ----------
    fitted, given
        Of the decoders and of the responses; None where they are not known.
    what
        Whose decoders, for the message.

    Returns
    -------
    Why nothing could be compared, in one sentence, or None.

    Raises
    ------
    InputError
        They differ; the message names the first difference in the voxel axis.
    """
    if given is None:
        return None
    if fitted is None:
        return (
            f"{what} keeps no rois (an earlier release made it), so it could not be checked that the voxels are "
            "in the same order"
        )
    for (name, span), (other, place) in zip(_ordered(fitted), _ordered(given), strict=False):
        if (name, span) != (other, place):
            raise InputError(
                f"the voxels differ from those that {what} was fitted on: voxels {span[0]} to {span[1]} are "
                f"{shown(name)} there, and {place[0]} to {place[1]} are {shown(other)} in the data folder: give the "
                "same voxels in the same order"
            )
    if len(fitted) != len(given):
        raise InputError(
            f"{what} was fitted on {len(fitted)} rois ({_names(fitted)}), the data folder has {len(given)} "
            f"({_names(given)}): give the same voxels in the same order"
        )
    return None


def _ordered(rois: Rois) -> list[tuple[str, tuple[int, int]]]:
    return sorted(((name, (span[0], span[1])) for name, span in rois.items()), key=lambda item: item[1])


def _names(rois: Rois) -> str:
    return shown(", ".join(name for name, _ in _ordered(rois)))
