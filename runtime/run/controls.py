"""The controls of a run: pictures that say what its own are worth.

Two refine stage 1 again toward another target: "shuffled" toward the decoded features of another picture's trial,
"oracle" toward the true features of the stimulus. Two take nothing, or little, of the brain: "generator" draws from
a typical training caption and the mean training latent, "nearest" takes the training picture that is nearest to what
was decoded (see :mod:`~minddiffuser.runtime.training_pictures`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import cycle

import numpy as np

from ..errors import InputError, check_choice

CONTROLS = ("shuffled", "oracle", "generator", "nearest")
"""In the order in which they are made."""
OF_STAGE_2 = ("shuffled", "oracle")
OF_TRAINING = ("generator", "nearest")
"""What they show is made of the training pictures; a checkpoint of before these were kept has none."""
GROUPS: dict[str, tuple[str, ...]] = {"none": (), "both": OF_STAGE_2, "all": CONTROLS}


def control_names(text: str) -> tuple[str, ...]:
    """The controls that a text asks for: names of `CONTROLS` or `GROUPS` with commas between them.

    Raises
    ------
    InputError
        A name is unknown, or "none" stands beside another.
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        check_choice("control", part, (*GROUPS, *CONTROLS))
    if "none" in parts and len(set(parts)) > 1:
        raise InputError(f"controls are {text!r}: none stands alone, leave it out or the others")
    asked = {name for part in parts for name in GROUPS.get(part, (part,))}
    return tuple(name for name in CONTROLS if name in asked)


def controls_text(names: Collection[str]) -> str:
    """One text for one set of controls, as settings.json has it: that of their group where they are one."""
    ordered = tuple(name for name in CONTROLS if name in names)
    groups = {members: name for name, members in GROUPS.items()}
    return ",".join(ordered) if ordered == CONTROLS else groups.get(ordered, ",".join(ordered))


def partners(
    trials: Sequence[int],
    seed: int,
    stimulus_ids: Sequence[str] | Mapping[int, str] | None = None,
    ids: Sequence[str] | Mapping[int, str] | None = None,
) -> dict[int, int]:
    """Give every trial another one, whose stimulus was another picture, and each of them once where that can be.

    The trials are put in a random order, those of one picture behind each other, and each takes the one that is as many
    places on as the most frequent picture has trials: nobody's own picture reaches so far. Where one picture has more
    than half of the trials, the others are handed out to its trials in turn. It depends on the whole run's trials and
    the seed alone, so a resumed run shuffles as before.

    Parameters
    ----------
    trials
        Trial numbers.
    seed
        Of the order.
    stimulus_ids
        By trial number, the same for trials that showed the same picture; None: each showed another one.
    ids
        By trial number, the trials' ids: with them it does not matter in which order a file has the trials.

    Raises
    ------
    InputError
        There are fewer than two trials, or all of them showed the same picture.
    """
    if len(trials) < 2:
        raise InputError(
            f"shuffled targets need at least 2 good trials, there are {len(trials)}: leave the control out"
        )
    ordered = sorted(trials) if ids is None else sorted(trials, key=lambda trial: ids[trial])
    order = np.random.default_rng([seed, len(trials)]).permutation(ordered).tolist()
    showings: dict[object, list[int]] = {}
    for trial in order:
        showings.setdefault(trial if stimulus_ids is None else stimulus_ids[trial], []).append(trial)
    if len(showings) < 2:
        raise InputError(
            f"shuffled targets need trials of at least 2 different pictures, all {len(trials)} good ones showed the "
            "same: leave the control out"
        )
    grouped = [trial for group in showings.values() for trial in group]
    most = max(showings.values(), key=len)
    if 2 * len(most) <= len(trials):
        return {trial: grouped[(place + len(most)) % len(trials)] for place, trial in enumerate(grouped)}
    frequent = set(most)
    others = [trial for trial in grouped if trial not in frequent]
    return {**dict(zip(most, cycle(others), strict=False)), **dict(zip(others, most, strict=False))}
