"""Figures: files, TensorBoard, and the figures that every task shares."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary

from eai.core.files import write_json
from eai.core.style.palette import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, new_figure

Drawing = Figure | FuncAnimation
FIGURE_SAMPLES = 6  # drawn in figures of samples
History = Mapping[str, Sequence[tuple[int, float]]]


def learning_curves(history: History) -> Figure:
    """Training (solid) and validation (dashed) loss and its terms against the epoch, on a log axis.

    A term that is not positive throughout is drawn on a linear axis with all others.
    """
    figure = new_figure()
    axes = figure.subplots()
    axes.set(title="Loss and its terms: training (solid) and validation (dashed)", xlabel="epoch", ylabel="loss")
    names = [name for name in history if name.startswith("train/")]
    colours = (BLACK, BLUE, RED, GREEN, PURPLE, ORANGE)
    # With a single term the total is that term.
    single = len(names) == 2
    names = names[:1] if single else names
    for name, colour in zip(names, colours, strict=False):
        term = name.removeprefix("train/")
        for key, line, shade in ((name, "-", colour), (f"val/{term}", "--", ORANGE if single else colour)):
            points = history.get(key, ())
            axes.plot(*zip(*points, strict=True) if points else ((), ()), line, color=shade, label=key, lw=1.2)
    if all(value > 0 for name in names for _, value in history[name]):
        axes.set_yscale("log")
    if names:
        axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    return figure


def score_curve(history: History, score: str) -> Figure:
    """The monitored validation score against the epoch."""
    figure = new_figure()
    axes = figure.subplots()
    points = history.get(score, ())
    axes.plot(*zip(*points, strict=True) if points else ((), ()), "o-", color=ORANGE, ms=3, lw=1.2)
    axes.set(title=f"{score}: the best epoch gives best.ckpt", xlabel="epoch", ylabel=score)
    values = [value for _, value in points]
    if values and min(values) > 0 and max(values) > 5 * min(values):
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    return figure


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
        return "One frame per step"
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
            _log_image(f"final/{name}", content, logger, step)


def log_drawings(drawings: Mapping[str, Drawing], logger: TensorBoardLogger, step: int) -> None:
    """Show each drawing in TensorBoard's image tab."""
    for name, drawing in drawings.items():
        _log_image(f"figures/{name}", render(drawing), logger, step)


def _log_image(tag: str, content: bytes, logger: TensorBoardLogger, step: int) -> None:
    # SummaryWriter.add_image takes arrays only, and no GIF.
    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
    picture = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=content)
    summary = Summary(value=[Summary.Value(tag=tag, image=picture)])
    writer = logger.experiment.file_writer
    assert writer is not None, "log scalars first: a writer that was closed opens again with them"
    writer.add_summary(summary, step)
