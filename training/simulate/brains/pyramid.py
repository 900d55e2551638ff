"""A steerable pyramid: what the orientations and spatial frequencies of a picture are, at every place.

Simoncelli & Freeman (1995), *The steerable pyramid: a flexible architecture for multi-scale derivative computation*,
with the filters of Portilla & Simoncelli (2000), *A parametric texture model based on joint statistics of complex
wavelet coefficients*, section 2.1. In polar frequency, r in radians per pixel:

    L(r) = cos(pi/2 log2(4r/pi)),  H(r) = cos(pi/2 log2(2r/pi))          for pi/4 < r < pi/2, constant outside
    G_k(theta) = alpha_K cos(theta - pi k/K)^(K-1),  alpha_K = 2^(K-1) (K-1)! / sqrt(K (2(K-1))!)

Theirs is twice this L, which makes up for subsampling; here every band is kept at the picture's own resolution.
"""

from __future__ import annotations

from math import factorial, pi

import numpy as np
from numpy.typing import NDArray

C64 = NDArray[np.complex64]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def pyramid_filters(side: int, n_scales: int, n_orientations: int) -> tuple[F64, F64, F64]:
    """Frequency responses for pictures of `side` x `side` px, in the order of ``np.fft.fftfreq``.

    Parameters
    ----------
    side : of the picture in px.
    n_scales : octaves. Band s peaks at 1 / 2^(s+2) cycles per px.
    n_orientations : K, at least 2. Band k prefers gratings whose frequency vector has the angle pi k / K, measured from
        the x axis (columns) to the y axis (rows, downwards): k = 0 are vertical stripes.

    Returns
    -------
    bands (n_scales, n_orientations, side, side), high (side, side) and low (side, side). The bands are one-sided: the
    response to a real picture is complex, its real and imaginary parts are a quadrature pair. For real pictures they
    are a tight frame: the squared magnitudes of all responses sum to that of the picture, at every frequency.
    """
    frequency = 2 * pi * np.fft.fftfreq(side)
    x, y = frequency[None, :], frequency[:, None]
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    high, low = _split(radius / 2)
    scale = 2 ** (n_orientations - 1) * factorial(n_orientations - 1)
    alpha = scale / np.sqrt(float(n_orientations * factorial(2 * (n_orientations - 1))))
    bands = np.empty((n_scales, n_orientations, side, side))
    for s in range(n_scales):
        ring, below = _split(radius * 2**s)
        for k in range(n_orientations):
            lobe = np.maximum(np.cos(angle - pi * k / n_orientations), 0) ** (n_orientations - 1)
            # One lobe of two: the other half of a real picture's energy is in the conjugate frequencies.
            bands[s, k] = np.sqrt(2) * low * ring * alpha * lobe
        low = low * below
    return bands, high, low


def pyramid(images: F32, filters: F64) -> C64:
    """Complex responses of some filters to pictures.

    Parameters
    ----------
    images : (n, side, side) float32; their edges wrap round.
    filters : (n_scales, n_orientations, side, side), from :func:`pyramid_filters`.

    Returns
    -------
    (n, n_scales, n_orientations, side, side) complex64. Their squared magnitude is the energy of a quadrature pair.
    """
    spectra = np.fft.fft2(images).astype(np.complex64)
    responses: C64 = np.fft.ifft2(spectra[:, None, None] * filters.astype(np.float32)).astype(np.complex64)
    return responses


def _split(radius: F64) -> tuple[F64, F64]:
    """H and L at a radius: their squares sum to 1."""
    octave = np.log2(np.maximum(radius, 1e-12) * 2 / pi)  # -1 at pi/4, 0 at pi/2
    phase = pi / 2 * np.clip(octave, -1, 0)
    return np.cos(phase), np.sin(-phase)
