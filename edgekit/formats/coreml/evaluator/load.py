"""Read a package into a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.errors import ArtifactError, UnsupportedError
from edgekit.formats.coreml.evaluator.check import check
from edgekit.formats.coreml.evaluator.constants import Constants, read_type
from edgekit.formats.coreml.evaluator.graph import (
    OPSETS,
    Binding,
    Block,
    Function,
    Graph,
    Named,
    Operation,
    Reference,
)
from edgekit.formats.coreml.evaluator.interface import allowed_shapes
from edgekit.formats.coreml.package import MODEL, NEWEST_SPECIFICATION, read_package

_NO_ARGUMENTS = frozenset({"name", "scopes", "debug_handle"})
"""Attributes of operations that say nothing of what they compute."""


def load(path: Path) -> Graph:
    """Read and check a package.

    Raises:
        ArtifactError: It is missing, truncated, damaged, or its program cannot be executed as it stands.
        UnsupportedError: It is no ML program, or of a newer operation set.
    """
    return load_specification(read_package(path), path / MODEL.parent)


def load_specification(specification: Any, folder: Path, *, executable: bool = True) -> Graph:
    """Read and check a specification.

    Args:
        specification: ``Model_pb2.Model``.
        folder: Its weight files lie under it.
        executable: Refuse operations that the evaluator does not know; False: they are only looked at.
    """
    if specification.specificationVersion > NEWEST_SPECIFICATION:
        raise UnsupportedError(
            f"a package of specification {specification.specificationVersion}",
            reason=f"it is newer than the newest that is known here, {NEWEST_SPECIFICATION}, and may mean other things",
            instead="a newer edgekit, or convert the model for an earlier minimum_deployment_target",
        )
    constants = Constants(folder)
    functions = {
        name: _function(name, proto, constants) for name, proto in sorted(specification.mlProgram.functions.items())
    }
    description = specification.description
    default = description.defaultFunctionName or "main"
    if default not in functions:
        default = next(iter(functions), "")
    if not functions:
        raise ArtifactError("expected at least one function in the program; it has none. Export it again.")
    allowed = {item.name: allowed_shapes(item.input) for item in description.functions}
    allowed.setdefault(default, allowed_shapes(description.input))
    graph = Graph(functions, default, allowed)
    check(graph, executable=executable)
    return graph


def _function(name: str, proto: Any, constants: Constants) -> Function:
    place = f"function {name!r}"
    if proto.opset not in OPSETS:
        raise ArtifactError(
            f"{place}: expected an operation set among {', '.join(OPSETS)}; received {proto.opset!r}. "
            "Convert the model for an earlier minimum_deployment_target."
        )
    if proto.opset not in proto.block_specializations:
        raise ArtifactError(f"{place}: it has no block for its operation set {proto.opset!r}. Export it again.")
    block = _block(proto.block_specializations[proto.opset], place, constants)
    return Function(name, OPSETS[proto.opset], _named(proto.inputs), block)


def _block(proto: Any, place: str, constants: Constants) -> Block:
    operations = tuple(
        _operation(operation, f"{place}, {index}", constants) for index, operation in enumerate(proto.operations)
    )
    return Block(_named(proto.inputs), operations, tuple(proto.outputs))


def _operation(proto: Any, place: str, constants: Constants) -> Operation:
    outputs = _named(proto.outputs)
    name = outputs[0].name if outputs else f"{proto.type} at {place}"
    spot = f"operation {name!r} ({proto.type}, {place})"
    arguments: dict[str, tuple[Binding, ...]] = {
        parameter: tuple(_binding(binding, f"{spot}, {parameter}", constants) for binding in argument.arguments)
        for parameter, argument in proto.inputs.items()
    }
    for attribute, value in proto.attributes.items():
        if attribute not in _NO_ARGUMENTS and attribute not in arguments:
            arguments[attribute] = (constants.read(value, f"{spot}, {attribute}"),)
    blocks = tuple(_block(block, f"{place}, block {index}", constants) for index, block in enumerate(proto.blocks))
    return Operation(proto.type, name, place, arguments, outputs, blocks)


def _binding(proto: Any, place: str, constants: Constants) -> Binding:
    if proto.WhichOneof("binding") == "value":
        return constants.read(proto.value, place)
    return Reference(proto.name)


def _named(protos: Any) -> tuple[Named, ...]:
    return tuple(Named(proto.name, read_type(proto.type)) for proto in protos)
