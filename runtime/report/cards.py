"""The page's cards: one per trial, with its pictures, its metrics and its loss curve."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from ..data.json_types import number_or_none
from ..images import fit_square, png_bytes, read_image
from . import charts
from .contents import PICTURE_FOLDERS, Trial, is_count
from .refiners import RefinerWords
from .words import PICTURE_ALTS, PICTURE_WORDS, counted, direction, metric_words, number_text

# A page is mailed and opened on phones: larger pictures are embedded at this side, the run folder keeps the originals.
EMBEDDED_SIDE = 256
GLANCE_TRIALS = 4
_ABSURD = 1e6  # of a loss: a file that was changed by hand


def sort_options(trials: Sequence[Trial]) -> str:
    """The <option>s of the sort control: the number, each metric's change for the better, the fall of the loss."""
    options = [("trial", "trial number")]
    options += [(gain_key(name), f"gain in {metric_words(name)[0]}") for name in metric_names(trials)]
    if any(loss_fall(trial) is not None for trial in trials):
        options.append(("loss-fall", "fall of the loss"))
    return "".join(f'<option value="{escape(value)}">{label}</option>' for value, label in options)


def metric_names(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Every metric that some trial has a gain in, in order of first appearance."""
    names = dict.fromkeys(name for trial in trials for name in trial.metrics if gain(trial, name) is not None)
    return tuple(names)


def gain(trial: Trial, name: str) -> float | None:
    """How much better stage 2 is than stage 1, None where one is missing; of an unknown metric, how much higher."""
    moved = change(trial, name)
    return None if moved is None else moved * (direction(name) or 1)


def change(trial: Trial, name: str) -> float | None:
    """Stage 2 minus stage 1, None where one is missing."""
    one, two = trial.metrics.get(name, (None, None))
    return None if one is None or two is None else number_or_none(two - one)


def gain_key(name: str) -> str:
    """The data attribute of a metric's gain, without "data-"; any character that HTML refuses becomes its number."""
    return "gain-" + "".join(c if c.isascii() and (c.isalnum() or c == "_") else f"-{ord(c)}-" for c in name.lower())


def loss_fall(trial: Trial) -> float | None:
    """The share of the first loss that the kept iterate took away."""
    if not trial.loss or trial.best_step is None or trial.loss[0] <= 0:
        return None
    fall = 1 - trial.loss[trial.best_step] / trial.loss[0]
    return fall if abs(fall) < _ABSURD else None


def card(trial: Trial, words: RefinerWords) -> str:
    """One trial's <article>; `words` are the refiner's."""
    data = {"trial": str(trial.number)}
    data |= {gain_key(name): f"{value:.9g}" for name in trial.metrics if (value := gain(trial, name)) is not None}
    fall = loss_fall(trial)
    if fall is not None:
        data["loss-fall"] = f"{fall:.9g}"
    attributes = " ".join(f'data-{escape(key)}="{escape(value)}"' for key, value in data.items())
    pictures = "".join(_picture(trial, kind) for kind in PICTURE_FOLDERS if kind in trial.pictures)
    tags = [] if fall is None else [_loss_tag(fall)]
    tags += ["refinement diverged"] if trial.failed else []
    tag = f'<span class="tag">{" · ".join(tags)}</span>' if tags else ""
    named = "" if trial.name is None else f' <span class="tag">{escape(trial.name)}</span>'
    said = f"Loss of trial {trial.number} over {words.length(len(trial.loss))}"
    return (
        f'<article class="card" {attributes} aria-label="Trial {trial.number}"><div class="card-head">'
        f'<h3>Trial {trial.number}{named}</h3>{tag}</div><div class="strip">{pictures}</div>'
        f"{_concept(trial)}{_metrics(trial)}"
        f"{charts.loss_curve(trial.loss, trial.best_step, said, words)}{_candidates(trial)}{_finish(trial)}</article>"
    )


def _concept(trial: Trial) -> str:
    """The concept whose context was taken, by how much it was the nearest, and the true one where it is known."""
    decoded, true, rank = (trial.concept.get(name) for name in ("decoded", "true", "rank"))
    margin = number_or_none(trial.concept.get("margin"))
    if not isinstance(decoded, str):
        return ""
    words = [
        f"concept decoded: {decoded}" + ("" if margin is None else f" (nearer than the next by {number_text(margin)})")
    ]
    if isinstance(true, str):
        place = f"rank {rank}" if is_count(rank) else "not in the list"
        words.append(f"shown: {true} ({place})")
    return f'<p class="concept">{escape("; ".join(words))}</p>'


def _candidates(trial: Trial) -> str:
    """Among which losses the picture's is the lowest, where there were several."""
    losses = [loss for loss in trial.candidates if loss is not None]
    if len(trial.candidates) < 2 or not losses:
        return ""
    lost = len(trial.candidates) - len(losses)
    without = f", {lost} without a finite loss" if lost else ""
    return (
        f'<p class="candidates">loss as sampled: lowest of {len(trial.candidates)}, '
        f"{charts.short(min(losses))} to {charts.short(max(losses))}{without}</p>"
    )


def _finish(trial: Trial) -> str:
    """How far the steps that finished the picture brought its loss, in which the semantic term weighs less."""
    if not trial.finish:
        return ""
    steps = counted(len(trial.finish) - 1, "step")
    return (
        f'<p class="candidates">finished in {steps}: loss {charts.short(trial.finish[0])} to '
        f"{charts.short(min(trial.finish))}, with less of the semantic term</p>"
    )


def _loss_tag(fall: float) -> str:
    percent = round(-100 * fall)
    return f"loss {'−' if percent < 0 else '+' if percent > 0 else ''}{abs(percent)} %"


def glance(trials: Sequence[Trial]) -> str:
    """The first trials' pictures as a small grid, one row for each stage: what the page is about, at once."""
    first = trials[:GLANCE_TRIALS]
    if len(first) < GLANCE_TRIALS:
        return ""
    rows = [
        f"<span>{PICTURE_WORDS[kind]}</span>" + "".join(_image(trial, kind) for trial in first)
        for kind in ("stimulus", "stage1", "stage2")
        if all(kind in trial.pictures for trial in first)
    ]
    return (
        f'<figure class="glance"><div class="grid">{"".join(rows)}</div>'
        f"<figcaption>The first {GLANCE_TRIALS} trials, not chosen. All trials are below.</figcaption></figure>"
    )


def _picture(trial: Trial, kind: str) -> str:
    marked = ' class="stimulus"' if kind == "stimulus" else ""
    return f"<figure{marked}>{_image(trial, kind)}<figcaption>{PICTURE_WORDS[kind]}</figcaption></figure>"


def _image(trial: Trial, kind: str) -> str:
    source = base64.b64encode(embedded(trial.pictures[kind])).decode()
    spoken = PICTURE_ALTS[kind].format(trial.number)
    return f'<img src="data:image/png;base64,{source}" alt="{spoken}" decoding="async">'


def embedded(path: Path) -> bytes:
    """The bytes of a PNG, no larger than `EMBEDDED_SIDE`."""
    image = read_image(path)
    if max(image.shape[:2]) > EMBEDDED_SIDE:
        image = fit_square(image, EMBEDDED_SIDE)
    return png_bytes(np.ascontiguousarray(image))


def _metrics(trial: Trial) -> str:
    items = []
    for name in trial.metrics:
        moved, gained = change(trial, name), gain(trial, name)
        if moved is None or gained is None:
            continue
        one, two = trial.metrics[name]
        kind = "same" if moved == 0 or not direction(name) else "better" if gained > 0 else "worse"
        arrow = "▲" if moved > 0 else "▼" if moved < 0 else "="
        # The arrow says which way it went, the word what the colour says, for those who cannot see it.
        word = f'<span class="visually-hidden"> {kind}</span>' if kind != "same" else ""
        items.append(
            f"<div><dt>{metric_words(name)[0]}</dt><dd>{number_text(two)} "
            f'<span class="{kind}" title="stage 1: {number_text(one)}">{arrow} {number_text(abs(moved))}{word}</span>'
            "</dd></div>"
        )
    return f"<dl>{''.join(items)}</dl>" if items else ""
