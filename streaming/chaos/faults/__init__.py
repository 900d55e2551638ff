"""The kinds of faults: a new one is one function and one line here, and the plan, the report and the tests know it."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from . import clocks, delivery, markers, samples, session
from .base import Kind, SessionKind

SOURCE_FAULTS: Mapping[str, Kind] = {
    "pause": Kind(what="the source sent no samples", lasts=(0.05, 4.0), make=samples.pause),
    "half": Kind(what="half of the samples were missing", lasts=(1.0, 3.0), make=samples.half),
    "twice": Kind(what="some samples came twice", lasts=(1.0, 3.0), make=samples.twice),
    "resent": Kind(what="packets were sent again", lasts=(1.0, 3.0), make=samples.resent),
    "reordered": Kind(what="some samples came behind later ones", lasts=(1.0, 3.0), make=samples.reordered),
    "nan": Kind(what="some values were NaN or infinite", lasts=(1.0, 3.0), make=samples.not_numbers),
    "jitter": Kind(what="stamps were off by up to 0.3 samples", lasts=(2.0, 6.0), make=samples.jitter),
    "outage": Kind(what="nothing arrived, then all at once", lasts=(1.0, 6.0), make=delivery.outage),
    "bursts": Kind(what="everything arrived in bursts", lasts=(2.0, 5.0), make=delivery.bursts),
    "restart": Kind(what="the source was restarted", lasts=(3.0, 5.0), make=delivery.restart),
    "other-rate": Kind(what="the source was restarted at half of its rate", lasts=(3.0, 5.0), make=delivery.other_rate),
    "other-order": Kind(
        what="the source was restarted with its channels in another order",
        lasts=(3.0, 5.0),
        make=delivery.other_order,
    ),
    "fewer-channels": Kind(
        what="the source was restarted without one of its channels", lasts=(3.0, 5.0), make=delivery.fewer_channels
    ),
    "offset": Kind(what="the sender's clock jumped by up to 1000 s", lasts=(inf, inf), make=clocks.offset),
    "step": Kind(what="the sender's clock was set by one second", lasts=(inf, inf), make=clocks.step),
    "drift": Kind(what="the sender's clock began to drift by 50 ppm", lasts=(inf, inf), make=clocks.drift),
    "foreign": Kind(what="markers were stamped by a foreign clock", lasts=(2.0, 6.0), make=clocks.foreign),
    "unmeasured": Kind(
        what="markers were stamped by a foreign clock whose offset nobody knew",
        lasts=(2.0, 6.0),
        make=clocks.unmeasured,
    ),
    "flood": Kind(what="5000 markers came within half a second", lasts=(0.5, 0.5), make=markers.flood),
    "empty": Kind(what="an empty marker came", lasts=(0.5, 0.5), make=markers.empty),
    "giant": Kind(what="a marker of one megabyte came", lasts=(0.5, 0.5), make=markers.giant),
    "garbled": Kind(what="a marker came that is no UTF-8", lasts=(0.5, 0.5), make=markers.garbled),
    "doubled": Kind(what="every marker came twice", lasts=(3.0, 6.0), make=markers.doubled),
    "late": Kind(what="markers came late and out of order", lasts=(4.0, 8.0), make=markers.late),
    "shuffled": Kind(what="markers came together in a random order", lasts=(4.0, 8.0), make=markers.shuffled),
    "misdated": Kind(what="markers were stamped 1000 s in the future", lasts=(3.0, 6.0), make=markers.misdated),
}

SESSION_FAULTS: Mapping[str, SessionKind] = {
    session.SLOW: SessionKind(what="the decoder was slow", lasts=(1.0, 5.0), begin=session.slow_decoder),
    session.RAISES: SessionKind(what="the decoder raised", lasts=(2.0, 5.0), begin=session.raising_decoder),
    session.NAN: SessionKind(what="the decoder gave NaN", lasts=(2.0, 5.0), begin=session.nan_decoder),
    "full-disk": SessionKind(what="the disk was full", lasts=(inf, inf), begin=session.full_disk),
    "hung-disk": SessionKind(what="the disk did not answer", lasts=(1.0, 5.0), begin=session.hung_disk),
    "silent-page": SessionKind(
        what="a browser opened the page and never read", lasts=(2.0, 8.0), begin=session.silent_page
    ),
}

FAULTS: Mapping[str, Kind | SessionKind] = {**SOURCE_FAULTS, **SESSION_FAULTS}
