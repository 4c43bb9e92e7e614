"""Inputs and increments of a net in units of the training data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.tasks.dynamics.data import Batch

SCALES = ("u_mean", "u_std", "delta_std")


class Scaled(nn.Module):
    """Inputs and increments in units of the training data: a mix-in for nets that do not know the data's scales."""

    u_mean: Tensor
    u_std: Tensor
    delta_std: Tensor
    static_mean: Tensor
    static_std: Tensor
    static_features: int
    state_channels: int

    def register_scales(self, static_features: int, state_channels: int = 1) -> None:
        """Register the scales as buffers: zero means and unit deviations until :meth:`fit_scales`."""
        require(static_features >= 0, "static_features", "0 or more", static_features)
        require(state_channels >= 1, "state_channels", "at least 1", state_channels)
        self.static_features, self.state_channels = static_features, state_channels
        for name in SCALES:
            self.register_buffer(name, torch.zeros(state_channels) if name == "u_mean" else torch.ones(state_channels))
        self.register_buffer("static_mean", torch.zeros(static_features))
        self.register_buffer("static_std", torch.ones(static_features))
        read_single_channel(self, dict.fromkeys(SCALES, 1))

    def fit_scales(self, batch: Batch) -> None:
        """Set the scales of each channel from training data; that of increments is from one-step differences."""
        all_but_channels = (0, 1, 2)
        self.u_mean.copy_(batch.u.mean(all_but_channels))
        self.u_std.copy_(batch.u.std(all_but_channels).clamp(min=1e-6))
        self.delta_std.copy_((batch.u[:, 1:] - batch.u[:, :-1]).std(all_but_channels).clamp(min=1e-6))
        if self.static_features:
            mean, std = batch.features()
            self.static_mean.copy_(mean)
            self.static_std.copy_(std.clamp(min=1e-6))

    def inputs(self, u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n f"]:
        """The state and, where there are ``static_features``, those, all with zero mean and unit deviation."""
        known = (static - self.static_mean) / self.static_std if self.static_features else static[:, :, :0]
        return torch.cat([(u - self.u_mean) / self.u_std, known], dim=2)


def read_single_channel(module: nn.Module, axes: Mapping[str, int]) -> None:
    """Let a module read checkpoints from before states had several channels.

    Args:
        module: whose tensors have got a first axis, of channels.
        axes: of each such tensor now.
    """

    def add_channel(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
        for name, number in axes.items():
            tensor = state.get(f"{prefix}{name}")
            if tensor is not None and tensor.ndim == number - 1:
                state[f"{prefix}{name}"] = tensor[None]

    module.register_load_state_dict_pre_hook(add_channel)
