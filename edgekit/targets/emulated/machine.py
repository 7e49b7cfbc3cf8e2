"""Say whether an emulated device can be used from this machine, and how to get what is missing."""

from __future__ import annotations

from edgekit.targets.emulated.setup import pieces
from edgekit.targets.emulated.spec import EmulatedDevice
from edgekit.targets.schema import Device, Diagnosis


def diagnose_emulated(device: Device) -> Diagnosis:
    """Look for every tool that emulation needs: with them any device can be emulated, without them none can."""
    found = pieces()
    facts = _describe(device) if isinstance(device, EmulatedDevice) else {}
    facts |= {piece.name: piece.found for piece in found if piece.found}
    needed = all(piece.ready for piece in found if piece.needed)
    runs_something = any(piece.ready for piece in found if not piece.needed)
    return Diagnosis(
        device=device.name,
        usable=needed and runs_something,
        facts=facts,
        problems=tuple(piece.problem for piece in found if piece.problem),
    )


def _describe(device: EmulatedDevice) -> dict[str, str]:
    cluster = device.primary_cluster
    facts = {
        "soc": device.soc,
        "emulated cores": f"{cluster.part} at {cluster.clock_mhz:g} MHz ({cluster.name}), as the table {cluster.core}",
        "note": "; ".join(filter(None, (cluster.note, device.note))),
    }
    return {name: fact for name, fact in facts.items() if fact}
