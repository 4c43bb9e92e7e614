"""What a training needs beside weights to go on exactly: random numbers, and a schedule of another length."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

log = logging.getLogger("eai")


def stretch_schedule(
    checkpoint: dict[str, Any],
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | ReduceLROnPlateau,
    epochs: int | None,
) -> None:
    """Replace the saved schedule by one of the new number of epochs, at the place where it would be by now.

    Args:
        checkpoint: whose schedule and learning rates are replaced; a schedule that follows a score stays.
        optimizer: as configured for the new number of epochs.
        scheduler: of that optimizer.
        epochs: the new number, for the log.
    """
    if isinstance(scheduler, ReduceLROnPlateau):
        return
    optimizer.step()  # a no-op without gradients: torch warns if a schedule moves before its optimizer
    for _ in range(checkpoint["lr_schedulers"][0]["last_epoch"]):
        scheduler.step()
    checkpoint["lr_schedulers"][0] = scheduler.state_dict()
    for saved, fresh in zip(checkpoint["optimizer_states"][0]["param_groups"], optimizer.param_groups, strict=True):
        saved.update({name: value for name, value in fresh.items() if name != "params"})
    log.info(
        "the schedule of the learning rate now spans %d epochs; it continues at %.3g",
        epochs,
        optimizer.param_groups[0]["lr"],
    )


def random_state() -> dict[str, Any]:
    """The state of torch's generators."""
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Go on from what :func:`random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
