"""The plan of a study: which pairs, how many choices by how many judges, the rules; drawn before the first answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from ..errors import InputError
from .contrasts import Contrast
from .exact import guesser_passes
from .pairs import Pair

QUESTION = "Which of the two is closer to the original?"
ALPHA, POWER = 0.05, 0.8
_MOST_CHOICES, _FEWEST_CATCHES = 100, 5
# Which of the two pictures stands on the left of a showing; a catch trial's right answer is the stimulus itself.
FIRST, SECOND, RIGHT, FOIL = "first", "second", "stimulus", "foil"
_OTHER = {FIRST: SECOND, SECOND: FIRST, RIGHT: FOIL, FOIL: RIGHT}
CHOICE, CATCH, REPEAT = "choice", "catch", "repeat"


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What a person chooses of a study; None is what the runs and the other settings suggest.

    `n_choices` counts each judge's choices of each comparison, `n_catch` and `n_repeats` each judge's; `minimum_ms` is
    how long the pictures are shown before an answer counts.
    """

    seed: int = 0
    n_choices: int | None = None
    n_judges: int = 1
    n_catch: int | None = None
    n_repeats: int = 0
    minimum_ms: int = 400

    def __post_init__(self) -> None:
        counts = {"--n-choices": self.n_choices, "--n-judges": self.n_judges}
        for option, value in counts.items():
            if value is not None and value < 1:
                raise InputError(f"{option} is {value}: give at least 1")
        for option, value in {"--seed": self.seed, "--catch": self.n_catch, "--repeats": self.n_repeats}.items():
            if value is not None and value < 0:
                raise InputError(f"{option} is {value}: give 0 or more")
        if not 0 <= self.minimum_ms <= 60_000:
            raise InputError(f"--minimum-ms is {self.minimum_ms}: give milliseconds from 0 to 60000")


def draw(settings: StudySettings, contrasts: Sequence[Contrast], pairs: Sequence[Pair]) -> dict[str, Any]:
    """The content of plan.json but for its runs: items, catch trials, repeats and rules, by the seed alone.

    Pairs whose pictures are the same pixel for pixel are left out, since nobody can tell them apart. Of the others, as
    many are drawn as there are choices, over as many stimuli as there are.

    Raises
    ------
    InputError
        There are fewer pairs than choices, or nothing to make catch trials of.
    """
    rng = np.random.default_rng(settings.seed)
    items: list[Pair] = []
    described = []
    for number, contrast in enumerate(contrasts):
        here = [pair for pair in pairs if pair.contrast == number]
        good = [pair for pair in here if pair.differs]
        wanted = min(_MOST_CHOICES, len(good)) if settings.n_choices is None else settings.n_choices
        if not 0 < wanted <= len(good):
            same = f" ({len(here) - len(good)} more are identical)" if len(good) < len(here) else ""
            raise InputError(
                f"--compare {contrast.name} has {len(good)} pairs that differ{same}, {wanted or 1} choices were asked "
                "for: give a smaller --n-choices, or more runs"
            )
        items += _spread(good, wanted, rng)
        described.append(
            {**asdict(contrast), "n_pairs": len(here), "n_identical": len(here) - len(good), "n_choices": wanted}
        )
    foils = _foils(pairs)
    suggested = min(max(_FEWEST_CATCHES, round(len(items) / 10)), len(foils))
    n_catch = suggested if settings.n_catch is None else settings.n_catch
    if n_catch > len(foils):
        raise InputError(
            f"--catch {n_catch} was given, the runs have pictures for {len(foils)} catch trials: give fewer"
        )
    if settings.n_repeats > len(items) // 2:
        raise InputError(f"--repeats {settings.n_repeats} is more than half of {len(items)} choices: give fewer")
    return {
        "question": QUESTION,
        "settings": {**asdict(settings), "n_catch": n_catch},
        "contrasts": described,
        "items": [
            {
                "contrast": pair.contrast,
                "run": pair.run,
                "trial": pair.trial,
                "stimulus": pair.stimulus.hash,
                FIRST: pair.first.hash,
                SECOND: pair.second.hash,
            }
            for pair in items
        ],
        "catches": _catches(foils, items, n_catch, rng),
        "size": max(shot.size for pair in items for shot in (pair.stimulus, pair.first, pair.second)),
        "rules": _rules(settings, n_catch),
    }


def _spread(pairs: Sequence[Pair], wanted: int, rng: np.random.Generator) -> list[Pair]:
    """So many of the pairs, in random order, of which no stimulus has two more than another that has enough."""
    stimuli: dict[str, list[Pair]] = {}
    for place in rng.permutation(len(pairs)).tolist():
        stimuli.setdefault(pairs[place].stimulus.hash, []).append(pairs[place])
    rounds = [pair for around in zip_longest(*stimuli.values()) for pair in around if pair is not None]
    return rounds[:wanted]


def _foils(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    """What catch trials can be made of: a stimulus and a picture that is not the same."""
    known = dict.fromkeys((pair.stimulus.hash, shot.hash) for pair in pairs for shot in (pair.first, pair.second))
    return [(stimulus, foil) for stimulus, foil in known if stimulus != foil]


def _catches(
    foils: Sequence[tuple[str, str]], items: Sequence[Pair], n_catch: int, rng: np.random.Generator
) -> list[dict[str, str]]:
    """The stimulus itself against one of a pair's pictures; of stimuli that are not judged, as far as there are any."""
    judged = {pair.stimulus.hash for pair in items}
    order = [foils[place] for place in rng.permutation(len(foils)).tolist()]
    order.sort(key=lambda foil: foil[0] in judged)
    return [{RIGHT: stimulus, FOIL: foil} for stimulus, foil in order[:n_catch]]


def _rules(settings: StudySettings, n_catch: int) -> dict[str, Any]:
    """What the analysis will do, fixed now."""
    allowed = [failures for failures in range(n_catch + 1) if guesser_passes(failures, n_catch) <= ALPHA]
    most = max(allowed, default=0)
    judges = "1 judge has" if settings.n_judges == 1 else f"{settings.n_judges} judges have"
    return {
        "alpha": ALPHA,
        "primary": "sign flip over stimuli, exact, two-sided: for each stimulus the choices of the second picture "
        "minus those of the first, of all judges; p-values of several comparisons are corrected by Holm's method",
        "most_catch_failures": most,
        "exclusion": "no catch trials, nobody is excluded"
        if n_catch == 0
        else f"a judge who misses more than {most} of {n_catch} catch trials is excluded whole, and may be replaced "
        f"(who guesses passes with probability {guesser_passes(most, n_catch):.3g})",
        "complete": f"when {judges} answered everything, the excluded not counted",
        "identical": "pairs that are the same pixel for pixel are left out",
        "repeats": "repeated trials count for consistency alone",
    }


def other(side: str) -> str:
    """What stands on the right where `side` stands on the left."""
    return _OTHER[side]


def draw_order(plan: Mapping[str, Any], seed: int) -> list[dict[str, Any]]:
    """One judge's showings, in order: role, number among the plan's items or catches, and what stands on the left.

    The choices come in random order; of each comparison, the second picture stands on the left in one half. A repeat
    comes at least half of the choices after the first time, sides exchanged. The catch trials are one in each of as
    many stretches.
    """
    rng = np.random.default_rng(seed)
    choices = _choices(plan, rng)
    spaced = _with_repeats(choices, plan["settings"]["n_repeats"], rng)
    catches = list(zip(rng.permutation(len(plan["catches"])).tolist(), _halves(len(plan["catches"]), rng), strict=True))
    for stretch, (number, swapped) in reversed(list(enumerate(catches))):
        start, stop = (len(spaced) * edge // len(catches) for edge in (stretch, stretch + 1))
        # Never the first one of all: whoever has seen no pair yet does not know what a catch trial differs in.
        low = max(start, 1)
        place = int(rng.integers(low, max(low, stop - 1), endpoint=True))
        spaced.insert(place, {"role": CATCH, "number": number, "left": FOIL if swapped else RIGHT})
    return spaced


def _choices(plan: Mapping[str, Any], rng: np.random.Generator) -> list[dict[str, Any]]:
    items = plan["items"]
    left = [FIRST] * len(items)
    for contrast in range(len(plan["contrasts"])):
        places = [place for place, item in enumerate(items) if item["contrast"] == contrast]
        for place, swapped in zip(places, _halves(len(places), rng), strict=True):
            left[place] = SECOND if swapped else FIRST
    order = rng.permutation(len(items)).tolist()
    return [{"role": CHOICE, "number": number, "left": left[number]} for number in order]


def _halves(n: int, rng: np.random.Generator) -> list[bool]:
    """True for one half of `n` places, drawn at random; where `n` is odd, either half may be the larger one."""
    larger = int(rng.integers(2)) if n % 2 else 0
    drawn: list[bool] = rng.permutation([place < n // 2 + larger for place in range(n)]).astype(bool).tolist()
    return drawn


def _with_repeats(choices: Sequence[dict[str, Any]], n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Put `n` of the first half of the choices in again, sides exchanged, each half of all choices or more later."""
    half = len(choices) // 2
    behind: dict[int, list[dict[str, Any]]] = {}
    for place in sorted(rng.permutation(half)[:n].tolist()):
        again = {**choices[place], "role": REPEAT, "left": other(choices[place]["left"])}
        behind.setdefault(int(rng.integers(place + half, len(choices))), []).append(again)
    return [showing for place, choice in enumerate(choices) for showing in (choice, *behind.get(place, ()))]
