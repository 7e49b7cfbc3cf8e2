"""What is refused before any work."""

import pytest
import yaml

from edgekit.errors import EdgekitError, MissingToolError, ModelError, RecipeError, TargetError, UnsupportedError
from edgekit.frameworks.requests import TrainResult
from edgekit.pipeline.calls import Calls
from edgekit.pipeline.plan import make_plan
from edgekit.pipeline.sources import find_framework
from edgekit.recipe import parse_recipe
from edgekit.store.cache import Workspace

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
        ({"export": [{"format": "tflite", "keep_float32": ["head"]}]}, RecipeError, "'keep_float32' means nothing"),
        ({"export": [{"format": "coreml", "keep_float32": "auto"}]}, RecipeError, "keep_float32: says what stays"),
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
    export = [{"format": "executorch", "precision": "fp16", "backend": "coreml"}]
    budgets = [{"artifact": "executorch/fp16@coreml", "accuracy": 0.9}]
    if _plan(export=export).artifacts[0].not_here is None:
        pytest.skip("the Core ML delegate runs on this machine")
    with pytest.raises(RecipeError, match="nobody measures accuracy of executorch/fp16@coreml"):
        _plan(export=export, budgets=budgets)
    assert _plan(export=export, budgets=[{"artifact": "executorch/fp16@coreml", "size": "1 MiB"}])


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


def test_framework_is_asked_for_when_a_module_imports_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "both.py").write_text("import torch\nfrom keras import layers\n")
    statement = r"imports both keras and torch.*state `framework: keras` or `framework: pytorch`.*--set framework="
    with pytest.raises(ModelError, match=statement):
        find_framework("both:build")


@pytest.mark.parametrize("name", ["net.keras", "net.h5", "net.tflite", "saved", "saved/"])
def test_keras_sources_are_found_by_what_they_are(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/saved_model.pb").touch()
    assert find_framework(name) == "keras"


def test_source_that_nobody_reads_is_refused_with_every_kind_that_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for source in ("model.xyz", "folder"):
        with pytest.raises(ModelError, match=r"\.keras, .*\.tflite.*\.pt2.*, or a folder that holds saved_model\.pb;"):
            find_framework(source)


KERAS = {"framework": "keras", "model": "tiny_model:build"}


@pytest.fixture
def keras_is_installed(monkeypatch):
    monkeypatch.setattr("edgekit.pipeline.plan._installed", lambda _name: True)


@pytest.mark.usefixtures("keras_is_installed")
def test_artifacts_that_a_framework_writes_itself_come_from_programs_of_their_own():
    export = [{"format": "tflite", "precision": ["fp32", "fp16", "int16x8"]}, {"format": "coreml", "precision": "fp16"}]
    assert [artifact.program for artifact in _plan(export=export).artifacts] == ["fp32", "fp32", "fp32", "fp32"]
    plan = _plan(**KERAS, export=export)
    assert [artifact.program for artifact in plan.artifacts] == ["fp32", "fp16", "int16x8", "fp32"]
    assert plan.programs == (("fp32", False), ("fp16", False), ("int16x8", False))


@pytest.mark.usefixtures("keras_is_installed")
def test_samples_are_asked_for_unless_the_file_may_hold_scales_of_its_own():
    changes = {"data": None, "train": None}
    assert _plan(**changes, model="quantized.tflite").programs == (("fp32", False), ("int8", False))
    with pytest.raises(RecipeError, match="activation scales come from real samples"):
        _plan(**changes, model="float.keras")


CLUSTER = [{"cluster": {"clusters": 16}}]
REFUSE = [{"quantize": {"mode": "qat", "unsupported": "refuse"}}]


@pytest.mark.parametrize(
    ("compress", "message"),
    [
        (REFUSE, r"compress\.0\.quantize\.unsupported: refuse of a PyTorch model.*Instead: skip"),
    ],
)
@pytest.mark.usefixtures("keras_is_installed")
def test_step_that_pytorch_lacks_is_refused_with_the_way_out_and_planned_for_keras(compress, message):
    with pytest.raises(UnsupportedError, match=message):
        _plan(compress=compress)
    assert _plan(**KERAS, compress=compress).framework == "keras"


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"train": None, "compress": CLUSTER}, RecipeError, r"compress\.0\.cluster: .*has no `train:`"),
        ({"compress": [{"quantize": {"unsupported": "refuse"}}]}, RecipeError, "this step is post-training"),
        (
            {"compress": [{"quantize": {"calibration": "histogram"}}]},
            UnsupportedError,
            r"calibration: histogram of a Keras model.*Instead: calibration: minmax",
        ),
        ({"compress": [{"prune": {"sparsity": 0.6, "granularity": "2:4"}}]}, RecipeError, "expected 0.5"),
        ({"compress": [{"prune": {"sparsity": 0.5, "granularity": "channel"}}]}, UnsupportedError, "channel"),
    ],
)
@pytest.mark.usefixtures("keras_is_installed")
def test_impossible_compression_is_refused_for_keras_too(changes, kind, message):
    with pytest.raises(kind, match=message):
        _plan(**KERAS, **changes)


@pytest.mark.usefixtures("keras_is_installed")
def test_several_devices_are_launched_as_the_framework_wants(monkeypatch):
    monkeypatch.setattr("edgekit.pipeline.calls.data_digest", lambda _section: "")
    train = {"epochs": 1, "devices": 3}
    launcher = Calls(_plan(train=train), jobs=1).train().launcher
    assert list(launcher) == ["torch.distributed.run", "--standalone", "--nproc_per_node=3"]
    assert not Calls(_plan(), jobs=1).train().launcher
    assert not Calls(_plan(**KERAS, train=train), jobs=1).train().launcher


@pytest.mark.usefixtures("keras_is_installed")
def test_clustering_reaches_training_and_programs_and_their_keys(tmp_path):
    rule = {"clusters": 8, "skip": ["head"]}
    plain, clustered = (Calls(_plan(**KERAS, compress=steps), jobs=1) for steps in ([], [{"cluster": rule}]))
    trained = TrainResult(weights=tmp_path, source=None, report=None, source_accuracy=None)
    place = Workspace(tmp_path, tmp_path)
    for before, after in (
        (plain.train(), clustered.train()),
        (plain.program("fp32", False, trained), clustered.program("fp32", False, trained)),
    ):
        assert before.key != after.key
        assert before.request(place).cluster is None
        assert after.request(place).cluster.clusters == 8
    assert clustered.describe().request(place).rules == {"compress.0.cluster.skip": ("head",)}


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
