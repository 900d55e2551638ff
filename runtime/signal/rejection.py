"""`reject`: epochs that a blink, a movement or a loose electrode spoilt, by peak to peak per channel type."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.json_types import is_number
from ..data.layout import CHANNEL_TYPES
from ..errors import InputError
from .fields import check_names, wrong
from .stage import Array, EpochStep, Refused, Window

UNITS = {"mag": "T", "ref_meg": "T", "grad": "T/m"}
_NAMED = 3


def open_reject(step: Mapping[str, Any], before: Window, folder: Path | None) -> EpochStep:
    """``{"name": "reject", "peak_to_peak": {type: value}, "flat": {type: value}}``, in V, T and T/m.

    As MNE's `reject` and `flat`: an epoch is refused where a channel's maximum minus its minimum is above the one or
    below the other. Types that the signal does not have are passed over, so that one set of limits serves all.
    """
    check_names(step, {"peak_to_peak", "flat"})
    if before.scaled:
        raise InputError(
            "the step 'reject' stands behind 'whiten' or 'zscore', where no limit in V or T holds: put it before"
        )
    limits = {name: _limits(step, name) for name in ("peak_to_peak", "flat")}
    rows = {
        kind: [row for row, channel in enumerate(before.channels) if channel.type == kind] for kind in CHANNEL_TYPES
    }

    def apply(epoch: Array) -> Array:
        spans = epoch.max(axis=1) - epoch.min(axis=1)
        reasons = [
            *(_reason(before, spans, rows[kind], limit, True) for kind, limit in limits["peak_to_peak"].items()),
            *(_reason(before, spans, rows[kind], limit, False) for kind, limit in limits["flat"].items()),
        ]
        given = [reason for reason in reasons if reason]
        if given:
            raise Refused("; ".join(given))
        return epoch

    return EpochStep(after=before, apply=apply)


def _limits(step: Mapping[str, Any], name: str) -> dict[str, float]:
    content = step.get(name) or {}
    good = isinstance(content, Mapping) and set(content) <= set(CHANNEL_TYPES)
    if not good or not all(is_number(value) and value >= 0 for value in content.values()):
        raise wrong(step, name, f"give a limit in V, T or T/m per type of channel ({', '.join(CHANNEL_TYPES)})")
    return {kind: float(value) for kind, value in content.items()}


def _reason(before: Window, spans: Array, rows: list[int], limit: float, above: bool) -> str | None:
    found = [row for row in rows if (spans[row] > limit if above else spans[row] < limit)]
    if not found:
        return None
    worst = sorted(found, key=lambda row: -spans[row] if above else spans[row])
    kind = before.channels[worst[0]].type
    names = ", ".join(before.channels[row].name for row in worst[:_NAMED])
    more = f" and {len(worst) - _NAMED} more" if len(worst) > _NAMED else ""
    word, unit = ("above" if above else "below"), UNITS.get(kind, "V")
    return f"peak to peak {word} {limit:.3g} {unit} ({kind}): {spans[worst[0]]:.3g} {unit} in {names}{more}"
