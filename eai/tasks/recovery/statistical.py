"""References that learn from the training images without a network: regression, optimal interpolation, analogues.

Where training data are fresh in each epoch they learn from the first epoch's images alone. Each has one parameter,
which :class:`eai.tasks.recovery.calibration.Calibrated` chooses on validation data.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from eai.tasks.recovery.corruptions import Corruption, Images, Levels
from eai.tasks.recovery.data import Batch


class LinearRegression:
    """Ridge regression of all clean pixels on all corrupted ones: x̂ = x̄ + C_xy (C_yy + λ I)⁻¹ (y − ȳ).

    Means and covariances are those of the training pairs, and λ differs from sample to sample on request.

    Args:
        train: the training pairs.
    """

    def __init__(self, train: Batch) -> None:
        self._train = train

    @cached_property
    def _fit(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """x̄, ȳ, the eigenvalues of C_yy above rounding, their vectors V, and Vᵀ C_yx."""
        x, y = (images.flatten(1).double() for images in (self._train.x, self._train.y))
        mean_x, mean_y = x.mean(0), y.mean(0)
        x, y = x - mean_x, y - mean_y
        values, vectors = torch.linalg.eigh(y.T @ y / len(y))
        kept = values > 1e-9 * values[-1]
        values, vectors = values[kept], vectors[:, kept]
        cross = (y @ vectors).T @ x / len(y)
        return mean_x.float(), mean_y.float(), values.float(), vectors.float(), cross.float()

    def __call__(self, batch: Batch, penalty: Levels) -> Images:
        mean_x, mean_y, values, vectors, cross = (part.to(batch.y.device) for part in self._fit)
        coefficients = (batch.y.flatten(1) - mean_y) @ vectors / (values + penalty[:, None])
        return (mean_x + coefficients @ cross).view_as(batch.y).clamp(0, 1)


class OptimalInterpolation:
    """x̂ = m + B P (P B P + s² I)⁻¹ P (y − m), the best linear estimate with an isotropic covariance B.

    P is what y keeps of the image, a symmetric projection: the seen pixels, or the means of blocks. B is periodic; its
    spectrum is the mean power of the training images, averaged over the Fourier modes of equal wavelength, and m their
    mean grey value. Where nothing is hidden and s is the noise, this is the Wiener filter. Solved by conjugate
    gradients, all samples at once.

    Args:
        train: the training images.
        corruption: of the data.
    """

    TOLERANCE, ITERATIONS = 1e-4, 500

    def __init__(self, train: Batch, corruption: Corruption) -> None:
        self._train, self._corruption = train, corruption

    @cached_property
    def _prior(self) -> tuple[float, Float[Tensor, "h wf"]]:
        """m, and the variance of each Fourier mode of the images (norm "ortho")."""
        return stationary_prior(self._train)

    def __call__(self, batch: Batch, error: Levels) -> Images:
        mean, spectrum = self._prior[0], self._prior[1].to(batch.y.device)
        variance = error.square()[:, None, None, None]

        def project(image: Images) -> Images:
            return self._corruption.project(image, batch.mask)

        def system(v: Images) -> Images:
            return project(spread(v, spectrum)) + variance * v

        weights = conjugate_gradients(system, project(batch.y - mean), self.TOLERANCE, self.ITERATIONS)
        image = (mean + spread(weights, spectrum)).clamp(0, 1)
        return torch.where(batch.mask == 1, batch.y, image) if self._corruption.exact else image


def stationary_prior(train: Batch) -> tuple[float, Float[Tensor, "h wf"]]:
    """The mean of the known pixels, and the variance of each Fourier mode (norm "ortho") of the anomalies from it.

    The variance is the mean over all images and over all modes of equal wavelength; unknown pixels count as the mean,
    which is made up for by dividing by the known share.

    Args:
        train: the training images.
    """
    share = train.valid.mean(dtype=torch.float64).item()
    mean = (train.x * train.valid).mean(dtype=torch.float64).item() / share
    anomalies = (train.x - mean) * train.valid
    power = isotropic(torch.fft.fft2(anomalies, norm="ortho").abs().square().mean((0, 1))) / share
    return mean, power[:, : power.shape[1] // 2 + 1]


def spread(v: Images, spectrum: Float[Tensor, "h wf"]) -> Images:
    """B v for a periodic, stationary covariance B.

    Args:
        v: images.
        spectrum: the variances of the Fourier modes.
    """
    return torch.fft.irfft2(torch.fft.rfft2(v) * spectrum, s=v.shape[-2:])


def isotropic(power: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """The mean power of all modes of ``fft2`` with the same |k|, for each mode."""
    row, column = (torch.fft.fftfreq(n, dtype=torch.float64) for n in power.shape)
    k = (row[:, None].square() + column.square()).sqrt()
    ring = torch.unique((1e6 * k).round(), return_inverse=True)[1].to(power.device)
    total = torch.bincount(ring.flatten(), power.flatten().double()) / torch.bincount(ring.flatten())
    return total[ring].to(power.dtype)


def conjugate_gradients(system: Callable[[Images], Images], right: Images, tolerance: float, iterations: int) -> Images:
    """The solution of ``system(v) = right`` for each sample, up to a residual of ``tolerance`` times ``right``.

    A sample that has converged is left as it is, so that no other sample in its batch changes it. What has not
    converged after so many ``iterations`` is returned as it is then.
    """

    def dot(a: Images, b: Images) -> Float[Tensor, "b 1 1 1"]:
        return (a * b).sum((1, 2, 3), keepdim=True)

    solution, residual, direction = torch.zeros_like(right), right, right
    square = dot(residual, residual)
    goal = tolerance**2 * square
    for _ in range(iterations):
        going = square > goal
        if not going.any():
            break
        along = system(direction)
        step = torch.where(going, square / dot(direction, along).clamp(min=1e-30), 0.0)
        solution, residual = solution + step * direction, residual - step * along
        square, before = dot(residual, residual), square
        direction = residual + square / before.clamp(min=1e-30) * direction
    return solution


def turned(image: Images, quarters: int, mirrored: bool) -> Images:
    """Images turned by so many quarters of a circle, after the mirroring of their columns if it is asked for."""
    return torch.rot90(image.flip(3) if mirrored else image, quarters, (2, 3))


def turned_back(image: Images, quarters: int, mirrored: bool) -> Images:
    """The inverse of :func:`turned`."""
    back = torch.rot90(image, -quarters, (2, 3))
    return back.flip(3) if mirrored else back


class Analogues:
    """The mean of the training images, weighted by their fit to the seen pixels: w ∝ exp(−Σ (y − a x_k)²/2s²).

    Args:
        images: the training images x_k.
        corruption: of the data; not a coarsening.
        invariant: other orientations and contrasts of an image are as likely as the image itself. All turned and
            mirrored images take part, each with the factor a of its contrast around mid-grey that fits best, between ½
            and 2. Otherwise a = 1.
    """

    def __init__(self, images: Images, corruption: Corruption, invariant: bool) -> None:
        self._images, self._corruption, self._invariant = images, corruption, invariant

    def __call__(self, batch: Batch, scale: Levels) -> Images:
        library = self._images.to(batch.y).flatten(1) - 0.5
        turns = [(0, False)]
        if self._invariant:
            quarters = range(4) if batch.y.shape[-2] == batch.y.shape[-1] else (0, 2)
            turns = [(quarter, mirrored) for quarter in quarters for mirrored in (False, True)]
        fits = [self._fit(turned_back(batch.y, *t), turned_back(batch.mask, *t), library) for t in turns]
        misfit = torch.cat([misfit for misfit, _ in fits], 1)
        weights = (-misfit / (2 * scale.square()[:, None])).softmax(1).chunk(len(turns), 1)
        image = torch.full_like(batch.y, 0.5)
        for turn, weight, (_, contrast) in zip(turns, weights, fits, strict=True):
            image += turned(((weight * contrast) @ library).view_as(batch.y), *turn)
        return torch.where(batch.mask == 1, batch.y, image) if self._corruption.exact else image

    def _fit(
        self, y: Images, mask: Images, library: Float[Tensor, "n p"]
    ) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
        """Misfit of each training image to y, and its contrast a."""
        seen = mask.flatten(1)
        values = (y.flatten(1) - 0.5) * seen
        product, square = values @ library.T, seen @ library.square().T
        contrast = torch.ones_like(product)
        if self._invariant:
            contrast = (product / square.clamp(min=1e-6)).clamp(0.5, 2)
        return values.square().sum(1, keepdim=True) - 2 * contrast * product + contrast.square() * square, contrast
