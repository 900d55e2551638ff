"""The tiny world from nothing: draws the pictures, trains each part, writes the model folder, measures it.

Parts run in the order of `PARTS`; each leaves its training state and its result under the work folder, so that a
killed run goes on where it was, and parts that do not wait for one another can be trained by several processes
(`md-train world --part clip` beside `--part autoencoder`).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from ...runtime.errors import FileError, InputError, check_choice
from ...runtime.files import read_json, write_json
from ...runtime.locks import inside, locked
from ...runtime.metrics.classifier import write_classifier
from ...runtime.metrics.locator import write_locator
from ...runtime.models.build import open_device
from . import autoencoder, classifier, contrastive, denoiser, locator
from .card import describe_training, read_training, write_card
from .layers import Layers, open_layers
from .loop import LoopSettings, reached, scaled
from .pictures import CLASSIFIER_SEED, TRAIN_SEED, Pictures, open_pictures
from .places import choose_places, open_out, open_work, system_errors
from .tokens import write_tokenizer

N_PICTURES, N_CLASSIFIER_PICTURES, N_LOCATOR_PICTURES = 60_000, 30_000, 12_000
Progress = Callable[[str, int, int], None]


def make_world(
    out: Path,
    *,
    work: Path | None = None,
    device: str = "auto",
    parts: Sequence[str] | None = None,
    effort: float = 1.0,
    progress: Progress | None = None,
) -> Path:
    """Train the tiny world into the model folder `out` and return it.

    Parameters
    ----------
    out : where the model folder goes: the diffusers layout, `clip/`, `classifier/`, `locator/` and the model card.
    work : where pictures and training states are kept; `out` with ".work" appended when None.
    device : "auto" takes a CUDA GPU when there is one, else the CPU.
    parts : names from `PARTS`; all when None. A part whose result exists is not trained again.
    effort : share of the pictures and steps of the shipped world; 0.01 makes a poor one in minutes.

    Raises
    ------
    InputError
        For an unknown part, an effort outside (0, 1], a device that is not there, or a work folder inside `out`.
    FileError
        When another process trains the same part, `out` holds something else than a tiny world, `work` holds
        trainings with other settings, either cannot be written, or a part is asked for before those it needs.
    """
    for part in parts or ():
        check_choice("part", part, PARTS)
    if not 0 < effort <= 1:
        raise InputError(f"effort is {effort}: choose a share above 0 and up to 1")
    wanted = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    chosen = str(open_device(wanted))
    out, work = choose_places(out, work)
    names = [name for name in PARTS if parts is None or name in parts]
    open_out(out)
    if names != ["quality"]:  # which reads the model folder only
        open_work(work, _identity(effort))
    with system_errors(work):
        for name in names:
            # Other processes may train other parts beside this one; two parts write the model folder itself.
            with (
                locked(work / f".{name}.lock", work) if name != "quality" else nullcontext(),
                locked(inside(out), out) if name in _WRITING_OUT else nullcontext(),
            ):
                PARTS[name](_Bench(out, work, chosen, effort, progress))
    return out


@dataclass(frozen=True)
class _Training:
    """One of the trainings: its name in files and on the card, and what it takes at full effort."""

    name: str
    settings: LoopSettings
    batch: int
    n_pictures: int = N_PICTURES


# Part -> training, in the order of the card's table.
TRAININGS = {
    "autoencoder": _Training("autoencoder", autoencoder.SETTINGS, autoencoder.BATCH),
    "decoder": _Training("decoder", autoencoder.POLISH, autoencoder.BATCH),
    "clip": _Training("contrastive", contrastive.SETTINGS, contrastive.BATCH),
    "denoiser": _Training("denoiser", denoiser.SETTINGS, denoiser.BATCH),
    "classifier": _Training("classifier", classifier.SETTINGS, classifier.BATCH, N_CLASSIFIER_PICTURES),
    "locator": _Training("locator", locator.SETTINGS, locator.BATCH, N_LOCATOR_PICTURES),
}


def _identity(effort: float) -> dict[str, Any]:
    """What all trainings in one work folder have in common, as JSON."""
    trainings = {
        training.name: {
            **asdict(scaled(training.settings, effort)),
            "batch": training.batch,
            "n_pictures": _n_pictures(training.n_pictures, effort),
        }
        for training in TRAININGS.values()
    }
    return {"effort": float(effort), "settings": trainings}


def _n_pictures(n_pictures: int, effort: float) -> int:
    return max(64, round(n_pictures * effort))


class _Bench:
    """What every part works with: folders, device, pictures and the results of earlier parts."""

    def __init__(self, out: Path, work: Path, device: str, effort: float, progress: Progress | None) -> None:
        self.out, self.work, self.device, self.effort = out, work, device, effort
        self._progress = progress

    @property
    def hardware(self) -> str:
        """The machine, for the model card."""
        where = f"the CPU ({platform.machine()})"
        if self.device.startswith("cuda"):
            where = torch.cuda.get_device_name(self.device)
        elif self.device == "mps":
            where = f"an Apple GPU ({platform.machine()})"
        return f"{where} with PyTorch {torch.__version__}"

    def report(self, label: str) -> Callable[[int, int], None] | None:
        progress = self._progress
        return None if progress is None else lambda done, total: progress(label, done, total)

    def pictures(self, n_pictures: int = N_PICTURES, seed: int = TRAIN_SEED) -> Pictures:
        n_pictures = _n_pictures(n_pictures, self.effort)
        return open_pictures(self.work, n_pictures=n_pictures, seed=seed, progress=self.report("drawing"))

    def layers(self) -> Layers:
        n_pictures = _n_pictures(N_LOCATOR_PICTURES, self.effort)
        return open_layers(self.work, n_pictures=n_pictures, progress=self.report("drawing in layers"))

    def settings(self, name: str) -> LoopSettings:
        """The loop's settings of a part that is about to be trained here; notes the machine."""
        training = TRAININGS[name]
        state = self.work / f"{training.name}.safetensors"
        machines = self._machines(training) if state.exists() else []
        if self.hardware not in machines:
            write_json(self.work / f"{training.name}.machines.json", {"machines": [*machines, self.hardware]})
        return scaled(training.settings, self.effort)

    def _machines(self, training: _Training) -> list[str]:
        path = self.work / f"{training.name}.machines.json"
        if not path.exists():
            return []
        return [str(machine) for machine in read_json(path, "the list of machines").get("machines", [])]

    def latents(self, pictures: Pictures) -> torch.Tensor:
        """What the autoencoder makes of every picture, (n, 4, 8, 8), scaled."""
        vae = AutoencoderKL.from_pretrained(self.result("autoencoder")).eval()
        return autoencoder.encode_all(vae, pictures, self.work / "latents.npy", self.report("encoding"))

    def result(self, name: str) -> Path:
        """The folder of a finished earlier part."""
        folder = self.work / "parts" / name
        if not folder.exists():
            raise FileError(f"the part {name!r} has not been trained in {self.work}: train it first, or all parts")
        return folder

    def finish(self, name: str, write: Callable[[Path], object]) -> None:
        """Let `write` fill a folder that appears under its name only when whole, with its entry of training.json."""
        draft = self.work / "parts" / f".{name}.{os.getpid()}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            write(draft)
            if name in TRAININGS:
                write_json(draft / "training.json", self._entry(TRAININGS[name]))
            draft.rename(self.work / "parts" / name)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _entry(self, training: _Training) -> dict[str, Any]:
        steps, seconds = reached(self.work / f"{training.name}.safetensors")
        return {
            "steps": steps,
            "batch": training.batch,
            "minutes": round(seconds / 60, 1),
            "hardware": ", then ".join(self._machines(training)),
            "n_pictures": _n_pictures(training.n_pictures, self.effort),
        }

    def has(self, name: str) -> bool:
        return (self.work / "parts" / name).exists()


def _tokenizer(bench: _Bench) -> None:
    if not bench.has("tokenizer"):
        bench.finish("tokenizer", write_tokenizer)


def _autoencoder(bench: _Bench) -> None:
    if not bench.has("autoencoder"):
        vae = autoencoder.fit(bench.pictures(), bench.work, bench.settings("autoencoder"), device=bench.device)
        bench.finish("autoencoder", vae.save_pretrained)


def _clip(bench: _Bench) -> None:
    if not bench.has("clip"):
        tokenizer = _open_tokenizer(bench)
        model = contrastive.fit(bench.pictures(), tokenizer, bench.work, bench.settings("clip"), device=bench.device)
        bench.finish("clip", lambda folder: contrastive.write_folder(model, tokenizer, folder, half=True))


def _denoiser(bench: _Bench) -> None:
    if not bench.has("denoiser"):
        tokenizer, pictures = _open_tokenizer(bench), bench.pictures()
        latents = bench.latents(pictures)
        both = denoiser.fit(pictures, latents, tokenizer, bench.work, bench.settings("denoiser"), device=bench.device)

        def write(folder: Path) -> None:
            both.unet.save_pretrained(folder / "unet")
            both.text_encoder.save_pretrained(folder / "text_encoder")

        bench.finish("denoiser", write)


def _decoder(bench: _Bench) -> None:
    if not bench.has("decoder"):
        vae, pictures = AutoencoderKL.from_pretrained(bench.result("autoencoder")), bench.pictures()
        latents = bench.latents(pictures)
        vae = autoencoder.polish(vae, pictures, latents, bench.work, bench.settings("decoder"), device=bench.device)
        bench.finish("decoder", vae.save_pretrained)


def _classifier(bench: _Bench) -> None:
    if not bench.has("classifier"):
        pictures = bench.pictures(N_CLASSIFIER_PICTURES, seed=CLASSIFIER_SEED)
        network = classifier.fit(pictures, bench.work, bench.settings("classifier"), device=bench.device)
        bench.finish("classifier", lambda folder: write_classifier(folder, network, classifier.config(), half=True))


def _locator(bench: _Bench) -> None:
    if not bench.has("locator"):
        network = locator.fit(bench.layers(), bench.work, bench.settings("locator"), device=bench.device)
        arrays = locator.folded(network)
        bench.finish("locator", lambda folder: write_locator(folder, arrays, locator.config()))


def _folder(bench: _Bench) -> None:
    """Put the parts together in the layout of a downloaded model, weights as float16."""
    whole = {name: bench.result(name) for name in ("clip", "classifier", "locator")}
    both, vae = bench.result("denoiser"), bench.result("decoder")
    _write_training(bench)
    _save_half(AutoencoderKL.from_pretrained(vae), bench.out / "vae")
    _save_half(UNet2DConditionModel.from_pretrained(both / "unet"), bench.out / "unet")
    CLIPTextModel.from_pretrained(both / "text_encoder").half().save_pretrained(bench.out / "text_encoder")
    shutil.copytree(bench.result("tokenizer"), bench.out / "tokenizer", dirs_exist_ok=True)
    for name, part in whole.items():
        shutil.copytree(part, bench.out / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("training.json"))
    write_json(bench.out / "scheduler" / "scheduler_config.json", denoiser.SCHEDULER)
    write_json(
        bench.out / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "vae": ["diffusers", "AutoencoderKL"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "scheduler": ["diffusers", "DDIMScheduler"],
            "safety_checker": [None, None],
            "feature_extractor": [None, None],
        },
    )


def _write_training(bench: _Bench) -> None:
    """Put the parts' entries together; a note that somebody wrote stays while it speaks of these very trainings."""
    entries = {
        training.name: read_json(bench.result(part) / "training.json", f"the training of the part {part!r}")
        for part, training in TRAININGS.items()
    }
    before = read_training(bench.out) or {}
    note = before.get("note") if before.get("parts") == entries else None
    write_json(bench.out / "training.json", describe_training(entries, effort=float(bench.effort), note=note))


def _save_half(module: Any, folder: Path) -> None:
    """Save a diffusers model as float16, without the path it was read from, which its config would remember."""
    module.half().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {key: value for key, value in config.items() if key != "_name_or_path"})


def _quality(bench: _Bench) -> None:
    """Measure on held-out renderings; writes quality.json, samples.png and the model card beside the models."""
    from .quality import count_parameters, measure, samples_page

    if not (bench.out / "model_index.json").is_file():
        raise FileError(f"{bench.out} holds no tiny world: make it with the part 'folder' first, or with all parts")
    training = read_training(bench.out)
    metrics = measure(bench.out, bench.report("measuring"))
    write_json(bench.out / "quality.json", metrics)
    samples_page(bench.out, bench.out / "samples.png")
    write_card(bench.out, metrics, count_parameters(bench.out), training)


def _open_tokenizer(bench: _Bench) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(bench.result("tokenizer"))


# The order of training; "decoder", "clip", "classifier" and "locator" may run beside "denoiser", each in a process of
# its own.
PARTS: dict[str, Callable[[_Bench], None]] = {
    "tokenizer": _tokenizer,
    "autoencoder": _autoencoder,
    "clip": _clip,
    "denoiser": _denoiser,
    "decoder": _decoder,
    "classifier": _classifier,
    "locator": _locator,
    "folder": _folder,
    "quality": _quality,
}
_WRITING_OUT = ("folder", "quality")
