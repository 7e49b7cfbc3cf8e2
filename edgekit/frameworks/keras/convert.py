"""Convert a Keras source to a ``.tflite`` file with TensorFlow's own converter."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from edgekit.data.dataset import Array
from edgekit.errors import DataError, ToolError, UnsupportedError
from edgekit.frameworks.keras.convert_file import convert_file
from edgekit.frameworks.keras.converted import Converted, in_order
from edgekit.frameworks.keras.file_layers import float_islands, float_layers, operators_inside
from edgekit.frameworks.keras.files import REFUSALS
from edgekit.frameworks.keras.load import Source
from edgekit.frameworks.keras.serving import SIGNATURE, Interface, interface_of, write_saved_model
from edgekit.program.tflite import quantizer
from edgekit.records import Precision

_CALIBRATED: tuple[Precision, ...] = ("int8", "int16x8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to quantize.

    Attributes:
        calibration: Inputs ``[N, ...]`` that scales are fixed from; None: there are none, or the model carries its own.
        trained: Whether the model carries fake quantization that was trained: its scales are taken.
        per_channel: One scale for each channel of a weight; else one for all.
        picked: Layer -> the user's rule that leaves it alone.
        dynamic_batch: Whether the file takes any batch size.
    """

    calibration: Sequence[Array] | None = None
    trained: bool = False
    per_channel: bool = True
    picked: Mapping[str, str] = field(default_factory=dict)
    dynamic_batch: bool = False


def convert(
    source: Source,
    precision: Precision,
    folder: Path,
    options: Options | None = None,
    *,
    interface: Interface | None = None,
) -> Converted:
    """Convert a source to a ``.tflite`` file of one precision, with real numbers (float32) going in and out.

    ====================== =============================================================================================
    precision              way
    ====================== =============================================================================================
    fp32, fp16             TensorFlow's converter
    int8, int16x8          the same, with scales from calibration samples, or those that training learned
    int8-dynamic           the same, which leaves weights of fewer than 1024 values as they are
    w8, w4                 the float file, its weights stored as integers by ai-edge-quantizer
    ====================== =============================================================================================

    A ``.tflite`` source is its own float or integer file; see :func:`~.convert_file.convert_file`.

    Args:
        source: What to convert.
        precision: Of the file.
        folder: Scratch, created where it does not exist.
        options: How to quantize.
        interface: Names and order of inputs and outputs; None: the source's own.

    Returns:
        The file's bytes: the same for the same model, wherever and whenever it is converted.

    Raises:
        UnsupportedError: An operation of the model has no TFLite kernel; it is named with its layer.
        DataError: A precision with fixed scales, and no samples to fix them from.
        ToolError: The converter failed.
    """
    options = options or Options()
    if precision in _CALIBRATED and not options.trained and options.calibration is None and source.library != "tflite":
        raise DataError(f"{precision} fixes the scales of activations from real samples; received none")
    if source.library == "tflite":
        return convert_file(source, precision, options.calibration, options.picked)
    interface = interface or interface_of(source)
    converting = _Conversion(source, interface, folder, options)
    content, notes = converting.run(precision)
    content = in_order(content, [spec.name for spec in interface.inputs], interface.outputs)
    if precision not in ("fp32", "fp16"):
        notes = (*notes, *_island_notes(content, source, precision, options.picked))
    skipped = () if precision in ("fp32", "fp16") else float_layers(content, source, precision, options.picked)
    return Converted(content, notes, skipped)


def _island_notes(content: bytes, source: Source, precision: Precision, picked: Mapping[str, str]) -> tuple[str, ...]:
    islands = float_islands(content, source, picked) if precision in _CALIBRATED else ()
    if not islands:
        return ()
    return (f"left in floating point, since TFLite has no {precision} kernels for them: {', '.join(islands)}",)


class _Conversion:
    """One source on its way through TensorFlow's converter."""

    def __init__(self, source: Source, interface: Interface, folder: Path, options: Options) -> None:
        self._source = source
        self._interface = interface
        self._options = options
        self._saved = folder / "saved_model"
        shutil.rmtree(self._saved, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        write_saved_model(source, interface, self._saved, dynamic_batch=options.dynamic_batch)

    def run(self, precision: Precision) -> tuple[bytes, tuple[str, ...]]:
        """Return the file, and notes on what was done."""
        if precision in ("w8", "w4"):
            return self._weights_only("w8" if precision == "w8" else "w4")
        if precision == "int8-dynamic" and self._options.picked:
            return self._weights_only("int8-dynamic")
        if precision == "int16x8":
            return self._int16x8()
        if precision == "int8" and self._options.picked and not self._options.trained:
            return self._int8_without(self._node_names()), ()
        converter = self._converter()
        if precision == "fp16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        elif precision == "int8-dynamic":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        elif precision == "int8":
            self._quantize(converter, tf.lite.OpsSet.TFLITE_BUILTINS_INT8)
        return _run(converter.convert, self._options), ()

    def _converter(self) -> Any:
        with _quiet():
            return tf.lite.TFLiteConverter.from_saved_model(str(self._saved), signature_keys=[SIGNATURE])

    def _quantize(self, converter: Any, kernels: Any) -> None:
        """Ask for integers; operators without integer kernels are computed in floating point, and named later."""
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter._experimental_disable_per_channel = not self._options.per_channel
        if not self._options.trained:  # a trained model tells all scales itself, and the converter asks for no samples
            converter.target_spec.supported_ops = [kernels, tf.lite.OpsSet.TFLITE_BUILTINS]
            converter.representative_dataset = self._samples

    def _samples(self) -> Iterator[dict[str, Array]]:
        arrays = self._options.calibration or ()
        names = [spec.name for spec in self._interface.inputs]
        for sample in range(len(arrays[0])):
            yield {name: array[sample : sample + 1] for name, array in zip(names, arrays, strict=True)}

    def _float(self) -> bytes:
        return _run(self._converter().convert, self._options)

    def _node_names(self) -> list[str]:
        return operators_inside(self._float(), self._source, self._options.picked)

    def _int8_without(self, nodes: list[str]) -> bytes:
        """Quantize all but some operators: TensorFlow's debugger is where its converter takes such a list."""
        converter = self._converter()
        self._quantize(converter, tf.lite.OpsSet.TFLITE_BUILTINS_INT8)
        settings = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=nodes)

        def convert_all_but() -> bytes:
            debugger = tf.lite.experimental.QuantizationDebugger(converter=converter, debug_options=settings)
            content: bytes = debugger.get_nondebug_quantized_model()
            return content

        return _run(convert_all_but, self._options)

    def _int16x8(self) -> tuple[bytes, tuple[str, ...]]:
        if not self._options.picked:
            converter = self._converter()
            self._quantize(converter, tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8)
            try:
                return _run(converter.convert, self._options), ()
            except ToolError as error:
                why = f"TensorFlow's converter could not: {error.message}"
        else:
            why = "TensorFlow's converter leaves no layer out at int16x8"
        content = self._float()
        content = quantizer.quantize_int16x8(
            content, self._samples(), leave=operators_inside(content, self._source, self._options.picked)
        )
        return content, (f"quantized by ai-edge-quantizer: {why}",)

    def _weights_only(self, scheme: quantizer.WeightScheme) -> tuple[bytes, tuple[str, ...]]:
        content = self._float()
        leave = operators_inside(content, self._source, self._options.picked)
        result = quantizer.quantize_float_weights(content, scheme, leave=leave, per_channel=self._options.per_channel)
        left = ", ".join(result.left)
        notes = (f"stored with 8 bits, since TFLite has no 4-bit kernels for them: {left}",) if result.left else ()
        return result.content, notes


def _run(convert_now: Callable[[], bytes], options: Options) -> bytes:
    """Convert, and say of a failure which operation of which layer it was.

    Raises:
        UnsupportedError: Operations without TFLite kernels.
        ToolError: Anything else.
    """
    try:
        with _quiet():
            return bytes(convert_now())
    except ConverterError as error:
        places = list(dict.fromkeys(_place(found) for found in error.errors if found.operator.name))
        if not places:
            raise ToolError(f"TensorFlow's converter failed: {_first_line(error)}", stage="program:convert") from error
        batch = "batch: 1, which recurrent layers need, or " if options.dynamic_batch else ""
        raise UnsupportedError(
            f"converting {', '.join(places)} to TFLite",
            reason=f"there are no such TFLite kernels ({_first_line(error)})",
            instead=f"{batch}a model that writes these layers with other operations",
        ) from error
    except REFUSALS as error:
        raise ToolError(
            f"TensorFlow's converter failed ({type(error).__name__}): {_first_line(error)}", stage="program:convert"
        ) from error


def _place(found: Any) -> str:
    name = found.operator.name.removeprefix("tf.")
    calls = [call.name.partition("@")[0] for call in found.location.call]
    where = next((call for call in calls if "/" in call), None)
    return f"{name} (in {where!r})" if where else name


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line] or [type(error).__name__]
    return lines[0][:300]


@contextmanager
def _quiet() -> Iterator[None]:
    """TensorFlow warns of its own deprecated interpreter, and that inputs and outputs stay real numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
