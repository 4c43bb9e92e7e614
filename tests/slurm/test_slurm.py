"""Two-node jobs, sweeps and preemption under a real SLURM (`tests/slurm/cluster start`)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from eai.core.directory import RunDirectory
from eai.core.files import read_json
from eai.core.trials import journal_storage
from tests.core.jobs import only, started, states, until
from tests.runs import TINY, curves_of

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]

EPOCHS = 200
TWO_NODES = (
    *TINY, "data.n_train=29", "figures.at_end=false", f"epochs={EPOCHS}", "validate_every_n_epochs=50",
    "reporting.line_every_n_epochs=50", "accelerator=multi_node", "accelerator.accelerator=cpu",
    "accelerator.threads=1", "data.batch_size=4",
)  # fmt: skip
# As in docs/howto/slurm.md.
SCRIPT = """#!/bin/bash
#SBATCH --partition=test --nodes=2 --ntasks-per-node=1
#SBATCH --requeue --signal=USR1@120 --open-mode=append
srun -K {python} -m eai.train {arguments}
code=$?
[ $code -eq 143 ] && scontrol requeue $SLURM_JOB_ID
exit $code
"""


def ask(*command: str, env: dict[str, str]) -> str:
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60).stdout


def running(run_dir: Path) -> Callable[[], bool]:
    return lambda: (run_dir / "checkpoints" / "last.ckpt").is_file()


def test_job_of_two_nodes_that_is_preempted_is_requeued_into_its_directory_and_ends_as_if_it_had_not_been(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    jobs = {}
    for name in ("whole", "cut"):
        script = tmp_path / f"{name}.sh"
        arguments = [*TWO_NODES, "reporting.checkpoint_every_n_epochs=10"]
        arguments += [f"hydra.run.dir={tmp_path / name}"] if name == "whole" else []
        script.write_text(SCRIPT.format(python=sys.executable, arguments=" ".join(arguments)))
        submit = ["sbatch", "--parsable", f"--output={tmp_path / name}.txt", f"--chdir={tmp_path}", str(script)]
        jobs[name] = ask(*submit, env=slurm).strip()
    whole, cut = tmp_path / "whole", tmp_path / "outputs" / "assimilation" / f"slurm_{jobs['cut']}_0"
    until(running(cut), seconds=180)
    ask("scancel", "--signal=USR1", jobs["cut"], env=slurm)
    until(lambda: "Restarts=1" in ask("scontrol", "show", "job", jobs["cut"], env=slurm), seconds=90)
    assert read_json(cut / "status.json")["state"] in ("PREEMPTED", "RUNNING")
    for folder in (cut, whole):
        until(lambda folder=folder: read_json(folder / "status.json")["state"] == "COMPLETED", seconds=200)
    # One directory for both ranks and both starts.
    assert [path.name for path in cut.parent.iterdir()] == [cut.name]
    status = read_json(cut / "status.json")
    assert (status["processes"], status["epochs"]) == (2, EPOCHS)
    assert (cut / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    assert curves_of(RunDirectory(cut)) == curves_of(RunDirectory(whole))


def test_sweep_of_two_node_jobs_survives_the_preemption_of_one(slurm: dict[str, str], tmp_path: Path) -> None:
    command = (
        "-m", *TWO_NODES, "seed=0,1", "hydra/launcher=slurm", "hydra.launcher.partition=test",
        "hydra.launcher.timeout_min=30",
    )  # fmt: skip
    folder = tmp_path / "outputs" / "sweeps"
    with started("train", *command, cwd=tmp_path, env=slurm) as process:
        until(lambda: any(folder.glob("*/seed-0_*/checkpoints/last.ckpt")), seconds=180)
        job = ask("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i", env=slurm).split()
        ask("scancel", "--signal=USR1", next(name for name in job if name.endswith("_0")), env=slurm)
        assert process.wait(timeout=300) == 0
    sweep = only(folder.iterdir())
    assert list(states(sweep).values()) == ["COMPLETED", "COMPLETED"]
    for status in map(read_json, sweep.glob("*/status.json")):
        assert (status["processes"], status["epochs"]) == (2, EPOCHS)
    restarted = ask("scontrol", "show", "job", env=slurm)
    assert "Restarts=1" in restarted
    assert len((sweep / "summary.csv").read_text().splitlines()) > 2
    assert "2 of 2 jobs COMPLETED" in (tmp_path / "output.txt").read_text()


def test_trials_on_two_nodes_are_pruned_in_both_processes_and_told_to_the_study(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    # The more steps of descent, the lower the score from the first epoch on: which trials are pruned is certain.
    small = [item for item in TWO_NODES if not item.startswith(("epochs", "validate", "reporting.line", "model"))]
    small = [item for item in small if item not in ("task=assimilation",)]
    command = (
        "-m", "sweep=assimilation", *small, "epochs=3", "model.net.first_guess.width=9", "model.net.steps=choice(1,4)",
        "hydra/sweeper/sampler=random", "pruner=median", "pruner.startup_trials=1", "trials=4",
        "hydra/launcher=slurm", "hydra.launcher.partition=test", "hydra.launcher.timeout_min=30",
    )  # fmt: skip
    with started("train", *command, cwd=tmp_path, env=slurm) as process:
        assert process.wait(timeout=380) == 0
    sweep = only((tmp_path / "outputs" / "sweeps").iterdir())
    ended = [read_json(path) for path in sweep.glob("*/status.json")]
    pruned = [status for status in ended if status["state"] == "PRUNED"]
    assert 1 <= len(pruned) < len(ended)
    assert {(status["epochs"], status["processes"]) for status in pruned} == {(1, 2)}
    study = optuna.load_study(study_name="assimilation", storage=journal_storage(sweep / "study.journal"))
    assert [trial.state.name for trial in study.trials].count("PRUNED") == len(pruned)
    assert len(study.trials) == 4


def test_rank_of_another_node_that_fails_is_named(slurm: dict[str, str], tmp_path: Path) -> None:
    # Each task composes its own configuration: here they differ.
    python, arguments = sys.executable, " ".join([*TWO_NODES, f"hydra.run.dir={tmp_path}/run", "seed=$SLURM_PROCID"])
    result = subprocess.run(
        ["srun", "--partition=test", "-N2", "--ntasks-per-node=1", "bash", "-c", f"{python} -m eai.train {arguments}"],
        env=slurm, capture_output=True, text=True, check=False, timeout=200, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 1
    assert "error: seed: expected the same in all processes" in result.stderr


def test_commands_typed_in_an_interactive_step_have_a_directory_each_and_a_requeued_step_its_own(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    name = f"{sys.executable} -c 'from eai.core.cli import _run_name; print(_run_name())'"
    names = ask("srun", "--partition=test", "-n1", "bash", "-c", f"{name}; {name}", env=slurm).split()
    assert len(set(names)) == 2
    assert not any(name.startswith("slurm") for name in names)
    script = tmp_path / "batch.sh"
    script.write_text(f"#!/bin/bash\nsrun -n1 {name}\n")
    submit = ["sbatch", "--parsable", "--wait", "--partition=test", f"--output={tmp_path / 'name.txt'}", str(script)]
    assert (job := ask(*submit, env=slurm).strip())
    assert (tmp_path / "name.txt").read_text().strip() == f"slurm_{job}_0"
