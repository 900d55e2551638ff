"""A simulated fMRI subject: eleven visual ROIs, and what a scanner adds to the drives of their voxels.

What drives a voxel is a kind of brain's business (brains/). Here are the areas, which all kinds have, and what is the
same for all: signals of variance 1, compression, noise, repetitions, noise ceilings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import InputError

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Area:
    """What an ROI is made of.

    Parameters
    ----------
    n_voxels : how many.
    layers : shallow CLIP layers (0 to 5, the `reference` preset) that its voxels see, each voxel one of them; of the
        `clip` brain alone.
    colour : range of the share of a voxel's structural variance that is local colour; the rest is the energy of
        orientations and spatial frequencies; of the `gabor` brain alone.
    field_sd : median receptive field, standard deviation as a fraction of the picture's side.
    structural : range of the share of a voxel's variance that is structural; the rest is semantic.
    """

    n_voxels: int
    layers: tuple[int, ...] = (4, 5)
    colour: tuple[float, float] = (0.2, 0.5)
    field_sd: float = 0.25
    structural: tuple[float, float] = (0.0, 0.0)


# Two thousand voxels. Early areas take three fifths, as in the retinotopic masks of NSD's subjects; receptive
# fields widen from V1 to hV4 about threefold, as pRF maps find, and hV4 is the area that colour drives most.
AREAS: dict[str, Area] = {
    "V1": Area(n_voxels=340, layers=(0, 1), field_sd=0.06, structural=(1.0, 1.0)),
    "V2": Area(n_voxels=320, layers=(0, 1, 2), field_sd=0.08, structural=(1.0, 1.0)),
    "V3": Area(n_voxels=260, layers=(2, 3), field_sd=0.10, structural=(1.0, 1.0)),
    "V3ab": Area(n_voxels=160, layers=(3, 4), field_sd=0.13, structural=(1.0, 1.0)),
    "hV4": Area(n_voxels=160, layers=(4, 5), colour=(0.4, 0.8), field_sd=0.17, structural=(1.0, 1.0)),
    "VO": Area(n_voxels=120),
    "PHC": Area(n_voxels=110),
    "MT": Area(n_voxels=50),
    "MST": Area(n_voxels=50),
    "LO": Area(n_voxels=220, layers=(4, 5), field_sd=0.25, structural=(0.0, 0.3)),
    "IPS": Area(n_voxels=210, layers=(3, 4, 5), field_sd=0.22, structural=(0.3, 0.7)),
}
# Low-level and high-level visual cortex, which the paper compares: together all areas.
GROUPS: dict[str, tuple[str, ...]] = {
    "LVC": ("V1", "V2", "V3", "V3ab", "hV4"),
    "HVC": ("VO", "PHC", "MT", "MST", "LO", "IPS"),
}


@dataclass(frozen=True, kw_only=True)
class FmriSettings:
    """What kind of subject and scanner.

    Parameters
    ----------
    snr : standard deviation of a voxel's signal over that of its noise in one repetition, the median voxel's.
    snr_spread : log-normal spread of the noise between voxels (standard deviation of its natural logarithm).
    train_repetitions : how often each training picture is shown; every showing is a trial of its own.
    test_repetitions : how often each test picture is shown; its trial is the mean of the showings.
    compression : how much strong responses saturate; 0 is linear (arcsinh of that many standard deviations).
    sparsity : share of the semantic features that drive one voxel.
    areas : the ROIs in order.
    """

    snr: float = 1.0
    snr_spread: float = 0.35
    train_repetitions: int = 1
    test_repetitions: int = 3
    compression: float = 0.3
    sparsity: float = 0.1
    areas: Mapping[str, Area] = field(default_factory=lambda: AREAS)

    def __post_init__(self) -> None:
        if not (np.isfinite(self.snr) and self.snr > 0):
            raise InputError(f"snr is {self.snr}: give a number above 0 (1 is a good single trial, 0.3 a poor one)")
        if not 0 <= self.snr_spread <= 2:
            raise InputError(f"snr_spread is {self.snr_spread}: give 0 to 2")
        for name in ("train_repetitions", "test_repetitions"):
            if getattr(self, name) not in (1, 2, 3):
                raise InputError(f"{name} is {getattr(self, name)}: a picture is shown 1, 2 or 3 times")
        if not 0 <= self.compression <= 10:
            raise InputError(f"compression is {self.compression}: give 0 (linear) to 10")
        if not 0 < self.sparsity <= 1:
            raise InputError(f"sparsity is {self.sparsity}: give a share above 0, at most 1")
        if not self.areas:
            raise InputError("no areas given: a subject needs at least one ROI")

    @property
    def n_voxels(self) -> int:
        """How many voxels all areas have."""
        return sum(area.n_voxels for area in self.areas.values())

    @property
    def rois(self) -> dict[str, tuple[int, int]]:
        """Name to (start, stop) in the voxel axis."""
        edges = np.cumsum([0, *(area.n_voxels for area in self.areas.values())])
        return {name: (int(a), int(b)) for name, a, b in zip(self.areas, edges[:-1], edges[1:], strict=True)}

    @property
    def groups(self) -> dict[str, frozenset[int]]:
        """Name to voxels, of the groups of `GROUPS` that the subject has areas of."""
        spans = {name: [range(*span) for area, span in self.rois.items() if area in GROUPS[name]] for name in GROUPS}
        return {name: frozenset(chain.from_iterable(parts)) for name, parts in spans.items() if parts}


@dataclass(frozen=True, kw_only=True)
class Drives:
    """What drives each voxel before noise: two parts, (n_stimuli, n_voxels) each."""

    structural: F32
    semantic: F32

    @staticmethod
    def join(parts: list[Drives]) -> Drives:
        """One after the other."""
        return Drives(
            structural=np.concatenate([part.structural for part in parts]),
            semantic=np.concatenate([part.semantic for part in parts]),
        )


@dataclass(frozen=True, kw_only=True)
class Responses:
    """A simulated split: `responses` (n_trials, n_voxels), `stimulus` (n_trials,), `noise_ceiling` (n_voxels,).

    `averages` says whether each trial is the mean of several showings.
    """

    responses: F32
    stimulus: NDArray[np.int64]
    noise_ceiling: F32
    averages: bool = False


def simulate_fmri(
    share: F32,
    drives: Mapping[str, Drives],
    settings: FmriSettings,
    rng: np.random.Generator,
    *,
    single_trials: bool = False,
) -> dict[str, Responses]:
    """Responses of both splits.

    Each voxel's signal is brought to mean 0 and variance 1 over the *training* pictures, test pictures with the
    same numbers. One showing adds Gaussian noise whose standard deviation differs between voxels, log-normal
    around 1 / snr. The stated ceiling of a trial of r averaged showings is 1 / (1 + noise variance / r), relative
    to the signal's variance over the training pictures in both splits.

    Parameters
    ----------
    share : (n_voxels,), share of each voxel's variance that is structural; the rest is semantic.
    drives : "train" and "test", from a kind of brain.
    settings : noise and repetitions.
    rng : of the noise; each split draws from a child of its own, so a longer training split does not change
        the test split's noise.
    single_trials : whether test trials stay single showings too, of which the averages are the means.

    Returns
    -------
    dict with "train" (one trial per showing, pictures in order, then again) and "test" (one averaged trial
    per picture, or single ones in the order of those of "train").
    """
    signals = _signals(share, drives, settings.compression)
    noise_rng, train_rng, test_rng = rng.spawn(3)
    n_voxels = len(share)
    noise_sd = np.exp(settings.snr_spread * noise_rng.standard_normal(n_voxels)) / settings.snr
    train = np.tile(signals["train"], (settings.train_repetitions, 1))
    train += _noise(train_rng, train.shape, noise_sd)
    n_train, n_test = len(signals["train"]), len(signals["test"])
    n_averaged = 1 if single_trials else settings.test_repetitions
    n_trials_each = settings.test_repetitions // n_averaged
    test = np.tile(signals["test"], (n_trials_each, 1))
    for repetition in range(settings.test_repetitions):
        rows = slice(n_test * repetition, n_test * (repetition + 1)) if single_trials else slice(None)
        test[rows] += _noise(test_rng, signals["test"].shape, noise_sd / n_averaged)
    return {
        "train": Responses(
            responses=train,
            stimulus=np.tile(np.arange(n_train, dtype=np.int64), settings.train_repetitions),
            noise_ceiling=noise_ceiling(noise_sd, 1),
        ),
        "test": Responses(
            responses=test,
            stimulus=np.tile(np.arange(n_test, dtype=np.int64), n_trials_each),
            noise_ceiling=noise_ceiling(noise_sd, n_averaged),
            averages=n_averaged > 1,
        ),
    }


def noise_ceiling(noise_sd: NDArray[np.float64], n_averaged: int) -> F32:
    """Share of a trial's variance that the picture explains, for signals of variance 1 (NSD, Allen et al. 2022).

    Signals have that variance over the training pictures, so the ceilings of both splits refer to these: test
    pictures that move a voxel less or more explain less or more of their own trials' variance. Unlike NSD's
    percentages it is a share in [0, 1], not percent.
    """
    return (1 / (1 + noise_sd**2 / n_averaged)).astype(np.float32)


def _signals(share: F32, drives: Mapping[str, Drives], compression: float) -> dict[str, F32]:
    """Mean 0 and variance 1 over the training pictures; all numbers come from those."""
    structural = standardise({split: part.structural for split, part in drives.items()})
    semantic = standardise({split: part.semantic for split, part in drives.items()})
    of_structure: F32 = np.sqrt(share).astype(np.float32)
    of_meaning: F32 = np.sqrt(1 - share).astype(np.float32)
    mixed = standardise({split: of_structure * structural[split] + of_meaning * semantic[split] for split in drives})
    if compression > 0:
        mixed = standardise({split: np.arcsinh(compression * part) for split, part in mixed.items()})
    return mixed


def standardise(parts: Mapping[str, F32]) -> dict[str, F32]:
    """Z-score each column, (n_stimuli, n_voxels), by the mean and standard deviation of "train"."""
    mean, sd = parts["train"].mean(axis=0), never_zero(parts["train"].std(axis=0))
    return {split: (part - mean) / sd for split, part in parts.items()}


def _noise(rng: np.random.Generator, shape: tuple[int, ...], sd: NDArray[np.float64]) -> F32:
    return rng.standard_normal(shape, dtype=np.float32) * sd.astype(np.float32)


def never_zero(sd: F32) -> F32:
    """A feature that never changes is divided by 1: it stays without effect instead of becoming NaN."""
    return np.where(sd > 1e-6 * max(float(sd.max(initial=0.0)), 1e-30), sd, np.float32(1)).astype(np.float32)
