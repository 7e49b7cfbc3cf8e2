"""The error tree."""

import inspect

import pytest

from edgekit import errors


def _tree():
    return [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.EdgekitError)]


@pytest.mark.parametrize("kind", _tree(), ids=lambda kind: kind.__name__)
def test_every_error_is_drawn_in_the_tree_with_its_exit_code(kind):
    drawing = errors.__doc__
    assert kind.__name__ in drawing
    branch = {
        2: errors.UserInputError,
        3: errors.EdgekitError,
        1: errors.CheckFailedError,
        130: errors.InterruptedByUserError,
    }
    assert issubclass(kind, branch[kind.exit_code])


def test_unsupported_error_says_what_why_and_instead():
    error = errors.UnsupportedError("int16x8 in Core ML", reason="it has no 16-bit activations", instead="int8 or fp16")
    assert str(error) == "int16x8 in Core ML is not supported: it has no 16-bit activations. Instead: int8 or fp16."
    assert error.exit_code == 2


def test_tool_error_names_stage_and_log():
    error = errors.ToolError("it aborted", stage="export:tflite/int8", log="logs/x.log")
    assert str(error) == "[export:tflite/int8] it aborted (log: logs/x.log)"
    assert error.exit_code == 3


def test_nearest_proposes_the_closest_name_and_lists_all():
    assert errors.nearest("epoch", ["lr", "epochs"]) == "Did you mean 'epochs'? Allowed: epochs, lr."
    assert errors.nearest("zzz", ["lr", "epochs"]) == "Allowed: epochs, lr."
