"""Every published network against the published evaluation, written anew with torchvision, scipy and numpy.

The weights are random, from a seed: what is tested is preprocessing, layer, and comparison.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.spatial.distance import correlation
from torchvision import models, transforms

from minddiffuser.runtime.images import to_float
from minddiffuser.runtime.metrics import METRICS
from minddiffuser.runtime.metrics.extractors import EXTRACTORS, Given
from minddiffuser.runtime.metrics.extractors.network import extractors_of
from minddiffuser.runtime.metrics.extractors.networks import clip_vit_l14
from minddiffuser.runtime.metrics.extractors.weights import load_into

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
N = 3


def alexnet() -> torch.nn.Module:
    """Without its classifier, which is most of it and which no metric needs."""
    with torch.device("meta"):
        made = models.alexnet()
    made.classifier = torch.nn.Identity()
    made.features.to_empty(device="cpu")
    for layer in made.features:
        if isinstance(layer, torch.nn.Conv2d):
            layer.reset_parameters()
    return made


# Name of the metrics -> torchvision's network, its node, side and file.
NETS: dict[str, tuple[Callable[[], torch.nn.Module], str, int, str]] = {
    "alexnet2": (alexnet, "features.4", 256, "alexnet-owt-7be5be79.safetensors"),
    "alexnet5": (alexnet, "features.11", 256, "alexnet-owt-7be5be79.safetensors"),
    "inception": (models.inception_v3, "avgpool", 342, "inception_v3_google-0cc3c7bd.safetensors"),
    "effnet": (models.efficientnet_b1, "avgpool", 255, "efficientnet_b1-c27df63c.safetensors"),
    "effnet_v1": (models.efficientnet_b1, "avgpool", 255, "efficientnet_b1_rwightman-bac287d4.safetensors"),
    "swav": (models.resnet50, "avgpool", 224, "swav_800ep_pretrain.pth.tar"),
}
SMALL_CLIP = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "patch_size": 14, "head_width": 16},
}


def pictures(seed: int, side: int) -> np.ndarray:
    """Smooth pictures with edges, (N, side, side, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (N, 8, 8, 3)).astype(np.uint8)
    return coarse.repeat(side // 8, axis=1).repeat(side // 8, axis=2)


def two_sets(side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Stimuli, and pictures that are somewhat like them."""
    stimuli, others = pictures(0, side), pictures(1, side)
    return stimuli, (0.6 * stimuli + 0.4 * others).astype(np.uint8)


@cache
def network(name: str) -> torch.nn.Module:
    """torchvision's own network with random weights, and batch statistics of pictures, so that these differ in it."""
    torch.manual_seed({"effnet_v1": 1}.get(name, 0))
    make = NETS[name][0]
    made = make(init_weights=False) if name == "inception" else make()
    made.eval().requires_grad_(False)
    norms = [module for module in made.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for module in norms:
        module.momentum = None
        module.train()
    if norms:
        made(prepared(np.concatenate(two_sets(96)), 96, ""))
    for module in norms:  # as in a trained network, no channel is so still that rounding would be magnified
        module.running_var += module.running_var.mean()
    return made.eval()


def write_weights(name: str, folder: Path) -> Path:
    state, path = network(name).state_dict(), folder / NETS[name][3]
    if name == "swav":  # as its publisher saved it
        odd = {f"module.{key}": value for key, value in state.items() if not key.startswith("fc.")}
        torch.save({**odd, "module.projection_head.0.weight": torch.zeros(2, 2)}, path)
    else:
        save_file(state, path)
    return folder


def prepared(images: np.ndarray, side: int, way: str, pixels: Any = IMAGENET) -> torch.Tensor:
    """What the published evaluations give to the network."""
    normalise = transforms.Normalize(*pixels)
    if way == "pil224":
        resize, to_tensor = transforms.Resize((224, 224)), transforms.ToTensor()
        return torch.stack([normalise(to_tensor(resize(Image.fromarray(image)))) for image in images])
    antialias = way != "aliased"
    both = transforms.Compose(
        [
            transforms.Resize((256, 256), antialias=antialias),
            transforms.Resize(side, interpolation=transforms.InterpolationMode.BILINEAR, antialias=antialias),
            normalise,
        ]
    )
    # In PyTorch's usual order, as published tensors are: in another one convolutions add up in another order.
    return both(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255)


def two_way(true: np.ndarray, found: np.ndarray) -> float:
    r = np.corrcoef(true, found)[: len(true), len(true) :]
    return float(np.mean(np.sum(r < np.diag(r), 0)) / (len(true) - 1))


def score(name: str, true: np.ndarray, found: np.ndarray) -> float:
    if METRICS[name].better == "higher":
        return two_way(true, found)
    return float(np.mean([correlation(one, other) for one, other in zip(true, found, strict=True)]))


def features_of(name: str, images: np.ndarray, way: str) -> np.ndarray:
    _, node, side, _ = NETS[name]
    made, found = network(name), []
    if name == "inception":
        made.transform_input = True  # as with published weights
    hook = made.get_submodule(node).register_forward_hook(lambda _module, _given, out: found.append(out.clone()))
    with torch.inference_mode():
        made(prepared(images, side, way))
    hook.remove()
    return found[0].flatten(1).numpy()


@pytest.mark.parametrize(
    ("name", "way"),
    [(name, "") for name in NETS] + [("alexnet2", "aliased"), ("alexnet2", "pil224"), ("effnet_v1", "pil224")],
)
def test_metrics_agree_with_the_published_evaluation(name: str, way: str, tmp_path: Path) -> None:
    # Larger than 256 px where the two ways of making pictures smaller differ.
    stimuli, others = two_sets(512 if way else 64)
    metric = METRICS[f"{name}_{way}".rstrip("_")]
    features = EXTRACTORS[metric.needs].open(Given(weights=write_weights(name, tmp_path)))
    assert features.of_pictures is not None
    ours = [features.of_pictures(to_float(images)) for images in (stimuli, others)]
    theirs = [features_of(name, images, way) for images in (stimuli, others)]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())
    value = metric(*ours, ["a", "b", "c"]).mean()
    assert value == pytest.approx(score(name, *theirs), abs=1e-6)
    assert list(features.weights) == [NETS[name][3]]


def small_clip() -> torch.nn.Module:
    return clip_vit_l14.image_tower(SMALL_CLIP)


def clip_score(config: dict[str, Any], folder: Path, extractor: Any) -> tuple[float, float]:
    """Ours and the published evaluation's, of one CLIP."""
    torch.manual_seed(3)
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 1, "layers": 1}
    whole = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], text, quick_gelu=config["quick_gelu"]).eval()
    save_file(whole.state_dict(), folder / "ViT-L-14-openai.safetensors")
    stimuli, others = two_sets()
    features = extractor.open(Given(weights=folder))
    ours = [features.of_pictures(to_float(images)) for images in (stimuli, others)]
    with torch.inference_mode():
        theirs = [whole.encode_image(prepared(x, 224, "", OPENAI)).numpy() for x in (stimuli, others)]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    return float(METRICS["clip_vit_l14"](*ours, ["a", "b", "c"]).mean()), two_way(*theirs)


def test_clip_agrees_with_the_published_evaluation(tmp_path: Path) -> None:
    small = replace(clip_vit_l14.NETWORK, build=small_clip)
    ours, theirs = clip_score(SMALL_CLIP, tmp_path, extractors_of(small)[0])
    assert ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.slow
def test_clip_of_full_size_agrees_with_the_published_evaluation(tmp_path: Path) -> None:
    ours, theirs = clip_score(open_clip.get_model_config("ViT-L-14-quickgelu"), tmp_path, EXTRACTORS["clip_vit_l14"])
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_the_full_size_network_is_vit_l_14() -> None:
    with torch.device("meta"):
        tower = clip_vit_l14.build()
    assert sum(value.numel() for value in tower.parameters()) == 303_966_208
    assert tower.visual.proj.shape == (1024, 768)


def test_lpips_agrees_with_its_package(tmp_path: Path) -> None:
    lpips = pytest.importorskip("lpips")
    stimuli, others = two_sets()
    features = EXTRACTORS["lpips"].open(Given(weights=write_weights("alexnet2", tmp_path)))
    assert features.of_pictures is not None
    ours = METRICS["lpips"](*(features.of_pictures(to_float(images)) for images in (stimuli, others)), list("abc"))
    theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    own = network("alexnet2").features
    for piece in (theirs.net.slice1, theirs.net.slice2, theirs.net.slice3, theirs.net.slice4, theirs.net.slice5):
        for number, layer in piece.named_children():
            layer.load_state_dict(own[int(number)].state_dict())
    resize = transforms.Resize((256, 256), antialias=True)
    with torch.inference_mode():
        sides = [resize(torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255) for x in (stimuli, others)]
        expected = theirs(*sides, normalize=True).flatten().numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
    assert set(features.weights) == {"alexnet-owt-7be5be79.safetensors", "lpips/alex.pth"}


def test_dreamsim_agrees_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's ensemble of three small transformers, with random weights in the files that it reads."""
    pytest.importorskip("dreamsim")
    peft = pytest.importorskip("peft")
    from dreamsim import dreamsim
    from dreamsim.feature_extraction import load_clip_as_dino, load_open_clip_as_dino, vision_transformer
    from dreamsim.model import PerceptualModel

    def vit_base(patch_size: int = 16, **_given: Any) -> torch.nn.Module:
        return vision_transformer.VisionTransformer(
            patch_size=patch_size, embed_dim=16, depth=12, num_heads=2, mlp_ratio=1, qkv_bias=True
        )

    for module in (load_clip_as_dino, load_open_clip_as_dino, vision_transformer):
        monkeypatch.setattr(module, "vit_base", vit_base)
    torch.manual_seed(5)
    folder, trunk = tmp_path / "dreamsim", vit_base()
    folder.mkdir()
    torch.save(trunk.state_dict(), folder / "dino_vitbase16_pretrain.pth")
    for name in ("clip", "open_clip"):
        state = {**vit_base().state_dict(), "proj": torch.randn(16, 8)}
        state |= {"pos_drop.weight": torch.ones(16), "pos_drop.bias": torch.zeros(16)}
        torch.save({"state_dict": state}, folder / f"{name}_vitb16_pretrain.pth.tar")
    head = {f"mlp.{layer}.{kind}": torch.zeros(1) for layer in (0, 2, 4) for kind in ("weight", "bias")}
    head = {f"module.head.{key}": value for key, value in {**head, "last_layer.weight": torch.zeros(1)}.items()}
    torch.save({"student": head}, folder / "dino_vitb16_pretrain.pth")
    settings = peft.LoraConfig(r=2, lora_alpha=1, target_modules=["qkv"], init_lora_weights=False)
    hub = torch.hub.load
    monkeypatch.setattr(torch.hub, "load", lambda *_given, **_named: trunk)
    whole = PerceptualModel(
        "dino_vitb16,clip_vitb16,open_clip_vitb16", "cls,embedding,embedding", "16,16,16", lora=True,
        load_dir=str(folder), normalize_embeds=True, device="cpu",
    )  # fmt: skip
    peft.get_peft_model(whole, settings).save_pretrained(folder / "ensemble_lora")
    theirs, prepare = dreamsim(pretrained=True, device="cpu", cache_dir=str(folder))
    monkeypatch.setattr(torch.hub, "load", hub)
    place = torch.hub.get_dir()

    stimuli, others = two_sets()
    features = EXTRACTORS["dreamsim"].open(Given(weights=tmp_path))
    assert features.of_pictures is not None
    ours = METRICS["dreamsim"](*(features.of_pictures(to_float(images)) for images in (stimuli, others)), list("abc"))
    with torch.inference_mode():
        expected = [
            float(theirs(prepare(Image.fromarray(one)), prepare(Image.fromarray(other))))
            for one, other in zip(stimuli, others, strict=True)
        ]
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
    assert min(ours) > 1e-4
    assert torch.hub.load is hub
    assert torch.hub.get_dir() == place


def test_networks_of_a_file_are_named_by_their_tensors(tmp_path: Path) -> None:
    """A file of another network is refused by the first tensor that is missing."""
    from minddiffuser.runtime.errors import FileError

    write_weights("effnet", tmp_path)
    with torch.device("meta"):
        made = models.alexnet().features
    with pytest.raises(FileError, match="of another network"):
        load_into(made, network("effnet").state_dict(), tmp_path / "x.safetensors")
