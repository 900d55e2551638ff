"""The candidates of the context's route by way of concepts: what a person asked for, and what that lacks.

What a checkpoint holds of each candidate is made by :mod:`.concepts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..runtime.candidates import PROTOTYPES
from ..runtime.data.concepts import alike, distinct, read_concepts
from ..runtime.errors import InputError, check_choice
from .datasets.base import Data

ROUTES = ("direct", "concepts")
PROMPT = "a picture of a {}"


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
        There is no candidate, or none with a training picture where its place is made of these; or options that
        belong to the other route.
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
            are = "is" if len(strange) == 1 else "are"
            raise InputError(f"{' and '.join(strange)} {are} for --context concepts: leave out, or give that")
        return None
    kind = prototypes or PROTOTYPES[0]
    splits = ("train",) if kind == "images" else ("train", "test")  # a candidate without a picture has no place
    found = sorted({alike(name): name for split in splits for name in own.get(split, ())}.values())
    if names is None and not found:
        raise InputError(
            "the data folder names no concepts: give the candidates with --concepts FILE, one name a line, or decode "
            "the context with --context direct"
        )
    taken = read_concepts(names) if names is not None else tuple(found)
    settings = ConceptSettings(names=taken, prototypes=kind, **({} if prompt is None else {"prompt": prompt}))
    if kind == "images":
        pictures_of(settings.names, own.get("train", ()))
    return settings


def pictures_of(names: Sequence[str], shown: Sequence[str]) -> dict[str, list[int]]:
    """The training pictures of each candidate, whose mean its place is to be.

    Parameters
    ----------
    names
        Of the candidates.
    shown
        The concept of each training picture.

    Raises
    ------
    InputError
        A candidate has none.
    """
    of: dict[str, list[int]] = {alike(name): [] for name in names}
    for row, concept in enumerate(shown):
        of.get(alike(concept), []).append(row)
    without = [name for name in names if not of[alike(name)]]
    if without:
        raise InputError(
            f"{len(without)} of {len(names)} candidates have no training picture, such as {without[0]!r}, of which "
            "their place could be made: give --concept-prototypes text, or leave them out of --concepts"
        )
    return {name: of[alike(name)] for name in names}


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
