"""Have ``targets/macos/measure.py`` measure an artifact, here or elsewhere, and make a profile of the answer."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.contracts import Inspection, Session, load_entry
from edgekit.data.feeding import fit_inputs, read_output
from edgekit.errors import ArtifactError, ToolError, UnsupportedError
from edgekit.profile.feed import generated_inputs
from edgekit.records import ComputeUnits, DeviceParity, MeasuredProfile, TensorSpec
from edgekit.store.atomic import digest_path
from edgekit.targets.devices import packaged_targets
from edgekit.targets.measured import measured_profile, problem_error
from edgekit.targets.measurement import Measurement, MeasurementDocument
from edgekit.targets.schema import ProfileRequest
from edgekit.verify.device_parity import Sides, compare_sides, parity_notes, stack_samples
from edgekit.verify.judge import FLOAT_MIN_SQNR_DB
from edgekit.verify.reference import load_arrays

Array = NDArray[np.generic]

SAMPLES = 4
"""Samples of a reference whose outputs are brought back and compared; of generated inputs there is one."""
RESULT = "result.json"
INPUTS = "inputs.npz"
SCRIPTS = ("measure.py", "machine.py", "runtimes.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What is fed.

    Attributes:
        inputs: One tuple a sample, as the source model takes them, each with a batch of one.
        source, program: What the models said of them, the samples in axis 0; None: not known.
    """

    inputs: tuple[tuple[Array, ...], ...]
    source: tuple[Array, ...] | None = None
    program: tuple[Array, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureJob:
    """One artifact to be measured by the script.

    Attributes:
        compute_units: Which choices to time; of runtimes without such a choice there is one measurement.
        inputs, outputs: Of the artifact.
        timeout_s: Of the whole measurement, on the machine that takes it.
    """

    request: ProfileRequest
    compute_units: tuple[ComputeUnits, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    samples: Samples
    timeout_s: float

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield ``(path in the folder, content)`` of all that the measurement needs."""
        for name in SCRIPTS:
            yield name, (packaged_targets() / "macos" / name).read_bytes()
        artifact = self.request.artifact
        for file in sorted(artifact.rglob("*")) if artifact.is_dir() else [artifact]:
            if file.is_file():
                yield str(self._place(file)), file.read_bytes()
        yield INPUTS, self._packed_inputs()

    def arguments(self) -> list[str]:
        """Return the script and its arguments, relative to the folder."""
        config = self.request.config
        return [
            *("measure.py", "--artifact", str(self._place(self.request.artifact)), "--inputs", INPUTS),
            *("--result", RESULT, "--compute-units", ",".join(self.compute_units)),
            *("--num-runs", str(config.num_runs), "--warmup-runs", str(config.warmup_runs)),
            *("--num-threads", str(config.num_threads), "--timeout", f"{self.timeout_s:g}"),
        ]

    def profile(self, document: MeasurementDocument) -> MeasuredProfile:
        """Make the profile, the outputs compared with this machine's and the model's.

        Raises:
            TargetError: The machine cannot run the artifact.
            ArtifactError: It cannot read the artifact.
            ToolError: The runtime failed there, or another artifact was measured than this one.
        """
        if len(document.measurements) != 1:
            raise problem_error(document.error, str(self.request.device["name"]))
        return self.profile_of(document, document.measurements[0])

    def profile_of(self, document: MeasurementDocument, measurement: Measurement) -> MeasuredProfile:
        """Make the profile of one of several measurements; errors as of :meth:`profile`."""
        target = str(self.request.device["name"])
        if measurement.error is None and measurement.artifact.sha256 != digest_path(self.request.artifact):
            raise ToolError(f"{target}: what was measured is not {self.request.artifact.name}: the digests differ")
        parity = self._parity(measurement) if measurement.outputs is not None else None
        profile = measured_profile(
            document,
            measurement,
            artifact=self.request.artifact_id,
            target=target,
            parity=parity,
            notes=tuple(self._notes(parity)),
        )
        return replace(profile, config=self.request.config)

    def _place(self, file: Path) -> Path:
        return Path("artifact") / file.relative_to(self.request.artifact.parent)

    def _packed_inputs(self) -> bytes:
        fitted = [_fitted(self.inputs, sample) for sample in self.samples.inputs]
        buffer = io.BytesIO()
        np.savez(buffer, **{f"input_{i}": np.concatenate(c) for i, c in enumerate(zip(*fitted, strict=True))})  # type: ignore[arg-type]
        return buffer.getvalue()

    def _notes(self, parity: DeviceParity | None) -> Iterator[str]:
        if self.request.config.profile_ops:
            yield "no operator times: they are not taken on another machine"
        if parity is not None:
            yield from parity_notes(parity, "the device")

    def _parity(self, measurement: Measurement) -> DeviceParity:
        found = [tensor.array() for tensor in measurement.outputs.tensors] if measurement.outputs else []
        if len(found) != len(self.outputs):
            raise ToolError(f"expected {len(self.outputs)} outputs of the measurement; received {len(found)}")
        count = min((len(array) for array in found), default=0)
        device = tuple(read_output(spec, array) for spec, array in zip(self.outputs, found, strict=True))
        sides = Sides(
            device=tuple(array.astype(np.float32) if array.dtype == np.float16 else array for array in device),
            host=self._on_this_machine(count),
            source=_first(self.samples.source, count),
            program=_first(self.samples.program, count),
        )
        computes_in_half = self.request.format == "coreml"  # GPU and Neural Engine do, whatever the program declares
        limit = FLOAT_MIN_SQNR_DB["fp16" if computes_in_half else "fp32"]
        return compare_sides(self.outputs, sides, rounding_db=limit)

    def _on_this_machine(self, count: int) -> tuple[Array, ...] | None:
        try:
            session: Session = load_entry(self.request.open_session)(self.request.artifact, 1)
        except UnsupportedError:
            return None
        with session:
            ran = [tuple(np.array(out) for out in session.run(sample)) for sample in self.samples.inputs[:count]]
        return stack_samples(ran)


def measure_job(request: ProfileRequest, compute_units: tuple[ComputeUnits, ...], timeout_s: float) -> MeasureJob:
    """Read what the measurement of an artifact takes.

    Raises:
        ArtifactError: The artifact or the reference is missing, damaged, or they do not belong together.
        ToolError: The request does not say how the artifact is inspected (a mistake of the caller).
    """
    if not request.artifact.exists():
        raise ArtifactError(f"expected an artifact at {request.artifact}; there is none")
    if request.inspect is None:
        raise ToolError("expected the request to name how the artifact is inspected; it does not")
    inspection: Inspection = load_entry(request.inspect)(request.artifact)
    return MeasureJob(
        request=request,
        compute_units=compute_units,
        inputs=inspection.inputs,
        outputs=inspection.outputs,
        samples=_samples(request, inspection),
        timeout_s=timeout_s,
    )


def _samples(request: ProfileRequest, inspection: Inspection) -> Samples:
    if request.reference is None:
        return Samples(inputs=(tuple(generated_inputs(inspection.inputs, request.config.seed)),))
    arrays = load_arrays(request.reference)
    names = [f"input_{index}" for index in range(len(inspection.inputs))]
    if not all(name in arrays and len(arrays[name]) for name in names):
        received = ", ".join(sorted(arrays)) or "nothing"
        raise ArtifactError(
            f"{request.reference}: expected {', '.join(names)} with at least one sample; received {received}"
        )
    count = min([SAMPLES, *(len(arrays[name]) for name in names)])
    return Samples(
        inputs=tuple(tuple(arrays[name][index : index + 1] for name in names) for index in range(count)),
        source=_side(arrays, "source", len(inspection.outputs)),
        program=_side(arrays, "program", len(inspection.outputs)),
    )


def _side(arrays: dict[str, Array], side: str, outputs: int) -> tuple[Array, ...] | None:
    names = [f"{side}_output_{index}" for index in range(outputs)]
    return tuple(arrays[name] for name in names) if all(name in arrays for name in names) else None


def _first(arrays: tuple[Array, ...] | None, count: int) -> tuple[Array, ...] | None:
    return None if arrays is None else tuple(array[:count] for array in arrays)


def _fitted(specs: Sequence[TensorSpec], sample: Sequence[Array]) -> tuple[Array, ...]:
    """Make a sample fit the artifact's own inputs; a package takes booleans as floats."""
    real = [
        array.astype(np.float32) if array.dtype == bool and spec.dtype != "bool" else array
        for spec, array in zip(specs, sample, strict=True)
    ]
    return fit_inputs(specs, real)
