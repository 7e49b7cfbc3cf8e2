"""What a ``.tflite`` file says of itself, and what the delegate takes of it on this machine."""

from __future__ import annotations

from pathlib import Path

from edgekit.contracts import Inspection
from edgekit.errors import ToolError
from edgekit.formats.tflite.operators import list_operators
from edgekit.formats.tflite.session import delegated_nodes, load_interpreter
from edgekit.program.tflite import flatbuffer


def inspect(path: Path) -> Inspection:
    """Inspect a model.

    Delegate coverage is not guessed: the runtime prepares the model, and what its XNNPACK partitions replaced is read
    back. A model that this runtime cannot prepare is still listed, undelegated, with the runtime's reason.

    Raises:
        ArtifactError: The file is missing, truncated or damaged.
    """
    model = flatbuffer.read_model(path)
    not_prepared = None
    partitions: tuple[frozenset[int], ...] | None
    try:
        partitions = delegated_nodes(load_interpreter(path, num_threads=1))
    except ToolError as error:
        partitions, not_prepared = None, error.message
    delegated = None if partitions is None else frozenset().union(*partitions)
    return Inspection(
        inputs=flatbuffer.model_inputs(model),
        outputs=flatbuffer.model_outputs(model),
        operators=list_operators(model, delegated=delegated, not_prepared=not_prepared),
        partitions=None if partitions is None else len(partitions),
        metadata={
            "description": flatbuffer.text(model.description),
            "schema_version": str(model.version),
            "signatures": ", ".join(flatbuffer.text(item.signatureKey) for item in model.signatureDefs or []),
        },
    )
