"""What a data set's reader is: how ``md-train prepare`` asks for the trials of one subject in foreign files.

A reader finds and checks files when it is opened, and then gives the trials piece by piece (a session, a run), each
small enough for the memory. It never writes: prepare.py keeps the pieces, so that a killed command goes on where it
was, and hands them to the one writer of data folders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import ResponseLayout
from ...runtime.errors import check_choice
from ...runtime.images import ImageU8
from . import READERS

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A picture that stays where it lies; see :class:`minddiffuser.runtime.data.references.Reference`.

    All pictures of a subject lie below one `root`. `path` is of a picture file, or of an array file (n, H, W, 3) uint8
    with the picture's `index` in it, and for HDF5 its `dataset`.
    """

    root: Path
    path: str
    index: int | None = None
    dataset: str | None = None


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One picture that trials may have shown.

    Attributes
    ----------
    split
        "train" or "test". All trials of a picture are in its split.
    source
        Where it lies; or a function that decodes it, (H, W, 3) uint8 of any size, where it lies in a form that cannot
        be named (floats, channels first): it is then copied into the data folder. All of a subject are of one kind.
    captions
        What it shows, in words; at least one for a training picture.
    concept
        What it is of ("aardvark"); all pictures have one, or none has.
    """

    split: str
    source: Place | Callable[[], ImageU8]
    captions: tuple[str, ...] = ()
    concept: str | None = None


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of the recording that is read at once.

    Attributes
    ----------
    name
        A file name of its own, such as "session01"; also for messages and the report.
    n_trials
        How many trials are expected, for the progress.
    files
        What is read: a change of one makes the piece be read again.
    advice
        What to do about a piece that holds no recording, to end a message.
    """

    name: str
    n_trials: int
    files: tuple[Path, ...]
    advice: str = "copy its files again"


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """The trials of one piece, in the order in which they were recorded.

    Attributes
    ----------
    responses
        (n_trials, *shape) float32, single trials, neither averaged nor z-scored over the data set.
    picture
        (n_trials,) whole numbers: which of the reader's pictures each trial showed.
    dropped
        How many trials are left out, by the reason ("no picture (catch trial)", "peak to peak above 200 µV").
    """

    responses: F32
    picture: NDArray[np.integer[Any]]
    dropped: Mapping[str, int] = field(default_factory=dict)


class Trials(Protocol):
    """The pieces that have been read, for what is fitted on training trials."""

    def training(self) -> Iterator[tuple[str, F32, NDArray[np.int64]]]:
        """Of each piece: its name, the responses of its training trials (mapped), and which picture each showed."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """What is known once every piece has been read.

    Attributes
    ----------
    layout
        Of one trial's responses, as they are written.
    transform
        Of single trials, (n, *shape as read) to (n, *layout.shape) float32, before repetitions are averaged; such as
        whitening by a matrix that was fitted on training trials. Each trial by itself, whatever else is in the block.
    files
        Name to path, of the files that the layout's signal chain names.
    noise_ceiling
        Of a *single* trial, of the layout's shape, in [0, 1]; None where it is not known.
    notes
        Sentences for the report.
    """

    layout: ResponseLayout
    transform: Callable[[F32], F32] | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    noise_ceiling: F32 | None = None
    notes: tuple[str, ...] = ()


class Reader(Protocol):
    """One subject of a data set whose files were found and checked; opening raises for whatever is wrong with them.

    Attributes
    ----------
    subject
        A name, such as "nsd-subj01".
    place
        What the first axis of a trial counts: "voxel" or "channel".
    shape
        Of one trial's responses, as :meth:`read` gives them.
    pictures
        All that may have been shown; the data folder's splits keep their order. Those of which no trial is left are
        left out.
    pieces
        Parts of the recording, in the order in which trials are written.
    files
        Found file to what it is, for the report ("betas of session 3"). Shared files too: stimuli, experimental design.
    settings
        Whatever else decides the result, as JSON: options, file format, subject. Kept in the provenance.
    notes
        Sentences for the report ("37 of 40 sessions: 8859 training and 982 test pictures").
    """

    @property
    def subject(self) -> str: ...
    @property
    def place(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def pictures(self) -> Sequence[Shown]: ...
    @property
    def pieces(self) -> Sequence[Piece]: ...
    @property
    def files(self) -> Mapping[Path, str]: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def notes(self) -> Sequence[str]: ...

    def read(self, piece: Piece) -> Block:
        """The trials of one of the pieces; the same values whenever it is called.

        Raises
        ------
        FileError
            A file is truncated, damaged or holds something else.
        """
        ...

    def finish(self, trials: Trials, folder: Path) -> Finished:
        """What is fitted over all pieces; files may be written into `folder`, which is removed in the end."""
        ...


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set as ``md-train prepare NAME`` offers it.

    Attributes
    ----------
    help, description
        What its files are: a few words, and some sentences for ``--help``.
    example
        Lines of commands that work offline, for the end of ``--help``.
    open
        ``open(source, subject=…, memory=…, **options)`` gives a :class:`Reader`; `memory` is in bytes, for what a piece
        may take, and the options are those of `add_options` by their destinations.
    add_options
        Adds the data set's own options to an :class:`argparse.ArgumentParser`.
    averages
        The splits whose repetitions are averaged unless the user says otherwise.
    """

    help: str
    description: str
    example: str
    open: Callable[..., Reader]
    add_options: Callable[[Any], None]
    averages: tuple[str, ...] = ("test",)


def data_set(name: str) -> DataSet:
    """A registered data set.

    Raises
    ------
    InputError
        The name is unknown.
    """
    check_choice("data set", name, READERS)
    module, attribute = READERS[name]
    found: DataSet = getattr(import_module(f".{module}", __package__), attribute)
    return found
