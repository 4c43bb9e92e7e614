"""Test patterns beyond the training range, and what is said of corruptions that nobody knows."""

from __future__ import annotations

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from eai.core.learn.data import split_generator
from eai.core.learn.scores import SampleMeans
from eai.tasks.recovery.baselines import references
from eai.tasks.recovery.corruptions import Corruption, GaussianNoise, NoCorruption
from eai.tasks.recovery.data import Patterns
from eai.tasks.recovery.likelihood import GaussianLikelihood
from eai.tasks.recovery.losses import MSELoss
from eai.tasks.recovery.scores import Scoring
from eai.tasks.recovery.task import Recovery
from eai.tasks.recovery.unet import UNet
from eai.tasks.recovery.varied import ABOVE, shares, varied

HEIGHT, WIDTH, COUNT, FURTHER = 19, 23, 30, 20


def data(n_extrapolation: int) -> Patterns:
    return Patterns(GaussianNoise([0.1, 0.3]), HEIGHT, WIDTH, 10, 10, COUNT, kind="varied", test_levels=[0.1, 0.2],
                    n_extrapolation=n_extrapolation)  # fmt: skip


def test_frequencies_beyond_training_lie_above_all_of_its_and_the_other_parameters_do_not() -> None:
    found = shares((2000,), "test", torch.Generator().manual_seed(1), beyond=True)
    assert found.min() >= 1 == ABOVE[0]
    assert found.max() <= ABOVE[1]
    assert found.min() < 1.01
    assert found.max() > ABOVE[1] - 0.01
    stripes = torch.ones(500, dtype=torch.int64)
    x = varied(stripes, HEIGHT, WIDTH, "test", torch.Generator().manual_seed(1), beyond=True).flatten(1)
    contrast = x.amax(1) - x.amin(1)
    assert contrast.min() >= 0.7 - 1e-6
    assert contrast.max() <= 0.8 + 1e-6


def test_extrapolation_samples_follow_the_others_and_change_none_of_them() -> None:
    plain, more = data(0).batch("test"), data(FURTHER).batch("test")
    assert len(more.x) == COUNT + FURTHER
    for a, b in zip(plain, more, strict=True):
        assert torch.equal(a, b[:COUNT])
    assert more.beyond.tolist() == [False] * COUNT + [True] * FURTHER
    assert torch.bincount(more.label[COUNT:]).tolist() == [2] * 10
    for split in ("train", "val"):
        assert not data(FURTHER).batch(split).beyond.any()


def test_extrapolation_has_scores_of_its_own_and_no_share_in_the_others() -> None:
    def scored(n_extrapolation: int) -> dict[str, float]:
        source = data(n_extrapolation)
        batch, scoring, means = source.batch("test"), Scoring(source), SampleMeans()
        means.update(scoring.per_sample(batch, batch.y))
        return scoring.summarise(means.compute())

    plain, found = scored(0), scored(FURTHER)
    own = {f"{name}/extrapolation" for name in ("mse", "psnr_mean", "psnr_pooled", "ssim")}
    assert found.keys() - plain.keys() == own
    assert {name: found[name] for name in plain} == pytest.approx(plain, rel=1e-6)
    batch = data(FURTHER).batch("test")
    squares = (batch.y - batch.x)[COUNT:].square()
    assert found["mse/extrapolation"] == pytest.approx(squares.mean().item(), rel=1e-5)


def test_closing_figures_show_no_extrapolation(monkeypatch: pytest.MonkeyPatch) -> None:
    source = data(FURTHER)
    source.setup()
    task = Recovery(UNet(None, None, 2, 0), MSELoss(), torch.optim.Adam, classical=False).eval()
    shown: list[Tensor] = []

    def class_mse(label: Tensor, *_: object) -> Figure:
        shown.append(label)
        return Figure()

    monkeypatch.setattr("eai.tasks.recovery.plots.class_mse", class_mse)
    monkeypatch.setattr("eai.tasks.recovery.closing.by_level", lambda *_: Figure())
    few = source.batch("test", 2)
    task.closing_figures(source, few, task.predict(few))
    assert len(shown[0]) == COUNT


def test_extrapolation_of_patterns_that_do_not_vary_is_refused() -> None:
    with pytest.raises(ValueError, match="n_extrapolation: expected 0, or more where kind is varied, got 5"):
        Patterns(NoCorruption(), HEIGHT, WIDTH, n_extrapolation=5)
    with pytest.raises(ValueError, match="n_extrapolation: expected 0, or more where kind is varied, got -1"):
        data(-1)


class Blur(Corruption):
    """A user's own corruption: the mean of 3 × 3 pixels, and noise on request."""

    hides = False

    def __init__(self, sigma: float = 0.0) -> None:
        self.levels = (sigma, sigma)

    def apply(self, x: Tensor, level: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        y = functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        return y + level[:, None, None, None] * torch.randn(x.shape, generator=generator), torch.ones_like(x)


class Faded(Corruption):
    """y = x/2 + ε, ε ~ N(0, σ²), in the left half; the right half is hidden."""

    levels = (0.1, 0.1)

    class Half(GaussianLikelihood):
        def __init__(self) -> None:
            super().__init__(clip=False)

        def of(self, y: Tensor, x: Tensor, level: Tensor) -> Tensor:
            return super().of(y, x / 2, level)

    def __init__(self) -> None:
        self.likelihood = self.Half()

    def apply(self, x: Tensor, level: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        mask = torch.ones_like(x)
        mask[..., x.shape[-1] // 2 :] = 0
        return mask * (x / 2 + level[:, None, None, None] * torch.randn(x.shape, generator=generator)), mask


def errors(corruption: Corruption) -> dict[str, float]:
    source = Patterns(corruption, HEIGHT, WIDTH, n_train=50, n_val=10, n_test=100)
    batch = source.batch("test")
    fixed = batch.label != 7
    methods = references(source, classical=False)
    return {name: float((method(batch) - batch.x)[fixed].square().mean()) for name, method in methods.items()}


def test_corruption_without_a_likelihood_has_no_bound_and_one_that_names_its_own_has_it() -> None:
    for blur in (Blur(), Blur(0.1)):
        found = errors(blur)
        assert "class_mean" in found
        assert not {"template", "known_class"} & found.keys()
    found = errors(Faded())
    # Half of a pattern with so little noise tells which one it is.
    assert found["template"] < 1e-6
    assert found["known_class"] < 1e-6


def test_a_new_corruption_is_not_exact_unless_it_says_so() -> None:
    assert not Blur().exact


def test_references_to_a_net_that_is_shown_the_clean_image_do_not_copy_it() -> None:
    source = Patterns(NoCorruption(), HEIGHT, WIDTH, n_train=50, n_val=10, n_test=20)
    batch, found = source.batch("test"), references(source, classical=True)
    assert set(found) == {"pattern_mean", "class_mean"}
    fresh = source.corruption(torch.rand(batch.x.shape), split_generator(0, "test"))[0]
    for method in found.values():
        assert torch.equal(method(batch), method(batch._replace(y=fresh)))
