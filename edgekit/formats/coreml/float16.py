"""Which operations of a package compute in float16, and which stay in float32: chosen, tried out, repaired.

A package is converted with everything in float16, run on samples in the reference evaluator, and compared with itself
in float32. Where an output is not finite, or loses too much, the operations to blame are left in float32 and the
package is converted and looked at again, a few times at most. coremltools names operations the same in every
conversion, after the nodes of the program, so that what was found in one conversion can be asked of the next.

What computes in float32 runs on the GPU or the CPU, never on the Neural Engine, and values are converted on the way in
and out: https://apple.github.io/coremltools/docs-guides/source/typed-execution-example.html ("convert again to a float
32 typed model. This will execute on a combination of the GPU and CPU").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.export import ExportedProgram

from edgekit.data.npz import read_arrays
from edgekit.errors import UnsupportedError
from edgekit.formats.coreml.half_precision import Array, Examination, Layers, examine
from edgekit.formats.coreml.input_grid import is_before_the_grid
from edgekit.formats.light_imports import import_coremltools
from edgekit.program.graph import module_stack
from edgekit.recipe.layers import LayerInfo, select_layers
from edgekit.records import ExportRequest, HalfPrecision

ROUNDS = 3
"""How often operations are added to those in float32 before the repair is given up."""
NAMES_TOLD = 8
PLACE = "export.keep_float32"

Write = Callable[[Any], tuple[str, ...]]
"""Convert and write the package with a ``coremltools.transform.FP16ComputePrecision``; return notes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A package, as it was written in the end.

    Attributes:
        half_precision: What float16 does to it; None where it computes in float32, or nobody could look.
        notes: For the report.
    """

    half_precision: HalfPrecision | None = None
    notes: tuple[str, ...] = ()


def write_in_float16(request: ExportRequest, program: ExportedProgram, write: Write) -> Written:
    """Write a package that computes in float16 where that does no harm.

    Args:
        request: ``keep_float32`` says whether to repair (``auto``, or None), or what to leave in float32.
        program: What ``write`` converts. Its nodes get handles by which operations are followed back to them.
        write: Called once for each attempt; writes ``request.output``.

    Raises:
        RecipeError: A rule of ``keep_float32`` matches no layer or operation.
        UnsupportedError: No choice of operations repairs the package.
    """
    rules = request.keep_float32 if isinstance(request.keep_float32, tuple) else None
    outputs = tuple(spec.name for spec in request.program.outputs)
    attempt = _Attempt(
        request, Float16Choice(recorded=number_nodes(program), outputs=outputs, rules=rules or ()), write
    )
    if not request.program.reference.is_file():
        return Written(notes=(*attempt.notes, "what float16 does was not looked at: there are no samples"))
    samples = _samples(request)
    try:
        before = attempt.examine(samples)
    except UnsupportedError as error:
        return Written(notes=(*attempt.notes, f"what float16 does was not looked at: {error}"))
    if rules is not None:
        return _written(attempt, before, why="as asked")
    found = before
    for _ in range(ROUNDS):
        more = attempt.still_to_keep(found)
        if not more:
            break
        attempt = _Attempt(request, attempt.choice.with_more(more), write)
        found = attempt.examine(samples)
    if found.failing:
        raise _irreparable(request, before, found, attempt.choice.layers)
    return _written(attempt, found, why=_trouble(before) if attempt.choice.kept else "")


class _Attempt:
    """A package that was written with one choice of what computes in float16."""

    def __init__(self, request: ExportRequest, choice: Float16Choice, write: Write) -> None:
        self._output = request.output
        self.choice = choice
        self.notes = write(import_coremltools().transform.FP16ComputePrecision(op_selector=choice))

    def examine(self, samples: Sequence[Sequence[Array]]) -> Examination:
        """Look at what float16 does to it."""
        return examine(self._output, samples, "declared")

    def still_to_keep(self, found: Examination) -> set[str]:
        """Return what should be in float32 and is not, of the operations that can be chosen."""
        names = {self.choice.layers.operation(name) for name in found.keep}
        return names & self.choice.known.keys() - self.choice.kept


def _written(attempt: _Attempt, found: Examination, *, why: str) -> Written:
    record = found.record(attempt.choice.layers)
    notes = list(attempt.notes)
    if attempt.choice.kept:
        names = _shown(record.kept_in_float32) or "everything"
        notes.append(f"computes in float32, on the GPU or the CPU but never on the Neural Engine: {names}; {why}")
    if record.first_overflow is not None and not found.failing:
        notes.append(f"float16 overflows in {record.first_overflow!r}; no output changes by it on the samples")
    return Written(half_precision=record, notes=tuple(notes))


def _samples(request: ExportRequest) -> list[list[Array]]:
    arrays = read_arrays(request.program.reference)
    inputs = [arrays[f"input_{place}"] for place in range(len(request.program.inputs))]
    return [[array[place : place + 1] for array in inputs] for place in range(min(map(len, inputs)))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Where a node of the program was recorded.

    Attributes:
        layers: Path and class of the layers around it, innermost first.
        reader: Handle of the first node that reads it; 0: none does.
    """

    layers: tuple[tuple[str, str], ...]
    reader: int


def number_nodes(program: ExportedProgram) -> dict[int, Recorded]:
    """Give every node a handle, which coremltools hands on to all operations that it makes of the node.

    Returns:
        Handle -> where the node was recorded, in the order of the program.
    """
    handles = {node: handle for handle, node in enumerate(program.graph.nodes, start=1)}
    recorded = {}
    for node, handle in handles.items():
        node.meta["debug_handle"] = handle
        layers = tuple((path, kind) for path, kind in reversed(module_stack(node)) if path)
        reader = min((handles[user] for user in node.users), default=0)
        recorded[handle] = Recorded(layers=layers, reader=reader)
    return recorded


@dataclass(slots=True, kw_only=True)
class Float16Choice:
    """Says of each operation whether it computes in float16: an ``op_selector`` of coremltools.

    Attributes:
        recorded: Where nodes were recorded.
        outputs: What the outputs of the package are called, in order.
        rules: Layers and operations that stay in float32, as the user names them.
        kept: Names of operations that stay in float32; those that the rules pick are added in the first call.
        known: Operation -> its type, of all that are asked about.
    """

    recorded: Mapping[int, Recorded]
    outputs: tuple[str, ...]
    rules: tuple[str, ...] = ()
    kept: frozenset[str] = frozenset()
    known: dict[str, str] = field(default_factory=dict)
    _layers: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    _renamed: dict[str, str] = field(default_factory=dict)

    def __call__(self, operation: Any) -> bool:
        """Whether a MIL operation computes in float16."""
        if not self.known:
            self._look_at(operation)
        return operation.name not in self.kept and not is_before_the_grid(operation)

    def with_more(self, names: Iterable[str]) -> Float16Choice:
        """Return a choice for the next conversion, with more operations in float32."""
        return Float16Choice(
            recorded=self.recorded, outputs=self.outputs, rules=self.rules, kept=self.kept | set(names)
        )

    @property
    def layers(self) -> Layers:
        """Return which layers the operations come from."""
        paths = {name: tuple(path for path, _ in layers) for name, layers in self._layers.items()}
        return Layers(of=paths, renamed=self._renamed)

    def _look_at(self, operation: Any) -> None:
        """See the whole program, from its first operation that is asked about, and let the rules pick."""
        handles: dict[int, list[str]] = {}
        program = _outermost_block(operation)
        given = (variable.op.name if variable.op is not None else "" for variable in program.outputs)
        self._renamed = dict(zip(self.outputs, given, strict=False))
        for found in _all_operations(program):
            self.known[found.name] = found.op_type
            self._layers[found.name] = []
            handles.setdefault(_handle(found), []).append(found.name)
        self._find_layers(handles)
        if not self.rules:
            return
        infos = [LayerInfo(name, kind) for name, kind in self.known.items()]
        infos += [LayerInfo(path, kind) for layers in self._layers.values() for path, kind in layers]
        picked = select_layers(list(dict.fromkeys(infos)), self.rules, PLACE)
        for name, layers in self._layers.items():
            if name in picked or any(path in picked for path, _ in layers):
                self.kept = self.kept | {name}

    def _find_layers(self, handles: Mapping[int, list[str]]) -> None:
        """Follow nodes to operations: one that became part of another (a convolution before a normalisation) too."""
        for handle, node in self.recorded.items():
            reader = handle
            while reader and reader not in handles:
                reader = self.recorded[reader].reader
            for name in handles.get(reader, ()):
                self._layers[name] += [layer for layer in node.layers if layer not in self._layers[name]]


def _outermost_block(operation: Any) -> Any:
    block = operation.enclosing_block
    while block.outer_op is not None:
        block = block.outer_op.enclosing_block
    return block


def _all_operations(program: Any) -> Iterator[Any]:
    pending = [program]
    while pending:
        for found in pending.pop().operations:
            pending += found.blocks
            if found.op_type != "const":
                yield found


def _handle(operation: Any) -> int:
    """Return the handle of the node that an operation was made of; 0: of none."""
    from coremltools.converters.mil.mil.scope import ScopeSource

    found: list[int | None] = operation.scopes.get(ScopeSource.EXIR_DEBUG_HANDLE) or [None]
    return found[0] or 0


def _trouble(examination: Examination) -> str:
    """Say what is wrong with the outputs, and since which operation."""
    name, sqnr = next(iter(sorted(examination.failing.items(), key=lambda item: (item[1] is not None, item[1]))))
    worst = next(iter(examination.record(Layers()).worst), None)
    if worst is None:
        cause = "its values are beyond float16, or lose too much in it, before anything is computed"
    elif worst.starts_overflow:
        cause = f"{worst.name!r} gives up to {worst.max_abs:.3g}, and float16 ends at 65504"
    else:
        cause = f"{worst.name!r} keeps {worst.own_sqnr_db or 0:.1f} dB by itself"
    effect = "is not finite" if sqnr is None else f"is at {sqnr:.1f} dB"
    return f"in float16 the output {name!r} {effect}: {cause}"


def _shown(names: tuple[str, ...]) -> str:
    more = len(names) - NAMES_TOLD
    return ", ".join(names[:NAMES_TOLD]) + (f" and {more} more" if more > 0 else "")


def _irreparable(request: ExportRequest, before: Examination, found: Examination, layers: Layers) -> UnsupportedError:
    tried = found.record(layers).kept_in_float32
    left = f"with {_shown(tried)} in float32, {_trouble(found)}" if tried else "no operation is to blame alone"
    return UnsupportedError(
        f"{request.format} at {request.precision} for this model",
        reason=f"{_trouble(before)}; {left}",
        instead="precision: fp32, or keep_float32: [] to have the package written as it is",
    )
