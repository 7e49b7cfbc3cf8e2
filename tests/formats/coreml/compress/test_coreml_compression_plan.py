"""What a compression means, what it is called, and what is refused before any work."""

from __future__ import annotations

import pytest

from edgekit.errors import RecipeError, UnsupportedError
from edgekit.formats.coreml.compress.plan import plan_weights
from edgekit.pipeline.plan import make_plan
from edgekit.recipe import parse_recipe
from edgekit.recipe.schema import ExportRule
from edgekit.recipe.weights import CompressionRule

USUAL = {"fp32": "fp32", "fp16": "fp32", "int8": "int8", "w8": "w8", "w6": "fp32", "w4": "w4"}
GROUPED = {"scheme": "palette", "granularity": "per_grouped_channel"}


def planned(settings, precision, target=None):
    rule = None if settings is None else CompressionRule(**settings)
    return plan_weights(rule, precision, USUAL[precision], target)


@pytest.mark.parametrize(
    ("settings", "precision", "name", "program", "judged_as"),
    [
        (None, "w8", "", "w8", None),
        (None, "w6", "", "fp32", "w6"),
        ({"scheme": "palette", "name": ""}, "w4", "", "w4", "w4"),
        ({"scheme": "palette", "name": ""}, "fp16", "", "fp32", None),
        ({"scheme": "palette"}, "w4", "palette", "fp32", "w4"),
        ({**GROUPED, "group_size": 8}, "w6", "palette-g8", "fp32", "w6"),
        ({"scheme": "palette", "granularity": "per_channel", "values": "program"}, "w4", "palette-channel", "w4", "w4"),
        ({"scheme": "palette", "cluster_dim": 2, "table": "int8"}, "w4", "palette-d2-int8", "fp32", "w4"),
        ({"scheme": "palette", "values": "trained", "sparsity": "trained"}, "w4", "palette-sparse", "fp32", "fp16"),
        ({"scheme": "linear", "granularity": "per_block"}, "w4", "linear-b32", "fp32", "w4"),
        ({"scheme": "linear", "granularity": "per_tensor"}, "w8", "linear-tensor", "fp32", "w8"),
        ({"scheme": "linear", "sparsity": "trained"}, "int8", "linear-sparse", "int8", "int8"),
        ({"scheme": "linear", "sparsity": 0.755}, "w8", "linear-sparse75p5", "fp32", "w8"),
        ({"scheme": "sparse"}, "fp16", "sparse", "fp32", "fp16"),
        ({"scheme": "sparse", "n_m": (2, 4)}, "fp16", "sparse2of4", "fp32", "w8"),
        ({"scheme": "coremltools"}, "int8", "coremltools", "fp32", "int8"),
        ({**GROUPED, "name": "mine"}, "w4", "mine", "fp32", "w4"),
    ],
)
def test_way_of_storing_weights_is_named_and_judged(settings, precision, name, program, judged_as) -> None:
    found = planned(settings, precision)
    assert (found.name, found.program, found.judged_as) == (name, program, judged_as)


@pytest.mark.parametrize(
    ("settings", "precision", "message"),
    [
        ({"scheme": "palette"}, "fp16", "stores every weight as a float of its own.*w8, w6 or w4"),
        ({"scheme": "sparse"}, "w4", "sparse weights keep their floats.*sparsity: trained"),
        ({"scheme": "linear"}, "w6", "integers of 4 and 8 bits.*palette"),
        ({"scheme": "coremltools"}, "w8", "precision: int8"),
        ({"scheme": "palette"}, "int8", "quantized together with its activations"),
        ({"scheme": "linear", "sparsity": 0.5}, "int8", "prune while training"),
        ({"scheme": "palette", "values": "program"}, "w8", "values: kmeans"),
        ({"scheme": "linear", "skip": "head"}, "w8", r"quantize: \{precision: w8, skip"),
    ],
)
def test_scheme_that_a_precision_cannot_have_is_refused_with_a_way_out(settings, precision, message) -> None:
    with pytest.raises(UnsupportedError, match=message):
        planned(settings, precision)


@pytest.mark.parametrize(
    ("settings", "precision", "needed"),
    [
        ({"scheme": "palette"}, "w6", 16),
        (GROUPED, "w6", 18),
        ({"scheme": "palette", "cluster_dim": 2}, "w4", 18),
        ({"scheme": "palette", "table": "int8"}, "w4", 18),
        ({"scheme": "linear", "granularity": "per_block"}, "w8", 18),
        ({"scheme": "sparse"}, "fp16", 16),
        ({"scheme": "linear", "sparsity": "trained"}, "w8", 18),
        ({"scheme": "linear", "sparsity": "trained"}, "int8", 18),
        (None, "w4", 18),
        (None, "int8", 17),
    ],
)
def test_deployment_target_is_refused_when_too_old_and_taken_when_new_enough(settings, precision, needed) -> None:
    with pytest.raises(UnsupportedError, match=f"from iOS{needed} on"):
        planned(settings, precision, f"iOS{needed - 1}")
    planned(settings, precision, f"iOS{needed}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheme": "linear", "cluster_dim": 2}, "cluster_dim: 2 with scheme: palette only"),
        ({"scheme": "palette", "granularity": "per_block"}, "one of per_tensor, per_channel, per_grouped_channel"),
        ({"scheme": "sparse", "granularity": "per_tensor"}, "no granularity with scheme: sparse"),
        ({"scheme": "palette", "group_size": 4}, "group_size with granularity: per_grouped_channel only"),
        ({**GROUPED, "group_size": 6, "cluster_dim": 4}, "multiple of cluster_dim"),
        ({**GROUPED, "values": "program"}, "values: program with granularity: per_channel"),
        ({"scheme": "sparse", "sparsity": 0.5, "n_m": [2, 4]}, "received both"),
        ({"scheme": "sparse", "n_m": [4, 4]}, "0 < n < m"),
        ({"scheme": "palette", "cluster_dim": 2, "sparsity": 0.5}, "cluster_dim: 1 with sparsity"),
        ({"scheme": "coremltools", "sparsity": 0.5}, "stores every weight"),
        ({"scheme": "palette", "granularity": "per_channel", "cluster_dim": 2}, "across channels"),
    ],
)
def test_settings_that_contradict_each_other_are_an_error(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        ExportRule(format="coreml", precision="w4", compression=settings)


def recipe(export, **changes):
    document = {
        "schema_version": 1,
        "name": "m",
        "model": "sample_models.digits.model_pytorch:build",
        "data": {"module": "sample_models.digits.data:load"},
        "export": export,
        **changes,
    }
    return parse_recipe(document, "test")


def test_unknown_key_of_a_compression_is_named_with_the_nearest_known() -> None:
    with pytest.raises(RecipeError, match=r"compression.*: unknown key 'granularty'\. Did you mean 'granularity'"):
        recipe([{"format": "coreml", "precision": "w4", "compression": {"scheme": "palette", "granularty": "x"}}])
    with pytest.raises(RecipeError, match=r"scheme.*Did you mean 'palette'"):
        recipe([{"format": "coreml", "precision": "w4", "compression": {"scheme": "pallete"}}])


def test_one_precision_is_exported_in_several_ways_each_under_its_name() -> None:
    plan = make_plan(
        recipe(
            [
                {"format": "coreml", "precision": ["w4", "w8"]},
                {"format": "coreml", "precision": "w4", "compression": GROUPED},
                {"format": "coreml", "precision": ["fp16"], "compression": {"scheme": "sparse"}},
            ],
            budgets=[{"artifact": "coreml/w4+palette-g16", "size": "1 MB"}],
            compress=[{"quantize": {"precision": "w4", "skip": "classifier"}}],
        )
    )
    assert [artifact.id for artifact in plan.artifacts] == [
        "coreml/w4",
        "coreml/w8",
        "coreml/w4+palette-g16",
        "coreml/fp16+sparse",
    ]
    assert [artifact.program for artifact in plan.artifacts] == ["w4", "w8", "fp32", "fp32"]
    # A layer that the quantized program would leave alone is left alone by what is made from the float one.
    assert [artifact.compression.skip for artifact in plan.artifacts] == [(), (), ("classifier",), ()]


def test_two_ways_of_one_name_are_an_error_and_other_formats_have_no_compression() -> None:
    with pytest.raises(RecipeError, match=r"received twice: coreml/w4$|received twice: coreml/w4\."):
        make_plan(
            recipe([{"format": "coreml", "precision": "w4", "compression": way} for way in ("linear", "palette")])
        )
    with pytest.raises(RecipeError, match="'compression' means nothing to"):
        make_plan(recipe([{"format": "tflite", "precision": "w4", "compression": {"scheme": "linear"}}]))
    with pytest.raises(UnsupportedError, match="six bits exist as palettes in Core ML"):
        make_plan(recipe([{"format": "tflite", "precision": "w6"}]))
