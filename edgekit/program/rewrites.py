"""Rewrites of a recorded float graph, exact in real arithmetic, after which exporters agree and delegates take more."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from edgekit.program.graph import add_tensor, argument, call, calls, fake_of, replace, tensor_of, tidy

_ATEN = torch.ops.aten
CONVOLUTIONS = (_ATEN.conv1d.default, _ATEN.conv2d.default, _ATEN.conv3d.default)
TRANSPOSED = (_ATEN.conv_transpose1d.default, _ATEN.conv_transpose2d.input, _ATEN.conv_transpose3d.input)
LINEAR = (_ATEN.linear.default,)
BATCH_NORM = (_ATEN.batch_norm.default,)
_DROPOUT = (_ATEN.dropout.default, _ATEN.dropout_.default, _ATEN.feature_dropout.default)
_INERT = (*_DROPOUT, _ATEN.detach.default, _ATEN.detach_.default, _ATEN.alias.default)
MASKED_SCORE = -1e4
"""What a masked attention score becomes: far below any score, and finite in float16 (``-inf`` gives NaN in a row that
is masked whole, and cannot be held by Core ML's fp16 programs)."""


def rewrite(graph: GraphModule) -> GraphModule:
    """Apply the rewrites that come before quantization: what is left is what is quantized.

    Args:
        graph: Recorded in evaluation mode; it is changed and returned.
    """
    drop_inert(graph)
    fold_batch_norms(graph)
    replace_batch_norms(graph)
    keep_averaged_axes(graph)
    return graph


def expand(graph: GraphModule) -> GraphModule:
    """Apply the rewrites that come after quantization: operations that stay in floating point, written out.

    Before quantization each step of theirs would be given scales of its own, and lose precision at each.

    Args:
        graph: Float, or converted; it is changed and returned.
    """
    expand_hard_sigmoids(graph)
    expand_attention(graph)
    expand_mask_fills(graph)
    return graph


def drop_inert(graph: GraphModule) -> GraphModule:
    """Remove what does nothing in inference: dropout, ``detach``, ``alias``, assertions about dtypes.

    Core ML has no ``alias``; to ExecuTorch each of them is an operation between two delegates.
    """
    for node in calls(graph, *_INERT):
        if node.target in _DROPOUT and argument(node, 2, False):
            continue
        replace(node, node.args[0])  # type: ignore[arg-type]
    for node in calls(graph, _ATEN._assert_tensor_metadata.default):
        graph.graph.erase_node(node)
    return tidy(graph)


def fold_batch_norms(graph: GraphModule) -> GraphModule:
    """Fold batch norms into the convolution or linear layer before them.

    ``W' = W * gamma / sqrt(var + eps)``, ``b' = (b - mean) * gamma / sqrt(var + eps) + beta`` (Ioffe & Szegedy 2015,
    section 3.1, applied to inference). Zero weights stay zero.

    Besides being faster this keeps batch norms from ExecuTorch's own folding, which names what it makes by module path
    with dots turned to underscores, so that the modules ``a.1`` and ``a_1`` take each other's weights.
    """
    for norm in calls(graph, *BATCH_NORM):
        layer = norm.args[0]
        if isinstance(layer, Node) and layer.target in (*CONVOLUTIONS, *TRANSPOSED, *LINEAR) and len(layer.users) == 1:
            _fold_into(graph, layer, norm)
    return tidy(graph)


def _fold_into(graph: GraphModule, layer: Node, norm: Node) -> None:
    weight = tensor_of(graph, layer.args[1])
    bias = tensor_of(graph, argument(layer, 2))
    statistics = _statistics(graph, norm)
    fits = layer.target not in LINEAR or norm.meta["val"].dim() == 2  # [N, L, C] is normalized over L, not over C
    if weight is None or statistics is None or not fits or (argument(layer, 2) is not None and bias is None):
        return
    mean, variance, gamma, beta, epsilon = statistics
    folded: tuple[Tensor, Tensor]
    if layer.target in LINEAR:
        folded = fuse_linear_bn_weights(weight, bias, mean, variance, epsilon, gamma, beta)
    elif layer.target in TRANSPOSED:
        groups = argument(layer, 6, 1)
        folded = _fold_transposed(weight, bias, statistics, groups)
    else:
        folded = fuse_conv_bn_weights(weight, bias, mean, variance, epsilon, gamma, beta)
    name = str(layer.args[1].target)  # type: ignore[union-attr]
    new_weight = _set_tensor(graph, layer.args[1], layer, folded[0].detach(), name)  # type: ignore[arg-type]
    bias_name = f"{name.removesuffix('weight')}bias" if name.endswith("weight") else f"{name}_bias"
    if bias is None:
        new_bias = add_tensor(graph, folded[1].detach(), bias_name, layer, trainable=True)
    else:
        old_bias: Node = layer.args[2]  # type: ignore[assignment]
        new_bias = _set_tensor(graph, old_bias, layer, folded[1].detach(), str(old_bias.target))
    layer.args = (layer.args[0], new_weight, new_bias, *layer.args[3:])
    replace(norm, layer)


def _fold_transposed(
    weight: Tensor, bias: Tensor | None, statistics: tuple[Tensor, Tensor, Tensor, Tensor, float], groups: int
) -> tuple[Tensor, Tensor]:
    """``weight`` is ``[C_in, C_out / groups, ...]``: the output channels of group g lie beside its input channels."""
    mean, variance, gamma, beta, epsilon = statistics
    factor = gamma * torch.rsqrt(variance + epsilon)
    by_group = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    shape = (groups, 1, weight.shape[1], *[1] * (weight.dim() - 2))
    scaled = (by_group * factor.reshape(shape)).reshape(weight.shape)
    start = torch.zeros_like(mean) if bias is None else bias
    return scaled, (start - mean) * factor + beta


def _statistics(graph: GraphModule, norm: Node) -> tuple[Tensor, Tensor, Tensor, Tensor, float] | None:
    """Mean, variance, gamma, beta and epsilon of a batch norm in evaluation mode, None where they are not constants."""
    gamma, beta, mean, variance = (tensor_of(graph, argument(norm, index)) for index in (1, 2, 3, 4))
    if mean is None or variance is None or argument(norm, 5, False):
        return None
    gamma = torch.ones_like(mean) if gamma is None else gamma
    beta = torch.zeros_like(mean) if beta is None else beta
    return mean, variance, gamma, beta, float(argument(norm, 7, 1e-5))


def _set_tensor(graph: GraphModule, old: Node, reader: Node, value: Tensor, name: str) -> Node:
    """Give ``reader`` its own value; a tensor that others read too keeps the old one for them."""
    if len(old.users) == 1 and len(graph.graph.find_nodes(op="get_attr", target=old.target)) == 1:
        folder, _, leaf = name.rpartition(".")
        owner = graph.get_submodule(folder)
        delattr(owner, leaf)
        owner.register_parameter(leaf, torch.nn.Parameter(value))
        old.meta["val"] = fake_of(reader, value)
        return old
    return add_tensor(graph, value, name, reader, trainable=True)


def replace_batch_norms(graph: GraphModule) -> GraphModule:
    """Turn batch norms that no layer could take in into what delegates run.

    Over images they become a depthwise 1x1 convolution (``gamma / sqrt(var + eps)`` as weights, one a channel, which
    quantizes per channel); over ``[N, C]`` a multiplication and an addition.
    """
    for norm in calls(graph, *BATCH_NORM):
        statistics = _statistics(graph, norm)
        source = norm.args[0]
        if statistics is None or not isinstance(source, Node) or norm.meta["val"].dim() not in (2, 3, 4):
            continue
        mean, variance, gamma, beta, epsilon = statistics
        scale = gamma * torch.rsqrt(variance + epsilon)
        shift = beta - mean * scale
        name = str(norm.args[3].target).removesuffix("running_mean").removesuffix(".")  # type: ignore[union-attr]
        rank = norm.meta["val"].dim()
        shape = (-1, 1, *[1] * (rank - 2)) if rank > 2 else (-1,)
        weight = add_tensor(graph, scale.reshape(shape).contiguous(), f"{name}.scale", norm, trainable=True)
        bias = add_tensor(graph, shift, f"{name}.shift", norm, trainable=True)
        if rank == 2:
            scaled = call(graph, norm, _ATEN.mul.Tensor, source, weight)
            replace(norm, call(graph, norm, _ATEN.add.Tensor, scaled, bias))
        else:
            ones, zeros = [1] * (rank - 2), [0] * (rank - 2)
            convolution = CONVOLUTIONS[rank - 3]
            arguments = (source, weight, bias, ones, zeros, ones, scale.numel())
            replace(norm, call(graph, norm, convolution, *arguments))
    return tidy(graph)


def keep_averaged_axes(graph: GraphModule) -> GraphModule:
    """Write the mean over an image's positions, to ``[B, C]``, as a mean that keeps both axes, then drop them.

    XNNPACK averages only with its axes kept. Left alone, the mean of an integer program runs in floating point between
    two delegates, and rounds differently from the integer kernels of other formats.
    """
    for node in calls(graph, _ATEN.mean.dim):
        source, axes = node.args[0], argument(node, 1)
        if not isinstance(source, Node) or source.meta["val"].dim() != 4 or argument(node, 2, False) or node.kwargs:
            continue
        if not axes or sorted(axis % 4 for axis in axes) != [2, 3]:
            continue
        kept = call(graph, node, _ATEN.mean.dim, source, [2, 3], True)
        channels = int(source.meta["val"].shape[1])
        # the batch is the inferred size: XNNPACK takes no size that is known only at run time
        replace(node, call(graph, node, _ATEN.view.default, kept, [-1, channels]))
    return tidy(graph)


def replace_average_pools(graph: GraphModule) -> GraphModule:
    """Turn average pooling over windows into a depthwise convolution with weights ``1 / window``, for integer programs.

    XNNPACK pools in floating point, TFLite at the input's scale with a second rounding: they part in half of the
    outputs. The convolution is the same integer kernel in both, and its weights are exact in int8.
    Pools that divide by anything but the size of the window are left alone.
    """
    for node in calls(graph, _ATEN.avg_pool2d.default):
        source, kernel = node.args[0], _pair(node.args[1])
        stride, padding = _pair(argument(node, 2) or kernel), _pair(argument(node, 3, 0))
        counts_padding = argument(node, 5, True) or not any(padding)
        if node.kwargs or argument(node, 4, False) or argument(node, 6) or not counts_padding:
            continue
        channels = int(node.meta["val"].shape[1])
        window = torch.full((channels, 1, *kernel), 1.0 / (kernel[0] * kernel[1]))
        weight = add_tensor(graph, window, f"{node.name}.window", node)
        replace(node, call(graph, node, CONVOLUTIONS[1], source, weight, None, stride, padding, [1, 1], channels))
    return tidy(graph)


def _pair(value: object) -> list[int]:
    sizes = [value] if isinstance(value, int) else list(value)  # type: ignore[call-overload]
    return sizes * 2 if len(sizes) == 1 else sizes


def expand_hard_sigmoids(graph: GraphModule) -> GraphModule:
    """Write ``hardsigmoid(x)`` as ``relu6(x + 3) / 6``, its definition.

    ExecuTorch decomposes the operation itself into steps that XNNPACK's partitioner refuses, with a copy between each.
    """
    for node in calls(graph, _ATEN.hardsigmoid.default, _ATEN.hardsigmoid_.default):
        shifted = call(graph, node, _ATEN.add.Tensor, node.args[0], 3.0)
        clipped = call(graph, node, _ATEN.hardtanh.default, shifted, 0.0, 6.0)
        replace(node, call(graph, node, _ATEN.mul.Tensor, clipped, 1.0 / 6.0))
    return tidy(graph)


def expand_attention(graph: GraphModule) -> GraphModule:
    """Write scaled dot-product attention as two matrix products around a softmax.

    ``softmax(Q K^T * scale + mask) V`` (Vaswani et al. 2017, eq. 1). Left whole, exporters decompose it with a guard
    against rows that are masked whole (``any``, ``where``, ``logical_not``), which no delegate takes, and which costs
    two thirds of a small transformer's operations their delegation. With finite masks the guard is not needed.
    """
    for node in calls(graph, _ATEN.scaled_dot_product_attention.default):
        query, key, value = node.args[:3]
        mask, causal = argument(node, 3), argument(node, 5, False)
        same_heads = query.meta["val"].shape[:-2] == key.meta["val"].shape[:-2]  # type: ignore[union-attr]
        if float(argument(node, 4, 0.0)) or not same_heads:
            continue  # dropout means training; grouped queries keep their own operation
        width = query.meta["val"].shape[-1]  # type: ignore[union-attr]
        scale = node.kwargs.get("scale")
        factor = float(scale) if isinstance(scale, int | float) else 1.0 / math.sqrt(width)
        scaled = call(graph, node, _ATEN.mul.Tensor, query, factor)
        turned = call(graph, node, _ATEN.transpose.int, key, -2, -1)
        scores = call(graph, node, _ATEN.matmul.default, scaled, turned)
        if causal:
            mask = _causal_mask(graph, node, scores)
        if mask is not None:
            scores = call(graph, node, _ATEN.add.Tensor, scores, _additive(graph, node, mask))
        weights = call(graph, node, _ATEN.softmax.int, scores, -1)
        replace(node, call(graph, node, _ATEN.matmul.default, weights, value))
    return tidy(graph)


def _causal_mask(graph: GraphModule, before: Node, scores: Node) -> Node:
    rows, columns = (int(size) for size in scores.meta["val"].shape[-2:])
    allowed = torch.ones(rows, columns, dtype=torch.bool).tril()
    return add_tensor(graph, torch.zeros(rows, columns).masked_fill(~allowed, MASKED_SCORE), "causal_mask", before)


def _additive(graph: GraphModule, before: Node, mask: Node) -> Node:
    """Turn a mask into what is added to scores: 0 where attention is allowed, ``MASKED_SCORE`` where not."""
    if mask.meta["val"].dtype is not torch.bool:
        constant = tensor_of(graph, mask)
        if constant is not None:
            return add_tensor(graph, constant.clamp(min=MASKED_SCORE), "attention_mask", before)
        return call(graph, before, _ATEN.clamp.default, mask, MASKED_SCORE)
    allowed = call(graph, before, _ATEN.to.dtype, mask, torch.float32)
    shifted = call(graph, before, _ATEN.sub.Tensor, allowed, 1.0)
    return call(graph, before, _ATEN.mul.Tensor, shifted, -MASKED_SCORE)


def expand_mask_fills(graph: GraphModule) -> GraphModule:
    """Write ``zeros_like(mask).masked_fill(mask, value)`` as ``mask * value``, with ``-inf`` as ``MASKED_SCORE``.

    It is how nn.TransformerEncoder turns a padding mask into scores. coremltools overlooks that the zeros have another
    dtype than the mask and makes the filled tensor boolean: every padded position is attended to, without an error.
    """
    for node in calls(graph, _ATEN.masked_fill.Scalar, _ATEN.masked_fill_.Scalar):
        zeros, mask, value = node.args[:3]
        same_shape = mask.meta["val"].shape == node.meta["val"].shape  # type: ignore[union-attr]
        if not (isinstance(zeros, Node) and zeros.target is _ATEN.zeros_like.default and same_shape):
            continue
        real = call(graph, node, _ATEN.to.dtype, mask, node.meta["val"].dtype)
        replace(node, call(graph, node, _ATEN.mul.Tensor, real, max(float(value), MASKED_SCORE)))  # type: ignore[arg-type]
    return tidy(graph)
