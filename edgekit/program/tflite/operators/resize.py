"""Images made larger or smaller, and blocks of pixels moved into channels and back."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Layout, Operand, Value
from edgekit.program.tflite.operators.creation import checked

_ATEN = torch.ops.aten


def resize_bilinear(call: Call) -> Value:
    """``RESIZE_BILINEAR`` with either flag or none.

    torch knows two of the three ways to place the samples; the third, of the first versions of TensorFlow, is a
    matrix product along each axis.
    """
    source = call.input(0)
    height, width = checked(call, call.integers(1, "the size of a resized image"))
    image = call.emit.operand(source, "channels-first")
    corners, half = call.options.alignCorners, call.options.halfPixelCenters
    if (height, width) == source.shape[1:3]:
        return call.regrid(source)
    if half or corners or source.shape[1:3] == (1, 1):
        result = call.call(_ATEN.upsample_bilinear2d.vec, image, [height, width], bool(corners), None)
        return call.value(_rounded_up(call, result), "channels-first")
    for axis, size, target in ((2, source.shape[1], height), (3, source.shape[2], width)):
        image = _along(call, image, axis, _interpolation(size, target))
    return call.value(_rounded_up(call, image), "channels-first")


def _rounded_up(call: Call, image: Operand) -> Operand:
    """Let a quantization that follows round halves up, as the integer kernels of TFLite do.

    Halves are common: twice the size means sums of sixteenths. torch and XNNPACK round them to even numbers.
    """
    grid = call.outputs[0].quantization
    if grid is None:
        return image
    result: Operand = call.call(_ATEN.add.Tensor, image, call.emit.held(torch.tensor([grid.scale[0] / 64]), "half"))
    return result


def _interpolation(size: int, target: int) -> Tensor:
    """Return the weights of samples at ``x * size / target``: ``[target, size]``, two in each row."""
    places = torch.arange(target, dtype=torch.float32) * (size / target)
    low = places.floor().long()
    share = (places - low).unsqueeze(1)
    rows = torch.nn.functional.one_hot(low, size).float()
    return rows * (1 - share) + torch.nn.functional.one_hot((low + 1).clamp(max=size - 1), size).float() * share


def _along(call: Call, image: Operand, axis: int, weights: Tensor) -> Operand:
    """Multiply each line of an image along an axis with a matrix."""
    held = call.emit.held(weights, f"{call.label}.weight")
    turned = image if axis == 3 else call.call(_ATEN.permute.default, image, [0, 1, 3, 2])
    result: Operand = call.call(_ATEN.linear.default, turned, held, None)
    return result if axis == 3 else call.call(_ATEN.permute.default, result, [0, 1, 3, 2])


def resize_nearest(call: Call) -> Value:
    """``RESIZE_NEAREST_NEIGHBOR`` with either flag or both.

    Each pixel repeated the same number of times, the usual case, is a product with ones that broadcast, which every
    delegate takes (XNNPACK has no nearest neighbour); other sizes pick rows and columns.
    """
    source = call.input(0)
    targets = checked(call, call.integers(1, "the size of a resized image"))
    if tuple(targets) == source.shape[1:3]:
        return call.regrid(source)
    image = call.emit.operand(source, "channels-first")
    places = [_nearest(call, size, target) for size, target in zip(source.shape[1:3], targets, strict=True)]
    times = [target // size for size, target in zip(source.shape[1:3], targets, strict=True)]
    if all(
        torch.equal(place, torch.arange(size).repeat_interleave(max(time, 1)))
        for place, size, time in zip(places, source.shape[1:3], times, strict=True)
    ):
        return call.value(_repeated(call, image, source, times), "channels-first")
    for axis, place in enumerate(places):
        image = call.call(_ATEN.index_select.default, image, axis + 2, call.emit.held(place, "places"))
    return call.value(image, "channels-first")


def _nearest(call: Call, size: int, target: int) -> Tensor:
    """Return which row each row of the result is a copy of (``GetNearestNeighbor``)."""
    corners, half = bool(call.options.alignCorners), bool(call.options.halfPixelCenters)
    scale = torch.tensor((size - 1) / (target - 1) if corners and target > 1 else size / target, dtype=torch.float32)
    places = (torch.arange(target, dtype=torch.float32) + (0.5 if half else 0.0)) * scale
    whole = (places + 0.5).floor() if corners else places.floor()  # not torch.round, which prefers even numbers
    return whole.long().clamp(0, size - 1)


def _repeated(call: Call, image: Operand, source: Value, times: list[int]) -> Operand:
    _, height, width, channels = source.shape
    rows, columns = times
    grid = source.quantization
    wide = call.call(_ATEN.reshape.default, image, call.emit.free([source.shape[0], channels * height, 1, width, 1]))
    wide = call.requantized(wide, grid)
    ones = call.emit.ones((1, 1, rows, 1, columns), quantized=grid is not None)
    product = call.requantized(call.call(_ATEN.mul.Tensor, wide, ones), grid)
    sizes = call.emit.free([source.shape[0], channels, height * rows, width * columns])
    result: Operand = call.call(_ATEN.reshape.default, product, sizes)
    return result


def space_to_depth(call: Call) -> Value:
    """``SPACE_TO_DEPTH``: blocks of pixels become channels, row by row."""
    return _blocks(call, into_channels=True)


def depth_to_space(call: Call) -> Value:
    """``DEPTH_TO_SPACE``: channels become blocks of pixels, row by row."""
    return _blocks(call, into_channels=False)


def _blocks(call: Call, *, into_channels: bool) -> Value:
    source, block = call.input(0), call.options.blockSize
    batch, height, width, channels = source.shape
    layout: Layout = "file" if source.constant is not None else source.layout
    operand = call.emit.operand(source, layout)
    if into_channels:
        rows, columns, inner = height // block, width // block, channels
        file = ([batch, rows, block, columns, block, inner], [0, 1, 3, 2, 4, 5])
        first = ([batch, inner, rows, block, columns, block], [0, 3, 5, 1, 2, 4])
        sizes = [rows, columns, channels * block * block]
    else:
        inner = channels // (block * block)
        file = ([batch, height, width, block, block, inner], [0, 1, 3, 2, 4, 5])
        first = ([batch, block, block, inner, height, width], [0, 3, 4, 1, 5, 2])
        sizes = [height * block, width * block, inner]
    split, order = first if layout == "channels-first" else file
    final = [sizes[2], sizes[0], sizes[1]] if layout == "channels-first" else sizes
    for target, argument in (
        (_ATEN.reshape.default, call.emit.free(split)),
        (_ATEN.permute.default, order),
        (_ATEN.reshape.default, call.emit.free([batch, *final])),
    ):
        operand = call.requantized(call.call(target, operand, argument), source.quantization)
    return call.value(operand, layout)


OPERATORS = {
    "DEPTH_TO_SPACE": depth_to_space,
    "RESIZE_BILINEAR": resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest,
    "SPACE_TO_DEPTH": space_to_depth,
}
