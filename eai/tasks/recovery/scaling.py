"""From a variable's values in its own units to images in [0, 1], and back, as the training period says."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from eai.core.errors import require
from eai.fields import Fields
from eai.tasks.recovery.data import UNKNOWN, Batch

SPREAD = 5.0  # standard deviations of the training anomalies from ½ to 1


class FieldScaling(nn.Module):
    """x = ½ + (v − c)/range: anomalies v − c from the climatology, of which five standard deviations reach from ½ to 1.

    It is part of a task and of its checkpoints, so that values can be scaled where the training data are not at hand.

    Args:
        climatology: c, for each month of the year, or a single one for all; in the variable's units, NaN where no
            training value is known.
        extent: range, the difference in the variable's units that becomes 1; more than 0.
    """

    climatology: Tensor
    extent: Tensor

    def __init__(self, climatology: Float[Tensor, "m ny nx"], extent: float) -> None:
        super().__init__()
        require(len(climatology) in (1, 12), "climatology", "12 months or 1", len(climatology))
        require(extent > 0, "extent", "more than 0", extent)
        self.register_buffer("climatology", climatology)
        self.register_buffer("extent", torch.tensor(float(extent)))

    def background(self, months: Int[Tensor, " b"]) -> Float[Tensor, "b ny nx"]:
        """The climatology of each month, 1 to 12."""
        return self.climatology[(months.to(self.climatology.device) - 1) % len(self.climatology)]

    def image(self, values: Float[Tensor, "b ny nx"], months: Int[Tensor, " b"]) -> Float[Tensor, "b 1 ny nx"]:
        """x, NaN where the value or its climatology is missing.

        Args:
            values: v, NaN where missing.
            months: of each field, 1 to 12.
        """
        return (UNKNOWN + (values.to(self.extent) - self.background(months)) / self.extent)[:, None]

    def values(self, image: Float[Tensor, "b 1 ny nx"], months: Int[Tensor, " b"]) -> Float[Tensor, "b ny nx"]:
        """v of images; NaN where the climatology is missing, as on land.

        Args:
            image: x.
            months: of each image, 1 to 12.
        """
        return self.background(months) + (image[:, 0] - UNKNOWN) * self.extent

    def batch(self, values: Float[Tensor, "b ny nx"], months: Int[Tensor, " b"]) -> Batch:
        """Fields with gaps as a net sees them: what is missing is hidden.

        Args:
            values: in the variable's units, NaN where missing.
            months: of each field, 1 to 12.
        """
        image = self.image(values, months)
        seen = image.isfinite()
        x, mask, count = torch.where(seen, image, UNKNOWN), seen.to(image), len(image)
        label, level = image.new_zeros(count, dtype=torch.int64), image.new_zeros(count)
        return Batch(torch.where(seen, image, 0.0), mask, x, label, level, level.bool(), mask)


def fit_scaling(fields: Fields, steps: np.ndarray, monthly: bool) -> FieldScaling:
    """The climatology of some time steps and the standard deviation of the anomalies from it, in one pass.

    A place without a value in some month has the mean of its other months there.

    Args:
        fields: of one variable.
        steps: of the training period.
        monthly: have a climatology for each month of the year, else one for all.

    Raises:
        ValueError: no month occurs twice, or the values never differ from their climatology.
    """
    month = fields.months - 1 if monthly else np.zeros(len(fields), dtype=np.int64)
    shape = (12 if monthly else 1, *fields.shape)
    total, count = np.zeros(shape), np.zeros(shape, dtype=np.int32)
    shift, squares = None, 0.0
    for block in fields.blocks(steps):
        for step, values in zip(block, fields.read(block)[:, 0], strict=True):
            known = np.isfinite(values)
            if shift is None and known.any():
                shift = float(values[known].mean(dtype=np.float64))  # keeps digits in the difference of squares
            anomaly = np.where(known, values.astype(np.float64) - (shift or 0.0), 0.0)
            total[month[step]] += anomaly
            count[month[step]] += known
            squares += float(np.square(anomaly).sum())
    number, fitted = int(count.sum()), int((count > 0).sum())
    told = f"{len(steps)} training steps without a month that occurs twice" if monthly else "a single training value"
    require(number > fitted, "climatology", "mean, or a longer training period" if monthly else "more of them", told)
    mean = total / np.maximum(count, 1)
    variance = max(0.0, squares - float((total * mean).sum())) / (number - fitted)
    varies = variance > 1e-12 * max(squares / number, 1e-30)
    require(varies, "variable", "values that differ from their climatology", f"{fields.variables[0]}, constant")
    with np.errstate(invalid="ignore"):
        every = np.where(count.any(0), total.sum(0) / np.maximum(count.sum(0), 1), np.nan)
    climatology = np.where(count > 0, mean, every) + (shift or 0.0)
    return FieldScaling(torch.from_numpy(climatology.astype(np.float32)), 2 * SPREAD * variance**0.5)
