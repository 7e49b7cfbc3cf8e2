"""What the pipeline itself runs in a child process: an export, followed by what the artifact says of itself."""

from __future__ import annotations

from edgekit.contracts import ExportResult, Inspection, load_entry
from edgekit.errors import ToolError
from edgekit.formats import format_spec
from edgekit.records import Artifact, ExportRequest, PlacementRequest
from edgekit.store.atomic import digest_path, size_bytes
from edgekit.verify.coverage import coverage
from edgekit.verify.precision_audit import audit


def export_artifact(request: ExportRequest) -> Artifact:
    """Lower a program and describe what came out.

    Raises:
        ToolError: The exporter ended without writing the artifact.
        UnsupportedError: The model holds something that this format cannot.
    """
    spec = format_spec(request.format)
    request.work_dir.mkdir(parents=True, exist_ok=True)
    result: ExportResult = load_entry(spec.export)(request)
    if not request.output.exists():
        raise ToolError(f"the {spec.title} exporter ended without writing {request.output.name}")
    inspection: Inspection = load_entry(spec.inspect)(request.output)
    operators = inspection.operators if result.operators is None else result.operators
    delegate = spec.delegate if request.backend in (None, spec.backends[0].name) else str(request.backend)
    return Artifact(
        format=request.format,
        precision=request.precision,
        path=request.output,
        sha256=digest_path(request.output),
        size_bytes=size_bytes(request.output),
        inputs=inspection.inputs,
        outputs=inspection.outputs,
        backend=request.backend,
        variant=request.variant,
        minimum_deployment_target=request.minimum_deployment_target,
        dynamic_batch=request.dynamic_batch,
        operators=operators,
        coverage=coverage(operators, delegate, inspection.partitions),
        audit=audit(operators),
        notes=result.notes,
        half_precision=result.half_precision,
        placement=load_entry(spec.place)(PlacementRequest(path=request.output)) if spec.place is not None else None,
    )
