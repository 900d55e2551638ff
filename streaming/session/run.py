"""A session from what a person asks for: everything is opened and found good, then it runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ...runtime import backends
from ...runtime.backends.base import Backend, Decoder, Needs, Options
from ...runtime.data.layout import ResponseLayout
from ...runtime.errors import InputError
from ...runtime.leaks import leaks_line
from ...runtime.progress import unheard
from ...runtime.refine.settings import PRESETS, GuidedSettings
from ...runtime.sampling import Sampling
from ..clock import now
from ..dashboard.hub import Hub
from ..dashboard.messages import Session as SessionMessage
from ..decoding.computing import computing_of
from ..decoding.concept_table import read_concepts_of
from ..decoding.decode import DecodeSettings
from ..generation.pace import measured, warm_up
from ..generation.plan import Plan
from ..intake.settings import IntakeSettings
from ..recording.folder import SessionFolder
from ..recording.folder_queue import FolderQueue
from ..sources.base import Wanted
from .acquisition import AcquisitionSettings
from .live import Ended, LiveSession
from .outputs import Outlet, Outputs
from .process import AcquisitionProcess, Feed
from .settings import LiveSettings

PRESET_NAMES = tuple(name for name, preset in PRESETS.items() if isinstance(preset, GuidedSettings))


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asks for.

    Attributes
    ----------
    bundle
        A bundle, or a checkpoint.
    source
        As ``--source`` takes it.
    intake
        Which markers, and how certain their times must be.
    accept_filter_mismatch
        Whether filters may be others than the training's.
    timeout
        Seconds to look for the source.
    options
        What computes.
    devices
        Of PyTorch, the first of which decodes, and each of which draws; empty or one: that of `options`.
    stage
        0, 1 or 2: no pictures, stage 1 alone, or both.
    preset
        Of stage 2, a name of `PRESET_NAMES`.
    sampling
        Of stage 1.
    deadline
        Seconds from an epoch to its picture, or None.
    average
        Whether the mean over an event's epochs is decoded.
    seed
        Of the start noise, and of whatever else is drawn.
    concepts
        A table that says which concept each marker is of, for the control; or None.
    record
        A new folder for the session, or None.
    session
        Its id; None: the folder's name, or the time.
    dashboard, port
        Whether there is a page, and where; port 0 is a free one.
    outlet
        Name of an LSL stream for the results, or None.
    niceness
        By how much the threads that decode and draw yield to acquisition, where the system knows that.
    """

    bundle: Path
    source: str
    intake: IntakeSettings = field(default_factory=IntakeSettings)
    accept_filter_mismatch: bool = False
    timeout: float = 10.0
    options: Options = field(default_factory=Options)
    devices: tuple[str, ...] = ()
    stage: int = 2
    preset: str = "default"
    sampling: Sampling = field(default_factory=Sampling)
    deadline: float | None = None
    average: bool = False
    seed: int = 42
    concepts: Path | None = None
    record: Path | None = None
    session: str | None = None
    dashboard: bool = True
    port: int = 0
    outlet: str | None = None
    niceness: int = 0

    def __post_init__(self) -> None:
        if self.stage not in (0, 1, 2):
            raise InputError(f"stage is {self.stage}: choose 0 (no pictures), 1 or 2")
        if self.preset not in PRESET_NAMES:
            raise InputError(f"preset {self.preset!r} is unknown: choose one of {', '.join(PRESET_NAMES)}")
        if len(set(self.devices)) < len(self.devices):
            raise InputError(f"the devices are {', '.join(self.devices)}: name each once")
        if self.deadline is not None and not 0 < self.deadline < 3600:
            raise InputError(f"the deadline is {self.deadline:g} s: give seconds above 0 and below an hour")
        if self.deadline is not None and self.stage == 0:
            raise InputError("a deadline is for pictures, and stage 0 draws none: leave one of the two out")


def run_session(
    request: Request,
    *,
    out: Callable[[str], None] = unheard,
    say: Callable[[str], None] = unheard,
    around: Callable[[Feed], Feed] = lambda feed: feed,
) -> Ended:
    """Run a session to its end.

    Parameters
    ----------
    request
    out, say
        Receive lines of results, and lines about what happens.
    around
        Gives the feed that is listened to in the place of acquisition's own.

    Raises
    ------
    MindDiffuserError
        Something does not open or does not fit, before anything has been received.
    """
    with ExitStack() as stack:
        refine = PRESETS[request.preset] if request.stage == 2 else None
        refine = replace(refine, seed=request.seed) if isinstance(refine, GuidedSettings) else None
        needs = Needs(
            refine=refine is not None,
            steps_back=refine is not None and refine.steps_back,
            semantic=refine is not None and refine.semantic_weight > 0,
        )
        opened = [stack.enter_context(one) for one in _opened(request, needs)]
        backend = opened[0]
        decoder = backend.decoder
        layout = _layout_of(decoder)
        concepts = _concepts(request, decoder)
        if refine is not None:
            refine = _refinement(decoder, refine, say)
        name = request.session or (
            request.record.absolute().name if request.record else datetime.now().strftime("live-%Y%m%d-%H%M%S")
        )
        about = _about(request, decoder, concepts)
        folder = None
        if request.record is not None:
            folder = FolderQueue(SessionFolder.create(request.record, about, id=name, on_stop=say))
            stack.callback(folder.close, {"reason": "it did not begin"})  # the second time does nothing
        hub = _dashboard(request, stack, say) if request.dashboard else None
        feed = AcquisitionProcess(_acquisition(request, decoder, layout, preview=hub is not None))
        stack.callback(feed.close)
        if request.niceness and hasattr(os, "nice"):
            os.nice(request.niceness)  # the process of the acquisition was begun before
        feed.prepare()  # while engines load and are measured: what comes before they are ready waits, and is not lost
        for one in opened:
            one.start()
        if folder is not None:
            more = {"drawing": [computing_of(one) for one in opened]} if len(opened) > 1 else {}
            folder.describe({"needs": asdict(needs), "computing": computing_of(backend), **more})
        say(f"decoding with {backend.chosen}")
        if len(opened) > 1:
            say(f"drawing on {', '.join(request.devices)}, each by itself")
        for note in (*backend.notes, *((leaks_line(decoder.leaks),) if decoder.leaks else ())):
            say(note)
        settings = _settings(request, opened, refine, concepts, name, say)
        outlet = _outlet(request, decoder, settings, stack)
        session = LiveSession(
            opened,
            around(feed),
            settings,
            _session_message(request, decoder, layout),
            Outputs(folder=folder, hub=hub, outlet=outlet, out=out, say=say),
            now=now,
        )
        return session.run()


def _layout_of(decoder: Decoder) -> ResponseLayout:
    layout = decoder.training.layout
    if layout is None or layout.modality == "fmri":
        kind = "an unknown kind of responses" if layout is None else "fMRI"
        raise InputError(f"{decoder.folder} decodes {kind}, and md-stream receives EEG and MEG: give a bundle of these")
    return layout


def _concepts(request: Request, decoder: Decoder) -> dict[str, str]:
    """Which candidate each marker is of, as far as a table says it."""
    if request.concepts is None:
        return {}
    if decoder.candidates is None:
        raise InputError(f"--concepts is for decoders of a concept, and {decoder.folder} decodes none: leave it out")
    return read_concepts_of(request.concepts, decoder.candidates.names)


def _refinement(decoder: Decoder, refine: GuidedSettings, say: Callable[[str], None]) -> GuidedSettings:
    if not decoder.mask.any():
        raise InputError(
            f"the mask of {decoder.folder} keeps no structure dimension: fit it with a larger --percent, or give "
            "--stage 1"
        )
    if refine.semantic_weight > 0 and "semantic" not in decoder.shapes:
        say("there is no decoder of the semantic feature: stage 2 goes by the structure alone")
        return replace(refine, semantic_weight=0.0)
    return refine


def _settings(
    request: Request,
    opened: Sequence[Backend[Any]],
    refine: GuidedSettings | None,
    concepts: Mapping[str, str],
    name: str,
    say: Callable[[str], None],
) -> LiveSettings:
    """Warm up what computes, and measure it where there is a deadline."""
    cold = list(opened)
    if refine is not None and refine.semantic_weight > 0:
        try:
            warm_up(opened[0], refine, request.sampling)
            cold = cold[1:]
        except InputError as error:
            say(f"stage 2 goes by the structure alone: {error}")
            refine = replace(refine, semantic_weight=0.0)
    for one in cold:
        warm_up(one, refine, request.sampling)
    decode = DecodeSettings(
        session=name,
        average=request.average,
        semantic=refine is not None and refine.semantic_weight > 0,
        seed=request.seed,
        concepts=concepts,
    )
    settings = LiveSettings(
        decode=decode,
        pictures=request.stage > 0,
        refine=refine,
        sampling=request.sampling,
        deadline=request.deadline,
    )
    if request.deadline is None:
        return settings
    settings = replace(settings, paces=tuple(measured(one, refine, request.sampling, now) for one in opened))
    for device in range(len(opened)):
        where = request.devices[device] if len(opened) > 1 else "this machine"
        say(f"within {request.deadline:g} s {where} makes {_in_words(settings.plan(request.deadline, device))}")
    return settings


def _in_words(plan: Plan) -> str:
    """What a plan does."""
    steps = f"stage 1 in {plan.sampling.n_reverse} steps"
    if plan.refine is not None:
        n = plan.refine.candidates or 1
        steps += f", stage 2 from {n} start noise{'s' * (n > 1)}"
        steps += (
            "" if plan.fits else ", which does not fit: pictures are of stage 1 when they are due, and refined after"
        )
    return steps


def _opened(request: Request, needs: Needs) -> list[Backend[Any]]:
    """What computes, on each device."""
    options = replace(request.options, needs=needs)
    if len(request.devices) < 2:
        return [backends.open(request.bundle, options)]
    if backends.is_bundle(request.bundle) and options.backend != "pytorch":
        raise InputError(
            f"{len(request.devices)} devices are given, and a bundle's engines run on one: choose --backend pytorch, "
            "or give one device"
        )
    return [backends.open(request.bundle, replace(options, device=device)) for device in request.devices]


def _acquisition(request: Request, decoder: Decoder, layout: ResponseLayout, *, preview: bool) -> AcquisitionSettings:
    return AcquisitionSettings(
        source=request.source,
        wanted=Wanted(modality=layout.modality, timeout=request.timeout),
        layout=layout,
        training=decoder.training,
        folder=decoder.folder,
        intake=request.intake,
        accept_filter_mismatch=request.accept_filter_mismatch,
        record=request.record,
        preview=preview,
    )


def _dashboard(request: Request, stack: ExitStack, say: Callable[[str], None]) -> Hub:
    from ...runtime.web.invite import invite
    from ..dashboard.server import DashboardServer

    hub = Hub()
    server = stack.enter_context(DashboardServer(hub, port=request.port, said=say))
    for line in invite("dashboard", server.address(), server.port, os.environ):
        say(line)
    return hub


def _outlet(request: Request, decoder: Decoder, settings: LiveSettings, stack: ExitStack) -> Outlet | None:
    if request.outlet is None:
        return None
    from .outlet import SessionOutlet

    return stack.enter_context(SessionOutlet(request.outlet, decoder, semantic=settings.decode.semantic))


def _session_message(request: Request, decoder: Decoder, layout: ResponseLayout) -> SessionMessage:
    return SessionMessage(
        bundle=request.bundle.name,
        source=request.source,
        modality=layout.modality,
        events=request.intake.events,
        n_concepts=None if decoder.candidates is None else len(decoder.candidates.names),
        average_by="event" if request.average else None,
        deadline=request.deadline,
    )


def _about(request: Request, decoder: Decoder, concepts: Mapping[str, str]) -> dict[str, Any]:
    """What a session is made with, for its folder: enough to run it again."""
    return {
        "bundle": {"folder": str(request.bundle.absolute()), "subject": decoder.subject},
        "source": request.source,
        "intake": asdict(request.intake),
        "accept_filter_mismatch": request.accept_filter_mismatch,
        "stage": request.stage,
        "preset": request.preset,
        "sampling": asdict(request.sampling),
        "deadline": request.deadline,
        "average": request.average,
        "seed": request.seed,
        "concepts": dict(concepts),
    }
