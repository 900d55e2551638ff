"""What a finished run is measured by, and the files that say so."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TextIO

from ..environment import versions
from ..evidence.one_run import about_trials, write_evidence
from ..leaks import labelled
from ..metrics.extractors import Features, Given
from ..metrics.select import select_for_run
from ..progress import Phases
from ..report.text import metrics_table
from .batches import Outcome
from .concepts import concepts_line, decode_concepts
from .controls import OF_STAGE_2
from .decoded import decoded_lines, measure_decoded
from .job import DEFAULTS, Job
from .measure import Measured, measure_run, open_extractors
from .prepare import Work
from .responses import read_stimuli
from .summary import write_summary
from .without import without_note


def extractors_of(job: Job, work: Work) -> tuple[dict[str, Features], tuple[str, ...]]:
    """What the metrics compare, opened before anything is computed, and a note for each metric that is left out."""
    backend, given = work.backend, work.given
    if given.pictures is None:
        return {}, ()
    computed = [backend.models_hash, backend.computing, versions(backend.libraries)]
    return open_extractors(
        Given(
            embed=backend.embedding if backend.embeds else None,
            embed_identity=json.dumps(computed, sort_keys=True),
            classifier=backend.classifier,
            locator=backend.locator,
            captions=[given.captions[trial] for trial in work.good] if given.captions else (),
            device=backend.device,
            weights=job.weights,
            download=job.download_weights,
        ),
        select_for_run(job.metrics).metrics,
    )


def write_results(
    job: Job,
    work: Work,
    outcome: Outcome,
    extractors: Mapping[str, Features],
    notes: Sequence[str],
    stream: TextIO,
) -> Outcome:
    """Write summary.json and trials.json; measuring is a phase as the others are."""
    backend, given, missing = work.backend, work.given, notes
    start = time.perf_counter()
    measured, selected = Measured(), select_for_run(job.metrics)
    if extractors:
        ids = work.given.stimulus_ids
        with Phases(stream=stream) as phases:
            measured = measure_run(
                job.out,
                work.good,
                extractors,
                metrics=selected.metrics,
                stimulus_ids=None if ids is None else [ids[trial] for trial in work.good],
                trial_ids=given.trial_ids,
                seed=job.settings.refine.seed,
                on_progress=partial(phases, "measuring pictures"),
            )
    decoded, left_out = _decoded(job, work, outcome, selected.decoded, stream)
    outcome = replace(outcome, seconds={**outcome.seconds, "metrics": time.perf_counter() - start})
    concepts = decode_concepts(
        backend.decoder,
        work.responses,
        outcome.trials,
        concepts=given.concepts,
        stimulus_ids=given.stimulus_ids,
    )
    notes = (
        *without_note(job.settings.without),
        *(f"Warning: {warning}." for warning in work.warnings),
        *backend.notes,
        *notes,
        *left_out,
    )
    summary = write_summary(
        job.out,
        outcome,
        measured,
        seed=job.settings.refine.seed,
        simulated=given.simulated,
        notes=notes,
        trial_ids=given.named,
        concepts=concepts,
        leaks=backend.decoder.leaks,
        extractors={name: features.weights for name, features in extractors.items() if features.weights},
        decoded=decoded,
    )
    write_evidence(
        job.out,
        measured.values,
        measured.stimulus_ids,
        seed=job.settings.refine.seed,
        about=_about(work),
        missing=_missing_controls(work),
    )
    stream.write(metrics_table(summary))
    for line in decoded_lines(decoded):
        stream.write(f"{line}\n")
    if job.metrics != DEFAULTS:  # of what was asked for by name
        for note in (*missing, *left_out):
            stream.write(f"md-reconstruct: {note}\n")
    if concepts is not None:
        stream.write(f"{concepts_line(summary['concepts'])}\n")
    return outcome


def _missing_controls(work: Work) -> dict[str, str]:
    """Why the run lacks some of its controls, where it is not that they were not asked for."""
    stage_1 = dict.fromkeys(OF_STAGE_2, "the run stopped after stage 1") if work.settings.stage == 1 else {}
    return {**stage_1, **work.left_out_controls}


def _alike(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What runs that differ in their seeds alone have in common; controls change no other picture."""
    refine = {name: value for name, value in settings["refine"].items() if name != "seed"}
    stated = {name: value for name, value in settings.items() if name not in ("controls", "stage", "without")}
    return {**stated, "refine": refine}


def _about(work: Work) -> dict[str, Any]:
    """What the run is, as its evidence says it."""
    given, decoder, settings = work.given, work.backend.decoder, work.settings
    return {
        "subject": decoder.subject,
        "models": work.backend.models_name,
        "checkpoint": work.backend.hash,
        "stage": settings.stage,
        "seed": settings.refine.seed,
        "settings": _alike(settings.as_dict()),
        "trials": about_trials([given.trial_ids[trial] for trial in work.good]),
        **({"without": list(settings.without)} if settings.without else {}),
        "split": None if decoder.split is None else decoder.split.described(),
        "simulated": given.simulated,
        **({} if given.brain is None else {"brain": given.brain}),
        **labelled(decoder.leaks),
    }


def _decoded(
    job: Job, work: Work, outcome: Outcome, asked: Sequence[str], stream: TextIO
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What is said of the decoded features themselves, and why something is left out."""
    pictures, ids, trials = work.given.pictures, work.given.stimulus_ids, outcome.trials
    if not asked or not trials:
        return {}, ()
    said = " and ".join(asked)
    if pictures is None:
        return {}, (f"{said} left out: what was shown is not known.",)
    if job.settings.stage == 1:
        return {}, (f"{said} left out: a run that stops after stage 1 decodes neither structure nor semantics.",)
    if not work.backend.embeds:
        return {}, (f"{said} left out: the bundle has no graph clip_structure.",)
    size = work.backend.decoder.image_size
    with Phases(stream=stream) as phases:
        return measure_decoded(
            asked,
            work.backend,
            work.responses,
            trials,
            lambda some: read_stimuli([pictures[trial] for trial in some], size),
            None if ids is None else [ids[trial] for trial in trials],
            job.settings.refine.seed,
            partial(phases, "measuring decoded features"),
        )
