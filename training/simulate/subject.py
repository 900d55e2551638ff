"""One simulated subject, from pictures to a data folder; features are streamed, never held together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.destination import check_target, claimed
from ...runtime.data.folder import DataFolder, SplitData, write_claimed
from ...runtime.data.trial_ids import default_trial_ids
from ...runtime.errors import InputError
from ...runtime.images import cut_by_squares, fit_square, list_pictures, read_image, to_float
from .fmri import F32, Brain, Drives, FmriSettings, Responses, draw_brain, drive, measure_scales, simulate_fmri

GENERATOR_VERSION = 2
_N_CALIBRATION = 256
_N_NEIGHBOURS = 8
_LONGEST_NAME = 150

OnProgress = Callable[[str, int, int], None]


class Viewer(Protocol):
    """What the simulation needs of models: :class:`Models` of runtime.models has it."""

    @property
    def name(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def image_size(self) -> int:
        """Side of a picture in px."""
        ...

    @property
    def device(self) -> Any: ...

    def encode_text(self, captions: Sequence[str]) -> Any:
        """Captions to contexts, tensor (n, 15, d_text)."""
        ...

    def structure(self, image: Any, *, semantic: bool = False) -> tuple[Any, Any]:
        """Images (n, 3, H, W) to structure (n, 6, n_tokens, d_vision) and semantic feature (n, d)."""
        ...


class Squares(Sequence[NDArray[np.uint8]]):
    """Pictures as squares of one size, made when asked for.

    Parameters
    ----------
    sources : arrays (H, W, 3) uint8, or paths of picture files of any size.
    size : side in px.
    """

    def __init__(self, sources: Sequence[Path | NDArray[np.uint8]], size: int) -> None:
        self._sources, self._size = sources, size

    def __len__(self) -> int:
        return len(self._sources)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> Squares: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | Squares:
        if isinstance(index, slice):
            return Squares(self._sources[index], self._size)
        source = self._sources[index]
        return fit_square(read_image(source) if isinstance(source, Path) else source, self._size)


class Shown:
    """The pictures of one split, their captions (there may be none), and the names of their files, if any."""

    def __init__(self, images: Squares, captions: Sequence[Sequence[str]], names: Sequence[str] = ()) -> None:
        self.images, self.captions, self.names = images, captions, names


@dataclass(frozen=True, kw_only=True)
class Showing:
    """What the subject is shown.

    Parameters
    ----------
    n_train : training pictures, of combinations that the tiny world was trained on.
    n_test : test pictures, held-out combinations among them; not used when `stimuli` is given.
    stimuli : a folder of pictures (PNG, JPEG, WebP, TIFF, BMP) of any size, shown as the test split instead. They have
        no captions: what a caption would say is taken from the training pictures that look most alike.
    """

    n_train: int = 1200
    n_test: int = 128
    stimuli: Path | None = None

    def __post_init__(self) -> None:
        if self.n_train < 2 or self.n_test < 1:
            raise InputError(
                f"{self.n_train} training and {self.n_test} test pictures requested: give at least 2 and 1"
            )


def simulate_subject(
    out: Path | str,
    models: Viewer,
    settings: FmriSettings,
    showing: Showing,
    *,
    seed: int,
    batch_size: int = 32,
    replace: bool = False,
    progress: OnProgress | None = None,
) -> DataFolder:
    """Simulate an fMRI subject that looks at pictures, and write its data folder.

    Parameters
    ----------
    out : the data folder to write.
    models : whose features drive the voxels, opened with the `reference` layer preset.
    settings : the subject and the scanner.
    showing : the pictures.
    seed : of everything: pictures, brain and noise, each from a child of its own.
    batch_size : pictures per model call.
    replace : allow an existing data folder to be replaced.
    progress : called with (phase, done, total).

    Returns
    -------
    DataFolder, opened and checked.

    Raises
    ------
    InputError
        The seed or batch size cannot be used.
    FileError
        A picture cannot be decoded, or the folder cannot be written, or another process is writing it.
    """
    cut = check_subject(out, showing, seed=seed, batch_size=batch_size, replace=replace)
    train_seed, test_seed, brain_seed, noise_seed = np.random.SeedSequence(seed).spawn(4)
    train = rendered(train_seed, showing.n_train, models.image_size, combinations="seen")
    if showing.stimuli is None:
        test = rendered(test_seed, showing.n_test, models.image_size, combinations="all")
        source = ["tiny world"]
    else:
        paths = list_pictures(showing.stimuli)
        source = [os.fsencode(path.name).decode(errors="replace") for path in paths]
        test = Shown(Squares(paths, models.image_size), [], source)
    brain_rng, noise_rng = np.random.default_rng(brain_seed), np.random.default_rng(noise_seed)
    with claimed(out, replace=replace):
        brain, drives = _look(models, train, test, settings, brain_rng, batch_size, progress)
        responses = simulate_fmri(brain, drives, settings, noise_rng)
        return write_claimed(
            out,
            {"train": _split("train", responses["train"], train), "test": _split("test", responses["test"], test)},
            subject=f"simulated-{seed}",
            rois={**settings.rois, **settings.groups},
            provenance=_provenance(models, settings, seed, {"train": ["tiny world"], "test": source, "note": cut}),
        )


def check_subject(
    out: Path | str, showing: Showing, *, seed: int, batch_size: int = 32, replace: bool = False
) -> str | None:
    """Check the settings, the output folder and the pictures before any model is opened.

    Returns
    -------
    What is cut off the shown pictures, in one sentence, or None.

    Raises
    ------
    InputError, FileError
        As :func:`simulate_subject`.
    """
    if seed < 0 or batch_size < 1:
        raise InputError(
            f"seed is {seed} and batch size {batch_size}: give a seed of at least 0 and a batch size of at least 1"
        )
    check_target(out, replace=replace)
    if showing.stimuli is None:
        return None
    return cut_by_squares((path.name, read_image(path)) for path in list_pictures(showing.stimuli))


def _split(name: str, responses: Responses, shown: Shown) -> SplitData:
    return SplitData(
        responses=responses.responses,
        stimulus=responses.stimulus,
        images=shown.images,
        captions=shown.captions,
        noise_ceiling=responses.noise_ceiling,
        trial_ids=_trial_ids(name, responses, shown),
    )


def _trial_ids(split: str, responses: Responses, shown: Shown) -> tuple[str, ...]:
    """split/picture/repetition, with the name of a person's own picture in place of its number where it has one."""
    numbered = default_trial_ids(split, responses.stimulus, averages=responses.averages)
    if not shown.names:
        return numbered
    names = ["".join(c if c.isprintable() else "?" for c in name)[:_LONGEST_NAME] for name in shown.names]
    pairs = zip(responses.stimulus, numbered, strict=True)
    named = tuple(f"{split}/{names[int(index)]}/{number.rpartition('/')[2]}" for index, number in pairs)
    return named if len(set(named)) == len(named) else numbered


def _provenance(models: Viewer, settings: FmriSettings, seed: int, stimuli: dict[str, Any]) -> dict[str, Any]:
    """How to make the same subject again, without the brain's weights."""
    return {
        "kind": "simulated fMRI",
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "models": {"name": models.name, "hash": models.hash},
        "stimuli": stimuli,
        "snr": settings.snr,
        "n_repetitions": {"train": settings.train_repetitions, "test": settings.test_repetitions},
        "settings": asdict(settings),
    }


def rendered(seed: np.random.SeedSequence, n_pictures: int, size: int, *, combinations: str) -> Shown:
    """Draw tiny-world pictures as squares of `size` px, with one caption each."""
    from ..tinyworld.draw import draw
    from ..tinyworld.scenes import scenes

    many = list(scenes(int(seed.generate_state(1)[0]), n_pictures, combinations=combinations))
    return Shown(Squares([draw(scene) for scene in many], size), [[scene.caption] for scene in many])


def _look(
    models: Viewer,
    train: Shown,
    test: Shown,
    settings: FmriSettings,
    rng: np.random.Generator,
    batch_size: int,
    progress: OnProgress | None,
) -> tuple[Brain, dict[str, Drives]]:
    """Draw the brain and let it look at every picture."""
    report = progress or (lambda phase, done, total: None)
    words = _words(models, train.captions, batch_size)
    first = [_see(models, part) for part in _batches(train.images[:_N_CALIBRATION], batch_size)]
    structure, vision = (np.concatenate(parts) for parts in zip(*first, strict=True))
    scales = measure_scales(structure, np.concatenate([words[: len(vision)], vision], axis=1))
    brain = draw_brain(settings, structure.shape[1:], (words.shape[1], vision.shape[1]), rng)
    del first, structure

    def through(shown: Shown, said: F32, phase: str) -> tuple[Drives, F32]:
        parts, visions, done = [], [], 0
        report(phase, done, len(shown.images))
        for batch in _batches(shown.images, batch_size):
            structure, vision = _see(models, batch)
            semantic = np.concatenate([said[done : done + len(vision)], vision], axis=1)
            parts.append(drive(brain, scales, structure, semantic))
            visions.append(vision)
            done += len(vision)
            report(phase, done, len(shown.images))
        return Drives.join(parts), np.concatenate(visions)

    train_drives, known = through(train, words, "train pictures")
    if test.captions:
        said = _words(models, test.captions, batch_size)
    else:
        looks = np.concatenate([_see(models, part)[1] for part in _batches(test.images, batch_size)])
        said = words_of_neighbours(looks, known, words)
    return brain, {"train": train_drives, "test": through(test, said, "test pictures")[0]}


def words_of_neighbours(looks: F32, known: F32, words: F32) -> F32:
    """Text features for pictures without captions: the mean over the most similar training pictures.

    Parameters
    ----------
    looks : (n, d) semantic features of the pictures.
    known : (n_train, d) the same of the training pictures.
    words : (n_train, d_words) their text features.

    Returns
    -------
    (n, d_words) float32, means over the eight nearest by cosine of the standardised features.
    """
    mean, sd = known.mean(axis=0), known.std(axis=0)
    sd = np.where(sd > 0, sd, 1)
    a, b = (looks - mean) / sd, (known - mean) / sd
    alike = a @ b.T / np.maximum(np.linalg.norm(b, axis=1), 1e-12)
    nearest = np.argsort(-alike, axis=1, kind="stable")[:, :_N_NEIGHBOURS]
    said: F32 = words[nearest].mean(axis=1)
    return said


def _batches(images: Squares, batch_size: int) -> Iterator[Squares]:
    return (images[start : start + batch_size] for start in range(0, len(images), batch_size))


def _see(models: Viewer, images: Squares) -> tuple[F32, F32]:
    """Structure (n, 6, n_tokens, d_vision) and semantic feature (n, d) of some pictures."""
    import torch

    pictures = torch.from_numpy(to_float(np.stack(list(images)))).to(models.device)
    with torch.no_grad():
        structure, semantic = models.structure(pictures, semantic=True)
    return structure.float().cpu().numpy(), semantic.float().cpu().numpy()


def _words(models: Viewer, captions: Sequence[Sequence[str]], batch_size: int) -> F32:
    """Contexts without BOS, flat, averaged over each picture's captions: (n, 14 * d_text)."""
    # Captions repeat (the tiny world has some two thousand): each text is encoded once.
    texts = sorted({text for group in captions for text in group})
    parts = []
    for start in range(0, len(texts), batch_size):
        context = models.encode_text(texts[start : start + batch_size]).float().cpu().numpy()
        parts.append(context[:, 1:].reshape(len(context), -1))
    encoded = np.concatenate(parts)
    row = {text: index for index, text in enumerate(texts)}
    return np.stack([encoded[[row[text] for text in group]].mean(axis=0) for group in captions])
