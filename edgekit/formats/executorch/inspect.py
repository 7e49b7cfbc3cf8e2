"""What a ``.pte`` file says of itself, whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from executorch.exir import schema

from edgekit.contracts import Inspection
from edgekit.formats.executorch.container import PteFile, read_pte, refusing_damage
from edgekit.formats.executorch.operators import DTYPES, read_operators
from edgekit.records import TensorSpec

_NUMBERS = {schema.Int: "int64", schema.Double: "float64", schema.Bool: "bool"}


def inspect(path: Path) -> Inspection:
    """Inspect a ``.pte`` file without running it.

    The format has no place for names of inputs and outputs: edgekit's files keep them in a method of their own, in
    others they are numbered. It tells which tensors have a free size, but not which size that is: there the first is
    taken for it.

    Raises:
        ArtifactError: The file is missing, truncated, damaged or of another kind.
    """
    file = read_pte(path)
    with refusing_damage(path):
        delegates = [delegate.id for delegate in file.plan.delegates]
        return Inspection(
            inputs=tensor_specs(file, "input"),
            outputs=tensor_specs(file, "output"),
            operators=read_operators(file),
            partitions=len(delegates),
            metadata={"method": file.plan.name, "delegates": ", ".join(sorted(set(delegates)))},
        )


def tensor_specs(file: PteFile, kind: str) -> tuple[TensorSpec, ...]:
    """Return the inputs (``kind='input'``) or outputs of a file."""
    indices = file.plan.inputs if kind == "input" else file.plan.outputs
    known = file.interface.get(f"{kind}s", [])
    if len(known) != len(indices):
        known = [{"name": f"{kind}_{place}", "free": [0]} for place in range(len(indices))]
    return tuple(_spec(says, file.plan.values[index].val) for says, index in zip(known, indices, strict=True))


def _spec(says: Mapping[str, Any], value: Any) -> TensorSpec:
    name = str(says["name"])
    if not isinstance(value, schema.Tensor):
        return TensorSpec(name=name, dtype=_NUMBERS.get(type(value), "unknown"), shape=())
    is_free = value.shape_dynamism != schema.TensorShapeDynamism.STATIC
    shape = tuple(None if is_free and axis in says["free"] else size for axis, size in enumerate(value.sizes))
    return TensorSpec(name=name, dtype=DTYPES.get(value.scalar_type, "unknown"), shape=shape)
