"""Check a graph before anything runs: what fails here fails with its place in the program."""

from __future__ import annotations

from edgekit.errors import ArtifactError, UnsupportedError, nearest
from edgekit.formats.coreml.evaluator.graph import Block, Function, Graph, Operation, walk
from edgekit.formats.coreml.evaluator.registry import known_operations

_DEEPEST = 32
"""Blocks within blocks; converters write two or three."""
NOT_EXECUTED = {
    "classify": "it wraps the outputs of a classifier into labels; read its probabilities instead",
    "custom_layer": "its code lies in the app, not in the package",
}
"""Operations that the evaluator leaves out on purpose, and why."""


def check(graph: Graph, *, executable: bool = True) -> None:
    """Check every function.

    Args:
        graph: What was read.
        executable: Whether every operation must be known to the evaluator.

    Raises:
        ArtifactError: A name is used before it is defined (a cycle, a lost operation), is defined twice in one block,
            or blocks are nested absurdly deep.
        UnsupportedError: An operation that the evaluator does not know.
    """
    for function in graph.functions.values():
        _check_function(function)
        if executable:
            _check_known(function)


def _check_function(function: Function) -> None:
    names = {item.name for item in function.inputs}
    _check_block(function.block, names, f"function {function.name!r}", 0)


def _check_block(block: Block, visible: set[str], place: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise ArtifactError(
            f"{place}: blocks are nested more than {_DEEPEST} deep; no converter writes such a program."
        )
    names = visible | {item.name for item in block.inputs}
    own: set[str] = set()
    for operation in block.operations:
        _check_operation(operation, names, depth)
        for output in operation.outputs:
            if output.name in own:
                raise ArtifactError(f"{operation}: its output {output.name!r} is defined before. Export it again.")
            own.add(output.name)
            names.add(output.name)
    missing = sorted(set(block.outputs) - names)
    if missing:
        raise ArtifactError(f"{place}: nothing gives its output {', '.join(map(repr, missing))}. Export it again.")


def _check_operation(operation: Operation, names: set[str], depth: int) -> None:
    for name in operation.references():
        if name not in names:
            raise ArtifactError(
                f"{operation} reads {name!r}, which nothing before it gives: a lost operation or a cycle. "
                "Export the package again."
            )
    for index, block in enumerate(operation.blocks):
        _check_block(block, names, f"{operation}, block {index}", depth + 1)


def _check_known(function: Function) -> None:
    for operation in walk(function.block):
        if operation.type == "const" or operation.type in known_operations():
            continue
        reason = NOT_EXECUTED.get(operation.type)
        raise UnsupportedError(
            str(operation),
            reason=reason
            or f"the reference evaluator knows no such operation. {nearest(operation.type, close_to(operation))}",
            instead="a Mac, which runs it with Core ML, or a model without it",
        )


def close_to(operation: Operation) -> list[str]:
    """Known operations that start like this one: a message with all of them would be a page."""
    return [name for name in known_operations() if name[:3] == operation.type[:3]]
