"""The context by way of concepts: what a checkpoint holds of each candidate.

See :mod:`~minddiffuser.runtime.decoders.concepts`. Decoders are fitted to CLIP image embeddings of length 1. A
candidate's place among them is the embedding of its prompt by CLIP's text tower, or the mean over its training
pictures. Texts and pictures lie apart in that space, and a decoder that explains little gives something near the mean
for every trial; so before cosines are taken, the mean over the training trials is subtracted from what is decoded, and
from the candidates their own mean, or where they are of pictures, that over the training trials too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.candidates import FIELD as PART
from ..runtime.candidates import Candidates
from ..runtime.decoders.files import file_name
from ..runtime.errors import InputError
from ..runtime.files import read_tensors
from .candidates import ConceptSettings, outside, pictures_of

if TYPE_CHECKING:
    from .pieces import Job

Float32 = NDArray[np.float32]
# What is left of a candidate that is the mean of all, after rounding.
_SHORTEST = 1e-5
_AT_ONCE = 256


def unit(embeddings: NDArray[Any]) -> Float32:
    """Embeddings (n, d) at length 1, float32: what decoders are fitted to."""
    values = np.asarray(embeddings, np.float64)
    scaled: Float32 = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def write_concepts(job: Job, settings: ConceptSettings, embeddings: Float32) -> dict[str, Any]:
    """Write concepts.safetensors, unless it is there; after the constants.

    Parameters
    ----------
    embeddings : (n_stimuli, d)
        Of the training pictures, of length 1.

    Returns
    -------
    What checkpoint.json says of the candidates, and under "shapes" that of the context.

    Raises
    ------
    InputError
        A candidate has no training picture, where prototypes are made of these; or candidates that cannot be told
        apart.
    """
    for line in outside(job.data, settings):
        job.say(line)
    constants = read_tensors(job.journal.folder / file_name("constants"), "the constants")
    if file_name(PART) not in job.journal.files:
        job.journal.write(file_name(PART), _arrays(job, settings, embeddings, constants["context_bos"]))
    described = Candidates(names=settings.names, prompt=settings.prompt, prototypes=settings.prototypes).as_json()
    return {PART: described, "shapes": {"context": list(constants["uncond_context"].shape)}}


def _arrays(job: Job, settings: ConceptSettings, embeddings: Float32, bos: Float32) -> dict[str, Float32]:
    prototypes = (
        np.asarray(job.models.embed_text(settings.prompts()), np.float32)
        if settings.prototypes == "text"
        else _mean_of_pictures(settings.names, job.data.concepts("train"), embeddings)
    )
    if prototypes.shape[1] != embeddings.shape[1]:
        raise InputError(
            f"the CLIP's text embeddings have {prototypes.shape[1]} dimensions and its image embeddings "
            f"{embeddings.shape[1]}: give --concept-prototypes images"
        )
    candidates, centre = _centred(prototypes, embeddings[job.stimulus], same_space=settings.prototypes == "images")
    context = _contexts(job, settings.prompts())
    context[:, 0] = bos
    return {"embedding": candidates, "centre": centre, "context": context}


def _mean_of_pictures(names: Sequence[str], shown: Sequence[str], embeddings: Float32) -> Float32:
    places = [embeddings[rows].mean(axis=0, dtype=np.float64) for rows in pictures_of(names, shown).values()]
    return np.stack(places).astype(np.float32)


def _centred(prototypes: Float32, targets: Float32, *, same_space: bool) -> tuple[Float32, Float32]:
    """Candidates (n, d) less their mean (of pictures: less that of the targets), at length 1; the targets' mean."""
    centre = targets.mean(axis=0, dtype=np.float64)
    if len(prototypes) == 1:  # there is nothing to choose
        return unit(prototypes), centre.astype(np.float32)
    values = np.asarray(prototypes, np.float64)
    values = values - (centre if same_space else values.mean(axis=0))
    lengths = np.linalg.norm(values, axis=1)
    if lengths.min() < _SHORTEST:
        raise InputError(
            "a candidate lies where the mean of all does, so nothing says how near it is: are all candidates the same "
            "to CLIP? Give other names in --concepts, or another --concept-prompt"
        )
    return unit(values), centre.astype(np.float32)


def _contexts(job: Job, prompts: Sequence[str]) -> Float32:
    from .features.captions import cut_captions

    models: Any = job.models
    if hasattr(models, "tokenizer"):
        line = cut_captions([[prompt] for prompt in prompts], models).line()
        if line:
            job.say(line)
    parts = [job.models.encode_text(list(prompts[at : at + _AT_ONCE])) for at in range(0, len(prompts), _AT_ONCE)]
    arrays = [part if isinstance(part, np.ndarray) else part.float().cpu().numpy() for part in parts]
    return np.concatenate(arrays).astype(np.float32)
