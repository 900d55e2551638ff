"""The tiny world from nothing: draws the pictures, trains each part, writes the model folder, measures it.

Parts run in the order of `PARTS`; each leaves its training state and its result under the work folder, so that a
killed run goes on where it was, and parts that do not wait for one another can be trained by several processes
(`md-train world --part clip` beside `--part autoencoder`).
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from ...runtime.errors import FileError, InputError, check_choice
from ...runtime.files import write_json
from ...runtime.metrics.judge import write_judge
from . import autoencoder, contrastive, denoiser, judging
from .loop import reached, scaled
from .pictures import JUDGE_SEED, TRAIN_SEED, Pictures, open_pictures
from .tokens import write_tokenizer

N_PICTURES, N_JUDGE_PICTURES = 60_000, 30_000
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
    out : where the model folder goes: the diffusers layout, `clip/`, `judge/` and the model card.
    work : where pictures and training states are kept; `out` with ".work" appended when None.
    device : "auto" takes a GPU when there is one.
    parts : names from `PARTS`; all when None. A part whose result exists is not trained again.

    effort : share of the pictures and steps of the shipped world; 0.01 makes a poor one in minutes.

    Raises
    ------
    InputError
        For an unknown part, or an effort outside (0, 1].
    FileError
        When a part is asked for before those it needs.
    """
    for part in parts or ():
        check_choice("part", part, PARTS)
    if not 0 < effort <= 1:
        raise InputError(f"effort is {effort}: choose a share above 0 and up to 1")
    work = out.with_name(out.name + ".work") if work is None else work
    work.mkdir(parents=True, exist_ok=True)
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    for name in PARTS:
        if parts is None or name in parts:
            PARTS[name](_Bench(out, work, chosen, effort, progress))
    return out


class _Bench:
    """What every part works with: folders, device, pictures and the results of earlier parts."""

    def __init__(self, out: Path, work: Path, device: str, effort: float, progress: Progress | None) -> None:
        self.out, self.work, self.device, self.effort = out, work, device, effort
        self._progress = progress

    @property
    def hardware(self) -> str:
        """A sentence for the model card."""
        where = torch.cuda.get_device_name() if self.device.startswith("cuda") else f"the CPU ({platform.machine()})"
        return f"Trained on {where} with PyTorch {torch.__version__}."

    def report(self, label: str) -> Callable[[int, int], None] | None:
        progress = self._progress
        return None if progress is None else lambda done, total: progress(label, done, total)

    def pictures(self, n_pictures: int = N_PICTURES, seed: int = TRAIN_SEED) -> Pictures:
        n_pictures = max(64, round(n_pictures * self.effort))
        return open_pictures(self.work, n_pictures=n_pictures, seed=seed, progress=self.report("drawing"))

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
        """Let `write` fill a folder that appears under its name only when whole."""
        draft = self.work / "parts" / f".{name}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        write(draft)
        draft.rename(self.work / "parts" / name)

    def has(self, name: str) -> bool:
        return (self.work / "parts" / name).exists()


def _tokenizer(bench: _Bench) -> None:
    if not bench.has("tokenizer"):
        bench.finish("tokenizer", write_tokenizer)


def _autoencoder(bench: _Bench) -> None:
    if not bench.has("autoencoder"):
        vae = autoencoder.fit(
            bench.pictures(), bench.work, scaled(autoencoder.SETTINGS, bench.effort), device=bench.device
        )
        bench.finish("autoencoder", vae.save_pretrained)


def _clip(bench: _Bench) -> None:
    if not bench.has("clip"):
        tokenizer = _open_tokenizer(bench)
        model = contrastive.fit(
            bench.pictures(), tokenizer, bench.work, scaled(contrastive.SETTINGS, bench.effort), device=bench.device
        )
        bench.finish("clip", lambda folder: contrastive.write_folder(model, tokenizer, folder, half=True))


def _denoiser(bench: _Bench) -> None:
    if not bench.has("denoiser"):
        tokenizer, pictures = _open_tokenizer(bench), bench.pictures()
        latents = bench.latents(pictures)
        both = denoiser.fit(
            pictures, latents, tokenizer, bench.work, scaled(denoiser.SETTINGS, bench.effort), device=bench.device
        )

        def write(folder: Path) -> None:
            both.unet.save_pretrained(folder / "unet")
            both.text_encoder.save_pretrained(folder / "text_encoder")

        bench.finish("denoiser", write)


def _decoder(bench: _Bench) -> None:
    if not bench.has("decoder"):
        vae, pictures = AutoencoderKL.from_pretrained(bench.result("autoencoder")), bench.pictures()
        latents = bench.latents(pictures)
        vae = autoencoder.polish(
            vae, pictures, latents, bench.work, scaled(autoencoder.POLISH, bench.effort), device=bench.device
        )
        bench.finish("decoder", vae.save_pretrained)


def _judge(bench: _Bench) -> None:
    if not bench.has("judge"):
        pictures = bench.pictures(N_JUDGE_PICTURES, seed=JUDGE_SEED)
        judge = judging.fit(pictures, bench.work, scaled(judging.SETTINGS, bench.effort), device=bench.device)
        bench.finish("judge", lambda folder: write_judge(folder, judge, judging.config(), half=True))


def _folder(bench: _Bench) -> None:
    """Put the parts together in the layout of a downloaded model, weights as float16."""
    clip, judge, both = bench.result("clip"), bench.result("judge"), bench.result("denoiser")
    bench.out.mkdir(parents=True, exist_ok=True)
    _save_half(AutoencoderKL.from_pretrained(bench.result("decoder")), bench.out / "vae")
    _save_half(UNet2DConditionModel.from_pretrained(both / "unet"), bench.out / "unet")
    CLIPTextModel.from_pretrained(both / "text_encoder").half().save_pretrained(bench.out / "text_encoder")
    shutil.copytree(bench.result("tokenizer"), bench.out / "tokenizer", dirs_exist_ok=True)
    shutil.copytree(clip, bench.out / "clip", dirs_exist_ok=True)
    shutil.copytree(judge, bench.out / "judge", dirs_exist_ok=True)
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


def _save_half(module: Any, folder: Path) -> None:
    """Save a diffusers model as float16, without the path it was read from, which its config would remember."""
    module.half().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {key: value for key, value in config.items() if key != "_name_or_path"})


def _quality(bench: _Bench) -> None:
    """Measure on held-out renderings; writes quality.json, samples.png and the model card beside the models."""
    from .card import write_card
    from .quality import count_parameters, measure, samples_page

    figures = measure(bench.out, bench.report("measuring"))
    figures |= {"n_pictures": N_PICTURES, "n_judge_pictures": N_JUDGE_PICTURES}
    write_json(bench.out / "quality.json", figures)
    samples_page(bench.out, bench.out / "samples.png")
    write_card(bench.out, figures, count_parameters(bench.out), _trainings(bench.work), hardware=bench.hardware)


def _trainings(work: Path) -> dict[str, tuple[int, int, float]]:
    """Steps, batch size and minutes of each training that left its state."""
    batches = {
        "autoencoder": autoencoder.BATCH,
        "decoder": autoencoder.BATCH,
        "contrastive": contrastive.BATCH,
        "denoiser": denoiser.BATCH,
        "judge": judging.BATCH,
    }
    states = {name: work / f"{name}.safetensors" for name in batches}
    done = {name: reached(path) for name, path in states.items() if path.exists()}
    return {name: (steps, batches[name], seconds / 60) for name, (steps, seconds) in done.items()}


def _open_tokenizer(bench: _Bench) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(bench.result("tokenizer"))


# The order of training; "decoder", "clip" and "judge" may run beside "denoiser" in processes of their own.
PARTS: dict[str, Callable[[_Bench], None]] = {
    "tokenizer": _tokenizer,
    "autoencoder": _autoencoder,
    "clip": _clip,
    "denoiser": _denoiser,
    "decoder": _decoder,
    "judge": _judge,
    "folder": _folder,
    "quality": _quality,
}
