"""How far a forecast is from the truth: per-sample scores of the dynamics task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.learn.scores import PerSample

LOST = 1000.0  # the nRMSE of a rollout that has left all bounds, or is no number any more
USEFUL = 0.6  # the anomaly correlation down to which a forecast counts as useful, in weather services
GEOMETRIC = (100, 200)  # leads that a geometric mean is taken over
MODE_POWER = 1e-6  # of the total: a wavenumber with less is not scored

States = Float[Tensor, "b l n c"]


def mse(predicted: States, truth: States) -> Float[Tensor, " b"]:
    """Mean square error of each sample over leads, nodes and channels, at most ``LOST``² ."""
    return _bounded((predicted - truth).square().flatten(1).mean(1), LOST**2)


def mse_by_lead(predicted: States, truth: States) -> Float[Tensor, "b l"]:
    """Mean square error over nodes and channels, of each sample at each lead, at most ``LOST``²."""
    return _bounded((predicted - truth).square().flatten(2).mean(2), LOST**2)


def nrmse(predicted: States, truth: States) -> Float[Tensor, "b l"]:
    """RMSE / rms(truth) over nodes and channels, of each sample at each lead; 1 is a forecast of zero."""
    error = (predicted - truth).square().flatten(2).mean(2)
    return _bounded((error / truth.square().flatten(2).mean(2)).sqrt(), LOST)


def acc(predicted: States, truth: States, climatology: Float[Tensor, ""]) -> Float[Tensor, "b l"]:
    """Anomaly correlation Σ p't' / √(Σ p'² Σ t'²) with p' = p − climatology; 0 where one has no anomaly at all."""
    p, t = (field.double().flatten(2) - climatology.double() for field in (predicted, truth))
    norm = (p.square().sum(2) * t.square().sum(2)).sqrt()
    correlation = (p * t).sum(2) / norm.clamp(min=1e-30)
    return correlation.nan_to_num(0.0, 0.0, 0.0).to(truth.dtype)


def useful_lead_time(correlation: Float[Tensor, "b l"]) -> Float[Tensor, " b"]:
    """Steps until the anomaly correlation first falls below 0.6; all of them if it never does."""
    return (correlation >= USEFUL).to(correlation.dtype).cumprod(1).sum(1)


def mass_drift(predicted: States, truth: States) -> Float[Tensor, " b"]:
    """|mean of the last forecast − mean of the truth then| / rms(truth then)."""
    last = predicted[:, -1].flatten(1), truth[:, -1].flatten(1)
    drift = (last[0].mean(1) - last[1].mean(1)).abs() / last[1].square().mean(1).sqrt()
    return _bounded(drift, LOST)


def power_by_wavenumber(u: Float[Tensor, "b n c"], shape: tuple[int, ...]) -> Float[Tensor, "b k"]:
    """Variance of each shell of wavenumbers: Σ |û|² over round(|k|) = 0, 1, …, in the units of u²."""
    spectrum, shell = _spectrum(u, shape)
    return _by_shell(spectrum.abs().square(), shell, shape)


def mode_errors(
    predicted: Float[Tensor, "b n c"], truth: Float[Tensor, "b n c"], shape: tuple[int, ...], modes: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Errors of amplitude | √(Σ|û_p|²/Σ|û_t|²) − 1 | and phase |arg û_p û_t*| (radians), by wavenumber 1 … ``modes``.

    In two dimensions a shell of wavenumbers has one amplitude, and the mean of its phase errors with weights |û_t|².
    A sample weighs as much as its truth has variance there; one without any (below 1e-6 of its total) is left out.
    """
    p, shell = _spectrum(predicted.double().nan_to_num(0, LOST, -LOST).clamp(-LOST, LOST), shape)
    t, _ = _spectrum(truth.double(), shape)
    power = _by_shell(t.abs().square(), shell, shape)
    turn = _by_shell(t.abs().square() * (p * t.conj()).angle().abs(), shell, shape) / power.clamp(min=1e-30)
    ratio = (_by_shell(p.abs().square(), shell, shape) / power.clamp(min=1e-30)).sqrt()
    weight = torch.where(power > MODE_POWER * power.sum(1, keepdim=True), power, 0)
    errors = {}
    for k in range(1, min(modes, power.shape[1] - 1) + 1):
        errors[f"amplitude_error/mode_{k:02d}"] = (_bounded((ratio[:, k] - 1).abs(), LOST), weight[:, k])
        errors[f"phase_error/mode_{k:02d}"] = (turn[:, k], weight[:, k])
    return errors


def per_sample(
    u: Float[Tensor, "b t n c"],
    one_step: States,
    rollout: States,
    nrmse: Float[Tensor, "b l"],
    leads: Sequence[int],
    climatology: Float[Tensor, ""],
) -> dict[str, PerSample]:
    """Quantities of each trajectory whose means make the scores that all data have.

    Args:
        u: the truth.
        one_step, rollout: see :class:`eai.tasks.dynamics.forecast.Forecast`.
        nrmse: of the rollout, by lead.
        leads: to name.
        climatology: the mean of the training data.
    """
    truth = u[:, 1:]
    correlation, squares = acc(rollout, truth, climatology), mse_by_lead(rollout, truth)
    persisted = mse_by_lead(u[:, :1].expand_as(truth), truth)
    values: dict[str, PerSample] = {
        "mse": mse(one_step, truth),
        "mse_rollout": mse(rollout, truth),
        "mse_persistence": mse(u[:, :-1], truth),
        "nrmse": nrmse.mean(1),
        "useful_lead_time": useful_lead_time(correlation),
        "mass_drift": mass_drift(rollout, truth),
    }
    for lead in leads:
        at = lead - 1
        values[f"nrmse/lead_{lead:02d}"] = nrmse[:, at]
        values[f"acc/lead_{lead:02d}"] = correlation[:, at]
        values[f"mse_lead/{lead:02d}"] = squares[:, at]
        values[f"mse_lead_persistence/{lead:02d}"] = persisted[:, at]
    if truth.shape[1] >= min(GEOMETRIC):
        values |= {f"nrmse_each/{lead:03d}": error for lead, error in enumerate(nrmse.unbind(1), start=1)}
    return values


def final_scores(means: Mapping[str, float]) -> dict[str, float]:
    """The scores that all data have, from means over samples.

    Args:
        means: of what :func:`per_sample` gives, and of others, which stay as they are.
    """
    hidden = ("mse_persistence", "mse_lead", "nrmse_each", "square/")
    final = {name: mean for name, mean in means.items() if not name.startswith(hidden)}
    by_lead = [means[name] for name in sorted(means) if name.startswith("nrmse_each/")]
    for leads in GEOMETRIC:
        if len(by_lead) >= leads:
            logs = [math.log(max(mean, 1e-30)) for mean in by_lead[:leads]]
            final[f"gmean_{leads}"] = math.exp(math.fsum(logs) / leads)
    final["skill_persistence"] = _skill(means["mse"], means["mse_persistence"])
    for name, mean in means.items():
        if name.startswith("mse_lead/"):
            lead = name.removeprefix("mse_lead/")
            final[f"skill_persistence/lead_{lead}"] = _skill(mean, means[f"mse_lead_persistence/{lead}"])
    return final


def _skill(error: float, reference: float) -> float:
    return 1 - error / reference if reference > 0 else math.nan


def _bounded(value: Tensor, largest: float) -> Tensor:
    return value.nan_to_num(largest, largest, largest).clamp(max=largest)


def _spectrum(u: Float[Tensor, "b n c"], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Fourier coefficients (b, c, …), normalised by the number of points, and the shell of each."""
    field = u.transpose(1, 2).unflatten(2, shape)
    axes = tuple(range(2, 2 + len(shape)))
    spectrum = torch.fft.fftn(field, dim=axes, norm="forward")
    squared = torch.zeros((), device=u.device)
    for size in shape:
        squared = (
            squared[..., None] + (torch.fft.fftfreq(size, 1 / size, dtype=torch.float64, device=u.device)).square()
        )
    return spectrum, squared.sqrt().round().long()


def _by_shell(values: Tensor, shell: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Σ of (b, c, …) over channels and the modes of each shell: (b, k)."""
    flat = values.sum(1).flatten(1)
    most = round(math.hypot(*(size // 2 for size in shape)))
    sums = torch.zeros(len(flat), most + 1, dtype=flat.dtype, device=flat.device)
    return sums.index_add(1, shell.flatten(), flat)
