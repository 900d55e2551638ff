"""Evidence in words: whose it is, which pictures were held out, how far a result is from floor to ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def describe(group: Mapping[str, Any]) -> str:
    """What a group is, in one line."""
    about = group["about"]
    words = [f"{about['n_runs']} run{'s' * (about['n_runs'] != 1)}", f"{about['n_trials']} trials in all"]
    if about.get("n_pictures") is not None:
        words.append(
            f"{about['n_pictures']} pictures each" if about["n_runs"] > 1 else f"{about['n_pictures']} pictures"
        )
    words.append(f"subject{'s' * (len(about['subjects']) != 1)} {', '.join(about['subjects'])}")
    words.append(split_words(about))
    return "; ".join(words)


def split_words(about: Mapping[str, Any]) -> str:
    """Which pictures were held out of training."""
    split = about.get("split")
    if not isinstance(split, Mapping) or split.get("kind") != "clusters":
        return "the data's own split"
    held, n = split.get("held_out"), split.get("n_clusters")
    count = len(held) if isinstance(held, list) else "some"
    return f"held-out clusters of similar pictures ({count} of {n})"


def position_words(line: Mapping[str, Any]) -> str:
    """How far the result is from floor to ceiling, or why nothing is said; empty where one of the two is missing."""
    if line["scale"] is None:
        return ""
    place = line["rungs"][line["result"]].get("position")
    if place is None:
        if line["scale"]["ci95"] is None:
            return "There are too few pictures for intervals, so no position between floor and ceiling is given."
        return "The ceiling is not clearly better than the floor, so no position between them is given."
    bounds, result = place["ci95"], str(line["result"]).replace("stage", "Stage ")
    span = "" if bounds is None else f" (95 % interval {_percent(bounds[0])} to {_percent(bounds[1])})"
    return f"{result} is {_percent(place['value'])} of the way from floor to ceiling{span}."


def _percent(share: float) -> str:
    return f"{round(100 * share)} %".replace("-", "−")
