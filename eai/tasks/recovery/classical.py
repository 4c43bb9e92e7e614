"""Classical recoveries: filters and inpainting of scikit-image, calibrated on validation data, and a median."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional

from eai.core.learn.data import DataModule
from eai.tasks.recovery.corruptions import Corruption, GaussianNoise, Images, Levels
from eai.tasks.recovery.data import Batch

log = logging.getLogger("eai")
Method = Callable[[Batch], Images]
# Weight of total variation and h of non-local means, in units of σ where the noise is Gaussian, else of grey values.
WEIGHTS, STRENGTHS = (0.1, 0.2, 0.3, 0.45, 0.7), (0.3, 0.4, 0.5, 0.6, 0.8)
GREY_WEIGHTS, GREY_STRENGTHS = (0.03, 0.1, 0.2, 0.4), (0.05, 0.1, 0.2, 0.3)
CALIBRATION_SAMPLES = 30


def median(batch: Batch) -> Images:
    """The median of 3 × 3 pixels of y, reflected at the edges."""
    patches = functional.unfold(functional.pad(batch.y, (1, 1, 1, 1), mode="reflect"), 3)
    return patches.median(1).values.view_as(batch.y)


def _each(function: Callable[[np.ndarray, np.ndarray], np.ndarray], batch: Batch) -> Images:
    """Apply a function of one image and its mask (h, w) to all samples; one without a seen pixel stays as it is."""
    y, mask = batch.y[:, 0].cpu().numpy(), batch.mask[:, 0].cpu().numpy() == 1
    return _stacked([function(a, b) if b.any() else a for a, b in zip(y, mask, strict=True)], batch)


def _stacked(images: Sequence[np.ndarray], batch: Batch) -> Images:
    return torch.from_numpy(np.stack(images)).to(batch.y)[:, None]


def nearest(batch: Batch) -> Images:
    """Each hidden pixel as the nearest seen one."""
    from scipy.ndimage import distance_transform_edt

    def fill(y: np.ndarray, seen: np.ndarray) -> np.ndarray:
        rows, columns = distance_transform_edt(~seen, return_distances=False, return_indices=True)
        return y[rows, columns]

    return _each(fill, batch)


def biharmonic(batch: Batch) -> Images:
    """Hidden pixels from the biharmonic equation with the seen ones as boundary values."""
    from skimage.restoration import inpaint_biharmonic

    return _each(lambda y, seen: y if seen.all() else inpaint_biharmonic(y, ~seen), batch).clamp(0, 1)


def total_variation(batch: Batch, weight: Levels) -> Images:
    """Chambolle's total-variation denoising (2004), with a weight for each sample."""
    from skimage.restoration import denoise_tv_chambolle

    pairs = zip(batch.y[:, 0].cpu().numpy(), weight.tolist(), strict=True)
    return _stacked([denoise_tv_chambolle(y, weight=w, max_num_iter=50) for y, w in pairs], batch)


def non_local_means(batch: Batch, strength: Levels) -> Images:
    """Non-local means (Buades et al. 2005), h for each sample, patches of 5 × 5 at distances up to 9 pixels."""
    from skimage.restoration import denoise_nl_means

    pairs = zip(batch.y[:, 0].cpu().numpy(), strength.tolist(), strict=True)
    return _stacked([denoise_nl_means(y, patch_size=5, patch_distance=9, h=h, fast_mode=True) for y, h in pairs], batch)


class Calibrated:
    """A method with the parameter that has the least mean square error on the first validation samples.

    Args:
        method: of a batch and one parameter for each sample.
        grid: of parameters.
        data: whose validation samples are used.
        per_level: the parameter is in units of each sample's level, which the method is told and a net is not.
    """

    def __init__(
        self,
        method: Callable[[Batch, Levels], Images],
        grid: Sequence[float],
        data: DataModule[Batch],
        per_level: bool,
    ) -> None:
        self._method, self._grid, self._data, self._per_level = method, grid, data, per_level
        self.parameter: float | None = None

    def __call__(self, batch: Batch) -> Images:
        if self.parameter is None:
            val = self._data.batch("val", CALIBRATION_SAMPLES)
            self.parameter = min(self._grid, key=lambda p: float((self._applied(val, p) - val.x).square().mean()))
        return self._applied(batch, self.parameter)

    def _applied(self, batch: Batch, parameter: float) -> Images:
        unit = batch.level.clamp(min=1e-3) if self._per_level else torch.ones_like(batch.level)
        return self._method(batch, parameter * unit)


def classical_methods(corruption: Corruption, data: DataModule[Batch]) -> Mapping[str, Method]:
    """Those that make sense: filling where pixels are hidden, denoising where seen pixels are not exact."""
    hides, exact = corruption.hides, corruption.exact
    methods: dict[str, Method] = {} if exact or hides else {"median": median}
    if not hides and exact:
        return methods
    if importlib.util.find_spec("skimage") is None:
        log.info("classical baselines left out: scikit-image is absent (pip install 'eai[baselines]')")
        return methods
    if hides:
        return methods | {"nearest": nearest, "biharmonic": biharmonic}
    gaussian = isinstance(corruption, GaussianNoise)
    weights, strengths = (WEIGHTS, STRENGTHS) if gaussian else (GREY_WEIGHTS, GREY_STRENGTHS)
    return methods | {
        "total_variation": Calibrated(total_variation, weights, data, gaussian),
        "non_local_means": Calibrated(non_local_means, strengths, data, gaussian),
    }
