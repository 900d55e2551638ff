"""What the demonstration of each kind of brain signal is made of, sized to end in a few minutes on two cores."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from ..errors import MissingExtra


@dataclass(frozen=True, kw_only=True)
class Signal:
    """How a subject is simulated and fitted.

    Attributes
    ----------
    n_train
        Training pictures.
    fitted
        What decoders are fitted on, for the page; {n_train} for the number of training pictures.
    values
        What a decoder weighs, for the page.
    simulate, fit
        Further options of ``md-train simulate`` and ``md-train fit``.
    libraries
        Needed for the simulation beside those of every fit, each with the extra that installs it.
    """

    n_train: int
    fitted: str
    values: str
    simulate: tuple[str, ...] = ()
    fit: tuple[str, ...] = ()
    libraries: tuple[tuple[str, str], ...] = ()


FMRI = "fmri"
# A sensor's sample says little, and nearly all of it is noise: the penalty is a large one, and selection ranks the
# structure by few samples, in a minute instead of many. The tiny world's CLIP has read whole captions only, so that
# concepts are better distinguished by their pictures.
_OF_SENSORS = ("--decoder-option", "alpha=1000", "--n-selection", "30", "--concept-prototypes", "images")
# With EEG, decoders are fitted to the mean over a picture's repetitions, which is several times quicker than to each of
# them; with MEG, half the usual rate halves the values of a trial among which each dimension's are selected.
SIGNALS: dict[str, Signal] = {
    FMRI: Signal(n_train=1200, fitted="{n_train:,} simulated trials", values="voxels"),
    "eeg": Signal(
        n_train=600,
        fitted="simulated EEG of {n_train:,} pictures (the mean over 4 presentations of each; the context is that of "
        "the nearest concept)",
        values="samples of channels",
        fit=("--average-repetitions", *_OF_SENSORS),
        libraries=(("mne", "data"),),
    ),
    "meg": Signal(
        n_train=600,
        fitted="simulated MEG of {n_train:,} pictures (one presentation of each; the context is that of the nearest "
        "concept)",
        values="samples of channels",
        simulate=("--sfreq", "100"),
        fit=_OF_SENSORS,
        libraries=(("mne", "data"),),
    ),
}
_FIT = (("torch", "train"), ("scipy", "train"))
_EXPORT = (("onnx", "export"), ("onnxruntime", "export"))


def check_libraries(modality: str, *, exports: bool) -> None:
    """Refuse before anything is made where a library is missing.

    Raises
    ------
    MissingExtra
        With all extras that are to be installed, in one sentence.
    """
    wanted = (*_FIT, *SIGNALS[modality].libraries, *(_EXPORT if exports else ()))
    missing = {name: extra for name, extra in wanted if find_spec(name) is None}
    if missing:
        extras = ",".join(dict.fromkeys(missing.values()))
        raise MissingExtra(
            f"the {'whole path' if exports else 'demonstration'} with {modality} needs {' and '.join(missing)}: pip "
            f"install 'minddiffuser[{extras}]'"
        )
