"""The passes of coremltools that store weights in another way, one weight at a time, each with what fits it.

Every weight gets settings of its own, by name: settings for all would reach constants that are no weights, and
coremltools leaves a weight that they do not fit (channels that a group does not divide) as it is, with a warning only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.export import ExportedProgram

from edgekit.errors import ToolError, UnsupportedError
from edgekit.formats.coreml.compress.candidates import Candidate, find_candidates
from edgekit.formats.coreml.compress.settings import BITS, Choice, choose, least_zeros, magnitude_threshold
from edgekit.formats.coreml.compress.tables import table_maker, table_of_values
from edgekit.program.edit import ProgramEdit
from edgekit.program.weights import folded_weights
from edgekit.records import Precision, WeightCompression

_SPARSE = "_sparsified"
"""What coremltools appends to the name of a weight whose zeros it leaves out (``prune_weights``)."""
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Compressed:
    """A model with its weights stored as asked, and sentences for the report."""

    model: Any
    notes: tuple[str, ...]


def compress_weights(
    coremltools: Any, model: Any, program: ExportedProgram, compression: WeightCompression, precision: Precision
) -> Compressed:
    """Store a converted model's weights as a compression says.

    Args:
        coremltools: The library.
        model: ``MLModel`` that was converted from ``program``; from a quantized one that is stored as a palette, with
            float weights on its grid.
        program: What was converted, before its weights were made floats.
        compression: With every choice made.
        precision: Of the artifact: how many bits a weight takes.

    Raises:
        UnsupportedError: There are no zeros to leave out, or nothing would be stored in another way.
        RecipeError: A skip rule matches no layer.
        ToolError: coremltools left a weight as it was.
    """
    optimize = coremltools.optimize.coreml
    if compression.scheme == "linear" and compression.keeps_program:
        if compression.sparsity is None:
            return Compressed(model, ())
        return _leave_out_zeros_of_integers(optimize, model, compression, precision)
    found = find_candidates(model._mil_program, program, compression)
    if compression.keeps_program:
        quantized = {weight.constant.name for weight in folded_weights(ProgramEdit.of(program))}
        found = found.only(quantized)
    choices = [choose(candidate, compression, precision) for candidate in found.chosen]
    model, sparse = _prune(optimize, model, choices, compression, precision)
    kept = [choice for choice in choices if choice.stored]
    if not kept:
        raise _nothing_stored(choices, compression, precision)
    if compression.scheme == "palette":
        model = _palettize(optimize, model, kept, compression, sparse)
    elif compression.scheme == "linear":
        model = _quantize(optimize, model, kept, sparse, precision)
    _check_done(model, kept if compression.scheme != "sparse" else [c for c in kept if c.candidate.name in sparse])
    return Compressed(model, tuple(_notes(choices, found.left, sparse, compression)))


def _leave_out_zeros_of_integers(
    optimize: Any, model: Any, compression: WeightCompression, precision: Precision
) -> Compressed:
    """Store the integers of a quantized program without its zeros."""
    settings = optimize.OpThresholdPrunerConfig(
        threshold=0.0,
        minimum_sparsity_percentile=least_zeros(precision),
        weight_threshold=compression.smallest - 1,
    )
    config = optimize.OptimizationConfig(global_config=settings)
    pruned = optimize.prune_weights(model, config, joint_compression=True)
    count = sum(operation.type == "constexpr_sparse_to_dense" for operation in _operations(pruned))
    if not count:
        raise _no_zeros(precision)
    return Compressed(pruned, (f"zeros of {count} layers are left out of the file",))


def _no_zeros(precision: Precision) -> UnsupportedError:
    return UnsupportedError(
        f"sparsity: trained at {precision}",
        reason=f"in no weight are {least_zeros(precision):.0%} zeros, below which leaving them out makes a file larger",
        instead="compress: [prune: {sparsity: 0.75}] while training, or sparsity: 0.5 here (of a trained model)",
    )


def _nothing_stored(
    choices: Sequence[Choice], compression: WeightCompression, precision: Precision
) -> UnsupportedError:
    reasons = _listed(f"{choice.candidate.layer} ({choice.instead})" for choice in choices)
    instead = "precision: fp16, or a smaller compression.smallest"
    if compression.values == "trained":
        instead = f"compress: [cluster: {{clusters: {2 ** BITS[precision]}}}] while training, or values: kmeans"
    return UnsupportedError(
        f"{precision} with compression {compression.scheme} of this model",
        reason=f"it would leave every weight as it is: {reasons or 'none has so many elements'}",
        instead=instead,
    )


def _no_groups(n_m: tuple[int, int]) -> UnsupportedError:
    return UnsupportedError(
        f"compression.n_m: {list(n_m)} of this model",
        reason=f"no convolution and no linear layer has {2 * n_m[1]} inputs, two groups of the pattern",
        instead="sparsity: 0.5, which needs no groups",
    )


def _prune(
    optimize: Any, model: Any, choices: Sequence[Choice], compression: WeightCompression, precision: Precision
) -> tuple[Any, set[str]]:
    """Leave zeros out; return the model and the names of the weights that are sparse now."""
    if compression.sparsity is None and compression.n_m is None:
        return model, set()
    candidates = [choice.candidate for choice in choices]
    if compression.n_m is not None:
        picked = [candidate for candidate in candidates if _has_groups(candidate, compression.n_m[1])]
        settings = optimize.OpMagnitudePrunerConfig(n_m_ratio=compression.n_m, weight_threshold=0)
        configs = dict.fromkeys((candidate.name for candidate in picked), settings)
    elif isinstance(compression.sparsity, float):
        configs = {c.name: _up_to(optimize, magnitude_threshold(c, compression.sparsity)) for c in candidates}
    else:
        sparse = [candidate for candidate in candidates if candidate.zero_share >= least_zeros(precision)]
        configs = {candidate.name: _up_to(optimize, 0.0) for candidate in sparse}
    if not configs:
        raise _no_zeros(precision) if compression.n_m is None else _no_groups(compression.n_m)
    config = optimize.OptimizationConfig(op_name_configs=configs)
    return optimize.prune_weights(model, config), set(configs)


def _up_to(optimize: Any, threshold: float) -> Any:
    """Drop magnitudes up to a threshold; coremltools' own search for one takes a percentile in float16."""
    return optimize.OpThresholdPrunerConfig(threshold=threshold, minimum_sparsity_percentile=0.0, weight_threshold=0)


def _has_groups(candidate: Candidate, size: int) -> bool:
    """Whether coremltools finds the pattern's groups in a weight: two of them along the input axis, at least."""
    return candidate.operation in ("conv", "linear") and candidate.values.shape[candidate.input_axis] >= 2 * size


def _palettize(
    optimize: Any, model: Any, choices: Sequence[Choice], compression: WeightCompression, sparse: set[str]
) -> Any:
    configs = {}
    for choice in choices:
        name = choice.candidate.name
        configs[_held(name, sparse)] = optimize.OpPalettizerConfig(
            mode="custom",
            lut_function=table_of_values
            if compression.values == "program"
            else table_maker(choice.bits, vector=choice.vector, without_zeros=name in sparse),
            granularity="per_grouped_channel" if choice.group else "per_tensor",
            group_size=choice.group or 1,
            cluster_dim=choice.vector,
            weight_threshold=0,
        )
    model = optimize.palettize_weights(
        model, optimize.OptimizationConfig(op_name_configs=configs), joint_compression=bool(sparse)
    )
    if compression.table != "int8":
        return model
    settings = optimize.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype="int8", granularity="per_tensor", weight_threshold=0
    )
    look_ups = [operation for operation in _operations(model) if operation.type.startswith("constexpr_lut_to_")]
    tables = {_own_name(operation): settings for operation in look_ups}
    config = optimize.OptimizationConfig(op_name_configs=tables)
    return optimize.linear_quantize_weights(model, config, joint_compression=True)


def _own_name(operation: Any) -> str:
    """Return an operation's name, which its outputs are named after."""
    return str(operation.attributes["name"].immediateValue.tensor.strings.values[0])


def _quantize(optimize: Any, model: Any, choices: Sequence[Choice], sparse: set[str], precision: Precision) -> Any:
    configs = {
        _held(choice.candidate.name, sparse): optimize.OpLinearQuantizerConfig(
            mode="linear_symmetric",
            dtype="int4" if precision == "w4" else "int8",
            granularity=choice.granularity,
            block_size=choice.block or 0,
            weight_threshold=0,
        )
        for choice in choices
    }
    config = optimize.OptimizationConfig(op_name_configs=configs)
    return optimize.linear_quantize_weights(model, config, joint_compression=bool(sparse))


def _held(name: str, sparse: set[str]) -> str:
    """Return the name by which a later pass finds a weight: the constant's, or of the operation that it became."""
    return f"{name}{_SPARSE}" if name in sparse else name


def _operations(model: Any) -> list[Any]:
    found: list[Any] = []
    for function in model.get_spec().mlProgram.functions.values():
        pending = list(function.block_specializations.values())
        while pending:
            for operation in pending.pop().operations:
                found.append(operation)
                pending += operation.blocks
    return found


def _check_done(model: Any, choices: Sequence[Choice]) -> None:
    """Hold coremltools to what was asked: it passes over weights with a warning that nobody sees."""
    plain = {operation.outputs[0].name for operation in _operations(model) if operation.type == "const"}
    passed_over = [choice.candidate.layer for choice in choices if choice.candidate.name in plain]
    if passed_over:
        raise ToolError(
            f"coremltools left the weights of {_listed(passed_over)} as they were; expected {len(choices)} weights to "
            "be compressed. Leave these layers out with compression.skip",
            stage="export",
        )


def _notes(
    choices: Sequence[Choice],
    left: Sequence[tuple[str, str]],
    sparse: set[str],
    compression: WeightCompression,
) -> list[str]:
    notes = []
    if sparse:
        share = _sparse_share(choices, sparse, compression)
        notes.append(f"zeros of {len(sparse)} layers are left out of the file ({share:.0%} of their weights)")
    fitted = [choice for choice in choices if choice.instead is not None]
    if fitted:
        notes.append(f"stored in another way: {_listed(f'{c.candidate.layer} ({c.instead})' for c in fitted)}")
    reasons = [f"{layer} ({reason})" for layer, reason in left]
    if reasons:
        notes.append(f"weights left in floating point: {_listed(reasons)}")
    return notes


def _sparse_share(choices: Sequence[Choice], sparse: set[str], compression: WeightCompression) -> float:
    if isinstance(compression.sparsity, float):
        return compression.sparsity
    if compression.n_m is not None:
        return compression.n_m[0] / compression.n_m[1]
    picked = [choice.candidate for choice in choices if choice.candidate.name in sparse]
    total = sum(candidate.values.size for candidate in picked)
    return sum(candidate.zero_share * candidate.values.size for candidate in picked) / total


def _listed(names: Any) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
