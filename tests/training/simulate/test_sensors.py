"""Sensors against what is known of them, and the forward model against formulas of its own."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mne")

from minddiffuser.training.simulate.eeg import CAPS, sensors
from minddiffuser.training.simulate.sensors import gains, head_model, into_brain, meg_sensors, to_head

NAM = 1e-8
"""10 nA m."""
MU_0 = 4e-7 * np.pi


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def tangential(rng: np.random.Generator, positions: np.ndarray) -> np.ndarray:
    return unit(np.cross(positions - head_model()["r0"], rng.standard_normal(positions.shape)))


def dipoles(rng: np.random.Generator, n: int) -> np.ndarray:
    """Places in the occipital cortex."""
    return into_brain(to_head(rng.normal([10, -85, 0], 12, (n, 3))), 0.95)


def sarvas(dipole: np.ndarray, position: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The magnetic field (n, 3) in T at places (n, 3) around a conducting sphere at 0 (Sarvas 1987, eq. 25)."""
    a = place - position
    a_norm, r_norm = np.linalg.norm(a, axis=1, keepdims=True), np.linalg.norm(place, axis=1, keepdims=True)
    along = (a * place).sum(axis=1, keepdims=True)
    f = a_norm * (r_norm * a_norm + r_norm**2 - place @ position[:, None])
    gradient = (a_norm**2 / r_norm + along / a_norm + 2 * a_norm + 2 * r_norm) * place - (
        a_norm + 2 * r_norm + along / a_norm
    ) * position
    moment = np.cross(dipole, position)
    return MU_0 / (4 * np.pi) / f**2 * (f * moment - (place @ moment)[:, None] * gradient)


def test_caps_are_those_of_the_data_sets() -> None:
    assert (len(CAPS[17]), len(CAPS[63])) == (17, 63)
    assert set(CAPS[17]) == {"Pz", "POz", "Oz", *(f"P{k}" for k in range(1, 9)), "PO3", "PO4", "PO7", "PO8", "O1", "O2"}
    channels = {channel.name: channel for channel in sensors(63).channels}
    assert list(channels) == list(CAPS[63])
    assert "Fz" not in channels  # the reference
    x, y, z = zip(*(channels[name].position for name in ("O1", "O2", "Fp1", "Cz")), strict=True)
    assert x[0] < 0 < x[1]
    assert y[0] < 0 < y[2]
    assert z[3] > max(z[:3]) + 0.05
    distance = [np.linalg.norm(np.array(channel.position) - head_model()["r0"]) for channel in channels.values()]
    np.testing.assert_allclose(distance, head_model()["layers"][-1]["rad"])


def test_gradiometers_are_those_of_things_meg() -> None:
    channels = meg_sensors().channels
    names = [channel.name.removesuffix("-1609") for channel in channels]
    assert len(set(names)) == 271
    assert not {"MLF25", "MRF43", "MRO13", "MRO11"} & set(names)
    assert {name[:3] for name in names} == {f"M{side}{area}" for side in "LR" for area in "CFOPT"} | {
        "MZC",
        "MZF",
        "MZO",
        "MZP",
    }
    # Around the head, within the reach of a helmet.
    distance = np.linalg.norm([np.array(channel.position) - head_model()["r0"] for channel in channels], axis=1)
    assert distance.min() > head_model()["layers"][-1]["rad"] + 0.005
    assert distance.max() < 0.15
    places = {name: np.array(channel.position) for name, channel in zip(names, channels, strict=True)}
    middle = places["MZO02"][0]
    np.testing.assert_allclose(
        places["MLO42"] - [middle, 0, 0], (places["MRO42"] - [middle, 0, 0]) * [-1, 1, 1], atol=3e-3
    )


def test_fields_follow_sarvas(rng: np.random.Generator) -> None:
    """The flux through two coils of 18 mm that are 50 mm apart, by the formula at 400 points of each."""
    made = meg_sensors()
    positions = dipoles(rng, 6)
    directions = tangential(rng, positions)
    ring, turn = np.meshgrid(np.sqrt((np.arange(20) + 0.5) / 20) * 0.009, np.arange(20) * np.pi / 10)
    x, y = (ring * np.cos(turn)).ravel(), (ring * np.sin(turn)).ravel()
    shift = made.info["dev_head_t"]["trans"][:3, 3] - head_model()["r0"]
    expected = np.empty((len(made.channels), 6))
    for row, ch in enumerate(made.info["chs"]):
        place, ex, ey, ez = ch["loc"].reshape(4, 3)
        for number, (position, direction) in enumerate(zip(positions, directions, strict=True)):
            flux = [
                sarvas(direction, position - head_model()["r0"], place + shift + x[:, None] * ex + y[:, None] * ey + up)
                @ ez
                for up in (0 * ez, 0.05 * ez)
            ]
            expected[row, number] = flux[0].mean() - flux[1].mean()
    found = gains(made, positions, directions)
    # MNE takes a coil's flux from four or seven points: below 1 % of the largest.
    np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())
    assert 50e-15 < np.abs(found).max() * NAM < 1000e-15


def test_radial_dipoles_are_silent_in_meg_and_loud_in_eeg(rng: np.random.Generator) -> None:
    positions = dipoles(rng, 20)
    radial = unit(positions - head_model()["r0"])
    silent, loud = (np.abs(gains(made, positions, radial)).max() for made in (meg_sensors(), sensors(63)))
    assert silent < 1e-9 * np.abs(gains(meg_sensors(), positions, tangential(rng, positions))).max()
    assert 0.5e-6 < loud * NAM < 20e-6


def test_a_dipole_in_the_middle_of_the_spheres_is_a_cosine(rng: np.random.Generator) -> None:
    """By symmetry, whatever the shells: the potential goes with the cosine between dipole and electrode."""
    directions = unit(rng.standard_normal((4, 3)))
    made, centre = sensors(63), head_model()["r0"]
    found = gains(made, np.tile(centre + 1e-6, (4, 1)), directions)
    electrodes = unit(np.array([ch["loc"][:3] for ch in made.info["chs"]]) - centre)
    cosine = electrodes @ directions.T
    expected = cosine[:-1] - cosine[-1:]
    scale = (found * expected).sum() / (expected**2).sum()
    assert scale > 0
    # The shells are approximated by three dipoles (Berg & Scherg 1994).
    np.testing.assert_allclose(found / scale, expected, atol=0.01)


def test_an_electrode_does_not_depend_on_the_others(rng: np.random.Generator) -> None:
    positions = dipoles(rng, 5)
    directions = unit(rng.standard_normal((5, 3)))
    whole, few = (gains(sensors(n), positions, directions) for n in (63, 17))
    rows = [CAPS[63].index(name) for name in CAPS[17]]
    np.testing.assert_allclose(few, whole[rows], rtol=1e-9)
