"""Slide 2.2: recovering an image from a corrupted one.

Scores (``val/…`` and ``test/…``; values in [0, 1]; means over all samples of a split):

* ``mse`` = mean square error over all pixels of all images.
* ``psnr_pooled`` = −10 log₁₀ ``mse``, in dB.
* ``psnr_mean`` = mean over images of each image's own PSNR, in dB; favours methods that get easy images exactly.
* ``psnr_pooled_reducible`` = ``psnr_pooled`` over the nine classes without the noise class.
* ``mse/<class>`` = ``mse`` over the images of a class of :data:`eai.tasks.recovery.patterns.CLASSES`.
* ``mse_hidden``, ``mse_seen`` = ``mse`` over the hidden and over the seen pixels; only where some are hidden.

An MSE is floored at 1e-10 before its logarithm is taken, so that identical images have 100 dB, not infinity.

Baselines: ``input``, the corrupted image itself; ``mean_fill``, hidden pixels replaced by the mean of the seen
ones (= ``input`` where none is hidden); ``pattern_mean``, the mean training image; ``class_mean``, an oracle that
is told the class and sees no pixel: its error in the noise class is the variance of the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.data import DataModule
from eai.core.errors import ConfigError
from eai.core.scores import PerSample
from eai.core.task import Drawing, Task
from eai.tasks.recovery import plots
from eai.tasks.recovery.baselines import class_mean, mean_fill, pattern_mean
from eai.tasks.recovery.data import Batch
from eai.tasks.recovery.nets import Reconstruction
from eai.tasks.recovery.patterns import CLASSES, NOISE
from eai.tasks.recovery.plots import psnr

Images = Float[Tensor, "b 1 h w"]


class Recovery(Task[Batch, Reconstruction, Tensor]):
    """A net from a corrupted image y to the clean one x; the estimate is the recovered image.

    The net maps a Batch to a :class:`Reconstruction`; the loss is :class:`MSELoss` or, for a net that gives
    a distribution of its code, :class:`ELBOLoss`.
    """

    def check_data(self, data: DataModule[Batch]) -> None:
        height, width = getattr(data, "height", None), getattr(data, "width", None)
        if height is None or width is None:
            raise ConfigError(f"data: expected images with height and width, got {type(data).__name__}")
        grey = torch.full((1, 1, height, width), 0.5)
        batch = Batch(grey, torch.ones_like(grey), grey, torch.zeros(1, dtype=torch.int64))
        # In evaluation mode, so that no random number is used up.
        self.eval()
        try:
            with torch.no_grad():
                self.loss(self(batch), batch)
        except ValueError as error:
            raise ConfigError(f"model.{error}") from error
        self.train()

    def forward(self, batch: Batch) -> Reconstruction:
        return self.net(batch)

    def estimate(self, batch: Batch, output: Reconstruction) -> Images:
        return output.image

    def scores(self, batch: Batch, estimate: Images) -> Mapping[str, PerSample]:
        squares = (estimate - batch.x).square()
        mse = squares.mean((1, 2, 3))
        return {
            "mse": mse,
            "psnr_mean": psnr(mse),
            "mse_reducible": (mse, (batch.label != NOISE).to(mse.dtype)),
            "mse_hidden": _pixel_mean(squares, 1 - batch.mask),
            "mse_seen": _pixel_mean(squares, batch.mask),
            **{f"mse/{name}": (mse, (batch.label == k).to(mse.dtype)) for k, name in enumerate(CLASSES)},
        }

    def summarise(self, means: Mapping[str, float]) -> dict[str, float]:
        scores = dict(means)
        if "mse_hidden" not in scores:
            scores.pop("mse_seen", None)
        reducible = scores.pop("mse_reducible", None)
        scores["psnr_pooled"] = psnr(torch.tensor(scores["mse"], dtype=torch.float64)).item()
        if reducible is not None:
            scores["psnr_pooled_reducible"] = psnr(torch.tensor(reducible, dtype=torch.float64)).item()
        return scores

    def baselines(self, data: DataModule[Batch]) -> Mapping[str, Callable[[Batch], Images]]:
        climatology = pattern_mean(data)
        return {
            "input": lambda batch: batch.y,
            "mean_fill": mean_fill,
            "pattern_mean": lambda batch: climatology.to(batch.x.device).expand_as(batch.x),
            "class_mean": class_mean,
        }

    def figures(self, batch: Batch, estimate: Images) -> Mapping[str, Drawing]:
        return {"recoveries": plots.recoveries(batch, estimate)}

    @torch.no_grad()
    def closing_figures(self, data: DataModule[Batch], batch: Batch, estimate: Images) -> Mapping[str, Drawing]:
        labels, network, corrupted, codes = [], [], [], []
        for cpu_batch in data.test_dataloader():
            part = self.transfer_batch_to_device(cpu_batch, self.device, 0)
            output = self(part)
            labels.append(part.label)
            network.append((output.image - part.x).square().mean((1, 2, 3)))
            corrupted.append((part.y - part.x).square().mean((1, 2, 3)))
            codes += [] if output.mean is None else [output.mean]
        label = torch.cat(labels)
        mse = {"network": torch.cat(network)}
        if any(part.any() for part in corrupted):
            mse["corrupted input"] = torch.cat(corrupted)
        drawings: dict[str, Drawing] = {"class_mse": plots.class_mse(label, mse)}
        # The final samples are one of each class; those drawn in training are fewer.
        one_of_each = self.transfer_batch_to_device(data.batch("test", len(CLASSES)), self.device, 0)
        drawings["recoveries"] = plots.recoveries(one_of_each, self.predict(one_of_each))
        if codes and codes[0].shape[1] == 2:
            drawings["latent_space"] = plots.latent_space(torch.cat(codes), label)
        return drawings


def _pixel_mean(squares: Images, chosen: Images) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Mean of each image's chosen pixels, weighted by their number."""
    count = chosen.sum((1, 2, 3))
    return (squares * chosen).sum((1, 2, 3)) / count.clamp(min=1), count
