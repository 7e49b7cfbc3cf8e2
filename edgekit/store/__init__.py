"""The stage cache and build folders."""

from __future__ import annotations

from edgekit.store.atomic import digest_path, publish, size_bytes, write_text
from edgekit.store.build_folder import BuildFolder, locked
from edgekit.store.cache import StageCache, Workspace, cache_root, stage_key

__all__ = [
    "BuildFolder",
    "StageCache",
    "Workspace",
    "cache_root",
    "digest_path",
    "locked",
    "publish",
    "size_bytes",
    "stage_key",
    "write_text",
]
