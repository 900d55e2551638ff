"""Responses to context, latent, structure and semantic feature, with a checkpoint's decoders and statistics."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..candidates import FIELD as CONCEPTS
from ..data.chain_files import FOLDER as SIGNAL_FOLDER
from ..features import EMBEDDING
from ..fields import ABSENT, Field
from ..files import sha256_of
from ..leaks import FIELD as LEAKS
from ..leaks import read_leaks
from ..split import FIELD as SPLIT
from ..split import read_split
from ..training_pictures import FILE as TRAINING_PICTURES
from ..training_pictures import TrainingPictures, read_training_pictures
from .base import ADVICE, Decoder, Float32, Stored, open_decoder
from .belonging import Belonging
from .concepts import ConceptRoute, open_route
from .files import (
    DESCRIPTION,
    decoder_part,
    file_name,
    read_candidates,
    read_description,
    read_layout,
    read_mask,
    read_part,
    verify_files,
)
from .scale import TrainingStatistics


class Checkpoint(Belonging):
    """Fitted decoders of one subject, opened by :func:`open_checkpoint`.

    Attributes
    ----------
    description : dict
        checkpoint.json as it is.
    mask : (6, n_tokens, d_vision) bool
    score : (6, n_tokens, d_vision) float32
        Cross-validated correlation of each structure dimension.
    context_bos, uncond_context : (d_text,), (15, d_text) float32
        Token 0 of every context; the context of the empty caption.
    route : ConceptRoute or None
        From the embedding to the context, where that has no decoder of its own.
    """

    what = "checkpoint"

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        self.folder = folder
        self.description = dict(description)
        self.subject, self.preset = description["subject"], description["preset"]
        self.models_name, self.models_hash = description["models"]["name"], description["models"]["hash"]
        self.layout = read_layout(folder, description)
        self.image_size: int = description["image_size"]
        shapes = {name: tuple(shape) for name, shape in description["shapes"].items()}
        self.shapes = {name: shape for name, shape in shapes.items() if name != EMBEDDING}
        trial = (np.float32, self.layout.shape)
        normaliser = read_part(folder, "normaliser", {"mean": trial, "std": trial})
        self.training = TrainingStatistics(mean=normaliser["mean"], std=normaliser["std"], layout=self.layout)
        n_tokens, d_text = self.shapes["context"]
        expected = {"context_bos": (np.float32, (d_text,)), "uncond_context": (np.float32, (n_tokens, d_text))}
        constants = read_part(folder, "constants", expected)
        self.context_bos: Float32 = constants["context_bos"]
        self.uncond_context: Float32 = constants["uncond_context"]
        selected = read_mask(folder, self.shapes["structure"], self.preset)
        self.mask = selected["mask"]
        self.score = selected["score"]
        self.decoders: dict[str, Decoder] = {}
        for described in description["decoders"]:
            features = described["features"]
            path = folder / file_name(decoder_part(features))
            stored = Stored(path, described, self.layout.shape, {name: shapes[name] for name in features})
            self.decoders |= dict.fromkeys(features, open_decoder(stored))
        self.candidates = read_candidates(description, folder / DESCRIPTION)
        self.leaks = read_leaks(Field(folder / DESCRIPTION, LEAKS, description.get(LEAKS, ABSENT), ADVICE))
        self.split = read_split(Field(folder / DESCRIPTION, SPLIT, description.get(SPLIT, ABSENT), ADVICE))
        self.route: ConceptRoute | None = None
        if self.candidates is not None:
            path, (width,) = folder / file_name(CONCEPTS), shapes[EMBEDDING]
            self.route = open_route(path, self.candidates, width, self.shapes["context"])

    @property
    def signal_folder(self) -> Path:
        """Where the files lie that the layout's signal chain names."""
        return self.folder / SIGNAL_FOLDER

    @cached_property
    def hash(self) -> str:
        """SHA-256 of checkpoint.json, which holds the SHA-256 of every other file."""
        return sha256_of(self.folder / DESCRIPTION)

    @cached_property
    def training_pictures(self) -> TrainingPictures | None:
        """The table of the training pictures, read at the first use; None in a checkpoint of before there was one.

        Raises
        ------
        FileError
            It is damaged.
        """
        if TRAINING_PICTURES not in self.description["files"]:
            return None
        return read_training_pictures(self.folder / TRAINING_PICTURES, self.shapes, ADVICE)

    @property
    def statistics(self) -> tuple[Float32, Float32]:
        """Mean and deviation of the training responses, of one trial's shape each; deviation 0: it did not vary."""
        return self.training.mean, self.training.std

    def prepare(self) -> None:
        """Make everything that decoding needs, which for networks takes PyTorch.

        Raises
        ------
        FileError
            A network's weights are not those of its architecture and config.
        MissingExtra
            There is a network, and no PyTorch.
        """
        for decoder in self.decoders.values():
            decoder.prepare()

    def decoded(self, responses: Float32, names: Collection[str]) -> dict[str, Float32]:
        """See :meth:`.belonging.Belonging.decoded`."""
        if self.route is None or "context" not in names:
            return self._decoded(responses, names)
        decoded = self._decoded(responses, [EMBEDDING if name == "context" else name for name in names])
        decoded["context"] = self.route.contexts(self.route.similarity(decoded.pop(EMBEDDING)))
        return decoded

    def similarities(self, responses: Float32) -> Float32:
        """See :meth:`.belonging.Belonging.similarities`."""
        assert self.route is not None  # `similarity` has refused
        return self.route.similarity(self._decoded(responses, [EMBEDDING])[EMBEDDING])

    def _decoded(self, responses: Float32, names: Collection[str]) -> dict[str, Float32]:
        """What decoders give of their own."""
        scores = self.training.scores(responses)
        predicted: dict[str, Float32] = {}
        for decoder in {id(self.decoders[name]): self.decoders[name] for name in names}.values():
            predicted |= decoder.predict(scores, names)
        decoded = {name: self.decoders[name].placements[name].place(predicted[name]) for name in names}
        if "context" in decoded:
            decoded["context"][:, 0] = self.context_bos
        return decoded


def open_checkpoint(folder: Path | str, *, verify: bool = True) -> Checkpoint:
    """Open and validate a checkpoint folder.

    Parameters
    ----------
    folder : what `md-train fit` wrote.
    verify : whether every file's SHA-256 is compared before it is read.

    Raises
    ------
    FileError
        Missing, unfinished, truncated or changed files, or another kind or version.
    InputError
        The mask in it belongs to another layer preset.
    """
    folder = Path(folder)
    description = read_description(folder)
    if verify:
        verify_files(folder, description["files"])
    return Checkpoint(folder, description)
