"""The tokenizer of a model folder, opened and tried: what it gives has to be what the text encoder takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from ..errors import FileError, InputError
from ..features import N_TOKENS
from .quiet import first_line, quiet

_TRIED = ["", "a red house in the snow, and more words than a context has places for"]


def read_tokenizer(folder: Path, vocab_size: int) -> Any:
    """Open it from vocab.json and merges.txt, or from tokenizer.json alone as transformers 5 saves it.

    Raises
    ------
    FileError
        Its files are damaged.
    InputError
        It has more words than the text encoder, no padding, or captions that do not begin with one start token.
    """
    whole = all((folder / name).is_file() for name in ("vocab.json", "merges.txt"))
    kind = transformers.CLIPTokenizer if whole else transformers.CLIPTokenizerFast  # one class, from transformers 5 on
    try:
        with quiet():
            tokenizer = kind.from_pretrained(str(folder), local_files_only=True)
            largest = max(tokenizer.get_vocab().values())
            ids = _ids(tokenizer) if tokenizer.pad_token else None
    except BaseException as error:  # transformers and tokenizers each have their own, and a panic of Rust
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise FileError(
            f"{folder} cannot be opened ({type(error).__name__}: {first_line(error)}): correct it, or download it again"
        ) from error
    if largest >= vocab_size:
        raise InputError(
            f"the tokenizer in {folder} has {largest + 1} words, the text encoder {vocab_size}: "
            "take both from the same model"
        )
    if ids is None:
        raise InputError(f"the tokenizer in {folder} has no pad_token: give it in tokenizer_config.json")
    if len(set(ids[:, 0].tolist())) != 1 or ids[0, 0] != tokenizer.bos_token_id or ids.max() >= vocab_size:
        raise InputError(
            f"the tokenizer in {folder} does not begin every caption with its start token {tokenizer.bos_token!r}: "
            "correct bos_token and padding_side, or download it again"
        )
    return tokenizer


def _ids(tokenizer: Any) -> Any:
    options = {"padding": "max_length", "max_length": N_TOKENS, "truncation": True, "return_tensors": "pt"}
    return tokenizer(_TRIED, **options).input_ids
