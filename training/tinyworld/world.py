"""The tiny world from nothing: draws the pictures, trains each part, writes the model folder, measures it.

Parts run in the order of `PARTS`; each leaves its training state and its result under the work folder, so that a
killed run goes on where it was, and parts that do not wait for one another can be trained by several processes
(`md-train world --part clip` beside `--part autoencoder`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from ...runtime.errors import FileError, check_choice
from ...runtime.files import write_json
from ...runtime.metrics.judge import write_judge
from . import autoencoder, contrastive, denoiser, judging
from .pictures import JUDGE_SEED, Pictures, open_pictures
from .tokens import write_tokenizer

N_PICTURES, N_JUDGE_PICTURES = 60_000, 30_000
Progress = Callable[[str, int, int], None]


def make_world(
    out: Path,
    *,
    work: Path | None = None,
    device: str = "auto",
    parts: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train the tiny world into the model folder `out` and return it.

    Parameters
    ----------
    out : where the model folder goes: the diffusers layout, `clip/`, `judge/` and the model card.
    work : where pictures and training states are kept; `out` with ".work" appended when None.
    device : "auto" takes a GPU when there is one.
    parts : names from `PARTS`; all when None. A part whose result exists is not trained again.

    Raises
    ------
    InputError
        For an unknown part.
    FileError
        When a part is asked for before those it needs.
    """
    for part in parts or ():
        check_choice("part", part, PARTS)
    work = out.with_name(out.name + ".work") if work is None else work
    work.mkdir(parents=True, exist_ok=True)
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    for name in PARTS:
        if parts is None or name in parts:
            PARTS[name](_Bench(out, work, chosen, progress))
    return out


class _Bench:
    """What every part works with: folders, device, pictures and the results of earlier parts."""

    def __init__(self, out: Path, work: Path, device: str, progress: Progress | None) -> None:
        self.out, self.work, self.device = out, work, device
        self._progress = progress

    def report(self, label: str) -> Callable[[int, int], None] | None:
        progress = self._progress
        return None if progress is None else lambda done, total: progress(label, done, total)

    def pictures(self, n_pictures: int = N_PICTURES, **which: int) -> Pictures:
        return open_pictures(self.work, n_pictures=n_pictures, progress=self.report("drawing"), **which)

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
        vae = autoencoder.fit(bench.pictures(), bench.work, device=bench.device)
        bench.finish("autoencoder", vae.save_pretrained)


def _clip(bench: _Bench) -> None:
    if not bench.has("clip"):
        tokenizer = _open_tokenizer(bench)
        model = contrastive.fit(bench.pictures(), tokenizer, bench.work, device=bench.device)
        bench.finish("clip", lambda folder: contrastive.write_folder(model, tokenizer, folder, half=True))


def _denoiser(bench: _Bench) -> None:
    if not bench.has("denoiser"):
        tokenizer, pictures = _open_tokenizer(bench), bench.pictures()
        vae = AutoencoderKL.from_pretrained(bench.result("autoencoder")).eval()
        latents = denoiser.encode_all(vae, pictures, bench.work / "latents.npy", bench.report("encoding"))
        both = denoiser.fit(pictures, latents, tokenizer, bench.work, device=bench.device)

        def write(folder: Path) -> None:
            both.unet.save_pretrained(folder / "unet")
            both.text_encoder.save_pretrained(folder / "text_encoder")

        bench.finish("denoiser", write)


def _decoder(bench: _Bench) -> None:
    if not bench.has("decoder"):
        vae = AutoencoderKL.from_pretrained(bench.result("autoencoder"))
        vae = autoencoder.polish(vae, bench.pictures(), bench.work, device=bench.device)
        bench.finish("decoder", vae.save_pretrained)


def _judge(bench: _Bench) -> None:
    if not bench.has("judge"):
        pictures = bench.pictures(N_JUDGE_PICTURES, seed=JUDGE_SEED)
        judge = judging.fit(pictures, bench.work, device=bench.device)
        bench.finish("judge", lambda folder: write_judge(folder, judge, judging.config(), half=True))


def _folder(bench: _Bench) -> None:
    """Put the parts together in the layout of a downloaded model, weights as float16."""
    clip, judge, both = bench.result("clip"), bench.result("judge"), bench.result("denoiser")
    bench.out.mkdir(parents=True, exist_ok=True)
    AutoencoderKL.from_pretrained(bench.result("decoder")).half().save_pretrained(bench.out / "vae")
    UNet2DConditionModel.from_pretrained(both / "unet").half().save_pretrained(bench.out / "unet")
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


def _quality(bench: _Bench) -> None:
    """Measure on held-out renderings; writes quality.json and samples.png beside the models."""
    from .quality import measure, samples_page

    figures = measure(bench.out, bench.report("measuring"))
    (bench.out / "quality.json").write_text(json.dumps(figures, indent=2) + "\n")
    samples_page(bench.out, bench.out / "samples.png")


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
