"""A CLIP tokenizer over the tiny world's own words: byte-pair encoding in the format of SD 1.4's tokenizer folder.

Every word of a caption is one token; any other text still tokenises, byte by byte.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from .scenes import BACKGROUNDS, COLOURS, CONCEPTS

N_TOKENS = 15
START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write vocab.json, merges.txt and the configs into `folder` and open them.

    The end token has the highest id, as in CLIP's vocabulary: open_clip finds the sentence's end by argmax.
    """
    words = ["a", "in", "the", *CONCEPTS, *COLOURS, *BACKGROUNDS]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _learn_merges(words)
    pieces = alphabet + [letter + "</w>" for letter in alphabet] + [left + right for left, right in merges]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*pieces, START, END]))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=N_TOKENS, pad_token=END
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def _learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich et al. 2016) until every word is one piece: the most frequent pair first.

    Ties go by the alphabet: the library's own trainer breaks them by chance, and no two worlds would be alike.
    """
    pieces = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in pieces for pair in zip(word, word[1:], strict=False)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = [_merge(word, best) for word in pieces]
    return merges


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in word:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged
