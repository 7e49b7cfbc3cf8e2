"""The host kind: what its device files hold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from edgekit.contracts import TargetSpec
from edgekit.targets.schema import Device


class HostDevice(Device):
    """This machine, perhaps narrowed to some of its cores."""

    kind: Literal["host"]
    cpus: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(default=None, min_length=1)
    """Cores that threads are pinned to (isolated ones, for quiet figures); left out: chosen at each profile."""

    @field_validator("cpus")
    @classmethod
    def _each_once(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and len(set(value)) != len(value):
            raise ValueError("expected each core once")
        return value


SPEC = TargetSpec(
    kind="host",
    title="this machine",
    device="edgekit.targets.host.spec:HostDevice",
    profile="edgekit.targets.host.run:profile_on_host",
    diagnose="edgekit.targets.host.machine:diagnose_host",
)
