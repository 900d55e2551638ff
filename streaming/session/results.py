"""What a session writes of its results: lines of JSON for each epoch and picture, and lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..decoding.control import Score
from ..decoding.decode import DecodedEpoch
from ..generation.plan import Plan


def decoded_line(epoch: DecodedEpoch, scores: Sequence[Score], segment: int, sample: int) -> dict[str, Any]:
    """Of a decoded epoch, as JSON.

    `hashes` are of its response and its features; `control` is the running control as it stood before this epoch.
    """
    return {
        "kind": "decoded",
        "ordinal": epoch.ordinal,
        "text": epoch.text,
        "trial_id": epoch.trial_id,
        "n_averaged": epoch.n_averaged,
        "segment": segment,
        "sample": sample,
        "hashes": epoch.hashes(),
        "nearest": [[name, similarity] for name, similarity in epoch.nearest],
        "chance": None if epoch.chance is None else list(epoch.chance),
        "margin": epoch.margin,
        "confidence": epoch.confidence,
        "warnings": list(epoch.warnings),
        "control": [asdict(score) for score in scores],
    }


def plan_line(ordinal: int, trial_id: str, plan: Plan, device: int | None) -> dict[str, Any]:
    """By which plan a picture is drawn, and on which device, from 0, where there are several."""
    about = {"kind": "plan", "ordinal": ordinal, "trial_id": trial_id, **plan.as_json()}
    return about if device is None else {**about, "device": device}


def picture_line(ordinal: int, when: str, stage: int, n_frames: int, file: str, pixels_sha256: str) -> dict[str, Any]:
    """Of a picture: `when` is "stage1", "due" or "last"; it was taken after `n_frames` frames of its plan."""
    return {
        "kind": "picture",
        "ordinal": ordinal,
        "when": when,
        "stage": stage,
        "n_frames": n_frames,
        "file": file,
        "pixels_sha256": pixels_sha256,
    }


def decoded_words(epoch: DecodedEpoch, seconds: float) -> str:
    """One line for people."""
    mean = f", mean of {epoch.n_averaged}" if epoch.n_averaged > 1 else ""
    said = f"marker {epoch.ordinal} {printable(epoch.text)}{mean}: "
    if epoch.nearest and epoch.chance is not None:
        names = ", ".join(f"{name} {similarity:.2f}" for name, similarity in epoch.nearest[:3])
        said += f"nearest {names} (a guess is right in {100 * epoch.chance[0]:.1f} %)"
        if epoch.confidence is not None:
            said += f"; nearer than {100 * epoch.confidence:.0f} % of scrambled epochs"
    else:
        said += "decoded"
    return f"{said}, {1000 * seconds:.0f} ms after the epoch's end"


def printable(text: str) -> str:
    """A marker's text in at most 40 characters that do nothing to a terminal."""
    short = text if len(text) <= 40 else f"{text[:39]}…"
    return ascii(short) if not short.isprintable() else f"{short!r}"
