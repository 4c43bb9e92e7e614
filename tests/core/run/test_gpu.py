"""What only a CUDA device can show; skipped without one."""

from __future__ import annotations

import math

import pytest
import torch

from eai.core.files import read_json
from tests.runs import TINY, Train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("accelerator", ["gpu", "ddp", "fsdp"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_on_a_gpu_scores_like_training_on_a_cpu(accelerator: str, precision: str, train: Train) -> None:
    on_cpu = train(*TINY, run="cpu")
    on_gpu = train(
        *TINY, f"accelerator={accelerator}", "accelerator.devices=1", f"accelerator.precision={precision}", run="gpu"
    )
    expected, got = (read_json(run.metrics) for run in (on_cpu, on_gpu))
    # Single precision differs in rounding, bfloat16 has three digits.
    assert got["test/j_ratio"] == pytest.approx(expected["test/j_ratio"], rel=1e-3 if precision == "32-true" else 0.1)
    assert read_json(on_gpu.baselines)["blue"]["test/j_ratio"] == pytest.approx(1, abs=1e-5)


def test_data_can_be_generated_on_the_gpu(train: Train) -> None:
    run = train(*TINY, "accelerator=gpu", "data.device=cuda")
    assert all(math.isfinite(value) for value in read_json(run.metrics).values())


def test_run_on_a_gpu_repeats_itself(train: Train) -> None:
    one, two = (train(*TINY, "accelerator=gpu", run=name) for name in ("a", "b"))
    assert one.metrics.read_bytes() == two.metrics.read_bytes()
