"""Drop a file from the page cache, so that the next load reads it as after a restart of the device."""

from __future__ import annotations

import os
from pathlib import Path


def drop_from_page_cache(path: Path) -> bool:
    """Ask the kernel to forget the cached pages of a file, or of every file of a folder.

    Pages that any process has mapped stay; the advice is not an order (posix_fadvise(2)).

    Returns:
        Whether the system can take such advice.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    files = sorted(entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else [path]
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # dirty pages cannot be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return True
