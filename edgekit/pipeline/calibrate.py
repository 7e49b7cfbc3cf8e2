"""Calibrate an emulated device: put measurements made on the real one beside what its model says, and store them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit import __version__
from edgekit.errors import RecipeError, ToolError, UnsupportedError, UserInputError
from edgekit.pipeline.profile import profile_artifact
from edgekit.records import SCHEMA_VERSION, EmulatedProfile, ProfileConfig
from edgekit.store.atomic import digest_path
from edgekit.targets import Device, find_device, target_spec
from edgekit.targets.emulated.calibration import Anchor, Layer, anchoring, forget_anchors, read_anchors, store_anchors
from edgekit.targets.emulated.reads import estimator_of
from edgekit.targets.emulated.spec import EmulatedDevice
from edgekit.units import parse_duration_ms

LAYERS: tuple[Layer, ...] = ("static", "trace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What an artifact took on the real device: the median of one inference, on one thread."""

    artifact: Path
    measured_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCalibration:
    """What the anchors of a device do to one layer of its model: estimates are multiplied by ``factor``."""

    model: Layer
    factor: float
    anchors: tuple[Anchor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a calibration stored, and where; ``forgotten`` is the file that was removed."""

    schema_version: int = SCHEMA_VERSION
    device: str
    file: Path | None
    layers: tuple[LayerCalibration, ...] = ()
    forgotten: Path | None = None


def parse_measurement(text: str) -> Measurement:
    """Read ``FILE=DURATION``.

    Raises:
        UserInputError: It is not of that form, or the duration has no unit.

    Example:
        >>> parse_measurement("mobilenet_v1.tflite=88ms").measured_ms
        88.0
    """
    path, sign, duration = text.rpartition("=")
    if not sign or not path:
        raise UserInputError(f"--measured: expected FILE=DURATION, such as mobilenet_v1.tflite=88ms; received {text!r}")
    try:
        measured_ms = parse_duration_ms(duration)
    except RecipeError as error:
        raise UserInputError(f"--measured {text}: {error}") from error
    if measured_ms <= 0:
        raise UserInputError(f"--measured {text}: expected a duration above zero")
    return Measurement(artifact=Path(path), measured_ms=measured_ms)


def calibrate(name: str, measured: Sequence[Measurement], layers: Sequence[Layer], *, project: bool) -> Calibration:
    """Profile each artifact on the emulated device and store how far the model is from the measurement.

    Args:
        name: The device.
        measured: What was measured on the real one.
        layers: Of the model, to be calibrated.
        project: Store beside the project's device files instead of the user's.

    Raises:
        UnsupportedError: The device is not an emulated one, or the tools of emulation are missing.
        ArtifactError: No such artifact.
        OutputError: The anchors cannot be written.
        ToolError: The runtime failed on the guest.
    """
    device = _emulated(name)
    found = [anchor for layer in layers for anchor in _anchors(device, measured, layer)]
    file = store_anchors(name, found, project=project)
    return Calibration(device=name, file=file, layers=tuple(_effects(device, layers)))


def forget(name: str, *, project: bool) -> Calibration:
    """Remove the measurements that are stored for a device.

    Raises:
        UnsupportedError: The device is not an emulated one.
    """
    _emulated(name)
    return Calibration(device=name, file=None, forgotten=forget_anchors(name, project=project))


def _emulated(name: str) -> EmulatedDevice:
    device: Device = find_device(name)
    if isinstance(device, EmulatedDevice):
        return device
    raise UnsupportedError(
        f"calibrating {name}",
        reason=f"it is {target_spec(device.kind, place=name).title}, whose figures are not modelled",
        instead="an emulated device (`edgekit targets list`)",
    )


def _anchors(device: EmulatedDevice, measured: Sequence[Measurement], layer: Layer) -> Iterator[Anchor]:
    for one in measured:
        profile = profile_artifact(one.artifact, device.name, ProfileConfig(), inputs=None, use_cache=True, model=layer)
        if not isinstance(profile, EmulatedProfile) or profile.latency_ms is None:
            raise ToolError(f"the {layer} model gave no time for {one.artifact.name}", stage="calibrate")
        yield Anchor(
            artifact=one.artifact.name,
            sha256=digest_path(one.artifact),
            model=layer,
            measured_ms=one.measured_ms,
            estimated_ms=profile.latency_ms.unanchored,
            estimator=estimator_of(device, layer),
            edgekit=__version__,
        )


def _effects(device: EmulatedDevice, layers: Sequence[Layer]) -> Iterator[LayerCalibration]:
    stored = read_anchors(device.name)
    for layer in layers:
        estimator = estimator_of(device, layer)
        used = tuple(one for one in stored if one.model == layer and one.estimator == estimator)
        yield LayerCalibration(model=layer, factor=anchoring(stored, layer, estimator).factor, anchors=used)
