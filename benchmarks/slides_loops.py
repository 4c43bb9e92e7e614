"""The training loops of slides 2.1, 2.2 and 2.3 as a notebook has them, for comparison.

They keep what costs time there: a Data object per sample and collation into one block-diagonal graph, patterns drawn
one by one, samples fetched one by one, B inverted at every step, losses read back at every step, and validation
after every epoch where the slide has it (2.1). No figures. They start from the weights of our own net.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
import torch_geometric.data as graph_data
import torch_geometric.nn as graph_nn
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torch_geometric.loader import DataLoader as GraphLoader

SlidesLoop = Callable[[nn.Module], Iterator[float]]


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """The same layers in the same order have the same parameters."""
    with torch.no_grad():
        for ours, theirs in zip(source.parameters(), target.parameters(), strict=True):
            theirs.copy_(ours)


class WaveNet(nn.Module):
    """Four graph convolutions and three linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(graph_nn.GCNConv(a, width) for a in (2, width, width, width))
        self.linear = nn.ModuleList(nn.Linear(width, b) for b in (width, width, 1))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x = functional.leaky_relu(convolution(x, edge_index))
        for linear in self.linear[:-1]:
            x = functional.leaky_relu(linear(x))
        return self.linear[-1](x)


def wave_graphs(nx: int = 25, nt: int = 15, speed: float = 0.6) -> list[graph_data.Data]:
    """One Data object for each pair of successive states."""
    angle = 2 * np.pi * np.arange(nx) / nx
    states = np.sin(angle - speed * np.arange(nt)[:, None])
    chord = np.hypot(np.sin(angle)[:, None] - np.sin(angle), np.cos(angle)[:, None] - np.cos(angle))
    edges = torch.tensor((chord < 0.5).astype(int)).nonzero().t().contiguous()
    place = torch.tensor(np.arange(1, nx + 1) / nx, dtype=torch.float).unsqueeze(1)
    graphs = []
    for now, after in pairwise(states):
        value, target = (torch.tensor(state, dtype=torch.float).unsqueeze(1) for state in (now, after))
        graphs.append(graph_data.Data(x=torch.cat((value, place), dim=1), y=target, edge_index=edges))
    return graphs


def dynamics(ours: nn.Module) -> Iterator[float]:
    """Slide 2.1: an epoch is one step with all 14 pairs, then validation on the same pairs."""
    net, criterion, graphs = WaveNet(30), nn.MSELoss(), wave_graphs()
    copy_weights(ours, net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0)
    train, test = GraphLoader(graphs, batch_size=14, shuffle=True), GraphLoader(graphs, batch_size=14)
    history = []
    while True:
        net.train()
        for batch in train:
            optimizer.zero_grad()
            loss = criterion(net(batch.x, batch.edge_index), batch.y)
            loss.backward()
            optimizer.step()
        net.eval()
        errors = [criterion(net(b.x, b.edge_index), b.y).detach().numpy() for b in test]
        history.append(np.mean(errors))
        yield loss.item()


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-1, 1, size)
    return np.meshgrid(axis, axis)


def _unit(z: np.ndarray) -> np.ndarray:
    return (z - z.min()) / (z.max() - z.min())


def _circles(size: int) -> np.ndarray:
    x, y = _grid(size)
    return _unit(np.sin(5 * (x**2 + y**2)))


def _stripes(size: int, axis: int) -> np.ndarray:
    z = np.zeros((size, size))
    z[(slice(None), slice(None, None, 2)) if axis else slice(None, None, 2)] = 1
    return z


def _diagonal(size: int) -> np.ndarray:
    z = np.zeros((size, size))
    for i in range(size):
        z[i, i] = 1
    return z


def _star(size: int) -> np.ndarray:
    x, y = _grid(size)
    return _unit(np.sin(10 * np.arctan2(y, x)))


def _spiral(size: int) -> np.ndarray:
    x, y = _grid(size)
    return _unit(np.sin(6 * np.sqrt(x**2 + y**2)))


def _noise(size: int) -> np.ndarray:
    x, y = _grid(size)
    z = np.random.rand(size, size)  # noqa: NPY002 - as in the slides
    z[np.sqrt(x**2 + y**2) <= 0.5] = 1
    return z


def _diamond(size: int) -> np.ndarray:
    i, j = np.abs(np.indices((size, size)) - size // 2)
    return (i + j <= size // 2).astype(float)


def _dots(size: int) -> np.ndarray:
    z = np.zeros((size, size))
    z[::4, ::4] = 1
    return z


PATTERNS: tuple[Callable[[int], np.ndarray], ...] = (
    _circles, lambda size: _stripes(size, 1), lambda size: _stripes(size, 0), _diagonal,
    lambda size: np.indices((size, size)).sum(axis=0) % 2, _star, _spiral, _noise, _diamond, _dots,
)  # fmt: skip


class ImageNet(nn.Module):
    """Three convolutions of stride 2 and three transposed ones."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (1, 16, 32, 64)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(sizes))
        up = ((64, 32, 0), (32, 16, 1), (16, 1, 1))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 3, 2, 1, output_padding=c) for a, b, c in up)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.down, *self.up[:-1]):
            x = torch.relu(layer(x))
        return torch.sigmoid(self.up[-1](x))


def recovery(ours: nn.Module) -> Iterator[float]:
    """Slide 2.2, autoencoder: every step draws 16 patterns, one after the other."""
    net, criterion = ImageNet(), nn.MSELoss()
    copy_weights(ours, net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    net.train()
    while True:
        images = [random.choice(PATTERNS)(28) for _ in range(16)]
        batch = torch.tensor(np.array(images), dtype=torch.float32).unsqueeze(1)
        loss = criterion(net(batch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


class Pairs(Dataset):
    """Backgrounds, observations and their positions, fetched one sample at a time."""

    def __init__(self, n: int, count: int) -> None:
        rng = np.random.default_rng(0)
        shifted = np.round(np.arange(n) * 2 * np.pi / n, 3) - 2 * np.pi / count * np.arange(count)[:, None]
        parabola = 2 * shifted**2 / (shifted**2).max(1, keepdims=True) - 1
        truth = np.where(rng.integers(2, size=(count, 1)) == 0, parabola, np.sin(shifted))
        places = np.sort([rng.choice(10, 3, replace=False) + 10 * k for k in range(6)]).flatten()
        self.idx = np.tile(places, (count, 1))
        self.obs = np.take_along_axis(truth, self.idx, 1) + rng.normal(0, 0.025, self.idx.shape)
        self.fg, self.n = 0.5 * truth, n

    def __len__(self) -> int:
        return len(self.fg)

    def __getitem__(self, k: int) -> dict[str, np.ndarray | int]:
        return {"fg": self.fg[k], "obs": self.obs[k], "idx": self.idx[k] / self.n, "no": k}


def _slides_cost(z: Tensor, batch: dict[str, Tensor], b_matrix: Tensor, n: int) -> Tensor:
    inverse = torch.inverse(b_matrix)
    background = torch.einsum("bi,ij,bj->b", z, inverse, z).mean() / len(z)
    places = torch.from_numpy(np.rint(batch["idx"].numpy() * n).astype(int))
    seen = z[torch.arange(len(z)).unsqueeze(-1), places]
    return background + torch.mean((seen - batch["obs"]) ** 2) / (0.05**2 * places.shape[1])


def assimilation(ours: nn.Module) -> Iterator[float]:
    """Slide 2.3: full batch of 1,000 samples, collated one by one; B is inverted in every loss."""
    n, p = 60, 18
    x = np.round(np.arange(n) * 2 * np.pi / n, 3)
    b_matrix = torch.tensor(0.5 * np.exp(-((x[:, None] - x) ** 2) / (2 * 1.5**2)) + 0.001 * np.eye(n))
    wide = (n + p) ** 2
    net = nn.Sequential(nn.Linear(n + 2 * p, wide), nn.Tanh(), nn.Linear(wide, n), nn.ReLU(), nn.Linear(n, n))
    copy_weights(ours, net)
    optimizer = torch.optim.Adam(net.parameters(), lr=2.5e-3)
    loader = DataLoader(Pairs(n, 1000), batch_size=1000, shuffle=True)
    while True:
        for batch in loader:
            optimizer.zero_grad()
            inputs = torch.cat([batch[name].float() for name in ("fg", "obs", "idx")], dim=1)
            loss = _slides_cost(net(inputs).double(), batch, b_matrix, n)
            loss.backward()
            optimizer.step()
        yield loss.item()
