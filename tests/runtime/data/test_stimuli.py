"""Which trials showed the same picture: by what is seen, not by names, numbers or encodings."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from minddiffuser.runtime.data.stimuli import stimulus_ids
from minddiffuser.runtime.images import write_png
from minddiffuser.runtime.run.responses import Responses, open_responses, with_pictures

RNG = np.random.default_rng(0)
ONE, OTHER = RNG.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)


def test_copies_and_other_encodings_of_a_picture_are_one(tmp_path: Path) -> None:
    write_png(tmp_path / "0.png", ONE)
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes())
    Image.fromarray(ONE).save(tmp_path / "2.png", compress_level=0)
    opaque = np.concatenate([ONE, np.full((8, 8, 1), 255, np.uint8)], axis=2)
    Image.fromarray(opaque).save(tmp_path / "3.png")
    write_png(tmp_path / "4.png", OTHER)
    write_png(tmp_path / "5.png", ONE.reshape(4, 16, 3))  # the same bytes in another shape
    ids = stimulus_ids([tmp_path / f"{n}.png" for n in (0, 1, 2, 3, 4, 5, 0)])
    assert len(set(ids[:4])) == 1
    assert ids[6] == ids[0]
    assert len(set(ids)) == 3


def test_files_that_cannot_be_decoded_are_nobodys_copy(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    paths = [tmp_path / "a.png", tmp_path / "absent.png", tmp_path / "a.png"]
    ids = stimulus_ids(paths)
    assert ids[0] == ids[2] != ids[1]


def test_a_folder_of_pictures_gives_ids_by_content(tmp_path: Path) -> None:
    for number, picture in enumerate((ONE, OTHER, ONE)):
        write_png(tmp_path / f"drawing {number}.png", picture)
    given = with_pictures(Responses(rows=np.zeros((3, 2), np.float32), hash=""), tmp_path)
    assert given.stimulus_ids is not None
    assert given.stimulus_ids[0] == given.stimulus_ids[2] != given.stimulus_ids[1]


def test_a_data_folder_gives_ids_by_index_and_by_content(tmp_path: Path) -> None:
    for number, picture in enumerate((ONE, OTHER, ONE)):
        write_png(tmp_path / "stimuli" / "test" / f"{number:06d}.png", picture)
        write_png(tmp_path / "stimuli" / "train" / f"{number:06d}.png", picture)
    shown = np.array([0, 1, 2, 1])
    description = {
        "format": "minddiffuser-data",
        "version": 1,
        "subject": "s",
        "modality": "fmri",
        "n_voxels": 2,
        "rois": {"V1": [0, 2]},
        "image_size": 8,
        "provenance": {},
        "splits": {"train": {"n_trials": 4}, "test": {"n_trials": 4}},
    }
    (tmp_path / "data.json").write_text(json.dumps(description))
    (tmp_path / "captions.json").write_text(json.dumps({"train": [["a"]] * 3, "test": []}))
    for split in ("train", "test"):
        responses = RNG.standard_normal((4, 2)).astype(np.float32)
        save_file({"responses": responses, "stimulus": shown}, tmp_path / f"{split}.safetensors")
    ids = open_responses(tmp_path).stimulus_ids
    assert ids is not None
    assert ids[0] == ids[2]  # other files, the same picture
    assert ids[1] == ids[3] != ids[0]


def test_without_pictures_nothing_is_known() -> None:
    assert Responses(rows=np.zeros((3, 2), np.float32), hash="").stimulus_ids is None
