"""What a recipe names and is not there: refused before a build folder is touched."""

import pytest
import yaml

from edgekit.errors import DataError, ModelError, RecipeError
from edgekit.pipeline.calls import model_digest
from edgekit.pipeline.convert import conversion_recipe
from edgekit.pipeline.inputs import check_inputs
from edgekit.pipeline.sources import find_framework
from edgekit.recipe import parse_recipe
from edgekit.recipe.schema import ModelSection

BASE = """
schema_version: 1
name: inputs
model: tiny_model:build
data: {module: tiny_data:load}
train: {epochs: 1}
export: [{format: onnx}]
"""


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch, request):
    monkeypatch.chdir(request.path.parent / "project")


def _check(**changes):
    check_inputs(parse_recipe({**yaml.safe_load(BASE), **changes}, "test"))


def test_inputs_that_are_there_pass():
    _check()


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"model": "net.pt2"}, ModelError, r"model\.source: .*there is no file 'net\.pt2' in /"),
        ({"model": "net.onnx"}, ModelError, r"there is no file 'net\.onnx'"),
        ({"model": "no_module:build"}, ModelError, r"model\.source: there is no module 'no_module'.*working folder"),
        ({"model": {"source": "tiny_model:build", "weights": "w.pth"}}, ModelError, r"model\.weights: .*'w\.pth'"),
        ({"model": {"source": "w.pth", "builder": "tiny:build"}}, ModelError, r"model\.source: .*'w\.pth'"),
        ({"data": {"module": "tiny_dta:load"}}, RecipeError, r"data\.module: there is no module 'tiny_dta'"),
        ({"data": {"module": "tiny_data"}}, RecipeError, r"data\.module: expected 'package\.module:callable'"),
        ({"data": {"npz": "d.npz"}}, DataError, r"data\.npz: expected a file at 'd\.npz'; there is none in /"),
        ({"data": {"images": "tiny_data.py"}}, DataError, r"data\.images: .*it is no folder"),
        ({"train": {"loss": "losses:f"}}, RecipeError, r"train\.loss: there is no module 'losses'"),
        ({"compress": [{"distil": {"teacher": "t.pt2"}}]}, ModelError, r"compress\.distil\.teacher\.source: "),
    ],
)
def test_missing_input_is_refused_with_its_place(changes, kind, message):
    with pytest.raises(kind, match=message):
        _check(**changes)


def test_folder_is_a_model_when_it_is_a_saved_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net").mkdir()
    recipe = conversion_recipe("net", formats=["tflite"], precisions=["fp32"], calibration_data=None)
    with pytest.raises(ModelError, match=r"model\.source: .*a folder that holds saved_model\.pb; 'net' is no file"):
        check_inputs(recipe)
    (tmp_path / "net/saved_model.pb").touch()
    check_inputs(recipe)


def test_folder_is_another_model_when_any_file_in_it_changes(tmp_path):
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    weights = tmp_path / "variables/variables.data-00000-of-00001"
    weights.write_bytes(b"one")
    before = model_digest(ModelSection(source=str(tmp_path)))
    assert model_digest(ModelSection(source=f"{tmp_path}/")) == before
    weights.write_bytes(b"two")
    assert model_digest(ModelSection(source=str(tmp_path))) != before


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("nets/mobile.keras", "mobile"),
        ("nets/exported", "exported"),
        ("nets/exported/", "exported"),
        ("nets/exported/1", "exported-1"),
        ("zoo.kws.model_keras:build", "kws-build"),
        ("model:build", "build"),
    ],
)
def test_conversion_is_named_after_its_model(model, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets/exported/1").mkdir(parents=True)
    recipe = conversion_recipe(model, formats=["tflite"], precisions=["fp32"], calibration_data=None)
    assert recipe.name == name


def test_module_that_does_not_parse_is_the_users_mistake(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("def build(:\n")
    with pytest.raises(ModelError, match=r"broken\.py is not valid Python: .*line 1"):
        find_framework("broken:build")


def test_conversion_takes_settings_that_its_options_do_not_name(tmp_path):
    recipe = conversion_recipe(
        "net.pt2", formats=["onnx"], precisions=["int8"], calibration_data=tmp_path, changes=["data.args.size=8"]
    )
    assert recipe.data.args == {"size": 8}
