"""What the pipeline asks of a verification. Each request runs in a child process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.recipe.schema import VerifySection
from edgekit.records import Compute, HalfPrecision, Parity, Precision, Program, RuntimeInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """Run an artifact on the verification samples and compare it.

    Attributes:
        artifact: Path of the artifact.
        precision: Whose limits hold: the artifact's own, or what it must be as good as where its weights were stored
            without loss, or made smaller.
        dynamic_batch: Whether it takes any batch size; else samples are fed one by one.
        open_session: ``module:function`` of its format; of the one that takes ``compute``, where that is given.
        program: What it was lowered from; names the reference.
        verify: The limits.
        num_threads: Of the runtime.
        compute: What an evaluator rounds to float16; None: the artifact's runtime decides.
        half_precision: What float16 does to the artifact, to be told where it fails; None: nobody looked.
        outputs: ``.npz`` file to write the artifact's outputs to (``output_<i>``, batch in axis 0); None: not kept.
    """

    artifact: Path
    precision: Precision
    dynamic_batch: bool
    open_session: str
    program: Program
    verify: VerifySection
    num_threads: int = 1
    compute: Compute | None = None
    half_precision: HalfPrecision | None = None
    outputs: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    """What came out.

    Attributes:
        parity: Distances and verdict.
        runtime: What executed the artifact.
    """

    parity: Parity
    runtime: RuntimeInfo
