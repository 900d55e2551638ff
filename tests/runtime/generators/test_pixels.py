import pytest
import torch

from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.runtime.generators.pixels import PixelGenerator


def test_it_starts_at_the_given_picture() -> None:
    start = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    generator = PixelGenerator(start, n_levels=3)
    torch.testing.assert_close(generator.render(generator.initial()), start, atol=1e-6, rtol=0)
    assert [tuple(level.shape[2:]) for level in generator.initial().values()] == [(8, 8), (4, 4), (2, 2)]


def test_black_and_white_can_still_move() -> None:
    generator = PixelGenerator(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4), n_levels=1)
    level = generator.initial()["level_0"].requires_grad_()
    (gradient,) = torch.autograd.grad(generator.render({"level_0": level}).sum(), level)
    assert gradient.min() > 1e-3


def test_a_coarse_level_moves_a_region() -> None:
    generator = PixelGenerator(torch.full((2, 3, 8, 8), 0.5), n_levels=4)
    params = generator.initial()
    params["level_3"][1] += 2.0
    image = generator.render(params)
    torch.testing.assert_close(image[0], torch.full((3, 8, 8), 0.5))
    torch.testing.assert_close(image[1], torch.sigmoid(torch.full((3, 8, 8), 2.0)))


@pytest.mark.parametrize("n_levels", [0, 3])
def test_levels_that_do_not_halve_the_size_are_refused(n_levels) -> None:
    with pytest.raises(InputError, match="n_levels"):
        PixelGenerator(torch.rand(2, 3, 6, 6), n_levels=n_levels)


def test_a_start_that_is_no_picture_is_refused() -> None:
    for start in (torch.rand(3, 8, 8), torch.rand(2, 4, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(ShapeError, match="start"):
            PixelGenerator(start)
