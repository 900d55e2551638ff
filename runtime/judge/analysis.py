"""What the choices say: shares with exact intervals, exact tests over choices, stimuli and judges."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_bytes, write_json, writing
from ..metrics.compare import MIN_PICTURES
from ..metrics.statistics import paired_bootstrap
from .exact import binomial_p, clopper_pearson, detectable, holm, sign_flip_p
from .judges import Judge, Judged, is_complete, read_judges
from .plan import ALPHA, CHOICE, POWER, SECOND
from .study import Study
from .text import markdown

VERSION = 1
_LOOKS = "looks.jsonl"


def analyse(study: Study, *, interim: bool = False, now: Callable[[], str]) -> dict[str, Any]:
    """The content of analysis.json.

    Before the planned number of choices is reached there are no results, unless `interim` asks for them: whoever looks,
    and stops or goes on by what is seen, makes every p-value wrong. A look is kept in the study, and every later
    analysis says how many there were.

    Parameters
    ----------
    study
        With answers.
    interim
        Whether to give results before the end.
    now
        The time of day as text, for the look.

    Raises
    ------
    FileError
        Something of the study is damaged, or the look cannot be kept.
    """
    judges, plan = read_judges(study), study.plan
    complete = is_complete(study, judges)
    looks = _looks(study.folder)
    if interim and not complete:
        looks = _look(study.folder, sum(len(judge.answers) for judge in judges), now())
    content = {
        "format": "minddiffuser-judged",
        "version": VERSION,
        "question": plan["question"],
        "complete": complete,
        "interim_looks": looks,
        "settings": plan["settings"],
        "rules": plan["rules"],
        "runs": plan["runs"],
        "judges": [judge.describe() for judge in judges],
    }
    if not complete and not interim:
        return content
    used = [judge for judge in judges if not judge.excluded and (judge.finished or not complete)]
    return {**content, "used_judges": [judge.name for judge in used], "contrasts": _contrasts(plan, used)}


def write_analysis(study: Study, content: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write analysis.json and analysis.md; gives both places."""
    places = study.folder / "analysis.json", study.folder / "analysis.md"
    write_json(places[0], content)
    write_bytes(places[1], markdown(content).encode())
    return places


def _contrasts(plan: Mapping[str, Any], judges: Sequence[Judge]) -> list[dict[str, Any]]:
    rows = [_contrast(plan, number, judges) for number in range(len(plan["contrasts"]))]
    tested = [row for row in rows if row["choices"]["n"]]
    corrected = holm([row["stimuli"]["p"] for row in tested])
    for row, p_value in zip(tested, corrected, strict=True):
        row["p_holm"] = p_value
    return rows


def _contrast(plan: Mapping[str, Any], number: int, judges: Sequence[Judge]) -> dict[str, Any]:
    planned, items = plan["contrasts"][number], plan["items"]

    def mine(judge: Judge) -> list[Judged]:
        return [a for a in judge.of(CHOICE) if items[a.showing["number"]]["contrast"] == number]

    chosen = [
        (judge.name, items[a.showing["number"]]["stimulus"], a.chosen == SECOND)
        for judge in judges
        for a in mine(judge)
    ]
    seconds = [second for _, _, second in chosen]
    return {
        "name": planned["name"],
        "first": planned["first"]["label"],
        "second": planned["second"]["label"],
        "n_pairs": planned["n_pairs"],
        "n_identical": planned["n_identical"],
        "choices": {
            **_share(seconds),
            "detectable": detectable(planned["n_choices"] * plan["settings"]["n_judges"], ALPHA, POWER),
        },
        "stimuli": {
            **_clustered([(stimulus, second) for _, stimulus, second in chosen]),
            "ci95": _bootstrap(chosen, plan["settings"]["seed"]),
        },
        "over_judges": _clustered([(name, second) for name, _, second in chosen]),
        "judges": {judge.name: _share([a.chosen == SECOND for a in mine(judge)]) for judge in judges},
    }


def _share(seconds: Sequence[bool]) -> dict[str, Any]:
    """How often the second was chosen, with the exact interval and test of independent choices."""
    n, k = len(seconds), sum(seconds)
    if not n:
        return {"n": 0, "second": 0, "share": None, "ci95": None, "p": None}
    return {"n": n, "second": k, "share": k / n, "ci95": list(clopper_pearson(k, n)), "p": binomial_p(k, n)}


def _clustered(chosen: Sequence[tuple[str, bool]]) -> dict[str, Any]:
    """The exact sign-flip test in which the choices of one cluster stay together."""
    differences: dict[str, int] = {}
    counts: dict[str, int] = {}
    for name, second in chosen:
        differences[name] = differences.get(name, 0) + (1 if second else -1)
        counts[name] = counts.get(name, 0) + 1
    if not counts:
        return {"n": 0, "share": None, "p": None, "smallest_p": None}
    shares = [(1 + differences[name] / counts[name]) / 2 for name in counts]
    return {
        "n": len(counts),
        "share": float(np.mean(shares)),
        "p": sign_flip_p(list(differences.values())),
        # With few clusters there are few patterns: no result can have a smaller one.
        "smallest_p": 2.0 ** (1 - len(counts)),
    }


def _bootstrap(chosen: Sequence[tuple[str, str, bool]], seed: int) -> list[float] | None:
    """The 95 % interval of the share over stimuli, as the package's other intervals: stimuli are drawn."""
    stimuli = [stimulus for _, stimulus, _ in chosen]
    if len(set(stimuli)) < MIN_PICTURES:
        return None
    values = np.array([float(second) for _, _, second in chosen])
    found = paired_bootstrap(np.zeros(len(values)), values, np.random.default_rng(seed), stimulus_ids=stimuli)
    return [found.low, found.high]


def _looks(folder: Path) -> int:
    path = folder / _LOOKS
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def _look(folder: Path, n_answers: int, at: str) -> int:
    """Keep that somebody looked; gives how many looks there were."""
    path = folder / _LOOKS
    with writing(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"at": at, "answers": n_answers}) + "\n")
    return _looks(folder)
