"""A tiny project, built through the command line as a user would."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

EDGEKIT = str(Path(sys.executable).parent / "edgekit")


@dataclass(frozen=True)
class Project:
    """A copy of the tiny project with a cache of its own."""

    root: Path

    def command(self, *arguments: str) -> list[str]:
        return [EDGEKIT, *arguments]

    def environment(self, **variables: str) -> dict[str, str]:
        return {**os.environ, "EDGEKIT_CACHE_DIR": str(self.root / "cache"), **variables}

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )

    def manifest(self, folder: str = "builds/tiny") -> dict[str, Any]:
        return json.loads((self.root / folder / "manifest.json").read_text())

    def artifact(self, name: str, folder: str = "builds/tiny") -> dict[str, Any]:
        return next(item for item in self.manifest(folder)["artifacts"] if item["id"] == name)


def _copy(folder: Path) -> Project:
    shutil.copytree(Path(__file__).parent / "project", folder, ignore=shutil.ignore_patterns("__pycache__"))
    return Project(folder)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project on which nothing has run."""
    return _copy(tmp_path / "project")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, subprocess.CompletedProcess[str]]:
    """A project that was built once; tests only read it, or build it again."""
    project = _copy(tmp_path_factory.mktemp("built") / "project")
    return project, project.run("build", "recipe.yaml", "--json")
