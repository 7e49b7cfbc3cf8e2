"""Reading recipes: what is accepted, what is refused, and what the refusal says."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import RecipeError
from edgekit.recipe import Recipe, load_recipe, parse_recipe

DESIGN_RECIPE = """
schema_version: 1
name: keyword-spotting
model: sample_models.keyword_spotting.model_pytorch:build
data:
  module: sample_models.keyword_spotting.data:load
train: {epochs: 20, batch_size: 128, optimizer: adamw, lr: 3e-3, device: auto, precision: auto, seed: 7}
compress:
  - prune:    {method: magnitude, sparsity: 0.5, granularity: channel}
  - quantize: {precision: int8, mode: qat, epochs: 5, skip: [classifier]}
export:
  - {format: tflite,     precision: [fp32, int8]}
  - {format: executorch, precision: [fp32, int8], backend: xnnpack}
  - {format: coreml,     precision: [fp16, int8], minimum_deployment_target: iOS17}
verify:  {max_accuracy_drop: 0.01, min_sqnr_db: 20, samples: 256}
profile: {targets: [host, pixel-4, raspberry-pi-4], num_threads: 1}
budgets:
  - {artifact: tflite/int8, size: 80 KiB, latency_p50: {pixel-4: 2 ms}, accuracy: 0.90, delegated: 1.0}
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(DESIGN_RECIPE)
    return path


def test_documented_recipe_is_read_whole(recipe_file):
    recipe = load_recipe(recipe_file)
    assert recipe.train.lr == 0.003
    assert recipe.budgets[0].size == 81920
    assert recipe.budgets[0].latency_p50 == {"pixel-4": 2.0}
    assert recipe.quantize_rule("int8").skip == ("classifier",)
    assert recipe.rule("prune").sparsity == 0.5


def test_recipe_is_the_same_after_a_round_trip_through_yaml(recipe_file):
    recipe = load_recipe(recipe_file)
    document = yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True)))
    assert parse_recipe(document, "round trip") == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.epoch=3", r"train\.epoch: unknown key 'epoch'\. Did you mean 'epochs'\?"),
        ("export.0.precison=int8", r"export\.0\.precison: unknown key.*Did you mean 'precision'"),
        ("compress.0.prune.sparsty=0.5", r"compress\.0\.prune\.sparsty: unknown key.*'sparsity'"),
        ("budgets.0.size=80", r"budgets\.0\.size: expected text with a unit.*received 80"),
        ("budgets.0.size=80 parsec", r"budgets\.0\.size: expected a size with its unit.*Allowed units"),
        ("budgets.0.latency_p50.host=fast", r"latency_p50\.host: expected a duration with its unit"),
        ("train.epochs=many", r"train\.epochs: expected a whole number; received 'many'"),
        ("export.1.precision=int9", r"export\.1\.precision\.0: .*received 'int9'\. Did you mean 'int8'\?"),
        ("name=with space", r"name: "),
        ("data.npz=x.npz", r"data: expected exactly one of module, npz, images, csv; received \['module', 'npz'\]"),
        ("schema_version=2", r"schema_version 2 is newer than this edgekit understands \(1\)"),
        ("nokey", r"--set expects key\.path=value"),
        ("export.9.format=onnx", r"--set export\.9\.format: expected an index from 0 to 2"),
        ("name.x=1", r"--set name\.x: 'name' holds 'keyword-spotting', which has no keys below it"),
    ],
)
def test_mistake_is_refused_with_its_place(recipe_file, change, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_file, [change])


def test_every_mistake_is_listed_at_once(recipe_file):
    with pytest.raises(RecipeError, match="2 problems") as caught:
        load_recipe(recipe_file, ["train.epoch=1", "verify.sampels=3"])
    assert "epochs" in str(caught.value)
    assert "samples" in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n- b", "just text", "", "a: [", "{unbalanced"])
def test_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"expected a mapping|not valid YAML"):
        load_recipe(path)


def test_missing_file_names_the_way_out(tmp_path):
    with pytest.raises(RecipeError, match="edgekit init"):
        load_recipe(tmp_path / "none.yaml")


def test_binary_file_is_refused(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(RecipeError, match="UTF-8"):
        load_recipe(path)


def test_compression_step_twice_is_refused(recipe_file):
    with pytest.raises(RecipeError, match="received twice: quantize to int8"):
        load_recipe(recipe_file, ["compress=[{quantize: {precision: int8}}, {quantize: {precision: int8}}]"])


def test_set_replaces_a_model_given_as_text(recipe_file):
    recipe = load_recipe(recipe_file, ["model.args={width: 2}"])
    assert recipe.model.args == {"width": 2}
    assert recipe.model.source == "sample_models.keyword_spotting.model_pytorch:build"


def test_schema_describes_every_key():
    schema = Recipe.model_json_schema()
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["additionalProperties"] is False
    json.dumps(schema)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(Recipe.model_fields)), JSON_VALUES)
def test_any_value_is_read_or_refused_as_a_recipe_error(key, value):
    document = {**yaml.safe_load(DESIGN_RECIPE), key: value}
    try:
        parse_recipe(document, "fuzz")
    except RecipeError as error:
        assert "fuzz" in str(error)


def test_key_written_twice_is_refused_with_its_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("schema_version: 1\ntrain: {epochs: 1}\ntrain: {epochs: 2}\n")
    with pytest.raises(RecipeError, match=r"(?s)the key 'train' is written twice.*line 3"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("export.0.format=tflit", r"export\.0\.format: .*received 'tflit'\. Did you mean 'tflite'\?"),
        ("export=tflite", r"export: expected a list; received 'tflite'"),
        ("model=3", r"model: expected a mapping of keys to values; received 3"),
        ("train.lr=fast", r"train\.lr: expected a number; received 'fast'"),
    ],
)
def test_mistake_is_told_in_the_words_of_who_writes_yaml(recipe_file, change, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_file, [change])


def test_clustering_is_a_step_of_its_own(recipe_file):
    recipe = load_recipe(recipe_file, ["compress.0={cluster: {clusters: 32, init: density, skip: 'type:Dense'}}"])
    rule = recipe.rule("cluster")
    assert (rule.clusters, rule.init, rule.epochs, rule.lr, rule.skip) == (32, "density", 1, None, ("type:Dense",))
    assert [step.kind for step in recipe.compress] == ["cluster", "quantize"]
    assert recipe.rule("prune") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("compress.0={cluster: {clusters: 1}}", r"compress\.0\.cluster\.clusters: .*greater than or equal to 2"),
        ("compress.0={cluster: {clusters: 257}}", r"less than or equal to 256"),
        ("compress.0={cluster: {init: kmeans}}", r"cluster\.init: .*Did you mean 'kmeans\+\+'"),
        ("compress.0={clutser: {}}", r"unknown key 'clutser'\. Did you mean 'cluster'"),
        ("compress.0={cluster: {}, prune: {sparsity: 0.5}}", r"exactly one of prune, cluster, quantize, distil"),
        ("compress=[{cluster: {}}, {cluster: {}}]", r"received twice: cluster"),
        ("compress.1.quantize.unsupported=raise", r"quantize\.unsupported: expected one of the allowed words"),
    ],
)
def test_mistake_in_clustering_is_refused_with_its_place(recipe_file, change, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_file, [change])


def test_schema_describes_every_compression_step():
    schema = Recipe.model_json_schema()
    assert set(schema["$defs"]["CompressStep"]["properties"]) == {"prune", "cluster", "quantize", "distil"}
    cluster = schema["$defs"]["ClusterRule"]
    assert cluster["properties"]["clusters"] | {"description": ""} == {
        "default": 16, "maximum": 256, "minimum": 2, "title": "Clusters", "type": "integer", "description": "",
    }  # fmt: skip
    assert all(item.get("description") for item in cluster["properties"].values())
    assert schema["$defs"]["QuantizeRule"]["properties"]["unsupported"]["enum"] == ["refuse", "float"]
