"""Where EEG electrodes and MEG coils are, and what a current in the head does to them.

The head is MNE's spherical model, fitted to the electrodes of the 10-05 system on the Colin 27 head; its coordinates
are MNE's head coordinates (x to the right ear, y to the nasion, z up, in metres). Nothing is downloaded.

EEG: the 63 electrodes of the cap of THINGS-EEG2 (Gifford et al. 2022), against Fz, its reference; each is moved along
its radius onto the sphere, on which alone the model's potential holds.

MEG: the 271 axial gradiometers that THINGS-MEG (Hebart et al. 2023) has of the CTF 275: MLF25, MRF43 and MRO13 were
dead, and MRO11 is dropped by its authors' code. Positions and coils are those of MNE's canonical CTF 275, to which
MLO42, which that lacks, is added as the mirror image of MRO42. The sphere that fits the helmet best is put around the
centre of the head's, without rotation: nobody's head was measured. Field gradients are in T, the difference of the two
coils' fields, 50 mm apart; reference sensors and their compensation are left out, for the simulation has no far noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import Channel
from ...runtime.errors import MissingExtra

F64 = NDArray[np.float64]

# In the order of THINGS-EEG2's files.
CAP: tuple[str, ...] = tuple(
    "Fp1 Fp2 AF7 AF3 AFz AF4 AF8 F7 F5 F3 F1 F2 F4 F6 F8 FT9 FT7 FC5 FC3 FC1 FCz FC2 FC4 FC6 FT8 FT10 T7 C5 C3 C1 Cz "
    "C2 C4 C6 T8 TP9 TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 TP8 TP10 P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO3 POz PO4 PO8 O1 Oz "
    "O2".split()
)
# Those that the authors of THINGS-EEG2 decode from: occipital and parietal ones.
POSTERIOR: tuple[str, ...] = tuple(name for name in CAP if name[0] in "PO")
REFERENCE = "Fz"
_MONTAGE = "colin27_1005"

_CTF = "ctf275"
# The suffix that the system at the NIMH gives its channels.
_SUFFIX = "-1609"
_ABSENT = ("MLF25", "MRF43", "MRO13", "MRO11")
_MIRRORED = ("MRO42", "MLO42")


@dataclass(frozen=True)
class Sensors:
    """The sensors of one modality.

    Parameters
    ----------
    channels : with positions in head coordinates.
    info : an mne.Info of the same channels, and of the reference electrode behind them where there is one.
    referenced : whether the last channel of `info` is such an electrode.
    """

    channels: tuple[Channel, ...]
    info: Any
    referenced: bool


@cache
def eeg_sensors(names: tuple[str, ...] = CAP) -> Sensors:
    """Electrodes of the cap by their names, referenced to Fz."""
    mne = mne_library()
    info = mne.create_info([*names, REFERENCE], 1000.0, "eeg")
    info.set_montage(mne.channels.make_standard_montage(_MONTAGE), verbose="error")
    centre, radius = head_model()["r0"], head_model()["layers"][-1]["rad"]
    for ch in info["chs"]:
        from_centre = ch["loc"][:3] - centre
        ch["loc"][:3] = centre + radius * from_centre / np.linalg.norm(from_centre)
    channels = [Channel(name=ch["ch_name"], type="eeg", position=tuple(ch["loc"][:3])) for ch in info["chs"][:-1]]
    return Sensors(tuple(channels), info, True)


@cache
def meg_sensors() -> Sensors:
    """The 271 gradiometers."""
    mne = mne_library()
    canonical = mne.channels.read_meg_canonical_info(_CTF, verbose="error")
    coils = {ch["ch_name"].partition("-")[0]: np.array(ch["loc"]) for ch in canonical["chs"]}
    original, mirrored = _MIRRORED
    # The coil's own x axis is mirrored twice, so that its three axes stay right-handed.
    sides = np.array([[-1, 1, 1], [1, -1, -1], [-1, 1, 1], [-1, 1, 1]]).ravel()
    coils.setdefault(mirrored, coils[original] * sides)
    names = sorted(set(coils) - set(_ABSENT))
    info = mne.create_info([name + _SUFFIX for name in names], 1200.0, "mag")
    device_to_head = np.eye(4)
    device_to_head[:3, 3] = head_model()["r0"] - _centre(np.stack([loc[:3] for loc in coils.values()]))
    info["dev_head_t"] = mne.transforms.Transform("meg", "head", device_to_head)
    coil_type = canonical["chs"][0]["coil_type"]
    for ch, name in zip(info["chs"], names, strict=True):
        ch["loc"][:] = coils[name]
        ch["coil_type"] = coil_type
    places = np.stack([coils[name][:3] for name in names]) + device_to_head[:3, 3]
    channels = [
        Channel(name=name + _SUFFIX, type="mag", position=tuple(place))
        for name, place in zip(names, places, strict=True)
    ]
    return Sensors(tuple(channels), info, False)


@cache
def head_model() -> Any:
    """MNE's conducting sphere with brain, fluid, skull and scalp, fitted to all electrodes of the 10-05 system."""
    mne = mne_library()
    montage = mne.channels.make_standard_montage(_MONTAGE)
    info = mne.create_info(montage.ch_names, 1000.0, "eeg")
    info.set_montage(montage, verbose="error")
    return mne.make_sphere_model("auto", "auto", info, verbose="error")


def to_head(mni: F64) -> F64:
    """MNI coordinates in mm, (n, 3), in head coordinates in m: by the fiducials of the Colin 27 head, an MNI head."""
    mne = mne_library()
    transform = mne.channels.compute_native_head_t(mne.channels.make_standard_montage(_MONTAGE))
    moved: F64 = mne.transforms.apply_trans(transform, mni / 1000)
    return moved


def into_brain(positions: F64, share: float) -> F64:
    """Positions (n, 3), those outside `share` of the brain sphere's radius moved to it along the radius."""
    model = head_model()
    from_centre = positions - model["r0"]
    distance = np.linalg.norm(from_centre, axis=1, keepdims=True)
    most = share * model["layers"][0]["rad"]
    inside: F64 = model["r0"] + from_centre * np.minimum(1, most / np.maximum(distance, 1e-9))
    return inside


def gains(sensors: Sensors, positions: F64, directions: F64) -> F64:
    """What a current dipole of 1 A m does to every sensor.

    Parameters
    ----------
    sensors : which.
    positions : (n_dipoles, 3) m, inside the brain sphere.
    directions : (n_dipoles, 3), unit vectors.

    Returns
    -------
    (n_channels, n_dipoles) float64, V/(A m) against the reference electrode, or T/(A m).
    """
    mne = mne_library()
    model = head_model()
    source = mne.setup_volume_source_space(
        pos={"rr": positions, "nn": directions}, sphere=model, sphere_units="m", mindist=0, verbose="error"
    )
    kinds = {"eeg": sensors.referenced, "meg": not sensors.referenced}
    forward = mne.make_forward_solution(
        sensors.info, trans=None, src=source, bem=model, mindist=0, verbose="error", **kinds
    )
    field = forward["sol"]["data"].reshape(len(sensors.info["ch_names"]), -1, 3)
    if field.shape[1] != len(positions):
        raise ValueError(f"{len(positions) - field.shape[1]} of {len(positions)} dipoles lie outside the brain sphere")
    gain: F64 = np.einsum("cdk,dk->cd", field, directions)
    return gain[:-1] - gain[-1:] if sensors.referenced else gain


def mne_library() -> Any:
    """MNE.

    Raises
    ------
    MissingExtra
        It is not installed.
    """
    try:
        import mne
    except ModuleNotFoundError as error:
        raise MissingExtra(f"EEG and MEG need {error.name}: pip install 'minddiffuser[data]'") from error
    return mne


def _centre(places: F64) -> F64:
    """Of the sphere that fits places (n, 3) best by least squares."""
    system = np.hstack([2 * places, np.ones((len(places), 1))])
    solved: F64 = np.linalg.lstsq(system, (places**2).sum(axis=1), rcond=None)[0]
    return solved[:3]


def names_of(channels: Sequence[Channel]) -> list[str]:
    """The names of channels."""
    return [channel.name for channel in channels]
