"""Parity or not: measured distances against limits. Everything that counts as equal is decided here.

==================  =======================================================================================
artifact            held to, unless the recipe says otherwise
==================  =======================================================================================
fp32                SQNR against the source model at least 90 dB
fp16                SQNR against the source model at least 40 dB
quantized           SQNR against the source model at least ``verify.min_sqnr_db``; where the recipe gives neither that
                    nor ``max_accuracy_drop``, at least 10 dB: noise of a tenth of the signal's power
quantized, lowered  the lowering may not add more noise than the quantization itself: SQNR against the source at most
from a program of   3 dB below the program's own (noise power doubled), or at least 40 dB against the program.
its own precision   ``verify.max_steps`` limits the distance to the program in quantization steps. At ``int8-dynamic``
                    10 dB in place of 3: the program fixes the weights only. At what granularity a kernel chooses scales
                    of activations (tensor, row), and whether it quantizes those of depthwise layers at all, is the
                    runtime's own, so their whole noise may come on top of that of the weights
any                 ``verify.max_accuracy_drop``, and ``verify.outputs.<name>``, whose ``min_sqnr_db`` replaces that
                    output's SQNR limit against the source
==================  =======================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgekit.errors import RecipeError, nearest
from edgekit.recipe.schema import OutputTolerance, VerifySection
from edgekit.records import OutputParity, Parity, Precision
from edgekit.verify.parity import EXACT_SHARE_OF_STEP

FLOAT_MIN_SQNR_DB: dict[str, float] = {"fp32": 90.0, "fp16": 40.0}
QUANTIZED_MIN_SQNR_DB = 10.0
ADDED_NOISE_DB = 3.0
DYNAMIC_ADDED_NOISE_DB = 10.0
FAITHFUL_TO_PROGRAM_DB = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """What was measured of one artifact.

    Attributes:
        samples: How many were compared.
        versus_source: Each output against the source model.
        versus_program: Each output against the program that the artifact was lowered from.
        program_versus_source: The program's own distance from the source model.
        accuracy, source_accuracy: On the verification samples; None without labels.
    """

    samples: int
    versus_source: tuple[OutputParity, ...]
    versus_program: tuple[OutputParity, ...]
    program_versus_source: tuple[OutputParity, ...]
    accuracy: float | None = None
    source_accuracy: float | None = None

    @property
    def accuracy_drop(self) -> float | None:
        """Source accuracy minus artifact accuracy."""
        if self.accuracy is None or self.source_accuracy is None:
            return None
        return self.source_accuracy - self.accuracy


def judge(distances: Distances, limits: VerifySection, *, precision: Precision, program_precision: Precision) -> Parity:
    """Hold what was measured against its limits.

    Args:
        distances: Of this artifact.
        limits: The recipe's section.
        precision: The artifact's.
        program_precision: Of the program that it was lowered from.

    Returns:
        ``pass``, or ``fail`` with every broken limit in ``reason``.

    Raises:
        RecipeError: ``verify.outputs`` names an output that the artifact does not have.
    """
    check_output_names(limits, [output.name for output in distances.versus_source])
    failures = [*_source_limits(distances, limits, precision), *_accuracy_limit(distances, limits)]
    if precision not in FLOAT_MIN_SQNR_DB and precision == program_precision:
        failures += [*_lowering_limits(distances, precision), *_step_limits(distances.versus_program, limits)]
    return Parity(
        status="fail" if failures else "pass",
        reason="; ".join(failures) or None,
        samples=distances.samples,
        versus_source=distances.versus_source,
        versus_program=distances.versus_program,
        accuracy=distances.accuracy,
        accuracy_drop=distances.accuracy_drop,
    )


def not_run(reason: str) -> Parity:
    """Say that an artifact could not be executed here: neither passed nor failed."""
    return Parity(status="not run", reason=reason, samples=0)


def broken(reason: str, samples: int) -> Parity:
    """Fail an artifact whose outputs have no distance from the reference (NaN, another shape)."""
    return Parity(status="fail", reason=reason, samples=samples)


def check_output_names(limits: VerifySection, names: Sequence[str]) -> None:
    """Refuse tolerances of outputs that do not exist.

    Raises:
        RecipeError: Names the key and the nearest output.
    """
    for name in limits.outputs:
        if name not in names:
            raise RecipeError(f"verify.outputs.{name}: the model has no such output. {nearest(name, names)}")


def _source_limits(distances: Distances, limits: VerifySection, precision: Precision) -> Iterator[str]:
    for output in distances.versus_source:
        own = limits.outputs.get(output.name, OutputTolerance())
        least = own.min_sqnr_db if own.min_sqnr_db is not None else _min_sqnr_db(limits, precision)
        if least is not None and output.sqnr_db < least:
            yield f"output {output.name!r}: SQNR against the source is {output.sqnr_db:.1f} dB, below {least:g} dB"
        if own.max_abs_error is not None and output.max_abs_error > own.max_abs_error:
            yield f"output {output.name!r}: largest error is {output.max_abs_error:.3g}, above {own.max_abs_error:g}"
        yield from _top1_limit(output, own.min_top1_agreement)


def _min_sqnr_db(limits: VerifySection, precision: Precision) -> float | None:
    if precision in FLOAT_MIN_SQNR_DB:
        return FLOAT_MIN_SQNR_DB[precision]
    if limits.min_sqnr_db is None and limits.max_accuracy_drop is not None:
        return None  # the user says what counts: the task
    return QUANTIZED_MIN_SQNR_DB if limits.min_sqnr_db is None else limits.min_sqnr_db


def _top1_limit(output: OutputParity, least: float | None) -> Iterator[str]:
    if least is None:
        return
    if output.top1_agreement is None:
        yield f"output {output.name!r}: min_top1_agreement is given, but this output holds no classes"
    elif output.top1_agreement < least:
        yield f"output {output.name!r}: top-1 agreement is {output.top1_agreement:.4f}, below {least:g}"


def _accuracy_limit(distances: Distances, limits: VerifySection) -> Iterator[str]:
    if limits.max_accuracy_drop is None:
        return
    drop = distances.accuracy_drop
    if drop is None:
        yield "max_accuracy_drop is given, but the verification samples have no class labels to measure it with"
    elif drop > limits.max_accuracy_drop + 1e-9:  # 0.91 - 0.90 is 0.010000000000000009
        yield (
            f"accuracy fell by {drop:.4f} (from {distances.source_accuracy:.4f} to {distances.accuracy:.4f}), "
            f"more than {limits.max_accuracy_drop:g}"
        )


def _lowering_limits(distances: Distances, precision: Precision) -> Iterator[str]:
    most_db = DYNAMIC_ADDED_NOISE_DB if precision == "int8-dynamic" else ADDED_NOISE_DB
    for source, program, own in zip(
        distances.versus_source, distances.versus_program, distances.program_versus_source, strict=True
    ):
        if program.sqnr_db < FAITHFUL_TO_PROGRAM_DB and source.sqnr_db < own.sqnr_db - most_db:
            yield (
                f"output {source.name!r}: SQNR against the source is {own.sqnr_db:.1f} dB for the quantized program, "
                f"but {source.sqnr_db:.1f} dB for the artifact: lowering added more noise than quantization did"
            )


def _step_limits(versus_program: Sequence[OutputParity], limits: VerifySection) -> Iterator[str]:
    if limits.max_steps is None:
        return
    for output in versus_program:
        if output.max_steps is not None and output.max_steps > limits.max_steps + EXACT_SHARE_OF_STEP:
            yield (
                f"output {output.name!r}: {output.max_steps:.2f} quantization steps from the program, "
                f"more than {limits.max_steps:g}"
            )
