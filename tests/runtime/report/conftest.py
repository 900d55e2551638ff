"""A run folder by hand: three trials, all kinds of numbers, and strings that would like to be markup."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.images import write_png

HOSTILE = "</style><script>document.title='broken'</script>\"'&<img src=x onerror=alert(1)>$policy"
GAINS = {0: 0.1, 3: -0.2, 12: 0.3}  # trial -> gain in pixcorr
LOSSES = {0: [2.0, 1.5, 1.0], 3: [2.0, 1.9, 1.8], 12: [2.0, 0.5, 0.7]}


def row(one: float, two: float, shuffled: float | None = None) -> dict[str, Any]:
    content = {"stage1": one, "stage2": two, "difference": two - one, "ci95": [two - one - 0.05, two - one + 0.05]}
    if shuffled is not None:
        worth = two - shuffled
        content["decoded_minus_shuffled"] = {"difference": worth, "ci95": [worth - 0.05, worth + 0.05]}
        content["stage1_floor"] = 0.012
    return content


def write_run(run: Path, *, with_figures: bool = True) -> Path:
    rng = np.random.default_rng(0)
    for trial, loss in LOSSES.items():
        kinds = ["images/stage1", "images/stage2"] + (["stimuli", "images/oracle"] if with_figures else [])
        for kind in kinds:
            write_png(run / kind / f"{trial:06d}.png", rng.integers(0, 256, (16, 16, 3)).astype(np.uint8))
        if with_figures:
            write(
                run / "curves" / f"{trial:06d}.json",
                {"trial": trial, "loss": loss, "best_step": int(np.argmin(loss)), "failed": trial == 3},
            )
    if not with_figures:
        return run
    metrics = {"pixcorr": row(0.2, 0.3, 0.21), "ssim": row(0.4, 0.3, 0.35), HOSTILE: row(0.5, 0.5, 0.5)}
    summary = {
        "format": "minddiffuser-run",
        "version": 2,
        "n_trials": 3,
        "n_measured": 3,
        "n_pictures": 3,
        "skipped": [{"trial": 5, "reason": f"NaN {HOSTILE}"}],
        "failed": [3],
        "metrics": metrics,
        "controls": {"shuffled": {"pixcorr": row(0.2, 0.21)}, "oracle": {"pixcorr": row(0.2, 0.61)}},
        "notes": ["concept_top1 was left out: no captions."],
        "seconds": {"stage1": 12.0, "stage2": 30.5},
    }
    write(run / "summary.json", summary)
    trials = [
        {"trial": t, "stimulus": True, "metrics": {"pixcorr": [0.5, 0.5 + g], "ssim": [0.1, 0.1], HOSTILE: [0.1, 0.2]}}
        for t, g in GAINS.items()
    ]
    concepts = [(HOSTILE, 2), ("sea lion", 1), ("dog", None)]
    for trial, (true, rank) in zip(trials, concepts, strict=True):
        trial["concept"] = {"decoded": "sea lion", "margin": 0.125, "true": true, "rank": rank}
    write(run / "trials.json", trials)
    settings = {
        "given": {"models": HOSTILE},
        "settings": {"refine": {"steps": 2}, "layers": ["a", 2, None, True]},
        "versions": {"minddiffuser": "9.8.7"},
        "hashes": {"models": "ab" * 32},
        "data": {"subject": HOSTILE, "simulated": True},
        "notes": [f"a note {HOSTILE}"],
    }
    write(run / "settings.json", settings)
    return run


def evidence() -> dict[str, Any]:
    """Three rungs, one of which is missing, of two metrics; of one of them less is better."""
    known = {"floor": "Shuffled brain", "nearest": f"Nearest {HOSTILE}", "stage2": "Stage 2"}

    def line(better: str) -> dict[str, Any]:
        return {
            "label": f"metric {HOSTILE}",
            "better": better,
            "result": "stage2",
            "scale": None,
            "rungs": {"floor": {"mean": 0.1, "ci95": [-0.2, 0.3]}, "stage2": {"mean": 0.5, "ci95": None}},
            "differences": {"floor": {"difference": 0.4, "ci95": [0.1, 0.6]}},
        }

    return {
        "about": {"split": None, "simulated": False},
        "rungs": [
            {"name": name, "label": label, "meaning": "a rung", "missing": HOSTILE if name == "nearest" else None}
            for name, label in known.items()
        ],
        "metrics": {"one": line("higher"), "two": line("lower")},
    }


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def full_run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


@pytest.fixture
def guided_run(full_run: Path) -> Path:
    """The same of the refiner guided: several candidates, of which one of trial 3 and all of trial 12 came to nothing.

    The last point of each curve is the loss of the sampled picture, which two steps then finish.
    """
    settings = json.loads((full_run / "settings.json").read_text())
    settings["settings"]["refine"] = {"refiner": "guided", "candidates": 3, "deadline": None}
    write(full_run / "evidence.json", evidence())
    write(full_run / "settings.json", settings)
    for trial, candidates in {0: [1.5, 1.0, 1.25], 3: [1.8, None, 2.5], 12: [None, None, None]}.items():
        loss = [] if trial == 12 else LOSSES[trial]
        best = 2 if loss else None
        content = {"trial": trial, "loss": loss, "best_step": best, "failed": trial == 12, "candidates": candidates}
        content["finish"] = [] if trial == 12 else [0.8, 0.5, 0.6]
        write(full_run / "curves" / f"{trial:06d}.json", content)
    return full_run


@pytest.fixture
def bare_run(tmp_path: Path) -> Path:
    """Pictures of both stages and nothing else: no stimuli, no metrics, no settings."""
    return write_run(tmp_path / "run", with_figures=False)
