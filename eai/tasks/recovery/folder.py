"""A user's own images, read from a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from eai.core.errors import require
from eai.core.learn.data import SPLITS, Split
from eai.tasks.recovery.corruptions import Corruption, Images
from eai.tasks.recovery.data import ImageData

# Weights of red, green and blue in a grey value (ITU-R BT.601).
LUMINANCE = (0.299, 0.587, 0.114)


def read_image(path: Path) -> Float[Tensor, "h w"]:
    """Grey values in [0, 1] of a PNG or .npy file; colours become their luminance.

    A .npy array is (h, w) or (h, w, 3); integers are divided by the largest value of their type, floats
    must lie in [0, 1] already.

    Raises:
        ValueError: the file cannot be read as such an image.
    """
    try:
        if path.suffix.lower() == ".npy":
            pixels = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as image:
                deep = image.mode.startswith("I")
                pixels = np.asarray(image, dtype=np.uint16) if deep else np.asarray(image.convert("RGB"))
    except (OSError, ValueError, EOFError, UnidentifiedImageError) as error:
        raise ValueError(f"path: expected readable PNG or .npy images, got {path} ({error})") from error
    grey = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    require(
        grey and pixels.dtype.kind in "uif", "path", "images of (h, w) or (h, w, 3) numbers", f"{path}: {pixels.shape}"
    )
    scale = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "ui" else 1
    values = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float64) / scale)
    values = values if values.ndim == 2 else values @ torch.tensor(LUMINANCE, dtype=torch.float64)
    inside = bool((values >= 0).all() and (values <= 1 + 1e-6).all())
    require(inside, "path", "finite values in [0, 1]", str(path))
    return values.clamp(0, 1).float()


def read_folder(path: Path) -> Images:
    """All PNG and .npy images directly in a folder, in the order of their names.

    Raises:
        ValueError: there is no such folder, it holds too few images, or they differ in size.
    """
    require(path.is_dir(), "path", "a folder of PNG or .npy images", str(path))
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in (".png", ".npy"))
    require(len(files) >= 3, "path", "at least 3 PNG or .npy images, one for each split", f"{len(files)} in {path}")
    images = [read_image(file) for file in files]
    for file, image in zip(files, images, strict=True):
        same = image.shape == images[0].shape
        size = "images of one size, {} × {} as {}".format(*images[0].shape, files[0].name)
        require(same, "path", size, "{} × {} in {}".format(*image.shape, file.name))
    return torch.stack(images)[:, None]


class Folder(ImageData):
    """The images of a folder, corrupted anew in each epoch; they have no classes.

    Args:
        corruption, test_levels, batch_size, seed, fresh: see :class:`eai.tasks.recovery.data.ImageData`.
        path: a folder of PNG or .npy images of one size, grey or RGB; RGB is read as luminance.
        height, width: of the images, 8 to 512; the net takes its size from them.
        val_share, test_share: of the images, at least one each; ``seed`` decides which.
    """

    def __init__(
        self,
        corruption: Corruption,
        path: str,
        height: int,
        width: int,
        val_share: float = 0.15,
        test_share: float = 0.15,
        test_levels: Sequence[float] | None = None,
        batch_size: int = 16,
        seed: int = 0,
        fresh: bool = True,
    ) -> None:
        for name, share in (("val_share", val_share), ("test_share", test_share)):
            require(0 < share < 0.5, name, "0 < share < 0.5", share)
        images = read_folder(Path(path).expanduser())
        found = tuple(images.shape[2:])
        require(found == (height, width), "path", f"images of {height} × {width}", "{} × {}".format(*found))
        super().__init__(corruption, height, width, test_levels, batch_size, seed, fresh)
        count = len(images)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        n_val, n_test = max(1, int(count * val_share)), max(1, int(count * test_share))
        parts = order.split([count - n_val - n_test, n_val, n_test])
        self.images: dict[Split, Images] = {split: images[part] for split, part in zip(SPLITS, parts, strict=True)}

    def clean(self, split: Split, generator: torch.Generator) -> tuple[Images, Int[Tensor, " b"]]:
        x = self.images[split]
        return x, torch.zeros(len(x), dtype=torch.int64)
