"""Resizing, cropping and sampling of images (``image_resizing.py`` of iOS15, 16 and 17)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor

from edgekit.formats.coreml.evaluator.operations.padding import pad_last
from edgekit.formats.coreml.evaluator.registry import Call, operation

_PADS_CROPS = 16


def grid_points(size: Tensor | float, count: int, mode: str) -> Tensor:
    """Where an axis is sampled, unclamped, as ``iOS15.resize_bilinear`` writes it for each ``sampling_mode``.

    Args:
        size: Of the input, or of a box (fractions too), any shape.
        count: Of the output.
        mode: ``DEFAULT``, ``STRICT_ALIGN_CORNERS``, ``ALIGN_CORNERS``, ``OFFSET_CORNERS`` or ``UNALIGN_CORNERS``.

    Returns:
        ``[*size.shape, count]``.
    """
    places = torch.arange(count, dtype=torch.float32)
    extent = torch.as_tensor(size, dtype=torch.float32)[..., None]
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if count > 1:
            return places * ((extent - 1) / (count - 1))
        return places * 0 + ((extent - 1) / 2 if mode == "ALIGN_CORNERS" else extent * 0)
    if mode == "OFFSET_CORNERS":
        return (places + 0.5) * ((extent - 1).clamp(min=1) / count)
    spacing = extent / count
    return (places + 0.5) * spacing - 0.5 if mode == "UNALIGN_CORNERS" else places * spacing


_MODES = ("DEFAULT", "STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "OFFSET_CORNERS", "UNALIGN_CORNERS")


def _mode(call: Call) -> str:
    mode = call.word("sampling_mode", "DEFAULT")
    if mode not in _MODES:
        raise call.refuse(f"sampling_mode among {', '.join(_MODES)}", mode)
    return mode


def _interpolate(x: Tensor, axis: int, points: Tensor) -> Tensor:
    """Sample one axis between its elements; points beyond an end take the end's value."""
    size = x.shape[axis]
    points = points.clamp(0, size - 1)
    lower = points.floor().long()
    upper = (lower + 1).clamp(max=size - 1)
    share = (points - lower).reshape([-1 if place == axis % x.ndim else 1 for place in range(x.ndim)])
    low, high = x.index_select(axis, lower), x.index_select(axis, upper)
    return low + (high - low) * share


def _nearest(x: Tensor, axis: int, points: Tensor) -> Tensor:
    return x.index_select(axis, (points + 0.5).floor().long().clamp(0, x.shape[axis] - 1))


def _repeat(x: Tensor, axis: int, count: int) -> Tensor:
    """Take ``count`` elements of an axis, each the nearest before its point; in integers, which round nothing."""
    size = x.shape[axis]
    return x.index_select(axis, torch.arange(count) * size // count)


@operation("resize_bilinear")
def resize_bilinear(call: Call) -> Tensor:
    """``iOS15.resize_bilinear``: the last two dimensions to a target size; see ``grid_points`` for the modes."""
    x, mode = call.tensor(), _mode(call)
    targets = call.integer("target_size_height", 1), call.integer("target_size_width", 1)
    for axis, count in zip((-2, -1), targets, strict=True):
        x = _interpolate(x, axis, grid_points(x.shape[axis], count, mode))
    return x


@operation("upsample_bilinear")
def upsample_bilinear(call: Call) -> Tensor:
    """``iOS15.upsample_bilinear``, ``iOS16.upsample_bilinear``: by factors, which are taken anew from the rounded size.

    ``align_corners`` (the default) is ``STRICT_ALIGN_CORNERS``, its absence ``UNALIGN_CORNERS``; from iOS16 on
    ``half_pixel_centers`` may be false without ``align_corners``, which is ``DEFAULT``.
    """
    x, aligned = call.tensor(), call.flag("align_corners", True)
    mode = "STRICT_ALIGN_CORNERS" if aligned else "UNALIGN_CORNERS"
    if not aligned and not call.flag("half_pixel_centers", True):
        mode = "DEFAULT"
    for axis, name in ((-2, "scale_factor_height"), (-1, "scale_factor_width")):
        count = math.floor(x.shape[axis] * call.number(name, 1))
        x = _interpolate(x, axis, grid_points(x.shape[axis], count, mode))
    return x


@operation("resize_nearest_neighbor", exact=True)
def resize_nearest_neighbor(call: Call) -> Tensor:
    """``iOS15.resize_nearest_neighbor``: output ``i`` takes input ``floor(i size / target)``."""
    x = call.tensor()
    for axis, name in ((-2, "target_size_height"), (-1, "target_size_width")):
        x = _repeat(x, axis, call.integer(name))
    return x


@operation("upsample_nearest_neighbor", exact=True)
def upsample_nearest_neighbor(call: Call) -> Tensor:
    """``iOS15.upsample_nearest_neighbor``: by factors, fractions too; the size is rounded down and then decides.

    Output ``i`` takes input ``floor(i size / target)``, as in ``resize_nearest_neighbor``.
    """
    x = call.tensor()
    for axis, name in ((-2, "scale_factor_height"), (-1, "scale_factor_width")):
        x = _repeat(x, axis, math.floor(x.shape[axis] * call.number(name, 1)))
    return x


@operation("resize", since=17)
def resize(call: Call) -> Tensor:
    """``iOS17.resize``: the last ``resized_dims`` dimensions to those of ``shape``; 0 leaves a dimension as it is.

    ``NEAREST_NEIGHBOR`` takes the element nearest to each point (so the expected values in coremltools' tests have it),
    where ``resize_nearest_neighbor`` takes the one before it.
    """
    x, mode, shape = call.tensor(), _mode(call), call.integers("shape")
    count = call.integer("resized_dims")
    sample = _nearest if call.word("interpolation_mode", "LINEAR") == "NEAREST_NEIGHBOR" else _interpolate
    dtype, x = x.dtype, x.float()
    for axis, target in zip(range(-count, 0), shape[len(shape) - count :], strict=True):
        if target not in (0, x.shape[axis]):
            x = sample(x, axis, grid_points(x.shape[axis], target, mode))
    return x.to(dtype)


@operation("crop", exact=True)
def crop(call: Call) -> Tensor:
    """``iOS15.crop``: takes away from the top and bottom, left and right."""
    pairs = [call.integers(name) for name in ("crop_height", "crop_width")]
    return pad_last(call.tensor(), [(-before, -after) for before, after in pairs])


@operation("crop_resize")
def crop_resize(call: Call) -> Tensor:
    """``iOS15.crop_resize``, ``iOS16.crop_resize``, ``iOS17.crop_resize``: boxes of images, resized bilinearly.

    Before iOS17 a box is ``roi [N, 1, 4 or 5, 1, 1]``, with the number of its image first where there are five, and
    of every image where there are four; the result has five dimensions. From iOS17 on it is ``boxes [N, 4]`` with
    ``box_indices [N]``. A box from ``a`` to ``b`` has the size ``b - a + 1``; one that ends before it starts is the
    whole image (so the expected values in coremltools' tests have it). Points outside the image take
    ``pad_value`` (iOS16), before that the nearest pixel.
    """
    x = call.tensor().float()
    if call.has("boxes"):
        boxes = call.tensor("boxes").float()
        images = call.integers("box_indices", range(len(boxes)))
        return torch.stack([_crop(call, x[image], box) for image, box in zip(images, boxes, strict=True)])
    roi = call.tensor("roi").float().flatten(1)
    if roi.shape[1] == 5:
        return torch.stack([_crop(call, x[int(box[0])], box[1:])[None] for box in roi])
    return torch.stack([torch.stack([_crop(call, image, box) for image in x]) for box in roi])


def _crop(call: Call, image: Tensor, box: Tensor) -> Tensor:
    """Sample one box of one image ``[C, H, W]``."""
    mode, scale = _mode(call), call.number("spatial_scale", 1.0)
    sides = _corners(call, box)
    outside = []
    for axis, name, (first, last) in zip((-2, -1), ("target_height", "target_width"), sides, strict=True):
        size = image.shape[axis]
        if call.flag("normalized_coordinates"):
            first, last = first * (size - 1), last * (size - 1)
        first, last = first * scale, last * scale
        if last < first:
            first, last = torch.zeros(()), torch.tensor(float(size - 1))
        points = first + grid_points(last - first + 1, call.integer(name, 1), mode)
        outside.append((points < 0) | (points > size - 1))
        image = _interpolate(image, axis, points)
    if call.opset < _PADS_CROPS:
        return image
    return image.masked_fill(outside[0][:, None] | outside[1][None, :], call.number("pad_value", 0.0))


def _corners(call: Call, box: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """First and last row, first and last column of a box."""
    mode = call.word("box_coordinate_mode", "CORNERS_HEIGHT_FIRST")
    a, b, c, d = box
    if mode.startswith("CENTER_SIZE"):
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    elif not mode.startswith("CORNERS"):
        raise call.refuse("box_coordinate_mode CORNERS_* or CENTER_SIZE_*", mode)
    return ((b, d), (a, c)) if mode.endswith("WIDTH_FIRST") else ((a, c), (b, d))


@operation("affine")
def affine(call: Call) -> Tensor:
    """``iOS15.affine``: an affine map of each image, bilinear, zeros outside; coordinates run from -1 to 1."""
    x, matrix = call.tensor().float(), call.tensor("transform_matrix").float()
    aligned = call.flag("align_corners", True)
    maps = matrix.reshape(-1, 2, 3).expand(len(x), 2, 3)
    size = [*x.shape[:2], call.integer("output_height"), call.integer("output_width")]
    grid = functional.affine_grid(maps, size, align_corners=aligned)
    return _padded_sample(x, grid, "bilinear", "zeros", aligned, call.number("padding_value", 0.0))


@operation("resample")
def resample(call: Call) -> Tensor:
    """``iOS15.resample``: values at ``coordinates [B, H, W, 2]``, ``(x, y)`` each.

    ``padding_mode`` ``reflection`` leaves the edge out of the reflection, ``symmetric`` repeats it.
    """
    x = call.tensor().float()
    kind, aligned = call.word("padding_mode", "constant"), call.flag("align_corners", True)
    sizes = torch.tensor([x.shape[3], x.shape[2]], dtype=torch.float32)
    pixels = _pixels(call, call.tensor("coordinates").float(), sizes, aligned)
    mode = call.word("sampling_mode", "bilinear")
    centred = kind != "symmetric"  # torch reflects about the edges' centres or about their outer borders
    grid = _normalized(pixels, sizes, centred)
    padding = {"constant": "zeros", "border": "border", "reflection": "reflection", "symmetric": "reflection"}
    if kind not in padding:
        raise call.refuse(f"padding_mode among {', '.join(padding)}", kind)
    return _padded_sample(x, grid, mode, padding[kind], centred, call.number("padding_value", 0.0))


def _pixels(call: Call, coordinates: Tensor, sizes: Tensor, aligned: bool) -> Tensor:
    """Turn coordinates into places of pixels."""
    mode = call.word("coordinates_mode", "unnormalized")
    if mode == "unnormalized":
        return coordinates
    unit = (coordinates + 1) / 2 if mode == "normalized_minus_one_to_one" else coordinates
    return unit * (sizes - 1) if aligned else unit * sizes - 0.5


def _normalized(pixels: Tensor, sizes: Tensor, aligned: bool) -> Tensor:
    """The inverse, into the range from -1 to 1 that torch takes."""
    if aligned:
        return pixels * 2 / (sizes - 1).clamp(min=1) - 1
    return (pixels * 2 + 1) / sizes - 1


def _padded_sample(x: Tensor, grid: Tensor, mode: str, padding: str, aligned: bool, value: float) -> Tensor:
    """Sample with torch, whose constant padding is zero."""
    if padding == "zeros" and value:
        return functional.grid_sample(x - value, grid, mode, padding, aligned) + value
    return functional.grid_sample(x, grid, mode, padding, aligned)
