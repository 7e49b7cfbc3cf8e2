"""Where the same model is in the other framework."""

import pytest

from edgekit.errors import RecipeError
from edgekit.recipe.pair import PLACEHOLDERS, model_pair


@pytest.mark.parametrize(
    ("model", "pytorch", "keras"),
    [
        ("digits.model_pytorch:build", "digits.model_pytorch:build", "digits.model_keras:build"),
        ("digits.model_keras:build", "digits.model_pytorch:build", "digits.model_keras:build"),
        ("torch_net:make_torch", "torch_net:make_torch", "keras_net:make_torch"),
        ("a.tf_keras:net", "a.pytorch:net", "a.tf_keras:net"),
        ("torch_models.net_keras:build", "torch_models.net_pytorch:build", "torch_models.net_keras:build"),
    ],
)
def test_twin_is_told_from_the_module_that_names_a_framework(model, pytorch, keras):
    assert model_pair(model) == {"pytorch": pytorch, "keras": keras}


def test_stated_models_are_taken_as_they_are():
    assert model_pair(None, pytorch="net.pt2", keras="net.keras") == {"pytorch": "net.pt2", "keras": "net.keras"}
    assert model_pair("m.net_torch:f", keras="other:g") == {"pytorch": "m.net_torch:f", "keras": "other:g"}
    assert model_pair(None, keras="m.net_keras:f")["pytorch"] == "m.net_pytorch:f"
    assert model_pair(None) == PLACEHOLDERS


@pytest.mark.parametrize(
    ("model", "stated"),
    [("net:build", {}), ("torchlight:build", {}), ("net_torch.pt2", {}), (None, {"pytorch": "net.pt2"})],
)
def test_model_that_names_no_framework_is_refused_with_the_way_out(model, stated):
    with pytest.raises(RecipeError, match=r"--model-pytorch and --model-keras.*which does not say where the"):
        model_pair(model, **stated)
