"""The range that int8 covers for each activation, from real inputs."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from ...runtime.errors import InputError
from .measuring import Bench, Feeds, Tap, measure
from .onnx_tools import session_of, without_weights

Array = NDArray[Any]
AT_ONCE = 64  # tensors that leave the graph in one run: histograms need every element, so memory is theirs
BINS = 2048  # of a histogram
PERCENTILE = 99.99  # of the elements lie within int8's reach; outliers would make the steps of all others coarse


def peaks_of(
    model: ModelProto,
    tensors: Sequence[str],
    batches: Sequence[Feeds],
    *,
    threads: int,
) -> dict[str, float]:
    """The magnitude that int8 covers, as ONNX Runtime computes it; larger numbers are clipped.

    Parameters
    ----------
    tensors : sequence of str
        Names of float32 activations and inputs.

    Raises
    ------
    InputError
        An activation is NaN or infinite for one of the batches.
    """
    largest = _largest(model, tensors, batches, threads)
    from onnxruntime.quantization.calibrate import HistogramCollector

    peaks: dict[str, float] = {}
    for start in range(0, len(tensors), AT_ONCE):
        some = [name for name in tensors[start : start + AT_ONCE] if largest[name] > 0]
        with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
            collector = HistogramCollector("percentile", True, BINS, 128, PERCENTILE, "same")
            for seen in _activations(model, some, batches, threads):
                collector.collect(seen)
            found = collector.compute_collection_result() if some else {}
        peaks |= {name: float(max(abs(float(pair[0])), abs(float(pair[1])))) for name, pair in found.items()}
    return {name: peaks.get(name, 0.0) for name in tensors}


def _largest(model: ModelProto, tensors: Sequence[str], batches: Sequence[Feeds], threads: int) -> dict[str, float]:
    def tap(name: str) -> Tap:
        def build(bench: Bench) -> list[str]:
            return [bench.scale(name)[0], bench.amiss(name)]

        return Tap(name, build, 2)

    read = measure(model, [tap(name) for name in tensors], batches, threads=threads)
    peaks, amiss = read[:, 0::2].max(axis=0, initial=0.0), read[:, 1::2].sum(axis=0)
    for name, bad in zip(tensors, amiss, strict=True):
        if bad:
            raise InputError(
                f"the tensor {name!r} is NaN or infinite {int(bad)} times on the calibration data: "
                "check these inputs, or the float32 graph"
            )
    return {name: float(peak) for name, peak in zip(tensors, peaks, strict=True)}


def _activations(
    model: ModelProto, tensors: Sequence[str], batches: Sequence[Feeds], threads: int
) -> Iterator[dict[str, Array]]:
    """The tensors themselves, one batch after the other, each flat."""
    inputs = {value.name for value in model.graph.input}
    made = [name for name in tensors if name not in inputs]
    opened = without_weights(model)
    opened.graph.initializer.extend(model.graph.initializer)
    del opened.graph.output[:]
    opened.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in made)
    if not made:
        yield from ({name: feeds[name].ravel() for name in tensors} for feeds in batches)
        return
    with session_of(opened, threads, as_written=True) as session:
        for feeds in batches:
            found = dict(zip(made, session.run(made, feeds), strict=True))
            yield {name: np.ravel(found[name] if name in found else feeds[name]) for name in tensors}
