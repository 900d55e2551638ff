"""The page's words: what a metric, a picture and a control are, for a reader who has never heard of them."""

from __future__ import annotations

from html import escape

METRIC_WORDS = {
    "pixcorr": ("PixCorr", "Correlation of the pixels. 1 would be the same picture, 0 is no relation."),
    "ssim": ("SSIM", "Structural similarity in two-dimensional windows. 1 would be the same picture."),
    "ssim_columns": ("SSIM, columns", "The one-dimensional variant behind many published tables; kept for comparison."),
    "clip_two_way": (
        "CLIP two-way",
        "How often CLIP tells the seen picture from another one; chance is 0.5. The CLIP is this run's own "
        "model folder's, the network stage 2 works with, so read it with care.",
    ),
    "concept_top1": ("Concept", "How often a separately trained classifier names the object that was seen."),
}
PICTURE_WORDS = {
    "stimulus": "Seen",
    "stage1": "Stage 1",
    "stage2": "Stage 2",
    "oracle": "True features",
    "shuffled": "Shuffled",
}
PICTURE_ALTS = {
    "stimulus": "The picture that was seen in trial {}",
    "stage1": "Stage 1 reconstruction of trial {}",
    "stage2": "Stage 2 reconstruction of trial {}",
    "oracle": "Trial {} refined toward the true features of the seen picture",
    "shuffled": "Trial {} refined toward another trial's decoded features",
}
CONTROL_WORDS = {
    "shuffled": ("Shuffled targets", "the floor: stage 2 refined toward another trial's features"),
    "oracle": ("True features", "the ceiling: stage 2 refined toward the seen picture's own features"),
}

_STAGES = (
    "A person looks at a picture while their brain activity is recorded. From that recording alone, decoders "
    "estimate what was seen and a diffusion model draws it: that is stage 1, the <em>what</em>. Stage 2 then "
    "adjusts the drawing until a vision model's early features, decoded from the same recording, agree with it: "
    "the <em>where</em>, meaning position, size and outline."
)
_SIMULATED = (
    "The person here is simulated, so that anyone can run this without a scanner: responses are computed from the "
    "pictures and then buried in noise. The decoders see only the noisy responses."
)


def explanation(*, simulated: bool, has_stage2: bool) -> str:
    """The plain-words paragraph (HTML)."""
    words = [_STAGES] + ([_SIMULATED] if simulated else [])
    if not has_stage2:
        words.append("This run stopped after stage 1.")
    return " ".join(words)


def metric_words(name: str) -> tuple[str, str]:
    """A metric's short name and its meaning, as HTML; an unknown metric is called by its own name."""
    label, meaning = METRIC_WORDS.get(name, (name, ""))
    return escape(label), escape(meaning)


def figure(value: float | None, *, signed: bool = False) -> str:
    """A number with three decimals and a true minus sign, or a dash."""
    if value is None:
        return "–"
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return text.replace("-", "−")


def interval(bounds: tuple[float | None, float | None]) -> str:
    """A 95 % interval in words, or nothing."""
    low, high = bounds
    return "" if low is None or high is None else f"{figure(low, signed=True)} to {figure(high, signed=True)}"
