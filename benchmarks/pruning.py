"""What pruning would have saved in the sweep presets, and whether it would have kept the winner.

    python -m benchmarks.pruning                       all three presets, in outputs/pruning
    python -m benchmarks.pruning --folder DIR dynamics

Each preset is run once in full (again: only what is missing), then every pruner is replayed on the recorded curves of
the monitored score, trial after trial in their order. Optuna's sampler would have chosen other trials after a pruned
one; here they stay the same, so that the winner is known.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import optuna
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import eai
from eai.core.directory import RunDirectory
from eai.core.schema import Pruner
from eai.core.trials import optuna_pruner

TASKS = ("assimilation", "dynamics", "recovery")
PRUNERS: tuple[Literal["median", "asha", "hyperband"], ...] = ("median", "asha", "hyperband")
Curve = list[tuple[int, float]]  # epochs done, score


def curves_of(sweep: Path) -> tuple[list[Curve], str]:
    """The monitored score of each trial after each validation, in the order of their start, and its direction."""
    curves = []
    for path in eai.runs(sweep)["path"]:
        run = RunDirectory(path)
        cfg = run.load_config()
        monitor, every = cfg.monitor, cfg.validate_every_n_epochs
        events = EventAccumulator(str(run.tensorboard))
        events.Reload()
        values = [event.value for event in events.Scalars(monitor.score)]
        curves.append([(min(cfg.epochs, every * i), value) for i, value in enumerate(values, start=1)])
    return curves, {"min": "minimize", "max": "maximize"}[monitor.mode]


def replayed(curves: list[Curve], direction: str, settings: Pruner) -> tuple[float, int | None]:
    """The share of epochs that is saved, and the rank that the true winner gets; None if it is pruned."""
    epochs = curves[0][-1][0]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name="replay", direction=direction, pruner=optuna_pruner(settings, epochs))
    sign = -1 if direction == "maximize" else 1
    finals = [min(sign * value for _, value in curve) for curve in curves]
    made, kept = 0, []
    for number, curve in enumerate(curves):
        trial: Any = study.ask()
        state = optuna.trial.TrialState.COMPLETE
        for epoch, value in curve:
            trial.report(value, epoch)
            if trial.should_prune() and epoch < epochs:
                state = optuna.trial.TrialState.PRUNED
                break
        made += epoch
        done = state == optuna.trial.TrialState.COMPLETE
        study.tell(trial, sign * finals[number] if done else None, state=state)
        kept += [finals[number]] if done else []
    winner = min(finals)
    rank = 1 + sum(final < winner for final in kept) if winner in kept else None
    return 1 - made / (epochs * len(curves)), rank


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=TASKS, choices=[*TASKS, []], metavar="task")
    parser.add_argument("--folder", type=Path, default=Path("outputs/pruning"))
    arguments = parser.parse_args()
    for task in arguments.tasks:
        sweep = arguments.folder / task
        command = ["-m", f"sweep={task}", "accelerator.threads=1", f"hydra.sweep.dir={sweep}"]
        if not sweep.is_dir() or set(eai.runs(sweep)["state"]) != {"COMPLETED"}:
            subprocess.run([sys.executable, "-m", "eai.train", *command], check=True, stdout=subprocess.DEVNULL)
        curves, direction = curves_of(sweep)
        print(f"\n{task}: {len(curves)} trials of {curves[0][-1][0]} epochs")
        print("| pruner | grace_epochs | startup_trials or reduction_factor | epochs saved | rank of the winner |")
        print("| --- | --- | --- | --- | --- |")
        for name in PRUNERS:
            for grace in [epoch for epoch, _ in curves[0][: max(1, len(curves[0]) // 2)]]:
                for number in (3, 5) if name == "median" else (2, 3, 4):
                    settings = Pruner(name, grace, number if name == "median" else 5, number if name != "median" else 3)
                    saved, rank = replayed(curves, direction, settings)
                    told = f"{name} | {grace} | {number} | {100 * saved:.0f} % | {rank or 'pruned'}"
                    print(f"| {told} |")


if __name__ == "__main__":
    main()
