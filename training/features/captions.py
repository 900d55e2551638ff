"""Captions that are longer than a context: how many, and what is left of the first of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from ...runtime.features import N_TOKENS
from ...runtime.models.models import Models


@dataclass(frozen=True)
class Cut:
    """What was cut off captions.

    Attributes
    ----------
    n_captions, n_cut : int
    first, left : str
        The first caption that was cut, and what is left of it; empty when none was.
    """

    n_captions: int = 0
    n_cut: int = 0
    first: str = ""
    left: str = ""

    def __add__(self, later: Cut) -> Cut:
        shown = self if self.n_cut > 0 else later
        return Cut(self.n_captions + later.n_captions, self.n_cut + later.n_cut, shown.first, shown.left)

    def describe(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        """One sentence, or nothing when every caption is whole."""
        if self.n_cut == 0:
            return ""
        return (
            f"{self.n_cut} of {self.n_captions} captions are longer than the {N_TOKENS} tokens of a context and were "
            f'cut: the first, "{_short(self.first)}", became "{_short(self.left)}"; put what matters first, or give '
            "shorter captions"
        )


def encoded_as(captions: Sequence[Sequence[str]], models: Models) -> list[Mapping[tuple[int, ...], Fraction]]:
    """Each picture's captions as the text encoder gets them: token ids to their share, the same for the same context.

    Texts that differ may have the same tokens: in capitals, in spaces, or behind what a context has room for.
    """
    unique = list(dict.fromkeys(text for texts in captions for text in texts))
    if not unique:
        return [{} for _ in captions]
    ids = models.tokenizer(unique, truncation=True, max_length=N_TOKENS)["input_ids"]
    tokens = {text: tuple(row) for text, row in zip(unique, ids, strict=True)}
    return [
        {row: Fraction(n, len(texts)) for row, n in Counter(tokens[text] for text in texts).items()}
        for texts in captions
    ]


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:119]}…"


def cut_captions(captions: Sequence[Sequence[str]], models: Models) -> Cut:
    """Count the captions of some pictures that do not fit a context with its start and end marks."""
    said = [text for texts in captions for text in texts]
    if not said:
        return Cut()
    unique = list(dict.fromkeys(said))
    # Not `verbose`: the tokenizer would warn of captions that are too long for an encoder which never gets them.
    encoded = dict(zip(unique, models.tokenizer(unique, truncation=False, verbose=False)["input_ids"], strict=True))
    long = [text for text in said if len(encoded[text]) > N_TOKENS]
    if not long:
        return Cut(len(said))
    kept = encoded[long[0]][: N_TOKENS - 1]  # the last place is the end mark's
    left = models.tokenizer.decode(kept, skip_special_tokens=True).strip()
    return Cut(len(said), len(long), long[0], left)
