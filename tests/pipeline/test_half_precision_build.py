"""Float16 that breaks a model in the middle, as a user meets it: built, repaired, verified, asked about."""

from __future__ import annotations

import json

import pytest

MODEL = """
import torch
from torch import nn


class Squared(nn.Module):
    def forward(self, x):
        scores = x @ x.transpose(1, 2)
        weights = scores * scores
        return (weights / weights.sum(-1, keepdim=True)) @ x


class Overflowing(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 8)
        self.attention = Squared()
        self.head = nn.Linear(8, 3)

    def forward(self, image):
        return self.head(self.attention(self.embed(image.squeeze(1) * 100)).mean(1) / 100)


def build():
    torch.manual_seed(0)
    return Overflowing()
"""
SETTINGS = {
    "model": "overflowing:build",
    "train": None,
    "compress": [],
    "verify": {"samples": 16},
    "profile": {"targets": []},
    "budgets": [],
}


def _build(project, folder, **export):
    (project.root / "overflowing.py").write_text(MODEL)
    settings = {**SETTINGS, "export": [{"format": "coreml", **export}]}
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    return project.run("build", "recipe.yaml", "-o", folder, *changes)


def test_overflow_is_named_or_repaired_and_comes_back_when_everything_is_rounded(project):
    broken = _build(project, "builds/broken", precision="fp16", keep_float32=[])
    assert broken.returncode == 1, broken.stderr
    parity = project.artifact("coreml/fp16", "builds/broken")["parity"]
    assert parity["status"] == "fail"
    assert "float16 overflows first in 'mul_1' (mul, in layer attention)" in parity["reason"]
    assert "keep_float32: [mul_1, sum_1, div]" in parity["reason"]

    repaired = _build(project, "builds/repaired", precision="fp16")
    assert repaired.returncode == 0, repaired.stderr
    report = project.artifact("coreml/fp16", "builds/repaired")
    half = report["artifact"]["half_precision"]
    assert half["kept_in_float32"] == ["mul_1", "sum_1", "div"]
    assert half["first_overflow"] is None
    assert report["parity"]["status"] == "pass"
    assert report["parity"]["versus_source"][0]["sqnr_db"] > 50
    page = (project.root / "builds/repaired/report.html").read_text()
    assert "never on the Neural Engine: mul_1, sum_1, div" in page

    rounded = project.run("verify", "builds/repaired", "--compute", "fp16", "--json")
    assert rounded.returncode == 1, rounded.stderr
    document = json.loads(rounded.stdout)
    assert document["compute"] == "fp16"
    assert "overflows first in 'mul_1'" in document["parities"][0]["parity"]["reason"]


def test_compute_is_refused_when_no_artifact_is_evaluated_here(built):
    project, _ = built
    result = project.run("verify", "builds/tiny", "--compute", "fp16")
    assert result.returncode == 2
    assert "holds no artifact of Core ML" in result.stderr
    assert "Instead: no --compute" in result.stderr


@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_half_precision_of_other_formats_is_refused(built, name):
    project, _ = built
    path = project.artifact(f"{name}/fp32")["artifact"]["path"]
    result = project.run("inspect", f"builds/tiny/{path}", "--compute", "fp16")
    assert result.returncode == 2
    assert "its own runtime decides what it computes in" in result.stderr
