"""Wrong input, end to end: one clear message, exit 2, and the earlier build in the folder untouched."""

import json
import shutil
import subprocess

import pytest

from edgekit.store import digest_path

EARLIER = "builds/earlier"
SMALL = (
    "--set", "export=[{format: onnx, precision: [fp32]}]", "--set", "compress=[]", "--set", "budgets=[]",
    "--set", "profile.targets=[]", "-o", EARLIER,
)  # fmt: skip

BAD_MODULE = """
import torch
from torch import nn
from tiny_data import load as _load
from edgekit.data import ArraySplit, Dataset

class Undecided(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 3)
    def forward(self, x):
        x = x.flatten(1)
        return self.head(x) if x.mean() > 0 else -self.head(x)

def undecided():
    return Undecided()

def nothing():
    return None

def stumbles():
    raise KeyError("the user's own")

def holes():
    data = _load()
    data.train.inputs[0][5, 0, 1, 1] = float("nan")
    return data
"""


@pytest.fixture(scope="module")
def earlier(built, tmp_path_factory):
    """A project with an earlier build in the folder that every bad build aims at, and that build's digest."""
    project = type(built[0])(tmp_path_factory.mktemp("bad") / "project with späces")
    shutil.copytree(built[0].root, project.root)
    (project.root / "bad_module.py").write_text(BAD_MODULE)
    shutil.copytree(project.root / "builds/tiny", project.root / EARLIER, dirs_exist_ok=True)
    shutil.rmtree(project.root / EARLIER / "logs")
    (project.root / EARLIER / ".edgekit.lock").write_text("")
    return project, digest_path(project.root / EARLIER)


def _digest(project):
    copy = project.root / "without logs"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(project.root / EARLIER, copy, ignore=shutil.ignore_patterns("logs"))
    return digest_path(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model=bad_module:nothing"], "expected bad_module:nothing to return a torch.nn.Module"),
        (["model=bad_module:stumbles"], '(`raise KeyError("the user\'s own")`) raised KeyError'),
        (["model=bad_module:undecided"], "its control flow depends on the data (at bad_module.py:13"),
        (["model=bad_module:undecided", "train=null"], "its control flow depends on the data (at bad_module.py:13"),
        (["data.module=bad_module:holes"], "received nan at sample 5, position (0, 1, 1)"),
        (
            ["compress=[{quantize: {skip: [hed]}}]", "export=[{format: onnx, precision: int8}]"],
            "the rule 'hed' matches no layer. Did you mean 'head'?",
        ),
    ],
)
def test_bad_input_is_exit_2_before_any_training_and_the_earlier_build_stays(earlier, changes, message):
    project, digest = earlier
    settings = [part for change in changes for part in ("--set", change)]
    result = project.run("build", "recipe.yaml", "--json", *SMALL, *settings)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.stderr
    assert message in json.loads(result.stdout)["error"]["message"]
    assert "…  train" not in result.stderr or "train=null" in changes
    assert _digest(project) == digest


def _tmpfs(folder, size):
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False)
    if made.returncode:
        pytest.skip("a small disk can be mounted by root only")


def test_full_disk_is_exit_2_and_names_the_folder(built, tmp_path):
    disk = tmp_path / "disk"
    _tmpfs(disk, "64k")
    try:
        result = built[0].run("build", "recipe.yaml", "-o", str(disk / "out"))
        assert result.returncode == 2, result.stderr
        assert f"the disk that holds {disk / 'out'}" in result.stderr
        assert "is full; free some space" in result.stderr
        assert not (disk / "out/manifest.json").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_file_in_the_way_of_the_output_or_the_cache_is_exit_2_with_the_way_out(built, tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = built[0].run("build", "recipe.yaml", "-o", str(tmp_path / "file"))
    assert (result.returncode, "choose another folder" in result.stderr) == (2, True)
    result = built[0].run("build", "recipe.yaml", "-o", "builds/x", EDGEKIT_CACHE_DIR=str(tmp_path / "file"))
    assert (result.returncode, "name another cache folder in EDGEKIT_CACHE_DIR" in result.stderr) == (2, True)
