"""Slide 2.2: recovering an image from a corrupted one.

Scores (``val/…`` and ``test/…``; values in [0, 1]; means over all samples of a split):

* ``mse`` = mean square error over all pixels of all images.
* ``psnr_pooled`` = −10 log₁₀ ``mse``, in dB.
* ``psnr_mean`` = mean over images of each image's own PSNR, in dB; favours methods that get easy images exactly.
* ``psnr_pooled_reducible`` = ``psnr_pooled`` over the nine classes without the noise class.
* ``ssim`` = mean structural similarity (Wang et al. 2004; Gaussian window, σ = 1.5 pixels); ``mse_reducible``,
  ``ssim_reducible``, ``psnr_mean_reducible`` over the nine classes.
* ``mse/<class>``, ``ssim/<class>``, ``psnr_mean/<class>``, ``psnr_pooled/<class>``: over the images of a class.
* ``skill/<class>`` = 1 − MSE/MSE of the better of ``input`` and ``mean_fill`` in that class; ``negative_skill_classes``
  = how many are below 0. Absent where that reference has no error.
* ``mse_hidden``, ``mse_seen``, ``psnr_hidden`` = over the hidden, over the seen pixels; only where some are hidden.
* ``mse/level_<s>``, ``psnr_pooled/level_<s>``: over the samples with the strength s of ``data.test_levels``.
* ``mse/extrapolation``, ``ssim/extrapolation``, ``psnr_mean/extrapolation``, ``psnr_pooled/extrapolation``: over the
  ``data.n_extrapolation`` test samples of varied patterns whose frequency lies above all those of training; no other
  score has a share in them. The other test samples have frequencies and contrasts that training leaves out but
  surrounds: interpolation.
* ``rmse``, ``rmse_hidden`` = root mean square error over all, over the hidden pixels, in the variable's units. Only for
  fields from a file, whose missing pixels no score looks at.
* ``consistency`` = root mean square of A x̂ − A x, A the coarsening; ``spectrum_ratio`` = power of x̂ over that of x at
  wavelengths that the coarse grid cannot hold (below 2 f pixels): 1 is as rough as the truth. Downscaling only.

A VAE also has ``val/reconstruction``, ``val/kl`` and ``val/active_units``, the number of code dimensions whose mean
varies by more than 0.01 over the validation data (Burda et al. 2016).

An MSE is floored at 1e-10 before its logarithm is taken, so that identical images have 100 dB, not infinity.

Baselines: ``input``, the corrupted image itself; ``mean_fill``, hidden pixels replaced by the mean of the seen ones;
``pattern_mean``, the mean training image, or for fields from a file ``climatology``, the mean of each month in the
training period. Without a corruption, the first two would have 100 dB by copying, which tells nothing of a net that
must squeeze an image through a code: they are left out. Others, where they apply:

* hidden pixels: ``nearest``, ``biharmonic``;
* noise: ``median``, ``total_variation``, ``non_local_means``, each with one number calibrated on validation data; where
  the noise is Gaussian they are told each image's σ, which the net is not;
* downscaling: ``nearest``, ``bilinear``, ``bicubic``;
* learned from the training images (of the first epoch, where they are new in each), with one number chosen on
  validation data: ``linear_regression`` of x on y, where nothing is hidden; ``optimal_interpolation`` with the images'
  isotropic covariance, named ``wiener`` where y is noisy and nothing is hidden; ``analogues``, the training images
  weighted by their fit to the seen pixels. The last two are told σ as well.

On the slides' patterns ``template`` = E[x | y], the bound for every method in the mean square, and ``known_class`` =
E[x | y, class], whose error in the noise class is irreducible, if seen pixels are exact or the corruption names its
likelihood; ``class_mean``, told the class and seeing no pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from eai.core.errors import ConfigError
from eai.core.learn.data import DataModule, split_generator, widened
from eai.core.learn.export import Variable
from eai.core.learn.figures import Drawing
from eai.core.learn.ranks import gather
from eai.core.learn.scores import PerSample
from eai.core.learn.task import Task
from eai.tasks.recovery import closing, export, plots, plots_fields
from eai.tasks.recovery.baselines import references
from eai.tasks.recovery.data import Batch, ImageData
from eai.tasks.recovery.filling import CorrectedInterpolation
from eai.tasks.recovery.netcdf import FieldImages
from eai.tasks.recovery.nets import VAE, Reconstruction
from eai.tasks.recovery.patterns import CLASSES
from eai.tasks.recovery.scaling import FieldScaling
from eai.tasks.recovery.scores import Scoring, active_units

Images = Float[Tensor, "b 1 h w"]


class Recovery(Task[Batch, Reconstruction, Tensor]):
    """A net from a corrupted image y to the clean one x; the estimate is the recovered image.

    The net maps a Batch to a :class:`Reconstruction`; the loss is :class:`MSELoss` or, for a net that gives
    a distribution of its code, :class:`ELBOLoss`.

    Args:
        net, loss, optimizer, scheduler: see :class:`eai.core.learn.task.Task`.
        keep_known: the estimate has y where pixels were seen; the loss then sees the hidden ones only.
        classical: score the baselines of scikit-image too.
    """

    watched = (
        "mse", "psnr_pooled", "psnr_hidden", "ssim", "rmse", "rmse_hidden", "consistency", "spectrum_ratio",
        "active_units",
    )  # fmt: skip

    def __init__(
        self,
        net: nn.Module,
        loss: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler] | None = None,
        keep_known: bool = False,
        classical: bool = True,
    ) -> None:
        super().__init__(net, loss, optimizer, scheduler)
        self.keep_known, self.classical = keep_known, classical
        # Convolutions on a CPU are a sixth faster so; dense layers do not mind.
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.scoring = Scoring(None)
        self.scaling = None
        self._codes: list[Tensor] = []
        self._references: tuple[ImageData, Mapping[str, Callable[[Batch], Images]]] | None = None

    scaling: FieldScaling | None

    def prepare(self, data: DataModule[Batch]) -> None:
        if isinstance(data, FieldImages):
            self.scaling = deepcopy(data.scaling)
        if isinstance(self.net, CorrectedInterpolation) and isinstance(data, ImageData):
            self.net.fit(data.generate("train", split_generator(data.seed, "train", device=data.device)))

    def make_room(self, checkpoint: Mapping[str, Any]) -> None:
        climatology = checkpoint["state_dict"].get("scaling.climatology")
        if climatology is not None:
            self.scaling = FieldScaling(torch.zeros_like(climatology), 1.0)

    @torch.no_grad()
    def fill(self, values: Float[Tensor, "b ny nx"], months: Int[Tensor, " b"]) -> Float[Tensor, "b ny nx"]:
        """Fields of the variable that the net was trained on, with their gaps filled; NaN where training knew nothing.

        Args:
            values: on the grid of the training data, in the variable's units, NaN where missing.
            months: of each field, 1 to 12.

        Raises:
            ValueError: the net was not trained on fields of a file.
        """
        if self.scaling is None:
            raise ValueError("fill: expected a net trained on data=recovery/netcdf, which have a climatology")
        batch = self.transfer_batch_to_device(self.scaling.batch(values, months), self.device, 0)
        return self.scaling.values(self.predict(batch), months)

    def check_data(self, data: DataModule[Batch]) -> None:
        if not isinstance(data, ImageData):
            raise ConfigError(f"data: expected images with height and width, got {type(data).__name__}")
        if self.keep_known and not data.corruption.exact:
            raise ConfigError("model.keep_known: expected false, because seen pixels are not exact in these data")
        self.scoring = Scoring(data)
        height, width = data.height, data.width
        grey = torch.full((1, 1, height, width), 0.5)
        label, level, beyond = (torch.zeros(1, dtype=kind) for kind in (torch.int64, torch.float32, torch.bool))
        batch = Batch(grey, torch.ones_like(grey), grey, label, level, beyond, torch.ones_like(grey))
        # In evaluation mode, so that no random number is used up.
        self.eval()
        try:
            with torch.no_grad():
                self.loss(self(batch), batch)
        except ValueError as error:
            raise ConfigError(f"model.{error}") from error
        self.train()

    def forward(self, batch: Batch) -> Reconstruction:
        own = next(self.net.parameters()).dtype
        batch = Batch(*(field.to(own) if field.is_floating_point() else field for field in batch))
        output = self.net(batch)
        if not self.keep_known:
            return output
        return output._replace(image=torch.where(batch.mask == 1, batch.y, output.image))

    def estimate(self, batch: Batch, output: Reconstruction) -> Images:
        return output.image.to(torch.promote_types(output.image.dtype, torch.float32))

    def scores(self, batch: Batch, estimate: Images) -> Mapping[str, PerSample]:
        return self.scoring.per_sample(widened(batch), estimate)

    def summarise(self, means: Mapping[str, float]) -> dict[str, float]:
        return self.scoring.summarise(means)

    def baselines(self, data: DataModule[Batch]) -> Mapping[str, Callable[[Batch], Images]]:
        assert isinstance(data, ImageData)
        # Calibrated once, for scores and figures.
        if self._references is None or self._references[0] is not data:
            self._references = data, references(data, self.classical)
        return self._references[1]

    def validated(self, batch: Batch, output: Reconstruction) -> None:
        if output.mean is not None:
            self._codes.append(output.mean)

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        if self._codes:
            codes = torch.cat(gather(torch.cat(self._codes).cpu()))
            self._report({}, {"val/active_units": float(active_units(codes))})
            self._codes = []

    def coordinates(self, data: DataModule[Batch]) -> Mapping[str, Variable]:
        assert isinstance(data, ImageData)
        return export.coordinates(data)

    def exported(
        self, data: DataModule[Batch], batch: Batch, estimates: Mapping[str, Images]
    ) -> Mapping[str, Variable]:
        assert isinstance(data, ImageData)
        return export.variables(data, batch, estimates)

    def figures(self, batch: Batch, estimate: Images) -> Mapping[str, Drawing]:
        return {"recoveries": self._recoveries(batch, estimate)}

    @torch.no_grad()
    def closing_figures(self, data: DataModule[Batch], batch: Batch, estimate: Images) -> Mapping[str, Drawing]:
        assert isinstance(data, ImageData)
        # The final samples are one of each class; those drawn in training are fewer.
        one_of_each = self.transfer_batch_to_device(data.batch("test", len(CLASSES)), self.device, 0)
        drawings: dict[str, Drawing] = {"recoveries": self._recoveries(one_of_each, self.predict(one_of_each))}
        drawings |= closing.of_test_data(self, data)
        if isinstance(self.net, VAE):
            drawings |= closing.decoded(self.net, one_of_each)
        return drawings | closing.comparisons({"network": self.predict, **self.baselines(data)}, data, self.device)

    def _recoveries(self, batch: Batch, image: Images) -> Drawing:
        if self.scoring.extent is not None:
            return plots_fields.filled(batch, image, self.scoring.extent, self.scoring.variable, self.scoring.northward)
        return plots.recoveries(batch, image, self.scoring.classes)
