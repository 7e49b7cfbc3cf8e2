"""Layer rules."""

import pytest

from edgekit.errors import RecipeError
from edgekit.recipe import LayerInfo, select_layers

LAYERS = [
    LayerInfo("features", "Sequential"),
    LayerInfo("features.0", "Conv2d"),
    LayerInfo("features.1", "ReLU"),
    LayerInfo("features.10", "Conv2d"),
    LayerInfo("head", "Linear"),
]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("head", {"head"}),
        ("features", {"features", "features.0", "features.1", "features.10"}),
        ("features.1", {"features.1"}),
        ("features.*", {"features.0", "features.1", "features.10"}),
        ("features.?", {"features.0", "features.1"}),
        ("type:Conv2d", {"features.0", "features.10"}),
    ],
)
def test_rule_picks_by_name_pattern_or_type(rule, expected):
    assert set(select_layers(LAYERS, [rule], "skip")) == expected


def test_layer_is_attributed_to_the_most_exact_rule():
    picked = select_layers(LAYERS, ["type:Conv2d", "features.*", "features.0"], "skip")
    assert picked["features.0"] == "features.0"
    assert picked["features.10"] == "features.*"


@pytest.mark.parametrize("rule", ["haed", "type:Conv3d", "encoder.*"])
def test_rule_that_matches_nothing_is_an_error_naming_its_place(rule):
    with pytest.raises(RecipeError, match=r"compress\.0\.quantize\.skip: the rule .* matches no layer\. .*Allowed:"):
        select_layers(LAYERS, [rule], "compress.0.quantize.skip")
