"""The demonstration's commands, what it keeps for the next one, and that it touches nobody's files."""

import io
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.demo import full as demo
from minddiffuser.runtime.demo import quick as demo_quick
from minddiffuser.runtime.demo import signals as demo_signals
from minddiffuser.runtime.demo import steps as demo_steps
from minddiffuser.runtime.demo.full import KEPT_TRIALS, DemoSettings, commands, run_demo, settings_of, subject_key
from minddiffuser.runtime.demo.signals import SIGNALS
from minddiffuser.runtime.demo.steps import in_subprocess, kept_in
from minddiffuser.runtime.errors import FileError, InputError, MissingExtra
from minddiffuser.runtime.images import write_png
from minddiffuser.runtime.refine.settings import PRESETS

SETTINGS = DemoSettings(n_trials=3, n_train=40)


class Shell:
    """Stands for the subprocesses: remembers the commands, makes what they would, fails where it is to."""

    def __init__(self, fail_at: str = "", code: int = 2, *, crash: bool = False) -> None:
        self.ran: list[str] = []
        self.fail_at, self.code, self.crash = fail_at, code, crash

    def __call__(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        name, out = command[3], Path(command[command.index("--out") + 1])
        self.ran.append(name)
        if name == self.fail_at and name != "fit" and (self.code not in (0, 1) or self.crash):
            return self.code
        if name == "fit":
            entry = Path(command[command.index("--cache") + 1]) / "0123"
            entry.mkdir(parents=True, exist_ok=True)
            (entry / "features.json").touch()
            if self.fail_at == "fit":
                return self.code
        marker = {"simulate": "data.json", "fit": "checkpoint.json", "bundle": "manifest.json", "run": "report.html"}
        out.mkdir(exist_ok=True)
        (out / marker[name]).touch()
        return self.code if name == self.fail_at else 0


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "minddiffuser"
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: folder)
    return folder


def run(out: Path, settings: DemoSettings = SETTINGS, shell: Shell | None = None, **options: Any) -> tuple[int, str]:
    stream = io.StringIO()
    code = run_demo(out, settings, stream=stream, execute=shell or Shell(), **options)
    return code, stream.getvalue()


def test_it_runs_the_commands_that_it_prints(tmp_path: Path) -> None:
    shell = Shell()
    code, said = run(tmp_path / "demo", shell=shell)
    assert code == 0
    assert shell.ran == ["simulate", "fit", "simulate", "run", "bundle", "run"]
    *lines, last = said.splitlines()
    names = [line.split()[1] for line in lines if line.startswith("$ ")]
    assert names == ["md-train", "md-train", "md-train", "md-reconstruct", "md-export", "md-reconstruct"]
    assert "--n-test 3" in lines[2]
    report = tmp_path / "demo" / "engines" / "report.html"
    assert last == f"the same pictures from the bundle, without PyTorch: {report}"


def test_the_usual_demonstration_needs_no_data_of_its_own(tmp_path: Path) -> None:
    shell = Shell()
    run(tmp_path / "demo", replace(SETTINGS, n_trials=KEPT_TRIALS), shell)
    assert shell.ran == ["simulate", "fit", "run", "bundle", "run"]
    assert not (tmp_path / "demo" / "data").exists()


def test_another_demonstration_uses_the_kept_subject(tmp_path: Path, cache: Path) -> None:
    """The second simulates its own pictures to the same subject, and neither fits nor exports again."""
    run(tmp_path / "first")
    shell = Shell()
    write_png(tmp_path / "mine" / "boat.png", np.zeros((9, 9, 3), np.uint8))
    write_png(tmp_path / "mine" / "dog.png", np.zeros((9, 9, 3), np.uint8))
    code, said = run(tmp_path / "second", shell=shell, stimuli=tmp_path / "mine")
    assert (code, shell.ran) == (0, ["simulate", "run", "run"])
    assert f"--stimuli {tmp_path / 'mine'}" in said
    (kept,) = cache.glob("demo-*")
    assert str(kept / "checkpoint") in said
    assert str(kept / "bundle") in said
    assert not (kept / "features").exists()  # hundreds of megabytes that nothing needs again


@pytest.mark.parametrize("modality", [name for name in SIGNALS if name != "fmri"])
def test_a_demonstration_of_sensors_ends_with_its_pictures_and_goes_on_with_full(
    tmp_path: Path, cache: Path, modality: str
) -> None:
    shell, settings = Shell(), settings_of(modality)
    code, said = run(tmp_path / "demo", settings, shell, exports=False)
    assert (code, shell.ran) == (0, ["simulate", "fit", "run"])
    assert f"$ md-train simulate {modality} --seed 7" in said
    assert said.splitlines()[-1].endswith("without PyTorch: the same command with --full")
    assert not list(cache.glob("shipped-*"))  # graphs are for the export
    more = Shell()
    code, said = run(tmp_path / "demo", settings, more)
    assert (code, more.ran) == (0, ["run", "bundle", "run"])
    (kept,) = cache.glob("demo-*")  # one subject for both
    assert (kept / "bundle" / "manifest.json").exists()


@pytest.mark.parametrize("modality", SIGNALS)
def test_the_page_says_what_was_simulated(modality: str) -> None:
    settings = settings_of(modality)
    note = settings.note()
    assert f"{settings.n_train:,} " in note
    assert ("EEG" in note, "MEG" in note, "voxels per structural" in note) == (
        modality == "eeg",
        modality == "meg",
        modality == "fmri",
    )
    assert ("nearest concept" in note) is (modality != "fmri")


@pytest.mark.parametrize(
    ("modality", "missing", "full", "said"),
    [
        ("eeg", {"mne"}, False, r"the demonstration with eeg needs mne: pip install 'minddiffuser\[data\]'"),
        ("meg", {"mne", "torch"}, False, r"needs torch and mne: pip install 'minddiffuser\[train,data\]'"),
        ("meg", {"mne", "onnx"}, True, r"the whole path with meg needs mne and onnx: .*\[data,export\]'"),
        ("fmri", {"torch"}, True, r"the whole path with fmri needs torch: pip install 'minddiffuser\[train\]'"),
    ],
)
def test_missing_libraries_are_one_sentence(
    modality: str, missing: set[str], full: bool, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command, before anything is made."""
    from minddiffuser.runtime import cli

    monkeypatch.setattr(demo_signals, "find_spec", lambda name: None if name in missing else object())
    given = ["demo", "--modality", modality, "--out", str(tmp_path / "demo"), *(["--full"] if full else [])]
    args = cli.parser().parse_args(given)
    with pytest.raises(MissingExtra, match=said):
        args.function(args)
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"modality": "eeg"}, {"n_train": 41}, {"n_structure": 9}, {"models": "other"}]
)
def test_what_decides_the_subject_makes_another_one(change: dict[str, Any], cache: Path) -> None:
    key = subject_key(SETTINGS)
    assert subject_key(replace(SETTINGS, **change)) != key
    assert subject_key(replace(SETTINGS, candidates=1)) == key
    assert kept_in(f"demo-{key[:16]}", lambda: Path("x"), print) == cache / f"demo-{key[:16]}"


def test_other_code_makes_another_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    before = subject_key(SETTINGS)
    real = demo.sha256_of
    monkeypatch.setattr(demo, "sha256_of", lambda path: "0" if path.name == "fmri.py" else real(path))
    assert subject_key(SETTINGS) != before


def test_code_that_changes_meanwhile_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update of the package during the ten minutes: the demonstration ends as it began."""
    keys = iter(["0" * 64, "1" * 64, "2" * 64])
    monkeypatch.setattr(demo, "subject_key", lambda settings: next(keys))
    assert run(tmp_path / "demo")[0] == 0


def test_without_a_cache_folder_the_subject_is_kept_with_the_demonstration(tmp_path: Path, cache: Path) -> None:
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file where the folder would be")
    shell = Shell()
    code, said = run(tmp_path / "demo", shell=shell)
    assert code == 0
    for name in ("subject", "shipped"):
        assert f"the subject is kept in {tmp_path / 'demo' / name}, not for other demonstrations (" in said
    assert (tmp_path / "demo" / "subject" / "checkpoint").is_dir()


def test_without_a_home_the_subject_is_kept_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(*_given: object, **_options: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for answer in (homeless, lambda *_, **__: Path("~/.cache/minddiffuser")):
        monkeypatch.setattr("platformdirs.user_cache_path", answer)
        said: list[str] = []
        assert kept_in("x", lambda: tmp_path / "instead", said.append) == tmp_path / "instead"
        assert len(said) == 1
    assert not Path("~").exists()


@pytest.mark.parametrize("why", ["missing", "other models"])
def test_without_the_shipped_files_every_graph_is_traced(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "missing":
        monkeypatch.setattr(demo_quick, "SHIPPED", tmp_path / "nowhere")
    given: list[Sequence[str]] = []
    shell = Shell()

    def execute(command: Sequence[str], environment: Mapping[str, str]) -> int:
        given.append(command)
        return shell(command, environment)

    settings = SETTINGS if why == "missing" else replace(SETTINGS, models="mine")
    code, said = run(tmp_path / "demo", settings, shell=execute)
    assert code == 0
    assert not any("--graphs-from" in command for command in given)
    assert ("every graph is traced: the index of the shipped files is missing" in said) == (why == "missing")


def test_the_bundle_is_refined_as_the_checkpoint_is(tmp_path: Path) -> None:
    """The same stage 2, on engines that need no PyTorch, into a folder of its own."""
    fewer = replace(SETTINGS, candidates=2)
    made = {
        name: step.command
        for name, step in commands(tmp_path, tmp_path / "kept", fewer, None, tmp_path / "shipped").items()
    }
    assert made["bundle"][made["bundle"].index("--out") + 1] == made["engines"][2]
    assert made["engines"][made["engines"].index("--backend") + 1] == "ort"
    for option in ("--candidates", "--batch-size", "--threads"):
        values = [made[name][made[name].index(option) + 1] for name in ("run", "engines")]
        assert values[0] == values[1], option
    assert "--models" not in made["engines"]
    outs = {made[name][made[name].index("--out") + 1] for name in made}
    assert len(outs) == len(made)


def test_finished_pieces_are_used_again_and_a_failed_one_is_made_anew(tmp_path: Path) -> None:
    assert run(tmp_path / "demo", shell=Shell("simulate"))[0] == 2
    failing = Shell("fit")
    assert run(tmp_path / "demo", shell=failing)[0] == 2
    assert failing.ran == ["simulate", "fit"]
    again = Shell()
    assert run(tmp_path / "demo", shell=again)[0] == 0
    assert again.ran == ["fit", "simulate", "run", "bundle", "run"]
    # Runs know by themselves what is left to do; pieces that were made are not made again.
    done = Shell()
    assert run(tmp_path / "demo", shell=done)[0] == 0
    assert done.ran == ["run", "run"]


def test_a_run_with_skipped_trials_goes_on_and_ends_with_1(tmp_path: Path) -> None:
    shell = Shell("run", code=1)
    code, said = run(tmp_path / "demo", shell=shell)
    assert (code, shell.ran[-2:]) == (1, ["bundle", "run"])
    assert said.splitlines()[-1].startswith("the same pictures from the bundle")


@pytest.mark.parametrize(("command", "n_ran"), [("simulate", 1), ("fit", 2), ("run", 4), ("bundle", 5)])
def test_a_command_that_crashes_ends_it(tmp_path: Path, command: str, n_ran: int) -> None:
    """Python's exit code for an error that nobody caught is 1, as that of a run with skipped trials."""
    shell = Shell(command, code=1, crash=True)
    code, said = run(tmp_path / "demo", shell=shell)
    assert (code, len(shell.ran)) == (2, n_ran)
    assert "the same pictures" not in said


def test_a_fit_that_was_ended_keeps_its_features(tmp_path: Path, cache: Path) -> None:
    run(tmp_path / "demo", shell=Shell("fit", code=-9))
    (kept,) = cache.glob("demo-*")
    assert (kept / "features" / "0123" / "features.json").is_file()
    (kept / "features" / "notes.txt").write_text("mine")
    run(tmp_path / "demo")
    assert (kept / "features" / "notes.txt").read_text() == "mine"


def test_a_process_with_one_core_asks_for_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_steps, "usable_cores", lambda: 1)
    for name, step in commands(tmp_path, tmp_path, SETTINGS, None, tmp_path / "shipped").items():
        if "--threads" in step.command:
            assert step.command[step.command.index("--threads") + 1] == "1", name


@pytest.mark.parametrize("own", [False, True])
def test_other_models_have_the_brain_that_reads_them(tmp_path: Path, own: bool) -> None:
    """And the tiny world the default one, which would refuse --models."""
    stimuli = tmp_path / "drawings" if own else None
    for models, said in (("tiny", []), ("mine", ["--brain", "clip", "--models", "mine"])):
        made = commands(tmp_path, tmp_path, replace(SETTINGS, models=models), stimuli, None)
        simulated = [made["subject"], *([made["data"]] if own else [])]
        for step in simulated:
            given = [word for word in step.command if word in ("--brain", "clip", "--models", "mine")]
            assert given == said


def test_an_interrupted_command_may_save_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a terminal, where Ctrl-C reaches both processes."""
    saves = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has it ignored
try:
    print("ready", flush=True)
    signal.pause()
except KeyboardInterrupt:
    Path(sys.argv[1]).touch()
"""
    real, saved = subprocess.Popen.wait, tmp_path / "saved"

    def wait(process: Any, timeout: float | None = None) -> int:
        monkeypatch.setattr(subprocess.Popen, "wait", real)
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "DEVNULL", subprocess.PIPE)
    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        in_subprocess([sys.executable, "-c", saves, str(saved)], dict(os.environ))
    assert saved.exists()


def test_other_choices_want_another_folder(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(FileError, match="candidates, seed|seed, candidates"):
        run(tmp_path, replace(SETTINGS, seed=8, candidates=9))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", ["work/data/f", "data/f", "run/f", "report.html", "stimuli/0.png", "subject/x"])
def test_a_persons_files_are_never_touched(tmp_path: Path, place: str, cache: Path) -> None:
    """Refused before anything is made, wherever in the folder the files lie."""
    file = tmp_path / "home" / place
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    shell = Shell()
    before = snapshot(tmp_path)
    with pytest.raises(FileError, match="is not a folder of a demonstration: give a new or empty folder"):
        run(tmp_path / "home", shell=shell)
    assert shell.ran == []
    assert snapshot(tmp_path) == before
    assert not cache.exists()


def test_a_demonstration_deletes_nothing_of_its_own_folder(tmp_path: Path) -> None:
    """Files that a person puts there between two attempts stay, also where a simulation was killed."""
    run(tmp_path / "demo", shell=Shell("run"))
    (tmp_path / "demo" / "data" / "data.json").unlink()
    (tmp_path / "demo" / "data" / "notes.txt").write_text("mine")
    run(tmp_path / "demo")
    assert (tmp_path / "demo" / "data" / "notes.txt").read_text() == "mine"


def test_a_strangers_subject_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine" / "features").mkdir(parents=True)
    with pytest.raises(FileError, match="is not a folder of a demonstration's subject"):
        run(tmp_path / "demo", subject=tmp_path / "mine")
    assert not (tmp_path / "demo").exists()
    assert (tmp_path / "mine" / "features").is_dir()
    run(tmp_path / "demo", subject=tmp_path / "kept")
    with pytest.raises(FileError, match="keeps the subject of another release or with other settings"):
        run(tmp_path / "other", replace(SETTINGS, seed=9), subject=tmp_path / "kept")


@pytest.mark.parametrize("name", [pytest.param("demo.json", marks=pytest.mark.long), "subject.json"])
def test_edited_descriptions_are_one_sentence(tmp_path: Path, name: str) -> None:
    """Every single-field edit of them is refused, or changes nothing."""
    kept, out = tmp_path / "kept", tmp_path / "demo"
    run(out, subject=kept)
    path = (out if name == "demo.json" else kept) / name
    whole = json.loads(path.read_text())
    choose = random.Random(5)
    places = [(key,) for key in whole] + [("settings", key) for key in whole.get("settings", ())]
    for place in places:
        for value in choose.sample((None, "x", -1, [], 0.5, {}, True, [[]], {"a": None}), 5):
            content = json.loads(json.dumps(whole))
            inside = content if len(place) == 1 else content[place[0]]
            inside[place[-1]] = value
            path.write_text(json.dumps(content))
            if content == whole:
                continue
            shell = Shell()
            with pytest.raises(FileError, match="demonstration|subject") as caught:
                run(out, shell=shell, subject=kept)
            assert "\n" not in str(caught.value)
            assert shell.ran == [] or name == "subject.json"
    path.write_text(json.dumps(whole))
    assert run(out, subject=kept)[0] == 0


def test_own_pictures_decide_the_number_of_trials(tmp_path: Path) -> None:
    for index in range(2):
        write_png(tmp_path / "mine" / f"{index}.png", np.full((9, 9, 3), index, np.uint8))
    _, said = run(tmp_path / "demo", stimuli=tmp_path / "mine")
    (simulated,) = (line for line in said.splitlines() if "--stimuli" in line)
    assert "--n-test" not in simulated
    assert json.loads((tmp_path / "demo" / "demo.json").read_text())["settings"]["n_trials"] == 2
    write_png(tmp_path / "mine" / "1.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(FileError, match="stimuli"):
        run(tmp_path / "demo", stimuli=tmp_path / "mine")


@pytest.mark.parametrize(("n_files", "named"), [(1, "1 picture,"), (3, "3 pictures,")])
def test_one_picture_has_no_shuffled_control(n_files: int, named: str, tmp_path: Path) -> None:
    """Copies of it do not make it two."""
    for index in range(n_files):
        write_png(tmp_path / "mine" / f"{index}.png", np.zeros((9, 9, 3), np.uint8))
    code, said = run(tmp_path / "demo", stimuli=tmp_path / "mine")
    assert code == 0
    assert "--controls oracle" in said
    assert named in said


def test_a_picture_that_cannot_be_decoded_leaves_no_demonstration_behind(tmp_path: Path) -> None:
    write_png(tmp_path / "mine" / "0.png", np.zeros((9, 9, 3), np.uint8))
    (tmp_path / "mine" / "1.png").write_bytes(b"no picture")
    shell = Shell()
    with pytest.raises(FileError, match=r"1\.png cannot be decoded"):
        run(tmp_path / "demo", stimuli=tmp_path / "mine", shell=shell)
    assert shell.ran == []
    assert not (tmp_path / "demo").exists()


def test_a_command_that_is_killed_is_named_with_its_signal(tmp_path: Path) -> None:
    stream = io.StringIO()
    killed = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    code = run_demo(tmp_path, SETTINGS, stream=stream, execute=lambda _command, env: in_subprocess(killed, env))
    assert code == 2
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("md-reconstruct: md-train simulate was ended by SIGKILL")


@pytest.mark.parametrize("change", [{"n_trials": 1}, {"seed": -1}])
def test_settings_that_make_no_sense_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(InputError):
        replace(SETTINGS, **change)


@pytest.mark.parametrize("modality", SIGNALS)
@pytest.mark.parametrize("stimuli", [None, Path("pictures")])
def test_the_real_commands_take_these_arguments(stimuli: Path | None, modality: str, tmp_path: Path) -> None:
    """Each command line is parsed by the command's own parser, so that an option renamed there fails here."""
    from minddiffuser.export import cli as export_cli
    from minddiffuser.runtime import cli as runtime_cli
    from minddiffuser.training import cli as training_cli

    parsers = {"md-train": training_cli, "md-export": export_cli, "md-reconstruct": runtime_cli}
    for step in commands(tmp_path, tmp_path, settings_of(modality), stimuli, tmp_path / "shipped").values():
        args = parsers[step.command[0]].parser().parse_args(step.command[1:])
        assert args.modality == modality if step.command[1] == "simulate" else "--modality" not in step.command


def test_the_page_says_what_was_chosen() -> None:
    assert all(part in DemoSettings(n_trials=5, candidates=4).note() for part in ("5 pictures", "the best of 4 start"))
    default = PRESETS["default"].as_dict()["candidates"]
    assert f"the best of {default} start noises" in DemoSettings().note()
    assert DemoSettings().refinement() == []


@pytest.mark.slow
@pytest.mark.parametrize("modality", [name for name in SIGNALS if name != "fmri"])
def test_a_small_demonstration_of_sensors(modality: str, tmp_path: Path) -> None:
    """With every real command, from the simulation to the pictures of the bundle."""
    small = replace(settings_of(modality), n_trials=2, n_train=60, n_structure=5, candidates=1, threads=1)
    stream = io.StringIO()
    assert run_demo(tmp_path / "demo", small, stream=stream, execute=in_subprocess) == 0, stream.getvalue()
    summaries = [json.loads((tmp_path / "demo" / name / "summary.json").read_text()) for name in ("run", "engines")]
    assert [summary["concepts"]["n_trials"] for summary in summaries] == [2, 2]
    assert summaries[0]["concepts"]["top1"] == summaries[1]["concepts"]["top1"]
    page = (tmp_path / "demo" / "run" / "report.html").read_text()
    assert f"simulated {modality.upper()} of 60 pictures" in page
