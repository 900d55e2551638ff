"""CLIP's text tower: texts in the space of its image embeddings. Only fitting asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray

from ..errors import InputError
from .clip import ClipSource, open_whole

_AT_ONCE = 256
_TOKENIZER = ("vocab.json", "tokenizer.json")


@torch.no_grad()
def embed_text(source: ClipSource, texts: Sequence[str]) -> NDArray[np.float32]:
    """Embeddings (n, embed_dim) float32 of length 1.

    Raises
    ------
    InputError
        The tokenizer of the tower is not known, or the tower gives what cannot be brought to length 1.
    """
    tokenize = _tokenizer(source)
    model = open_whole(source).eval()
    parts = [model.encode_text(tokenize(texts[at : at + _AT_ONCE])) for at in range(0, len(texts), _AT_ONCE)]
    found = torch.cat(parts).float()
    lengths = found.norm(dim=-1, keepdim=True)
    if not (torch.isfinite(found).all() and (lengths > 0).all()):
        raise InputError(f"the text tower of the CLIP {source.name} gives NaN or nothing: download its weights again")
    embedded: NDArray[np.float32] = (found / lengths).numpy()
    return embedded


def _tokenizer(source: ClipSource) -> Any:
    """Texts to token ids, (n, context_length).

    A folder may hold its own tokenizer, as the tiny world's does. Without one it is open_clip's, which belongs to the
    CLIPs of OpenAI and of LAION.
    """
    text, folder = source.model["text_cfg"], source.weights.parent
    length = int(text.get("context_length", 77))
    if any((folder / name).is_file() for name in _TOKENIZER):
        from .tokenizer import read_tokenizer

        own = read_tokenizer(folder, int(text["vocab_size"]))
        options = {"padding": "max_length", "max_length": length, "truncation": True, "return_tensors": "pt"}
        return lambda texts: own(list(texts), **options).input_ids
    if text.get("hf_tokenizer_name") or text.get("hf_model_name"):
        raise InputError(
            f"the CLIP {source.name} has a tokenizer of its own that does not lie beside its weights: give "
            "--concept-prototypes images, or another --clip"
        )
    return open_clip.SimpleTokenizer(context_length=length)
