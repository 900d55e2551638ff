"""A study on disk: the plan and its pictures, written whole before the first answer, and each judge's order.

STUDY/plan.json              what is shown, how often, and the rules of the analysis
STUDY/pictures/HASH.png      every picture that is shown, at one size
STUDY/orders/JUDGE.json      one judge's order and sides
STUDY/answers/JUDGE.jsonl    one judge's answers, one in a line
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import FileError, InputError
from ..files import cannot_open, check_format, hash_of_json, read_json, sha256_of, write_json
from ..images import png_bytes
from ..locks import beside, locked
from ..output import check_output, replacing_folder
from ..run.identity import require_run_folder
from ..run.places import check_places
from .contrasts import DEFAULT, contrasts_of
from .pairs import Pair, pairs_of, shown
from .plan import FIRST, SECOND, StudySettings, draw, draw_order

VERSION = 1
PLAN, KIND, ORDER_KIND = "plan.json", "study", "study-order"
_SEAL = "seal"  # a hash over the rest: a plan that was edited after the fact is none
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


@dataclass(frozen=True, kw_only=True)
class Order:
    """One judge's showings, and the hash by which answers belong to them."""

    judge: str
    hash: str
    showings: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A planned study; `plan` is the content of plan.json."""

    folder: Path
    plan: Mapping[str, Any]

    def order(self, judge: str) -> Order:
        """The order of a judge who has begun.

        Raises
        ------
        FileError
            It is missing, damaged or edited, or of another plan.
        """
        path = self.folder / "orders" / f"{judge}.json"
        content = _sealed(path, f"the order of judge {judge}", ORDER_KIND)
        if content["plan"] != self.plan[_SEAL] or content["judge"] != judge:
            raise FileError(f"{path} belongs to another study or judge: put each file where it was written")
        return Order(judge=judge, hash=content[_SEAL], showings=content["showings"])

    def judges(self) -> list[str]:
        """Who has begun, sorted."""
        return sorted(path.stem for path in (self.folder / "orders").glob("*.json") if _NAME.fullmatch(path.stem))

    def answers(self, judge: str) -> Path:
        """Where a judge's answers are."""
        return self.folder / "answers" / f"{judge}.jsonl"

    def picture(self, digest: str) -> Path:
        """Where a picture is, by the hash of its pixels."""
        return self.folder / "pictures" / f"{digest}.png"

    def read_picture(self, digest: str) -> bytes:
        """A picture's PNG, by the hash of its pixels.

        Raises
        ------
        FileError
            It is missing, or is not the one that was planned.
        """
        path = self.picture(digest)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise cannot_open("a picture of the study", path, error) from error
        if sha256(data).hexdigest() != self.plan["pictures"][digest]:
            raise FileError(f"{path} is not the picture that was planned: bring the file back, or plan another study")
        return data

    def begin(self, judge: str) -> Order:
        """Draw and write the order of a new judge, from the study's seed and the judge's name.

        Raises
        ------
        FileError
            It cannot be written.
        """
        seed = int.from_bytes(sha256(f"{self.plan['settings']['seed']} {judge}".encode()).digest())
        showings = draw_order(self.plan, seed)
        content = {"plan": self.plan[_SEAL], "judge": judge, "showings": showings}
        _write_sealed(self.folder / "orders" / f"{judge}.json", ORDER_KIND, content)
        return self.order(judge)

    def lock(self) -> AbstractContextManager[None]:
        """Held while the judges are counted and one more begins."""
        return locked(beside(self.folder), self.folder, wait=True)

    def lock_judge(self, judge: str) -> AbstractContextManager[None]:
        """Held while a judge answers: one page for each."""
        return locked(beside(self.answers(judge)), self.answers(judge))


def check_judge(name: str) -> str:
    """A judge's name, which is a file's.

    Raises
    ------
    InputError
        It has other characters than a file's name should.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"the judge's name {name!r} cannot be a file's: give up to 40 letters, digits, - and _")
    return name


def open_study(folder: Path) -> Study:
    """Open a planned study.

    Raises
    ------
    FileError
        It is no study, or its plan is damaged or was edited.
    """
    if not (folder / PLAN).is_file():
        raise FileError(f"{folder} is no study: give the folder that md-reconstruct judge RUN --out {folder} makes")
    return Study(folder=folder, plan=_sealed(folder / PLAN, "the study's plan", KIND))


def plan_study(
    folder: Path,
    runs: Sequence[Path],
    compare: Sequence[str],
    given: Mapping[str, Any],
    on_progress: Callable[[str, int, int], object],
) -> Study:
    """Plan a study into a new folder, or open the one there, which must be of the same plan.

    Parameters
    ----------
    folder
        Of the study.
    runs
        Run folders; none to open a study that is there.
    compare
        What `--compare` says; empty for the default, or what the study there compares.
    given
        Settings that were given, by the names of :class:`~.plan.StudySettings`; others have their defaults.
    on_progress
        Called with a phase and how far it is.

    Raises
    ------
    InputError, FileError
        Something cannot be used or read, or the study there was planned otherwise; see :mod:`.pairs` and :mod:`.plan`.
    """
    if check_output(folder, what="study", marker=PLAN, kind=KIND):
        study = open_study(folder)
        _check_same(study, runs, compare, given)
        return study
    if not runs:
        raise InputError(f"{folder} is no study yet: give the run folders whose pictures are to be judged")
    for run in runs:
        require_run_folder(run)
        check_places(folder, {"run folder": run}, ())
    settings = StudySettings(**given)
    contrasts = contrasts_of(compare or (DEFAULT,), runs)
    pairs = pairs_of(runs, contrasts, lambda done, total: on_progress("looking at pictures", done, total))
    content = {**draw(settings, contrasts, pairs), "runs": [_described(run) for run in runs]}
    with locked(beside(folder), folder), replacing_folder(folder, PLAN) as draft:
        check_output(folder, what="study", marker=PLAN, kind=KIND)
        for name in ("pictures", "orders", "answers"):
            (draft / name).mkdir()
        hashes = _write_pictures(Study(folder=draft, plan=content), pairs, on_progress)
        _write_sealed(draft / PLAN, KIND, {**content, "pictures": hashes})
    return open_study(folder)


def _described(run: Path) -> dict[str, Any]:
    """What is known of a run: where it was, its settings, and what must be said beside its results."""
    summary = read_json(run / "summary.json", "the run's summary") if (run / "summary.json").exists() else {}
    leaks = summary.get("leaks")
    return {
        "run": str(run),
        "settings_sha256": sha256_of(run / "settings.json"),
        "simulated": summary.get("simulated") is True,
        "leaks": [str(leak) for leak in leaks] if isinstance(leaks, list) else [],
    }


def _check_same(study: Study, runs: Sequence[Path], compare: Sequence[str], given: Mapping[str, Any]) -> None:
    contrasts = study.plan["contrasts"]
    counts = {contrast["n_choices"] for contrast in contrasts}
    planned = {**study.plan["settings"], "n_choices": counts.pop() if len(counts) == 1 else None}
    differing = [
        f"{name.replace('_', ' ')}: {planned[name]} there, {value} now"
        for name, value in given.items()
        if value != planned[name]
    ]
    names = [contrast["name"] for contrast in contrasts]
    if compare and list(compare) != names:
        differing.append(f"compare: {', '.join(names)} there, {', '.join(compare)} now")
    if runs:
        here = [sha256_of(run / "settings.json") for run in runs]
        if here != [run["settings_sha256"] for run in study.plan["runs"]]:
            differing.append("the runs")
    if differing:
        raise FileError(
            f"the study {study.folder} was planned otherwise ({'; '.join(differing)}): a plan is fixed before the "
            "first answer; leave these out to go on with it, or give another --out"
        )


def _write_pictures(
    study: Study, pairs: Sequence[Pair], on_progress: Callable[[str, int, int], object]
) -> dict[str, str]:
    """Write what is shown, at one size and by one encoder; the SHA-256 of each file by the hash of its pixels."""
    plan, hashes = study.plan, dict[str, str]()
    items = {row[name] for row in plan["items"] for name in ("stimulus", FIRST, SECOND)}
    wanted = items | {digest for catch in plan["catches"] for digest in catch.values()}
    shots = {shot.hash: shot for pair in pairs for shot in (pair.stimulus, pair.first, pair.second)}
    for digest in sorted(wanted):
        data = png_bytes(shown(shots[digest].path, plan["size"]))
        study.picture(digest).write_bytes(data)
        hashes[digest] = sha256(data).hexdigest()
        on_progress("copying pictures", len(hashes), len(wanted))
    return hashes


def _write_sealed(path: Path, kind: str, content: Mapping[str, Any]) -> None:
    whole = {"format": f"minddiffuser-{kind}", "version": VERSION, **content}
    write_json(path, {**whole, _SEAL: hash_of_json(whole)})


def _sealed(path: Path, what: str, kind: str) -> dict[str, Any]:
    content = read_json(path, what)
    check_format(content, path, kind, VERSION)
    rest = {name: value for name, value in content.items() if name != _SEAL}
    if content.get(_SEAL) != hash_of_json(rest):
        raise FileError(
            f"{path} was changed since it was written: a plan is fixed before the first answer; bring the file back, "
            "or plan another study"
        )
    return content
