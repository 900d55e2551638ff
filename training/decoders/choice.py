"""Which decoder each feature gets: ``--decoder [FEATURE=]NAME[:reference]`` and the options that go with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...runtime.errors import InputError, check_choice
from ...runtime.features import TARGETS
from .base import check_options, options_of

REFERENCE = "reference"
_DEFAULT = "ridge"
# The feature it is for ("" for all), the option's name, its value.
Option = tuple[str, str, Any]


def chosen_decoders(given: Sequence[str]) -> dict[str, str]:
    """The decoder of each feature, by what was given: one for all features, and others for some.

    Parameters
    ----------
    given
        "NAME" or "FEATURE=NAME", each NAME perhaps with ":reference"; in any order.

    Raises
    ------
    InputError
        A feature or decoder is unknown, or a feature has two.
    """
    named: dict[str, str] = {}
    for text in given:
        feature, equals, name = text.rpartition("=")
        if equals:
            check_choice("feature", feature, TARGETS)
        options_of(name.removesuffix(f":{REFERENCE}"))  # which knows the names
        if named.setdefault(feature, name) != name:
            raise InputError(
                f"--decoder names both {named[feature]} and {name} for {feature or 'all features'}: give one, and "
                "FEATURE=NAME where a feature is to have another"
            )
    return {feature: named.get(feature, named.get("", _DEFAULT)) for feature in TARGETS}


def chosen_options(decoders: Mapping[str, str], given: Sequence[Option]) -> dict[str, dict[str, Any]]:
    """The options of each feature's decoder: those for all features, then its own.

    An option for all features goes to those whose decoder has it.

    Parameters
    ----------
    decoders
        From :func:`chosen_decoders`.

    Raises
    ------
    InputError
        No decoder that is meant has the option, or there is no reference form of it.
    """
    known = {feature: set(options_of(name.removesuffix(f":{REFERENCE}"))) for feature, name in decoders.items()}
    for only, name, value in given:
        if only or not any(name in options for options in known.values()):
            check_options(decoders[only or TARGETS[0]].removesuffix(f":{REFERENCE}"), {name: value})
    made: dict[str, dict[str, Any]] = {}
    for feature, decoder in decoders.items():
        common = {name: value for only, name, value in given if only == "" and name in known[feature]}
        own = {name: value for only, name, value in given if only == feature}
        made[feature] = {**common, **own}
        name, colon, _ = decoder.partition(":")
        if colon:
            if REFERENCE not in known[feature]:
                raise InputError(f"decoder {name!r} has no published form of its own: give --decoder {name}")
            made[feature][REFERENCE] = True
    return made
