"""Datasets from image files: a folder a class, a flat folder, or a CSV of paths and labels. Read when asked for."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.data.dataset import Array, Dataset
from edgekit.data.split import Indices, hold_out
from edgekit.errors import DataError, MissingToolError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """What the ``args`` of an ``images:`` or ``csv:`` source may hold.

    Attributes:
        size: Height and width that every image is brought to; one number for squares.
        channels: 3 (RGB) or 1 (grey).
        mean, std: Subtracted from and divided into values in [0, 1]; one number, or one a channel.
        layout: Of the arrays that the model gets.
        fit: ``crop`` scales the image to cover the size and cuts the middle out; ``stretch`` changes its proportions.
        test_share: Share of the samples that becomes the test split where the source names none.
    """

    size: int | tuple[int, int]
    channels: Literal[1, 3] = 3
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    fit: Literal["crop", "stretch"] = "crop"
    test_share: float = 0.2

    def __post_init__(self) -> None:
        if min(self.height_width) < 1:
            raise DataError(f"data.args.size: expected at least 1 pixel; received {self.size!r}")
        for name, value in (("mean", self.mean), ("std", self.std)):
            if np.ndim(value) == 1 and np.shape(value) != (self.channels,):
                raise DataError(
                    f"data.args.{name}: expected one number, or one for each of {self.channels} channels; "
                    f"received {value!r}"
                )
        if not np.all(np.asarray(self.std) > 0):
            raise DataError(f"data.args.std: expected positive numbers; received {self.std!r}")
        if not 0 < self.test_share < 1:
            raise DataError(f"data.args.test_share: expected a share between 0 and 1; received {self.test_share!r}")

    @property
    def height_width(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSplit:
    """Image files with their labels; pixels are read and prepared batch by batch.

    Attributes:
        paths: The files.
        labels: Class indices, int64 ``[N]``; None where there are none.
        options: How an image becomes an array.
    """

    paths: tuple[Path, ...]
    labels: NDArray[np.int64] | None
    options: ImageOptions

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> tuple[tuple[Array, ...], Array | None]:
        """Return the images, float32 ``[B, C, H, W]`` or ``[B, H, W, C]`` by the layout, and their labels.

        Raises:
            DataError: A file is missing or no image.
        """
        picked = np.asarray(indices, dtype=np.int64)
        images = np.stack([read_image(self.paths[index], self.options) for index in picked])
        return (images,), None if self.labels is None else self.labels[picked]


def read_image(path: Path, options: ImageOptions) -> NDArray[np.float32]:
    """Read one image as float32 ``[C, H, W]`` or ``[H, W, C]``, scaled, cut and normalized.

    Raises:
        DataError: The file is missing, truncated or no image.
        MissingToolError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingToolError("reading images needs Pillow; install it with: pip install 'edgekit[images]'") from error
    height, width = options.height_width
    try:
        with Image.open(path) as opened:
            image: Image.Image = ImageOps.exif_transpose(opened).convert("RGB" if options.channels == 3 else "L")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: expected a readable image ({', '.join(SUFFIXES)}); received: {error}") from error
    if image.size != (width, height):
        image = _fitted(image, width, height, options.fit)
    pixels = np.asarray(image, dtype=np.float32).reshape(height, width, options.channels) / np.float32(255)
    normalized = (pixels - np.asarray(options.mean, np.float32)) / np.asarray(options.std, np.float32)
    return np.ascontiguousarray(normalized.transpose(2, 0, 1) if options.layout == "NCHW" else normalized)


def _fitted(image: Image, width: int, height: int, fit: str) -> Image:
    from PIL import Image as images
    from PIL import ImageOps

    if fit == "stretch":
        return image.resize((width, height), images.Resampling.BILINEAR)
    return ImageOps.fit(image, (width, height), images.Resampling.BILINEAR)


def load_image_folder(root: Path, options: ImageOptions, *, validation_share: float, seed: int) -> Dataset:
    """Read a folder: ``<class>/*.png``, or ``train/<class>/…`` and ``test/<class>/…``, or images without labels.

    Classes are numbered by the sorted names of their folders.

    Raises:
        DataError: The folder is missing or empty, a class has no image, or the splits disagree on the classes.
    """
    if not root.is_dir():
        raise DataError(f"expected a folder of images at {root}; there is no such folder")
    if (root / "train").is_dir() and (root / "test").is_dir():
        listed = {name: _list_classes(root / name) for name in SPLITS if (root / name).is_dir()}
        classes = listed["train"][2]
        for name, (_, _, others) in listed.items():
            if others != classes:
                raise DataError(f"{root / name}: expected the classes of train, {classes}; received {others}")
        named = {name: (paths, labels) for name, (paths, labels, _) in listed.items()}
    else:
        paths, labels, classes = _list_classes(root)
        named = {"train": (paths, labels)}
    return _dataset(named, classes, options, validation_share=validation_share, seed=seed)


def _list_classes(root: Path) -> tuple[tuple[Path, ...], NDArray[np.int64] | None, tuple[str, ...]]:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        return _list_images(root), None, ()
    members = [_list_images(folder) for folder in folders]
    labels = np.repeat(np.arange(len(folders), dtype=np.int64), [len(paths) for paths in members])
    return tuple(path for paths in members for path in paths), labels, tuple(folder.name for folder in folders)


def _list_images(folder: Path) -> tuple[Path, ...]:
    found = tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()))
    if not found:
        raise DataError(f"{folder}: expected images ({', '.join(SUFFIXES)}); the folder holds none")
    return found


def load_image_csv(path: Path, options: ImageOptions, *, validation_share: float, seed: int) -> Dataset:
    """Read a CSV with the columns ``path`` (relative to the CSV), ``label`` and optionally ``split``.

    Labels are class numbers when every one is a number, else class names, numbered in sorted order.

    Raises:
        DataError: The file is missing, lacks a column, or a row names a missing image or an unknown split.
    """
    rows = _read_rows(path)
    texts = [row["label"] for row in rows]
    numeric = all(text.isascii() and text.isdigit() for text in texts)
    classes = () if numeric else tuple(sorted(set(texts)))
    labels = np.array([int(text) if numeric else classes.index(text) for text in texts], dtype=np.int64)
    files = [path.parent / row["path"] for row in rows]
    splits = np.array([row["split"] for row in rows])
    named = {
        name: (tuple(file for file, split in zip(files, splits, strict=True) if split == name), labels[splits == name])
        for name in SPLITS
        if name in splits
    }
    if "train" not in named:
        raise DataError(f"{path}: expected rows of the split train; received {', '.join(named)}")
    return _dataset(named, classes, options, validation_share=validation_share, seed=seed)


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise DataError(f"expected a CSV file at {path}; there is no such file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or ()
            if not {"path", "label"} <= set(columns):
                raise DataError(f"{path}: expected columns path, label and optionally split; received {list(columns)}")
            rows = [
                _checked_row(path, number, row)
                for number, row in enumerate(reader, start=2)  # line 1 is the header
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a CSV file in UTF-8; it cannot be read ({error})") from error
    if not rows:
        raise DataError(f"{path}: expected one row an image below the header; received none")
    return rows


def _checked_row(path: Path, number: int, row: dict[str, str | None]) -> dict[str, str]:
    name, label, split = row["path"], row["label"], row.get("split") or "train"
    if not name or label is None or not label.strip():
        raise DataError(f"{path}: line {number}: expected a path and a label; received {name!r}, {label!r}")
    if split not in SPLITS:
        raise DataError(f"{path}: line {number}: expected a split of {', '.join(SPLITS)}; received {split!r}")
    if not (path.parent / name).is_file():
        raise DataError(f"{path}: line {number}: expected an image at {path.parent / name}; there is no such file")
    return {"path": name, "label": label.strip(), "split": split}


_Listed = tuple[tuple[Path, ...], NDArray[np.int64] | None]


def _dataset(
    named: dict[str, _Listed], classes: tuple[str, ...], options: ImageOptions, *, validation_share: float, seed: int
) -> Dataset:
    for name, share, draw in (("test", options.test_share, seed), ("validation", validation_share, seed + 1)):
        if name not in named:
            paths, labels = named["train"]
            stay, held = hold_out(np.arange(len(paths)), labels, share, draw, name)
            named["train"], named[name] = _pick(named["train"], stay), _pick(named["train"], held)
    splits = {name: ImageSplit(paths=paths, labels=labels, options=options) for name, (paths, labels) in named.items()}
    return Dataset(
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        classes=classes,
        layout=options.layout,
    )


def _pick(listed: _Listed, indices: Indices) -> _Listed:
    paths, labels = listed
    return tuple(paths[index] for index in indices), None if labels is None else labels[indices]
