"""Targets: the devices to profile on (one YAML each) and the kinds of way to reach them (one folder each)."""

from __future__ import annotations

from edgekit.targets.devices import device_folders, diagnose, find_device, list_devices, load_device
from edgekit.targets.kinds import target_spec, target_specs
from edgekit.targets.schema import Device, DeviceListing, Diagnosis, ProfileRequest

__all__ = [
    "Device",
    "DeviceListing",
    "Diagnosis",
    "ProfileRequest",
    "device_folders",
    "diagnose",
    "find_device",
    "list_devices",
    "load_device",
    "target_spec",
    "target_specs",
]
