"""Reading and changing recorded graphs (``torch.fx.GraphModule`` with tensors as attributes)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node


def tensor_of(graph: GraphModule, node: object) -> Tensor | None:
    """Return the tensor that a ``get_attr`` node stands for, None for anything else."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    found: object = graph
    for part in str(node.target).split("."):
        found = getattr(found, part, None)
    return found.detach() if isinstance(found, Tensor) else None


def add_tensor(graph: GraphModule, value: Tensor, name: str, before: Node, *, trainable: bool = False) -> Node:
    """Give the graph a tensor of its own and return the node that reads it, placed before ``before``.

    Args:
        graph: Gets a buffer, or a parameter when ``trainable``.
        value: The tensor.
        name: What to call it, dots allowed; a number is added when the name is taken.
        before: The node that will read it.
        trainable: Whether an optimizer may change it.
    """
    folder, _, leaf = name.rpartition(".")
    owner = graph.get_submodule(folder) if folder and _has_module(graph, folder) else graph
    path = f"{folder}." if owner is not graph else ""
    leaf = (leaf if path or not folder else name).replace(".", "_")
    free, number = leaf, 0
    while hasattr(owner, free):
        number += 1
        free = f"{leaf}_{number}"
    if trainable:
        owner.register_parameter(free, torch.nn.Parameter(value))
    else:
        owner.register_buffer(free, value)
    with graph.graph.inserting_before(before):
        node = graph.graph.create_node("get_attr", path + free)  # get_attr() would warn about the new attribute
    node.meta["val"] = fake_of(before, value)
    return node


def _has_module(graph: GraphModule, path: str) -> bool:
    return any(name == path for name, _ in graph.named_modules())


def fake_of(node: Node, value: Tensor) -> Any:
    """Return the shape-only stand-in of a tensor that quantizers read from ``node.meta["val"]``."""
    return _fake_mode(node).from_tensor(value, static_shapes=True)


def _fake_mode(node: Node) -> Any:
    for candidate in node.graph.nodes:
        mode = getattr(candidate.meta.get("val"), "fake_mode", None)
        if mode is not None:
            return mode
    return torch._subclasses.FakeTensorMode()


def call(graph: GraphModule, before: Node, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Node:
    """Insert an operation before ``before``, with its shape worked out and the place in the source of ``before``."""
    with graph.graph.inserting_before(before):
        node = graph.graph.call_function(target, args, kwargs)
    for fact in ("nn_module_stack", "stack_trace", "source_fn_stack", "torch_fn"):
        if fact in before.meta:
            node.meta[fact] = before.meta[fact]

    node.meta["val"] = _fake_result(before, target, args, kwargs)
    return node


def _fake_result(place: Node, target: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    def value(item: Any) -> Any:
        return torch.fx.map_arg(item, lambda found: found.meta["val"])

    with _fake_mode(place), torch.no_grad():
        return target(*value(args), **value(kwargs))


def fill_shapes(graph: GraphModule) -> GraphModule:
    """Work out ``node.meta["val"]`` where a conversion left nodes without one; the inputs must have theirs."""
    for node in graph.graph.nodes:
        if "val" in node.meta or node.op == "output":
            continue
        tensor = tensor_of(graph, node)
        if tensor is not None:
            node.meta["val"] = fake_of(node, tensor)
        elif node.op == "call_function":
            node.meta["val"] = _fake_result(node, node.target, node.args, node.kwargs)
    return graph


def replace(node: Node, other: Node) -> None:
    """Let every reader of ``node`` read ``other``, and remove ``node``."""
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)


def calls(graph: GraphModule, *targets: object) -> list[Node]:
    """Return the operations of these kinds, in graph order."""
    return [node for node in graph.graph.nodes if node.op == "call_function" and node.target in targets]


def argument(node: Node, index: int, default: Any = None) -> Any:
    """Return a positional argument, or its default where the graph leaves it out."""
    return node.args[index] if len(node.args) > index else default


def tidy(graph: GraphModule) -> GraphModule:
    """Remove what nothing reads, check the graph and generate its code anew."""
    graph.graph.eliminate_dead_code()
    for node in list(graph.graph.nodes):
        if node.op == "get_attr" and not node.users:
            graph.graph.erase_node(node)
    graph.graph.lint()
    graph.recompile()
    return graph


def module_stack(node: object) -> list[tuple[str, str]]:
    """Return path and class name of the modules that a node was recorded in, outermost first."""
    if not isinstance(node, Node):
        return []
    entries = node.meta.get("nn_module_stack", {}).values()
    return [(_path(path), _class_name(kind)) for path, kind in entries]


def _path(recorded: object) -> str:
    return str(recorded).removeprefix("L['self']").removeprefix(".")


def _class_name(kind: object) -> str:
    text = kind if isinstance(kind, str) else getattr(kind, "__qualname__", str(kind))
    return text.rpartition(".")[2]


def module_path(node: object) -> str:
    """Return the dotted path of the innermost module that a node was recorded in; empty at the top."""
    stack = module_stack(node)
    return stack[-1][0] if stack else ""


def module_type(node: object) -> str:
    """Return the class name of the innermost module that a node was recorded in; empty at the top."""
    stack = module_stack(node)
    return stack[-1][1] if stack else ""
