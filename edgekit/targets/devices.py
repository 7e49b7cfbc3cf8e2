"""Find device files: the project's first, then the user's, then the packaged ones; the first of a name counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs
import yaml
from pydantic import ValidationError

import edgekit
from edgekit.contracts import load_entry
from edgekit.errors import TargetError, nearest
from edgekit.records import SCHEMA_VERSION
from edgekit.strict_yaml import parse_yaml
from edgekit.targets.kinds import target_spec, target_specs
from edgekit.targets.schema import Device, DeviceListing, Diagnosis


def packaged_targets() -> Path:
    """Return the folder that comes with edgekit: device files, core tables and the sources of guest programs."""
    package = Path(edgekit.__file__).parent
    installed, checkout = package / "_targets", package.parent / "targets"
    return installed if installed.is_dir() else checkout


def core_names() -> tuple[str, ...]:
    """Return the processor cores that there is a table for (``cores/<name>.yaml`` beside device files), by name."""
    return tuple(sorted({path.stem for folder in core_folders() for path in folder.glob("*.yaml")}))


def core_folders() -> tuple[Path, ...]:
    """Return where core tables are looked for, in order of precedence: beside device files, as those are."""
    return tuple(folder / "cores" for _, folder in device_folders())


def device_folders() -> tuple[tuple[str, Path], ...]:
    """Return where device files are looked for, ``(origin, folder)`` in order of precedence."""
    packaged = packaged_targets()
    user = platformdirs.user_config_path("edgekit", appauthor=False) / "targets"
    project = Path.cwd() / "targets"
    own = (("project", project), ("user", user))
    return (*own, ("packaged", packaged)) if project != packaged else (("user", user), ("packaged", packaged))


def list_devices() -> tuple[DeviceListing, ...]:
    """Return every device file, by name. A broken one is listed with its problem, and hides no other."""
    found: dict[str, DeviceListing] = {}
    for origin, path in _device_files():
        if path.stem not in found:
            found[path.stem] = _listing(origin, path)
    return tuple(found[name] for name in sorted(found))


def find_device(name: str) -> Device:
    """Load the device of this name, or make the one of an address (``ssh:user@host``).

    Raises:
        TargetError: No such device (the message names the nearest), or its file is wrong (the message names the key).
    """
    kind, separator, address = name.partition(":")
    if separator:
        return _device_at(kind, address)
    for _, path in _device_files():
        if path.stem == name:
            return load_device(path)
    names = {path.stem for _, path in _device_files()}
    folders = ", ".join(str(folder) for _, folder in device_folders())
    raise TargetError(f"unknown target {name!r}. {nearest(name, names)} Device files are read from {folders}.")


def _device_at(kind: str, address: str) -> Device:
    spec = target_specs().get(kind)
    if spec is None or spec.address is None:
        forms = [f"{name}:ADDRESS" for name, spec in target_specs().items() if spec.address is not None]
        raise TargetError(f"unknown target {f'{kind}:{address}'!r}: expected a device's name, or {', '.join(forms)}.")
    device: Device = load_entry(spec.address)(address)
    return device


def load_device(path: Path) -> Device:
    """Read one device file with the model of its kind.

    Raises:
        TargetError: Not readable, not YAML, of a newer schema, of an unknown kind, or with wrong values; the message
            names the file and the keys.
    """
    content = _read(path)
    version = content.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise TargetError(
            f"{path}: schema_version {version} is newer than this edgekit reads (up to {SCHEMA_VERSION}). "
            "Update edgekit."
        )
    kind = content.get("kind")
    if not isinstance(kind, str):
        raise TargetError(f"{path}: expected a key 'kind' with the kind of the target; received {kind!r}")
    model: type[Device] = load_entry(target_spec(kind, place=str(path)).device)  # type: ignore[assignment]
    try:
        device = model.model_validate(content)
    except ValidationError as error:
        raise TargetError(f"{path}: {_describe(error, model)}") from error
    if device.name != path.stem:
        raise TargetError(f"{path}: expected the name {path.stem!r}, as the file is called; received {device.name!r}")
    return device


def diagnose(device: Device) -> Diagnosis:
    """Ask a device's kind whether it can be used from this machine."""
    diagnosis: Diagnosis = load_entry(target_spec(device.kind, place=device.name).diagnose)(device)
    return diagnosis


def _device_files() -> Iterator[tuple[str, Path]]:
    for origin, folder in device_folders():
        if folder.is_dir():
            yield from ((origin, path) for path in sorted(folder.glob("*.yaml")))


def _listing(origin: str, path: Path) -> DeviceListing:
    try:
        return DeviceListing(name=path.stem, path=path, origin=origin, device=load_device(path))
    except TargetError as error:
        return DeviceListing(name=path.stem, path=path, origin=origin, device=None, problem=str(error))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise TargetError(f"{path}: expected YAML: {error}") from error
    if not isinstance(content, dict):
        raise TargetError(f"{path}: expected keys and values; received {type(content).__name__}")
    return content


def _describe(error: ValidationError, model: type[Device]) -> str:
    """One line for each wrong key: where, what is expected, what was received."""
    lines = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key {place!r}. {nearest(place, model.model_fields)}")
        elif problem["type"] == "missing":
            lines.append(f"missing key {place!r}")
        elif problem["type"] == "value_error":  # our own words, which say what was received
            lines.append(f"{place}: {problem['ctx']['error']}" if place else str(problem["ctx"]["error"]))
        else:
            lines.append(f"{place}: {problem['msg']}; received {problem['input']!r}")
    return "; ".join(lines)
