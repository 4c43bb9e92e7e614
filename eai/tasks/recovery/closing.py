"""Figures that are drawn once, at the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from eai.core.learn.figures import Drawing
from eai.core.learn.task import Task
from eai.tasks.recovery import plots
from eai.tasks.recovery.charts import by_level, spectrum
from eai.tasks.recovery.corruptions import Images, NoCorruption
from eai.tasks.recovery.data import Batch, ImageData, pixel_mean
from eai.tasks.recovery.downscaling import Downscale
from eai.tasks.recovery.nets import VAE


def of_test_data(task: Task, data: ImageData) -> dict[str, Drawing]:
    """The error of each class, and codes of two numbers.

    Args:
        task: whose net is looked at.
        data: of the run; all test samples but those of an extrapolation take part.
    """
    labels, network, corrupted, codes = [], [], [], []
    for cpu_batch in data.test_dataloader():
        inside = Batch(*(field[~cpu_batch.beyond] for field in cpu_batch))
        part = task.transfer_batch_to_device(inside, task.device, 0)
        output = task(part)
        labels.append(part.label)
        network.append(pixel_mean((output.image - part.x).square(), part.valid)[0])
        corrupted.append(pixel_mean((part.y - part.x).square(), part.valid)[0])
        codes += [] if output.mean is None else [output.mean]
    label = torch.cat(labels)
    mse = {"network": torch.cat(network)}
    if any(part.any() for part in corrupted):
        mse["corrupted input"] = torch.cat(corrupted)
    drawings: dict[str, Drawing] = {}
    if len(data.classes) > 1:
        drawings["class_mse"] = plots.class_mse(label, mse, data.classes)
    if codes and codes[0].shape[1] == 2:
        drawings["latent_space"] = plots.latent_space(torch.cat(codes), label, data.classes)
    return drawings


def comparisons(
    methods: Mapping[str, Callable[[Batch], Images]], data: ImageData, device: torch.device
) -> dict[str, Drawing]:
    """The scores of all methods against the strength of the corruption, or spectra where it makes images coarse.

    Args:
        methods: the network first.
        data: of the run.
        device: of the network.
    """
    left_out = {"pattern_mean", "class_mean", "known_class"}
    # These equal another one: filling where nothing is hidden, and a coarse input.
    left_out |= set() if data.corruption.hides else {"mean_fill"}
    left_out |= {"input", "mean_fill"} if isinstance(data.corruption, Downscale) else set()
    shown = {name: method for name, method in methods.items() if name not in left_out}
    if isinstance(data.corruption, Downscale):
        return {"spectrum": spectrum(data, shown, device)}
    return {} if isinstance(data.corruption, NoCorruption) else {"score_by_level": by_level(data, shown, device)}


def decoded(net: VAE, batch: Batch) -> dict[str, Drawing]:
    """Images of codes: of the prior, between those of samples, and on a lattice if they have two numbers.

    Args:
        net: that decodes them.
        batch: of the samples.
    """
    mean = net(batch).mean
    axis = torch.linspace(0, 1, 8, device=mean.device)[:, None]
    between = torch.cat([mean[i] + axis * (mean[i + 1] - mean[i]) for i in range(min(5, len(mean) - 1))])
    # The global generator is put back: drawing must not change what a resumed run draws.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = net.sample(32)
    drawings: dict[str, Drawing] = {
        "prior_samples": plots.gallery(
            prior, 8, "Decoded from random codes of the prior N(0, I): images should look like the data"
        ),
        "interpolation": plots.gallery(
            net.decode(between), 8, "Decoded between two test images: each row should change without a break"
        ),
    }
    if net.latent_dim == 2:
        z = torch.cartesian_prod(torch.linspace(2, -2, 9), torch.linspace(-2, 2, 9)).flip(1).to(mean.device)
        title = "Decoded codes, z₁ and z₂ from −2 (lower left) to 2: neighbours should look alike"
        drawings["latent_grid"] = plots.gallery(net.decode(z), 9, title)
    return drawings
