"""What a session shows on its page: nothing here is waited for, and nothing happens where there is no page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...runtime.images import png_bytes
from ..dashboard import messages
from ..dashboard.hub import Hub
from ..dashboard.preview import Preview
from ..decoding.control import Score
from ..decoding.decode import DecodedEpoch
from ..generation.draw import Picture
from ..ledger import STAGES, SUMS, Entry, Ledger
from ..records import SIGNAL
from .acquisition import Opened, Previewed, Stands

_LEVELS = {
    "deaf": "warning",  # acquisition says nothing: of the signal nothing is known
    "silent": "warning",
    "stale": "warning",
    "lost": "error",
    "changed": "warning",
    "dropped": "warning",
    "clock": "warning",
    "filters": "warning",
    "drift": "warning",
    "failed": "warning",
    "recording": "error",
}
# Entries of the ledger.
_SHOWN = 12
# Decoded with fewer candidates than this, the first one alone counts as right.
_MANY = 10


class Page:
    """The messages of one session.

    Parameters
    ----------
    hub
        None: there is no page.
    about
        What runs.
    began
        The session's zero, on the local clock.

    Attributes
    ----------
    trouble
        What is wrong with the signal's stream, a kind of notice; None where it is as it should be.
    """

    def __init__(self, hub: Hub | None, about: messages.Session, began: float) -> None:
        self._hub, self._about, self._began = hub, about, began
        self._preview: Preview | None = None
        self._opened: Opened | None = None
        self.trouble: str | None = None
        self._newest: dict[str, tuple[float, float]] = {}
        self._say(about)

    def opened(self, opened: Opened) -> None:
        """The source is there."""
        self._opened = opened
        if self._hub is not None:
            self._preview = Preview(opened.channels, opened.sfreq)
            self._say(self._preview.montage())

    def previewed(self, preview: Previewed) -> None:
        """New samples to show."""
        if self._preview is not None:
            for message in self._preview.add(preview.times - self._began, preview.data):
                self._say(message)

    def stands(self, stands: Stands, folder: str) -> None:
        """How signal and recording stand."""
        intake, opened, recording = stands.intake, self._opened, stands.recording
        if self._hub is None or opened is None:
            return
        state = self.trouble or ("warming up" if intake.warm_up_left > 0 else "running")
        self._say(
            messages.Stream(
                state=state if intake.n_samples or self.trouble else "waiting",
                name=opened.info.name,
                nominal=intake.nominal,
                measured=intake.sfreq,
                age=intake.sample_age,
                offset=intake.offset,
                uncertainty=intake.uncertainty,
                gaps=intake.n_gaps,
                dropped=intake.n_unusable + intake.n_nan + intake.n_lost,
                duplicates=intake.n_duplicate,
                n_samples=intake.n_samples,
                segment=intake.segment + 1,
                warm_up=intake.warm_up_left,
            )
        )
        if recording is not None:
            self._say(
                messages.Recording(
                    on=recording.on,
                    folder=folder,
                    n_bytes=recording.n_bytes,
                    seconds=stands.at - self._began,
                    stopped=recording.reason or None,
                )
            )

    def marker(self, ordinal: int, text: str, at: float) -> None:
        """A marker came; said again when its own time is known."""
        self._say(messages.Marker(at=at - self._began, ordinal=ordinal, text=text))

    def decoded(self, epoch: DecodedEpoch, scores: Sequence[Score], outside: Sequence[str]) -> None:
        """An epoch was decoded."""
        if self._hub is None or epoch.similarity is None:
            return
        names, shares = [name for name, _ in epoch.nearest], _shares(epoch)
        warning = f"outside the range of training: {', '.join(outside)}" if outside else None
        self._say(
            messages.Decoded(
                ordinal=epoch.ordinal,
                text=epoch.text,
                top=tuple(messages.Concept(name=name, score=score) for name, score in zip(names, shares, strict=True)),
                measure=f"share of nearness among {len(epoch.similarity)} concepts, not calibrated",
                chance=1 / len(epoch.similarity),
                confidence=epoch.confidence,
                n_averaged=epoch.n_averaged,
                control=control_of(scores, len(epoch.similarity)),
                no_control=why_no_control(scores, len(epoch.similarity)),
                warning=warning or (epoch.warnings[0] if epoch.warnings else None),
            )
        )

    def picture(
        self,
        ordinal: int,
        text: str,
        image: Picture,
        *,
        stage: int,
        step: int = 1,
        steps: int = 1,
        final: bool = False,
        seconds: float | None = None,
    ) -> None:
        """A picture as far as it is; on its way it is shown to who looks on, and not kept for others."""
        on_its_way = stage == 2 and not final
        if self._hub is not None and (self._hub.n_clients or not on_its_way):
            self._say(
                messages.Picture(
                    ordinal=ordinal,
                    text=text,
                    stage=stage,
                    frame=step,
                    n_frames=steps,
                    png=png_bytes(image),
                    final=final,
                    seconds=seconds,
                )
            )

    def durations(self, entry: Entry) -> None:
        """How long each stage of this marker took, and when it began, counted from its epoch's end."""
        zero = entry.moments.get("epoch_end")
        if zero is not None:
            for name, seconds in entry.durations.items():
                self._newest[name] = entry.moments[STAGES[name][0]] - zero, seconds

    def books(self, ledger: Ledger) -> None:
        """The totals, the newest entries, and how long each stage takes."""
        if self._hub is None:
            return
        totals = ledger.totals()
        newest = list(ledger.recent)[: -_SHOWN - 1 : -1]
        self._say(
            messages.Ledger(
                received=totals.received,
                totals=totals.states,
                pictures=totals.pictures,
                entries=tuple(
                    messages.Entry(ordinal=one.ordinal, text=one.text, state=one.state, reason=one.reason)
                    for one in newest
                ),
            )
        )
        found = ledger.percentiles()
        stages = tuple(
            messages.StageTime(
                name=name,
                start=self._newest[name][0],
                last=self._newest[name][1],
                p50=found[name]["p50"],
                p95=found[name]["p95"],
                p99=found[name]["p99"],
                longest=found[name]["max"],
                total=name in SUMS,
            )
            for name in STAGES
            if name in found and name in self._newest
        )
        n = max((int(one["n"]) for one in found.values()), default=0)
        self._say(messages.Latency(stages=stages, n=n, deadline=self._about.deadline))

    def notice(self, kind: str, text: str, at: float, stream: str = "") -> None:
        """Something happened; what is said of the signal's stream changes its state too, of the markers' does not."""
        if stream == SIGNAL and kind in ("silent", "stale", "lost", "ended"):
            self.trouble = kind
        elif stream == SIGNAL and kind in ("recovered", "changed"):
            self.trouble = None
        self._say(messages.Notice(at=at - self._began, level=_LEVELS.get(kind, "note"), text=text))

    def ended(self, why: str) -> None:
        """The session is over."""
        self._say(replace(self._about, ended=why))

    def _say(self, message: messages.Message) -> None:
        if self._hub is not None:
            self._hub.publish(message)


def control_of(scores: Sequence[Score], n_candidates: int) -> messages.Control | None:
    """The running control as the page shows it: of the first five, or of the first where there are few candidates."""
    wanted = 5 if n_candidates > _MANY else 1
    score = next((one for one in scores if one.k == wanted), None)
    if score is None or score.right is None or score.shuffled is None:
        return None
    label = "right concept among the first five" if wanted == 5 else "right concept first"
    return messages.Control(label=label, n=score.n, value=score.right, shuffled=score.shuffled, chance=score.chance)


def why_no_control(scores: Sequence[Score], n_candidates: int) -> str | None:
    """Why there is no control though epochs were decoded; None where there is one, or will be."""
    if not scores or scores[0].n or not scores[0].n_unnamed:
        return None
    n = scores[0].n_unnamed
    which = "the first marker names none" if n == 1 else f"none of {n} markers names one"
    return f"No control: {which} of the {n_candidates} concepts; --concepts FILE says which one each marker is of."


def _shares(epoch: DecodedEpoch) -> list[float]:
    """The nearest concepts' shares: a softmax of the similarities over their deviation, 1 / n where all are alike."""
    values = np.asarray(epoch.similarity, np.float64)
    scaled = np.exp((values - values.max()) / max(float(values.std()), 1e-12))
    shares = np.sort(scaled / scaled.sum())[::-1]
    return [float(share) for share in shares[: len(epoch.nearest)]]
