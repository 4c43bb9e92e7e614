"""The wave of slide 2.1 and its exact solution operator. Sizes: B=3, n=13, two channels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from eai.tasks.dynamics.data import SingleWave

B, N, C = 3, 13, 2


@pytest.fixture
def field(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(B, N, C, generator=generator, dtype=torch.float64)


def step(data: SingleWave, u: torch.Tensor) -> torch.Tensor:
    return data.solve(u, u[:, :, :0], 1)[:, 0]


def test_trajectory_equals_the_formula_of_the_slides_point_by_point() -> None:
    wave = SingleWave(length=7.0, nx=N, nt=9, speed=0.4)
    u = wave.batch("test").u
    assert u.shape == (1, 9, N, 1)
    for t in range(9):
        for i in range(N):
            expected = math.sin(2 * math.pi / 7.0 * (i * 7.0 / N) - 0.4 * t)
            assert u[0, t, i, 0].item() == pytest.approx(expected, abs=1e-6)


def test_the_wave_of_the_slides_moves_by_2_387_cells_per_step() -> None:
    assert SingleWave().courant == pytest.approx((2.387,), abs=5e-4)
    assert SingleWave(speed=-0.6).cells == pytest.approx(-SingleWave().cells)


def test_training_pairs_are_the_successive_states_of_the_trajectory() -> None:
    wave = SingleWave(nx=N, nt=9)
    pairs, whole = wave.batch("train").u, wave.batch("val").u[0]
    assert torch.equal(pairs[:, 0], whole[:-1])
    assert torch.equal(pairs[:, 1], whole[1:])
    assert torch.equal(wave.batch("test").u[0], whole)


@pytest.mark.parametrize(("nt", "sizes"), [(15, (12, 1, 1)), (5, (2, 1, 1)), (30, (24, 2, 3))])
def test_split_in_time_trains_then_validates_then_tests_and_loses_no_pair(nt: int, sizes: tuple[int, ...]) -> None:
    wave, whole = SingleWave(nt=nt, split="time"), SingleWave(nt=nt).batch("train").u
    train, (val,), (test,) = (wave.batch(split).u for split in ("train", "val", "test"))
    later = [torch.stack([states[:-1], states[1:]], dim=1) for states in (val, test)]
    assert tuple(map(len, (train, *later))) == sizes
    assert torch.equal(torch.cat([train, *later]), whole)


@pytest.mark.parametrize("speed", [0.6, -0.6, 2 * math.pi / N])
def test_exact_step_carries_each_state_of_the_wave_to_the_next(speed: float) -> None:
    wave = SingleWave(nx=N, nt=9, speed=speed)
    u = wave.trajectory()
    torch.testing.assert_close(step(wave, u[:-1]), u[1:], rtol=0, atol=1e-12)


def test_exact_step_turns_mode_k_by_k_times_the_speed(field: torch.Tensor) -> None:
    speed = 0.6
    moved = step(SingleWave(nx=N, speed=speed), field)
    for b in range(B):
        for c in range(C):
            modes = np.fft.fft(field[b, :, c].numpy())
            k = np.fft.fftfreq(N, 1 / N)
            expected = np.fft.ifft(modes * np.exp(-1j * k * speed)).real
            np.testing.assert_allclose(moved[b, :, c].numpy(), expected, atol=1e-11)


def test_exact_step_by_whole_cells_rolls_any_field(field: torch.Tensor) -> None:
    moved = step(SingleWave(nx=N, speed=-2 * math.pi * 3 / N), field)
    torch.testing.assert_close(moved, field.roll(-3, dims=1), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "value"),
    [("length", 0.0), ("nx", 2), ("nt", 2), ("speed", 0.0), ("speed", 3.2), ("batch_size", 0), ("seed", -1)],
)
def test_argument_out_of_range_is_refused_by_its_name_and_value(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected .*, got {value}"):
        SingleWave(**{name: value})


@pytest.mark.parametrize("nt", [4, 3])
def test_split_in_time_that_leaves_a_split_empty_is_refused(nt: int) -> None:
    with pytest.raises(ValueError, match=rf"^nt: expected 5 or more.*got {nt}"):
        SingleWave(nt=nt, split="time")
