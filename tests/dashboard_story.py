"""A session that never was, as messages for the dashboard: signals with faults, markers, decoded concepts, pictures.

Made of a seed, so that a test and a screenshot show the same. Nothing here decodes anything.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.images import png_bytes
from minddiffuser.streaming.dashboard.messages import (
    Concept,
    Control,
    Decoded,
    Entry,
    Latency,
    Ledger,
    Marker,
    Message,
    Notice,
    Picture,
    Recording,
    Session,
    StageTime,
    Stream,
)
from minddiffuser.streaming.dashboard.preview import Preview

NAMES = (
    "Fp1 Fp2 F7 F3 Fz F4 F8 FC5 FC1 FC2 FC6 T7 C3 Cz C4 T8 CP5 CP1 CP2 CP6 P7 P3 Pz P4 P8 PO7 PO3 POz PO4 PO8 O1 O2"
).split()
# Of the outer ring and inwards, in degrees: (azimuth from the nose to the right, angle from the vertex).
_PLACES = [
    (-18, 90), (18, 90), (-54, 90), (-40, 62), (0, 46), (40, 62), (54, 90), (-68, 70), (-44, 34), (44, 34), (68, 70),
    (-90, 90), (-90, 46), (0, 0), (90, 46), (90, 90), (-112, 70), (-136, 34), (136, 34), (112, 70), (-126, 90),
    (-140, 62), (180, 46), (140, 62), (126, 90), (-144, 90), (-156, 76), (180, 68), (156, 76), (144, 90), (-162, 90),
    (162, 90),
]  # fmt: skip
SFREQ = 250.0
CONCEPTS = "heart star mug fish house leaf moon key arrow tree".split()
EVERY_S = 2.0
GAP_S = 15.0
_COLOURS = np.array([[196, 62, 58], [52, 116, 180], [226, 172, 52], [82, 148, 92], [130, 88, 168]], np.float64)


def channels() -> tuple[Channel, ...]:
    """32 EEG channels on a sphere of 9 cm, named and placed as the 10-20 system does, roughly."""
    azimuth, angle = np.radians(_PLACES).T
    x, y, z = np.sin(angle) * np.sin(azimuth), np.sin(angle) * np.cos(azimuth), np.cos(angle)
    spots = 0.09 * np.stack([x, y, z], axis=1)
    return tuple(
        Channel(name=name, type="eeg", position=tuple(map(float, spot)))
        for name, spot in zip(NAMES, spots, strict=True)
    )


def signal(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """(32, n) volts: a brain's slow noise and its alpha; T7 is flat, F8 is railed, T8 has hum, Fp2 is noisy."""
    n = round(seconds * SFREQ)
    times = np.arange(n) / SFREQ
    white = np.fft.rfft(rng.standard_normal((len(NAMES), n)), axis=1)
    falling = 1 / np.maximum(np.fft.rfftfreq(n, 1 / SFREQ), 0.7) ** 0.9
    data = np.fft.irfft(white * falling, n, axis=1)
    data *= 9e-6 / data.std(axis=1, keepdims=True)
    back = np.array([max(0.0, -np.cos(np.radians(azimuth))) for azimuth, _ in _PLACES])
    data += 9e-6 * back[:, None] * np.sin(2 * np.pi * 10.2 * times) * (0.6 + 0.4 * np.sin(2 * np.pi * 0.23 * times))
    data[NAMES.index("T7")] *= 0.01
    data[NAMES.index("F8")] = np.clip(6 * data[NAMES.index("F8")], -25e-6, 25e-6)
    data[NAMES.index("T8")] += 28e-6 * np.sin(2 * np.pi * 50 * times)
    data[NAMES.index("Fp2")] += 80e-6 * rng.standard_normal(n)
    return data


def scene(rng: np.random.Generator, size: int = 64) -> np.ndarray:
    """(size, size, 3) float in [0, 255]: a disc before a ground that grows lighter downwards."""
    y, x = np.mgrid[:size, :size] / size
    first, second = _COLOURS[rng.permutation(len(_COLOURS))[:2]]
    ground = 0.55 * second + 110 * (0.6 + 0.4 * y[..., None])
    cx, cy, radius = rng.uniform(0.3, 0.7, 2).tolist() + [rng.uniform(0.16, 0.3)]
    inside = np.clip((radius - np.hypot(x - cx, y - cy)) * size, 0, 1)[..., None]
    return np.clip(inside * first + (1 - inside) * ground, 0, 255)


def picture(rng: np.random.Generator, final: np.ndarray, share: float) -> bytes:
    """A PNG of a picture that has grown by a share of its way."""
    noise = rng.normal(128, 60, final.shape)
    blurred = final.mean(axis=(0, 1)) * (1 - share) + final * share
    return png_bytes(np.clip(blurred * share + noise * (1 - share), 0, 255).astype(np.uint8))


def opening(text: str = "run7/eeg.bundle") -> list[Message]:
    """What is said at the start."""
    preview = Preview(channels(), SFREQ)
    return [
        Session(
            bundle=text, source="lsl:name=BrainAmp,markers=Stimuli", modality="eeg", events=("*",),
            n_concepts=len(CONCEPTS), average_by="event", deadline=2.0,
        ),
        preview.montage(),
        Stream(state="warming up", name="BrainAmp", nominal=SFREQ, warm_up=1.8),
        Notice(at=0.0, level="note", text="Stream BrainAmp: 32 channels at 250 Hz, markers from Stimuli."),
        Recording(on=True, folder="sessions/2026-11-26T14-05", n_bytes=0),
    ]  # fmt: skip


def story(
    seconds: float, seed: int = 0, pictures: Sequence[tuple[str, Sequence[bytes]]] = ()
) -> Iterator[tuple[float, Message]]:
    """(time, message) of a session in order; a gap of 0.4 s begins at GAP_S.

    `pictures` are a name and the growing frames of each trial; none: drawn here.
    """
    rng = np.random.default_rng(seed)
    preview, data, chunk = Preview(channels(), SFREQ), signal(rng, seconds), round(0.1 * SFREQ)
    yield from ((0.0, message) for message in opening())
    decoded, refused, hits, controls, durations = 0, 0, 0, 0, []
    ordinal, back = -1, GAP_S + 0.4
    entries: list[Entry] = []
    due: list[tuple[float, Message]] = []
    for start in range(0, data.shape[1], chunk):
        now = start / SFREQ
        part = data[:, start : start + chunk]
        times = now + np.arange(part.shape[1]) / SFREQ
        gap = GAP_S <= now < back
        for message in [] if gap else preview.add(times, part):
            yield now, message
        if abs(now - back) < 1e-6:
            yield now, Notice(
                at=now, level="warning",
                text="The signal has a gap of 0.40 s: a new segment began, its filters warm up for 1.8 s.",
            )  # fmt: skip
        yield now, Stream(
            state="warming up" if now < 1.8 or back <= now < back + 1.8 else "silent" if gap else "running",
            name="BrainAmp", nominal=SFREQ, measured=249.97 + 0.02 * np.sin(now),
            age=0.004 + (now - GAP_S if gap else 0),
            offset=0.00031 + 1e-6 * now, uncertainty=0.00005, gaps=int(now >= back), n_samples=start,
            segment=1 + int(now >= back), warm_up=max(0.0, 1.8 - now, back + 1.8 - now if now >= back else 0),
        )  # fmt: skip
        yield now, Recording(on=True, folder="sessions/2026-11-26T14-05", n_bytes=start * 32 * 8, seconds=now)
        if now >= EVERY_S * (ordinal + 2) - 1e-9:
            ordinal += 1
            name = pictures[ordinal % len(pictures)][0] if pictures else CONCEPTS[ordinal % len(CONCEPTS)]
            text = f"stimulus/{name}"
            yield now, Marker(at=now, ordinal=ordinal, text=text)
            in_gap = GAP_S - 0.6 < now < back + 1.8
            state = "refused" if in_gap else "pending"
            reason = "the epoch touches the filters' warm-up" if in_gap else ""
            entries.insert(0, Entry(ordinal=ordinal, text=text, state=state, reason=reason))
            refused += in_gap
            if not in_gap:
                right = rng.random() < 0.55
                hits, controls = hits + right, controls + (rng.random() < 0.5)
                others = [other for other in rng.permutation(CONCEPTS) if other != name]
                order = [name, *others] if right else [others[0], name, *others[1:]]
                scores = np.sort(rng.dirichlet(np.full(10, 0.9)))[::-1]
                decoded += 1
                due.append((now + 0.9, Decoded(
                    ordinal=ordinal, text=text, measure="probability among 10 concepts", chance=0.1,
                    confidence=float(scores[0] - scores[1]), n_averaged=1 + ordinal // len(CONCEPTS),
                    top=tuple(Concept(name=n, score=float(s)) for n, s in zip(order[:5], scores[:5], strict=True)),
                    control=Control(
                        label="Right concept among the first five", n=decoded, value=0.5 + 0.4 * hits / decoded,
                        shuffled=0.3 + 0.4 * controls / decoded, chance=0.5),
                    warning="Alpha is three times as strong as in training: results may be worse."
                    if ordinal == 9 else None,
                )))  # fmt: skip
                frames = pictures[ordinal % len(pictures)][1] if pictures else _growth(rng)
                for index, png in enumerate(frames):
                    took = 0.35 + 1.2 * index / max(1, len(frames) - 1)
                    due.append((now + 0.8 + took, Picture(
                        ordinal=ordinal, text=text, stage=1 if index == 0 else 2, frame=max(index, 1),
                        n_frames=1 if index == 0 else len(frames) - 1, png=png, final=index == len(frames) - 1,
                        seconds=took,
                    )))  # fmt: skip
                durations.append(1.55 + 0.2 * rng.standard_normal())
        for _, message in sorted((item for item in due if item[0] <= now), key=lambda item: item[0]):
            yield now, message
            if isinstance(message, Decoded):
                entries = [Entry(ordinal=e.ordinal, text=e.text, state="decoded") if e.ordinal == message.ordinal else e
                           for e in entries]  # fmt: skip
            if isinstance(message, Picture) and message.final:
                yield now, _latency(durations)
        due = [item for item in due if item[0] > now]
        waiting = sum(isinstance(message, Decoded) for _, message in due)
        totals = {"decoded": decoded - waiting, "rejected": 0, "refused": refused, "skipped": 0, "pending": waiting}
        drawn = {"drawn": len({e.ordinal for e in entries if e.state == "decoded"}), "skipped": 0}
        yield now, Ledger(received=ordinal + 1, totals=totals, pictures=drawn, entries=tuple(entries[:12]))


def _growth(rng: np.random.Generator) -> list[bytes]:
    final = scene(rng)
    return [picture(rng, final, share) for share in (0.25, 0.35, 0.5, 0.6, 0.7, 0.8, 0.87, 0.93, 0.97, 1.0)]


def _latency(whole: Sequence[float]) -> Latency:
    picture_s = np.array(whole)
    parts = [("epoch", -0.6, np.full(len(picture_s), 0.6)), ("delivery", 0.0, 0.004 + 0 * picture_s),
             ("queue", 0.004, 0.001 + 0 * picture_s), ("decode", 0.005, 0.012 + 0 * picture_s),
             ("stage 1", 0.02, 0.33 + 0 * picture_s), ("display", 0.35, 0.003 + 0 * picture_s),
             ("stage 2", 0.353, picture_s - 0.353)]  # fmt: skip
    totals = [("to picture", 0.0, 0.353 + 0 * picture_s), ("to refined", 0.0, picture_s)]

    def stage(name: str, start: float, values: np.ndarray, total: bool) -> StageTime:
        p50, p95, p99 = np.quantile(values, [0.5, 0.95, 0.99])
        return StageTime(
            name=name, start=start, last=float(values[-1]), p50=p50, p95=p95, p99=p99, longest=values.max(), total=total
        )

    return Latency(
        stages=tuple([stage(*part, total=False) for part in parts] + [stage(*part, total=True) for part in totals]),
        n=len(picture_s), deadline=2.0,
    )  # fmt: skip
