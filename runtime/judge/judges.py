"""How far each judge is, who is excluded by the plan's rule, and whether the study is complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..errors import InputError
from .answers import read_answers
from .exact import binomial_p
from .plan import CATCH, CHOICE, REPEAT, RIGHT, other
from .study import Order, Study


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One answer with what it was about: the showing, the answer, and the picture that was chosen."""

    showing: Mapping[str, Any]
    answer: Mapping[str, Any]

    @property
    def chosen(self) -> str:
        """A side of the pair: "first" or "second", of a catch trial "stimulus" or "foil"."""
        left: str = self.showing["left"]
        return left if self.answer["choice"] == "left" else other(left)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """One judge's answers so far."""

    name: str
    n_all: int
    answers: tuple[Judged, ...]
    most_catch_failures: int

    @property
    def finished(self) -> bool:
        """Whether everything is answered."""
        return len(self.answers) == self.n_all

    @property
    def catch_failures(self) -> int:
        """How often another picture was taken for the stimulus itself."""
        return sum(answer.chosen != RIGHT for answer in self.of(CATCH))

    @property
    def excluded(self) -> bool:
        """Whether the plan's rule excludes the judge."""
        return self.catch_failures > self.most_catch_failures

    def of(self, role: str) -> list[Judged]:
        """The answers to showings of one role."""
        return [answer for answer in self.answers if answer.showing["role"] == role]

    def consistent(self) -> tuple[int, int]:
        """In how many repeats the same picture was chosen again, and of how many."""
        before = {answer.showing["number"]: answer.chosen for answer in self.of(CHOICE)}
        repeats = self.of(REPEAT)
        return sum(before[answer.showing["number"]] == answer.chosen for answer in repeats), len(repeats)

    def describe(self) -> dict[str, Any]:
        """What the analysis says of the judge, without any preference."""
        choices, (same, repeats) = self.of(CHOICE), self.consistent()
        left = sum(answer.answer["choice"] == "left" for answer in choices)
        times = [float(answer.answer["response_ms"]) for answer in choices if not answer.answer["away"]]
        inputs = [str(answer.answer["input"]) for answer in self.answers]
        return {
            "judge": self.name,
            "answered": len(self.answers),
            "planned": self.n_all,
            "finished": self.finished,
            "excluded": self.excluded,
            "catch_trials": len(self.of(CATCH)),
            "catch_failures": self.catch_failures,
            "repeats": repeats,
            "repeats_consistent": same,
            "left": {"n": len(choices), "left": left, "p": binomial_p(left, len(choices)) if choices else None},
            "median_response_ms": median(times) if times else None,
            "away": sum(answer.answer["away"] for answer in self.answers),
            "inputs": {name: inputs.count(name) for name in sorted(set(inputs))},
        }


def read_judge(study: Study, order: Order) -> Judge:
    """What a judge has answered.

    Raises
    ------
    FileError
        The answers are damaged, or belong to another order.
    """
    answers = read_answers(study.answers(order.judge), order.hash)
    return Judge(
        name=order.judge,
        n_all=len(order.showings),
        answers=tuple(Judged(showing=s, answer=a) for s, a in zip(order.showings, answers, strict=False)),
        most_catch_failures=study.plan["rules"]["most_catch_failures"],
    )


def read_judges(study: Study) -> list[Judge]:
    """Everybody who has begun, by name."""
    return [read_judge(study, study.order(name)) for name in study.judges()]


def is_complete(study: Study, judges: list[Judge]) -> bool:
    """Whether as many judges as were planned, and not excluded, have answered everything."""
    wanted: int = study.plan["settings"]["n_judges"]
    return sum(judge.finished and not judge.excluded for judge in judges) >= wanted


def admit(study: Study, name: str) -> Order:
    """The order of a judge who goes on, or of a new one where the plan has room.

    More judges than were planned are as good as a look at the result before stopping.

    Raises
    ------
    InputError
        All judges of the plan have begun, or another's name differs in capitals alone.
    """
    with study.lock():
        names = study.judges()
        if name in names:
            return study.order(name)
        alike = next((there for there in names if there.casefold() == name.casefold()), None)
        if alike is not None:
            raise InputError(
                f"the judge {alike} has begun and differs from {name} in capitals alone: give another name"
            )
        # Whoever is excluded before the end will be so at the end.
        busy = [judge.name for judge in read_judges(study) if not judge.excluded]
        wanted = study.plan["settings"]["n_judges"]
        if len(busy) >= wanted:
            raise InputError(
                f"the study was planned for {wanted} judge{'s' * (wanted != 1)}, and {', '.join(busy)} "
                f"{'have' if len(busy) > 1 else 'has'} begun: give --judge with a name of these"
            )
        return study.begin(name)
