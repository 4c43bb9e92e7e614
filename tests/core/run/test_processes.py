"""Runs of several processes: the same gradients and scores as one, agreed stops, and nobody left behind."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import eai.core.run.build
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError, RankError
from eai.core.files import read_json
from eai.core.learn.data import Batches, Samples
from eai.core.run.finished import evaluate
from eai.core.run.gpus import process_count, reserved_gpus
from eai.core.run.processes import first_failure
from eai.core.schema import Accelerator
from tests.core.jobs import processes_in, report, run, started, until
from tests.core.run.children import agree_in_a_group, start
from tests.runs import TINY, Train, composed, curves_of

# Samples that two processes cannot share evenly, in training, validation and test.
ODD = (*TINY, "data.n_train=29", "figures.at_end=false")
TWO = ("accelerator=ddp_cpu", "data.batch_size=4")
LONG = (*ODD, *TWO, "epochs=100000", "reporting.line_every_n_epochs=1000")


class Numbers(Samples[Any]):
    """As many samples as are asked for, without content."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, epoch: int) -> None:
        pass


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("count", [3, 12, 13, 17, 25])
@pytest.mark.parametrize("seed", [None, 5])
def test_processes_share_each_global_batch_without_padding(processes: int, count: int, seed: int | None) -> None:
    samples = Numbers(count)
    whole = list(Batches(samples, 4 * processes, seed))
    parts = [list(batches := Batches(samples, 4, seed, rank, processes)) for rank in range(processes)]
    for rank, own in enumerate(parts):
        assert len(own) == len(Batches(samples, 4, seed, rank, processes))
    batches = [Batches(samples, 4, seed, rank, processes) for rank in range(processes)]
    for step, expected in enumerate(whole):
        shared = [own[step] for own, b in zip(parts, batches, strict=True) if step < len(own) and b.weight(step) > 0]
        assert torch.equal(torch.cat(shared), expected)
        # Means of parts, weighted, average to the mean over all.
        weights = [b.weight(step) for b in batches]
        means = [own[step].double().mean() if step < len(own) else 0.0 for own in parts]
        mean = sum(w * m for w, m in zip(weights, means, strict=True)) / processes
        assert float(mean) == pytest.approx(float(expected.double().mean()), rel=1e-12)


def test_ranks_gather_agree_and_refuse_together(tmp_path: Path) -> None:
    processes = [start(agree_in_a_group, rank, str(tmp_path)) for rank in range(2)]
    for process in processes:
        process.join(timeout=60)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0, 0]


def gradient(of: RunDirectory, start: RunDirectory, lr: float) -> dict[str, torch.Tensor]:
    after, before = (torch.load(r.last, weights_only=True)["state_dict"] for r in (of, start))
    return {name: (before[name] - after[name]).double() / lr for name in before if before[name].is_floating_point()}


@pytest.mark.timeout(300)
def test_two_processes_have_the_gradients_and_scores_of_one_and_leave_no_temporary_file(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    # One step over 5 samples, 3 and 2 of them to a process; plain gradient descent shows the gradient itself.
    lr = 1e-3
    step = (*TINY, "data.n_train=5", "epochs=1", "model.optimizer._target_=torch.optim.SGD", "figures.at_end=false")
    start = train(*step, "model.optimizer.lr=1e-30", run="start")
    one = train(*step, f"model.optimizer.lr={lr}", run="one")
    two = train(*step, *TWO, f"model.optimizer.lr={lr}", run="two")
    assert list((tmp_path / "temporary").iterdir()) == []
    expected, shared = gradient(one, start, lr), gradient(two, start, lr)
    size = max(float(g.abs().max()) for g in expected.values())
    assert size > 1
    for name in expected:
        # Weights are float32: a difference of two of them, divided by the learning rate, has this error.
        assert float((expected[name] - shared[name]).abs().max()) <= 1e-6 * max(size, 0.1 / lr), name

    scores = read_json(two.metrics)
    assert scores == pytest.approx(read_json(one.metrics), rel=1e-5)
    # The same weights, scored by one process: 11 test samples, 6 and 5 of them to a process.
    evaluate(composed("evaluate", [f"run={two.path}"]))
    (result,) = (two.path / "evaluations").iterdir()
    assert scores == pytest.approx(read_json(result / "metrics.json"), rel=1e-6)
    assert read_json(two.baselines)["blue"] == pytest.approx(read_json(one.baselines)["blue"], rel=1e-6)
    errors = [read_json(run.standard_errors)["model"]["test/j_ratio"] for run in (one, two)]
    assert errors[1] == pytest.approx(errors[0], rel=0.5)  # of all samples, in another order
    status = read_json(two.status)
    assert (status["processes"], status["global_batch_size"]) == (2, 8)
    assert report(two.path, 1)["state"] == "COMPLETED"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_signal_to_the_controller_stops_every_worker_and_the_run_goes_on_exactly(
    tmp_path: Path, clean_environment: dict[str, str], train: Train
) -> None:
    whole = train(*ODD, *TWO, "epochs=200", "validate_every_n_epochs=40", run="whole")
    cut = tmp_path / "cut"
    command = (*ODD, *TWO, "epochs=200", "validate_every_n_epochs=40", f"hydra.run.dir={cut}")
    with started("train", *command, cwd=tmp_path, env=clean_environment) as process:
        until((cut / "checkpoints" / "last.ckpt").is_file)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 143
        assert processes_in(cut) == []
    assert read_json(cut / "status.json")["state"] == "PREEMPTED"
    assert 4 <= torch.load(cut / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] < 800
    assert run("train", *command, cwd=tmp_path, env=clean_environment) == 0
    resumed = RunDirectory(cut)
    assert resumed.metrics.read_bytes() == whole.metrics.read_bytes()
    assert curves_of(resumed) == curves_of(whole)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGUSR1, signal.SIGKILL])
def test_no_process_is_left_when_the_controller_is_stopped_or_killed(
    signum: int, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    cut = tmp_path / "cut"
    with started("train", *LONG, f"hydra.run.dir={cut}", cwd=tmp_path, env=clean_environment) as process:
        until((cut / "checkpoints" / "last.ckpt").is_file)
        process.send_signal(signum)
        code = process.wait(timeout=15)
        until(lambda: processes_in(cut) == [], seconds=15)
    assert code == {signal.SIGINT: 130, signal.SIGUSR1: 143, signal.SIGKILL: -9}[signal.Signals(signum)]
    # The workers of a killed controller save as well; its status cannot say so.
    assert read_json(cut / "status.json")["state"] == ("RUNNING" if code == -9 else "PREEMPTED")


def test_cause_of_a_failure_is_the_rank_that_failed_first_not_those_that_lost_it(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.report_rank(0, state="FAILED", reason="RuntimeError: gloo: Connection closed by peer", lost_peer=True)
    directory.report_rank(2, state="PREEMPTED")
    directory.report_rank(1, state="RUNNING")
    assert first_failure(directory, 3).startswith("rank 1: ended without a word")
    assert first_failure(directory, 4).startswith("ranks 1, 3: ended without a word")
    directory.report_rank(1, state="FAILED", reason="NonFiniteLossError: train/loss became nan", lost_peer=False)
    assert first_failure(directory, 3) == "rank 1: NonFiniteLossError: train/loss became nan"


@pytest.mark.slow
def test_failure_of_the_configuration_in_the_workers_is_told_once_with_its_rank(train: Train, tmp_path: Path) -> None:
    # What only the workers find out: ranges are checked before they are started.
    with pytest.raises(RankError, match=r"^rank [01]: ConfigError: accelerator\.devices: .* per val sample \(1\)"):
        train(*TINY, *TWO, "data.n_val=1")
    assert read_json(tmp_path / "run" / "status.json")["reason"].startswith("rank ")


def test_number_of_processes_follows_from_the_accelerator(train: Train) -> None:
    assert process_count(Accelerator("cpu", devices="auto")) == 1
    assert process_count(Accelerator("cpu", devices=3, num_nodes=2)) == 6
    with pytest.raises(ConfigError, match=r"accelerator\.num_nodes: expected srun or torchrun .* 2 nodes"):
        train(*TINY, "accelerator=multi_node", "accelerator.accelerator=cpu")
    with pytest.raises(ConfigError, match=r"accelerator\.strategy: expected .* whole, .* for 2 processes, got fsdp"):
        train(*TINY, "accelerator=ddp_cpu", "accelerator.strategy=fsdp")


def test_more_processes_than_samples_are_refused(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eai.core.run.build, "processes", lambda: 8)
    with pytest.raises(ConfigError, match=r"accelerator\.devices: expected at most one process per val sample \(7\)"):
        train(*TINY)


def test_jobs_side_by_side_take_different_gpus_and_wait_for_free_ones(tmp_path: Path) -> None:
    two, three = Accelerator("gpu", devices=2), Accelerator("gpu", devices=3)
    names = ["GPU-a", "GPU-b", "GPU-c", "GPU-d", "GPU-e"]
    with reserved_gpus(two, names, tmp_path) as first, reserved_gpus(two, names, tmp_path) as second:
        assert first is not None
        assert second is not None
        assert sorted(first + second) == [0, 1, 2, 3]
    with reserved_gpus(three, names, tmp_path) as again:
        assert again == [0, 1, 2]
    with (
        pytest.raises(ConfigError, match=r"accelerator\.devices: expected at most 5, .* got 6"),
        reserved_gpus(Accelerator("gpu", devices=6), names, tmp_path),
    ):
        pass
    with reserved_gpus(Accelerator("cpu", devices=2)) as none:
        assert none is None
