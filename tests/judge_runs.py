"""Small run folders whose pictures a judge can be asked about, and a judge that is a function."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from minddiffuser.runtime.images import write_png
from minddiffuser.runtime.judge.answers import AnswerFile
from minddiffuser.runtime.judge.judges import Judged, admit
from minddiffuser.runtime.judge.session import Session
from minddiffuser.runtime.judge.study import Study, plan_study
from minddiffuser.runtime.progress import unheard

SIZE = 16


def write_run(
    run: Path,
    *,
    n: int = 12,
    kinds: tuple[str, ...] = ("stage1", "stage2"),
    n_stimuli: int | None = None,
    seed: int = 0,
    size: int = SIZE,
    identical: tuple[int, ...] = (),
) -> Path:
    """`n` trials of `n_stimuli` flat pictures; trial t shows stimulus t modulo their number."""
    rng = np.random.default_rng(seed)
    for trial in range(n):
        stimulus = trial % (n_stimuli or n)
        colour = np.array([10 * stimulus + 5, 250 - 10 * stimulus, 100], np.uint8)
        write_png(run / "stimuli" / f"{trial:06d}.png", np.broadcast_to(colour, (size, size, 3)).copy())
        for kind in kinds:
            picture = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
            source = run / "images" / kinds[0] / f"{trial:06d}.png"
            path = run / "images" / kind / f"{trial:06d}.png"
            write_png(path, picture)
            if trial in identical:
                path.write_bytes(source.read_bytes())
    settings = {"format": "minddiffuser-run-settings", "version": 1, "settings": {"seed": seed}}
    (run / "settings.json").write_text(json.dumps(settings))
    rows = [{"trial": trial, "id": f"trial-{trial}"} for trial in range(n)]
    (run / "trials.json").write_text(json.dumps(rows))
    return run


def planned(folder: Path, *runs: Path, compare: tuple[str, ...] = (), **given: object) -> Study:
    return plan_study(folder, runs, compare, given, unheard)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def answer_of(session: Session, choice: str) -> dict[str, object]:
    return {
        "ticket": session.state()["ticket"],
        "choice": choice,
        "response_ms": 900.0,
        "input": "keyboard",
        "view": [800, 600, 1],
        "away": False,
    }


def let_judge(study: Study, name: str, chooses: Callable[[Judged], bool], *, most: int | None = None) -> None:
    """Answer as far as `most`: `chooses` says whether the left one is taken, of a showing whose left one it is."""
    order, clock = admit(study, name), Clock()
    with AnswerFile(study.answers(name), order.hash) as answers:
        session = Session(study, order, answers, clock, lambda: "2026-01-01T00:00:00+00:00")
        while not session.finished and (most is None or session.n_done < most):
            showing = order.showings[session.n_done]
            left = chooses(Judged(showing=showing, answer={"choice": "left"}))
            clock.now += 1.0
            status, _ = session.answer(answer_of(session, "left" if left else "right"))
            assert status == 200
