"""A recorded session runs again to the bit, and says where it does not and why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording_files import write_xdf

from minddiffuser.runtime.images import read_image, write_png
from minddiffuser.streaming.cli import main
from minddiffuser.streaming.recording.opened import open_session

pytest.importorskip("onnxruntime")
pytest.importorskip("pyxdf")
SFREQ, N_EVENTS = 200.0, 9


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, live_bundle: Path) -> Path:
    """The folder of a session of some ten seconds that md-stream ran as fast as it could."""
    folder = tmp_path_factory.mktemp("sessions")
    rng = np.random.default_rng(4)
    n_samples = int(SFREQ * (4 + N_EVENTS))
    stamps = 100.0 + np.arange(n_samples) / SFREQ
    data = rng.standard_normal((3, n_samples)) * 10.0
    data[:, 1200:1230] *= 100  # an artefact, on the third event
    marks = [(104.0 + k + 0.003, "abcd"[k % 4]) for k in range(N_EVENTS)]
    write_xdf(folder / "amp.xdf", data, stamps, SFREQ, marks, offset=12.5)
    words = [
        "run",
        str(live_bundle),
        "--source",
        f"replay:{folder / 'amp.xdf'},speed=max",
        "--record",
        str(folder / "s"),
    ]
    assert main([*words, "--no-dashboard", "--preset", "single", "--backend", "ort", "--threads", "1"]) == 0
    return folder / "s"


@pytest.fixture
def session(live: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(live, tmp_path / "s"))


def again(session: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    capsys.readouterr()
    code = main(["replay", str(session), *words])
    said = capsys.readouterr()
    return code, said.out.splitlines() or [said.err]


def edit(session: Path, kind: str, change: Any) -> None:
    lines = [json.loads(line) for line in (session / "results.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == kind:
            change(line)
            break
    (session / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_it_runs_again_to_the_bit(live: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = again(live, capsys)
    assert (code, lines[:2]) == (
        0,
        [f"markers: {N_EVENTS} of {N_EVENTS} ended as then", "features: 8 of 8 the same to the bit"],
    )
    kinds = [line["kind"] for line in open_session(live).results()]
    n_drawn = len({line["ordinal"] for line in open_session(live).results() if line["kind"] == "picture"})
    assert kinds.count("decoded") == 8
    assert 0 < n_drawn <= 8
    assert lines[2].startswith(f"pictures: {n_drawn} of {n_drawn} the same to the bit")
    assert len(lines) == 3


def test_the_pictures_in_the_folder_are_those_of_the_lines(live: Path) -> None:
    from minddiffuser.runtime.images import pixel_hash

    for line in open_session(live).results():
        if line["kind"] == "picture":
            assert pixel_hash(read_image(live / line["file"])) == line["pixels_sha256"]


def test_another_sample_is_found_at_the_epochs_that_it_is_in(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One bit of one sample behind the last event but one: a filter carries it on to the last."""
    path = session / "signal.xdf"
    data = bytearray(path.read_bytes())
    stamp = np.float64(100.0 + 2220 / SFREQ).tobytes()
    place = data.index(b"\x08" + stamp) + 9
    data[place + 6] ^= 8
    path.write_bytes(data)
    code, lines = again(session, capsys, "--no-pictures")
    assert code == 1
    assert lines[0] == f"markers: {N_EVENTS} of {N_EVENTS} ended as then"
    assert lines[1] == "features: 6 of 8 the same to the bit"
    assert lines[2] == "marker 7: its epoch is another one, as the signal chain gives it"
    assert lines[-1] == "reason: unknown: bundle, libraries, machine and settings are the recorded session's"


def test_another_feature_or_picture_is_named(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(session, "decoded", lambda line: line["hashes"].update(latent="0" * 64))
    edit(session, "picture", lambda line: line.update(pixels_sha256="0" * 64))
    about = json.loads((session / "session.json").read_text())
    about["about"]["computing"]["versions"]["onnxruntime"] = "1.0"
    (session / "session.json").write_text(json.dumps(about))
    code, lines = again(session, capsys)
    assert code == 1
    assert "marker 0: the epoch is the same, and decoded to another latent" in lines
    assert sum("its picture" in line for line in lines) == 1
    assert any(line.startswith("reason: versions.onnxruntime was 1.0, and is") for line in lines)


def test_a_result_that_is_missing_is_not_taken_for_the_same(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (session / "results.jsonl").read_text().splitlines(keepends=True)
    first = next(line for line in lines if json.loads(line)["kind"] == "decoded")
    (session / "results.jsonl").write_text("".join(line for line in lines if line != first))
    code, said = again(session, capsys, "--no-pictures")
    assert code == 1
    assert said[1] == "features: 7 of 8 the same to the bit"
    assert "marker 0: it was decoded, and the session's results do not say to what" in said


def test_a_recording_that_was_cut_says_so(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = session / "signal.xdf"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert main(["repair", str(session)]) == 0
    code, lines = again(session, capsys, "--no-pictures")
    assert code == 1
    assert "reason: the recording was cut before the session ended" in lines
    assert any("was decoded, and is" in line for line in lines)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda about: about["about"].pop("intake"), "do not say how the session ran"),
        (lambda about: about["about"]["bundle"].update(folder="/nowhere/bundle"), "say with --bundle where it is now"),
    ],
)
def test_what_is_missing_is_said(
    session: Path, capsys: pytest.CaptureFixture[str], change: Any, error: str, live_bundle: Path
) -> None:
    about = json.loads((session / "session.json").read_text())
    change(about)
    (session / "session.json").write_text(json.dumps(about))
    code, lines = again(session, capsys)
    assert code == 2
    assert error in lines[0]
    if "--bundle" in error:
        assert again(session, capsys, "--bundle", str(live_bundle), "--no-pictures")[0] == 0


def test_pictures_are_compared_and_not_files(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever edits a picture's file changes nothing of what the session said."""
    path = next((session / "pictures").glob("*.png"))
    write_png(path, np.zeros((4, 4, 3), np.uint8))
    assert again(session, capsys)[0] == 0
