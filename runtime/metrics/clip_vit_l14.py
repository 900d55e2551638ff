"""Two-way identification by OpenAI's CLIP ViT-L/14, which stage 2 does not follow."""

from __future__ import annotations

from .variants import identification_family

CLIP_VIT_L14 = identification_family(
    "clip_vit_l14", "CLIP", "How often CLIP ViT-L/14's embedding, what a picture is about, picks the right stimulus."
)
