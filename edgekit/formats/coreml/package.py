"""A ``.mlpackage`` folder: written with the same bytes for the same model, and checked when read.

Layout: ``Manifest.json`` names the items; ``Data/com.apple.CoreML/model.mlmodel`` is the specification (protobuf), and
``Data/com.apple.CoreML/weights/weight.bin`` holds the constants.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.errors import ArtifactError
from edgekit.formats.coreml.neural_network import read_neural_network, refuse
from edgekit.formats.light_imports import import_coremltools

MODEL = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")
_DATE = "com.github.apple.coremltools.conversion_date"
_NOT_OF_THE_FORMAT = "executorch_debug_handle_mapping.json"
"""coremltools puts it beside the manifest, which does not name it; it can be larger than the weights."""
_READABLE = 0o644
_BLOB_ENTRY_BYTES = 64
"""A weight's entry starts with a block of metadata, ``MIL::Blob::StorageFormat::blob_metadata``."""
_BLOB_SENTINEL = 0xDEADBEEF
_MLPROGRAM_SPECIFICATION = 6
"""Specification versions from here on hold ML programs (iOS 15)."""
NEWEST_SPECIFICATION = 10
"""Of iOS 26; fields of a newer one would be passed over unseen."""


def save_package(model: Any, path: Path, work_dir: Path) -> None:
    """Write a converted model, whole or not at all, the same bytes whenever and wherever it is written.

    coremltools writes random identifiers into the manifest and the day into the specification, does not fix the order
    of map entries, leaves a debugging file behind, and lets nobody but the owner read the specification.

    Args:
        model: ``coremltools.models.MLModel``.
        path: The ``.mlpackage`` folder; an older one is replaced.
        work_dir: Scratch.
    """
    proto = _protobuf()
    raw = work_dir / "raw.mlpackage"
    shutil.rmtree(raw, ignore_errors=True)
    model.save(str(raw))
    specification = proto.Model()
    specification.ParseFromString((raw / MODEL).read_bytes())
    specification.description.metadata.userDefined.pop(_DATE, None)
    (raw / MODEL).write_bytes(specification.SerializeToString(deterministic=True))
    (raw / MODEL).chmod(_READABLE)
    (raw / _NOT_OF_THE_FORMAT).unlink(missing_ok=True)
    _name_items_by_content(raw)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.move(raw, partial)
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)


def _name_items_by_content(package: Path) -> None:
    manifest = json.loads((package / "Manifest.json").read_text(encoding="utf-8"))
    renamed = {}
    for name, item in manifest["itemInfoEntries"].items():
        digest = hashlib.sha256(item["path"].encode())
        root = package / "Data" / item["path"]
        for file in [root] if root.is_file() else sorted(file for file in root.rglob("*") if file.is_file()):
            digest.update(file.read_bytes())
        renamed[name] = str(uuid.UUID(bytes=digest.digest()[:16], version=4))
    manifest["itemInfoEntries"] = {renamed[name]: item for name, item in manifest["itemInfoEntries"].items()}
    manifest["rootModelIdentifier"] = renamed[manifest["rootModelIdentifier"]]
    text = json.dumps(manifest, indent=4, sort_keys=True) + "\n"
    (package / "Manifest.json").write_text(text, encoding="utf-8")


def read_package(path: Path) -> Any:
    """Read the specification of a package, checked.

    Returns:
        ``coremltools.proto.Model_pb2.Model`` with an ML program.

    Raises:
        ArtifactError: The folder or one of its files is missing, damaged, truncated or not an ML program.
        UnsupportedError: It is a ``neuralnetwork``; the message reports it.
    """
    again = "Export or copy it again"
    if not path.is_dir():
        raise ArtifactError(f"expected a Core ML package (.mlpackage, a folder); there is no folder {str(path)!r}")
    try:
        manifest = json.loads(_inside(path, "Manifest.json").read_text(encoding="utf-8"))
        root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        data = _inside(path, Path("Data") / root).read_bytes()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(
            f"expected a manifest that names the model in {str(path)!r}; {type(error).__name__}: {error}. {again}"
        ) from error
    specification = _protobuf().Model()
    from google.protobuf.message import DecodeError

    try:
        specification.ParseFromString(data)
    except DecodeError as error:
        raise ArtifactError(f"the model of {str(path)!r} is truncated or damaged: {error}. {again}") from error
    network = read_neural_network(specification)
    if network is not None:
        raise refuse(network, path.name)
    if specification.specificationVersion < _MLPROGRAM_SPECIFICATION or not specification.HasField("mlProgram"):
        raise ArtifactError(
            f"expected an ML program (specification {_MLPROGRAM_SPECIFICATION} or newer) in {str(path)!r}; received "
            f"specification {specification.specificationVersion}, {specification.WhichOneof('Type') or 'empty'}"
        )
    _check_program(specification, path, again)
    _check_weights(path, specification, again)
    return specification


def _inside(package: Path, name: str | Path) -> Path:
    """Return a file of a package: one that lies in it, links followed, and is a file.

    Raises:
        ArtifactError: It lies elsewhere (``..``, an absolute path, a link), is a pipe or a device, or is missing.
    """
    file = (package / name).resolve()
    if not file.is_relative_to(package.resolve()):
        raise ArtifactError(f"expected a file inside the package {str(package)!r}; received {str(name)!r}, outside it.")
    if not file.is_file():
        raise ArtifactError(
            f"expected a file {str(name)!r} in the package {str(package)!r}; there is none. Copy it again."
        )
    return file


def _check_program(specification: Any, path: Path, again: str) -> None:
    """Check what every reader of a program relies on: its main function, and constants that are whole."""
    functions = specification.mlProgram.functions
    main = specification.description.defaultFunctionName or "main"
    if main not in functions:
        raise ArtifactError(f"expected a function {main!r} in {str(path)!r}; received {sorted(functions)}. {again}")
    for operation in _operations(specification):
        needed = 1 if operation.type == "const" or operation.type.startswith("constexpr_") else 0
        if len(operation.outputs) < needed or (operation.type == "const" and len(operation.outputs) > 1):
            raise ArtifactError(
                f"expected a result of each constant in {str(path)!r}; one ({operation.type}) has "
                f"{len(operation.outputs)}. {again}"
            )


def _check_weights(path: Path, specification: Any, again: str) -> None:
    """Follow every reference into the weight file: the entry must start and end inside it."""
    references = sorted({value.blobFileValue.offset for value in _values(specification) if _is_blob(value)})
    if not references:
        return
    file = path / WEIGHTS
    if not file.exists():
        raise ArtifactError(f"expected the constants of the model in {str(file)!r}; there is no such file. {again}")
    blob = _inside(path, WEIGHTS).read_bytes()
    for offset in references:
        entry = blob[offset : offset + _BLOB_ENTRY_BYTES]
        size, start = (int.from_bytes(entry[at : at + 8], "little") for at in (8, 16))
        if len(entry) < _BLOB_ENTRY_BYTES or int.from_bytes(entry[:4], "little") != _BLOB_SENTINEL:
            raise ArtifactError(f"{str(file)!r} has no constant at byte {offset} ({len(blob)} bytes). {again}")
        if start + size > len(blob):
            raise ArtifactError(
                f"expected {start + size} bytes in {str(file)!r}; received {len(blob)}: it is truncated. {again}"
            )


def _is_blob(value: Any) -> bool:
    return bool(value.WhichOneof("value") == "blobFileValue")


def _values(specification: Any) -> list[Any]:
    found: list[Any] = []
    for operation in _operations(specification):
        found += operation.attributes.values()
        for argument in operation.inputs.values():
            found += [binding.value for binding in argument.arguments if binding.HasField("value")]
    return found


def _operations(specification: Any) -> Iterator[Any]:
    """Yield every operation of every function, those in blocks too."""
    for function in specification.mlProgram.functions.values():
        pending = list(function.block_specializations.values())
        while pending:
            for operation in pending.pop().operations:
                yield operation
                pending += operation.blocks


def _protobuf() -> Any:
    import_coremltools()
    from coremltools.proto import Model_pb2

    return Model_pb2
