"""Which files of a model folder are read, in the order in which the libraries choose them; weights in shards too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import FileError, InputError
from ..fields import ABSENT
from ..files import read_json
from .fields import refuse

STEMS = {"vae": "diffusion_pytorch_model", "unet": "diffusion_pytorch_model", "text_encoder": "model"}
ONE_FILE = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
"""How a file that holds a whole model ends."""
_TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json")
_TOKENIZER_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_PLAIN = re.compile(r"[\w.+-]+\.safetensors")
_ADVICE = "download it again"


@dataclass(frozen=True)
class Weights:
    """The weights of one part: safetensors files, the index before them where they are shards.

    `variant` is None for full precision and "fp16" for half.
    """

    variant: str | None
    index: Path | None
    shards: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        return self.shards if self.index is None else (self.index, *self.shards)


@dataclass(frozen=True)
class Contents:
    """What is read of a model folder.

    `files` has every file that decides what the models compute (what the hash is over), by its relative name.
    """

    files: dict[str, Path]
    weights: dict[str, Weights]


def find_contents(folder: Path) -> Contents:
    """Choose the files; FileError when one is missing, may not be read, or is pickled."""
    with naming_permissions():
        files: dict[str, Path] = {}
        weights = {}
        for part, stem in STEMS.items():
            _add(files, folder, f"{part}/config.json")
            _refuse_adapters(folder / part)
            weights[part] = find_weights(folder / part, stem)
            files |= {f"{part}/{path.name}": path for path in weights[part].files}
        _add(files, folder, "scheduler/scheduler_config.json")
        files |= _tokenizer(folder)
        check_readable(*files.values())
    return Contents(files, weights)


def find_weights(folder: Path, stem: str) -> Weights:
    """The safetensors of a part, full precision before half."""
    for variant, ending in ((None, ""), ("fp16", ".fp16")):
        single = folder / f"{stem}{ending}.safetensors"
        index = folder / f"{stem}.safetensors.index{ending}.json"
        # Where both are there, diffusers reads the shards, and transformers the one file.
        if index.is_file() and not (stem == STEMS["text_encoder"] and single.is_file()):
            return Weights(variant, index, _shards(index))
        if single.is_file():
            return Weights(variant, None, (single,))
    if any(folder.glob("*.bin")) or any(folder.glob("*.ckpt")):
        raise FileError(
            f"{folder} holds pickled weights only, which are never read, expected {stem}.safetensors: "
            "download the safetensors"
        )
    raise _missing(folder.parent, f"{folder.name}/{stem}.safetensors")


def _shards(index: Path) -> tuple[Path, ...]:
    table = read_json(index, "the list of the weights' shards").get("weight_map", ABSENT)
    if not isinstance(table, dict) or not table:
        refuse(index, "weight_map", table, "an object with the file of each weight")
    for name, file in table.items():
        if not isinstance(file, str) or not _PLAIN.fullmatch(file):
            refuse(index, f"weight_map.{name}", file, "the name of a safetensors file beside it")
    paths = tuple(index.parent / file for file in sorted(set(table.values())))
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise FileError(
            f"{index} names {len(paths)} shards and {len(missing)} of them are not there, first {missing[0]}: "
            "download those files"
        )
    return paths


def _refuse_adapters(folder: Path) -> None:
    # transformers adds the adapter to the network while reading it, where the library for that is installed.
    path = folder / "adapter_config.json"
    if path.is_file():
        raise InputError(
            f"{path} belongs to an adapter, which is not read: merge it into the weights (merge_and_unload of peft), "
            "or remove the file to use the model without it"
        )


def _tokenizer(folder: Path) -> dict[str, Path]:
    _part(folder, "tokenizer")
    here = {name: folder / "tokenizer" / name for name in (*_TOKENIZER_FILES, *_TOKENIZER_CONFIGS)}
    here = {name: path for name, path in here.items() if path.is_file()}
    if "tokenizer.json" not in here and not {"vocab.json", "merges.txt"} <= here.keys():
        raise _missing(folder, "tokenizer/tokenizer.json, or tokenizer/vocab.json and tokenizer/merges.txt")
    return {f"tokenizer/{name}": path for name, path in here.items()}


def _add(files: dict[str, Path], folder: Path, name: str) -> None:
    _part(folder, name.split("/")[0])
    if not (folder / name).is_file():
        raise _missing(folder, name)
    files[name] = folder / name


def _part(folder: Path, part: str) -> None:
    if (folder / part).is_dir():
        return
    single = sorted(path for path in folder.iterdir() if path.suffix in ONE_FILE and path.is_file())
    if single and not any((folder / name).is_dir() for name in STEMS):
        raise FileError(f"the model folder {folder} holds {single[0].name} alone: {conversion(single[0])}")
    raise _missing(folder, f"{part}/")


def _missing(folder: Path, name: str) -> FileError:
    return FileError(
        f"the model folder {folder} lacks {name}: expected a whole diffusers folder (vae, unet, text_encoder, "
        f"tokenizer, scheduler), {_ADVICE}"
    )


def conversion(path: Path) -> str:
    """How a model in one file becomes a folder."""
    command = f"StableDiffusionPipeline.from_single_file('{path}').save_pretrained('FOLDER')"
    first = "" if path.suffix == ".safetensors" else "get its safetensors (this file may be pickled), then "
    return f"{first}convert it once with diffusers, {command}, and pass FOLDER"


def check_readable(*paths: Path) -> None:
    """Open each file, so that one that may not be read is named before a library calls it damaged."""
    for path in paths:
        try:
            with open(path, "rb"):
                pass
        except PermissionError as error:
            raise FileError(not_permitted(path)) from error


def not_permitted(path: object) -> str:
    return f"{path} may not be read (permission denied): change its permissions, or ask its owner"


@contextmanager
def naming_permissions() -> Iterator[None]:
    """Turn a folder that may not be entered into a :class:`FileError` that says so."""
    try:
        yield
    except PermissionError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(not_permitted(error.filename or "the model folder")) from error
