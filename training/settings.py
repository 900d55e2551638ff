"""How a checkpoint is fitted, and what fitting needs of models."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ..runtime.data.layout import ResponseLayout
from ..runtime.errors import InputError
from ..runtime.features import EMBEDDING, TARGETS
from ..runtime.split import FIELD as SPLIT
from ..runtime.split import Split
from .candidates import ConceptSettings
from .decoders.base import Decoder, changed, fitted_to, make_decoder, validates_itself
from .leaky import Leaky
from .regions import Regions
from .selection import SelectionSettings

# (phase, done, total)
OnProgress = Callable[[str, int, int], None]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How a checkpoint is fitted; the defaults are the paper's.

    Attributes
    ----------
    context, latent, structure, semantic, embedding : Decoder
        One fitter per feature, from :func:`~minddiffuser.training.decoders.base.make_decoder`.
    concepts : ConceptSettings, optional
        Where the context is found by way of concepts: the embedding is decoded in its place.
    selection : SelectionSettings
        Algorithm 1; only selected structure dimensions are fitted and decoded.
    cache_dir : Path, optional
        Where features are kept; "features" beside the checkpoint when not given.
    batch_size : int
        Stimuli per forward pass of the models.
    n_threads : int, optional
        All usable CPUs when not given.
    shared_trunk : bool
        Whether features whose decoders are networks of the same settings are heads of one network.
    average_repetitions : bool
        Whether the training trials of a picture are averaged into one before anything is computed.
    device : str
        Where networks are trained: "auto", "cpu", "cuda" or "cuda:1".
    save_every : int
        Epochs after each of which a network's training can go on from where it was.
    regions : Regions, optional
        Of fMRI: whose voxels are used, where not all are.
    leak : Leaky, optional
        What leaks on purpose; the checkpoint is labelled with it.
    split : Split, optional
        How the data's training pictures were chosen, where it was not by the data's own split; the checkpoint says so.
    """

    context: Decoder = field(default_factory=lambda: make_decoder("ridge", "context"))
    latent: Decoder = field(default_factory=lambda: make_decoder("ridge", "latent"))
    structure: Decoder = field(default_factory=lambda: make_decoder("ridge", "structure"))
    semantic: Decoder = field(default_factory=lambda: make_decoder("ridge", "semantic"))
    embedding: Decoder = field(default_factory=lambda: make_decoder("ridge", "embedding"))
    concepts: ConceptSettings | None = None
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    cache_dir: Path | None = None
    batch_size: int = 32
    n_threads: int | None = None
    shared_trunk: bool = False
    average_repetitions: bool = False
    device: str = "auto"
    save_every: int = 10
    regions: Regions | None = None
    leak: Leaky | None = None
    split: Split | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "n_threads", "save_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}, expected at least 1")
        if self.shared_trunk and len(self.groups(TARGETS)) == len(TARGETS):
            raise InputError(
                "a shared trunk needs two features or more whose decoders are networks with the same options: give "
                "one --decoder for them, and options that are not of one feature (only contrastive may be)"
            )
        self.selecting()  # options that its decoder does not have are refused now, not after the features

    def fitted_to(self, layout: ResponseLayout) -> FitSettings:
        """The same settings for responses laid out in this way; see :func:`.decoders.base.fitted_to`.

        Raises
        ------
        InputError
            A feature's decoder does not take such responses.
        """
        decoders: dict[str, Any] = {name: fitted_to(self.decoder(name), layout) for name in self.targets}
        return replace(self, **decoders)

    def selecting(self) -> Decoder:
        """The decoder of the selection's folds: the structure's own, or the ridge where that one validates itself.

        A network would be trained anew in every fold for every block of dimensions.
        """
        decoder = make_decoder("ridge", "structure") if validates_itself(self.structure) else self.structure
        given = {"n_selected": self.selection.n_selected, "alpha": self.selection.alpha}
        options = {name: value for name, value in given.items() if value is not None}
        return changed(decoder, "structure", **options) if options else decoder

    def decoder(self, target: str) -> Decoder:
        """The settings of one feature."""
        decoder: Decoder = getattr(self, target)
        return decoder

    def groups(self, names: Iterable[str]) -> list[tuple[str, ...]]:
        """Which of these features are fitted together, in the order of their first."""
        groups: dict[str, tuple[str, ...]] = {}
        for name in names:
            trunk = getattr(self.decoder(name), "trunk", name) if self.shared_trunk else name
            groups[trunk] = (*groups.get(trunk, ()), name)
        return list(groups.values())

    @property
    def targets(self) -> tuple[str, ...]:
        """What has a decoder: every feature, the context or the embedding in its place."""
        other = EMBEDDING if self.concepts is None else "context"
        return tuple(name for name in TARGETS if name != other)

    def deciding(self) -> dict[str, Any]:
        """What changes the result, as JSON."""
        kept = {name: self.decoder(name).describe() for name in self.targets}
        # Only where they say something: a fit that was begun before they were there goes on.
        more = {name: True for name in ("shared_trunk", "average_repetitions") if getattr(self, name)}
        route = {} if self.concepts is None else {"concepts": self.concepts.describe()}
        leak = {} if self.leak is None else {"leak": self.leak.describe()}
        split = {} if self.split is None else {SPLIT: self.split.as_json()}
        regions = {} if self.regions is None else {"regions": asdict(self.regions)}
        selection = asdict(self.selection)
        if self.selection.alpha is None:
            del selection["alpha"]
        return {**kept, **more, **route, **regions, **leak, **split, "selection": selection}


class FitModels(Protocol):
    """What fitting needs of models: :class:`~minddiffuser.runtime.models.models.Models` has it."""

    @property
    def name(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def preset(self) -> str: ...
    @property
    def image_size(self) -> int: ...

    def encode_text(self, captions: list[str]) -> Any:
        """Captions to contexts, tensor (n, 15, d_text)."""
        ...

    def embed_text(self, texts: list[str]) -> Any:
        """Texts to places among CLIP's image embeddings, (n, embed_dim); only where concepts are looked for there."""
        ...


def cache_folder(out: Path, settings: FitSettings) -> Path:
    return settings.cache_dir or Path(os.path.realpath(out)).parent / "features"
