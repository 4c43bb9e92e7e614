"""Seconds from a cold start, command included, until a validation score is reached.

    python -m benchmarks.time_to_score [--json FILE] [--seeds 0]

`eai-train` runs as a process and prints a line per validated epoch; the clock stops at the first line with the score.
"""

from __future__ import annotations

from benchmarks.commands import seconds_until
from benchmarks.report import Result, Table, finish, parser

GOALS = {
    "experiment=tutorial_2_1 reporting.line_every_n_epochs=1": ("val/mse", 0.05),
    "experiment=tutorial_2_2_autoencoder": ("val/mse", 0.01),
    "experiment=tutorial_2_3": ("val/loss", 0.05),
    "task=dynamics reporting.line_every_n_epochs=10": ("val/nrmse", 0.1),
    "task=recovery": ("val/mse", 0.012),
    "task=assimilation": ("val/j_ratio", 1.05),
}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--seeds", type=int, nargs="*", default=[0])
    arguments = made.parse_args()
    rows, values = [], []
    for command, (score, bound) in GOALS.items():
        runs = [seconds_until([*command.split(), f"seed={seed}"], score, bound) for seed in arguments.seeds]
        values.append({"command": command, "score": score, "bound": bound, "runs": runs})
        cells = ", ".join(f"{seconds:.1f}" for seconds, _ in runs)
        rows.append([f"`{command}`", f"{score} ≤ {bound:g}", cells, ", ".join(str(epoch) for _, epoch in runs)])
    note = f"Seconds of wall time, imports included, and the epoch; seeds {arguments.seeds}."
    table = Table("Time to a score", note, ["eai-train", "score", "seconds", "epoch"], rows)
    finish(Result([table], {"goals": values}), arguments)


if __name__ == "__main__":
    main()
