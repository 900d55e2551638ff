"""Tables: regions by weights and by patterns, peaks, and for programs the curves."""

from __future__ import annotations

from collections.abc import Sequence

from ..base import Row
from ..reading import KINDS, label_of
from ..results import Estimate, Results
from ..table import Column, Entry, Table
from .pooled import KIND_LABELS, SIGNALS, Curves, curves_of, regions_of


def tables(results: Results) -> list[Table]:
    """Regions by weights and by patterns, peaks, and for programs the curves."""
    made = []
    regions, curves = regions_of(results), curves_of(results)
    if regions is not None:
        for kind in KINDS:
            rows = [Row(key=f"fmri.{name}", label=label_of(name), cell="fmri", kind=kind) for name in regions.features]
            entries = {
                (row.key, region): Entry(
                    value=regions.estimates[region, f"{kind}.{name}"],
                    compared=None,
                    null=regions.nulls[region, f"{kind}.{name}"],
                )
                for row, name in zip(rows, regions.features, strict=True)
                for region in regions.inside
            }
            columns = [Column(name=name, label=name, form=".2f") for name in regions.inside]
            title = f"fMRI: importance of regions by {KIND_LABELS[kind]}, times an even spread"
            made.append(
                Table(
                    name=f"regions-{kind}",
                    title=title,
                    rows=rows,
                    columns=columns,
                    entries=entries,
                    chance={},
                    unit="voxels",
                )
            )
    if curves:
        made += [_peaks(curves), *map(_whole_curve, curves)]
    return made


def _peaks(curves: Sequence[Curves]) -> Table:
    columns = [
        Column(name="peak", label="top-1 accuracy at the peak", better="higher"),
        Column(name="peak_ms", label="time of the peak, ms", form=".0f"),
        Column(name="chance", label="chance"),
    ]
    rows, entries = [], {}
    for one in curves:
        for feature, value in one.peak.items():
            row = Row(
                key=f"{one.modality}.{feature}",
                label=f"{SIGNALS[one.modality]}: {label_of(feature)}",
                cell=one.modality,
                kind="peak",
            )
            rows.append(row)
            level = Estimate(mean=one.chance, ci95=None, n_pictures=value.n_pictures)
            for column, found in (("peak", value), ("peak_ms", one.peak_ms[feature]), ("chance", level)):
                entries[row.key, column] = Entry(value=found, compared=None)
    title = "EEG and MEG: how often the picture is found, and when best"
    return Table(name="peaks", title=title, rows=rows, columns=columns, entries=entries, chance={})


def _whole_curve(one: Curves) -> Table:
    rows = [
        Row(key=f"{one.modality}.{name}", label=label_of(name), cell=one.modality, kind="top1") for name in one.accuracy
    ]
    columns = [Column(name=f"{ms:g}", label=f"{ms:g} ms", better="higher") for ms in one.moments]
    entries = {
        (row.key, column.name): Entry(value=value, compared=None)
        for row, values in zip(rows, one.accuracy.values(), strict=True)
        for column, value in zip(columns, values, strict=True)
    }
    title = f"{SIGNALS[one.modality]}: top-1 accuracy of each window, by its middle"
    chance = {column.name: one.chance for column in columns}
    return Table(
        name=f"curves-{one.modality}",
        title=title,
        rows=rows,
        columns=columns,
        entries=entries,
        chance=chance,
        on_page=False,
    )
