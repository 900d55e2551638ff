"""Scores for people: a table of regions and features, sentences about what is no better than chance, and a figure."""

from __future__ import annotations

from html import escape

from ..runtime.data.simulated import simulated_brain
from ..runtime.features import TARGETS
from .scores import FeatureScores, Score, Scores

_WIDTH = 15
_REFUSED = "–"
_SIMULATED = {
    "clip": "simulated subject: its early areas are read-outs of the same CLIP layers that are decoded here",
    "gabor": "simulated subject: oriented filters, local colour and labels, nothing of the networks decoded here",
}
# What makes a feature undecodable although others are decoded, most likely.
_CAUSES = dict.fromkeys(TARGETS, "do `stimulus` and the pictures' numbers name what each trial showed?")
_CAUSES["context"] = "are the captions in the order of the pictures?"


def remark(provenance: object) -> str:
    """A caveat about the scores that follows from the data's provenance: empty, or one sentence."""
    brain = simulated_brain(provenance)
    return "" if brain is None else _SIMULATED.get(brain, "simulated subject")


def table(scores: Scores, remark: str = "") -> str:
    """Correlation of every feature from the whole responses and each region, in brackets that of shuffled pairings."""
    names = list(scores.features)
    rois = _regions(scores)
    whole = next((str(made.whole.n_values) for made in scores.features.values() if made.whole is not None), "")
    lines = [
        *_what(scores),
        f"(in brackets: 95th percentile of {scores.n_shuffled} shuffled pairings; * no better than that)",
        "",
        _row("region", "values", names),
        _row("all", whole, [_cell(scores.features[name], None) for name in names]),
    ]
    for roi, n_values in rois.items():
        lines.append(_row(roi, str(n_values), [_cell(scores.features[name], roi) for name in names]))
    dimensions = [
        f"{made.n_drawn} of {made.n_dimensions}" if made.n_drawn < made.n_dimensions else str(made.n_dimensions)
        for made in scores.features.values()
    ]
    chosen = scores.selection
    lines += [
        _row("dimensions", "", dimensions),
        "",
        f"structure{_by(scores)}: all dimensions {chosen.mean:.3f}; selected dimensions {chosen.kept_elsewhere:.3f} "
        "on folds not used to select them",
        f"({chosen.kept:.3f} on the folds used to select them, which is biased upwards)",
        *([remark] if remark else []),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _what(scores: Scores) -> list[str]:
    """What the correlations are of: held-out folds, or the trials that networks held out by themselves."""
    own = {name: made.n_validation for name, made in scores.features.items() if made.n_validation is not None}
    lines = []
    if len(own) < len(scores.features):
        lines += [
            "correlation of decoded with true values on held-out training trials,",
            f"mean over {scores.n_folds} folds and all dimensions",
        ]
    if own:
        lines += [
            f"{', '.join(own)}: mean correlation on the {max(own.values())} training pictures that the",
            "decoder held out for validation, over the dimensions that it predicts: somewhat optimistic,",
            "because these pictures also decided when its training stopped",
        ]
    return lines


def _by(scores: Scores) -> str:
    """Which decoder the selection's correlations are of, where it is not the structure's own."""
    own = scores.features.get("structure")
    return f", as the {scores.selection.fitter} decodes it" if own is not None and own.n_validation is not None else ""


def _regions(scores: Scores) -> dict[str, int]:
    """Every region that some feature was scored from, with its number of values (voxels), in the features' order."""
    longest = sorted(scores.features.values(), key=lambda made: -len(made.rois))
    return {roi: score.n_values for made in longest for roi, score in made.rois.items()}


def _row(region: str, values: str, cells: list[str]) -> str:
    return f"{region[:14]:<14}{values:>7}  " + "".join(f"{cell:>{_WIDTH}}" for cell in cells)


def _cell(feature: FeatureScores, roi: str | None) -> str:
    if feature.n_drawn == 0:
        return "constant"
    score = _score(feature, roi)
    if score is None:
        return f"{_REFUSED} "
    return f"{score.correlation:.3f} ({score.shuffled_95:.3f}){' ' if score.better else '*'}"


def warnings(scores: Scores) -> list[str]:
    """One sentence for each feature that is decoded no better than from shuffled pairings."""
    whole = {name: made.whole for name, made in scores.features.items() if made.n_drawn > 0}
    poor = {name: score for name, score in whole.items() if score is not None and not score.better}
    found = [
        f"warning: {name} is decoded no better than chance (correlation {score.correlation:.3f}, 95th percentile of "
        f"shuffled pairings {score.shuffled_95:.3f})"
        for name, score in poor.items()
    ]
    refused = [
        f"warning: {name} could not be scored, because its decoder could not be fitted to a fold's training part: "
        "give it a larger penalty"
        for name, score in whole.items()
        if score is None
    ]
    constant = [name for name, made in scores.features.items() if made.n_drawn == 0]
    if len(poor) > 1 and len(poor) == len(scores.features) - len(constant):
        found = [f"{line}: do responses and `stimulus` belong to the same trials, in the same order?" for line in found]
    else:
        found = [f"{line}: {_CAUSES[name]}" for name, line in zip(poor, found, strict=True)]
    return [*found, *refused] + [
        f"warning: {name} is the same for every training stimulus, so its decoder gives that constant for every trial"
        for name in constant
    ]


_BAR, _GAP, _PANEL, _LEFT, _TOP = 14, 6, 190, 110, 70
_COLOUR = "#31688e"


def figure(scores: Scores, remark: str = "") -> str:
    """Draw the table as an SVG: one panel per feature, one bar per region, a mark at the shuffled bound."""
    names = list(scores.features)
    regions: list[str | None] = [None, *_regions(scores)]
    values = [_score(made, region) for made in scores.features.values() for region in regions]
    top = max(0.05, *(max(score.correlation, score.shuffled_95) for score in values if score is not None), 0)
    height = _TOP + len(regions) * (_BAR + _GAP) + 40
    width = _LEFT + len(names) * (_PANEL + 20) + 10
    own = any(made.n_validation is not None for made in scores.features.values())
    over = "the decoders' own validation pictures" if own else f"all dimensions and {scores.n_folds} folds"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12" role="img">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="10" y="20" font-size="14">Correlation of decoded with true values, held-out training trials</text>',
        f'<text x="10" y="38" fill="#555">bars: mean over {over}; '
        "red mark: 95th percentile of shuffled pairings</text>",
    ]
    if remark:
        parts.append(f'<text x="10" y="{height - 14}" fill="#555">{escape(remark)}</text>')
    for row, region in enumerate(regions):
        y = _TOP + row * (_BAR + _GAP) + _BAR - 3
        parts.append(f'<text x="{_LEFT - 8}" y="{y}" text-anchor="end">{escape((region or "all")[:14])}</text>')
    for column, name in enumerate(names):
        left = _LEFT + column * (_PANEL + 20)
        bars = [_score(scores.features[name], region) for region in regions]
        parts += [
            f'<text x="{left}" y="{_TOP - 10}" font-weight="bold">{escape(name)}</text>',
            *_panel(bars, left, top),
        ]
    return "\n".join([*parts, "</svg>", ""])


def _score(feature: FeatureScores, region: str | None) -> Score | None:
    """None where the decoder refused."""
    return feature.whole if region is None else feature.rois.get(region)


def _panel(bars: list[Score | None], left: float, top: float) -> list[str]:
    """The bars of one feature; correlations from 0 to `top` over the panel's width, negative ones as 0."""
    scale, bottom = 0.72 * _PANEL / top, _TOP + len(bars) * (_BAR + _GAP)
    parts = [f'<line x1="{left}" y1="{_TOP - 4}" x2="{left}" y2="{bottom}" stroke="#999"/>']
    for row, score in enumerate(bars):
        y = _TOP + row * (_BAR + _GAP)
        if score is None:
            parts.append(f'<text x="{left + 5:.1f}" y="{y + _BAR - 3}">{_REFUSED}</text>')
            continue
        length = max(0.0, score.correlation) * scale
        mark = left + max(0.0, score.shuffled_95) * scale
        parts += [
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{_COLOUR}"/>',
            f'<rect x="{mark - 1:.1f}" y="{y - 2}" width="2" height="{_BAR + 4}" fill="#d62728"/>',
            f'<text x="{max(left + length, mark) + 5:.1f}" y="{y + _BAR - 3}">{score.correlation:.3f}</text>',
        ]
    return parts
