"""Slide 2.3: learning the analysis from the variational cost (AI-Var: Keller and Potthast 2024).

Scores (``val/…`` and ``test/…``), from means over all samples or all their observations; J is the 3D-Var cost, x* its
exact minimiser (BLUE), d_ob = y − H(x_b), d_oa = y − H(x_a), d_ab = H(x_a) − H(x_b):

* ``j_ratio`` = ΣJ(x_a) / ΣJ(x*): 1 at the optimum.
* ``j_skill`` = 1 − (J − J*)/(J_b − J*): 0 for the background, 1 for the optimum.
* ``optimum_unconverged``: share of the samples whose search for x* did not converge; 0 for a linear H.
* ``chi2`` = 2ΣJ/Σp; 1 is expected at the optimum of a consistent experiment.
* ``loss`` = the training loss (J, or the slides' own), with ``loss/background`` and ``loss/observation``.
* ``rmse_background``, ``rmse_analysis``, ``rmse_optimum``: root mean square distance from the truth x_t.
* ``rmse_background/<variable>``, ``rmse_analysis/<variable>``, ``rmse_optimum/<variable>``: the same in the variable's
  units and weighted by area (the cosine of latitude), for states of a file.
* ``gap_to_optimum``: root mean square distance of x_a from x*.
* ``gradient_norm`` = √(Σ gᵀBg at x_a / Σ gᵀBg at x_b), g = ∇J: 0 at the optimum.
* ``dfs`` = mean tr(HK), degrees of freedom for signal; ``dfs_realised`` = mean 2J_b(x_a), the same at the optimum.
* ``o_b_mean``, ``o_b_std``, ``o_a_mean``, ``o_a_std``: of the departures; ``o_a_withheld``: root mean square departure
  from observations that were not assimilated (present if there are any).
* ``sigma_o``, ``sigma_b``: the assumed standard deviations, in observation space; ``sigma_o_true`` = √E[(y − H(x_t))²]
  and ``sigma_b_true`` = √E[(H(x_t) − H(x_b))²]: the true ones; ``sigma_o_desroziers`` = √E[d_oa d_ob] and
  ``sigma_b_desroziers`` = √E[d_ab d_ob] (Desroziers et al. 2005): equal to them at the optimum of a consistent
  experiment.
* ``bias``: mean offset of the background that the analysis finds, ``bias_true``: the true one; for a loss with a
  ``bias_sigma``.

Reference methods:

* ``background``: x_b itself; ``blue``: x*, the optimum of the cost assumed; ``blue_truth``: that of the cost with the
  truth's B and R and of a background without its bias, an oracle, if the data have any of their own.
* ``blue_untuned``: the optimum of the cost before ``tuning``; ``blue_without_bias``: without ``bias_sigma``.
* ``pcg_<k>_background``, ``pcg_<k>_uniform``, ``pcg_<k>_tuned``: k steps of conjugate gradients from x_b,
  preconditioned with B, with (B⁻¹ + ρ)⁻¹, and with (B⁻¹ + s ρ)⁻¹, s one number chosen on validation data; ρ is the mean
  of R⁻¹ over the grid. k is the number of steps of the net's solver (8 if it has none), with B also two more.
* ``first_guess``: the net without its steps; ``loss_minimiser``: the optimum of the slides' loss.

``measurements.json`` holds the ``multiplications`` of one analysis beside the seconds (see ``multiplications.py``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from eai.core.errors import ConfigError, require
from eai.core.learn.data import DataModule, widened
from eai.core.learn.export import Variable
from eai.core.learn.figures import Drawing
from eai.core.learn.ranks import from_rank_zero, rank
from eai.core.learn.scores import PerSample
from eai.core.learn.task import Task
from eai.tasks.assimilation import drawings, export, multiplications
from eai.tasks.assimilation.data import Twin, grid_of, in_truth
from eai.tasks.assimilation.elsewhere import KEY, Given, Scaling, batch_of, kept, scaling_of
from eai.tasks.assimilation.file_covariance import estimates_in
from eai.tasks.assimilation.osse import OSSE
from eai.tasks.assimilation.scores import analysis_diagnostics, final_scores, in_units
from eai.tasks.assimilation.tuning import METHODS, Factors
from eai.variational.batch import Batch
from eai.variational.cost import VariationalCost
from eai.variational.cost_base import Cost
from eai.variational.eigenbasis import FixedDouble
from eai.variational.solver import UnrolledSolver, best_scale, conjugate_gradients

log = logging.getLogger("eai")
RIVAL_STEPS = 8  # of conjugate gradients, beside a net that has no steps of its own
TUNED_ON = 2000  # samples of the training data


class Assimilation(Task[Batch, Tensor, Tensor]):
    """A net from (x_b, y) to the analysis x_a, scored against the exact minimiser of the 3D-Var cost.

    Args:
        net: Batch → analysis (b, n).
        loss: the cost that is minimised; :class:`VariationalCost` or :class:`SlidesCost`.
        optimizer, scheduler: see :class:`eai.core.learn.task.Task`.
        tuning: of the cost's B and R, once, by the innovations of the training data: ``desroziers`` or ``likelihood``
            (see ``tuning.py``); null: as assumed. The factors found are part of checkpoints.
    """

    watched = ("j_ratio", "rmse_analysis", "gap_to_optimum", "gradient_norm", "dfs_realised", "o_a_withheld")
    loss: Cost
    _factors = FixedDouble(persistent=True)

    def __init__(
        self,
        net: nn.Module,
        loss: Cost,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler] | None = None,
        tuning: Literal["desroziers", "likelihood"] | None = None,
    ) -> None:
        super().__init__(net, loss, optimizer, scheduler)
        if isinstance(loss, VariationalCost):
            self.cost = loss.exact()
        else:
            self.cost = VariationalCost(loss.covariance, loss.operator, loss.obs_error)
        require(
            tuning is None or (isinstance(loss, VariationalCost) and not self.cost.bias_variance),
            "tuning",
            "null, unless the loss is a VariationalCost without bias_sigma",
            tuning,
        )
        self.tuning = tuning
        self.scaling: Scaling | None = None  # of states from a file
        self._kept: dict[str, Any] | None = None  # of that file, in checkpoints
        if tuning:
            self.untuned = self.cost.exact()
            self._factors = torch.ones(3, dtype=torch.float64)
            self.register_load_state_dict_post_hook(lambda *_: self.use(self.factors))

    def prepare(self, data: DataModule[Batch]) -> None:
        if self.tuning:
            told = Batch(*(field[:TUNED_ON].cpu() for field in data.samples["train"].all))
            self.use(from_rank_zero(lambda: METHODS[str(self.tuning)](self.untuned, told)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self._kept is not None:
            checkpoint[KEY] = self._kept

    def make_room(self, checkpoint: Mapping[str, Any]) -> None:
        if KEY in checkpoint:
            self.scaling = scaling_of(checkpoint[KEY])

    @torch.no_grad()
    def analyse(
        self,
        background: Float[Tensor, "b ny nx"],
        months: Int[Tensor, " b"],
        latitude: Float[Tensor, "b p"],
        longitude: Float[Tensor, "b p"],
        values: Float[Tensor, "b p"],
        sigma: Float[Tensor, "b p"],
    ) -> Float[Tensor, "b ny nx"]:
        """The analysis of a background and observations of one's own, in the variable's units.

        Args:
            background, months, latitude, longitude, values, sigma: see :class:`eai.tasks.assimilation.elsewhere.Given`.

        Raises:
            ValueError: the net was not trained on data=assimilation/netcdf, or these are no such data.
        """
        if self.scaling is None:
            raise ValueError("analyse: expected a net trained on data=assimilation/netcdf")
        batch = batch_of(
            self.scaling, self.cost.operator, Given(background, months, latitude, longitude, values, sigma)
        )
        x = self.predict(self.transfer_batch_to_device(batch, self.device, 0)).cpu().double()
        return (self.scaling.sigma * x + self.scaling.climatology(months)).unflatten(1, self.scaling.grid.shape)

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.tuning and rank() == 0:
            found = ", ".join(f"{name} × {value:.3g}" for name, value in self.factors._asdict().items())
            log.info("tuned by %s of the innovations: %s", self.tuning, found)

    @property
    def factors(self) -> Factors:
        """What the assumed statistics were multiplied by."""
        return Factors(*self._factors.tolist()) if self.tuning else Factors()

    def use(self, factors: Factors) -> None:
        """Multiply the assumed statistics by ``factors``, in every cost of the task and its net."""
        covariance = self.untuned.covariance.rescaled(factors.variance, factors.length)
        obs_error = self.untuned.obs_error.inflated(factors.sigma_o)
        for cost in [module for module in self.modules() if isinstance(module, Cost) and module is not self.untuned]:
            cost.covariance = covariance.to(cost.covariance.eigenvalues.device)
            cost.obs_error = obs_error
        self._factors = torch.tensor(factors, dtype=torch.float64, device=covariance.eigenvalues.device)

    def check_data(self, data: DataModule[Batch]) -> None:
        grid, n = grid_of(data), self.loss.covariance.n
        if grid != self.loss.covariance.grid:
            raise ConfigError(f"model.loss.covariance.n: expected data.n = {grid}, got {self.loss.covariance.grid}")
        if isinstance(data, OSSE):
            self.scaling = data.states.scaling
            self._kept = kept(self.scaling, estimates_in(data.covariance))
        batch = data.batch("val", 100)
        low, high = int(batch.obs_index.min()), int(batch.obs_index.max())
        if low < 0 or high >= n:
            raise ConfigError(f"data: expected observations at grid points 0 to {n - 1}, got {low} to {high}")

    def forward(self, batch: Batch) -> Float[Tensor, "b n"]:
        return self.net(batch)

    def estimate(self, batch: Batch, output: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        return output.to(torch.promote_types(output.dtype, torch.float32))

    def scores(self, batch: Batch, estimate: Float[Tensor, "b n"]) -> Mapping[str, PerSample]:
        batch = widened(batch)
        terms = {f"loss_{name}": term for name, term in self.loss(estimate, batch).items()}
        return {**analysis_diagnostics(self.cost, batch, estimate), **terms}

    def summarise(self, means: Mapping[str, float]) -> dict[str, float]:
        terms = {"loss/background": means["loss_background"], "loss/observation": means["loss_observation"]}
        scores = final_scores(means)
        units = in_units(means, self.scaling.variable, self.scaling.sigma) if self.scaling else {}
        return {**scores, **units, "loss": sum(terms.values()), **terms}

    @property
    def _rival_steps(self) -> int:
        return self.net.steps if isinstance(self.net, UnrolledSolver) else RIVAL_STEPS

    def baselines(self, data: DataModule[Batch]) -> Mapping[str, Callable[[Batch], Tensor]]:
        solver = self.net if isinstance(self.net, UnrolledSolver) else None
        steps = self._rival_steps

        @cache  # looked for when it is first asked for
        def tuned() -> float:
            return best_scale(self.cost, self.transfer_batch_to_device(data.batch("val", 500), self.device, 0), steps)

        references: dict[str, Callable[[Batch], Tensor]] = {
            "background": lambda batch: batch.xb,
            f"pcg_{steps}_background": lambda batch: conjugate_gradients(self.cost, batch, steps),
            f"pcg_{steps + 2}_background": lambda batch: conjugate_gradients(self.cost, batch, steps + 2),
            f"pcg_{steps}_uniform": lambda batch: conjugate_gradients(self.cost, batch, steps, 1.0),
            f"pcg_{steps}_tuned": lambda batch: conjugate_gradients(self.cost, batch, steps, tuned()),
            "blue": self.cost.minimiser,
        }
        if solver:
            references["first_guess"] = lambda batch: solver.first_guess(batch)
        if isinstance(data, Twin) and data.misspecified:
            true_b, bias = deepcopy(data.true_covariance).to(self.device), data.bias
            truth = VariationalCost(true_b, self.cost.operator, data.true_obs_error)
            references["blue_truth"] = lambda batch: truth.minimiser(in_truth(batch, bias))
        if self.tuning:
            references["blue_untuned"] = self.untuned.minimiser
        if self.cost.bias_variance:
            plain = VariationalCost(
                self.cost.covariance.plus_constant(-self.cost.bias_variance), self.cost.operator, self.cost.obs_error
            )
            references["blue_without_bias"] = plain.minimiser
        if not isinstance(self.loss, VariationalCost):
            references["loss_minimiser"] = self.loss.minimiser
        return references

    @torch.no_grad()
    def measure(self, data: DataModule[Batch]) -> Mapping[str, Mapping[str, float]]:
        batch = self.transfer_batch_to_device(data.batch("test", 2), self.device, 0)
        counts = multiplications.of_methods(self.cost, self.net, self._rival_steps, batch)
        costs = {name: {"multiplications": float(count)} for name, count in counts.items()}
        if self.tuning:
            costs.setdefault("blue", {}).update(
                {f"factor_{name}": value for name, value in self.factors._asdict().items()}
            )
        return costs

    def coordinates(self, data: DataModule[Batch]) -> Mapping[str, Variable]:
        return export.coordinates(data)

    def exported(
        self, data: DataModule[Batch], batch: Batch, estimates: Mapping[str, Float[Tensor, "b n"]]
    ) -> Mapping[str, Variable]:
        return export.variables(data, batch, estimates)

    def figures(self, batch: Batch, estimate: Float[Tensor, "b n"]) -> Mapping[str, Drawing]:
        return drawings.of_analyses(self.cost, batch, estimate)

    def closing_figures(
        self, data: DataModule[Batch], batch: Batch, estimate: Float[Tensor, "b n"]
    ) -> Mapping[str, Drawing]:
        many = self.transfer_batch_to_device(data.batch("test", 500), self.device, 0)
        return drawings.at_end(self.cost, batch, many, self.predict)
