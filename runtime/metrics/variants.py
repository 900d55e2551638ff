"""One metric, and the named variants of it that published columns of the same heading hold.

A family is what a file that describes a metric gives to the registry: the metric itself, as the standard evaluation
computes it, and its variants, none of which is computed unless it is asked for.
"""

from __future__ import annotations

from dataclasses import replace

from .base import Metric
from .distance import correlation_distance
from .identification import originals_two_way, two_way

_ALIASED = "Pictures are made smaller without antialiasing, as torchvision did up to 0.16."
_PIL224 = "Pictures are resized to 224 px by Pillow, as in Brain-Diffuser's evaluation."
_ORIGINALS = "Each stimulus is compared with all reconstructions, as in Takagi and Nishimoto's evaluation."


def identification_family(name: str, label: str, meaning: str) -> tuple[Metric, ...]:
    """Two-way identification by the features `name`, in MindEye's direction, and three variants.

    `name_aliased` and `name_pil224` compare features of pictures that were resized in another way, `name_takagi` goes
    the other direction.
    """
    standard = Metric(
        name=name,
        label=label,
        meaning=f"{meaning} Chance is 0.5.",
        needs=name,
        function=two_way,
        range=(0, 1),
        compares_pictures=True,
        min_pictures=2,
        default=False,
    )
    takagi = replace(
        standard,
        name=f"{name}_takagi",
        label=f"{label}, originals",
        meaning=f"{standard.meaning} {_ORIGINALS}",
        function=originals_two_way,
        compares_reconstructions=True,
        headline=False,
    )
    return (standard, *resized_variants(standard), takagi)


def distance_family(name: str, label: str, meaning: str) -> tuple[Metric, ...]:
    """Correlation distance of the features `name`, and the variants `name_aliased` and `name_pil224`."""
    standard = Metric(
        name=name,
        label=label,
        meaning=meaning,
        needs=name,
        function=correlation_distance,
        better="lower",
        range=(0, 2),
        default=False,
    )
    return (standard, *resized_variants(standard))


def resized_variants(standard: Metric) -> tuple[Metric, ...]:
    """The same metric by features of pictures that were resized in another way."""
    texts = {"aliased": ("not antialiased", _ALIASED), "pil224": ("Pillow 224 px", _PIL224)}
    return tuple(
        replace(
            standard,
            name=f"{standard.name}_{way}",
            needs=f"{standard.needs}_{way}",
            label=f"{standard.label}, {label}",
            meaning=f"{standard.meaning} {meaning}",
            headline=False,
        )
        for way, (label, meaning) in texts.items()
    )
