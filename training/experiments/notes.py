"""What a reader of an experiment's numbers must know, in sentences."""

from __future__ import annotations

from .experiment import Experiment
from .paper import LABELS
from .results import GAIN, Results


def facts(experiment: Experiment, results: Results) -> str:
    """Whose pictures, how many, and how they were made."""
    subjects = ", ".join(
        f"{one.label} ({one.modality}{'' if one.brain is None else f', simulated, {one.brain} brain'}, "
        f"{len(one.trials)} trials)"
        for one in results.subjects
    )
    plan = results.plan
    if experiment.how is not None:
        return f"Subjects: {subjects}. Models: {plan.models}; {experiment.how}."
    how = "stage 2 as by default, with both controls" if plan.full else "stage 2 as one guided pass (preset single)"
    seeds = f"seed{'s' * (len(plan.seeds) > 1)} of the start noise {', '.join(map(str, plan.seeds))}"
    return f"Subjects: {subjects}. Models: {plan.models}; {how}, unless a row says otherwise; {seeds}."


def put_in_of(experiment: Experiment, results: Results) -> list[str]:
    """What the simulator decided, for each kind of simulated subject; nothing for real ones."""
    kinds = dict.fromkeys((one.modality, one.brain) for one in results.subjects if one.brain is not None)
    said = [line for modality, brain in kinds for line in experiment.put_in(modality, str(brain))]
    return list(dict.fromkeys(said))


def notes_of(experiment: Experiment, results: Results) -> list[str]:
    """On the table: what is missing, how it was put together, how the paper's was read."""
    made = _own(experiment, results) if experiment.notes is None else experiment.notes(results)
    if results.missing:
        made.append(f"Not measured yet: {'; '.join(results.missing)}.")
    return made


def _own(experiment: Experiment, results: Results) -> list[str]:
    made = [
        "A picture counts once: its value is the mean over its trials, seeds and subjects. Intervals are 95 % of a "
        "bootstrap over pictures, paired where rows are compared; they say nothing of other subjects.",
    ]
    if len(results.subjects) == 1:
        made.append("One subject: give several data folders (--data A B C) for numbers that do not hang on one.")
    if any(row.kind == GAIN for row in results.rows):
        made.append(
            "Gains are stage 2 minus stage 1 in per cent of stage 1's mean, positive where the metric became better: "
            "where it fell, of metrics that are better when they are smaller, such as EffNet-B and SwAV. Their "
            "intervals are of the difference, with stage 1's mean taken as it is."
        )
    if experiment.decoded:
        made.append(
            "How well a feature is decoded is the correlation of z-scores, over the dimensions that are decoded; of "
            "the structure, over those that all fits of the comparison trust. Chance is the same with other pictures' "
            "features, and of the concept one over the number of candidates."
        )
    there = {name for row in results.rows for name in results.metrics([row])}
    absent = [label for name, label in LABELS.items() if name not in there]
    if experiment.paper is not None and absent:
        made.append(
            f"Not measured of the paper's eight metrics: {', '.join(absent)}. Ask for them with --metrics "
            "default,standard; where that was done, the runs' reports, in DATA/runs, say why they were left out."
        )
    some = results.left_out
    if some:
        made.append(f"Left out, and so not in these rows' means: {'; '.join(some)}. Their runs' reports say why.")
    if experiment.paper is not None and experiment.paper.note:
        made.append(f"{experiment.paper.name}: {experiment.paper.note}")
    if "clip_two_way" in there and "clip_vit_l14" not in there:
        made.append(
            "The paper's CLIP metric takes ViT-L/14; CLIP two-way here takes the CLIP of the models in use, and is "
            "judged by the direction alone."
        )
    return made
