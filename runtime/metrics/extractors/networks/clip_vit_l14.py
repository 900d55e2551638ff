"""OpenAI's CLIP ViT-L/14 (Radford et al. 2021): its image embedding, 768 numbers, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base import Given, Unavailable
from ..network import Network, extractors_of
from ..preprocess import OPENAI
from ..weights import WeightsFile, check_folder

if TYPE_CHECKING:
    import torch

ARCHITECTURE = "ViT-L-14-quickgelu"
HUB_NAME = "timm/vit_large_patch14_clip_224.openai"
HUB_FILE = "open_clip_model.safetensors"
# No text is encoded: as little of that tower as open_clip allows.
_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}


def build() -> torch.nn.Module:
    """The image tower."""
    import open_clip

    return image_tower(open_clip.get_model_config(ARCHITECTURE))


def image_tower(config: dict[str, Any]) -> torch.nn.Module:
    """The image tower of an open_clip configuration, its tensors named as in the whole network."""
    import torch
    from open_clip.model import CLIP

    whole = CLIP(config["embed_dim"], config["vision_cfg"], _NO_TEXT, quick_gelu=config.get("quick_gelu", False))
    tower = torch.nn.Sequential()
    tower.add_module("visual", whole.visual)
    return tower


def find(file: WeightsFile, given: Given) -> Path:
    """The file in the weights folder, in the hub's cache, or downloaded there where that is allowed.

    Raises
    ------
    Unavailable
        It is in neither, and may not or cannot be downloaded.
    FileError
        There is no such weights folder.
    """
    check_folder(given)
    folder = given.weights
    for path in () if folder is None else (folder / file.name, folder / "ViT-L-14" / HUB_FILE):
        if path.is_file():
            return path
    try:
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
    except ModuleNotFoundError as error:
        raise Unavailable(f"{error.name} is not installed (pip install 'minddiffuser[metrics]')") from error
    cached = try_to_load_from_cache(HUB_NAME, HUB_FILE)
    if isinstance(cached, str):
        return Path(cached)
    if not given.download:
        where = "in no weights folder (--weights DIR)" if folder is None else f"not in {folder}"
        raise Unavailable(
            f"{file.name} is {where} and not in the hub's cache: take {HUB_FILE} of {file.url}, give it that name, or "
            "give --download-weights"
        )
    try:
        return Path(hf_hub_download(HUB_NAME, HUB_FILE))
    except Exception as error:  # the hub's, the network's and the disk's
        reason = " ".join(str(error).split())[:200]
        raise Unavailable(f"{file.url} could not be downloaded ({reason}): put it into --weights DIR") from error


NETWORK = Network(
    name="clip_vit_l14",
    build=build,
    # As open_clip publishes OpenAI's weights; OpenAI's own file is a TorchScript archive, which holds code.
    weights=WeightsFile(name="ViT-L-14-openai.safetensors", url=f"https://huggingface.co/{HUB_NAME}"),
    side=224,
    pixels=OPENAI,
    find=find,
)

CLIP_VIT_L14 = extractors_of(NETWORK)
