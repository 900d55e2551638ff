"""Texts among CLIP's image embeddings: against open_clip itself, and on a CLIP that knows what its pictures show."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.models.open import load_models
from minddiffuser.training.simulate.shown import rendered

TEXTS = ["a picture of a cat", "a red house", "a"]


def by_open_clip(folder: Path, tokens: torch.Tensor) -> np.ndarray:
    model = open_clip.CLIP(**json.loads((folder / "open_clip_config.json").read_text())["model_cfg"])
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    with torch.no_grad():
        found = model.eval().encode_text(tokens)
    return (found / found.norm(dim=1, keepdim=True)).numpy()


def test_the_embeddings_are_open_clips(small_world: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(small_world / "clip")
    tokens = tokenizer(TEXTS, padding="max_length", max_length=15, return_tensors="pt").input_ids
    found = load_models(small_world).embed_text(TEXTS)
    assert (found.dtype, found.shape) == (np.float32, (3, 16))
    np.testing.assert_allclose(found, by_open_clip(small_world / "clip", tokens), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_without_a_tokenizer_in_the_folder_open_clips_own_is_taken(small_world: Path, tmp_path: Path) -> None:
    """With a vocabulary of its size, as in OpenAI's and LAION's folders."""
    from small_world import clip_config, write_clip

    world = Path(shutil.copytree(small_world, tmp_path / "world"))
    shutil.rmtree(world / "clip")
    config = clip_config(vocab_size=49408)
    del config["text_cfg"]["hf_tokenizer_name"]
    write_clip(world / "clip", config)
    tokens = open_clip.SimpleTokenizer(context_length=15)(TEXTS)
    np.testing.assert_allclose(load_models(world).embed_text(TEXTS), by_open_clip(world / "clip", tokens), atol=1e-5)


def test_a_tokenizer_that_is_not_there_is_one_sentence(small_world: Path, tmp_path: Path) -> None:
    world = Path(shutil.copytree(small_world, tmp_path / "world"))
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        (world / "clip" / name).unlink(missing_ok=True)
    with pytest.raises(InputError, match="tokenizer of its own .* --concept-prototypes images"):
        load_models(world).embed_text(TEXTS)


def test_texts_lie_near_the_pictures_that_they_tell_of() -> None:
    models = load_models("tiny")
    shown = rendered(np.random.SeedSequence(3), 24, models.image_size, combinations="seen")
    pixels = np.stack([shown.images[k] for k in range(24)])
    with torch.no_grad():
        pictures = models.embedding(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255).numpy()
    captions = [group[0] for group in shown.captions]
    similarity = pictures @ models.embed_text(captions).T
    right = [captions[k] == captions[int(row.argmax())] for k, row in enumerate(similarity)]
    assert np.mean(right) > 0.5, "1 in 24 by chance"
