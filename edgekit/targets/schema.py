"""Device files: one YAML a device, checked strictly, and what is asked of a target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekit.records import FormatName, ModelLayer, ProfileConfig


class Device(BaseModel):
    """What every device file holds. A kind of target adds its own fields; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    schema_version: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    """As recipes say it; the file is called ``<name>.yaml``."""
    kind: str
    """How the device is reached: the folder of ``edgekit/targets`` that knows."""
    description: str = Field(min_length=1)
    """One line for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceListing:
    """A device file that was found.

    Attributes:
        name: From the file's name.
        path: Of the file.
        origin: ``project`` (``./targets``), ``user`` (the configuration folder) or ``packaged``.
        device: What it holds; None where it is broken.
        problem: Why it is broken; None where it is not.
    """

    name: str
    path: Path
    origin: str
    device: Device | None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Whether a device can be used from here.

    Attributes:
        device: Its name.
        usable: Whether a profile can be taken now.
        facts: What was found out, such as ``cpu -> AMD EPYC``.
        problems: What stands in the way, or makes figures worse; with the way out.
    """

    device: str
    usable: bool
    facts: dict[str, str]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRequest:
    """Time one artifact on one target.

    Attributes:
        artifact: Its path.
        artifact_id: Its name in reports, such as ``tflite/int8``.
        format: Its format.
        open_session: ``module:function`` of the format.
        reference: ``.npz`` whose first sample (``input_<i>``) is fed; None: generated inputs.
        device: The device file, as ``Device.model_dump(mode="json")``; each kind reads it with its own model.
        config: Runs, warm-up, threads, seed.
        work_dir: Scratch folder.
        model: How an emulated target turns counts into time; a target with a clock takes no notice.
        inspect: ``module:function`` of the format, by which operators of the runtime are brought back to layers of
            the model; None: they keep the runtime's names.
        place: ``module:function`` of the format that says which unit of a chip takes which operation; None: none can.
    """

    artifact: Path
    artifact_id: str
    format: FormatName
    open_session: str
    reference: Path | None
    device: dict[str, Any]
    config: ProfileConfig
    work_dir: Path
    model: ModelLayer = "static"
    inspect: str | None = None
    place: str | None = None
