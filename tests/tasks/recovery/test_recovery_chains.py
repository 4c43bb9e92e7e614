"""Salt and pepper, corruptions in a row, and pixels that are kept; tolerances in standard deviations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eai.core.errors import ConfigError
from eai.tasks.recovery.corruptions import Block, Chain, Corruption, GaussianNoise, RandomPixels, SaltAndPepper, Stripes
from eai.tasks.recovery.data import Patterns
from eai.tasks.recovery.losses import MSELoss
from eai.tasks.recovery.task import Recovery
from eai.tasks.recovery.unet import UNet

HEIGHT, WIDTH, B = 37, 31, 3


class Affine(Corruption):
    """y = a x + c, hiding one row: to see in which order the parts of a chain act."""

    def __init__(self, a: float, c: float, row: int) -> None:
        self.a, self.c, self.row = a, c, row

    def apply(self, x: Tensor, level: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        mask = torch.ones_like(x)
        mask[:, :, self.row] = 0
        return self.a * x + self.c, mask


def test_salt_and_pepper_replace_pixels_with_half_the_fraction_each_and_leave_the_rest() -> None:
    p, x = 0.3, torch.full((200, 1, HEIGHT, WIDTH), 0.25)
    y, mask, level = SaltAndPepper(p)(x, torch.Generator().manual_seed(1))
    tolerance = 5 * (p / 2 * (1 - p / 2) / x.numel()) ** 0.5
    assert (y == 0).float().mean().item() == pytest.approx(p / 2, abs=tolerance)
    assert (y == 1).float().mean().item() == pytest.approx(p / 2, abs=tolerance)
    assert ((y == 0) | (y == 1) | (y == x)).all()
    assert (mask == 1).all()
    assert (level == torch.tensor(p)).all()


def test_parts_of_a_chain_act_in_their_order_and_a_pixel_hidden_by_any_is_hidden_as_zero(
    generator: torch.Generator,
) -> None:
    x = torch.rand(B, 1, HEIGHT, WIDTH, generator=generator)
    plus, times = Affine(1, 1, row=3), Affine(2, 0, row=5)
    for parts, expected in (([plus, times], 2 * (x + 1)), ([times, plus], 2 * x + 1)):
        y, mask, _ = Chain(parts)(x, generator)
        hidden = torch.zeros(HEIGHT, dtype=torch.bool)
        hidden[[3, 5]] = True
        assert torch.equal(mask, (~hidden).float()[None, None, :, None].expand_as(x))
        torch.testing.assert_close(y, expected * mask)


def test_mask_of_a_chain_is_the_product_of_those_of_its_parts() -> None:
    x, parts = torch.ones(400, 1, HEIGHT, WIDTH), [RandomPixels(0.4), Stripes(0.5)]
    y, mask, _ = Chain(parts)(x, torch.Generator().manual_seed(1))
    assert torch.equal(y, mask)
    seen_rows = mask.sum(3) > 0  # with 31 pixels a seen row is empty with probability 0.4³¹
    assert mask.mean().item() == pytest.approx(0.3, abs=5 * (0.25 * 0.36 / (400 * HEIGHT)) ** 0.5)
    assert seen_rows.float().mean().item() == pytest.approx(0.5, abs=5 * (0.25 / seen_rows.numel()) ** 0.5)


def test_chain_has_the_level_of_its_first_part_and_is_exact_only_if_all_parts_are() -> None:
    chain = Chain([Block([4, 9]), GaussianNoise(0.1)])
    _, _, level = chain(torch.ones(50, 1, HEIGHT, WIDTH), torch.Generator().manual_seed(1))
    assert level.min() == 4
    assert level.max() == 9
    assert chain.hides
    assert not chain.exact
    assert Chain([Block(4), Stripes(0.1)]).exact
    with pytest.raises(ValueError, match=r"block size of at most .* = 31"):
        Chain([Block(32), Stripes(0.1)]).check_size(HEIGHT, WIDTH)


def test_known_pixels_are_kept_bit_by_bit_and_the_others_are_the_nets() -> None:
    data = Patterns(Block([4, 20]), HEIGHT, WIDTH, n_train=1, n_val=1, n_test=10)
    batch, net = data.batch("test"), UNet(HEIGHT, WIDTH, channels=2, dense=0)
    kept, plain = (Recovery(net, MSELoss(), torch.optim.Adam, keep_known=keep).eval() for keep in (True, False))
    seen = batch.mask == 1
    assert torch.equal(kept.predict(batch)[seen], batch.y[seen])
    assert torch.equal(kept.predict(batch)[~seen], plain.predict(batch)[~seen])


def test_keeping_pixels_that_are_not_exact_is_refused() -> None:
    data = Patterns(GaussianNoise(0.2), HEIGHT, WIDTH, n_train=1, n_val=1, n_test=1)
    task = Recovery(UNet(HEIGHT, WIDTH, channels=2, dense=0), MSELoss(), torch.optim.Adam, keep_known=True)
    with pytest.raises(ConfigError, match="keep_known: expected false"):
        task.check_data(data)
