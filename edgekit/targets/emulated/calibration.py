"""Anchors: measurements made on the real device, stored, that scale the estimates of its model.

One factor a device and model layer: the geometric mean of measured over estimated time. An anchor holds for the very
model that made its estimate; where the core table, the device file or the model's code has changed since, it is stale
and counts for nothing until the device is calibrated again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekit.errors import TargetError
from edgekit.records import SCHEMA_VERSION
from edgekit.store.atomic import write_text
from edgekit.strict_yaml import parse_yaml
from edgekit.targets.devices import device_folders
from edgekit.units import format_duration_ms

Layer = Literal["static", "trace"]


class Anchor(BaseModel):
    """One measurement of the device beside what the model said of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    artifact: str
    """Name of the file, for people."""
    sha256: str
    """Its digest: a second measurement of the same artifact replaces the first."""
    model: Layer
    """The layer that made the estimate."""
    measured_ms: float = Field(gt=0, allow_inf_nan=False)
    estimated_ms: float = Field(gt=0, allow_inf_nan=False)
    estimator: str
    """Digest of the model: core table, device file, code."""
    edgekit: str
    """Version that made the estimate."""

    @property
    def told(self) -> str:
        """Such as ``mobilenet_v1.tflite = 88 ms``."""
        return f"{self.artifact} = {format_duration_ms(self.measured_ms)}"


class AnchorsFile(BaseModel):
    """``targets/anchors/<device>.yaml``, whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1]
    device: str
    anchors: tuple[Anchor, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchoring:
    """What anchors do to an estimate.

    Attributes:
        factor: The estimate is multiplied by it; 1 without anchors.
        anchors: What it rests on, for people.
        notes: Anchors that were not used, and why.
    """

    factor: float = 1.0
    anchors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def anchor_files(device: str) -> dict[str, Path]:
    """Return where the anchors of a device may lie: ``project`` before ``user``; the first that is there counts."""
    folders = dict(device_folders())
    return {
        origin: folders[origin] / "anchors" / f"{device}.yaml" for origin in ("project", "user") if origin in folders
    }


def read_anchors(device: str) -> tuple[Anchor, ...]:
    """Return the anchors of a device, none where it was never calibrated.

    Raises:
        TargetError: The file does not hold anchors.
    """
    file = next((path for path in anchor_files(device).values() if path.is_file()), None)
    return () if file is None else _read(file, device)


def _read(file: Path, device: str) -> tuple[Anchor, ...]:
    try:
        document = AnchorsFile.model_validate(parse_yaml(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        way_out = f"`edgekit targets calibrate {device} --forget` removes it"
        raise TargetError(
            f"{file}: expected anchors as `edgekit targets calibrate` writes them; {way_out}. {error}"
        ) from error
    if document.device != device:
        raise TargetError(f"{file}: expected anchors of {device}, as the file is called; received {document.device!r}")
    return document.anchors


def store_anchors(device: str, new: Sequence[Anchor], *, project: bool) -> Path:
    """Add anchors to those of a device; one of the same artifact and layer is replaced.

    Args:
        device: Its name.
        new: What was measured.
        project: Store beside the project's device files instead of the user's.

    Returns:
        The file.

    Raises:
        TargetError: The file that is there does not hold anchors, or there is no such folder.
        OutputError: The file cannot be written.
    """
    file = _file(device, project=project)
    kept = {(anchor.sha256, anchor.model): anchor for anchor in (_read(file, device) if file.is_file() else ())}
    kept |= {(anchor.sha256, anchor.model): anchor for anchor in new}
    anchors = [kept[key].model_dump(mode="json") for key in sorted(kept)]
    document = {"schema_version": SCHEMA_VERSION, "device": device, "anchors": anchors}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return file


def forget_anchors(device: str, *, project: bool) -> Path | None:
    """Remove the anchors of a device and return the file that is gone, None where there was none."""
    file = _file(device, project=project)
    if not file.is_file():
        return None
    file.unlink()
    return file


def _file(device: str, *, project: bool) -> Path:
    origin = "project" if project else "user"
    files = anchor_files(device)
    if origin not in files:
        raise TargetError("--project: this folder holds edgekit's own targets; run from your project's folder instead")
    return files[origin]


def anchoring(anchors: Iterable[Anchor], layer: Layer, estimator: str) -> Anchoring:
    """Return the factor that the anchors of a device give to one layer of its model.

    Args:
        anchors: Of the device.
        layer: Of the estimate.
        estimator: Digest of the model as it is now.
    """
    of_layer = [anchor for anchor in anchors if anchor.model == layer]
    valid = [anchor for anchor in of_layer if anchor.estimator == estimator]
    notes = tuple(
        f"the anchor {anchor.told} is stale and was not used: the model of this device has changed since; "
        "run `edgekit targets calibrate` again"
        for anchor in of_layer
        if anchor.estimator != estimator
    )
    if not valid:
        return Anchoring(notes=notes)
    logs = [math.log(anchor.measured_ms / anchor.estimated_ms) for anchor in valid]
    return Anchoring(
        factor=math.exp(math.fsum(logs) / len(logs)), anchors=tuple(anchor.told for anchor in valid), notes=notes
    )
