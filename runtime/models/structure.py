"""Structural features: what the MLPs of six blocks of a CLIP visual tower add to the residual stream.

The paper speaks of the linear layers of "the 2nd, 4th, ..., 12th attention modules". The published code hooks every
module and takes 'Linear-2' ... 'Linear-12'; since an attention's output projection is never called as a module,
these are the outputs of `mlp.c_proj` (before the residual sum) of the FIRST SIX blocks. Both readings are presets.
"""

from __future__ import annotations

from typing import Any

import torch

from ..errors import InputError, check_choice

PRESETS: dict[str, tuple[int, ...]] = {
    "reference": (0, 1, 2, 3, 4, 5),
    "paper": (1, 3, 5, 7, 9, 11),
}


def check_tower(visual: Any, preset: str) -> None:
    """Refuse a visual tower that has no such features: a ViT with `mlp.c_proj`, a class token and enough blocks."""
    check_choice("layer preset", preset, PRESETS)
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None or not hasattr(visual, "forward_intermediates") or not hasattr(visual, "class_embedding"):
        raise InputError(
            f"the CLIP's visual tower is a {type(visual).__name__}, expected open_clip's VisionTransformer: "
            "use a ViT such as ViT-B-32:openai"
        )
    if not all(hasattr(getattr(block, "mlp", None), "c_proj") for block in blocks):
        raise InputError("the CLIP's blocks have no mlp.c_proj: use a plain ViT such as ViT-B-32:openai")
    needed = max(PRESETS[preset]) + 1
    if len(blocks) < needed:
        raise InputError(
            f"the CLIP's visual tower has {len(blocks)} blocks, the layer preset {preset!r} needs {needed}: "
            "use a deeper ViT such as ViT-B-32:openai"
            + ("" if preset == "reference" else ", or the preset 'reference'")
        )


def structure_shape(visual: Any, preset: str) -> tuple[int, int, int]:
    """(6, n_tokens, d_vision) of a tower; ViT-B/32: (6, 50, 768)."""
    n_tokens = visual.grid_size[0] * visual.grid_size[1] + 1
    return len(PRESETS[preset]), n_tokens, int(visual.conv1.out_channels)


def shallow_features(
    visual: Any, pixels: torch.Tensor, blocks: tuple[int, ...], *, semantic: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Read the features of one forward pass, which stops after the last block that is needed.

    Parameters
    ----------
    visual
        open_clip's VisionTransformer; its code is left alone: forward hooks and its own `forward_intermediates`.
    pixels
        (n, 3, H, W), resized and normalised.
    blocks
        Indices of the blocks, ascending.
    semantic
        Also return the semantic feature of eq. 6: the class token that leaves the last block but one.

    Returns
    -------
    structure : (n, len(blocks), n_tokens, d_vision)
        Token-major, class token first; differentiable.
    semantic : (n, d_vision) or None
    """
    tower = visual.transformer.resblocks
    captured: dict[int, torch.Tensor] = {}

    def keep(block: int) -> Any:
        def hook(module: torch.nn.Module, given: Any, output: torch.Tensor) -> None:
            captured[block] = output

        return hook

    penultimate = len(tower) - 2
    last = max(*blocks, penultimate) if semantic else max(blocks)
    handles = [tower[block].mlp.c_proj.register_forward_hook(keep(block)) for block in blocks]
    try:
        result = visual.forward_intermediates(
            pixels,
            indices=[penultimate, last] if semantic and last != penultimate else [last],
            stop_early=True,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
    finally:
        for handle in handles:
            handle.remove()
    batch_first = getattr(visual.transformer, "batch_first", True)
    layers = [captured[block] if batch_first else captured[block].transpose(0, 1) for block in blocks]
    return torch.stack(layers, dim=1), result["image_intermediates_prefix"][0][:, 0] if semantic else None


def all_features(
    visual: Any, pixels: torch.Tensor, blocks: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Structure, semantic feature and embedding of one full forward pass.

    Returns
    -------
    structure, semantic
        As of :func:`shallow_features`.
    embedding : (n, embed_dim)
        The tower's own output, not normalised.
    """
    tower = visual.transformer.resblocks
    captured: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: torch.nn.Module, given: Any, output: torch.Tensor) -> None:
            captured[name] = output

        return hook

    handles = [tower[block].mlp.c_proj.register_forward_hook(keep(f"layer {block}")) for block in blocks]
    handles.append(tower[len(tower) - 2].register_forward_hook(keep("penultimate")))
    try:
        output = visual(pixels)
    finally:
        for handle in handles:
            handle.remove()
    if not getattr(visual.transformer, "batch_first", True):
        captured = {name: array.transpose(0, 1) for name, array in captured.items()}
    pooled: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return torch.stack([captured[f"layer {block}"] for block in blocks], dim=1), captured["penultimate"][:, 0], pooled
