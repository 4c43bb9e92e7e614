"""Figures: files, TensorBoard, and the figures that every task shares."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.image.metadata import create_summary_metadata
from tensorboard.util.tensor_util import make_tensor_proto

from eai.core.files import write_json
from eai.core.palette import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PREDICTION,
    PURPLE,
    RED,
    legend_below,
    new_figure,
    plain_log,
)
from eai.core.style.wording import in_words

Drawing = Figure | FuncAnimation
FIGURE_SAMPLES = 6  # drawn in figures of samples
History = Mapping[str, Sequence[tuple[int, float]]]


def learning_curves(history: History) -> Figure:
    """Training (solid) and validation (dashed) loss and its terms against the epoch, on a log axis.

    A term that is not positive throughout is drawn on a linear axis with all others.

    Args:
        history: (epoch, value) by name, the first epoch 0; drawn as 1, as ``train.log`` counts them.
    """
    figure = new_figure()
    axes = figure.subplots()
    names = [name for name in history if name.startswith("train/")]
    colours = (BLACK, BLUE, RED, GREEN, PURPLE, ORANGE)
    # With a single term the total is that term.
    single = len(names) == 2
    names = names[:1] if single else names
    for name, colour in zip(names, colours, strict=False):
        term = name.removeprefix("train/")
        for key, line, shade in ((name, "-", colour), (f"val/{term}", "--", ORANGE if single else colour)):
            part = "training" if key == name else "validation"
            label = part if single else f"{term.replace('_', ' ')}, {part}"
            _plot_by_epoch(axes, history.get(key, ()), line, color=shade, label=label)
    if all(value > 0 for name in names for _, value in history[name]):
        axes.set_yscale("log")
        plain_log(axes.yaxis)
    what = "Loss" if single else "Loss and its terms"
    axes.set(title=f"{what}: validation (dashed) should fall with training (solid)", ylabel="loss")
    if names:
        legend_below(figure)
    return figure


def _plot_by_epoch(axes: Axes, points: Sequence[tuple[int, float]], line: str, **look: Any) -> None:
    """A curve; a dot where there is a single point. Epochs count from 1, as in ``train.log``."""
    epochs, values = [epoch + 1 for epoch, _ in points], [value for _, value in points]
    axes.plot(epochs, values, line, marker="o" if len(points) == 1 else "", lw=1.2, **look)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)


def score_curve(history: History, score: str, mode: str) -> Figure:
    """The monitored validation score against the epoch, the best one marked.

    Args:
        history: (epoch, value) by name, the first epoch 0.
        score: the name.
        mode: whether it is best at its ``min`` or ``max``.
    """
    figure = new_figure()
    axes = figure.subplots()
    points = history.get(score, ())
    _plot_by_epoch(axes, points, "-", color=PREDICTION)
    if points:
        epoch, value = (max if mode == "max" else min)(points, key=lambda point: point[1])
        axes.plot(epoch + 1, value, "*", color=BLACK, ms=11)
        lowest, highest = (choose(value for _, value in points) for choose in (min, max))
        if 0 < 5 * lowest < highest:
            axes.set_yscale("log")
            plain_log(axes.yaxis)
    better = "higher" if mode == "max" else "lower"
    title = f"Score on validation data: {better} is better; the star is kept as best.ckpt"
    axes.set(title=title, ylabel=f"{in_words(score)} ({score})")
    return figure


class Film(FuncAnimation):
    """An animation that says what to see in it.

    Args:
        caption: what is shown: what to look for.
        figure: that changes.
        draw: what a frame shows, given its number; returns what it changed.
        frames: their numbers.
    """

    def __init__(self, caption: str, figure: Figure, draw: Callable[[int], Iterable[Artist]], frames: range) -> None:
        super().__init__(figure, draw, frames=frames)
        self.caption = caption


def render(drawing: Drawing) -> bytes:
    """A figure as PNG, an animation as GIF."""
    if isinstance(drawing, Figure):
        buffer = io.BytesIO()
        drawing.savefig(buffer, format="png")
        return buffer.getvalue()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "animation.gif"
        drawing.save(path, writer=PillowWriter(fps=4))
        return path.read_bytes()


def caption(drawing: Drawing) -> str:
    """The title of a figure, or of its first part, which says what to see."""
    if not isinstance(drawing, Figure):
        return drawing.caption if isinstance(drawing, Film) else "One frame per step"
    return drawing.get_suptitle() or next((axes.get_title() for axes in drawing.axes if axes.get_title()), "")


def save_drawings(drawings: Mapping[str, Drawing], folder: Path, logger: TensorBoardLogger | None, step: int) -> None:
    """Write each figure as PNG and each animation as GIF, and show the same images in TensorBoard.

    ``captions.json`` has their titles, in their order, for those who read a picture's text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "captions.json", {name: caption(drawing) for name, drawing in drawings.items()})
    for name, drawing in drawings.items():
        content = render(drawing)
        suffix = "png" if isinstance(drawing, Figure) else "gif"
        (folder / f"{name}.{suffix}").write_bytes(content)
        if logger:
            _log_image(f"views/{name}", content, caption(drawing), logger, step)


def log_drawings(drawings: Mapping[str, Drawing], logger: TensorBoardLogger, step: int) -> None:
    """Show each drawing of validation data in TensorBoard's image tab."""
    for name, drawing in drawings.items():
        text = f"{caption(drawing)} (validation data, while it trains)"
        _log_image(f"views/{name}/while_training", render(drawing), text, logger, step)


def _log_image(tag: str, content: bytes, text: str, logger: TensorBoardLogger, step: int) -> None:
    """An image with its caption as a title; SummaryWriter.add_image takes arrays only, no GIF and no title."""
    with Image.open(io.BytesIO(content)) as image:
        sizes = [str(size).encode() for size in image.size]
    # TensorBoard reads titles of images in its newer form only: a tensor of width, height and the file.
    picture = make_tensor_proto([*sizes, content], dtype=DT_STRING)
    titled = create_summary_metadata(display_name=text, description="")
    summary = Summary(value=[Summary.Value(tag=tag, metadata=titled, tensor=picture)])
    writer = logger.experiment.file_writer
    assert writer is not None, "log scalars first: a writer that was closed opens again with them"
    writer.add_summary(summary, step)
