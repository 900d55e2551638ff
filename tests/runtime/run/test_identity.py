import json
from pathlib import Path

import pytest

from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.run.identity import claim_folder, remove_drafts

IDENTITY = {
    "settings": {"refine": {"steps": 3, "params": ("latent", "context")}, "seed": 1},
    "versions": {"torch": "2.6"},
    "hashes": {"models": "aa"},
    "data": {"subject": "one"},
}


def test_the_same_settings_may_come_back_and_notes_may_change(tmp_path: Path) -> None:
    claim_folder(tmp_path, {**IDENTITY, "notes": ["first"], "given": {"models": "tiny"}})
    claim_folder(tmp_path, {**IDENTITY, "notes": ["second"], "given": {"models": "./a/copy"}})
    assert json.loads((tmp_path / "settings.json").read_text())["notes"] == ["second"]
    claim_folder(tmp_path, {**IDENTITY, "notes": [], "given": {"models": "tiny"}})
    content = json.loads((tmp_path / "settings.json").read_text())
    assert (content["notes"], content["given"]) == (["second"], {"models": "tiny"})
    assert (content["format"], content["settings"]["seed"]) == ("minddiffuser-run-settings", 1)


def test_another_backend_is_reported_with_the_option_that_asks_for_the_first(tmp_path: Path) -> None:
    claim_folder(tmp_path, {**IDENTITY, "settings": {"backend": "ort-cuda"}})
    with pytest.raises(FileError, match=r"or the same settings again \(--backend ort-cuda\)"):
        claim_folder(tmp_path, {**IDENTITY, "settings": {"backend": "tensorrt"}})


@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        (
            "settings",
            {"refine": {"steps": 4, "params": ["latent", "context"]}, "seed": 1},
            r"settings\.refine\.steps: 3 there, 4 now",
        ),
        (
            "settings",
            {"refine": {"steps": 3, "params": ["latent", "context"]}},
            r"settings\.seed: 1 there, \"absent\" now",
        ),
        ("versions", {"torch": "2.7"}, r"versions\.torch"),
        ("versions", {"torch": "2.6", "tensorrt": "10"}, r"versions\.tensorrt: \"absent\" there"),
        ("hashes", {"models": "bb"}, r"hashes\.models"),
        ("data", {"subject": "two"}, r"data\.subject"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path: Path, part: str, value: object, reason: str) -> None:
    claim_folder(tmp_path, IDENTITY)
    with pytest.raises(FileError, match=reason):
        claim_folder(tmp_path, {**IDENTITY, part: value})


@pytest.mark.parametrize("name", ["images", "journal", "stimuli", "curves"])
def test_results_without_settings_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(FileError, match=f"holds {name} and is not a run folder"):
        claim_folder(tmp_path, IDENTITY)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "else", "version": 1}'])
def test_damaged_settings_are_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(FileError):
        claim_folder(tmp_path, IDENTITY)


def test_drafts_go_and_pictures_stay(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "stage1"
    folder.mkdir(parents=True)
    for name in (".000000.png.77.draft", "000000.png"):
        (folder / name).write_bytes(b"x")
    (tmp_path / ".settings.json.9.draft").write_bytes(b"x")
    remove_drafts(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["000000.png"]
