"""``manifest.json``: written whole or not at all, and read with errors that say what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgekit.errors import ArtifactError
from edgekit.records import SCHEMA_VERSION, Manifest, dumps, from_json
from edgekit.store.atomic import write_text

MANIFEST_NAME = "manifest.json"


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a build.

    Args:
        path: A build folder, or a manifest file under any name (a baseline kept aside).

    Raises:
        ArtifactError: There is no manifest, it is truncated or not one, or a newer edgekit wrote it.
    """
    file = path / MANIFEST_NAME if path.is_dir() else path
    document = _read_document(file, path)
    version = document.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ArtifactError(
            f"{file}: schema_version {version} is newer than this edgekit understands ({SCHEMA_VERSION}). "
            "Upgrade edgekit, or build again with this one."
        )
    if version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{file}: expected schema_version {SCHEMA_VERSION}, received {version!r}. "
            "This is not a manifest that edgekit wrote; name a build folder or its manifest.json."
        )
    try:
        return from_json(Manifest, document)
    except ArtifactError as error:
        raise ArtifactError(f"{file}: {error}") from error


def _read_document(file: Path, asked_for: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactError(
            f"expected a build folder holding {MANIFEST_NAME}, or a manifest file; there is none at {asked_for}. "
            "`edgekit build RECIPE` makes one."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{file} cannot be read as text: {error}") from error
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ArtifactError(
            f"{file} is not whole JSON (line {error.lineno}: {error.msg}); it was cut off or edited. "
            "Run the build again; what is cached is not done twice."
        ) from error
    except _NotANumberError as error:
        raise ArtifactError(f"{file}: expected finite numbers, received {error}; edgekit never writes that.") from error
    if not isinstance(document, dict):
        raise ArtifactError(f"{file}: expected a JSON object at the top, received {type(document).__name__}.")
    return document


class _NotANumberError(ValueError):
    """``NaN`` and ``Infinity`` are no JSON, though Python's reader takes them."""


def _refuse_constant(name: str) -> None:
    raise _NotANumberError(name)


def write_manifest(manifest: Manifest, folder: Path) -> Path:
    """Write ``manifest.json`` into a build folder: under its final name it is always whole, even after a power cut.

    Returns:
        The path of the file.

    Raises:
        OutputError: The folder cannot be written.
    """
    final = folder / MANIFEST_NAME
    write_text(final, dumps(manifest))
    return final
