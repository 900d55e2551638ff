"""What a reader must know of importance, of intervals, and of what was left out."""

from __future__ import annotations

from ...interpret.topography import has_places
from ..reading import volumes_known
from ..results import Results
from .pooled import curves_of


def notes(results: Results) -> list[str]:
    """What importance is, what intervals are over, what was left out."""
    made = []
    plan = results.plan
    drawn = "all dimensions" if plan.full else "500 dimensions of each feature and layer, drawn by --seed"
    kinds = {subject.modality for subject in results.subjects}
    made.append(
        "Weights are the mean size of the linear decoders' weights, which the paper shows. A weight is large, too, "
        "where a voxel knows nothing and cancels noise that others share; patterns (Haufe et al. 2014) say how a voxel "
        "changes with what is decoded: the mean size of its correlation with it in training, "
        f"over {drawn}. Where the two disagree, a pattern says where the information is, a weight what the decoder "
        "makes use of; where little can be decoded, both follow the noise. Both are "
        "divided by their mean over all voxels, or channels and times."
    )
    made.append(
        "Of the structure, the dimensions count that the checkpoint keeps: the best-decoded quarter of each layer."
    )
    if "fmri" in kinds:
        made.append(
            "Decoders of c take 250 voxels of each dimension and those of the structure 350, so that importance also "
            "counts how often a voxel is chosen. That of z takes 4,000: where there are fewer, as in simulated "
            "subjects, it takes all, and its weights are nearly even whatever the voxels know. Read z by its patterns."
        )
        made.append(
            "Regions: every voxel of every subject counts once. Intervals are 95 % of a bootstrap over voxels, which "
            "have neighbours and noise in common: they say how alike a region's voxels are, and nothing of other "
            "subjects or pictures. Random sets: 95 % of a thousand sets of as many voxels of the same subjects, taken "
            "from anywhere, lie below."
        )
    if kinds & {"eeg", "meg"}:
        made.append(
            "Windows: a ridge from all channels and samples of 100 ms, in steps of 25 ms, with its penalty by "
            "cross-validation over training pictures, fitted to the means of each training picture's trials; a "
            "picture is found where its own features, of all test pictures', correlate most with the decoded ones "
            f"({drawn}). The structure is its six layers together. A moment is the middle of a window: it looks 50 ms "
            "ahead and back."
        )
        made.append(
            "The accuracy at the peak is, of each picture, that of the window which is best for another half of the "
            "pictures, the mean over 200 random halves, so that the choice of the window adds nothing; one "
            "that is not above chance leaves the sentence undecided. The interval of the peak's time is that of the "
            "best window over resamples of the pictures; a sentence on it agrees where the whole interval lies inside "
            "100 to 200 ms and disagrees where all of it lies outside."
        )
        levels = {round(one.chance, 6) for one in curves_of(results)}
        if len(levels) > 1:
            made.append("EEG and MEG have other numbers of test pictures, so their accuracies cannot be compared.")
    for subject in results.subjects:
        if subject.modality == "fmri":
            if not volumes_known(subject):
                made.append(f"{subject.label}: no maps, since the places of its voxels are not known.")
        elif not has_places(subject.data.layout):
            made.append(f"{subject.label}: no maps of the head, since positions of its channels are not known.")
    if len(results.subjects) == 1:
        made.append("One subject: give several data folders (--data A B C) for numbers that do not hang on one.")
    return made
