"""What the paper reports, table by table, as its text has it: nothing here was measured with this package.

Lu et al., the journal version of MindDiffuser. Metrics are named as in :mod:`minddiffuser.runtime.metrics`. A pair is a
mean with what stands behind "±", which the paper does not explain; a single number stands alone there. Rows whose
headings were symbols that the text at hand does not show are named by what the paper says of them, and say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LABELS = {
    "pixcorr": "PixCorr",
    "ssim": "SSIM",
    "alexnet2": "AlexNet(2)",
    "alexnet5": "AlexNet(5)",
    "inception": "InceptionV3",
    "clip_vit_l14": "CLIP",
    "effnet": "EffNet-B",
    "swav": "SwAV",
}
METRICS = tuple(LABELS)
Number = tuple[float, float | None]


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of the paper.

    Attributes
    ----------
    name
        Such as "Table 5".
    rows
        Row key -> metric -> (value, "±" or None). In tables of gains, per cent of the base model's value, positive
        where the metric became better.
    gains
        Whether the values are such gains.
    note
        What a reader must know of how it was read.
    """

    name: str
    rows: Mapping[str, Mapping[str, Number]]
    gains: bool = False
    note: str = ""


def _row(values: Sequence[float], errors: Sequence[float] | None = None) -> dict[str, Number]:
    spread: Sequence[float | None] = [None] * len(values) if errors is None else errors
    return dict(zip(METRICS, zip(values, spread, strict=True), strict=True))


TABLE_4 = PaperTable(
    name="Table 4",
    rows={
        "fmri.stage1": _row((0.222, 0.318, 0.718, 0.759, 0.700, 0.677, 0.916, 0.578)),
        "fmri.stage2": _row((0.249, 0.341, 0.750, 0.770, 0.698, 0.682, 0.884, 0.551)),
        "eeg.stage1": _row((0.117, 0.397, 0.597, 0.655, 0.630, 0.674, 0.932, 0.687)),
        "eeg.stage2": _row((0.128, 0.416, 0.609, 0.666, 0.626, 0.677, 0.926, 0.675)),
        "meg.stage1": _row((0.010, 0.222, 0.540, 0.615, 0.627, 0.653, 0.949, 0.706)),
        "meg.stage2": _row((0.016, 0.233, 0.580, 0.658, 0.639, 0.663, 0.945, 0.696)),
    },
    note="Of its ten methods, those whose generator is Stable Diffusion 1.4 with decoded features, as here: Takagi et "
    "al. for fMRI, ATM for EEG and MEG. The base model stands against stage 1, the base model + ours against stage 2.",
)

TABLE_5 = PaperTable(
    name="Table 5",
    rows={
        "all": _row(
            (0.256, 0.344, 0.852, 0.843, 0.784, 0.791, 0.884, 0.551),
            (0.025, 0.014, 0.026, 0.023, 0.022, 0.021, 0.037, 0.031),
        ),
        "without-hvc": _row(
            (0.051, 0.338, 0.811, 0.809, 0.680, 0.552, 0.943, 0.612),
            (0.012, 0.017, 0.021, 0.023, 0.024, 0.016, 0.013, 0.024),
        ),
        "without-lvc": _row(
            (0.030, 0.219, 0.776, 0.795, 0.673, 0.554, 0.921, 0.591),
            (0.007, 0.015, 0.027, 0.019, 0.022, 0.014, 0.030, 0.028),
        ),
    },
)

TABLE_6 = PaperTable(
    name="Table 6",
    rows={
        "full": TABLE_5.rows["all"],
        "without-context": _row(
            (0.218, 0.346, 0.769, 0.793, 0.768, 0.549, 0.915, 0.617),
            (0.013, 0.016, 0.026, 0.016, 0.024, 0.023, 0.011, 0.032),
        ),
        "without-latent": _row(
            (0.066, 0.292, 0.811, 0.809, 0.763, 0.616, 0.901, 0.609),
            (0.008, 0.017, 0.024, 0.025, 0.018, 0.021, 0.024, 0.025),
        ),
        "without-structure": _row(
            (0.183, 0.253, 0.826, 0.821, 0.772, 0.597, 0.896, 0.574),
            (0.021, 0.021, 0.021, 0.013, 0.013, 0.022, 0.012, 0.017),
        ),
    },
    note="The symbols in the headings of its three ablations are lost in the text at hand. The first costs CLIP most, "
    "as the paper says of c; the second, which costs PixCorr most, is taken as z, and the third as the structure. The "
    "paper does not say what takes the place of a feature that is left out.",
)

TABLE_7 = PaperTable(
    name="Table 7",
    gains=True,
    rows={
        "fmri.ridge": _row((44.848, 13.770, 13.773, 5.695, 0.399, 0.319, 1.026, -2.894)),
        "fmri.mlp": _row((46.367, 12.361, 15.615, 5.889, 0.536, 0.323, 1.643, 1.763)),
        "fmri.transformer": _row((45.527, 13.156, 14.236, 6.472, 0.348, 0.368, 1.733, 1.342)),
        "eeg.ridge": _row((9.402, 4.685, 2.076, 1.679, -0.730, 0.416, 0.623, 1.862)),
        "eeg.mlp": _row((10.536, 5.725, 3.283, 1.784, 1.421, 0.675, 0.856, 2.343)),
        "eeg.transformer": _row((12.648, 4.374, 3.468, 1.743, 1.457, 0.723, 0.685, 2.453)),
        "meg.ridge": _row((60.000, 4.955, 7.407, 6.992, 1.914, 1.531, 0.421, 1.416)),
        "meg.mlp": _row((67.534, 6.357, 7.684, 8.312, 2.335, 1.625, 0.342, 1.523)),
        "meg.transformer": _row((68.413, 5.973, 8.305, 8.753, 1.875, 1.709, 0.467, 1.605)),
    },
    note="Gains over the base model in per cent, of Gu et al. (a GAN) for fMRI and of ATM for EEG and MEG. Its linear "
    "rows equal Table 4's, so the base model stays as it is, and what changes is taken to be the structure's decoder.",
)

TABLE_8 = PaperTable(
    name="Table 8",
    gains=True,
    rows={
        "lambda-0": _row((12.528, 7.154, 4.313, 1.416, -0.286, 0.701, 3.465, 4.669)),
        "lambda-0.1": _row((10.500, 6.567, 2.153, 0.916, 0.538, 0.764, 4.273, 4.732)),
        "lambda-0.5": _row((-6.745, -3.421, -4.647, -5.236, 1.723, 0.533, 4.256, 2.305)),
        "lambda-1": _row((-8.742, -8.653, -4.562, -3.328, 2.030, 1.075, 5.631, 3.109)),
    },
    note="Gains over the base model (Takagi et al., fMRI) in per cent. The values of lambda are lost in the text at "
    "hand: its first row equals Table 4's, so lambda is 0 there; its last two are 0.5 and 1, as the paper says; the "
    "third of five rows is taken as 0.1, and the second, a smaller one (PixCorr +12.463, InceptionV3 +1.458), is left "
    "out.",
)
