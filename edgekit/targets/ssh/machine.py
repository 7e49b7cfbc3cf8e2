"""Ask a machine over ssh what it is, and whether artifacts can be measured there."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

from edgekit.errors import EdgekitError, ToolError
from edgekit.targets.devices import packaged_targets
from edgekit.targets.measure_job import RESULT, SCRIPTS
from edgekit.targets.measurement import MeasurementDocument, parse_document
from edgekit.targets.schema import Device, Diagnosis
from edgekit.targets.ssh.spec import SshDevice
from edgekit.targets.ssh.transport import RemoteCommand, run_remotely

PROBE_TIMEOUT_S = 60.0
RUNTIMES = ("coremltools", "ai-edge-litert", "executorch", "onnxruntime")


def probe(device: SshDevice) -> MeasurementDocument:
    """Ask the machine what it is and which runtimes its Python has.

    Raises:
        TargetError: It cannot be reached, or has no Python.
        ToolError: It gave no answer.
    """
    answer = run_remotely(
        device,
        RemoteCommand(
            files=((name, (packaged_targets() / "macos" / name).read_bytes()) for name in SCRIPTS),
            arguments=("measure.py", "--probe", "--result", RESULT),
            results=(RESULT,),
            timeout_s=PROBE_TIMEOUT_S,
        ),
    )
    if RESULT not in answer.results:
        raise ToolError(f"{device.name}: asking what it is ended with status {answer.status}: {answer.log}")
    return parse_document(answer.results[RESULT], device.name)


@cache
def _known(device: SshDevice) -> MeasurementDocument:
    """Ask once in a process: a build asks before the work, and again for every artifact."""
    return probe(device)


def diagnose_ssh(device: Device) -> Diagnosis:
    """Say whether the machine can be reached and has what measuring takes."""
    if not isinstance(device, SshDevice):
        raise ToolError(f"expected a device of kind 'ssh'; received {device.kind!r}")
    try:
        found = _known(device)
    except EdgekitError as error:
        return Diagnosis(device=device.name, usable=False, facts={"address": device.address}, problems=(str(error),))
    facts = {"address": device.address, **found.machine, **found.conditions}
    problems = []
    if "numpy" not in facts:
        problems.append(f"its {device.python} has no numpy; there: {device.python} -m pip install numpy")
    if not any(name in facts for name in RUNTIMES):
        problems.append(
            f"its {device.python} has no runtime ({', '.join(RUNTIMES)}); there: {device.python} -m pip install …"
        )
    usable = not problems
    if facts.get("system", "").startswith("macOS") and "coremltools" not in facts:
        problems.append(f"no Core ML artifacts: there: {device.python} -m pip install coremltools")
    if facts.get("low_power_mode") == "on":
        problems.append("low power mode is on, so clocks are lowered")
    return Diagnosis(device=device.name, usable=usable, facts=facts, problems=tuple(problems))


def decided_by(device: Device) -> dict[str, Any]:
    """Return what decides a measurement besides the device file: the machine, its versions, and our own script."""
    if not isinstance(device, SshDevice):
        raise ToolError(f"expected a device of kind 'ssh'; received {device.kind!r}")
    script = hashlib.sha256()
    for name in SCRIPTS:
        script.update((packaged_targets() / "macos" / name).read_bytes())
    return {"machine": _known(device).machine, "script": script.hexdigest()}
