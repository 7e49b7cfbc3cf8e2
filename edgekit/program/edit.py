"""Change a program's graph and constants without touching the program that was passed in."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind

_Value = TypeVar("_Value")
LIFTED = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
"""Kinds of graph inputs that stand for a tensor that the program holds."""


@dataclass
class ProgramEdit:
    """A program taken apart: change ``graph`` and ``tensors``, then call :meth:`finish`.

    The graph is a copy; the tensors are the original ones (shared, never written to), in a new mapping.

    Attributes:
        program: Where it came from.
        module: Copy of the graph.
        targets: Placeholder name -> name in ``tensors``, of every constant of the program.
        tensors: Constants by name.
    """

    program: ExportedProgram
    module: torch.fx.GraphModule
    targets: dict[str, str]
    tensors: dict[str, torch.Tensor]

    @classmethod
    def of(cls, program: ExportedProgram) -> ProgramEdit:
        """Take a program apart."""
        module = torch.fx.GraphModule(program.graph_module, _copied(program.graph))
        for copied, original in zip(module.graph.nodes, program.graph.nodes, strict=True):
            copied.name = original.name  # fx renames what is called like a builtin (``input``), the signature does not
        targets = {
            spec.arg.name: str(spec.target) for spec in program.graph_signature.input_specs if spec.kind in LIFTED
        }
        constants = {name: value for name, value in program.constants.items() if isinstance(value, torch.Tensor)}
        return cls(program, module, targets, {**constants, **program.state_dict})

    @property
    def graph(self) -> torch.fx.Graph:
        """The copy to change."""
        return self.module.graph

    def constant(self, node: object) -> torch.Tensor | None:
        """Return the tensor that a placeholder stands for, None for anything else."""
        if not isinstance(node, torch.fx.Node) or node.op != "placeholder":
            return None
        target = self.targets.get(node.name)
        return None if target is None else self.tensors.get(target)

    def replace_constant(self, node: torch.fx.Node, value: torch.Tensor) -> None:
        """Let a placeholder stand for another tensor, of any dtype, of the same shape."""
        self.tensors[self.targets[node.name]] = value
        fake = node.meta["val"]
        node.meta["val"] = fake.fake_mode.from_tensor(value, static_shapes=True)

    def finish(self) -> ExportedProgram:
        """Put the program together again; operations and constants that nothing uses are left out."""
        self.graph.eliminate_dead_code()
        unused = self.targets.keys() - self._mutated()
        dropped = set()
        for node in self.graph.find_nodes(op="placeholder"):
            if node.name in unused and not node.users:
                dropped.add(node.name)
                self.graph.erase_node(node)
        self.graph.lint()
        self.module.recompile()
        old = self.program.graph_signature
        signature = ExportGraphSignature(
            input_specs=[spec for spec in old.input_specs if getattr(spec.arg, "name", None) not in dropped],
            output_specs=self._output_specs(),
        )
        kept = {target for name, target in self.targets.items() if name not in dropped}
        return ExportedProgram(
            root=self.module,
            graph=self.graph,
            graph_signature=signature,
            state_dict={name: self.tensors[name] for name in self.program.state_dict if name in kept},
            range_constraints=dict(self.program.range_constraints),
            module_call_graph=_copied(self.program.module_call_graph[:1]),
            example_inputs=self.program.example_inputs,
            constants={
                name: self.tensors.get(name, value)
                for name, value in self.program.constants.items()
                if name in kept or not isinstance(value, torch.Tensor)
            },
            verifiers=self.program.verifiers,
        )

    def _output_specs(self) -> list[torch.export.graph_signature.OutputSpec]:
        """Follow renamed output nodes: replacing the last operation gives the output another name."""
        returned = self.graph.output_node().args[0]
        specs = []
        for spec, node in zip(self.program.graph_signature.output_specs, returned, strict=True):  # type: ignore[arg-type]
            spec = _copied(spec)
            if isinstance(node, torch.fx.Node):
                spec.arg.name = node.name
            specs.append(spec)
        return specs

    def _mutated(self) -> set[str]:
        by_target = {target: name for name, target in self.targets.items()}
        written = self.program.graph_signature.buffers_to_mutate.values()
        return {by_target[target] for target in written if target in by_target}


def _copied(value: _Value) -> _Value:
    with warnings.catch_warnings():
        # torch's own copying of call structures asks for leaves in a way that torch deprecates.
        warnings.filterwarnings("ignore", r".isinstance\(treespec, LeafSpec\)", FutureWarning)
        return copy.deepcopy(value)
