"""A user's own images, read from a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from eai.core.errors import MissingFileError, require
from eai.core.learn.data import SPLITS, Split
from eai.tasks.recovery.corruptions import Corruption, Images
from eai.tasks.recovery.data import ImageData

SUFFIXES = (".png", ".jpg", ".jpeg", ".npy")
# Weights of red, green and blue in a grey value (ITU-R BT.601).
LUMINANCE = (0.299, 0.587, 0.114)


def read_image(path: Path) -> Float[Tensor, "h w"]:
    """Grey values in [0, 1] of a PNG, JPEG or .npy file; colours become their luminance.

    A .npy array is (h, w) or (h, w, 3), of type uint8 or uint16, which is divided by 255 or 65535, or of floats in
    [0, 1].

    Raises:
        ValueError: the file is not such an image.
    """
    try:
        if path.suffix.lower() == ".npy":
            pixels = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as image:
                deep = image.mode.startswith("I")
                pixels = np.asarray(image, dtype=np.uint16) if deep else np.asarray(image.convert("RGB"))
    except (OSError, ValueError, EOFError, SyntaxError, Image.DecompressionBombError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"path: expected readable PNG, JPEG or .npy images, got {path} ({reason})") from error
    grey = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    require(grey and pixels.size > 0, "path", "images of shape (h, w) or (h, w, 3)", f"{path}: {pixels.shape}")
    known = pixels.dtype.kind == "f" or pixels.dtype in (np.uint8, np.uint16)
    require(known, "path", "images of uint8, uint16 or floats in [0, 1]", f"{path}: {pixels.dtype}")
    scale = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    values = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float64) / scale)
    values = values if values.ndim == 2 else values @ torch.tensor(LUMINANCE, dtype=torch.float64)
    inside = bool((values >= 0).all() and (values <= 1 + 1e-6).all())
    require(inside, "path", "finite values in [0, 1]", str(path))
    return values.clamp(0, 1).float()


def find_images(path: Path) -> list[str]:
    """Names of all images in a folder and its subfolders, relative to it and in order; hidden ones are left out.

    Raises:
        MissingFileError: there is no such folder.
        ValueError: it holds too few images, or a file that is none.
    """
    if not path.is_dir():
        raise MissingFileError(f"path: expected a folder of PNG, JPEG or .npy images, got {str(path)!r}")
    found = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
    files = [file for file in found if not any(part.startswith(".") for part in file.parts)]
    for file in files:
        require(file.suffix.lower() in SUFFIXES, "path", "only PNG, JPEG and .npy images", str(path / file))
    require(len(files) >= 3, "path", "at least 3 images, one for each split", f"{len(files)} in {path}")
    return [file.as_posix() for file in files]


def read_folder(path: Path) -> Images:
    """All images that :func:`find_images` lists, in its order.

    Raises:
        ValueError: a file cannot be read, or the images differ in size.
    """
    files = find_images(path)
    images = [read_image(path / file) for file in files]
    for file, image in zip(files, images, strict=True):
        same = image.shape == images[0].shape
        size = "images of one size, {} × {} as {}".format(*images[0].shape, files[0])
        require(same, "path", size, "{} × {} in {}".format(*image.shape, file))
    return torch.stack(images)[:, None]


def split_of(name: str, seed: int, val_share: float, test_share: float) -> Split:
    """The split of a file, from a hash of its name and the seed alone: other files have no influence."""
    digest = hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()
    u = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if u < test_share else "val" if u < test_share + val_share else "train"


class Folder(ImageData):
    """The images of a folder, corrupted anew in each epoch; they have no classes.

    Args:
        corruption, test_levels, batch_size, seed, fresh: see :class:`eai.tasks.recovery.data.ImageData`.
        path: a folder of PNG, JPEG or .npy images of one size, grey or RGB; RGB is read as luminance. Subfolders
            count, hidden files do not.
        height, width: of the images, 8 to 512; null takes those of the first file. Nets tied to one size need numbers.
        val_share, test_share: chance of each image to be in that split. ``seed`` and the file's name decide, so that
            one more image moves no other to a different split; each split needs at least one image.
    """

    def __init__(
        self,
        corruption: Corruption,
        path: str,
        height: int | None = None,
        width: int | None = None,
        val_share: float = 0.15,
        test_share: float = 0.15,
        test_levels: Sequence[float] | None = None,
        batch_size: int = 16,
        seed: int = 0,
        fresh: bool = True,
    ) -> None:
        for name, share in (("val_share", val_share), ("test_share", test_share)):
            require(0 < share < 0.5, name, "0 < share < 0.5", share)
        folder = Path(path).expanduser()
        images = read_folder(folder)
        found = tuple(images.shape[2:])
        size = (found[0] if height is None else height, found[1] if width is None else width)
        require(found == size, "path", "images of {} × {}".format(*size), "{} × {}".format(*found))
        super().__init__(corruption, *size, test_levels, batch_size, seed, fresh)
        parts = [split_of(file, seed, val_share, test_share) for file in find_images(folder)]
        for split in SPLITS:
            enough = "at least one image in each split: add images, raise the shares or change the seed"
            require(split in parts, "path", enough, f"none for {split} among {len(parts)} images")
        self.images: dict[Split, Images] = {
            split: images[torch.tensor([part == split for part in parts])] for split in SPLITS
        }

    def clean(self, split: Split, generator: torch.Generator) -> tuple[Images, Int[Tensor, " b"]]:
        x = self.images[split]
        return x, torch.zeros(len(x), dtype=torch.int64)
