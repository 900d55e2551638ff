"""The first minute: pictures from a subject that ships with the package, reconstructed on ONNX Runtime alone.

What ships is a simulated subject's test trials and the bundle of its decoders and networks (demo_files/, made by
export/demo_files.py), so that nothing is fitted, exported or downloaded here. Stage 1 comes first, with a report of its
own after seconds; then both stages. The user's own pictures can be shown to the same subject, which takes PyTorch to
simulate and nothing to fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from ..engines.here import why_no_provider
from ..errors import FileError, MissingExtra
from ..locks import inside, locked
from ..report.words import counted
from .packed import ADVICE, Index, drop_older, read_index, unpack
from .steps import (
    DEFAULT_CANDIDATES,
    Ended,
    Execute,
    Shell,
    Sizes,
    Step,
    begin,
    claim,
    in_subprocess,
    is_lone,
    kept_in,
    usable_threads,
)

_PACKAGE = Path(__file__).resolve().parents[2]
SHIPPED = _PACKAGE / "runtime" / "demo_files"
WORLD = _PACKAGE / "training" / "tinyworld" / "world"


# It ends within half a minute on two cores: two candidates for each picture are all that fits.
SIZES = Sizes(candidates=2)


def note(n_trials: int, subject: dict[str, Any]) -> str:
    """What the page says about these choices."""
    return (
        f"A one-minute demonstration: {counted(n_trials, 'picture')}, and in stage 2 the better of {SIZES.candidates} "
        f"start noises per picture, by the loss (the default: the best of {DEFAULT_CANDIDATES}). The "
        f"decoders come with the package: fitted on {subject['n_train']:,} simulated trials with at most "
        f"{subject['n_structure']} voxels per structural dimension (the paper: 350), their weights rounded to float16. "
        "The networks are the tiny world's."
    )


def run_quick(out: Path, *, stimuli: Path | None, stream: TextIO, execute: Execute = in_subprocess) -> int:
    """Run the demonstration, or what is left of it, in `out`: stage1/ first, then run/ with both stages.

    Parameters
    ----------
    out, stimuli, stream, execute
        As in :func:`.full.run_demo`.

    Returns
    -------
    As :func:`.full.run_demo`.

    Raises
    ------
    MissingExtra
        ONNX Runtime is not installed; or own pictures were given, and PyTorch is not.
    FileError
        As :func:`.full.run_demo`; or the shipped files are missing or damaged.
    """
    _check_libraries(simulates=stimuli is not None)
    pictures = begin(out, stimuli)
    index = read_index(SHIPPED)
    subject, shell = _subject(index), Shell(usable_threads(SIZES.threads), stream, execute)
    with locked(inside(out), out):
        claim(out, {**asdict(SIZES), "shipped": index.sha256}, pictures)
        kept = open_shipped(lambda: out / "shipped", shell.say)
        steps = commands(out, kept, subject, stimuli, pictures)
        try:
            codes = [shell.run(step) for step in steps[:-1]]
            shell.say(f"the first pictures are there, stage 1 of 2: {steps[-2].made}")
            codes.append(shell.run(steps[-1]))
        except Ended as ended:
            return int(ended.args[0])
    shell.say(
        f"shortened: {SIZES.candidates} candidates per picture in stage 2 (the default: {DEFAULT_CANDIDATES}), "
        "decoders from the package; the whole path: md-reconstruct demo --full (make demo-full)"
    )
    return max(codes)


def open_shipped(instead: Callable[[], Path], say: Callable[[str], None], of: str = "") -> Path:
    """Write a shipped subject out in full, into a folder of the user's cache, or else into `instead`.

    What an earlier release wrote into the cache is deleted, where nobody uses it or has added anything to it.

    Parameters
    ----------
    instead
        Called where the cache cannot be written.
    say
        Receives single lines.
    of
        "": bundle/ and data/ of the fMRI subject. "eeg" or "meg": bundle/ and session/ of a live one.

    Raises
    ------
    FileError
        The shipped files are missing or damaged, or there is no place to write them.
    """
    packed, prefix = SHIPPED / of, f"shipped-{of}{of and '-'}"
    kept = kept_in(f"{prefix}{read_index(packed).sha256[:16]}", instead, say)
    unpack(packed, kept, WORLD, on_wait=say)
    mine = re.compile(rf"{prefix}[0-9a-f]{{16}}")
    if mine.fullmatch(kept.name):
        drop_older(kept, mine)
    return kept


def _subject(index: Index) -> dict[str, Any]:
    found = index.about.get("subject")
    kinds = {"brain": str, "seed": int, "n_train": int, "n_test": int, "n_structure": int}
    if not isinstance(found, dict) or not all(isinstance(found.get(name), kind) for name, kind in kinds.items()):
        raise FileError(f"the index of the shipped files says nothing of its subject's {', '.join(kinds)}: {ADVICE}")
    return found


def commands(
    out: Path,
    kept: Path,
    subject: dict[str, Any],
    stimuli: Path | None,
    pictures: Sequence[Path] | None,
) -> list[Step]:
    """The commands in their order; the last two are the two runs."""
    steps, data = [], kept / "data"
    if stimuli is not None:
        data = out / "data"
        simulate = ["md-train", "simulate", "fmri", "--seed", str(subject["seed"])]
        simulate += ["--brain", subject["brain"], "--n-train", str(subject["n_train"])]
        simulate += ["--stimuli", str(stimuli), "--out", str(data)]
        steps.append(Step(tuple(simulate), data / "data.json"))
    n_trials = subject["n_test"] if pictures is None else len(pictures)
    run = ["md-reconstruct", "run", str(kept / "bundle"), str(data), "--backend", "ort"]
    same = [*SIZES.computing(), "--note", note(n_trials, subject)]
    shuffled = pictures is None or not is_lone(pictures)
    both = [*SIZES.refinement(), *(["--controls", "shuffled"] if shuffled else [])]
    for name, stage in (("stage1", ["--stage", "1"]), ("run", both)):
        command = (*run, "--out", str(out / name), *stage, *same)
        steps.append(Step(command, out / name / "report.html", is_run=True))
    return steps


def _check_libraries(*, simulates: bool) -> None:
    reason = why_no_provider("ort")
    if reason is not None:
        raise MissingExtra(f"the demonstration runs on ONNX Runtime: {reason}")
    if simulates and find_spec("torch") is None:
        raise MissingExtra(
            "showing your own pictures to the simulated subject needs PyTorch: pip install 'minddiffuser[train]', or "
            "leave --stimuli out"
        )
