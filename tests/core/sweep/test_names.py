"""Names of sweeps, jobs and runs: the same command finds the same place, another search another one."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch.distributed as dist
from omegaconf import DictConfig, OmegaConf

from eai.core.cli import CONFIG_DIR, _run_name
from eai.core.sweep.names import job_name, keys_of, sweep_name
from tests.core.sweep.conftest import Composed

PRESETS = sorted(path.stem for path in Path(CONFIG_DIR, "sweep").glob("*.yaml") if path.stem != "optuna")


def typed(*overrides: str, **params: str) -> DictConfig:
    """What names of a plain sweep depend on."""
    node = {"overrides": {"task": list(overrides)}, "sweeper": {"params": params or None}}
    return OmegaConf.create({"hydra": node})


def test_swept_keys_are_those_with_several_values_and_what_is_typed_fixes_a_search() -> None:
    assert keys_of(typed("task=dynamics", "seed=0,1", "data.x='a,b'", "+n=range(3)")) == ["seed", "n"]
    params = {"model.lr": "tag(log, interval(1e-4, 1e-2))", "model.width": "choice(1,2)"}
    assert keys_of(typed("model.width=3", "seed=1", **params)) == ["model.lr"]


def test_same_command_means_the_same_sweep_in_any_order_and_with_more_trials() -> None:
    name = sweep_name(typed("task=dynamics", "seed=0,1"))
    assert name.startswith("seed_")
    assert sweep_name(typed("seed=0,1", "task=dynamics", "retry_failed=true", "trials=50")) == name
    assert sweep_name(typed("task=dynamics", "seed=0,2")) != name


def test_names_can_be_read() -> None:
    name = sweep_name(typed("data/recovery=a,b", "model/recovery=c,d", "+model.net._target_=x.Y,x.Z"))
    assert re.fullmatch(r"data_model_net_[0-9a-f]{6}", name)
    assert sweep_name(typed("model.net.width=1,2", "model.head.width=1,2")).startswith("net.width_head.width_")
    job = OmegaConf.create(
        {
            "hydra": {"runtime": {"choices": {"data/recovery": "varied"}}},
            "model": {"net": {"_target_": "eai.tasks.dynamics.nets.GraphNet"}, "lr": 1e-3},
        }
    )
    name = job_name(job, ["data/recovery", "model.net._target_", "model.lr"])
    assert re.fullmatch(r"data-varied_net-GraphNet_lr-0.001_[0-9a-f]{6}", name)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_study_of_its_own_that_any_launcher_goes_on_with(preset: str, composed: Composed) -> None:
    plain = composed(f"sweep={preset}")
    sweeper = plain.hydra.sweeper
    assert (sweeper.study_name, sweeper.n_jobs, len(sweeper.params) > 1) == (preset, 1, True)
    assert set(plain.objectives) <= {"score", "parameters", "seconds"}
    more = composed(
        f"sweep={preset}", "trials=50", "retry_failed=true", "hydra/launcher=joblib", "hydra.launcher.n_jobs=3"
    )
    assert more.hydra.sweeper.n_jobs == 3
    assert more.hydra.sweeper.n_trials == 50
    assert sweep_name(more) == sweep_name(plain)


@pytest.mark.parametrize(
    "change",
    [
        "hydra/sweeper/sampler=random",
        "hydra.sweeper.sampler.n_startup_trials=3",
        "hydra.sweeper.sampler.seed=3",
        "hydra.sweeper.params={model.net.steps:'range(2, 5)'}",
        "hydra.sweeper.direction=maximize",
        "objectives=[seconds]",
        "epochs=9",
        "seed=1",
    ],
)
def test_another_search_is_another_study(change: str, composed: Composed) -> None:
    assert sweep_name(composed("sweep=assimilation", change)) != sweep_name(composed("sweep=assimilation"))


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No cluster has started this process."""
    for name in list(os.environ):
        if name.startswith(("SLURM", "TORCHELASTIC")) or name in ("ENVIRONMENT", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("environment", "shared"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7", "ENVIRONMENT": "BATCH"}, None),  # several commands of one script
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}, None),  # srun --pty bash
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "4"}, "slurm_7_2"),
        # One task, which SLURM may requeue.
        (
            {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "1", "ENVIRONMENT": "BATCH"},
            "slurm_7_2",
        ),
        ({"TORCHELASTIC_RUN_ID": "mine"}, "torchrun_mine"),
    ],
)
def test_only_processes_and_restarts_of_one_job_share_a_run_directory(
    environment: dict[str, str], shared: str | None, alone: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        alone.setenv(name, value)
    names = {_run_name(), _run_name()}
    assert names == {shared} if shared else len(names) == 2


def test_processes_of_a_torchrun_without_an_id_agree_on_a_name_that_the_next_one_does_not_have(
    alone: pytest.MonkeyPatch,
) -> None:
    names = []
    for _ in range(2):
        store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # as torchrun's agent has
        alone.setenv("TORCHELASTIC_RUN_ID", "none")
        alone.setenv("MASTER_ADDR", "localhost")
        alone.setenv("MASTER_PORT", str(store.port))
        names.append({_run_name(), _run_name()})
    assert [len(own) for own in names] == [1, 1]
    assert len(names[0] | names[1]) == 2
