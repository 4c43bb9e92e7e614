"""Networks on the equations of APEBench: the same data, the same number of steps, each with its own optimizer.

    python -m benchmarks.peers                              all equations and networks, seeds 0 to 2, in outputs/peers
    python -m benchmarks.peers --folder DIR --seeds 0 --networks contraction fno --equations burgers kdv

Runs that are complete are not repeated; one thread, one run after the other. Prints medians over the seeds. Linear
equations have a linear contraction, as their experiments say.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from eai.core.directory import RunDirectory
from eai.core.files import read_json

EQUATIONS = ("advection", "advection_diffusion", "burgers", "kdv", "ks")
NETWORKS = ("contraction", "fno", "dilated", "unet")
SCORES = ("nrmse/lead_01", "nrmse/lead_10", "nrmse/lead_100", "nrmse/lead_200", "gmean_100", "gmean_200")
FNO = ("model.unroll.steps=1", "model.unroll.windows=4", "model.unroll.noise=0.0")


def overrides(equation: str, network: str, seed: int, epochs: int) -> list[str]:
    """The command line of one run; a network that is not the experiment's has none of its keys."""
    common = [f"epochs={epochs}", f"seed={seed}", "accelerator.threads=1", "figures.at_end=false",
              "accelerator.keep_freed_memory=true", f"validate_every_n_epochs={max(1, epochs // 20)}"]  # fmt: skip
    if network == "contraction":
        return [f"experiment=apebench_{equation}", *common]
    return ["task=dynamics", f"data/dynamics=apebench_{equation}", f"model/dynamics={network}", *FNO,
            "model.leads=[1,10,50,100,200]", "monitor.score=val/nrmse/lead_100", *common]  # fmt: skip


def finished(path: Path, command: list[str]) -> bool:
    """Whether the run is complete; it is made now if it is not there. One that fails is left out, with its report."""
    run = RunDirectory(path)
    if not run.status.is_file() or read_json(run.status)["state"] != "COMPLETED":
        command = [sys.executable, "-m", "eai.train", *command, f"hydra.run.dir={path}"]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            print(f"{path}: failed, left out", flush=True)
            return False
    return True


def row(runs: list[RunDirectory]) -> str:
    """Parameters, seconds and scores of a network, medians over its runs."""
    metrics, status = [read_json(run.metrics) for run in runs], [read_json(run.status) for run in runs]
    medians = [statistics.median(scores[f"test/{name}"] for scores in metrics) for name in SCORES]
    seconds = statistics.median(facts["train_seconds"] for facts in status)
    return f"{status[0]['parameters']:10}  {seconds:7.0f}  " + "  ".join(f"{value:14.3g}" for value in medians)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("outputs/peers"))
    parser.add_argument("--equations", nargs="+", default=EQUATIONS, choices=EQUATIONS)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=1000, help="of five steps")
    arguments = parser.parse_args()
    for equation in arguments.equations:
        print(f"\n{equation}: {'network':12} parameters  seconds  " + "  ".join(f"{name:>14}" for name in SCORES))
        baselines: dict[str, dict[str, float]] = {}
        for network in arguments.networks:
            paths = {seed: arguments.folder / equation / f"{network}_{seed}" for seed in arguments.seeds}
            runs = [
                RunDirectory(path)
                for seed, path in paths.items()
                if finished(path, overrides(equation, network, seed, arguments.epochs))
            ]
            if runs:
                print(f"{'':{len(equation)}}  {network:12} {row(runs)}", flush=True)
                baselines = read_json(runs[0].baselines)
        for name in sorted({"spectral", "persistence"} & baselines.keys()):
            values = "  ".join(f"{baselines[name][f'test/{score}']:14.3g}" for score in SCORES)
            print(f"{'':{len(equation)}}  {name:12} {'':10}  {'':7}  {values}")


if __name__ == "__main__":
    main()
