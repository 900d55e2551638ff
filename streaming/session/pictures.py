"""The pictures of a session: one worker for each device, and what becomes of each picture in books, page and folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.backends.base import Backend
from ...runtime.decoders.belonging import Decoded
from ..generation.newest import Newest
from ..generation.worker import (
    DrawStarted,
    DuePicture,
    FirstPicture,
    FromPainter,
    Grew,
    Job,
    LastPicture,
    NotDrawn,
    Painter,
)
from ..ledger import Ledger
from .outputs import Folder
from .page import Page
from .results import picture_line, plan_line
from .settings import LiveSettings

# Pictures that may wait for their turn, whichever device will take them.
WAITING = 4


@dataclass(kw_only=True, eq=False)
class _Growing:
    """What must be remembered of a marker until its picture is done."""

    text: str
    epoch_end: float
    trial_id: str
    due_frames: int = 0


class Pictures:
    """Draws the newest epochs first, on as many devices as there are, and says what came of each.

    All but `post` happens in the thread of the session's loop.

    Parameters
    ----------
    backends
        Started; one for each device, each with a worker of its own. None: no pictures are wanted.
    settings
    ledger, page, folder
        Of the session.
    notice
        Takes a kind and a sentence about what went wrong.
    post
        Receives the workers' messages, in their threads; they are to be given to :meth:`take`.
    now
        The local clock.
    """

    def __init__(
        self,
        backends: Sequence[Backend[Any]],
        settings: LiveSettings,
        ledger: Ledger,
        page: Page,
        folder: Folder | None,
        *,
        notice: Callable[[str, str], None],
        post: Callable[[FromPainter], None],
        now: Callable[[], float],
    ) -> None:
        self._settings, self._ledger, self._page, self._folder = settings, ledger, page, folder
        self._notice, self._now = notice, now
        self._growing: dict[int, _Growing] = {}
        queue: Newest[Job] = Newest(WAITING)
        self._painters = [
            Painter(
                one, queue, partial(settings.plan, device=device), seed=settings.decode.seed, device=device, post=post,
                now=now,
            )
            for device, one in enumerate(backends)
        ]  # fmt: skip
        self._n_devices = len(backends)

    @property
    def wanted(self) -> bool:
        """Whether any are drawn."""
        return bool(self._painters)

    def put(
        self, ordinal: int, trial_id: str, features: Decoded, *, text: str, epoch_end: float, arrived: float
    ) -> None:
        """Have a picture drawn of a decoded marker, if its turn comes."""
        deadline = self._settings.deadline
        due = None if deadline is None else max(epoch_end, arrived) + deadline
        self._growing[ordinal] = _Growing(text=text, epoch_end=epoch_end, trial_id=trial_id)
        self._painters[0].put(Job(ordinal=ordinal, trial_id=trial_id, features=features, due=due))  # on all one's queue

    def stop(self) -> None:
        """Begin no more, and leave those under way as they are."""
        for painter in self._painters:
            painter.stop()

    def close(self) -> None:
        """Wait until what waits is drawn, each as far as it is planned."""
        for painter in self._painters:  # all of them know it before one is waited for
            painter.end()
        for painter in self._painters:
            painter.close()

    def take(self, message: FromPainter) -> None:
        """What one message of a worker means."""
        actions: dict[type, Callable[[Any], None]] = {
            DrawStarted: self._draw_started,
            Grew: self._grew,
            FirstPicture: self._first_picture,
            DuePicture: self._due_picture,
            LastPicture: self._last_picture,
            NotDrawn: self._not_drawn,
        }
        actions[type(message)](message)

    def _draw_started(self, started: DrawStarted) -> None:
        self._ledger.moment(started.ordinal, draw_start=started.at)
        if self._folder is not None:
            device = started.device if self._n_devices > 1 else None
            trial_id = self._growing[started.ordinal].trial_id
            self._folder.result(plan_line(started.ordinal, trial_id, started.plan, device))

    def _grew(self, grew: Grew) -> None:
        growing, frame = self._growing[grew.ordinal], grew.frame
        if frame.image is not None:
            self._page.picture(
                grew.ordinal,
                growing.text,
                frame.image,
                stage=frame.stage,
                step=frame.step,
                steps=frame.steps,
                seconds=grew.at - growing.epoch_end,
            )

    def _first_picture(self, first: FirstPicture) -> None:
        growing = self._growing[first.ordinal]
        seconds = first.at - growing.epoch_end
        self._page.picture(first.ordinal, growing.text, first.image, stage=1, seconds=seconds)
        self._ledger.moment(first.ordinal, stage1=first.at, shown=self._now())
        self._write(first.ordinal, "stage1", first.image, stage=1, n_frames=1)

    def _due_picture(self, due: DuePicture) -> None:
        growing = self._growing[due.ordinal]
        growing.due_frames = due.n_frames
        self._ledger.moment(due.ordinal, stage2=due.at)
        seconds = due.at - growing.epoch_end
        self._page.picture(due.ordinal, growing.text, due.image, stage=due.stage, final=due.finished, seconds=seconds)
        self._write(due.ordinal, "due", due.image, stage=due.stage, n_frames=due.n_frames)

    def _last_picture(self, last: LastPicture) -> None:
        growing, drawn = self._growing.pop(last.ordinal), last.drawn
        if drawn.n_frames != growing.due_frames:
            self._write(last.ordinal, "last", drawn.image, stage=drawn.stage, n_frames=drawn.n_frames)
        seconds = last.at - growing.epoch_end
        self._page.picture(last.ordinal, growing.text, drawn.image, stage=drawn.stage, final=True, seconds=seconds)
        kept = f"stage 2 broke off, the picture before that was kept ({drawn.fault})" if drawn.fault else ""
        self._page.durations(self._ledger.settle_picture(last.ordinal, "drawn", kept))
        if kept:
            self._notice("failed", f"marker {last.ordinal}: {kept}")

    def _not_drawn(self, not_drawn: NotDrawn) -> None:
        del self._growing[not_drawn.ordinal]
        self._ledger.settle_picture(not_drawn.ordinal, not_drawn.state, not_drawn.reason)
        if not_drawn.state == "failed":
            self._notice("failed", f"the picture of marker {not_drawn.ordinal} failed: {not_drawn.reason}")

    def _write(self, ordinal: int, when: str, image: NDArray[np.uint8], *, stage: int, n_frames: int) -> None:
        if self._folder is not None:
            picture = self._folder.picture(f"{ordinal:06d}-{when}", image)
            self._folder.result(picture_line(ordinal, when, stage, n_frames, picture.file, picture.pixels_sha256))
