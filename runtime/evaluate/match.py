"""Which picture belongs to which stimulus: by their names as far as these say so, or by their order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..errors import InputError
from .pictures import Item, Pictures

Key = tuple[str, ...]
_MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Match:
    """Pictures by stimulus.

    Attributes
    ----------
    of_stimulus
        Index of a stimulus -> indices of its items among the pictures', ascending.
    left_stimuli, left_pictures
        Names of those that have no counterpart.
    note
        How they were matched where it is not by equal names; else empty.
    """

    of_stimulus: dict[int, tuple[int, ...]]
    left_stimuli: tuple[str, ...] = ()
    left_pictures: tuple[str, ...] = ()
    note: str = ""

    @property
    def n_matched(self) -> int:
        return sum(map(len, self.of_stimulus.values()))

    @property
    def complete(self) -> bool:
        return not self.left_stimuli and not self.left_pictures


def match(stimuli: Pictures, pictures: Pictures, *, by_order: bool = False) -> Match:
    """Match two sets.

    Names are compared as they are; then without capitals, leading zeros and separators; then without the words and
    numbers that all names of a set begin or end with ("img_0007_recon"); then with a last number that counts several
    pictures of one stimulus ("0007_0", "0007_1"). The first way that leaves nothing over is taken, else the one that
    matches most.

    Parameters
    ----------
    stimuli
        One picture under each name.
    pictures
        Of an array that has no names, and with `by_order`, they are taken in their order.

    Raises
    ------
    InputError
        Nothing matches; or by order there are not as many of both.
    """
    for item in stimuli.items:
        if len(item.sources) > 1:
            raise InputError(
                f"the stimulus {item.name} in {stimuli.where} has {len(item.sources)} pictures: give one each"
            )
    if by_order or not (stimuli.named and pictures.named):
        return _by_order(stimuli, pictures, asked=by_order)
    if len(stimuli.items) == len(pictures.items) == 1:
        return Match(of_stimulus={0: (0,)})
    best: Match | None = None
    for spelling in _SPELLINGS:
        found = spelling(stimuli.items, pictures.items)
        if found is not None and (best is None or found.n_matched > best.n_matched):
            best = found
        if best is not None and best.complete:
            break
    if best is None or not best.n_matched:
        raise InputError(
            f"no picture in {pictures.where} is named as a stimulus in {stimuli.where} (such as "
            f"{pictures.items[0].name} and {stimuli.items[0].name}): rename them, or give --by-order"
        )
    return replace(best, note=f"{pictures.where}: {best.note}") if best.note else best


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _by_order(stimuli: Pictures, pictures: Pictures, *, asked: bool) -> Match:
    n, m = len(stimuli.items), len(pictures.items)
    if n != m:
        raise InputError(
            f"{pictures.where} holds {m} pictures and {stimuli.where} {n} stimuli, which are to be matched by their "
            "order: give as many of both"
        )
    nameless = stimuli.where if not stimuli.named else pictures.where
    why = "" if asked else f", since {nameless} has no names"
    return Match(
        of_stimulus={index: (index,) for index in range(n)},
        note=f"{pictures.where} was matched with {stimuli.where} by order{why}: the first is "
        f"{pictures.items[0].name} for {stimuli.items[0].name}",
    )


def _match(
    stimuli: Sequence[Item], pictures: Sequence[Item], keys: tuple[list[Key], list[Key]], *, several: bool, how: str
) -> Match | None:
    """By keys; None where they do not tell stimuli apart, or pictures that should be different."""
    of_stimuli, of_pictures = keys
    if len(set(of_stimuli)) < len(of_stimuli) or (not several and len(set(of_pictures)) < len(of_pictures)):
        return None
    index = {key: place for place, key in enumerate(of_stimuli)}
    found: dict[int, list[int]] = {}
    for place, key in enumerate(of_pictures):
        if key in index:
            found.setdefault(index[key], []).append(place)
    matched = {place for places in found.values() for place in places}
    example = next(((pictures[places[0]].name, stimuli[one].name) for one, places in sorted(found.items())), None)
    return Match(
        of_stimulus={one: tuple(found[one]) for one in sorted(found)},
        left_stimuli=tuple(item.name for place, item in enumerate(stimuli) if place not in found),
        left_pictures=tuple(item.name for place, item in enumerate(pictures) if place not in matched),
        note=f"names were matched {how}: {example[0]} belongs to {example[1]}" if how and example else "",
    )


def _exact(stimuli: Sequence[Item], pictures: Sequence[Item]) -> Match | None:
    of_stimuli: list[Key] = [(item.name,) for item in stimuli]
    of_pictures: list[Key] = [(item.name,) for item in pictures]
    return _match(stimuli, pictures, (of_stimuli, of_pictures), several=False, how="")


def _alike(stimuli: Sequence[Item], pictures: Sequence[Item]) -> Match | None:
    keys = (_words(stimuli), _words(pictures))
    return _match(stimuli, pictures, keys, several=False, how="without capitals, leading zeros and separators")


def _core(stimuli: Sequence[Item], pictures: Sequence[Item]) -> Match | None:
    keys = (_without_common(_words(stimuli)), _without_common(_words(pictures)))
    return _match(stimuli, pictures, keys, several=False, how="without what all names begin or end with")


def _samples(stimuli: Sequence[Item], pictures: Sequence[Item]) -> Match | None:
    return _several(stimuli, pictures, lambda keys: keys, "by all but their last number")


def _samples_core(stimuli: Sequence[Item], pictures: Sequence[Item]) -> Match | None:
    how = "by all but their last number and what all names begin or end with"
    return _several(stimuli, pictures, _without_common, how)


def _several(
    stimuli: Sequence[Item], pictures: Sequence[Item], strip: Callable[[list[Key]], list[Key]], how: str
) -> Match | None:
    words = _words(pictures)
    if not all(len(key) > 1 and key[-1].isdecimal() for key in words) or len(set(words)) < len(words):
        return None
    keys = (strip(_words(stimuli)), strip([key[:-1] for key in words]))
    return _match(stimuli, pictures, keys, several=True, how=how)


_SPELLINGS = (_exact, _alike, _core, _samples, _samples_core)


def _words(items: Sequence[Item]) -> list[Key]:
    """Each name as its words and numbers, these without leading zeros."""
    found = []
    for item in items:
        parts = re.findall(r"\d+|[^\W\d_]+", unicodedata.normalize("NFC", item.name).casefold())
        found.append(tuple(part.lstrip("0") or "0" if part.isdecimal() else part for part in parts) or (item.name,))
    return found


def _without_common(keys: list[Key]) -> list[Key]:
    """Without the words that all begin with, and those that all end with; at least one is left of each."""
    different = set(keys)
    if len(different) < 2:
        return keys
    start = 0
    while all(len(key) > start + 1 for key in different) and len({key[start] for key in different}) == 1:
        start += 1
    cut = {key[start:] for key in different}
    end = 0
    while all(len(key) > end + 1 for key in cut) and len({key[-1 - end] for key in cut}) == 1:
        end += 1
    return [key[start : len(key) - end] for key in keys]
