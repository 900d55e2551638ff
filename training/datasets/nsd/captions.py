"""What NSD's pictures show, in words: COCO's captions by the pictures' COCO numbers."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ....runtime.errors import FileError
from ..foreign import looks_like
from .files import ANNOTATIONS, STIM_INFO, find

_COLUMNS = ("nsdId", "cocoId", "cocoSplit")


def read_captions(
    source: Path, coco: Path | None, pictures: Sequence[int], n_stimuli: int | None, files: dict[Path, str]
) -> dict[int, tuple[str, ...]]:
    """The captions of some pictures by their 73k ids, from 0; empty ones where COCO has none.

    Parameters
    ----------
    source, coco : where NSD's files lie, and COCO's annotation files if these lie elsewhere.
    pictures : 73k ids, from 0.
    n_stimuli : how many stimuli there are, of which the table must speak; None where that is not known.
    files : receives what was read.

    Raises
    ------
    FileError
        A file is missing, damaged or another one, or the table is of another set of pictures.
    """
    about = _stim_info(find(source, STIM_INFO, "the table of NSD's pictures"), n_stimuli, files)
    unknown = [picture for picture in pictures if picture not in about]
    if unknown:
        raise FileError(
            f"picture {unknown[0]} (73k id, from 0) is not in {STIM_INFO}: the table is of another set of pictures"
        )
    wanted: dict[str, dict[int, int]] = {}
    for picture in pictures:
        coco_id, split = about[picture]
        wanted.setdefault(split, {})[coco_id] = picture
    captions: dict[int, tuple[str, ...]] = dict.fromkeys(pictures, ())
    for split, ids in sorted(wanted.items()):
        for coco_id, texts in _annotations(_annotation_file(source, coco, split), ids, files).items():
            captions[ids[coco_id]] = tuple(texts)
    return captions


def coco_captions(coco: Path, ids: Sequence[int], files: dict[Path, str]) -> dict[int, tuple[str, ...]]:
    """The captions of some of COCO's pictures by COCO's numbers, from both annotation files.

    Raises
    ------
    FileError
        A file is missing, damaged or another one.
    """
    wanted = dict.fromkeys(ids)
    found: dict[int, tuple[str, ...]] = {}
    for split in ("train2017", "val2017"):
        path = _annotation_file(coco, coco, split)
        found |= {number: tuple(texts) for number, texts in _annotations(path, wanted, files, some=False).items()}
    return found


def _annotation_file(source: Path, coco: Path | None, split: str) -> Path:
    name = f"captions_{split}.json"
    if coco is None:
        return find(source, f"{ANNOTATIONS}/{name}", f"COCO's captions of {split}")
    path = coco / name
    if not path.is_file():
        raise FileError(
            f"COCO's captions of {split} are missing: put {name} into {coco} (it is in COCO's "
            "annotations_trainval2017.zip)"
        )
    return path


def _stim_info(path: Path, n_stimuli: int | None, files: dict[Path, str]) -> dict[int, tuple[int, str]]:
    """73k id, from 0, to COCO's number and split."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        missing = [name for name in _COLUMNS if not rows or name not in rows[0]]
        about = {} if missing else {int(r["nsdId"]): (int(r["cocoId"]), r["cocoSplit"]) for r in rows}
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise FileError(
            f"{path} is {looks_like(path)}, expected NSD's table with columns {', '.join(_COLUMNS)}: copy it again"
        ) from error
    if missing:
        raise FileError(f"{path} has no column {missing[0]}, expected NSD's nsd_stim_info_merged.csv: copy it again")
    if n_stimuli is not None and len(about) != n_stimuli:
        raise FileError(
            f"{path} speaks of {len(about)} pictures and the stimuli are {n_stimuli}: one of the two is of another set "
            "of pictures, or truncated, copy both again"
        )
    files[path] = "table of pictures"
    return about


def _annotations(
    path: Path, wanted: Mapping[int, Any], files: dict[Path, str], *, some: bool = True
) -> dict[int, list[str]]:
    """Captions of the wanted pictures by COCO's numbers, in the order of COCO's annotations; at least `some`."""
    found: dict[int, list[tuple[int, str]]] = {}

    def keep(content: dict[str, Any]) -> dict[str, Any] | None:
        # COCO has 600,000 annotations and objects for 120,000 pictures: what is not wanted is not kept.
        if "caption" in content and content.get("image_id") in wanted:
            found.setdefault(content["image_id"], []).append((int(content.get("id", 0)), str(content["caption"])))
        return content if "annotations" in content else None

    try:
        with open(path, encoding="utf-8") as file:
            whole = json.load(file, object_hook=keep)
    except (OSError, ValueError, RecursionError, TypeError) as error:
        raise FileError(f"{path} is truncated or damaged ({error}), expected COCO's captions: copy it again") from error
    if not isinstance(whole, dict) or "annotations" not in whole or (some and not found):
        raise FileError(
            f"{path} has no caption of any of {len(wanted)} pictures: give COCO's captions of 2017 (not its instances)"
        )
    files[path] = "captions"
    return {coco_id: [text for _id, text in sorted(texts) if text.strip()] for coco_id, texts in found.items()}
