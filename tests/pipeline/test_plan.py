"""What is refused before any work."""

import pytest
import yaml

from edgekit.errors import EdgekitError, MissingToolError, ModelError, RecipeError, TargetError, UnsupportedError
from edgekit.pipeline.plan import find_framework, make_plan
from edgekit.recipe import parse_recipe

BASE = """
schema_version: 1
name: plan
model: tiny_model:build
data: {module: tiny_data:load}
train: {epochs: 1}
export: [{format: tflite, precision: [fp32, int8]}]
"""


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch, request):
    monkeypatch.chdir(request.path.parent / "project")


def _plan(**changes):
    return make_plan(parse_recipe({**yaml.safe_load(BASE), **changes}, "test"))


def test_plan_names_artifacts_and_the_programs_they_come_from():
    plan = _plan(export=[{"format": "tflite", "precision": ["fp32", "fp16", "int8"]}, {"format": "onnx"}])
    assert [artifact.id for artifact in plan.artifacts] == ["tflite/fp32", "tflite/fp16", "tflite/int8", "onnx/fp32"]
    assert plan.programs == (("fp32", False), ("int8", False))
    assert plan.framework == "pytorch"


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"export": [{"format": "coreml", "precision": "int8-dynamic"}]}, UnsupportedError, "Instead:"),
        ({"export": [{"format": "executorch", "precision": "int16x8"}]}, UnsupportedError, "Instead:"),
        ({"export": [{"format": "executorch", "backend": "vulcan"}]}, RecipeError, "no backend 'vulcan'"),
        ({"export": [{"format": "tflite", "compression": "palette"}]}, RecipeError, "'compression' means nothing"),
        ({"export": [{"format": "tflite"}, {"format": "tflite"}]}, RecipeError, "received twice: tflite/fp32"),
        ({"compress": [{"quantize": {"precision": "w4"}}]}, RecipeError, "no artifact is exported at w4"),
        ({"compress": [{"prune": {"sparsity": 0.5, "granularity": "channel"}}]}, UnsupportedError, "channel"),
        ({"train": None, "compress": [{"quantize": {"mode": "qat"}}]}, RecipeError, "has no `train:`"),
        ({"data": None}, RecipeError, "training needs `data:`"),
        ({"data": None, "train": None}, RecipeError, "activation scales come from real samples"),
        ({"budgets": [{"artifact": "onnx/*", "size": "1 MiB"}]}, RecipeError, "matches no artifact"),
        ({"budgets": [{"artifact": "tflite/*", "latency_p50": {"host": "1 ms"}}]}, RecipeError, "nothing is profiled"),
        ({"profile": {"targets": ["hosst"]}}, TargetError, "host"),
        ({"model": "no_such_module:build"}, ModelError, "there is no module 'no_such_module'"),
        ({"model": "model.xyz"}, ModelError, r"\.pt2"),
    ],
)  # fmt: skip
def test_impossible_recipe_is_refused(changes, kind, message):
    with pytest.raises(kind, match=message):
        _plan(**changes)


def test_budget_on_a_figure_that_nobody_measures_is_refused():
    export = [{"format": "coreml", "precision": "fp16"}]
    budgets = [{"artifact": "coreml/fp16", "accuracy": 0.9}]
    if _plan(export=export).artifacts[0].not_here is None:
        pytest.skip("Core ML runs on this machine")
    with pytest.raises(RecipeError, match="nobody measures accuracy of coreml/fp16"):
        _plan(export=export, budgets=budgets)
    assert _plan(export=export, budgets=[{"artifact": "coreml/fp16", "size": "1 MiB"}])


def test_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("edgekit.pipeline.plan._installed", lambda name: name != "onnxruntime")
    with pytest.raises(
        MissingToolError, match=r"onnxruntime, which is not installed; run: pip install 'edgekit\[onnx\]'"
    ):
        _plan(export=[{"format": "onnx"}])


def test_framework_is_found_by_what_the_module_imports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "neither.py").write_text("import math\n")
    with pytest.raises(ModelError, match="imports neither torch nor keras"):
        find_framework("neither:build")
    (tmp_path / "either.py").write_text("def build():\n    from torch import nn\n    return nn.Identity()\n")
    assert find_framework("either:build") == "pytorch"


def test_every_cell_is_held_or_refused_with_a_way_out():
    from edgekit.formats import format_specs
    from edgekit.records import PRECISIONS

    for spec in format_specs().values():
        for backend in spec.backends:
            assert set(backend.programs) | set(backend.refusals) == set(PRECISIONS), (spec.name, backend.name)
            assert not set(backend.programs) & set(backend.refusals)
            for refusal in backend.refusals.values():
                assert len(refusal.reason) > 10
                assert len(refusal.instead) > 3
    assert issubclass(UnsupportedError, EdgekitError)
