"""The README says what the code and the stored results say."""

import re
from pathlib import Path

from benchmarks.readme import render
from edgekit.cli.main import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_generated_sections_are_up_to_date():
    assert render(README) == README, "run: python -m benchmarks.readme"


def test_every_command_is_documented():
    names = [command.name for command in app.registered_commands] + [group.name for group in app.registered_groups]
    missing = [name for name in names if f"edgekit {name}" not in README]
    assert missing == []


def test_every_package_is_on_the_map():
    packages = [path.name for path in (ROOT / "edgekit").iterdir() if (path / "__init__.py").is_file()]
    missing = [name for name in packages if f"edgekit/{name}" not in README]
    assert missing == []


def test_files_that_the_readme_names_exist():
    named = re.findall(r"`((?:tests|edgekit|benchmarks)/[\w/]+(?:\.\w+)?)`", README)
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []
