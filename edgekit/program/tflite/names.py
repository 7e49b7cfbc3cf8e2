"""Which layer of the model an operator of a ``.tflite`` file belongs to, from the names of the tensors around it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekit.program.tflite.graph import GraphInfo, OperatorInfo

_WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "CONV_3D"})
_KERNELS = (
    "Conv2D",
    "depthwise",
    "MatMul",
    "BiasAdd",
    "Conv2DBackpropInput",
    "Conv3D",
    "Tensordot",
    "conv2d_transpose",
)


def layer_names(graphs: Sequence[GraphInfo]) -> list[list[str]]:
    """Name the operators of every graph: graph → operator → layer path, dots between its parts.

    A converter joins the names of what it fused by ``;`` (``model/relu/Relu;model/norm/FusedBatchNormV3;
    model/conv/Conv2D``). A layer with weights is called after its kernel, another after its result; the model's own
    name in front, which every name begins with, is left out.
    """
    names = [[_name(graph, operator) for operator in graph.operators] for graph in graphs]
    prefix = _common_prefix(name for group in names for name in group if name)
    return [[".".join(_parts(name)[prefix:]) for name in group] for group in names]


def _name(graph: GraphInfo, operator: OperatorInfo) -> str:
    texts = [graph.tensors[index].name for index in operator.outputs if index >= 0]
    fused = [part for text in texts[:1] for part in text.split(";") if part]
    if not fused:
        return ""
    if operator.type in _WEIGHTED:
        fused.sort(key=lambda part: not part.rstrip("0123456789_").endswith(_KERNELS))  # stable: a kernel comes first
    parts = _parts(fused[0])
    return "/".join(parts[:-1] if len(parts) > 1 else parts)


def _parts(name: str) -> list[str]:
    return [part.replace(".", "_").partition(":")[0] for part in name.split("/") if part]


def _common_prefix(names: Iterable[str]) -> int:
    """Return how many leading parts all names share, with at least one part left of each."""
    listed = [_parts(name) for name in names]
    if not listed:
        return 0
    shared = 0
    for column in zip(*listed, strict=False):
        if len(set(column)) != 1:
            break
        shared += 1
    return min(shared, min(len(parts) for parts in listed) - 1)
