"""The ssh kind: what its device files hold, and the device that an address alone makes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from edgekit.contracts import TargetSpec
from edgekit.errors import TargetError
from edgekit.records import ComputeUnits
from edgekit.targets.schema import Device

ALL_UNITS: tuple[ComputeUnits, ...] = ("all", "cpuAndNeuralEngine", "cpuAndGPU", "cpuOnly")
ADDRESS = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?"
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9]+)?)\]|(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
"""``[user@]host[:port]``. Nothing in it can be taken for an option of ssh, or for more than a word by a shell."""
Place = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect to; what is None is left to the user's configuration of ssh."""

    host: str
    user: str | None
    port: int | None


def parse_address(text: str) -> Address:
    """Read ``[user@]host[:port]``; IPv6 addresses stand in brackets.

    Raises:
        ValueError: It is none.
    """
    found = ADDRESS.fullmatch(text)
    port = int(found["port"]) if found is not None and found["port"] else None
    if found is None or (port is not None and not 1 <= port <= 65535):
        raise ValueError(f"expected [user@]host[:port], such as me@mac.local or me@10.0.0.7:2222; received {text!r}")
    return Address(host=found["ipv6"] or found["host"], user=found["user"], port=port)


class SshDevice(Device):
    """A machine with Python, as a rule a Mac: who and where it is, and how its Python is called."""

    kind: Literal["ssh"]
    name: str = Field(pattern=r"^(ssh:\S+|[a-z0-9][a-z0-9_.-]*)$")
    """As the file is called, or the address form ``ssh:user@host``."""
    address: str
    """``[user@]host[:port]``; a ``Host`` of your ssh configuration will do."""
    identity: Place | None = None
    """Private key file; left out: whatever ssh finds (agent, configuration)."""
    ssh_config: Place | None = None
    """Configuration file instead of ``~/.ssh/config``."""
    python: str = Field(default="python3", pattern=r"^[A-Za-z0-9_./~+-]+$")
    """The Python over there that has the runtimes, such as ``~/venv/bin/python``."""
    compute_units: tuple[ComputeUnits, ...] = Field(default=ALL_UNITS, min_length=1)
    """Which choices of Core ML to time; the first gives the profile's own figures."""
    connect_timeout_s: int = Field(default=15, ge=1, le=600)
    """How long to wait for a connection."""
    timeout_s: int = Field(default=1800, ge=1, le=86400)
    """How long one measurement may take."""

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        parse_address(value)
        return value

    @field_validator("compute_units")
    @classmethod
    def _each_once(cls, value: tuple[ComputeUnits, ...]) -> tuple[ComputeUnits, ...]:
        if len(set(value)) != len(value):
            raise ValueError("expected each choice of compute units once")
        return value


def device_at(address: str) -> SshDevice:
    """Return the device of an address alone: ``--target ssh:user@host``.

    Raises:
        TargetError: It is no address.
    """
    try:
        parse_address(address)
    except ValueError as error:
        raise TargetError(f"ssh:{address}: {error}") from error
    return SshDevice(
        schema_version=1,
        name=f"ssh:{address}",
        kind="ssh",
        description="a machine reached with ssh, timed by its own clock",
        address=address,
    )


SPEC = TargetSpec(
    kind="ssh",
    title="a machine reached with ssh",
    device="edgekit.targets.ssh.spec:SshDevice",
    profile="edgekit.targets.ssh.run:profile_over_ssh",
    diagnose="edgekit.targets.ssh.machine:diagnose_ssh",
    runs=(
        ("coreml", "default"),
        ("tflite", "xnnpack"),
        ("executorch", "xnnpack"),
        ("executorch", "coreml"),
        ("executorch", "portable"),
        ("onnx", "cpu"),
    ),
    why_not="the script that measures there knows Core ML, LiteRT, ExecuTorch and ONNX Runtime on the CPU",
    reads="edgekit.targets.ssh.machine:decided_by",
    address="edgekit.targets.ssh.spec:device_at",
)
