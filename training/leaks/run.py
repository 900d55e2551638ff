"""Both forms of a leak fitted, tested with the same trials, and compared: what ``--allow-leak`` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...runtime.decoders.checkpoint import open_checkpoint
from ...runtime.errors import InputError
from ...runtime.files import write_json
from ...runtime.progress import unheard
from ..checkpoint_folder import LEAK
from ..datasets.base import Data
from ..fit import check_out, fit
from ..settings import FitModels, FitSettings, OnProgress, Say, cache_folder
from .base import Given, open_leak
from .compare import CONCEPT, Compared, concept_places, table, tested_pictures

VERSION = 1
_HEAD = ("", "leaky", "clean", "leaky - clean", "95 % interval")


def clean_folder(out: Path) -> Path:
    """Where the clean checkpoint goes: beside the leaky one."""
    return out.with_name(f"{out.name}-clean")


def check_leak(name: str, data: Data, out: Path, settings: FitSettings) -> None:
    """Refuse what can be refused before models are opened.

    Raises
    ------
    InputError
        The leak is unknown, or does not apply to these data or decoders.
    FileError
        A folder cannot be written, or holds something else.
    """
    settings = settings.fitted_to(data.layout)
    check_out(clean_folder(out), settings)
    if len(data.stimulus("test")) == 0:
        raise InputError(f"the leak {name} is measured with test trials, and these data have none: give some")
    open_leak(name).check(data, settings)


def fit_leak(
    name: str,
    data: Data,
    models: FitModels,
    out: Path,
    settings: FitSettings,
    *,
    progress: OnProgress | None = None,
    say: Say | None = None,
) -> dict[str, Any]:
    """Fit the leaky checkpoint into `out` and the clean one beside it, and compare them.

    Parameters
    ----------
    name
        Of the registry.
    data, models, out, settings, progress, say
        As :func:`..fit.fit` has them; what an earlier call has finished is kept. Features are shared by both.

    Returns
    -------
    dict
        The content of leak.json, which is written into `out`.

    Raises
    ------
    MindDiffuserError
        As :func:`check_leak` and :func:`..fit.fit`.
    """
    out = Path(out)
    check_leak(name, data, out, settings)
    settings = replace(settings.fitted_to(data.layout), cache_dir=cache_folder(out, settings))
    leak, report, say = open_leak(name), progress or unheard, say or unheard
    with TemporaryDirectory() as scratch:
        given = Given(
            data=data, settings=settings, models=models, out=out, scratch=Path(scratch), progress=report, say=say
        )
        forms = dict(zip(("leaky", "clean"), leak.forms(given), strict=True))
        places = {"leaky": out, "clean": clean_folder(out)}
        for kind, form in forms.items():

            def named(phase: str, done: int, total: int, kind: str = kind) -> None:
                report(f"{kind}: {phase}", done, total)

            def said(line: str, kind: str = kind) -> None:
                say(f"{kind}: {line}")

            fit(form.data, models, places[kind], replace(settings, leak=form.leak), progress=named, say=said)
        checkpoints = {kind: open_checkpoint(place) for kind, place in places.items()}
        compared = Compared(checkpoints["clean"], checkpoints["leaky"])
        for checkpoint in checkpoints.values():
            checkpoint.prepare()
        semantic = given.features(forms["clean"].data, "train").get("semantic")
        spots = None if semantic is None else concept_places(compared, forms["clean"].data, semantic)
        # The leaky form's own features are what a report of it would compare with.
        found = {
            kind: compared.scores(checkpoints[kind], form.data, given.features(form.data, "test"), spots)
            for kind, form in forms.items()
        }
        ids = tested_pictures(forms["leaky"].data, forms["clean"].data)
    content = {
        "format": "minddiffuser-leak",
        "version": VERSION,
        "leak": name,
        "source": leak.SOURCE,
        "what": leak.WHAT,
        "subject": data.subject,
        "n_trials": len(ids),
        "n_pictures": len(set(ids)),
        "clean": places["clean"].name,
        "checkpoints": {kind: checkpoint.hash for kind, checkpoint in checkpoints.items()},
        "scores": table(found["leaky"], found["clean"], ids),
    }
    write_json(out / LEAK, content)
    return content


def report_text(content: Mapping[str, Any]) -> str:
    """The comparison of leak.json as a table for a terminal."""
    rows = [_HEAD]
    for name, score in content["scores"].items():
        label = "concept, right at first" if name == CONCEPT else f"{name}, correlation"
        numbers = (f"{score['leaky']:.3f}", f"{score['clean']:.3f}", f"{score['difference']:+.3f}")
        ci95 = score["ci95"]
        rows.append((label, *numbers, "too few pictures" if ci95 is None else f"{ci95[0]:+.3f} to {ci95[1]:+.3f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = (
        f"Leak {content['leak']}: {content['what']}.\nIn {content['source']}.\n"
        f"{content['n_trials']} test trials of {content['n_pictures']} pictures:"
    )
    return "\n".join([head, *lines])
