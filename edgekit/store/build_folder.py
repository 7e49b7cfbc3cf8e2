"""A build folder: who may write it, and where things lie in it.

::

    manifest.json   the build, whole; written last
    report.html     the same for people
    recipe.yaml     the recipe as resolved
    artifacts/      <format>/<name>-<precision>.<suffix>
    reference/      <program>.npz: the verification samples and what the models said of them; .json: the program's
                    record; .pt2: the program
    logs/           one a stage: what the libraries printed
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import OutputError
from edgekit.store.atomic import output_errors

LOCK = ".edgekit.lock"


@dataclass(frozen=True, slots=True)
class BuildFolder:
    """Paths inside a build folder."""

    root: Path

    @property
    def manifest(self) -> Path:
        """The build's document."""
        return self.root / "manifest.json"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.root / "report.html"

    @property
    def recipe(self) -> Path:
        """The recipe as resolved."""
        return self.root / "recipe.yaml"

    def log(self, stage: str) -> Path:
        """Return the log of a stage such as ``export:tflite/int8``."""
        return self.root / "logs" / (stage.replace(":", "-").replace("/", "-").replace("@", "-") + ".log")

    def reference(self, precision: str, dynamic_batch: bool, suffix: str) -> Path:
        """Return the place of a program (``.pt2``), of its reference (``.npz``) or of its record (``.json``)."""
        return self.root / "reference" / f"{precision}{'-dynamic-batch' if dynamic_batch else ''}{suffix}"

    def artifact(
        self, format_name: str, name: str, precision: str, backend: str | None, suffix: str, variant: str = ""
    ) -> Path:
        """Return the place of an artifact."""
        named = f"+{variant}" if variant else ""
        tail = f"-{backend}" if backend not in (None, "xnnpack") else ""
        return self.root / "artifacts" / format_name / f"{name}-{precision}{named}{tail}{suffix}"


@contextmanager
def locked(root: Path) -> Iterator[BuildFolder]:
    """Make a build folder and hold it.

    Raises:
        OutputError: It cannot be written, or another build holds it.
    """
    with output_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        handle = (root / LOCK).open("w")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"another build is writing {root}; wait for it to end, or choose another folder with -o."
            ) from error
        yield BuildFolder(root)
