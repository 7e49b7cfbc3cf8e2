"""Compare what a device's kernels computed with this machine's, and with the model, by the checks of every artifact.

Kernels of two machines round differently, so equal bits are not asked for. They agree where their distance is that of
rounding (90 dB, what fp32 is held to; a device that computes in float16 is held to 40 dB, as fp16 is), or at least no
larger than the artifact's own distance from the model; without a reference, 40 dB are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.records import DeviceParity, OutputParity, TensorSpec
from edgekit.verify.judge import FLOAT_MIN_SQNR_DB
from edgekit.verify.parity import compare_outputs, incomparable

Array = NDArray[np.generic]

ROUNDING_DB = FLOAT_MIN_SQNR_DB["fp32"]
WITHOUT_REFERENCE_DB = FLOAT_MIN_SQNR_DB["fp16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Outputs of the same samples, each with the samples in axis 0.

    Attributes:
        device: From the device's kernels.
        host: From the same artifact on this machine; None: it does not run here.
        source, program: From the model, and the program that the artifact was lowered from; None: not known.
    """

    device: tuple[Array, ...]
    host: tuple[Array, ...] | None
    source: tuple[Array, ...] | None = None
    program: tuple[Array, ...] | None = None


def stack_samples(samples: Sequence[Sequence[Array]]) -> tuple[Array, ...]:
    """Turn one tuple of outputs a sample into one array an output, with the samples in axis 0."""
    columns = zip(*samples, strict=True)
    return tuple(np.concatenate([np.atleast_1d(output) for output in column]) for column in columns)


def compare_sides(specs: Sequence[TensorSpec], sides: Sides, *, rounding_db: float = ROUNDING_DB) -> DeviceParity:
    """Compare the outputs of the device with all the others.

    Args:
        specs: Outputs of the artifact: their names and quantization.
        sides: What each side gave.
        rounding_db: SQNR between the machines that rounding alone explains, at the precision that the device computes
            in.
    """
    names = [spec.name for spec in specs]
    samples = len(sides.device[0]) if sides.device else 0
    models = {
        "versus_source": _compared(specs, sides.device, sides.source),
        "versus_program": _compared(specs, sides.device, sides.program),
    }
    if sides.host is None:
        return DeviceParity(status="not run", reason="the artifact does not run here", samples=samples, **models)
    problem = incomparable(names, sides.device, sides.host)
    if problem is not None:
        return DeviceParity(status="fail", reason=f"against this machine: {problem}", samples=samples)
    versus_host = _compared(specs, sides.device, sides.host)
    own = {output.name: output.sqnr_db for output in _compared(specs, sides.host, sides.source)}
    least = {output.name: min(rounding_db, own.get(output.name, WITHOUT_REFERENCE_DB)) for output in versus_host}
    failures = tuple(_disagreements(versus_host, least))
    return DeviceParity(
        status="fail" if failures else "pass",
        reason="; ".join(failures) or None,
        samples=samples,
        versus_host=versus_host,
        **models,
    )


def parity_notes(parity: DeviceParity, device: str) -> Iterator[str]:
    """Say what a reader must know of kernels that do not compute the same.

    Args:
        parity: What was found.
        device: What to call the other machine, such as ``the phone``.
    """
    if parity.status == "fail":
        yield f"finding: {device}'s kernels do not compute what this machine's do: {parity.reason}"
    for output in parity.versus_host:
        if parity.status == "pass" and output.max_steps is not None and output.max_steps >= 1:
            yield (
                f"{device}'s kernels and this machine's round output {output.name!r} differently, "
                f"by up to {output.max_steps:.3g} quantization steps"
            )


def _compared(
    specs: Sequence[TensorSpec], outputs: tuple[Array, ...], reference: tuple[Array, ...] | None
) -> tuple[OutputParity, ...]:
    """Return the distances; none where there is no reference, or where a NaN in it leaves nothing to compare."""
    names = [spec.name for spec in specs]
    if reference is None or incomparable(names, outputs, reference) is not None:
        return ()
    return compare_outputs(names, outputs, reference, [_step(spec) for spec in specs], None)


def _step(spec: TensorSpec) -> float | None:
    found = spec.quantization
    return found.scale[0] if found is not None and len(found.scale) == 1 else None


def _disagreements(versus_host: Sequence[OutputParity], least: Mapping[str, float]) -> Iterator[str]:
    for output in versus_host:
        if output.sqnr_db < least[output.name]:
            yield (
                f"output {output.name!r}: SQNR between the machines is {output.sqnr_db:.1f} dB, "
                f"below {least[output.name]:.1f} dB"
            )
