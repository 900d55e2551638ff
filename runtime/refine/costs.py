"""What the parts of both stages cost, in one unit: floating-point operations over those of one UNet forward pass.

A multiply-accumulate is two operations. Convolutions, linear layers and attention count, and so do the products by
which exported gradients enlarge pictures; what is elementwise does not. Everything is counted: UNet, decoder, CLIP, and
what engines compute twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..sampling import Sampling
from .settings import GuidedSettings

COUNTED_GRAPHS = ("denoise", "vae_decode", "structure_gradient", "denoise_gradient")
"""Graphs of a bundle that :func:`engine_costs` takes."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of one call for one trial, in UNet forward passes of one picture under one context.

    Attributes
    ----------
    predict : float
        The guided noise and the clean estimate: the UNet twice, with and without the context.
    pull_back : float
        The vector-Jacobian product of `predict` as a call of its own: the forward pass again and the way back.
    back_only : float
        The way back alone, from kept activations. Engines keep none: equal to `pull_back`.
    back_with_context : float
        The same with the gradient at the context, which the `adam` refiner wants too. Engines always compute it.
    decode : float
        The VAE's decoder.
    structural : float
        Decoder, CLIP, loss, and the gradient at the latent.
    with_semantic : float
        The same with the semantic term of eq. 6, for which CLIP is computed further. Engines compute what was exported,
        whatever its weight: equal to `structural`.
    structural_forward : float
        Decoder, CLIP and loss without the gradient. Engines have no such graph: equal to `structural`.
    reference_flops : int
        Operations of the unit itself.
    engines : bool
        Of a bundle's graphs, and not of networks in PyTorch.
    """

    predict: float
    pull_back: float
    back_only: float
    back_with_context: float
    decode: float
    structural: float
    with_semantic: float
    structural_forward: float
    reference_flops: int
    engines: bool

    def at_guidance(self, scale: float) -> Costs:
        """The same for a scale of classifier-free guidance.

        At 1 PyTorch leaves the unconditional half out; engines compute both halves whatever the scale.
        """
        if self.engines or scale != 1.0:
            return self
        halved = ("predict", "pull_back", "back_only", "back_with_context")
        return replace(self, **{name: getattr(self, name) / 2 for name in halved})


def engine_costs(flops: Mapping[str, int]) -> Costs:
    """Costs on engines, from the operations of each of `COUNTED_GRAPHS` for one trial."""
    unit = flops["denoise"] / 2  # beside the UNet's two passes it holds elementwise sums alone
    back, head = flops["denoise_gradient"] / unit, flops["structure_gradient"] / unit
    return Costs(
        predict=flops["denoise"] / unit,
        pull_back=back,
        back_only=back,
        back_with_context=back,
        decode=flops["vae_decode"] / unit,
        structural=head,
        with_semantic=head,
        structural_forward=head,
        reference_flops=round(unit),
        engines=True,
    )


def stage1_cost(costs: Costs, n_reverse: int) -> float:
    """Cost of a picture of stage 1: `n_reverse` denoising steps and the decoder."""
    return n_reverse * costs.predict + costs.decode


def adam_cost(
    costs: Costs, *, steps: int, n_reverse: int, backprop_steps: int | None = None, checkpointing: bool = False
) -> float:
    """Cost of a picture of the `adam` refiner, beside that of stage 1.

    Parameters
    ----------
    costs : Costs
    steps : int
        Updates; the loss is evaluated with its gradient once more than that.
    n_reverse : int
        Denoising steps of a picture.
    backprop_steps : int or None
        The last steps that gradients go through, the others are computed once; None: all, at every evaluation.
    checkpointing : bool
        Of PyTorch: each step is computed again on the way back instead of being kept. Engines do so in any case.
    """
    through = n_reverse if backprop_steps is None else backprop_steps
    again = costs.predict if checkpointing and not costs.engines else 0.0
    evaluation = through * (costs.predict + again + costs.back_with_context) + costs.structural
    return (n_reverse - through) * costs.predict + (steps + 1) * evaluation


def guided_cost(costs: Costs, settings: GuidedSettings, stage1: Sampling) -> float:
    """Cost of a picture of the `guided` refiner, beside that of stage 1, which samples as given."""
    before, candidate = guided_costs(costs, settings, stage1)
    return before + (settings.candidates or 1) * candidate


def guided_costs(costs: Costs, settings: GuidedSettings, stage1: Sampling) -> tuple[float, float]:
    """What is done once for a picture, and what each candidate costs: its pass, and the loss of its picture."""
    sampling = settings.sampling(stage1)
    at = costs.at_guidance(sampling.guidance_scale)
    loss = loss_cost(at, settings.semantic_weight)
    guided = loss + (at.back_only if settings.jacobian else 0.0)
    candidate = sampling.n_reverse * at.predict + settings.n_guided(stage1) * guided + loss
    # Steps that finish begin and end with a loss.
    n_losses = settings.n_finish + 1 if settings.n_finish else 0
    finish = n_losses * loss_cost(at, settings.finish_semantic_weight)
    return settings.n_start * at.structural + finish, candidate


def loss_cost(costs: Costs, semantic_weight: float) -> float:
    """Cost of the loss that guides, with its gradient at the clean latent."""
    return costs.with_semantic if semantic_weight > 0 else costs.structural
