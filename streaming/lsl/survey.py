"""All streams that answer, each with what will make trouble."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ...runtime.signal.units import unit_size
from ..records import SignalInfo
from .describe import plain, signal_info
from .found import Found, look, weakness
from .inlet import Inlet, LostStream, NoAnswer

# For the description of a stream, and for its clock, in seconds.
_ANSWER = 3.0
_SENSORS = ("eeg", "meg")
# A clock that is measured worse than this, in seconds, moves markers by a sample.
_COARSE = 0.005
_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One stream, its description where it gave one, and its problems in sentences.

    `offset` and `uncertainty` are of its clock, in seconds; None where it does not answer.
    """

    found: Found
    info: SignalInfo | None
    offset: float | None
    uncertainty: float | None
    problems: tuple[str, ...]

    def cells(self) -> tuple[str, ...]:
        """For a table: name, type, channels, rate, format, source_id, host."""
        found = self.found
        rate = f"{found.sfreq:g} Hz" if found.sfreq > 0 else "irregular"
        texts = (found.name, found.type, str(found.n_channels), rate, found.format, found.source_id, found.hostname)
        return tuple(plain(text, 40) or "-" for text in texts)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        found = self.found
        return {
            "name": found.name,
            "type": found.type,
            "n_channels": found.n_channels,
            "sfreq": found.sfreq,
            "format": found.format,
            "source_id": found.source_id,
            "uid": found.uid,
            "hostname": found.hostname,
            "channels": [] if self.info is None else [channel.name for channel in self.info.channels],
            "units": [] if self.info is None else list(self.info.units),
            "offset": self.offset,
            "uncertainty": self.uncertainty,
            "problems": list(self.problems),
        }


def survey(timeout: float) -> list[Seen]:
    """Look for `timeout` seconds, then ask each stream for its description and its clock."""
    streams = look(lambda _streams: False, timeout, 0.0)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda found: _ask(found, streams), streams))


def _ask(found: Found, streams: Sequence[Found]) -> Seen:
    inlet = Inlet(found)
    problems = list(shared_identity(found, streams))
    weak = weakness(found)
    problems += [weak] if weak else []
    info = offset = uncertainty = None
    try:
        modality = found.type.lower() if found.type.lower() in _SENSORS else "eeg"
        info = signal_info(found, inlet.full_info(_ANSWER), modality)
        problems += undescribed(found, info)
        offset, uncertainty, _ = inlet.clock_offset(_ANSWER)
        if uncertainty > _COARSE:
            problems.append(f"its clock is known to {uncertainty * 1e3:.0f} ms only: use a cable, or a quieter network")
    except NoAnswer:
        problems.append("its clock does not answer: a firewall may block UDP, and its times cannot be used")
    except LostStream as error:
        problems.append(f"{error}: its program may have ended, or a firewall block TCP")
    return Seen(found=found, info=info, offset=offset, uncertainty=uncertainty, problems=tuple(problems))


def shared_identity(found: Found, streams: Sequence[Found]) -> list[str]:
    """Other streams that cannot be distinguished from it."""
    if found.source_id:
        n = Counter(one.source_id for one in streams if one.is_signal == found.is_signal)[found.source_id]
        return [f"{n} streams have its source_id: none of them can be found again safely"] if n > 1 else []
    n = sum((one.name, one.type, one.hostname) == (found.name, found.type, found.hostname) for one in streams)
    return [f"{n} streams have its name, type and host: choose by uid"] if n > 1 else []


def undescribed(found: Found, info: SignalInfo) -> list[str]:
    """What an EEG or MEG stream does not say of its channels."""
    if found.type.lower() not in _SENSORS:
        return []
    if not found.is_signal:
        return [f"it is of type {plain(found.type)} and has no rate: no epochs can be cut from it"]
    names = [channel.name for channel in info.channels]
    problems = []
    if all(name[-3:].isdigit() and name.startswith(("EEG", "MAG")) for name in names):
        problems.append("its channels have no labels: a decoder takes channels by name")
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    if twice:
        problems.append(f"two of its channels are called {', '.join(twice[:5])}")
    sensors = [unit for unit, channel in zip(info.units, info.channels, strict=True) if channel.type != "misc"]
    if any(not unit for unit in sensors):
        problems.append("it declares no units: whether they are µV or V is not known")
    unknown = sorted({plain(unit) for unit in sensors if unit and unit_size(unit) is None})
    if unknown:
        problems.append(f"its units are unknown: {', '.join(unknown[:5])}")
    return problems
