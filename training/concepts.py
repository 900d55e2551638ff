"""The context by way of concepts: which candidates there are, and what a checkpoint holds of each.

See :mod:`~minddiffuser.runtime.decoders.concepts`. Decoders are fitted to CLIP image embeddings of length 1. A
candidate's place among them is the embedding of its prompt by CLIP's text tower, or the mean over its training
pictures. Texts and pictures lie apart in that space, and a decoder that explains little gives something near the mean
for every trial; so the mean over the training trials is subtracted from what is decoded and the mean over the
candidates from these, before cosines are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.data.concepts import alike, distinct, read_concepts
from ..runtime.decoders.concepts import FIELD as PART
from ..runtime.decoders.concepts import PROTOTYPES, Candidates
from ..runtime.decoders.files import file_name
from ..runtime.errors import InputError, check_choice
from ..runtime.files import read_tensors

if TYPE_CHECKING:
    from .datasets.base import Data
    from .pieces import Job

Float32 = NDArray[np.float32]
ROUTES = ("direct", "concepts")
PROMPT = "a picture of a {}"
# What is left of a candidate that is the mean of all, after rounding.
_SHORTEST = 1e-5
_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class ConceptSettings:
    """The candidates.

    Attributes
    ----------
    names
        Each once.
    prompt
        Whose context is taken, with "{}" in the concept's place.
    prototypes
        "text": CLIP's text embedding of the prompt; "images": the mean image embedding of the training pictures.

    Raises
    ------
    InputError
        A name is none or occurs twice, or the prompt has no place for it.
    """

    names: tuple[str, ...]
    prompt: str = PROMPT
    prototypes: str = PROTOTYPES[0]

    def __post_init__(self) -> None:
        distinct(self.names, "the list of candidates")
        check_choice("kind of prototypes", self.prototypes, PROTOTYPES)
        if self.prompt.count("{}") != 1 or not self.prompt.isprintable() or len(self.prompt) > 200:
            raise InputError(
                f"the prompt is {self.prompt!r:.80}: give a line with {{}} where the concept goes, such as {PROMPT!r}"
            )

    def describe(self) -> dict[str, Any]:
        """JSON of what decides the numbers."""
        return asdict(self)

    def prompts(self) -> list[str]:
        """The prompt of each candidate; a name's underscores are spaces."""
        return [self.prompt.replace("{}", name.replace("_", " ")) for name in self.names]


def concept_settings(
    data: Data, *, route: str | None, names: Path | None, prompt: str | None, prototypes: str | None
) -> ConceptSettings | None:
    """What a person asked for; None where the context is decoded directly.

    Parameters
    ----------
    data
        Of which nothing but the modality and the concepts are looked at. Without `names`, the candidates are the
        concepts of all its pictures, training and test: a list of what there may be, as in the published zero-shot
        test among 200. Which concept a test trial showed is not looked at.
    route
        A name of `ROUTES`; None: "concepts" for EEG and MEG where the data name concepts, else "direct".
    names
        File of candidates.

    Raises
    ------
    InputError
        There is no candidate, or options that belong to the other route.
    """
    own = {split: tuple(data.concepts(split)) for split in ("train", "test")} if hasattr(data, "concepts") else {}
    if route is None:
        by_concepts = data.layout.modality in ("eeg", "meg") and any(own.values())
        route = "concepts" if by_concepts or names is not None else "direct"
    check_choice("route of the context", route, ROUTES)
    given = {"--concepts": names, "--concept-prompt": prompt, "--concept-prototypes": prototypes}
    if route == "direct":
        strange = [option for option, value in given.items() if value is not None]
        if strange:
            raise InputError(f"{' and '.join(strange)} are for --context concepts: leave them out, or give that")
        return None
    kind = prototypes or PROTOTYPES[0]
    splits = ("train",) if kind == "images" else ("train", "test")  # a candidate without a picture has no place
    found = sorted({name for split in splits for name in own.get(split, ())})
    if names is None and not found:
        raise InputError(
            "the data folder names no concepts: give the candidates with --concepts FILE, one name a line, or decode "
            "the context with --context direct"
        )
    taken = read_concepts(names) if names is not None else tuple(found)
    return ConceptSettings(names=taken, prototypes=kind, **({} if prompt is None else {"prompt": prompt}))


def outside(data: Data, settings: ConceptSettings) -> list[str]:
    """A sentence for each split some of whose concepts are not among the candidates."""
    known, lines = {alike(name) for name in settings.names}, []
    for split in ("train", "test") if hasattr(data, "concepts") else ():
        shown = sorted(set(data.concepts(split)))
        missing = [name for name in shown if alike(name) not in known]
        if missing:
            lines.append(
                f"{len(missing)} of {len(shown)} {split} concepts are not among the {len(known)} candidates, such as "
                f"{missing[0]!r}: the context of trials that showed them is that of another concept"
            )
    return lines


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
    of = {name: [row for row, concept in enumerate(shown) if alike(concept) == alike(name)] for name in names}
    without = [name for name, rows in of.items() if not rows]
    if without:
        raise InputError(
            f"{len(without)} of {len(names)} candidates have no training picture, such as {without[0]!r}, of which "
            "their place could be made: give --concept-prototypes text, or leave them out of --concepts"
        )
    return np.stack([embeddings[rows].mean(axis=0, dtype=np.float64) for rows in of.values()]).astype(np.float32)


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
