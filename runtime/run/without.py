"""A run without one of the decoded features: the ablations of the paper's Table 6, by name.

The paper names them and does not say what takes a feature's place. Here nothing of the trial does:

context     the empty caption's, so that stage 1 and stage 2 are told nothing of what was shown
latent      none: sampling begins at the last step of its grid, from noise alone, in both stages
structure   no stage 2
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError, check_choice

WITHOUT = ("context", "latent", "structure")


def check_without(names: Sequence[str]) -> None:
    """Refuse names that are no feature's, or twice there.

    Raises
    ------
    InputError
        They are.
    """
    for name in names:
        check_choice("feature to leave out", name, WITHOUT)
    if len(set(names)) < len(names):
        raise InputError(f"the features to leave out are {', '.join(names)}: name each once")


def without_note(names: Sequence[str]) -> tuple[str, ...]:
    """What a reader of the run must know; nothing where nothing is left out."""
    if not names:
        return ()
    means = {
        "context": "the context is the empty caption's",
        "latent": "sampling begins from noise alone",
        "structure": "there is no stage 2",
    }
    parts = "; ".join(means[name] for name in names)
    return (f"An ablation: run without the decoded {' and '.join(names)} ({parts}).",)
