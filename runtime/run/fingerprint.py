"""Everything that the pictures of a run depend on, as JSON: what its folder is known by."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..backends.base import Backend, Decoder
from ..data.pictures import Picture
from ..data.trial_ids import hash_of_ids
from ..environment import versions
from ..files import sha256_of
from ..leaks import labelled
from .controls import OF_TRAINING
from .job import Job
from .responses import Responses


def early_identity(
    job: Job, backend: Backend[Any], given: Responses, good: Sequence[int], left: Collection[int]
) -> dict[str, Any]:
    """What is known of the run's identity before the networks are opened."""
    settings, decoder = job.settings.as_dict(), backend.decoder
    if left:  # they decide who is in a batch with whom, and which targets are shuffled
        settings["skip_trials"] = sorted(left)
    stimuli = None if given.pictures is None else _hash_pictures([given.pictures[trial] for trial in good])
    return {
        "settings": {**settings, "layer_preset": decoder.preset},
        "hashes": {
            **({} if backend.hash is None else {"checkpoint": backend.hash}),
            "responses": given.hash,
            "trial_ids": hash_of_ids(given.trial_ids),
            "stimuli": stimuli,
            **_of_training(job, decoder),
        },
        "data": {
            "subject": decoder.subject,
            "n_trials": len(given.rows),
            "simulated": given.simulated,
            **({} if given.brain is None else {"brain": given.brain}),
        },
    }


def whole_identity(job: Job, backend: Backend[Any], early: Mapping[str, Any], *, batch_size: int) -> dict[str, Any]:
    """Everything that the pictures depend on, as JSON; under "given" and "notes" what they do not depend on."""
    options, refine = job.options, job.settings.refine.as_dict()  # a budget is candidates by now
    return {
        "settings": {**early["settings"], "refine": refine, "batch_size": batch_size, **backend.computing},
        "versions": versions(backend.libraries),
        "hashes": {**early["hashes"], "checkpoint": backend.hash, "models": backend.models_hash},
        "data": early["data"],
        "given": {
            "models": options.models or backend.models_name,
            "clip": options.clip,
            "checkpointing": options.checkpointing,
        },
        **labelled(backend.decoder.leaks),
        "notes": list(job.notes),
    }


def _of_training(job: Job, decoder: Decoder) -> dict[str, str]:
    """What the controls that are made of the training pictures depend on."""
    table = decoder.training_pictures if set(job.settings.control_names) & set(OF_TRAINING) else None
    return {} if table is None else {"training_pictures": table.hash}


def _hash_pictures(pictures: Sequence[Picture]) -> str:
    digests = {one: sha256_of(one) if isinstance(one, Path) else one.sha256 for one in set(pictures)}
    return hashlib.sha256("\n".join(digests[one] for one in pictures).encode()).hexdigest()
