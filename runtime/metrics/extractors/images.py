"""The pictures themselves."""

from __future__ import annotations

from .base import Extractor, Features, Given


def open_images(_given: Given) -> Features:
    """Always there, and never kept: a metric's values are."""
    return Features(identity="images", of_pictures=None)


IMAGES = Extractor(name="images", open=open_images)
