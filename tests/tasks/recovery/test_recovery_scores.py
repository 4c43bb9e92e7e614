"""Scores, baselines and figures of the recovery task against slow formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from eai.core.errors import ConfigError
from eai.core.learn.figures import caption
from eai.core.learn.scores import SampleMeans
from eai.tasks.recovery.corruptions import Block, Corruption, GaussianNoise, NoCorruption
from eai.tasks.recovery.data import Batch, Patterns
from eai.tasks.recovery.losses import ELBOLoss, MSELoss
from eai.tasks.recovery.nets import VAE, Autoencoder
from eai.tasks.recovery.patterns import CLASSES, NOISE, class_means
from eai.tasks.recovery.scores import active_units
from eai.tasks.recovery.task import Recovery
from tests.runs import assert_say_what_to_see

HEIGHT, WIDTH, COUNT = 37, 31, 33


def patterns(corruption: Corruption) -> Patterns:
    return Patterns(corruption, HEIGHT, WIDTH, n_train=40, n_val=10, n_test=COUNT, batch_size=7)


def recovery(net: nn.Module | None = None, loss: nn.Module | None = None) -> Recovery:
    return Recovery(net or Autoencoder(), loss or MSELoss(), torch.optim.Adam)


def scored(
    task: Recovery, batch: Batch, method: Callable[[Batch], Tensor], batch_size: int = COUNT
) -> dict[str, float]:
    means = SampleMeans()
    for start in range(0, len(batch.x), batch_size):
        part = Batch(*(field[start : start + batch_size] for field in batch))
        means.update(task.scores(part, method(part)))
    return task.summarise(means.compute())


def corrupted(batch: Batch) -> Tensor:
    return batch.y


def test_psnr_pooled_and_mean_equal_the_slow_formulas() -> None:
    batch = patterns(GaussianNoise(0.2)).batch("test")
    found = scored(recovery(), batch, corrupted)
    mse = [float(((batch.y[i] - batch.x[i]).double() ** 2).mean()) for i in range(COUNT)]
    fixed = [mse[i] for i in range(COUNT) if i % 10 != NOISE]
    assert found["mse"] == pytest.approx(sum(mse) / COUNT, rel=1e-5)
    assert found["psnr_pooled"] == pytest.approx(-10 * math.log10(sum(mse) / COUNT), rel=1e-5)
    assert found["psnr_mean"] == pytest.approx(sum(-10 * math.log10(m) for m in mse) / COUNT, rel=1e-5)
    assert found["psnr_pooled_reducible"] == pytest.approx(-10 * math.log10(sum(fixed) / len(fixed)), rel=1e-5)


def test_score_of_a_class_is_the_mean_over_its_images() -> None:
    batch = patterns(GaussianNoise(0.2)).batch("test")
    found = scored(recovery(), batch, corrupted)
    for k, name in enumerate(CLASSES):
        mine = [i for i in range(COUNT) if i % 10 == k]
        expected = sum(float((batch.y[i] - batch.x[i]).square().mean()) for i in mine) / len(mine)
        assert found[f"mse/{name}"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("corruption", [GaussianNoise(0.2), Block(10)])
def test_scores_do_not_depend_on_the_batch_size(corruption: Corruption) -> None:
    batch, task = patterns(corruption).batch("test"), recovery().eval()
    whole = scored(task, batch, task.predict)
    for batch_size in (1, 4):
        assert scored(task, batch, task.predict, batch_size) == pytest.approx(whole, rel=1e-5)


def test_identical_images_have_100_db_and_not_infinity() -> None:
    found = scored(recovery(), patterns(NoCorruption()).batch("test"), corrupted)
    assert found["mse"] == 0
    for name in ("psnr_pooled", "psnr_mean", "psnr_pooled_reducible"):
        assert found[name] == pytest.approx(100, rel=1e-6)


def test_hidden_and_seen_pixels_are_scored_apart_by_pixel() -> None:
    batch = patterns(Block(10)).batch("test")
    estimate = (batch.y + 0.1).clamp(0, 1)
    found = scored(recovery(), batch, lambda part: (part.y + 0.1).clamp(0, 1))
    hidden = batch.mask == 0
    squares = (estimate - batch.x).square()
    assert found["mse_hidden"] == pytest.approx(float(squares[hidden].mean()), rel=1e-5)
    assert found["mse_seen"] == pytest.approx(float(squares[~hidden].mean()), rel=1e-5)
    share = 100 / (HEIGHT * WIDTH)
    assert found["mse"] == pytest.approx(share * found["mse_hidden"] + (1 - share) * found["mse_seen"], rel=1e-5)


def test_hidden_pixels_are_not_scored_where_there_are_none() -> None:
    found = scored(recovery(), patterns(GaussianNoise(0.2)).batch("test"), corrupted)
    assert not {"mse_hidden", "mse_seen"} & found.keys()


def test_mean_fill_puts_the_mean_of_the_seen_pixels_into_the_block() -> None:
    data = patterns(Block(10))
    batch = data.batch("test")
    filled = recovery().baselines(data)["mean_fill"](batch)
    for i in range(COUNT):
        seen = batch.mask[i] == 1
        assert torch.equal(filled[i][seen], batch.y[i][seen])
        torch.testing.assert_close(filled[i][~seen], batch.x[i][seen].mean().expand(100))


def test_mean_fill_is_the_input_where_nothing_is_hidden() -> None:
    data = patterns(GaussianNoise(0.2))
    methods, batch = recovery().baselines(data), data.batch("test")
    assert torch.equal(methods["mean_fill"](batch), methods["input"](batch))


def test_pattern_mean_is_the_mean_training_image_and_the_same_after_later_epochs() -> None:
    data = patterns(GaussianNoise(0.2))
    mean, batch = data.batch("train").x.mean(0), data.batch("test")
    data.samples["train"].set_epoch(4)
    estimate = recovery().baselines(data)["pattern_mean"](batch)
    assert estimate.shape == batch.x.shape
    torch.testing.assert_close(estimate[5], mean)


def test_class_mean_errs_only_in_the_noise_class_by_the_variance_of_the_noise() -> None:
    data = Patterns(NoCorruption(), HEIGHT, WIDTH, n_train=1, n_val=1, n_test=500)
    task = recovery()
    found = scored(task, data.batch("test"), task.baselines(data)["class_mean"])
    # Relative standard deviation of the mean square of n uniform numbers: √(1/180 n) · 12.
    outside = (class_means(HEIGHT, WIDTH)[NOISE] == 0.5).double().mean().item()
    tolerance = 4 * 12 / math.sqrt(180 * 50 * outside * HEIGHT * WIDTH)
    assert found[f"mse/{CLASSES[NOISE]}"] == pytest.approx(outside / 12, rel=tolerance)
    assert found["psnr_pooled_reducible"] == pytest.approx(100)


def test_data_that_the_net_or_the_loss_cannot_work_on_are_refused_before_training() -> None:
    data = patterns(NoCorruption())
    with pytest.raises(ConfigError, match=r"model\.net: expected .*31 × 37, got '37 × 31'"):
        recovery(VAE(WIDTH, HEIGHT), ELBOLoss()).check_data(data)
    with pytest.raises(ConfigError, match=r"model\.loss: expected MSELoss"):
        recovery(Autoencoder(), ELBOLoss()).check_data(data)
    task = recovery(VAE(HEIGHT, WIDTH), ELBOLoss())
    before = torch.get_rng_state()
    task.check_data(data)
    assert torch.equal(torch.get_rng_state(), before)
    assert task.training


def test_final_figures_show_one_sample_of_each_class_and_codes_only_in_two_dimensions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("eai.tasks.recovery.closing.by_level", lambda *_: Figure())  # takes seconds
    data = patterns(Block(10))
    data.setup()
    few = data.batch("test", 6)
    for latent_dim in (2, 3):
        net = VAE(HEIGHT, WIDTH, latent_dim)
        task = Recovery(net, ELBOLoss(), torch.optim.Adam, classical=False).eval()
        drawings = task.closing_figures(data, few, task.predict(few))
        assert ("latent_space" in drawings) == (latent_dim == 2)
        assert_say_what_to_see({name: caption(one) for name, one in drawings.items() if name != "score_by_level"})
        figure = drawings["recoveries"]
        assert isinstance(figure, Figure)
        shown = {axes.get_ylabel().replace("\n", " ") for axes in figure.axes} - {""}
        assert shown == {name.replace("_", " ") for name in CLASSES}


def test_skill_of_a_class_is_against_the_better_of_input_and_mean_fill() -> None:
    data = patterns(Block(10))
    batch, task = data.batch("test"), recovery()
    half = torch.full_like(batch.x, 0.4)
    found = scored(task, batch, lambda part: torch.full_like(part.x, 0.4))
    filled = recovery().baselines(data)["mean_fill"](batch)
    negative = 0
    for k, name in enumerate(CLASSES):
        mine = batch.label == k
        errors = {
            which: (image - batch.x)[mine].square().mean((1, 2, 3)).mean().item()
            for which, image in (("input", batch.y), ("fill", filled), ("half", half))
        }
        assert errors["fill"] < 0.98 * errors["input"]  # so that the test can tell
        skill = 1 - errors["half"] / min(errors["input"], errors["fill"])
        assert found[f"skill/{name}"] == pytest.approx(skill, rel=1e-4, abs=1e-5)
        negative += skill < 0
    assert found["negative_skill_classes"] == negative


def test_active_units_are_those_whose_variance_is_above_a_hundredth() -> None:
    alternating = torch.tensor([1.0, -1.0]).repeat(10)[:, None]
    codes = alternating * torch.tensor([0.0, 0.09, 0.11, 0.5, 4.0]) + 3.0
    assert active_units(codes) == 3
