"""Publish the ``.tflite`` file that a program was read from, instead of lowering the program again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit.contracts import ExportResult
from edgekit.errors import ToolError, UnsupportedError
from edgekit.formats.tflite import dynamic_batch
from edgekit.program.tflite import flatbuffer
from edgekit.records import ExportRequest, TensorSpec
from edgekit.store.atomic import publish


def publish_origin(request: ExportRequest, origin: Path) -> ExportResult:
    """Publish the source framework's own file, byte for byte, after holding it to the program's interface.

    A free batch is proven by running it; a file whose batch is fixed gets it freed, which is all that changes in it.

    Args:
        request: Of the artifact; its program was read from ``origin``.
        origin: The file that the source framework's converter wrote.

    Raises:
        UnsupportedError: The file is of another precision than the artifact, or its graph does not take any batch.
        ArtifactError: The file is missing or damaged.
        ToolError: Its inputs or outputs are not the program's.
    """
    program = request.program
    if request.precision != program.precision:
        raise UnsupportedError(
            f"tflite at {request.precision} from a program read from a .tflite file at {program.precision}",
            reason="the source framework's converter decides what the file holds, once for each precision",
            instead=f"precision: {program.precision}, or the model's own source at {request.precision}",
        )
    model = flatbuffer.read_model(origin)
    inputs = flatbuffer.model_inputs(model)
    _check_side("inputs", program.inputs, inputs)
    _check_side("outputs", program.outputs, flatbuffer.model_outputs(model))
    if not request.dynamic_batch:
        publish(origin, request.output)
        return ExportResult(notes=("the file that the source's own converter wrote, unchanged",))
    request.work_dir.mkdir(parents=True, exist_ok=True)
    if all(spec.shape[:1] == (None,) for spec in inputs):
        dynamic_batch.prove(origin)
        publish(origin, request.output)
        return ExportResult(notes=("the file that the source's own converter wrote, unchanged; its batch is free",))
    freed = request.work_dir / "freed.tflite"
    freed.write_bytes(dynamic_batch.free_batch(origin.read_bytes(), request.work_dir))
    publish(freed, request.output)
    return ExportResult(notes=("the file that the source's own converter wrote, with its batch freed",))


def _check_side(side: str, wanted: Sequence[TensorSpec], found: Sequence[TensorSpec]) -> None:
    """Hold the file's inputs or outputs to the program's: as many, of equal shapes, in the same order.

    Names may differ, since a converter takes them from its signature; the same names in another order may not.
    """
    same = len(wanted) == len(found) and all(
        _fits(ours.shape, theirs.shape) for ours, theirs in zip(wanted, found, strict=True)
    )
    ours, theirs = [spec.name for spec in wanted], [spec.name for spec in found]
    if not same or (sorted(ours) == sorted(theirs) and ours != theirs):
        raise ToolError(
            f"the {side} of the source's own .tflite file are not the program's: expected {_listed(wanted)}, "
            f"received {_listed(found)}",
            stage="export:tflite",
        )


def _fits(ours: tuple[int | None, ...], theirs: tuple[int | None, ...]) -> bool:
    return len(ours) == len(theirs) and all(a == b or a is None or b is None for a, b in zip(ours, theirs, strict=True))


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {list(spec.shape)}" for spec in specs) or "none"
