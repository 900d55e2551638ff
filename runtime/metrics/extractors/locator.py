"""Masks: which pixels the thing in a picture covers."""

from __future__ import annotations

from ...files import sha256_of
from ..locator import open_locator
from .base import Extractor, Features, Given, Unavailable


def open_masks(given: Given) -> Features:
    """The locator inside the model folder."""
    if given.locator is None:
        raise Unavailable(given.without_models or "the models have no locator (locator/ in their folder)")
    locator = open_locator(given.locator)
    files = [sha256_of(given.locator / f"locator.{kind}") for kind in ("json", "safetensors")]
    return Features(identity=f"locator {' '.join(files)}", of_pictures=locator.masks)


LOCATOR = Extractor(name="locator", open=open_masks)
