"""What is quantized and how: annotations for torchao's PT2E flow, on top of ExecuTorch's XNNPACK quantizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer_utils import is_relu_node
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import (
    FakeQuantize,
    FusedMovingAvgObsFakeQuantize,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
    PlaceholderObserver,
)
from torchao.quantization.pt2e.quantizer import (
    FixedQParamsQuantizationSpec,
    QuantizationAnnotation,
    QuantizationConfig,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from edgekit.program.graph import add_tensor, argument, calls
from edgekit.program.rewrites import CONVOLUTIONS, LINEAR, TRANSPOSED
from edgekit.program.weights import weight_argument
from edgekit.recipe.schema import QuantizeRule

_ATEN = torch.ops.aten
CLAMPS = (_ATEN.hardtanh.default, _ATEN.hardtanh_.default, _ATEN.relu6.default, _ATEN.relu6_.default)
ACTIVATION_EPSILON = 2.0**-12
"""Smallest step of activations, as in ExecuTorch's own configuration: kernels hold ratios of steps in 32 bits."""
WEIGHT_EPSILON = float(torch.finfo(torch.float32).eps)
"""Smallest step of weights. ExecuTorch's 2^-12 would round a channel whose largest weight is 0.01 to 41 levels."""
WEIGHT_LIMITS = {"int8": 127, "int8-dynamic": 127, "w8": 127, "w4": 7}
"""Largest integer of weights. The range is symmetric: -128 would not have a positive counterpart."""

Keep = Callable[[Node], bool]


class ProgramQuantizer(Quantizer):
    """Annotates one of the four quantized precisions.

    ``int8`` and ``int8-dynamic`` are what ExecuTorch's XNNPACK quantizer annotates, without what it gets wrong: it
    observes integers (token ids), and it observes the output of a convolution before the ReLU6 that cuts most of its
    range off. ``w8`` and ``w4`` quantize the weights of convolutions, linear layers and embeddings.

    Args:
        rule: Precision, per-channel or not, observer.
        qat: Fake quantization that trains, instead of observers.
        keep: Says of an operation whether the user's rules let it be quantized.
    """

    def __init__(self, rule: QuantizeRule, *, qat: bool, keep: Keep) -> None:
        super().__init__()
        self._rule = rule
        self._keep = keep
        self._weight = _weight_spec(rule, qat=qat)
        self._activation = _activation_spec(rule, qat=qat)

    def transform_for_annotation(self, model: GraphModule) -> GraphModule:
        """Turn the numbers that float tensors are added to or multiplied with into tensors, as the kernels need them.

        Integer tensors keep theirs: token positions would become real numbers.
        """
        for node in calls(model, _ATEN.add.Tensor, _ATEN.mul.Tensor):
            if not _is_float(node):
                continue
            number = argument(node, 1)
            if isinstance(number, int | float):
                value = torch.tensor(float(number))
                node.args = (node.args[0], add_tensor(model, value, "number", node), *node.args[2:])
        model.recompile()
        return model

    def annotate(self, model: GraphModule) -> GraphModule:
        """Mark what is quantized, and how."""
        if self._activation is None:
            self._annotate_weights(model)
            return model
        config = QuantizationConfig(
            self._activation,
            None if self._activation.is_dynamic else self._activation,
            self._weight,
            None,
            is_qat=False,
        )  # is_qat looks for batch norms, which are folded
        self._mark_left_alone(model)
        if not self._activation.is_dynamic:
            self._annotate_clamped(model)
        XNNPACKQuantizer().set_global(config).annotate(model)
        if self._activation.is_dynamic:
            self._annotate_dynamic_before_relu(model)
        else:
            self._annotate_for_every_kernel(model)
        return model

    def validate(self, model: GraphModule) -> None:
        """Accept every annotation: they are all from here."""

    def _mark_left_alone(self, model: GraphModule) -> None:
        """Annotate with nothing what the XNNPACK quantizer must not touch.

        It has a filter too, but does not ask it about concatenations and operations that pass values on.
        """
        for node in model.graph.nodes:
            wanted = self._keep(node) and _computes_floats(node) and not _adds_attention_mask(node)
            if node.op == "call_function" and not wanted:
                node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(_annotated=True)

    def _annotate_weights(self, model: GraphModule) -> None:
        for node in model.graph.nodes:
            index = weight_argument(node) if node.op == "call_function" else None
            if index is None or not self._keep(node):
                continue
            weight = node.args[index]
            if isinstance(weight, Node) and weight.op == "get_attr":
                node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
                    input_qspec_map={weight: self._weight_of(node)}, _annotated=True
                )

    def _annotate_clamped(self, model: GraphModule) -> None:
        """Observe a convolution or linear layer after the ReLU6 behind it, which kernels fuse."""
        for clamp in calls(model, *CLAMPS):
            layer = clamp.args[0]
            if not (isinstance(layer, Node) and layer.target in (*CONVOLUTIONS, *LINEAR) and len(layer.users) == 1):
                continue
            if Q_ANNOTATION_KEY in layer.meta or Q_ANNOTATION_KEY in clamp.meta:
                continue
            layer.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
                input_qspec_map={layer.args[0]: self._activation, layer.args[1]: self._weight_of(layer)},
                _annotated=True,
            )
            clamp.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(output_qspec=self._activation, _annotated=True)

    def _annotate_dynamic_before_relu(self, model: GraphModule) -> None:
        """Quantize dense 2-d convolutions before a ReLU too, which the XNNPACK quantizer leaves to a static pattern."""
        for layer in calls(model, _ATEN.conv2d.default):
            weight: Any = layer.args[1]
            before_relu = len(layer.users) == 1 and is_relu_node(next(iter(layer.users)))
            depthwise = argument(layer, 6, 1) > 1 and weight.meta["val"].shape[1] == 1
            if before_relu and not depthwise and Q_ANNOTATION_KEY not in layer.meta:
                layer.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
                    input_qspec_map={layer.args[0]: self._activation, weight: self._weight}, _annotated=True
                )

    def _annotate_for_every_kernel(self, model: GraphModule) -> None:
        """Give these operations scales with which the integer kernels of every runtime compute the same.

        * A global average has its own output scale. With its input's, a mean of integers falls between two codes ever
          so often, where the noise of floating point decides; and its range is smaller, so its own step is finer.
        * Resizing keeps its input's scale: TFLite's kernels have one scale, and the converter would quantize the input
          with the output's.
        * Sigmoid has the scale that TFLite's integer kernel insists on.
        """
        for node in calls(model, *_OWN_SCALE):
            found = node.meta.get(Q_ANNOTATION_KEY)
            if found is not None and found.output_qspec is not None:
                found.output_qspec = self._activation
        for node in calls(model, *_INPUT_SCALE):
            source: Any = node.args[0]
            if Q_ANNOTATION_KEY not in node.meta:
                before = source.meta.get(Q_ANNOTATION_KEY)
                shared = before is not None and before.output_qspec is not None
                node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
                    input_qspec_map={source: SharedQuantizationSpec(source) if shared else self._activation},
                    output_qspec=SharedQuantizationSpec((source, node)),
                    _annotated=True,
                )
        for node in calls(model, *_FIXED_SCALE):
            if Q_ANNOTATION_KEY not in node.meta:
                node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
                    input_qspec_map={node.args[0]: self._activation},
                    output_qspec=_fixed_spec(*_FIXED_SCALE[node.target]),
                    _annotated=True,
                )

    def _weight_of(self, node: Node) -> QuantizationSpec:
        return _along_axis(self._weight, 1) if node.target in TRANSPOSED else self._weight


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype is torch.float32


def _computes_floats(node: Node) -> bool:
    tensors = [source for source in node.all_input_nodes if isinstance(source.meta.get("val"), torch.Tensor)]
    return _is_float(node) and all(map(_is_float, tensors))


_PASSES_VALUES = (
    _ATEN.view.default,
    _ATEN.reshape.default,
    _ATEN.permute.default,
    _ATEN.transpose.int,
    _ATEN.unsqueeze.default,
    _ATEN.clamp.default,
)
_SOFTMAX = (_ATEN.softmax.int, _ATEN._softmax.default)


def _adds_attention_mask(node: Node) -> bool:
    """Whether a sum is the input of a softmax: the mask's -1e4 would take the whole range of eight bits."""
    if node.target is not _ATEN.add.Tensor:
        return False
    for user in node.users:
        while user.target in _PASSES_VALUES and len(user.users) == 1:
            user = next(iter(user.users))
        if user.target in _SOFTMAX:
            return True
    return False


_OWN_SCALE = (_ATEN.adaptive_avg_pool2d.default, _ATEN.mean.dim)
_INPUT_SCALE = (_ATEN.upsample_bilinear2d.vec, _ATEN.upsample_nearest2d.vec)
_FIXED_SCALE: dict[Any, tuple[float, int]] = {_ATEN.sigmoid.default: (1 / 256, -128)}
"""Operation -> scale and zero point of its output: all of (0, 1) in 256 steps."""


def _fixed_spec(scale: float, zero_point: int) -> FixedQParamsQuantizationSpec:
    return FixedQParamsQuantizationSpec(
        dtype=torch.int8,
        scale=scale,
        zero_point=zero_point,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
    )


def _along_axis(spec: QuantizationSpec, axis: int) -> QuantizationSpec:
    return QuantizationSpec(
        dtype=spec.dtype,
        quant_min=spec.quant_min,
        quant_max=spec.quant_max,
        qscheme=spec.qscheme,
        ch_axis=axis,
        is_dynamic=spec.is_dynamic,
        observer_or_fake_quant_ctr=spec.observer_or_fake_quant_ctr,
    )


def _weight_spec(rule: QuantizeRule, *, qat: bool) -> QuantizationSpec:
    """Symmetric integers with the scale ``max|w| / limit``, of each output channel or of the whole tensor."""
    limit = WEIGHT_LIMITS[rule.precision]
    observer: Any
    if qat:
        watcher = MovingAveragePerChannelMinMaxObserver if rule.per_channel else MovingAverageMinMaxObserver
        # averaging_constant 1: the scale is that of the weights as they are, not of an average over past steps.
        # Not the fused kernel: it divides a negative extreme by limit + 1, so that training would see another grid
        # than the one that is deployed, by an eighth for 4 bits.
        observer = FakeQuantize.with_args(observer=watcher, averaging_constant=1.0, eps=WEIGHT_EPSILON)
    else:
        observer = (PerChannelMinMaxObserver if rule.per_channel else MinMaxObserver).with_args(eps=WEIGHT_EPSILON)
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-limit,
        quant_max=limit,
        qscheme=torch.per_channel_symmetric if rule.per_channel else torch.per_tensor_symmetric,
        ch_axis=0,
        is_dynamic=False,
        observer_or_fake_quant_ctr=observer,
    )


def _activation_spec(rule: QuantizeRule, *, qat: bool) -> QuantizationSpec | None:
    """Affine int8 over the whole tensor, fixed or chosen at run time; None where only weights are quantized."""
    if rule.precision not in ("int8", "int8-dynamic"):
        return None
    dynamic = rule.precision == "int8-dynamic"
    observer: Any
    if qat and dynamic:
        watcher = MovingAverageMinMaxObserver.with_args(averaging_constant=1)
        observer = FakeQuantize.with_args(observer=watcher, eps=ACTIVATION_EPSILON)
    elif qat:
        observer = FusedMovingAvgObsFakeQuantize.with_args(observer=MovingAverageMinMaxObserver, eps=ACTIVATION_EPSILON)
    elif dynamic:
        observer = PlaceholderObserver.with_args(eps=ACTIVATION_EPSILON)
    else:
        kind = HistogramObserver if rule.calibration == "histogram" else MinMaxObserver
        observer = kind.with_args(eps=ACTIVATION_EPSILON)
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        is_dynamic=dynamic,
        observer_or_fake_quant_ctr=observer,
    )
