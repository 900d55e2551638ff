"""What a kind of simulated brain is: pictures in, what drives each voxel out; noise and scanner are fmri.py's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from ....runtime.errors import check_choice
from ..fmri import F32, Drives, FmriSettings
from ..shown import Shown, Squares
from . import BRAINS

Report = Callable[[str, int, int], None]

# Options of md-train simulate that say which models, and where they compute.
MODEL_OPTIONS = ("models", "clip", "device")


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What a brain made of the pictures.

    Parameters
    ----------
    share : (n_voxels,) float32, share of each voxel's variance that is structural; the rest is semantic.
    train, test : what drives each voxel.
    """

    share: F32
    train: Drives
    test: Drives


class Viewer(Protocol):
    """What the simulation needs of models: :class:`Models` of runtime.models has it."""

    @property
    def name(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def image_size(self) -> int:
        """Side of a picture in px."""
        ...

    @property
    def device(self) -> Any: ...

    def encode_text(self, captions: Sequence[str]) -> Any:
        """Captions to contexts, tensor (n, 15, d_text)."""
        ...

    def structure(self, image: Any, *, semantic: bool = False) -> tuple[Any, Any]:
        """Images (n, 3, H, W) to structure (n, 6, n_tokens, d_vision) and semantic feature (n, d)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a brain may be made with; each kind uses what it needs, and models are opened by those that need them.

    Parameters
    ----------
    open_models : opens the networks whose features are decoded, with the `reference` layer preset.
    model_folder : where those networks lie, if in a folder; a classifier may lie beside them.
    batch_size : pictures at a time.
    """

    open_models: Callable[[], Viewer]
    model_folder: Path | None = None
    batch_size: int = 32


class SimulatedBrain(Protocol):
    """A kind of brain.

    A subject's weights are drawn in `look`, from the generator given, and forgotten with it: nothing writes them.
    Rules that the contract tests check: the same generator gives the same subject; training drives do not depend on
    the test pictures; a voxel depends on structure where `share` is above 0 and on meaning where it is below 1; `share`
    lies in the area's range; every voxel varies between pictures.
    """

    name: ClassVar[str]  # its name in BRAINS
    made_of: ClassVar[str]  # what drives its voxels, for the command's help: a clause without a full stop

    @classmethod
    def reads(cls, *, own_pictures: bool) -> tuple[str, ...]:
        """Those of `MODEL_OPTIONS` that change it; the command refuses the others. Arguments as of `open`."""
        ...

    @classmethod
    def open(cls, sources: Sources, *, own_pictures: bool) -> SimulatedBrain:
        """Make the brain; `own_pictures`: whether it will see pictures without captions and labels."""
        ...

    @property
    def image_size(self) -> int:
        """Side in px of the pictures that it is shown and that are stored."""
        ...

    @property
    def provenance(self) -> dict[str, Any]:
        """What decides its responses beside seed and settings, as JSON."""
        ...

    def look(
        self, train: Shown, test: Shown, settings: FmriSettings, rng: np.random.Generator, report: Report
    ) -> Looked:
        """Draw a subject and let it look at all pictures; `report` is called with (phase, done, total)."""
        ...


def brain_class(name: str) -> type[SimulatedBrain]:
    """The class of a kind by its name.

    Raises
    ------
    InputError
        An unknown name.
    """
    check_choice("brain", name, BRAINS)
    module, made = BRAINS[name]
    found: type[SimulatedBrain] = getattr(import_module(f".{module}", __package__), made)
    return found


def batches(images: Squares, batch_size: int) -> Iterator[Squares]:
    """The pictures in order, `batch_size` at a time."""
    return (images[start : start + batch_size] for start in range(0, len(images), batch_size))
