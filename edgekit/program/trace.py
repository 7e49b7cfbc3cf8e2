"""Run a program and see what each of its operations gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import GraphModule, Interpreter, Node

from edgekit.contracts import TracedValue
from edgekit.data.feeding import fit_inputs
from edgekit.errors import ToolError
from edgekit.program.graph import module_path
from edgekit.program.quiet import quiet
from edgekit.records import TensorSpec

Array = NDArray[np.generic]


class ProgramTracer:
    """A program of which every floating-point result can be seen: see ``edgekit.contracts.Tracer``.

    Args:
        program: Results keep the names of its nodes.
    """

    def __init__(self, program: ExportedProgram) -> None:
        signature = program.graph_signature
        nodes = {node.name: node for node in program.graph.nodes}
        given = [spec.arg.name for spec in signature.input_specs if spec.kind is InputKind.USER_INPUT]
        returned = [spec.arg.name for spec in signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]
        self.inputs = tuple(_spec(nodes[name]) for name in given)
        self.outputs = tuple(_spec(nodes[name]) for name in returned)
        with quiet("torch"):  # torch.export warns about its own copying of call structures
            self._module: GraphModule = program.module(check_guards=False)

    def trace(self, inputs: Sequence[Array]) -> tuple[TracedValue, ...]:
        """Run once; see ``Tracer.trace``."""
        watcher = _Watcher(self._module)
        self._execute(watcher, inputs)
        return tuple(watcher.seen.values())

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run once and return the outputs."""
        found = self._execute(Interpreter(self._module), inputs)
        outputs = found if isinstance(found, (tuple, list)) else (found,)
        return tuple(value.detach().numpy() for value in outputs if isinstance(value, Tensor))

    def _execute(self, interpreter: Interpreter, inputs: Sequence[Array]) -> object:
        # a copy: what the caller holds may be read-only, which torch warns of
        fitted = [torch.from_numpy(np.array(array)) for array in fit_inputs(self.inputs, inputs)]
        try:
            with torch.no_grad():
                found: object = interpreter.run(*fitted)
        except RuntimeError as error:
            raise ToolError(f"the program could not be run: {error}") from error
        return found


class _Watcher(Interpreter):
    """Runs a graph and keeps every floating-point result that is computed or fed."""

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self.seen: dict[str, TracedValue] = {}

    def run_node(self, node: Node) -> object:
        value: object = super().run_node(node)
        if node.op in ("call_function", "placeholder") and isinstance(value, Tensor) and value.is_floating_point():
            self.seen[node.name] = TracedValue(
                name=node.name,
                origin=node.name,
                type="input" if node.op == "placeholder" else _operation(node),
                layer=module_path(node) or None,
                value=value.detach().float().numpy(),
                reads=self._reads(node),
            )
        return value

    def _reads(self, node: Node) -> tuple[str, ...]:
        """Names of the floating-point results that a node reads, those behind others (integers) included."""
        names: dict[str, None] = {}
        for read in node.all_input_nodes:
            names.update(dict.fromkeys((read.name,) if read.name in self.seen else self._reads(read)))
        return tuple(names)


def _operation(node: Node) -> str:
    packet: Any = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", packet))


def _spec(node: Node) -> TensorSpec:
    value = node.meta["val"]
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return TensorSpec(name=node.name, dtype=str(value.dtype).removeprefix("torch."), shape=shape)
