"""What a finished run is measured by, and the files that say so."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TextIO

from ..environment import versions
from ..metrics.extractors import Features, Given
from ..progress import Phases
from ..report.text import metrics_table
from .batches import Outcome
from .concepts import concepts_line, decode_concepts
from .job import Job
from .measure import Measured, measure_run, open_extractors
from .prepare import Work
from .summary import write_summary
from .without import without_note


def extractors_of(work: Work) -> tuple[dict[str, Features], tuple[str, ...]]:
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
        )
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
    backend, given = work.backend, work.given
    start = time.perf_counter()
    measured = Measured()
    if extractors:
        ids = work.given.stimulus_ids
        with Phases(stream=stream) as phases:
            measured = measure_run(
                job.out,
                work.good,
                extractors,
                stimulus_ids=None if ids is None else [ids[trial] for trial in work.good],
                trial_ids=given.trial_ids,
                seed=job.settings.refine.seed,
                on_progress=partial(phases, "measuring pictures"),
            )
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
    )
    stream.write(metrics_table(summary))
    if concepts is not None:
        stream.write(f"{concepts_line(summary['concepts'])}\n")
    return outcome
