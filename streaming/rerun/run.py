"""Run a session again on its recorded schedule: the same items in the same steps, the same pictures as far as then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...runtime.backends.base import Backend
from ...runtime.errors import InputError
from ...runtime.images import pixel_hash
from ...runtime.progress import unheard
from ..decoding.computing import computing_of, differences
from ..decoding.decode import DecodedEpoch, DecodeSettings, EpochDecoder, Undecodable
from ..generation.draw import Enough, Frame, Undrawable, draw
from ..intake.chain import live_chain
from ..intake.events import Accepted, Event, Refused
from ..intake.intake import Intake
from ..recording.items import read_end, read_info, read_steps
from ..recording.opened import Session
from ..records import Notice
from .recorded import Pictured, Recorded


@dataclass(kw_only=True)
class Rerun:
    """What came of it.

    Attributes
    ----------
    n_markers, n_decoded, n_pictures
        That were compared.
    n_same_states, n_same_features, n_same_pictures
        Of these, to the bit.
    different
        A sentence for each marker that is not as it was, with the first stage at which it differs.
    reasons
        Why that may be: what computes is not what it was, or the recording is not whole.
    """

    n_markers: int = 0
    n_decoded: int = 0
    n_pictures: int = 0
    n_same_states: int = 0
    n_same_features: int = 0
    n_same_pictures: int = 0
    different: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether everything is as it was, to the bit."""
        return not self.different


def rerun(
    session: Session,
    recorded: Recorded,
    backend: Backend[Any],
    *,
    pictures: bool = True,
    say: Callable[[str], None] = unheard,
) -> Rerun:
    """Run a session again.

    Parameters
    ----------
    session, recorded
        Its folder, and what that says.
    backend
        Started.
    pictures
        Whether they are drawn again, each by its plan and as many frames as it had.
    say
        Receives lines of progress.

    Raises
    ------
    MindDiffuserError
        The recording is damaged, or does not fit the decoder.
    """
    here = computing_of(backend)
    done = Rerun(reasons=differences(recorded.computing, here))
    for device, drawing in enumerate(recorded.drawing[1:], start=1):
        done.reasons += [f"of pictures drawn on device {device}, {text}" for text in differences(drawing, here)]
    settings = DecodeSettings(
        session=session.id, average=recorded.average, semantic=recorded.semantic, seed=recorded.seed
    )
    decoder = EpochDecoder(backend, settings)
    states: dict[int, str] = {}
    for event in _events(session, recorded, backend, done):
        if isinstance(event, Refused):
            states[event.ordinal] = event.state
        elif isinstance(event, Accepted):
            epoch = _decode(decoder, event, states)
            was_decoded = recorded.states.get(event.ordinal) == "decoded"
            _compare_features(done, event.ordinal, recorded.decoded.get(event.ordinal), epoch, was_decoded=was_decoded)
            then = recorded.pictures.get(event.ordinal)
            if pictures and epoch is not None and then is not None:
                say(f"drawing marker {event.ordinal}")
                _compare_picture(done, event.ordinal, then, epoch, backend, recorded.seed)
    _compare_states(done, recorded.states, states)
    return done


def _events(session: Session, recorded: Recorded, backend: Backend[Any], done: Rerun) -> Iterator[Event]:
    """What the intake gives, step by step."""
    info, decoder = read_info(session.signal), backend.decoder
    layout = decoder.training.layout
    if layout is None:
        raise InputError(f"{decoder.folder} does not say what it decodes: it is not what the session ran on")
    live = live_chain(layout, info, folder=decoder.folder, accept_filter_mismatch=recorded.accept_filter_mismatch)
    intake = Intake(live.chain, recorded.intake, training=decoder.training)
    intake.start(info)
    now = 0.0
    for step in read_steps(session.signal):
        now = step.now
        lost = [item for item in step.items if isinstance(item, Notice) and item.kind == "dropped"]
        done.reasons += [f"then, {item.text}" for item in lost]
        yield from intake.step(step.items, now)
    end = read_end(session.signal)
    if end is None:
        done.reasons.append("the recording was cut before the session ended")
    yield from intake.finish(now if end is None else end)


def _decode(decoder: EpochDecoder, event: Accepted, states: dict[int, str]) -> DecodedEpoch | None:
    try:
        epoch = decoder.decode(event.ordinal, event.text, np.asarray(event.data, np.float32))
    except Undecodable as error:
        states[event.ordinal] = error.state
        return None
    states[event.ordinal] = "decoded"
    decoder.after(epoch)
    return epoch


def _compare_features(
    done: Rerun, ordinal: int, then: Mapping[str, Any] | None, epoch: DecodedEpoch | None, *, was_decoded: bool
) -> None:
    if epoch is None or (then is None and not was_decoded):
        return  # a state that differs, which is said of the state
    done.n_decoded += 1
    if then is None:
        done.different.append(f"marker {ordinal}: it was decoded, and the session's results do not say to what")
        return
    now = {**epoch.hashes(), "confidence": epoch.confidence}
    before = {**then["hashes"], "confidence": then.get("confidence")}
    wrong = [name for name in before if now.get(name) != before[name]]
    if not wrong:
        done.n_same_features += 1
    elif "response" in wrong:
        done.different.append(f"marker {ordinal}: its epoch is another one, as the signal chain gives it")
    else:
        done.different.append(f"marker {ordinal}: the epoch is the same, and decoded to another {', '.join(wrong)}")


def _compare_picture(
    done: Rerun, ordinal: int, then: Pictured, epoch: DecodedEpoch, backend: Backend[Any], seed: int
) -> None:
    done.n_pictures += 1
    most = max(n_frames for n_frames, _ in then.kept)
    found: dict[int, str] = {}
    best: list[Frame] = []

    def look(frame: Frame) -> None:
        if frame.kept and frame.image is not None:
            best[:] = [frame]
        if best and best[0].image is not None and any(frame.number == n for n, _ in then.kept):
            found[frame.number] = pixel_hash(best[0].image)
        if frame.number >= most:
            raise Enough

    try:
        draw(backend, epoch.features, then.trial_id, then.plan, seed, look)
    except Undrawable as error:
        done.different.append(f"marker {ordinal}: no picture could be drawn: {error}")
        return
    wrong = [n for n, pixels in then.kept if found.get(n) != pixels]
    if not wrong:
        done.n_same_pictures += 1
        return
    stage = "of stage 1" if wrong[0] == 1 else f"after {wrong[0]} frames"
    done.different.append(f"marker {ordinal}: its picture {stage} is another one")


def _compare_states(done: Rerun, then: Mapping[int, str], now: Mapping[int, str]) -> None:
    for ordinal in sorted(then.keys() | now.keys()):
        done.n_markers += 1
        before, here = then.get(ordinal, "unknown"), now.get(ordinal, "unknown")
        if before == here:
            done.n_same_states += 1
        else:
            done.different.append(f"marker {ordinal} was {before}, and is {here}")
