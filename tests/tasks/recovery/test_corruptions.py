"""What corruption does to images, statistically: tolerances are given in standard deviations."""

from __future__ import annotations

import pytest
import torch

from eai.tasks.recovery.corruptions import Block, Corruption, GaussianNoise, NoCorruption

HEIGHT, WIDTH, B = 37, 31, 3


@pytest.mark.parametrize("corruption", [NoCorruption(), GaussianNoise(0.2), Block(10)])
def test_corruption_repeats_under_the_same_seed_and_leaves_its_argument_alone(corruption: Corruption) -> None:
    x = torch.rand(B, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    before = x.clone()
    first, again = (corruption(x, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    first[0].add_(1)
    assert torch.equal(x, before)


@pytest.mark.parametrize("corruption", [GaussianNoise(0.2), Block(10)])
def test_corruption_differs_from_sample_to_sample_and_from_seed_to_seed(corruption: Corruption) -> None:
    x = torch.full((B, 1, HEIGHT, WIDTH), 0.5)
    one, *_ = corruption(x, torch.Generator().manual_seed(5))
    other, *_ = corruption(x, torch.Generator().manual_seed(6))
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[1], one[2])
    assert not torch.equal(one, other)


def test_no_corruption_gives_the_image_back_and_hides_nothing(generator: torch.Generator) -> None:
    x = torch.rand(B, 1, HEIGHT, WIDTH, generator=generator)
    y, mask, _ = NoCorruption()(x, generator)
    assert torch.equal(y, x)
    assert (mask == 1).all()


def test_noise_has_its_sigma_before_clipping(generator: torch.Generator) -> None:
    sigma, x = 0.3, torch.full((200, 1, HEIGHT, WIDTH), 0.9)
    y, mask, _ = GaussianNoise(sigma, clip=False)(x, generator)
    noise = y - x
    # Standard deviations: of the mean sigma/√n, of the standard deviation sigma/√(2n).
    assert abs(noise.mean()) < 4 * sigma / noise.numel() ** 0.5
    assert abs(noise.std() - sigma) < 4 * sigma / (2 * noise.numel()) ** 0.5
    assert y.max() > 1
    assert (mask == 1).all()


def test_clipping_cuts_to_the_range_of_the_image_and_changes_nothing_within(generator: torch.Generator) -> None:
    x = torch.rand(B, 1, HEIGHT, WIDTH, generator=generator)
    clipped, *_ = GaussianNoise(0.4, clip=True)(x, torch.Generator().manual_seed(3))
    plain, *_ = GaussianNoise(0.4, clip=False)(x, torch.Generator().manual_seed(3))
    assert clipped.min() == 0
    assert clipped.max() == 1
    within = (plain > 0) & (plain < 1)
    assert torch.equal(clipped[within], plain[within])


def test_block_hides_exactly_one_square_and_fills_it(generator: torch.Generator) -> None:
    size, x = 10, torch.rand(50, 1, HEIGHT, WIDTH, generator=generator)
    y, mask, _ = Block(size, fill=0.25)(x, generator)
    assert torch.equal(y, torch.where(mask == 1, x, 0.25))
    for hidden in mask[:, 0] == 0:
        rows, columns = hidden.any(1).nonzero()[:, 0], hidden.any(0).nonzero()[:, 0]
        assert hidden.sum() == size * size
        assert len(rows) == len(columns) == size
        assert rows[-1] - rows[0] == columns[-1] - columns[0] == size - 1


def test_block_hides_every_pixel_as_often_as_the_places_that_cover_it_corners_included(
    generator: torch.Generator,
) -> None:
    count, size = 8000, 20
    _, mask, _ = Block(size)(torch.ones(count, 1, HEIGHT, WIDTH), generator)

    def covered(length: int) -> torch.Tensor:
        places = range(length - size + 1)
        return torch.tensor([sum(first <= i < first + size for first in places) / len(places) for i in range(length)])

    expected = covered(HEIGHT)[:, None] * covered(WIDTH)
    found = (1 - mask[:, 0]).mean(0)
    # Binomial: 5 standard deviations over the 1,147 pixels.
    assert ((found - expected).abs() <= 5 * (expected * (1 - expected) / count).sqrt() + 1e-6).all()
    for corner in (found[0, 0], found[0, -1], found[-1, 0], found[-1, -1]):
        assert corner > 0


def test_block_as_large_as_the_shorter_side_fits_and_a_larger_one_is_refused(generator: torch.Generator) -> None:
    x = torch.ones(B, 1, HEIGHT, WIDTH)
    _, mask, _ = Block(WIDTH)(x, generator)
    assert (mask.sum((1, 2, 3)) == (HEIGHT - WIDTH) * WIDTH).all()
    with pytest.raises(ValueError, match=r"corruption: expected a block size .*min\(height, width\) = 31, got 32"):
        Block(WIDTH + 1)(x, generator)


def test_arguments_out_of_range_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"sigma: expected 0 or more, got -0\.1"):
        GaussianNoise(-0.1)
    with pytest.raises(ValueError, match=r"size: expected at least 1, got 0"):
        Block(0)
    with pytest.raises(ValueError, match=r"fill: expected .*, got 1\.5"):
        Block(10, fill=1.5)
