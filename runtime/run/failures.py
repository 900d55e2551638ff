"""Which trials of a run failed, and what a person can do about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TextIO

from ..errors import InputError
from .batches import BROKE_OFF, Outcome
from .choose import called, skip_option
from .prepare import Work


def tell_failures(outcome: Outcome, work: Work, stream: TextIO) -> None:
    """Say which trials failed and what to do; a run in which none has a picture has nothing to measure or show.

    Raises
    ------
    InputError
        No trial has a picture.
    """
    named = work.given.named
    if outcome.failed:
        stream.write(f"md-reconstruct: trial(s) {', '.join(called(t, named) for t in outcome.failed)}: {BROKE_OFF}\n")
    if not outcome.lost:
        return
    for trial, reason in sorted(outcome.lost.items()):
        stream.write(f"md-reconstruct: trial {called(trial, named)} has no picture: {reason}\n")
    advice = _advice(str(work.backend.computing["dtype"]), sorted(outcome.lost), named)
    if not outcome.trials:
        trial, reason = min(outcome.lost.items())
        raise InputError(
            f"none of {len(outcome.lost)} trials has a picture (trial {called(trial, named)}: {reason}): {advice}"
        )
    stream.write(f"md-reconstruct: the other trials are complete; {advice}\n")


def _advice(dtype: str, trials: Sequence[int], named: Mapping[int, str]) -> str:
    """How to try again: this very command would give the same."""
    wider = {"float16": "--dtype float32", "bfloat16": "--dtype float32", "fp16": "--precision fp32"}
    wider |= {"bf16": "--precision fp32", "int8": "--precision fp32"}
    if dtype in wider:
        return f"the networks overflowed in {dtype}: to try again, give {wider[dtype]} and another --out"
    return (
        f"the networks computed in {dtype}, so these responses or the models are unlike those of the fit: check them; "
        f"to run without them give {skip_option(trials, named)} and another --out"
    )
