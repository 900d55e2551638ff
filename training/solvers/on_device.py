"""The voxel-selected ridge in PyTorch: what ridge.py computes target by target, for batches of targets on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import InputError
from ...runtime.progress import unheard
from .centred import Centred
from .columns import Columns
from .ridge import Progress, SparseRidge, checked, fit_ridge, has_few_trials, read
from .spd import DEPENDENT, MAX_CONTRACTION, MAX_CORRECTIONS, REFINED

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]

# Targets whose products with all voxels are computed at once.
_TARGETS_AT_ONCE = 512
# Bytes of the systems that are solved at once; each value is there in float64, in float32, and as its factor.
_SYSTEM_BYTES, _BYTES_PER_VALUE = 1 << 30, 8 + 4 + 4


def fit_ridge_on_device(
    x: Array,
    y: Array | Columns,
    *,
    n_selected: int,
    alpha: float,
    device: str,
    progress: Progress | None = None,
    dtype: type[np.floating[Any]] = np.float64,
) -> SparseRidge:
    """Fit as :func:`~.ridge.fit_ridge` on a device of PyTorch's ("cuda", "cuda:1", "cpu").

    Products are in float64; systems are factorised in float32 and refined, or in float64 where that does not converge.
    Where all voxels are used, or there are few trials for the voxels that are, the CPU computes as ever.

    Raises
    ------
    ShapeError, InputError
        As :func:`~.ridge.fit_ridge`; or there is no such device.

    Notes
    -----
    Memory on the device: the responses, their Gram matrix (n_voxels x n_voxels) and a batch of 512 targets in float64,
    and 1 GiB of systems.
    """
    x, source = checked(x, y, n_selected, [alpha], None)
    if n_selected >= x.shape[1] or has_few_trials(x, n_selected):
        return fit_ridge(x, source, n_selected=n_selected, alpha=alpha, progress=progress, dtype=dtype)
    work, n_targets = _OnDevice(Centred(x), alpha, n_selected, opened(device)), source.shape[1]
    result = SparseRidge(
        np.empty((n_targets, n_selected), np.int32),
        np.empty((n_targets, n_selected), dtype),
        np.empty(n_targets, dtype),
        x.shape[1],
    )
    for start in range(0, n_targets, _TARGETS_AT_ONCE):
        part = slice(start, min(start + _TARGETS_AT_ONCE, n_targets))
        result.index[part], result.weight[part], result.bias[part] = work.fit(read(source, part))
        (progress or unheard)(part.stop, n_targets)
    return result


def opened(name: str) -> torch.device:
    """A device of PyTorch's by its name.

    Raises
    ------
    InputError
        It is not there, or does not compute in float64.
    """
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device, dtype=torch.float64)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(
            f"the ridge cannot compute on device {name!r} ({str(error).splitlines()[0]:.120}): give cuda where "
            "there is an NVIDIA GPU and a PyTorch for it, or cpu"
        ) from error
    return device


class _OnDevice:
    """What is prepared once for the responses."""

    def __init__(self, centred: Centred, alpha: float, n_selected: int, device: torch.device) -> None:
        import torch

        self._alpha, self._n_selected, self._n_trials = alpha, n_selected, len(centred.x)
        self._kappa = centred.kappa(alpha)
        self._mean = torch.from_numpy(centred.mean).to(device)
        self._inverse_norm = torch.from_numpy(centred.inverse_norm).to(device)
        self._rest = torch.from_numpy(centred.x).to(device) - self._mean
        self._gram = self._rest.T @ self._rest
        self._gram.diagonal().add_(alpha)
        self._batch = max(1, _SYSTEM_BYTES // (_BYTES_PER_VALUE * n_selected**2))

    def fit(self, y: NDArray[np.float64]) -> tuple[Array, Array, Array]:
        """Index, weight (k, n_selected) and bias (k,) of targets (n_trials, k)."""
        import torch

        targets = torch.from_numpy(np.ascontiguousarray(y)).to(self._rest.device)
        mean = targets.mean(dim=0)
        covariance = (targets - mean).T @ self._rest
        chosen = _largest(covariance.abs() * self._inverse_norm, self._n_selected)
        right = covariance.gather(1, chosen) + self._kappa * mean[:, None] * self._mean[chosen]
        weight = torch.cat(
            [
                self._solve(chosen[start : start + self._batch], right[start : start + self._batch])
                for start in range(0, len(chosen), self._batch)
            ]
        )
        bias = self._n_trials * (mean - (self._mean[chosen] * weight).sum(dim=1)) / (self._n_trials + self._alpha)
        return chosen.cpu().numpy(), weight.cpu().numpy(), bias.cpu().numpy()

    def _solve(self, chosen: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        import torch

        mean = self._mean[chosen]
        matrix = self._gram[chosen[:, :, None], chosen[:, None, :]]
        matrix += self._kappa * mean[:, :, None] * mean[:, None, :]
        solution, is_good = _refined(matrix, right)
        if not bool(is_good.all()):
            poor = torch.nonzero(~is_good)[:, 0]
            factor, info = torch.linalg.cholesky_ex(matrix[poor])
            if bool((info != 0).any()):
                raise InputError(DEPENDENT)
            solution[poor] = torch.cholesky_solve(right[poor, :, None], factor)[:, :, 0]
        return solution


def _largest(score: torch.Tensor, n: int) -> torch.Tensor:
    """As :func:`~.ranking.largest`."""
    import torch

    values, chosen = torch.topk(score, n, dim=1)
    for row in torch.nonzero((score >= values[:, -1:]).sum(dim=1) > n)[:, 0].tolist():
        chosen[row] = torch.argsort(score[row], descending=True, stable=True)[:n]
    return chosen.sort(dim=1).values


def _refined(matrix: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Solutions (k, n) by float32 factors refined against float64 (k, n, n), and for which that converged (k,)."""
    import torch

    factor, info = torch.linalg.cholesky_ex(matrix.float())
    is_open, is_good = info == 0, torch.zeros_like(info, dtype=torch.bool)
    solution, residual = torch.zeros_like(right), right
    previous = torch.full_like(right[:, 0], np.inf)
    for _ in range(MAX_CORRECTIONS):
        # Scaled to 1, so that a small residual does not underflow in float32.
        scale = residual.abs().amax(dim=1, keepdim=True)
        unit = torch.where(scale > 0, residual / scale, 0.0).float()
        correction = torch.cholesky_solve(unit[:, :, None], factor)[:, :, 0].double() * scale
        step = correction.abs().amax(dim=1)
        contraction = step / previous
        is_open = is_open & step.isfinite() & ((contraction <= MAX_CONTRACTION) | (scale[:, 0] == 0))
        solution = torch.where((is_open & ~is_good)[:, None], solution + correction, solution)
        small = step * contraction <= REFINED * solution.abs().amax(dim=1)
        is_good = is_good | (is_open & ((previous.isfinite() & small) | (scale[:, 0] == 0)))
        if bool((is_good | ~is_open).all()):
            break
        residual = right - torch.einsum("kij,kj->ki", matrix, solution)
        previous = step
    return solution, is_good
