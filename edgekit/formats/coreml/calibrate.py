"""coremltools' own int8: weights and activations quantized after conversion, calibrated on any machine.

``coremltools.optimize.coreml.linear_quantize_activations`` runs the model with ``predict`` to see how far activations
reach, which works on a Mac only. Here the reference evaluator runs it. The passes that put quantize and dequantize
operations into the program are coremltools' own (``linear_quantize_activations`` of coremltools 9.0), so that what
comes out is what a Mac would give but for one thing: that version keeps the range of the last sample alone
(``_update_tensor_range`` overwrites before it compares), here the range of all samples is kept.

It quantizes what goes into and comes out of convolutions, linear layers, pooling and sums; everything else stays in
floating point. An ``int8`` program of edgekit's own has more in integers, and the same integers in every format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram

from edgekit.data.npz import read_arrays
from edgekit.errors import DataError, UnsupportedError
from edgekit.formats.coreml.compress.candidates import find_candidates
from edgekit.formats.coreml.compress.passes import Compressed
from edgekit.formats.coreml.evaluator import Evaluator
from edgekit.formats.coreml.evaluator.graph import walk
from edgekit.formats.coreml.evaluator.prepare import Step
from edgekit.formats.coreml.evaluator.registry import Call, Value
from edgekit.formats.coreml.inspect import inspect
from edgekit.formats.coreml.package import save_package
from edgekit.formats.coreml.session import feed
from edgekit.records import ExportRequest, TensorSpec, WeightCompression

Array = NDArray[np.generic]
Ranges = dict[str, dict[str, np.float32]]
"""Name of a value -> ``rmin`` and ``rmax``, as coremltools' passes take them."""

_PASSES = (
    "compression::insert_prefix_quantize_dequantize_pair",
    "compression::insert_suffix_quantize_dequantize_pair",
)
_TIDY = "common::dequantize_quantize_pair_elimination"
_FLOAT = "float.mlpackage"


def quantize_with_coremltools(
    coremltools: Any, model: Any, program: ExportedProgram, request: ExportRequest, compression: WeightCompression
) -> Compressed:
    """Quantize a converted model as coremltools does.

    Args:
        coremltools: The library.
        model: ``MLModel`` that was converted from ``program``.
        program: Of floating point.
        request: Its calibration samples, and where to keep the float package meanwhile.
        compression: The smallest weight that is quantized.

    Raises:
        DataError: There are no calibration samples.
        UnsupportedError: A value is infinite or NaN on them.
    """
    float_package = request.work_dir / _FLOAT
    save_package(model, float_package, request.work_dir)
    specs = inspect(float_package).inputs
    samples = list(_samples(request, specs))
    ranges = activation_ranges(float_package, samples)
    weights = [found.name for found in find_candidates(model._mil_program, program, compression).chosen]
    optimize = coremltools.optimize.coreml
    settings = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)
    model = _quantize_activations(model, optimize.OptimizationConfig(global_config=settings), ranges)
    config = optimize.OptimizationConfig(op_name_configs=dict.fromkeys(weights, settings))
    note = (
        f"quantized by coremltools: ranges of activations over {len(samples)} calibration samples, "
        f"{len(weights)} weights a scale a channel; another int8 than the program's"
    )
    return Compressed(optimize.linear_quantize_weights(model, config), (note,))


def _samples(request: ExportRequest, specs: tuple[TensorSpec, ...]) -> Iterator[dict[str, Array]]:
    """Read the calibration samples one by one, as the package takes them."""
    path = request.program.calibration
    if path is None or not path.is_file():
        raise DataError(
            "coreml at int8 by coremltools needs calibration samples; received none. Name data in the recipe"
        )
    arrays = read_arrays(path)
    inputs = [arrays[f"input_{place}"] for place in range(len(specs))]
    for place in range(min(map(len, inputs))):
        yield feed(specs, [array[place : place + 1] for array in inputs])


def activation_ranges(package: Path, samples: list[dict[str, Array]]) -> Ranges:
    """Run a package and note the least and the greatest element of every value.

    Args:
        package: Computes in floating point.
        samples: Inputs of one run each.

    Returns:
        Ranges over all samples; what is joined by a ``concat`` shares one, as in coremltools.

    Raises:
        UnsupportedError: A value is infinite or NaN.
    """
    evaluator = Evaluator(package)
    seen = _Extremes()
    for inputs in samples:
        for name, array in inputs.items():
            seen.note(name, float(array.min()), float(array.max()))
        evaluator.run(inputs, observer=seen.observe)
    _share_ranges_of_joined(evaluator, seen.ranges)
    return {name: {"rmin": np.float32(low), "rmax": np.float32(high)} for name, (low, high) in seen.ranges.items()}


class _Extremes:
    """The least and the greatest element of every floating-point value."""

    def __init__(self) -> None:
        self.ranges: dict[str, tuple[float, float]] = {}

    def note(self, name: str, low: float, high: float) -> None:
        before = self.ranges.get(name, (low, high))
        self.ranges[name] = (min(before[0], low), max(before[1], high))

    def observe(self, step: Step, _call: Call, results: tuple[Value, ...]) -> None:
        """Note the results of one operation."""
        for declared, value in zip(step.operation.outputs, results, strict=True):
            if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
                continue
            low, high = (float(bound) for bound in value.aminmax())
            if not np.isfinite([low, high]).all():
                raise UnsupportedError(
                    f"quantizing the activations of {step.operation}",
                    reason=f"{declared.name!r} is infinite or NaN on a calibration sample",
                    instead="keep_float32: auto (where float16 overflows), or int8 without compression.scheme",
                )
            self.note(declared.name, low, high)


def _share_ranges_of_joined(evaluator: Evaluator, ranges: dict[str, tuple[float, float]]) -> None:
    """Give everything that meets in one ``concat``, through others too, the range of all of it."""
    groups: list[set[str]] = []
    for operation in walk(evaluator.function.block):
        if operation.type != "concat":
            continue
        joined = {name for name in (*operation.references(), operation.outputs[0].name) if name in ranges}
        meeting = [group for group in groups if group & joined]
        groups = [group for group in groups if not group & joined]
        groups.append(joined.union(*meeting))
    for group in groups:
        if group:
            whole = (min(ranges[name][0] for name in group), max(ranges[name][1] for name in group))
            ranges.update(dict.fromkeys(group, whole))


def _quantize_activations(model: Any, config: Any, ranges: Mapping[str, Mapping[str, np.float32]]) -> Any:
    """Apply the passes of ``linear_quantize_activations``, with ranges of our own."""
    from coremltools import _SPECIFICATION_VERSION_IOS_17
    from coremltools.converters.mil.frontend.milproto import load
    from coremltools.converters.mil.mil.passes.graph_pass import PassOption
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY
    from coremltools.models import utils

    passes = []
    for name in _PASSES:
        found = PASS_REGISTRY[name]
        found.set_options([PassOption("config", config), PassOption("activation_stats", dict(ranges))])
        passes.append(found)
    passes.append(PASS_REGISTRY[_TIDY])
    return utils._apply_graph_pass(
        model, passes, spec_version=_SPECIFICATION_VERSION_IOS_17, pymil_load_func=load.load, skip_model_load=True
    )
