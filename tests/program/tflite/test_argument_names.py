"""Names of a program's arguments: the file's, as far as Python allows."""

import pytest

from edgekit.program.tflite.read import argument_names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["image"], ("image",)),
        (["serving_default_x:0", "mask"], ("serving_default_x_0", "mask")),
        (["a", "a"], ("a", "a_1")),
        (["lambda", "input", ""], ("input_0", "input_1", "input_2")),
        (["2d", "größe"], ("input_0", "gr__e")),
    ],
)
def test_argument_names_are_those_of_the_file_where_python_allows(names, expected):
    assert argument_names(names) == expected
