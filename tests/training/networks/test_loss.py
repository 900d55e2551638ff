"""The loss against formulas written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from minddiffuser.training.networks.loss import FIRST_LOG_SCALE, Objective, info_nce  # noqa: E402


def by_hand(found: np.ndarray, wanted: np.ndarray, pictures: np.ndarray, scale: float) -> float:
    """Each trial's own picture among the batch's targets, and the other way round, one trial after the other."""
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (found, wanted)]
    losses = []
    for a, b in (unit, unit[::-1]):
        for i in range(len(a)):
            logits = [scale * float(a[i] @ b[j]) for j in range(len(b))]
            log_sum = np.log(sum(np.exp(value) for value in logits))
            own = [j for j in range(len(b)) if pictures[j] == pictures[i]]
            losses.append(-np.mean([logits[j] - log_sum for j in own]))
    return float(np.mean(losses))


def terms_of(
    pictures: np.ndarray, contrastive: float, log_scale: float = FIRST_LOG_SCALE
) -> tuple[dict[str, float], float, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    found, wanted = rng.standard_normal((2, len(pictures), 5)).astype(np.float32)
    objective = Objective({"context": contrastive}, {"context": torch.tensor(log_scale)} if contrastive else {})
    terms = objective.terms((torch.from_numpy(found),), {"context": torch.from_numpy(wanted)}, torch.tensor(pictures))
    return {name: float(term) for name, term in terms.items()}, float(objective.total(terms)), found, wanted


@pytest.mark.parametrize("pictures", [np.arange(6), np.array([0, 1, 1, 2, 1, 0])])
def test_info_nce_is_the_formula(pictures: np.ndarray) -> None:
    terms, total, found, wanted = terms_of(pictures, 0.3)
    expected = by_hand(found.astype(float), wanted.astype(float), pictures, 1 / 0.07)
    squared = float(np.mean((found.astype(float) - wanted) ** 2))
    # float32 sums of a few terms of order ten.
    assert terms["context.contrastive"] == pytest.approx(expected, rel=2e-5)
    assert terms["context"] == pytest.approx(squared, rel=1e-5)
    assert total == pytest.approx(0.7 * squared + 0.3 * expected, rel=2e-5)


def test_where_all_pictures_differ_it_is_clips_loss() -> None:
    rng = np.random.default_rng(0)
    found, wanted = (torch.from_numpy(a) for a in rng.standard_normal((2, 8, 4)))
    a, b = (torch.nn.functional.normalize(x, dim=1) for x in (found, wanted))
    logits, own = 20 * a @ b.T, torch.arange(8)
    entropy = torch.nn.functional.cross_entropy
    expected = (entropy(logits, own) + entropy(logits.T, own)) / 2
    scale = torch.tensor(np.log(20.0))
    assert float(info_nce(found, wanted, torch.eye(8, dtype=torch.bool), scale)) == pytest.approx(float(expected))


def test_a_scale_beyond_its_bound_comes_back() -> None:
    """A step too far leaves no gradient behind; brought back to the bound, there is one again."""
    scale = torch.tensor(np.log(100.0) + 0.01, dtype=torch.float32, requires_grad=True)
    objective = Objective({"context": 0.5}, {"context": scale})
    rng = np.random.default_rng(2)
    found, wanted = (torch.from_numpy(a.astype(np.float32)) for a in rng.standard_normal((2, 6, 5)))

    def gradient() -> float:
        scale.grad = None
        objective.total(objective.terms((found,), {"context": wanted}, torch.arange(6))).backward()
        return float(scale.grad)

    assert gradient() == 0
    objective.limit()
    assert float(scale.detach()) == pytest.approx(np.log(100.0))
    assert gradient() > 0  # of targets that have nothing to do with what was found, a smaller scale is better


def test_the_scale_does_not_exceed_100() -> None:
    pictures = np.arange(6)
    largest, beyond = (terms_of(pictures, 0.5, np.log(scale))[0] for scale in (100.0, 1e4))
    assert beyond["context.contrastive"] == pytest.approx(largest["context.contrastive"])


def test_without_a_weight_it_is_the_mean_squared_error() -> None:
    terms, total, found, wanted = terms_of(np.arange(6), 0.0)
    assert set(terms) == {"context"}
    assert total == pytest.approx(float(np.mean((found.astype(float) - wanted) ** 2)), rel=1e-5)


def test_several_features_count_alike() -> None:
    found = (torch.zeros(4, 3), torch.zeros(4, 30))
    wanted = {"latent": torch.full((4, 3), 2.0), "semantic": torch.full((4, 30), 1.0)}
    objective = Objective({"latent": 0.0, "semantic": 0.0}, {})
    assert float(objective.total(objective.terms(found, wanted, torch.arange(4)))) == (4.0 + 1.0) / 2
