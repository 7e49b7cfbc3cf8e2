"""Constant weights of convolutions and matrix products, as delegates take them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Operand, Value
from edgekit.records import Quantization

_LARGEST = 127


def weight(call: Call, value: Value, order: Sequence[int], channels: int) -> Operand:
    """Hold a weight: integers folded in front of a dequantization where the file has them, one scale a channel.

    Args:
        call: The operator; its label names the weight.
        value: Of the file, constant.
        order: The axes of the file in torch's order.
        channels: Which of torch's axes are the output channels.

    Raises:
        UnsupportedError: The weight depends on the model's input.
    """
    constant = value.constant
    if constant is None:
        raise call.refusal("its weight depends on the model's input", "a layer with constant weights")
    name = f"{call.label}.weight"
    turned = constant.permute(tuple(order)).contiguous()
    grid = value.quantization
    if grid is None:
        return call.emit.held(turned, name)
    if any(grid.zero_point):
        turned, grid = symmetric(call, turned, grid, channels)
    elif grid.axis is None:
        count = turned.shape[channels]
        grid = Quantization(scale=grid.scale * count, zero_point=(0,) * count, axis=channels, dtype=grid.dtype)
    axis = channels if grid is not value.quantization or grid.axis is None else list(order).index(grid.axis)
    return call.emit.dequantized(turned, grid, name, axis)


def real_weight(call: Call, value: Value, order: Sequence[int]) -> Operand:
    """Hold a weight as real numbers, for layers that no runtime computes with integer weights alone."""
    if value.constant is None:
        raise call.refusal("its weight depends on the model's input", "a layer with constant weights")
    return call.emit.held(value.real().permute(tuple(order)), f"{call.label}.weight")


def symmetric(call: Call, integers: Tensor, grid: Quantization, channels: int) -> tuple[Tensor, Quantization]:
    """Give weights with a zero point (TensorFlow 1's uint8) scales without one, as every integer kernel of today wants.

    Nothing changes in channels whose distances from the zero point fit into 127. In others 255 levels become 127 on
    each side; the note says by how much of a file's step weights move at most.
    """
    distances = integers.to(torch.int64) - grid.zero_point[0]
    others = [axis for axis in range(distances.dim()) if axis != channels]
    limits = distances.abs().amax(dim=others, keepdim=True)
    factors = torch.where(limits > _LARGEST, limits.double() / _LARGEST, torch.ones_like(limits, dtype=torch.float64))
    rounded = torch.round(distances / factors)
    moved = float((rounded * factors - distances).abs().max())
    if moved:
        call.emit.notes.append(
            f"{call.label}: weights with the zero point {grid.zero_point[0]} were quantized again, symmetric for each "
            f"channel, as integer kernels take them; they moved by up to {moved:.2f} of the file's steps"
        )
    scales = tuple((factors.flatten() * grid.scale[0]).tolist())
    return rounded.to(torch.int8), Quantization(scale=scales, zero_point=(0,) * len(scales), axis=channels)
