"""Subjects, and the pictures of every refiner toward every target, batch by batch, in files that outlive a stop.

OUT/BRAIN-SEED/{data,checkpoint}                        a simulated subject and its decoders
OUT/SUBJECT/pictures/REFINER/settings.json              what these pictures were made with
OUT/SUBJECT/pictures/REFINER/CONDITION/FIRST-LAST.safetensors   one batch: its pictures and its seconds
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import refiner_rivals
from numpy.typing import NDArray
from refiner_contestants import Contestant

from minddiffuser import runtime
from minddiffuser.runtime import backends
from minddiffuser.runtime.backends.base import Backend, Needs, Options, Start
from minddiffuser.runtime.decoders.screen import screen
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.files import hash_of_json, read_json, read_tensors, sha256_of, write_json, write_tensors
from minddiffuser.runtime.generators.noise import trial_noise
from minddiffuser.runtime.images import to_float, to_uint8
from minddiffuser.runtime.refine import refine
from minddiffuser.runtime.refine.base import Problem
from minddiffuser.runtime.refine.settings import RefineSettings
from minddiffuser.runtime.run.controls import partners
from minddiffuser.runtime.run.responses import open_responses, read_stimuli
from minddiffuser.runtime.sampling import Sampling
from minddiffuser.training.cli import main as md_train

DECODED, SHUFFLED, ORACLE, NONE = "decoded", "shuffled", "oracle", "none"
CONDITIONS = (DECODED, SHUFFLED, ORACLE)
BATCH = 16
SEED = RefineSettings.seed

Pictures = NDArray[np.uint8]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a subject is: its name in the tables, its data folder, its checkpoint, and where its pictures go."""

    name: str
    data: Path
    checkpoint: Path
    pictures: Path


def simulated(out: Path, brain: str, seed: int, *, threads: int, say: Say) -> Place:
    """Simulate a subject and fit its decoders by the commands of ``md-train``, unless that was done before.

    Raises
    ------
    InputError
        A command failed, and has said why.
    """
    folder = out / f"{brain}-{seed}"
    place = Place(
        name=folder.name, data=folder / "data", checkpoint=folder / "checkpoint", pictures=folder / "pictures"
    )
    cache = folder / "features"
    if not (place.data / "data.json").exists():
        say(f"{place.name}: simulating")
        _run("simulate", "fmri", "--brain", brain, "--seed", str(seed), "--out", str(place.data))
    if not (place.checkpoint / "checkpoint.json").exists():
        say(f"{place.name}: fitting")
        fit = ("fit", str(place.data), "--out", str(place.checkpoint), "--cache", str(cache))
        _run(*fit, "--threads", str(threads))
        shutil.rmtree(cache, ignore_errors=True)  # hundreds of megabytes that nothing needs again
    return place


def _run(*command: str) -> None:
    with redirect_stdout(sys.stderr):  # the bench's own output is its tables
        code = md_train(command)
    if code != 0:
        raise InputError(f"md-train {' '.join(command)} failed: correct that, and run the same command again")


def given(out: Path, data: Path, checkpoint: Path) -> Place:
    """A subject that is there already; its pictures' folder is named by the checkpoint's place."""
    name = f"given-{hashlib.sha256(str(checkpoint.resolve()).encode()).hexdigest()[:8]}"
    return Place(name=name, data=data, checkpoint=checkpoint, pictures=out / name / "pictures")


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """An opened subject: n trials, with what they showed and whose target is shuffled to whom."""

    place: Place
    backend: Backend[Any]
    responses: NDArray[np.float32]
    stimuli: Pictures
    ids: Sequence[str]
    stimulus_ids: Sequence[str]
    captions: Sequence[Sequence[str]]
    partner: dict[int, int]
    sampling: Sampling = field(default_factory=Sampling)

    def __len__(self) -> int:
        return len(self.stimuli)


def open_subject(place: Place, n_trials: int, *, models: str, threads: int) -> Subject:
    """Open a subject's first `n_trials` test trials.

    Shuffled targets are of the whole test split, so that they are the same however many trials are looked at.

    Raises
    ------
    InputError
        It has fewer trials, or a bad one among them.
    MindDiffuserError
        A folder that does not open.
    """
    needs = Needs(refine=True, steps_back=True, features=True)
    backend = backends.open(place.checkpoint, Options(models=models, threads=threads, needs=needs))
    there = open_responses(place.data)
    if there.subject is not None:
        backend.decoder.require_subject(there.subject)
    backend.decoder.require_layout(there.layout)
    screened = screen(there.rows, backend.decoder.training)
    n_there = len(there.rows)
    if not 2 <= n_trials <= n_there or screened.skipped or there.pictures is None or there.stimulus_ids is None:
        raise InputError(
            f"{place.data} has {n_there} test trials, {len(screened.skipped)} of them bad, and {n_trials} were asked "
            "for: give 2 to as many as there are, of a subject whose pictures are known"
        )
    backend.start()
    return Subject(
        place=place,
        backend=backend,
        responses=screened.responses,
        stimuli=read_stimuli(there.pictures[:n_trials], backend.decoder.image_size),
        ids=there.trial_ids,
        stimulus_ids=there.stimulus_ids[:n_trials],
        captions=there.captions[:n_trials],
        partner=partners(range(n_there), SEED, there.stimulus_ids, there.trial_ids),
    )


class Batch:
    """Some trials of a subject, decoded and through stage 1 once for all refiners, when the first one asks."""

    def __init__(self, subject: Subject, trials: Sequence[int]) -> None:
        self._subject, self.trials = subject, trials

    @cached_property
    def decoded(self) -> Any:
        return self._decode(self.trials)

    @cached_property
    def stage1(self) -> tuple[Any, Any, float]:
        """Generator, pictures, and seconds with the decoding of what stage 1 starts from."""
        backend, responses = self._subject.backend, self._subject.responses
        started = time.perf_counter()
        start = backend.decode_start(responses[list(self.trials)])
        generator = backend.generator(start, self.noise(0), self._subject.sampling)
        pictures = generator.stage1()
        to_host(pictures)
        return generator, pictures, time.perf_counter() - started

    def noise(self, candidate: int) -> NDArray[np.float32]:
        ids = [self._subject.ids[trial] for trial in self.trials]
        return trial_noise(SEED, ids, self._subject.backend.latent_shape, candidate)

    def target(self, condition: str) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Structure (n, 6, n_tokens, d_vision) and semantic feature (n, d) to refine toward."""
        subject = self._subject
        if condition == ORACLE:
            return subject.backend.features(to_float(subject.stimuli[list(self.trials)]), semantic=True)
        shuffled = [subject.partner[trial] for trial in self.trials]
        decoded = self._decode(shuffled) if condition == SHUFFLED else self.decoded
        return decoded.structure, decoded.semantic

    def problem(self, condition: str, contestant: Contestant) -> Problem[Any]:
        """Stage 2 of these trials, as a run poses it."""
        subject, decoded = self._subject, self.decoded
        generator, pictures, _ = self.stage1
        structure, semantic = self.target(condition)
        last = getattr(contestant.settings, "backprop_steps", None)
        if last is not None:
            generator = subject.backend.generator(decoded, self.noise(0), subject.sampling, backprop_steps=last)
        return Problem(
            backend=subject.backend,
            start=lambda rows: Start(context=decoded.context[list(rows)], latent=decoded.latent[list(rows)]),
            noise=self.noise,
            generator=generator,
            stage1=pictures,
            sampling=subject.sampling,
            target=structure,
            mask=subject.backend.decoder.mask,
            semantic=semantic,
            rows_at_once=BATCH,
        )

    def _decode(self, trials: Sequence[int]) -> Any:
        return self._subject.backend.decode(self._subject.responses[list(trials)])


def reconstruct(batch: Batch, contestant: Contestant, condition: str) -> tuple[Pictures, float]:
    """A batch's pictures (n, H, W, 3) and the seconds that they took; a refiner's beside those of stage 1."""
    if contestant.settings is None:
        _, pictures, seconds = batch.stage1
        return to_uint8(to_host(pictures)), seconds
    problem = batch.problem(condition, contestant)
    started = time.perf_counter()
    refined = contestant.refine(problem, contestant.settings, lambda _step: None)
    pictures = to_host(refined.image)
    return to_uint8(pictures), time.perf_counter() - started


def to_host(images: Any) -> NDArray[np.float32]:
    """(n, 3, H, W) float32, whatever computed it."""
    return np.asarray(images if isinstance(images, np.ndarray) else images.detach().float().cpu().numpy())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to make: contestants, conditions, and how many trials the light and the heavy ones get."""

    contestants: Sequence[Contestant]
    conditions: Sequence[str]
    n_trials: int
    n_heavy: int

    def conditions_of(self, contestant: Contestant) -> Sequence[str]:
        return self.conditions if contestant.targeted else (NONE,)

    def batches(self, contestant: Contestant) -> list[range]:
        n = min(self.n_trials, self.n_heavy) if contestant.heavy else self.n_trials
        return [range(at, min(at + BATCH, n)) for at in range(0, n, BATCH)]

    def pieces(self) -> Iterator[tuple[range, Contestant, str]]:
        """Everything, batch by batch and not refiner by refiner: a slow hour of the machine falls on all of them."""
        for at in range(0, self.n_trials, BATCH):
            for contestant in self.contestants:
                for trials in self.batches(contestant):
                    if trials.start == at:
                        for condition in self.conditions_of(contestant):
                            yield trials, contestant, condition


class Folder:
    """The pictures of one subject on disk."""

    def __init__(self, place: Place) -> None:
        self._folder = place.pictures

    def begin(self, contestant: Contestant, identity: dict[str, Any]) -> None:
        """Write what the pictures are made with, where there are none yet."""
        path = self._settings(contestant)
        if not path.exists():
            write_json(path, identity)

    def check(self, contestant: Contestant, identity: dict[str, Any]) -> None:
        """Refuse pictures of other settings.

        Raises
        ------
        FileError
        """
        path = self._settings(contestant)
        if not path.exists():
            return
        before = read_json(path, "what the pictures were made with")
        other = sorted(name for name in before.keys() | identity.keys() if before.get(name) != identity.get(name))
        if other:
            raise FileError(
                f"{path.parent} holds pictures of other settings (there is another {', '.join(other)}): give another "
                "--out, or delete that folder"
            )

    def _settings(self, contestant: Contestant) -> Path:
        return self._folder / contestant.name / "settings.json"

    def path(self, trials: range, contestant: Contestant, condition: str) -> Path:
        return self._folder / contestant.name / condition / f"{trials.start:04d}-{trials.stop - 1:04d}.safetensors"

    def write(self, path: Path, pictures: Pictures, seconds: float) -> None:
        write_tensors(path, {"pictures": pictures, "seconds": np.array([seconds])})

    def paths(self, plan: Plan, contestant: Contestant, condition: str) -> list[Path]:
        return [self.path(trials, contestant, condition) for trials in plan.batches(contestant)]


def read(paths: Sequence[Path]) -> tuple[Pictures, list[float]]:
    """All pictures (n, H, W, 3) of some batches, and each batch's seconds per trial."""
    found = [read_tensors(path, "a batch of pictures") for path in paths]
    seconds = [float(batch["seconds"][0]) / len(batch["pictures"]) for batch in found]
    return np.concatenate([batch["pictures"] for batch in found]), seconds


def identity_of(subject: Subject, contestant: Contestant) -> dict[str, Any]:
    """What decides a contestant's pictures, as JSON."""
    settings, sampling = contestant.settings, subject.sampling
    return {
        "settings": None if settings is None else settings.as_dict(),
        "sampling": {name: getattr(sampling, name) for name in ("guidance_scale", "n_steps", "n_noise", "n_reverse")},
        "checkpoint": subject.backend.decoder.hash,
        "responses": hashlib.sha256(np.ascontiguousarray(subject.responses).tobytes()).hexdigest(),
        "computing": dict(subject.backend.computing),
        "noise seed": SEED,
        "batch size": BATCH,
        "code": code_digest(contestant),
    }


def code_digest(contestant: Contestant) -> str:
    """A hash of the code that a contestant's pictures come from: the generators', and its refiner's beside."""
    package = Path(runtime.__file__).parent
    files = sorted(package.glob("generators/*.py"))
    if contestant.settings is not None:
        files += sorted(package.glob("refine/*.py"))
    if contestant.refine is not refine:
        files.append(Path(refiner_rivals.__file__))
    return hash_of_json({f"{path.parent.name}/{path.name}": sha256_of(path) for path in files})


def check(subject: Subject, plan: Plan) -> None:
    """Refuse pictures of other settings.

    Raises
    ------
    FileError
    """
    folder = Folder(subject.place)
    for contestant in plan.contestants:
        folder.check(contestant, identity_of(subject, contestant))


def make(subject: Subject, plan: Plan, say: Say) -> None:
    """Make every picture of the plan that is not there yet, beside those that :func:`check` has let pass."""
    folder = Folder(subject.place)
    for contestant in plan.contestants:
        folder.begin(contestant, identity_of(subject, contestant))
    missing = [piece for piece in plan.pieces() if not folder.path(*piece).exists()]
    batch: Batch | None = None
    for done, (trials, contestant, condition) in enumerate(missing):
        if batch is None or batch.trials != trials:
            batch = Batch(subject, trials)
        pictures, seconds = reconstruct(batch, contestant, condition)
        folder.write(folder.path(trials, contestant, condition), pictures, seconds)
        say(
            f"{subject.place.name}: {done + 1}/{len(missing)}, trials {trials.start} to {trials.stop - 1}, "
            f"{contestant.name}, {condition}, {seconds:.1f} s"
        )
