"""The pictures of the README and the lessons: python -m docs.figures [--folder FOLDER] [NAME …].

Trains the runs that they show, with seed 0 and one thread, into a folder, unless they are there already; draws the
pictures into docs/images. A quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import eai
from eai.core.files import read_json
from eai.core.palette import (
    BLACK,
    GREEN,
    INPUT,
    PREDICTION,
    PURPLE,
    REFERENCE,
    SKY,
    TRUTH,
    legend_below,
    new_figure,
)

IMAGES = Path(__file__).parent / "images"
GREY = "#888888"
LARGEST = 60_000  # bytes of a picture
COLOURS = 128  # of its palette


def trained(folder: Path, choice: str) -> Path:
    """Train ``choice``, as ``task=dynamics``, unless the folder has that run; return its directory."""
    run = folder / choice.partition("=")[2]
    if not (run / "metrics.json").is_file():
        command = [sys.executable, "-m", "eai.train", choice, "seed=0", "accelerator.threads=1", f"hydra.run.dir={run}"]
        subprocess.run(command, check=True)
    return run


def scores(run: Path) -> dict[str, dict[str, float]]:
    """The scores of every method on the test data, the network's under ``network``."""
    return {"network": read_json(run / "metrics.json"), **read_json(run / "baselines.json")}


def array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def field(axes: Axes, values: np.ndarray, title: str, most: float, colours: str = "RdBu_r") -> None:
    """A field against place and time, on a scale from −most to most."""
    axes.imshow(values, aspect="auto", cmap=colours, vmin=-most, vmax=most, interpolation="nearest")
    axes.set_title(title, fontsize="medium")


def by_lead(axes: Axes, found: Mapping[str, Mapping[str, float]], shown: Mapping[str, tuple[str, str]]) -> None:
    """nRMSE of free rollouts against lead time; ``shown`` is {method: (label, colour)}."""
    for method, (label, colour) in shown.items():
        leads = sorted(key for key in found[method] if key.startswith("test/nrmse/lead_"))
        values = [found[method][key] for key in leads]
        axes.plot(
            range(1, len(leads) + 1), values, color=colour, lw=2.2 if method == "network" else 1.2, label=label
        )  # fmt: skip
    axes.set(xlabel="lead time, steps", ylabel="nRMSE", yscale="log")
    axes.grid(alpha=0.3)
    axes.get_figure().legend(fontsize="small", loc="outside lower right", ncols=4, frameon=False)


def bars(axes: Axes, values: Mapping[str, float], label: str, note: str = "{:.3g}") -> None:
    """One bar for each method, the network's in its colour."""
    names = list(values)
    colours = [PREDICTION if name.startswith("network") else GREY for name in names]
    drawn = axes.barh(names, list(values.values()), color=colours)
    axes.bar_label(drawn, [note.format(value) for value in values.values()], padding=3, fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set_xlabel(label)


def dynamics(folder: Path) -> Figure:
    path = trained(folder, "task=dynamics")
    run = eai.load_run(path)
    batch = run.data.batch("test", 1)
    truth, made = array(batch.u[0, ..., 0]), array(run.module.predict(batch).rollout[0, ..., 0])
    figure = new_figure(10, 3.5)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.6])
    most = float(np.abs(truth).max())
    field(left, truth, "truth", most)
    field(middle, np.concatenate([truth[:1], made]), "the network's free rollout", most)
    left.set(xlabel="grid point", ylabel="time, steps")
    middle.set(xlabel="grid point")
    by_lead(right, scores(path), {
        "persistence": ("persistence", GREY),
        "semi_lagrangian_cubic": ("semi-Lagrangian, 4 points", SKY),
        "network": ("network", PREDICTION),
        "semi_lagrangian_12": ("semi-Lagrangian, 12 points", GREEN),
    })  # fmt: skip
    right.set_title("error: the network is better than the cubic scheme,\nnot than one of 12 points", fontsize="medium")
    return figure


def rows_of_images(figure: Figure, rows: Mapping[str, np.ndarray]) -> None:
    """Images in rows, each row with its name."""
    panels = figure.subplots(len(rows), len(next(iter(rows.values()))), squeeze=False)
    for line, (name, images) in zip(panels, rows.items(), strict=True):
        for axes, image in zip(line, images, strict=True):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize="small")


def recovery(folder: Path) -> Figure:
    run = eai.load_run(trained(folder, "task=recovery"))
    batch = run.data.batch("test", 60)
    first = [int(np.flatnonzero(array(batch.label) == label)[0]) for label in (0, 1, 5, 6, 8, 9)]
    rows = {"original": batch.x, "with noise": batch.y, "network": run.module.predict(batch)}
    figure = new_figure(8, 4.2)
    rows_of_images(figure, {name: array(images[first, 0]) for name, images in rows.items()})
    return figure


def assimilation(folder: Path) -> Figure:
    path = trained(folder, "task=assimilation")
    run = eai.load_run(path)
    batch = run.data.batch("test", 3)
    made, best = run.module.predict(batch)[2], run.module.baselines(run.data)["blue"](batch)[2]
    figure = new_figure(10, 3.4)
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    seen = array(batch.obs_mask[2]) == 1
    place, observed = array(batch.obs_index[2])[seen], array(batch.y[2])[seen]
    left.plot(array(batch.xt[2]), color=TRUTH, lw=1.2, label="truth")
    left.plot(array(batch.xb[2]), color=INPUT, ls="--", label="background")
    left.plot(place, observed, "o", color=PURPLE, ms=4, label="observations")
    left.plot(array(best), color=REFERENCE, lw=4, alpha=0.45, label="exact minimiser of J")
    left.plot(array(made), color=PREDICTION, lw=1.4, label="network")
    left.set(xlabel="grid point", title="the network's analysis lies on the exact one")
    figure.legend(fontsize="small", loc="outside lower left", ncols=5, frameon=False)
    found = scores(path)
    shown = {"first_guess": "its first guess alone", "pcg_6_background": "6 steps of PCG, B",
             "pcg_6_uniform": "6 steps of PCG, (B⁻¹+ρ)⁻¹", "network": "network"}  # fmt: skip
    excess = {label: found[method]["test/j_ratio"] - 1 for method, label in shown.items()}
    bars(right, excess, "J/J* − 1, excess over the minimum", "{:.2g}")
    right.set(xscale="log", xlim=(1e-4, 9))
    return figure


def cycling(folder: Path) -> Figure:
    path = trained(folder, "task=cycling")
    found = scores(path)
    run = eai.load_run(path)
    batch = run.data.batch("test", 1)
    made = run.module.predict(batch)
    part = slice(200, 320)
    truth, analysis = array(batch.truth[0, part]), array(made.analysis[0, part])
    figure = new_figure(10, 3.2)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.6])
    field(left, truth, "truth", 14)
    field(middle, analysis - truth, "error of the analysis,\nthe same colours", 14)
    left.set(xlabel="grid point", ylabel="analysis number")
    middle.set(xlabel="grid point")
    shown = {"optimal_interpolation": "optimal interpolation", "var3d": "3D-Var", "network": "network",
             "enkf_40": "EnKF, 40 members", "enkf_sqrt_24": "square root, 24 members"}  # fmt: skip
    bars(right, {label: found[method]["test/rmse_analysis"] for method, label in shown.items()}, "RMSE of the analysis")
    right.set_title("the network never saw a truth", fontsize="medium")
    return figure


def lesson_2_1(folder: Path) -> Figure:
    path = trained(folder, "experiment=tutorial_2_1")
    run = eai.load_run(path)
    batch = run.data.batch("test")
    truth, made = array(batch.u[0, 1:, :, 0]), run.module.predict(batch)
    one_step, rollout = (array(part[0, ..., 0]) for part in (made.one_step, made.rollout))
    figure = new_figure(10, 3.2)
    panels = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.5])
    parts = {"truth": truth, "one step from\nthe true state": one_step, "free rollout": rollout}
    for axes, (title, values) in zip(panels, parts.items(), strict=False):
        field(axes, values, title, 1.0)
        axes.set_xlabel("grid point")
    panels[0].set_ylabel("time, steps")
    found = scores(path)
    shown = {"persistence": "persistence", "network": "network", "upwind": "upwind scheme"}
    bars(panels[3], {label: found[method]["test/mse"] for method, label in shown.items()}, "one-step MSE", "{:.2g}")
    return figure


def lesson_2_2(folder: Path) -> Figure:
    path = trained(folder, "experiment=tutorial_2_2_denoising")
    run, found = eai.load_run(path), scores(path)
    batch = run.data.batch("test", 60)
    first = [int(np.flatnonzero(array(batch.label) == label)[0]) for label in (0, 5, 7)]
    figure = new_figure(10, 3.6)
    left, right = figure.subfigures(1, 2)
    rows = {"original": batch.x, "with noise": batch.y, "VAE": run.module.predict(batch)}
    rows_of_images(left, {name: array(images[first, 0]) for name, images in rows.items()})
    shown = {"input": "noisy input", "network": "network: the slide's VAE", "linear_regression": "linear regression",
             "analogues": "analogues", "template": "bound for every method"}  # fmt: skip
    axes = right.subplots()
    bars(axes, {label: found[method]["test/psnr_pooled"] for method, label in shown.items()}, "pooled PSNR, dB")
    return figure


def lesson_2_3(folder: Path) -> Figure:
    run = eai.load_run(trained(folder, "experiment=tutorial_2_3"))
    batch, alone = run.data.batch("test"), run.data.batch("test", 1)
    exact = run.module.baselines(run.data)
    lines = {
        "background": (alone.xb, INPUT, 1.2),
        "minimiser of the slide's loss, batches of 1000": (exact["loss_minimiser"](batch), REFERENCE, 4.0),
        "minimiser of the slide's loss, batches of 1": (exact["loss_minimiser"](alone), SKY, 4.0),
        "minimiser of J": (exact["blue"](alone), BLACK, 1.2),
        "network": (run.module.predict(batch), PREDICTION, 1.5),
    }
    figure = new_figure(10, 3.6)
    axes = figure.subplots()
    for label, (values, colour, width) in lines.items():
        axes.plot(array(values[0]), color=colour, lw=width, alpha=0.5 if width > 2 else 1.0, label=label)
    axes.plot(array(alone.obs_index[0]), array(alone.y[0]), "o", color=PURPLE, ms=5, label="observations")
    axes.set(xlabel="grid point", title="one loss, two batch sizes, two analyses")
    legend_below(figure)
    return figure


PICTURES: dict[str, Callable[[Path], Figure]] = {
    made.__name__: made for made in (dynamics, recovery, assimilation, cycling, lesson_2_1, lesson_2_2, lesson_2_3)
}


def save(figure: Figure, path: Path) -> None:
    """Write a small PNG.

    Raises:
        ValueError: it is larger than pages should carry.
    """
    figure.canvas.print_png(path)  # type: ignore[attr-defined]
    Image.open(path).convert("RGB").quantize(COLOURS, kmeans=2).save(path, optimize=True)
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{path}: expected at most {LARGEST} bytes, got {size}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m docs.figures", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(PICTURES)}; all, if none is given")
    parser.add_argument("--folder", type=Path, default=Path("outputs/docs"), help="of the runs (outputs/docs)")
    typed = parser.parse_args(arguments)
    for name in typed.names or PICTURES:
        save(PICTURES[name](typed.folder), IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
