"""The offline reference: the same chain over a whole recording, by MNE and SciPy, sharing no code with the live path.

It reads the chain's JSON itself. Continuous steps run over each stretch without a gap as a whole; `mne.Epochs` cuts,
detrends, subtracts baselines and rejects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import Channel
from ...runtime.errors import InputError

F64 = NDArray[np.float64]
BEFORE, BREAK, WARM_UP, NAN = "before the start", "break", "warm-up", "nan"
PEAK, NO_SPREAD = "peak to peak", "does not vary"
_BY_MNE = ("detrend", "reject", "baseline")
# A resampling filter of scipy.signal.resample_poly has this many zero crossings on each side.
_CROSSINGS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Stretch:
    """Samples `start` to `stop` of the recording, without a gap; `nan` where NaN ended the one before, or this one."""

    start: int
    stop: int
    nan_before: bool
    nan_behind: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """What becomes of an event: its epoch (n_channels, n_times), or why it has none, and in which channels."""

    epoch: F64 | None
    why: str | None = None
    channels: tuple[str, ...] = ()


def stretches(stamps: F64, data: F64, sfreq: float, gap: float) -> list[Stretch]:
    """Where the stamps step by more than `gap` seconds off the period, or a value is NaN, a stretch ends.

    Parameters
    ----------
    stamps, data
        (n,) and (n_channels, n).
    """
    good = np.isfinite(data).all(axis=0) & np.isfinite(stamps)
    edges = np.flatnonzero(np.diff(good.astype(int), prepend=0, append=0))
    found = []
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        cuts = np.flatnonzero(np.abs(np.diff(stamps[start:stop]) - 1 / sfreq) > gap) + start + 1
        bounds = [start, *cuts.tolist(), stop]
        for first, last in zip(bounds, bounds[1:], strict=False):
            found.append(
                Stretch(start=first, stop=last, nan_before=first == start > 0, nan_behind=last == stop < len(stamps))
            )
    return found


def place(time: float, stamps: F64, found: Sequence[Stretch], sfreq: float) -> tuple[int, int] | str:
    """Stretch and sample, from its first, of a time on the signal's clock; or why there is none."""
    half = 0.5 / sfreq
    for number, stretch in enumerate(found):
        own = stamps[stretch.start : stretch.stop]
        if time < own[0] - half:
            return BEFORE if number == 0 and not stretch.nan_before else NAN if stretch.nan_before else BREAK
        if time <= own[-1] + half:
            return number, int(np.argmin(np.abs(own - time)))
    return BREAK


class Reference:
    """The chain over one stretch.

    Parameters
    ----------
    signal
        The chain's JSON.
    channels, sfreq
        Of the recording.
    data
        (n_channels, n) of the stretch, in V, T, T/m.
    folder
        Where the files lie that the chain names.
    """

    def __init__(
        self,
        signal: Mapping[str, Any],
        channels: Sequence[Channel],
        sfreq: float,
        data: F64,
        folder: Path | None = None,
    ) -> None:
        import mne

        self._mne = mne
        steps = list(signal["steps"])
        place = [step["name"] for step in steps].index("epoch")
        self._before, self._epoch, self._after = steps[:place], steps[place], steps[place + 1 :]
        self._folder = folder
        info = mne.create_info([c.name for c in channels], sfreq, [c.type for c in channels], verbose="error")
        raw = mne.io.RawArray(np.array(data), info, verbose="error")
        self._settles = 0.0
        for step in self._before:
            raw = self._continuous(raw, step)
        self._raw, self._ratio = raw, raw.info["sfreq"] / sfreq

    def _continuous(self, raw: Any, step: Mapping[str, Any]) -> Any:
        mne, name = self._mne, step["name"]
        sfreq = float(raw.info["sfreq"])
        if name == "pick":
            return raw.copy().pick(step["channels"]).reorder_channels(step["channels"])
        if name == "reference":
            names = "average" if step["kind"] == "average" else step["channels"]
            return mne.set_eeg_reference(raw, names, projection=False, verbose="error")[0]
        data = raw.get_data()
        if name == "filter":
            made, self._settles = _filtered(data, step), self._settles + _settling(step["sos"]) / sfreq
            new = sfreq
        elif name == "decimate":
            made, new = data[:, :: step["factor"]], sfreq / step["factor"]
        elif name == "resample":
            made, new, future = _resampled(data, sfreq, step["sfreq"])
            self._settles += future
        else:
            raise InputError(f"the reference does not know the step {name!r}")
        info = mne.create_info(raw.ch_names, new, raw.get_channel_types(), verbose="error")
        return mne.io.RawArray(made, info, verbose="error")

    def verdicts(self, samples: Sequence[int]) -> dict[int, Verdict]:
        """What becomes of events at these samples of the stretch."""
        mne, raw = self._mne, self._raw
        new, n = float(raw.info["sfreq"]), raw.n_times
        first, last = round(self._epoch["tmin"] * new), round(self._epoch["tmax"] * new)
        found, whole = dict[int, Verdict](), list[int]()
        for sample in sorted(set(samples)):
            event = int(np.rint(sample * self._ratio))
            if event + first < 0:
                found[sample] = Verdict(epoch=None, why=BEFORE)
            elif event + last >= n:
                found[sample] = Verdict(epoch=None, why=BREAK)
            elif event + first < math.ceil(self._settles * new):
                found[sample] = Verdict(epoch=None, why=WARM_UP)
            else:
                whole.append(sample)
        if not whole:
            return found
        by_mne = []
        rest = list(self._after)
        while rest and rest[0]["name"] in _BY_MNE:
            by_mne.append(rest.pop(0))
        options = {step["name"]: step for step in by_mne}
        if len(options) < len(by_mne) or any(step["name"] in ("detrend", "reject") for step in rest):
            raise InputError("the reference takes detrend, reject and baseline once each, right behind epoch")
        places = {sample: int(np.rint(sample * self._ratio)) for sample in whole}
        events = np.array([[place, 0, 1] for place in sorted(set(places.values()))])
        baseline = options.get("baseline")
        limits = options.get("reject", {})
        epochs = mne.Epochs(
            raw,
            events,
            tmin=self._epoch["tmin"],
            tmax=self._epoch["tmax"],
            baseline=None if baseline is None else (baseline.get("tmin"), baseline.get("tmax")),
            detrend=options.get("detrend", {}).get("order"),
            reject=_present(limits.get("peak_to_peak"), raw),
            flat=_present(limits.get("flat"), raw),
            picks="all",
            preload=True,
            event_repeated="error",
            reject_by_annotation=False,
            verbose="error",
        )
        data = epochs.get_data(copy=True) if len(epochs) else []
        cut = dict(zip(epochs.events[:, 0].tolist(), data, strict=True))
        logs = dict(zip(events[:, 0].tolist(), epochs.drop_log, strict=True))
        for sample, place in places.items():
            if place in cut:
                found[sample] = self._finish(cut[place], np.array(epochs.times), rest, new)
            else:
                found[sample] = Verdict(epoch=None, why=PEAK, channels=tuple(logs[place]))
        return found

    def _finish(self, epoch: F64, times: F64, rest: Sequence[Mapping[str, Any]], sfreq: float) -> Verdict:
        """The steps over an epoch that mne.Epochs does not do."""
        rescale = self._mne.baseline.rescale
        for step in rest:
            name = step["name"]
            if name == "decimate":
                start = -round(times[0] * sfreq) % step["factor"]
                kept = slice(start, None, step["factor"])
                epoch, times, sfreq = epoch[:, kept], times[kept], sfreq / step["factor"]
            elif name in ("zscore", "baseline"):
                window = (step.get("tmin"), step.get("tmax"))
                mode = "zscore" if name == "zscore" else "mean"
                with np.errstate(divide="ignore", invalid="ignore"):
                    epoch = rescale(epoch.copy(), times, window, mode=mode, verbose="error")
                if not np.isfinite(epoch).all():
                    return Verdict(epoch=None, why=NO_SPREAD)
            elif name == "whiten":
                epoch = np.einsum("ij,jt->it", self._matrix(step), epoch)
            elif name == "crop":
                low = times[0] if step.get("tmin") is None else round(step["tmin"] * sfreq) / sfreq
                high = times[-1] if step.get("tmax") is None else round(step["tmax"] * sfreq) / sfreq
                inside = (times >= low - 0.5 / sfreq) & (times <= high + 0.5 / sfreq)
                epoch, times = epoch[:, inside], times[inside]
            else:
                raise InputError(f"the reference does not know the step {name!r}")
        return Verdict(epoch=epoch)

    def _matrix(self, step: Mapping[str, Any]) -> F64:
        from safetensors.numpy import load_file

        if self._folder is None:
            raise InputError(f"the step 'whiten' names {step['file']}: give the folder that the file lies in")
        matrix: F64 = load_file(self._folder / step["file"])["matrix"]
        return matrix


def _present(limits: Mapping[str, float] | None, raw: Any) -> dict[str, float] | None:
    """MNE refuses limits for types that are not there."""
    types = set(raw.get_channel_types())
    kept = {kind: value for kind, value in (limits or {}).items() if kind in types}
    return kept or None


def _filtered(data: F64, step: Mapping[str, Any]) -> F64:
    """Forward in time, from the state after an endless signal of the first sample's value."""
    from scipy.signal import sosfilt, sosfilt_zi

    sos = np.array(step["sos"], float)
    made: F64 = np.empty_like(data)
    for row, channel in enumerate(data):
        made[row], _ = sosfilt(sos, channel, zi=sosfilt_zi(sos) * channel[0])
    return made


def _settling(sos: Any) -> int:
    """Samples until the slowest pole has decayed to 1 %."""
    from scipy.signal import sos2zpk

    slowest = float(np.abs(sos2zpk(np.array(sos, float))[1]).max())
    return math.ceil(math.log(0.01) / math.log(slowest)) if slowest > 0 else 2 * len(sos)


def _resampled(data: F64, old: float, new: float) -> tuple[F64, float, float]:
    """The samples that need none from behind the end, the new rate, and the seconds that the filter looks ahead."""
    from fractions import Fraction

    from scipy.signal import resample_poly

    ratio = Fraction(new / old).limit_denominator(1000)
    up, down = ratio.numerator, ratio.denominator
    n_half = _CROSSINGS * max(up, down)
    n_front = down * math.ceil((n_half / up + 1) / down)
    front = np.repeat(data[:, :1], n_front, axis=1)
    made = resample_poly(np.concatenate([front, data], axis=1), up, down, axis=1)[:, n_front * up // down :]
    n_known = int(((np.arange(made.shape[1]) * down + n_half) // up < data.shape[1]).sum())
    return made[:, :n_known], old * up / down, n_half / (up * old)
