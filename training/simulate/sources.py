"""Currents in the cortex: where an area's voxels lie, and when their signals become current.

Every voxel of the fMRI simulation is one current dipole here, so that EEG, MEG and fMRI look at the same signals. An
area lies where atlases have it (MNI coordinates, both hemispheres alike), its voxels are scattered around that place,
half on either side, and each has the direction of its own piece of the folded cortex: the area's, and a random one.
Which voxel sees which part of the picture has no part in where it lies.

A picture makes a voxel's current rise and fall as a gamma function. Structure comes first, in the order of the areas
(peaks from 95 ms in V1 to 160 ms in LO and IPS), with a weaker rebound of the other sign; meaning follows (peaks from
230 ms in VO to 340 ms in IPS). The peaks are those of intracranial and MEG studies, rounded: onsets of 50 to 60 ms in
V1 and some 10 ms more per area (Schmolesky et al. 1998; Bullier 2001), low-level features decoded best around 100 ms,
categories between 150 and 400 ms (Cichy, Pantazis & Oliva 2014; Contini, Wardle & Carlson 2017). Voxels of one area
peak up to 15 ms earlier or later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .base import TARGET
from .fmri import F32, Drives, FmriSettings, standardise
from .sensors import head_model, into_brain, to_head

F64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an area is, and when it answers.

    Parameters
    ----------
    mni : of its middle in the right hemisphere, mm.
    structural_s, semantic_s : when its structural and its semantic part peak, seconds after the picture.
    """

    mni: tuple[float, float, float]
    structural_s: float = 0.15
    semantic_s: float = 0.3


# After the maximum probability maps of Wang et al. (2015) and Glasser et al. (2016), rounded to 2 mm.
PLACES: dict[str, Place] = {
    "V1": Place(mni=(10, -90, 0), structural_s=0.095),
    "V2": Place(mni=(14, -92, 6), structural_s=0.105),
    "V3": Place(mni=(20, -92, 10), structural_s=0.115),
    "V3ab": Place(mni=(22, -88, 22), structural_s=0.125),
    "hV4": Place(mni=(28, -76, -12), structural_s=0.13),
    "VO": Place(mni=(26, -62, -10), semantic_s=0.23),
    "PHC": Place(mni=(28, -46, -10), semantic_s=0.27),
    "MT": Place(mni=(46, -70, 4), semantic_s=0.24),
    "MST": Place(mni=(46, -62, 8), semantic_s=0.26),
    "LO": Place(mni=(42, -76, -2), structural_s=0.16, semantic_s=0.25),
    "IPS": Place(mni=(24, -70, 44), structural_s=0.16, semantic_s=0.34),
}
_ELSEWHERE = Place(mni=(30, -74, 0))
# Of an area's voxels around its middle, mm along each axis.
_SCATTER_MM = 7.0
_DEEPEST = 0.97  # of the brain sphere's radius: the cortex
# How alike the directions of an area's voxels are, relative to one random vector of length sqrt(3).
_ALIGNED = 1.0
_JITTER_S = (-0.015, 0.0, 0.015)
# Shape of the gamma functions: a standard deviation of about peak / sqrt(order).
_ORDER = {"structural": 14.0, "semantic": 9.0}
_REBOUND, _REBOUND_AFTER = 0.4, 2.0
KERNEL_S = 0.9
# Other activity: down to this height below the sphere's centre (the cortex ends there), and from this depth up.
_LOWEST, _INNERMOST = -0.5, 0.6
_OF_ALPHA = ("V1", "V2", "V3", "V3ab", "IPS")
# What every picture does alike, in standard deviations of what tells pictures apart.
_ONSET = 0.4


@dataclass(frozen=True)
class Dipoles:
    """Current dipoles: `positions` (n, 3) m in head coordinates, `directions` (n, 3) unit vectors."""

    positions: F64
    directions: F64


@dataclass(frozen=True)
class Cortex:
    """A subject's visual cortex: its voxels' `dipoles`, and of each voxel the number (n_voxels,) of its jitter."""

    dipoles: Dipoles
    jitter: NDArray[np.int64]
    rois: Mapping[str, tuple[int, int]]


def draw_cortex(settings: FmriSettings, rng: np.random.Generator) -> Cortex:
    """Place the voxels of a subject's areas."""
    positions, directions = [], []
    for name, area in settings.areas.items():
        left = rng.permutation(area.n_voxels) < area.n_voxels // 2
        place = np.array(PLACES.get(name, _ELSEWHERE).mni, float)
        spot = place + _SCATTER_MM * rng.standard_normal((area.n_voxels, 3))
        towards = _unit(rng.standard_normal(3)) * np.sqrt(3) * _ALIGNED
        direction = towards + rng.standard_normal((area.n_voxels, 3))
        mirror = np.where(left[:, None], [-1.0, 1.0, 1.0], 1.0)
        positions.append(spot * mirror)
        directions.append(direction * mirror)
    dipoles = Dipoles(into_brain(to_head(np.concatenate(positions)), _DEEPEST), _unit(np.concatenate(directions)))
    return Cortex(dipoles, rng.integers(len(_JITTER_S), size=settings.n_voxels), settings.rois)


@dataclass(frozen=True)
class Part:
    """Voxels of one area whose currents have one time course.

    Parameters
    ----------
    kind : "structural" or "semantic".
    peak_s : when the current peaks, seconds after the picture.
    voxels : (n,) their numbers.
    amplitudes : "train", "test" and `TARGET`, (n_pictures, n) float32, in standard deviations over the training
        pictures. There is one target, a picture like the average one: nothing but the key tells it apart.
    """

    kind: str
    peak_s: float
    voxels: NDArray[np.intp]
    amplitudes: Mapping[str, F32]


def parts_of(cortex: Cortex, share: F32, drives: Mapping[str, Drives], compression: float) -> list[Part]:
    """What each split's pictures do to the cortex.

    The structural and the semantic part of a voxel have the standard deviations sqrt(share) and sqrt(1 - share) over
    the training pictures, compressed by an arcsinh as in fMRI, each around a mean that all pictures have in common.

    Parameters
    ----------
    cortex : whose voxels the drives move.
    share : (n_voxels,), of their variance that is structural.
    drives : "train" and "test", from a kind of brain.
    compression : of :class:`~.fmri.FmriSettings`.
    """
    structural = _compressed({split: part.structural for split, part in drives.items()}, compression)
    semantic = _compressed({split: part.semantic for split, part in drives.items()}, compression)
    parts = []
    for area, (start, stop) in cortex.rois.items():
        place = PLACES.get(area, _ELSEWHERE)
        for kind, peak, weight, signals in (
            ("structural", place.structural_s, np.sqrt(share), structural),
            ("semantic", place.semantic_s, np.sqrt(1 - share), semantic),
        ):
            for number, jitter in enumerate(_JITTER_S):
                voxels = start + np.flatnonzero((cortex.jitter[start:stop] == number) & (weight[start:stop] > 0))
                if len(voxels):
                    values_of = {split: values[:, voxels] for split, values in signals.items()}
                    values_of[TARGET] = np.zeros((1, len(voxels)), np.float32)
                    amplitudes = {
                        split: (weight[voxels] * (_ONSET + values)).astype(np.float32)
                        for split, values in values_of.items()
                    }
                    parts.append(Part(kind, peak + jitter, voxels, amplitudes))
    return parts


def time_course(kind: str, peak_s: float, sfreq: float) -> F64:
    """The current of a part with amplitude 1, from the picture's appearance to `KERNEL_S` seconds behind it.

    A gamma function of height 1, (t / peak)^n exp(n (1 - t / peak)); a structural one rebounds.
    """
    times = np.arange(round(KERNEL_S * sfreq)) / sfreq
    course = _gamma(times / peak_s, _ORDER[kind])
    return course - _REBOUND * _gamma(times / peak_s / _REBOUND_AFTER, _ORDER[kind]) * (kind == "structural")


def _gamma(times: F64, order: float) -> F64:
    shape: F64 = times**order * np.exp(order * (1 - times))
    return shape


def _compressed(signals: Mapping[str, F32], compression: float) -> dict[str, F32]:
    """Z-scored by the training pictures, before and after an arcsinh."""
    scaled = standardise(signals)
    if compression == 0:
        return scaled
    return standardise({split: np.arcsinh(compression * part) for split, part in scaled.items()})


def draw_scattered(n: int, rng: np.random.Generator) -> Dipoles:
    """Dipoles all over the cortex, in any direction: the brain's other activity."""
    outwards = _unit(rng.standard_normal((n, 3)))
    outwards[:, 2] = np.where(outwards[:, 2] < _LOWEST, -outwards[:, 2], outwards[:, 2])
    depth = rng.uniform(_INNERMOST, _DEEPEST, (n, 1))
    centre, radius = head_model()["r0"], head_model()["layers"][0]["rad"]
    return Dipoles(centre + radius * depth * outwards, _unit(rng.standard_normal((n, 3))))


def draw_occipital(n: int, rng: np.random.Generator) -> Dipoles:
    """Dipoles in early visual areas and the parietal cortex above, in any direction: where alpha comes from."""
    places = np.array([PLACES[name].mni for name in _OF_ALPHA], float)
    spots = places[rng.integers(len(places), size=n)] + _SCATTER_MM * rng.standard_normal((n, 3))
    spots[:, 0] *= rng.choice([-1.0, 1.0], n)
    return Dipoles(into_brain(to_head(spots), _DEEPEST), _unit(rng.standard_normal((n, 3))))


def eyes() -> Dipoles:
    """Two dipoles at the eyes that point up and forward, as a blink makes them; moved into the brain sphere."""
    spots = into_brain(to_head(np.array([[-32.0, 58.0, -36.0], [32.0, 58.0, -36.0]])), _DEEPEST)
    return Dipoles(spots, np.tile(_unit(np.array([0.0, 1.0, 1.0])), (2, 1)))


def _unit(vectors: F64) -> F64:
    unit: F64 = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit
